"""The claims of Ronne et al. (Phys. Rev. B 110, 235427, 2024) on overlayers, measured with a stated potential.

    python benchmarks/surface_paper.py run ag12o6 random energy-2 -n 200 --potential ag-o
    python benchmarks/surface_paper.py run ag12o6 random energy-2 -n 40 --potential 7net-mf-0
    python benchmarks/surface_paper.py report

``run`` generates and relaxes (BFGS, fmax 0.05 eV/A, at most 200 steps). Every chunk of a variant has its own seed, so that more
can be added later. The test case Ag12O6 in p(4x4) is not in the training data. The variants D-... need the models of
``scripts/surface_subsets.py``. ``surface_paper_2.json`` and ``surface_paper_3.json`` in results are of earlier versions of the
weights; ``report --out FILE`` prints them.
"""

from __future__ import annotations

from bench import RUNS, StructureBenchmark, digest, frozen_slab, grouped, main, rounded, sample_all, seeded, table

# isort: split
import time

import numpy as np

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import ag6_model, duplicates, is_ag6, is_valid
from ase_diffusion.relax import relax, relax_batched
from ase_diffusion.search import random_start

SYSTEMS = {'ag12o6': ((4, 4), 'Ag12O6'), 'ag6o3': ((3, 3), 'Ag6O3')}
SAMPLERS = ('renoised_ancestral', 'ancestral', 'euler_maruyama', 'ddim', 'heun', 'dpmpp_2m')
SHOWN = ('random', 'all-ancestral', 'all', 'energy-8-ancestral', 'energy-2', 'energy-2-guided')  # in the histogram
ANCESTRAL = {'sampler': 'ancestral', 'steps': 100}  # as many calls as 50 steps of renoised_ancestral, the default
UNCONDITIONED = {'energy': None, 'guidance_scale': 0.0}


def variants() -> dict:
    """Return name -> (constructor keywords, conditions); None stands for random starts."""
    table = {'random': None, 'all': ({}, UNCONDITIONED)}
    for scale in (1, 2, 4, 6, 8, 12):
        table[f'energy-{scale}'] = ({}, {'energy': 0.0, 'guidance_scale': float(scale)})
    table['guided'] = ({'guidance': True}, UNCONDITIONED)
    table['guided-early'] = ({'guidance': {'strength': 0.02, 'below': 1.0}}, UNCONDITIONED)
    relax = {'calculator': 'ag-o', 'fmax': 0.05, 'steps': 200}
    for scale in (2, 4, 6, 8, 12):
        asked = {'energy': 0.0, 'guidance_scale': float(scale)}
        table[f'energy-{scale}-guided'] = ({'guidance': True}, asked)
        table[f'energy-{scale}-guided-relaxed'] = ({'guidance': True, 'relax': relax}, asked)
        for count in (4, 8):  # the best of several, as generated, and relaxed with ag-o first
            table[f'energy-{scale}-guided-best-{count}'] = ({'guidance': True, 'best_of': count}, asked)
            table[f'energy-{scale}-guided-relaxed-best-{count}'] = ({'guidance': True, 'best_of': count, 'relax': relax}, asked)
    for name, (options, asked) in [item for item in table.items() if item[1] is not None]:
        table[f'{name}-ancestral'] = ({**options, **ANCESTRAL}, asked)
    table['energy-2-200'] = ({'steps': 200}, {'energy': 0.0, 'guidance_scale': 2.0})
    for sampler in SAMPLERS:
        for steps in (20, 50, 100, 200, 500, 1000):
            table[f'{sampler}-{steps}'] = ({'sampler': sampler, 'steps': steps}, UNCONDITIONED)
    for subset in ('all', 'low', 'ox', 'red'):  # checkpoints trained on parts of the data by scripts/surface_subsets.py
        model = RUNS / f'den_{subset}' / 'best.safetensors'
        table[f'D-{subset}'] = ({'model': str(model), **ANCESTRAL}, UNCONDITIONED)  # which shows what was learnt as it is
    return table


