"""Structure prediction of held-out formulas: templates, the network, and CHGNet to decide.

    python benchmarks/crystal_prediction.py run retrieval mp_le20.npz -n 1000 --samples 3
    python benchmarks/crystal_prediction.py run retrieval mp_le52.npz --smallest 21 -n 200
    python benchmarks/crystal_prediction.py run network mp_le20.npz -n 200 --samples 10
    python benchmarks/crystal_prediction.py run chgnet mp_le20.npz -n 200 --samples 10 [--relax]
    python benchmarks/crystal_prediction.py run named [--samples 10] [--relax]
    python benchmarks/crystal_prediction.py run retrieval perov_5.npz -n 200 --own; ... run network perov_5.npz --model perov-5
    python benchmarks/crystal_prediction.py report

The first n crystals of a random order (seed 0) of the test split, the same for every part; splits are by formula, and the bank
holds no formula of them. Match rate and RMSE by pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3) of one prediction
and of the best of 2, 3, 5, 10, 20; ``smact``: the judge of DiffCSP, which also asks that prediction and target pass the tests of
structure and of composition (charge neutrality by SMACT). Nothing is left out: a target without a template is a miss.

retrieval: --samples templates of the bank by ``distance`` of element descriptors (electronegativity, radii, group), by the
    fitted distance (``nearest``), and as the generator takes them (``templates``: votes for structure types). --own: a bank of
    the training and validation split of the data in place of the one that ships.
network: samples of the shipped network, as they come and symmetrised within 0.2 A.
chgnet: of --samples templates the lowest in energy by CHGNet, without relaxation or (--relax) relaxed (FrechetCellFilter, at
    most 60 steps, fmax 0.1).
named: ten compounds by ``best_of=--samples`` and CHGNet, without relaxation or (--relax) relaxed; whether the formula is in the
    bank, or in the test split, is told.
"""

from __future__ import annotations

from bench import Benchmark, main, seeded, table

# isort: split
import contextlib
import io
import sys
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion, metrics
from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.generators.crystal import prototypes as p
from ase_diffusion.generators.tasks import FromNoise
from ase_diffusion.representations.reduction import symmetrize
from ase_diffusion.utils.rng import spawn_seeds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'scripts'))
from prototypes import descriptors  # noqa: E402

BEST = (1, 2, 3, 5, 10, 20)
RELAX = {'calculator': 'chgnet', 'filter': 'FrechetCellFilter', 'steps': 60, 'fmax': 0.1}
PARTS = ('retrieval', 'network', 'chgnet', 'named')


def named() -> dict:
    """Return the known ground states, experimental, {formula of the cell: Atoms}."""
    cubic, right = [90, 90, 90], [90, 90, 90]
    return {
        'NaCl': bulk('NaCl', 'rocksalt', a=5.64),
        'GaAs': bulk('GaAs', 'zincblende', a=5.653),
        'Cu': bulk('Cu', 'fcc', a=3.615),
        'CaF2': bulk('CaF2', 'fluorite', a=5.463),
        'SrTiO3': crystal(['Sr', 'Ti', 'O'], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.905] * 3 + cubic),
        'BaTiO3': crystal(['Ba', 'Ti', 'O'], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], spacegroup=221, cellpar=[4.0] * 3 + cubic),
        'Ti2O4': crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, *right]),
        'Si3O6': crystal(
            ['Si', 'O'], [(0.4697, 0, 0), (0.4135, 0.2669, 0.1191)], spacegroup=152, cellpar=[4.916, 4.916, 5.405, 90, 90, 120]
        ),
        'Mg2Al4O8': crystal(
            ['Mg', 'Al', 'O'],
            [(0.125,) * 3, (0.5,) * 3, (0.2624,) * 3],
            spacegroup=227,
            setting=2,
            cellpar=[8.08] * 3 + cubic,
            primitive_cell=True,
        ),
        'Li4Fe4P4O16': crystal(
            ['Li', 'Fe', 'P', 'O', 'O', 'O'],
            [
                (0, 0, 0),
                (0.2822, 0.25, 0.9747),
                (0.0948, 0.25, 0.4182),
                (0.0968, 0.25, 0.7428),
                (0.4571, 0.25, 0.2060),
                (0.1656, 0.0465, 0.2848),
            ],
            spacegroup=62,
            cellpar=[10.332, 6.010, 4.692, *right],
        ),
    }


