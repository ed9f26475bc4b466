"""What force guidance by different calculators gives and costs, at equal seeds: Ag6O3 in p(3x3), judged by one potential.

    python benchmarks/guidance.py run [-n 8]
    python benchmarks/guidance.py report

Samples of the unconditional model (guidance by forces has the most to do there) are guided by nothing, by the shipped force
field, by CHGNet and by 7net-mf-0, on every second step below t = 0.5. All are then relaxed with 7net-mf-0 (BFGS, 0.05 eV/A, at
most 200 steps), and the energies are those of 7net-mf-0. Calls in all: guidance and relaxation, each per structure. Only seeds
that all guides have count. ``--quick``: no guidance and the shipped force field, which judges as well.
"""

from __future__ import annotations

from bench import StructureBenchmark, digest, frozen_slab, main, mean_error, sample_all, table

# isort: split
import time

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import validity
from ase_diffusion.relax import get_calculator, relax

GUIDES = ('None', 'ag-o', 'chgnet', '7net-mf-0')
OPTIONS = {'every': 2, 'finish_steps': 10}


class Guidance(StructureBenchmark):
    """An item is a seed and a guide; its structures are the sample and the relaxed one."""

    name = 'guidance'

    def __init__(self, args):
        super().__init__(args)
        self.guides, self.judge, self.steps, self.calculators = GUIDES, '7net-mf-0', 50, {}
        if self.quick:
            self.guides, self.judge, self.steps = ('None', 'ag-o'), 'ag-o', 12

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('-n', type=int, default=8, help='seeds (8)')

    def settings(self) -> dict:
        return {
            'system': 'Ag6O3 in p(3x3) Ag(111), unconditional samples; eV per cell above the lowest',
            'numbers': 'mean and standard error',
            'steps': self.steps,
            'guidance': OPTIONS,
            'judge': self.judge,
            'weights': digest('ag-o-forcefield', 'ag-o-overlayer'),
        }

    def key(self, guide: str, number: int) -> str:
        """Return the key of an item."""
        return f'{self.settings()["weights"]}/{guide}.{number:03d}'

    def items(self):
        for number in range(2 if self.quick else self.args.n):
            for guide in self.guides:
                yield self.key(guide, number), (guide, number)

    def calculator(self, name: str):
        """Return a calculator, each loaded once; the shipped force field by its name."""
        if name != 'ag-o' and name not in self.calculators:
            self.calculators[name] = get_calculator(name)
        return self.calculators.get(name, name)

    def run(self, item) -> list:
        guide, number = item
        guidance = None if guide == 'None' else {'calculator': self.calculator(guide), **OPTIONS}
        options = {'steps': self.steps, 'guidance': guidance, 'logfile': None, 'compile': False}
        gen = SurfaceDiffusion(frozen_slab((3, 3)), 'Ag6O3', rng=number, **options)
        begun = time.process_time()
        (start,) = sample_all(gen, 1, energy=None, guidance_scale=0.0)
        middle = time.process_time()
        end = relax(start, self.calculator(self.judge), fmax=0.05, steps=200)
        for atoms in (start, end):
            atoms.info['key_value_pairs'] |= {'cpu_generate': middle - begun, 'cpu_relax': time.process_time() - middle}
        return [start, end]

    def summarize(self) -> dict:
        folder, numbers = self.path(self.key('None', 0)).parent, []
        for guide in self.guides:
            numbers.append({int(path.stem.rsplit('.', 1)[1]) for path in folder.glob(f'{guide}.*.traj')})
        pairs = {guide: [self.images(self.key(guide, k)) for k in sorted(set.intersection(*numbers))] for guide in self.guides}
        done = [end for rows in pairs.values() for _, end in rows if not end.info['key_value_pairs'].get('relax_failed')]
        zero = min((end.get_potential_energy() for end in done), default=0.0)
        return {guide: row(rows, zero) for guide, rows in pairs.items() if rows}

    def report(self, results: dict) -> None:
        heads = {
            'generated_eV': 'as generated',
            'relaxed_eV': 'relaxed',
            'relax_steps': 'steps',
            'guidance_calls': 'guidance',
            'calls_in_all': 'calls in all',
            'cpu_generate_s': 'generation, s',
            'cpu_relax_s': 'relaxation, s',
        }
        rows = []
        for guide, r in results.items():
            cells = ['{0[0]} +- {0[1]}'.format(r[name]) for name in heads]
            rows.append((guide, r['n'], r['failed'], f'{100 * r["valid"]:.1f}', *cells))
        print(f'{self.file["settings"]["system"]}; judged by {self.file["settings"]["judge"]}')
        print(table(('guide', 'n', 'failed', 'valid %', *heads.values()), rows))


def row(pairs: list, zero: float) -> dict:
    """Return the record of one guide from (sample, relaxed) pairs; energies in eV per cell above ``zero``."""
    told = [end.info['key_value_pairs'] for _, end in pairs]
    good = [k for k, x in enumerate(told) if not x.get('relax_failed')]
    calls = [told[k].get('guidance_calls', 0) for k in good]
    return {
        'n': len(pairs),
        'failed': len(pairs) - len(good),
        'valid': validity([start for start, _ in pairs]),
        'generated_eV': mean_error([told[k]['energy_generated'] - zero for k in good]),
        'relaxed_eV': mean_error([pairs[k][1].get_potential_energy() - zero for k in good]),
        'relax_steps': mean_error([told[k]['relax_steps'] for k in good]),
        'guidance_calls': mean_error(calls),
        'calls_in_all': mean_error([n + told[k]['relax_steps'] + 1 for n, k in zip(calls, good, strict=True)]),
        'cpu_generate_s': mean_error([x['cpu_generate'] for x in told]),
        'cpu_relax_s': mean_error([x['cpu_relax'] for x in told]),
    }


if __name__ == '__main__':
    main(Guidance)