class SurfacePaper(StructureBenchmark):
    """An item is a chunk of structures of one variant on one system, relaxed with one potential."""

    name = 'surface_paper'

    def __init__(self, args):
        super().__init__(args)
        if self.quick:
            args.system, args.variants, args.n, args.steps = 'ag6o3', ['random', 'all'], 4, 10

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('system', nargs='?', choices=SYSTEMS, default='ag12o6')
        parser.add_argument('variants', nargs='*', choices=[*variants(), []], metavar='variant', help=', '.join(variants()))
        parser.add_argument('-n', type=int, default=200, help='structures of each variant (200)')
        parser.add_argument('--potential', default='ag-o')
        parser.add_argument('--steps', type=int, default=50, help='sampling steps where the variant does not say (50)')
        parser.add_argument('--chunk', type=int, default=16, help='structures of one item (16)')

    def settings(self) -> dict:
        return {
            'reference': 'ag12o6: the Ag6 model relaxed with the same potential; ag6o3: the lowest energy seen',
            'seeds': 'random start k: default_rng((7, k)); chunks of samples: default_rng((11, first))',
        }

    def items(self):
        args = self.args
        for variant in args.variants:
            for first in range(0, args.n, args.chunk):
                item = (args.system, variant, args.potential, first, min(args.chunk, args.n - first))
                yield f'{folder(*item[:3])}/{first:05d}', item

    def run(self, item) -> list:
        system, variant, potential, first, count = item
        begun = time.process_time()
        images = generate(system, variant, first, count, self.args.steps)
        middle = time.process_time()
        final = relaxed(images, potential)
        after = time.process_time()
        for start, end in zip(images, final, strict=True):
            end.info['key_value_pairs'] |= {
                'valid_as_generated': is_valid(start),
                'cpu_generate': (middle - begun) / count,
                'cpu_relax': (after - middle) / count,
            }
        return final

    def summarize(self) -> dict:
        pools, results = {}, {}
        for path in sorted(self.store.glob('*/*'), key=lambda path: path.name):
            system, variant, potential = path.name.split('.')
            if path == self.store / folder(system, variant, potential):  # by the present weights
                pools.setdefault((system, potential), {})[variant] = self.images(f'{folder(system, variant, potential)}/*')
        for (system, potential), pool in pools.items():
            if system == 'ag12o6':
                reference = relaxed([ag6_model()], potential)[0].get_potential_energy()
            else:
                reference = min(a.get_potential_energy() for images in pool.values() for a in images if a.calc is not None)
            for variant, images in pool.items():
                of = {'system': system, 'potential': potential, 'variant': variant, 'reference_eV': reference}
                results[f'{system} {potential} {variant}'] = {**of, **summary(images, reference, system)}
        return results

    def report(self, results: dict) -> None:
        head = ('variant', 'n', 'valid %', 'as generated', 'relaxed', 'best', 'steps', 'minima', 'Ag6')
        for (system, potential), rows in grouped(results, 'system', 'potential'):
            print(f'\n{system}, {potential}; eV per cell\n{table(head, [cells(r) for r in rows])}')
        if any('relaxed_eV' in r for r in results.values()):
            draw(results).savefig(self.picture, dpi=130)
        else:
            print('\nno picture: these results are without the energies of single structures')


def folder(system: str, variant: str, potential: str) -> str:
    """Return where the structures of a variant with the present weights are kept, in the store."""
    keywords = variants()[variant]
    models = [] if keywords is None else [keywords[0].get('model', 'ag-o-overlayer')]
    return f'{digest("ag-o-forcefield", *models)}/{system}.{variant}.{potential}'


def generate(system: str, variant: str, first: int, count: int, steps: int) -> list:
    """Return ``count`` structures as generated, number ``first`` and up; invalid ones are kept and counted."""
    cell, stoich = SYSTEMS[system]
    keywords = variants()[variant]
    if keywords is None:
        return [random_start(frozen_slab(cell), stoich, seeded(7, first + k)) for k in range(count)]
    options, conditions = keywords
    gen = SurfaceDiffusion(frozen_slab(cell), stoich, rng=seeded(11, first), logfile=None, **{'steps': steps, **options})
    return sample_all(gen, count, **conditions)