def first_match(each: list, target) -> tuple[int | None, float | None]:
    """Return the place of the first candidate that matches, and its RMS distance."""
    for k, atoms in enumerate(each):
        rms = metrics.match_rate([atoms], [target], processes=1)['rms'][0]
        if rms is not None:
            return k, rms
    return None, None


def judged(candidates: list[list], targets: list, limit: int) -> dict:
    """Return the match rates of the first and of the best of 2, 3, ... candidates, by both judges, and the RMSE of the first."""
    found = [first_match(each, target) for each, target in zip(candidates, targets, strict=True)]
    place = np.array([np.inf if k is None else k for k, _ in found])
    neutral = metrics.compositional_validity(targets)
    rows = {
        str(k): {'match': round(float((place < k).mean()), 4), 'smact': round(float(((place < k) & neutral).mean()), 4)}
        for k in BEST
        if k <= limit
    }
    first = [rms for k, rms in found if k == 0]
    return {
        'n': len(targets),
        'rmse': round(float(np.mean(first)), 4) if first else None,
        'best_of': rows,
        'none': round(float(np.mean([not each for each in candidates])), 4),
    }


class CrystalPrediction(Benchmark):
    """An item is a part on a data set."""

    name = 'crystal_prediction'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('part', nargs='?', choices=PARTS, default='named')
        parser.add_argument('data', nargs='?')
        parser.add_argument('-n', type=int, default=200)
        parser.add_argument('--smallest', type=int, default=1, help='fewest atoms of a target')
        parser.add_argument('--samples', type=int, default=10)
        parser.add_argument('--relax', action='store_true')
        parser.add_argument('--own', action='store_true', help='a bank of the training and validation split of the data')
        parser.add_argument('--model', default='mp-le20-prediction')

    def items(self):
        args = self.args
        if self.quick:
            yield 'quick', None
            return
        name = Path(args.data).stem if args.data else 'ten compounds'
        key = f'{name}: {args.part}'
        if args.part != 'named':
            key += f', n {args.n}' + (f', from {args.smallest} atoms' if args.smallest > 1 else '')
        key += f', samples {args.samples}'
        yield key + (', relaxed' if args.relax else '') + (', own bank' if args.own else ''), args.part

    def run(self, item) -> dict:
        begun, cpu = time.perf_counter(), time.process_time()
        record = self.short() if item is None else getattr(self, item)()
        about = {'part': item, 'data': Path(self.args.data).stem if self.args.data else None, 'seed': 0}
        seconds = {'seconds': round(time.perf_counter() - begun, 1), 'cpu_seconds': round(time.process_time() - cpu, 1)}
        return {**about, **record, **seconds}

    def short(self) -> dict:
        """Run two targets, to check the code."""
        targets = [named()[name] for name in ('NaCl', 'GaAs')]
        return {'templates': judged([self.taken(p.shipped_prototypes(), atoms.numbers, 3) for atoms in targets], targets, 3)}

    def targets(self) -> list:
        """Return held-out crystals, the same for every part."""
        if self.args.data is None:
            raise SystemExit('name the data')
        images = [atoms for atoms in read_crystals(self.args.data, 'test') if len(atoms) >= self.args.smallest]
        return [images[k] for k in seeded(0).permutation(len(images))[: self.args.n]]

    def bank(self) -> p.Prototypes:
        if not self.args.own:
            return p.shipped_prototypes()
        return p.Prototypes.from_atoms(read_crystals(self.args.data, 'train') + read_crystals(self.args.data, 'val'))

    @staticmethod
    def taken(bank, numbers, limit: int, nearest=False) -> list:
        """Return the structures from templates in their order."""
        numbers = [int(z) for z in numbers]
        found = bank.find(numbers, limit, votes=not nearest)
        return [bank.substituted(template, len(numbers)) for template in found]

    def retrieval(self) -> dict:
        """Compare the orders of templates."""
        targets, bank, limit = self.targets(), self.bank(), self.args.samples
        plain = p.Prototypes({**bank.table, 'similarity': descriptors(np.unique(bank.table['elements']))})
        bank.find([11, 17], 1)
        begun = time.perf_counter()
        found = {'templates': [self.taken(bank, atoms.numbers, limit) for atoms in targets]}
        per = (time.perf_counter() - begun) / len(targets)
        found['nearest'] = [self.taken(bank, atoms.numbers, 1, nearest=True) for atoms in targets]
        found['distance'] = [self.taken(plain, atoms.numbers, limit, nearest=True) for atoms in targets]
        return {name: judged(each, targets, 1 if name == 'nearest' else limit) for name, each in found.items()} | {
            'bank': len(bank),
            'ms_per_formula': round(1e3 * per, 1),
        }

    def samples(self, targets: list, count: int) -> list[list]:
        """Return samples of the network for every target, nothing rejected."""
        gen = CrystalDiffusion('NaCl' if self.args.model != 'perov-5' else 'SrTiO3', model=self.args.model, rng=0, logfile=None)
        gen.numbers, gen.stoich, seeds = [], None, spawn_seeds(0, count * len(targets))
        given = dict(zip(seeds, [t for t in targets for _ in range(count)], strict=True))
        images = []
        for k in range(0, len(seeds), 64):
            images += gen.candidates(seeds[k : k + 64], FromNoise(given.get, gen.steps))
        return [images[k * count : (k + 1) * count] for k in range(len(targets))]

    def network(self) -> dict:
        """Predict by the network alone."""
        targets = self.targets()
        images = self.samples(targets, self.args.samples)
        smooth = [[symmetrize(atoms, 0.2) for atoms in each] for each in images]
        return {
            'model': self.args.model,
            'network': judged(images, targets, self.args.samples),
            'network, symmetrised': judged(smooth, targets, self.args.samples),
        }

    def chgnet(self) -> dict:
        """Let CHGNet choose among templates."""
        targets, bank, count = self.targets(), self.bank(), self.args.samples
        images = [self.taken(bank, atoms.numbers, count) for atoms in targets]
        if self.args.relax:
            from ase_diffusion.relax import relax

            flat = [atoms for each in images for atoms in each]
            with contextlib.redirect_stdout(io.StringIO()):
                done = iter(relax(flat, logfile=None, **RELAX))
            images = [[next(done) for _ in each] for each in images]
            energies = [[atoms.get_potential_energy() / len(atoms) for atoms in each] for each in images]
        else:
            found = iter(metrics.chgnet_energies([atoms for each in images for atoms in each]))
            energies = [[next(found) for _ in each] for each in images]
        chosen = [
            [each[int(np.argmin(np.nan_to_num(e, nan=np.inf)))]] if each else [] for each, e in zip(images, energies, strict=True)
        ]
        return {'chosen': judged(chosen, targets, 1), 'templates': judged(images, targets, count)}

    def named(self) -> dict:
        """Predict ten compounds as a user does."""
        bank, rows = p.shipped_prototypes(), {}
        held = set(bank.table['held_out'].tolist())
        for formula, known in named().items():
            decides = {'relax': RELAX} if self.args.relax else {'calculator': 'chgnet', 'guidance': False}
            gen = CrystalDiffusion(formula, best_of=self.args.samples, symmetrize=0.1, rng=0, logfile=None, **decides)
            begun, atoms = time.perf_counter(), None
            with contextlib.redirect_stdout(io.StringIO()):
                atoms = gen.sample()
            first = CrystalDiffusion(formula, rng=0, logfile=None).sample()
            pairs = atoms.info['key_value_pairs']
            known_formula = any(t.difference == 0 for t in bank.find(gen.numbers))
            rows[formula] = {
                'right': metrics.match_rate([atoms], [known], processes=1)['match_rate'] == 1,
                'first_right': metrics.match_rate([first], [known], processes=1)['match_rate'] == 1,
                'source': pairs['source'],
                'template': pairs.get('template_formula'),
                'in_bank': known_formula,
                'in_test_split': p.formula_hash(gen.numbers) in held,
                'seconds': round(time.perf_counter() - begun, 1),
            }
            print(formula, rows[formula], flush=True)
        return {'named': rows, 'right': sum(row['right'] for row in rows.values())}

    def report(self, results: dict) -> None:
        rows = []
        for key, record in results.items():
            for name, found in record.items():
                if isinstance(found, dict) and 'best_of' in found:
                    one, per = found['best_of']['1'], found['best_of']
                    cells = [f'{100 * per[str(k)]["match"]:.1f}' if str(k) in per else '' for k in BEST]
                    rows.append((key, name, found['n'], *cells, found['rmse'], f'{100 * one["smact"]:.1f}'))
        print(table(('run', 'by', 'n', *(f'best of {k}' for k in BEST), 'RMSE of 1', 'SMACT too, of 1'), rows))
        for record in results.values():
            for formula, row in record.get('named', {}).items():
                print(formula, *(f'{name} {value}' for name, value in row.items()), sep=', ')


if __name__ == '__main__':
    main(CrystalPrediction)