def relaxed(images, potential: str) -> list:
    """Relax with the shipped force field in batches, or with any other calculator one by one."""
    if potential == 'ag-o':
        return relax_batched(images, 'ag-o', fmax=0.05, steps=200)
    return relax(images, potential, fmax=0.05, steps=200)


def summary(images, reference: float, system: str) -> dict:
    """Return the row of the table for one distribution; energies in eV per cell above ``reference``."""
    pairs = [a.info['key_value_pairs'] for a in images]
    good = [k for k, p in enumerate(pairs) if not p.get('relax_failed')]
    start = np.array([pairs[k]['energy_generated'] for k in good]) - reference
    end = np.array([images[k].get_potential_energy() for k in good]) - reference
    steps = np.array([pairs[k]['relax_steps'] for k in good])
    n = len(good)
    row = {
        'n': n,
        'failed': len(images) - n,
        'valid': np.mean([p['valid_as_generated'] for p in pairs]),
        'generated_mean': start.mean(),
        'generated_median': np.median(start),
        'generated_error': start.std() / n**0.5,
        'relaxed_mean': end.mean(),
        'relaxed_error': end.std() / n**0.5,
        'relaxed_best': end.min(),
        'relax_steps_mean': steps.mean(),
        'relax_steps_median': np.median(steps),
        'converged': np.mean([pairs[k]['relax_converged'] for k in good]),
        'distinct_minima': len(set(duplicates([images[k] for k in good]))),
        'cpu_s_generate': np.mean([p['cpu_generate'] for p in pairs]),
        'cpu_s_relax': np.mean([p['cpu_relax'] for p in pairs]),
    }
    if system == 'ag12o6':
        row['ag6_found'] = sum(is_ag6(images[k]) for k in good)
    return rounded({**row, 'relaxed_eV': end})


def cells(r: dict) -> tuple:
    """Return a row of the table."""
    made = f'{r["generated_mean"]:.2f} +- {r["generated_error"]:.2f}'
    end = f'{r["relaxed_mean"]:.2f} +- {r["relaxed_error"]:.2f}'
    best, steps, found = f'{r["relaxed_best"]:.2f}', f'{r["relax_steps_mean"]:.0f}', r.get('ag6_found', '-')
    return r['variant'], r['n'], f'{100 * r["valid"]:.1f}', made, end, best, steps, r['distinct_minima'], found


def draw(results: dict):
    """Return the figure: histograms of relaxed energies of every system, and the curves over sampling steps."""
    import matplotlib.pyplot as plt

    from ase_diffusion.plot import plot_energy_histogram

    pools = list(grouped(results, 'system', 'potential'))
    figure, axes = plt.subplots(len(pools), 2, figsize=(11, 3.6 * len(pools)), squeeze=False)
    for row, ((system, potential), records) in zip(axes, pools, strict=True):
        rows = {r['variant']: r for r in records}
        energies = {name: rows[name]['relaxed_eV'] for name in SHOWN if 'relaxed_eV' in rows.get(name, ())}
        if energies:
            plot_energy_histogram(energies, ax=row[0], limits=(-0.3, 5), xlabel='Energy after relaxation (eV per cell)')
        row[0].set_title(f'{SYSTEMS[system][1]}, {potential}')
        for sampler in SAMPLERS:
            points = sorted((int(n.rsplit('-', 1)[1]), r) for n, r in rows.items() if n.startswith(sampler + '-'))
            if points:
                x = [p for p, _ in points]
                (line,) = row[1].semilogx(x, [r['generated_median'] for _, r in points], 'o-', label=sampler)
                row[1].semilogx(x, [r['relaxed_mean'] for _, r in points], 's--', color=line.get_color(), ms=4)
        row[1].set_xticks((20, 50, 100, 200, 500, 1000), ('20', '50', '100', '200', '500', '1000'), minor=False)
        row[1].minorticks_off()
        row[1].set(xlabel='sampling steps', ylabel='eV per cell (solid: as generated, dashed: relaxed)')
        if row[1].lines:
            row[1].legend(fontsize=8)
        else:
            row[1].set_visible(False)
    figure.tight_layout()
    return figure


if __name__ == '__main__':
    main(SurfacePaper)
