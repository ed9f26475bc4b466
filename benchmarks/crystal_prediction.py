"""Structure prediction of held-out formulas: templates, the network, and CHGNet to decide.

    python benchmarks/crystal_prediction.py run retrieval mp_le20.npz -n 1000 --samples 3
    python benchmarks/crystal_prediction.py run retrieval mp_le52.npz --smallest 21 -n 200
    python benchmarks/crystal_prediction.py run elements mp_le20.npz -n 1000 --samples 20
    python benchmarks/crystal_prediction.py run network mp_le20.npz -n 200 --samples 10
    python benchmarks/crystal_prediction.py run chgnet mp_le20.npz -n 200 --samples 10 [--relax]
    python benchmarks/crystal_prediction.py run named [--samples 10] [--relax]
    python benchmarks/crystal_prediction.py run retrieval perov_5.npz -n 200 --own; ... run network perov_5.npz --model perov-5
    python benchmarks/crystal_prediction.py report

The first n crystals of a random order (seed 0) of the test split, the same for every part; splits are by formula, and the bank
holds no formula of them. Match rate and RMSE by pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3) of one prediction
and of the best of 2, 3, 5, 10, 20; ``smact``: the judge of DiffCSP, which also asks that prediction and target pass the tests of
structure and of composition (charge neutrality by SMACT). Nothing is left out: a target without a template is a miss.

retrieval: --samples templates of the bank as the generator takes them (``templates``), the same without those of other anonymous
    formulas (``same anonymous formula``), and the first one by ``distance`` of element descriptors (electronegativity, radii,
    group), by the fitted distance (``nearest``), and with weights exp(-2 distance) added up over alike templates (``alike``).
    --own: a bank of the training and validation split of the data in place of the shipped one.
elements: told the elements alone and neither composition nor number of atoms, the first --samples templates of them; how many
    have the formula, and the same in random order.
space_group: the first template in the space group of the target (spglib, 0.1 A), and how many predictions have it.
network: samples of the shipped network, as they come and symmetrised within 0.2 A.
chgnet: of --samples templates the lowest in energy by CHGNet, and by energy and probability as ``best_of`` decides, without
    relaxation or (--relax) relaxed (FrechetCellFilter, at most 60 steps, fmax 0.1); of the wrong ones, how many lie below the
    known crystal by CHGNet, so that no search for the lowest energy finds it.
named: ten compounds by ``best_of=--samples`` and CHGNet, without relaxation or (--relax) relaxed; whether the formula is in the
    bank, or in the test split, is told.
"""

from __future__ import annotations

from bench import Benchmark, grouped, main, number, seeded, table

# isort: split
import contextlib
import io
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion, metrics
from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.generators.crystal import prototypes as p
from ase_diffusion.generators.crystal.bank import formula_hash
from ase_diffusion.generators.crystal.ranking import by_difference, order
from ase_diffusion.generators.crystal.templates import PRIOR_WEIGHT, ElementTemplates, energy_and_prior
from ase_diffusion.generators.tasks import FromNoise
from ase_diffusion.representations.cells import space_group_of
from ase_diffusion.representations.reduction import symmetrize
from ase_diffusion.utils.rng import spawn_seeds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'scripts'))
from prototypes import descriptors  # noqa: E402

BEST = (1, 2, 3, 5, 10, 20)
RELAX = {'calculator': 'chgnet', 'filter': 'FrechetCellFilter', 'steps': 60, 'fmax': 0.1}
PARTS = ('retrieval', 'elements', 'space_group', 'network', 'chgnet', 'named')


def named() -> dict:
    """Return the known structures, experimental, {formula of the cell: Atoms}; of TiO2 rutile, see also :func:`right`."""
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
            ['Si', 'O'],
            [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)],
            spacegroup=154,
            cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
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


def right(atoms, formula: str) -> bool:
    """Return whether a prediction is the known structure; of TiO2 anatase, lower by PBE and CHGNet, is right as well."""
    known = [named()[formula]]
    if formula == 'Ti2O4':
        sites = {'basis': [(0, 0, 0), (0, 0, 0.2081)], 'spacegroup': 141, 'cellpar': [3.784, 3.784, 9.515, 90, 90, 90]}
        known.append(crystal(['Ti', 'O'], primitive_cell=True, **sites))
    return any(metrics.match_rate([atoms], [each], processes=1)['match_rate'] == 1 for each in known)


def first_match(each: list, target) -> tuple[int | None, float | None]:
    """Return the place of the first candidate that matches, and its RMS distance."""
    for k, atoms in enumerate(each):
        rms = metrics.match_rate([atoms], [target], processes=1)['rms'][0]
        if rms is not None:
            return k, rms
    return None, None


def places(candidates: list[list], targets: list) -> dict:
    """Return how many targets a candidate at the places 0, 1, ... is the first to match, and the mean RMS distance of place 0."""
    return summary([first_match(each, target) for each, target in zip(candidates, targets, strict=True)], targets)


def summary(found: list, targets: list) -> dict:
    """Return counts by place, of all and of charge-neutral targets, as text; the sum of RMS distances; how many targets.

    ``found``: place and RMS distance of the first candidate that matches, for each target.
    """
    place, rms = [k for k, _ in found], [rms for k, rms in found if k == 0]
    neutral = metrics.compositional_validity(targets)
    most = max([k for k in place if k is not None], default=-1) + 1
    pairs = list(zip(place, neutral, strict=True))
    counts = [[sum(k == at and (every or flag) for k, flag in pairs) for at in range(most)] for every in (True, False)]
    text = [' '.join(map(str, row)) for row in counts]
    return {'n': len(place), 'at': text[0], 'neutral_at': text[1], 'rms': round(float(sum(rms)), 4)}


def judged(parts: list[dict], limit: int) -> dict:
    """Return match rates of the best of 1, 2, ... candidates, by both judges, and the RMSE of the first."""
    total = sum(part['n'] for part in parts)

    def met(name, k):
        return sum(int(count) for part in parts for count in part[name].split()[:k])

    rates = {k: (met('at', k) / total, met('neutral_at', k) / total) for k in BEST if k <= limit}
    return {'n': total, 'rates': rates, 'rmse': sum(part['rms'] for part in parts) / max(met('at', 1), 1)}


class CrystalPrediction(Benchmark):
    """An item is a part on a data set."""

    name = 'crystal_prediction'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('part', nargs='?', choices=PARTS, default='named')
        parser.add_argument('data', nargs='?')
        parser.add_argument('-n', type=int, default=200)
        parser.add_argument('--chunk', type=int, default=50, help='targets of one item')
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
        key = f'{name}: {args.part}, samples {args.samples}'
        key += f', from {args.smallest} atoms' if args.smallest > 1 else ''
        key += (', relaxed' if args.relax else '') + (', own bank' if args.own else '')
        if args.part == 'named':
            for formula in named():
                yield f'{key}, {formula}', formula
            return
        for begin in range(0, args.n, args.chunk):
            yield f'{key}, {begin} to {min(begin + args.chunk, args.n)}', begin

    def run(self, item) -> dict:
        begun, cpu = time.perf_counter(), time.process_time()
        args = self.args
        if item is None:
            targets = [named()[name] for name in ('NaCl', 'GaAs')]
            record = {'templates': places([self.taken(p.shipped_prototypes(), atoms.numbers, 3) for atoms in targets], targets)}
        elif args.part == 'named':
            record = self.named(item)
        else:
            self.begin, targets = item, self.targets(item)
            record = getattr(self, args.part)(targets)
        run = f'{Path(args.data).stem if args.data else "ten compounds"}: {args.part}'
        run += f', from {args.smallest} atoms' if args.smallest > 1 else ''
        run += f', {args.samples} candidates' + (', relaxed' if args.relax else '') + (', own bank' if args.own else '')
        about = {'run': run, 'limit': args.samples, 'seed': 0}
        seconds = {'seconds': round(time.perf_counter() - begun, 1), 'cpu_seconds': round(time.process_time() - cpu, 1)}
        return {**about, **record, **seconds}

    def targets(self, begin: int) -> list:
        """Return held-out crystals of a chunk, the same for every part."""
        if self.args.data is None:
            raise SystemExit('name the data')
        images = [atoms for atoms in read_crystals(self.args.data, 'test') if len(atoms) >= self.args.smallest]
        places = seeded(0).permutation(len(images))
        return [images[k] for k in places[begin : min(begin + self.args.chunk, self.args.n)]]

    def bank(self) -> p.Prototypes:
        if not self.args.own:
            return p.shipped_prototypes()
        return p.Prototypes.from_atoms(read_crystals(self.args.data, 'train') + read_crystals(self.args.data, 'val'))

    @staticmethod
    def taken(bank, numbers, limit: int, nearest=False) -> list:
        """Return the structures from templates in their order, with their probabilities."""
        numbers = [int(z) for z in numbers]
        images = []
        for template in bank.find(numbers, limit, ranked=not nearest):
            images.append(bank.substituted(template, len(numbers)))
            images[-1].info['key_value_pairs'] = {'template_chance': template.chance, 'derived': bool(template.sites)}
        return images

    @staticmethod
    def added(bank, numbers: list[int]) -> list:
        """Return the structure whose templates weigh most, without a network."""
        rows, difference, places, new = (each[: p.CANDIDATES] for each in bank.near(numbers))
        if not len(rows):
            return []
        found = bank.features(rows, difference, places, new, len(numbers))
        (first, *_), _ = order(by_difference(found, bank.natoms[rows] < len(numbers)), found.alike)
        template = p.Template(int(rows[first]), tuple(new[places[first]].tolist()), float(difference[first]))
        return [bank.substituted(template, len(numbers))]

    def retrieval(self, targets: list) -> dict:
        """Compare the orders of templates."""
        bank, limit = self.bank(), self.args.samples
        plain = p.Prototypes({**bank.table, 'similarity': descriptors(np.unique(bank.table['elements']))})
        bank.find([11, 17], 1)
        begun = time.process_time()
        mine = [self.taken(bank, atoms.numbers, limit) for atoms in targets]
        per = (time.process_time() - begun) / len(targets)
        matches, same = [first_match(each, target) for each, target in zip(mine, targets, strict=True)], []
        for each, match, target in zip(mine, matches, targets, strict=True):
            if any(atoms.info['key_value_pairs']['derived'] for atoms in each):
                with mock.patch.object(p, 'SLIGHT', 1):
                    match = first_match(self.taken(bank, target.numbers, limit), target)
            same.append(match)
        done = {'templates': summary(matches, targets), 'same anonymous formula': summary(same, targets)}
        found = {'alike': [self.added(bank, atoms.numbers.tolist()) for atoms in targets]}
        found['nearest'] = [self.taken(bank, atoms.numbers, 1, nearest=True) for atoms in targets]
        found['distance'] = [self.taken(plain, atoms.numbers, 1, nearest=True) for atoms in targets]
        return done | {name: places(each, targets) for name, each in found.items()} | {'cpu_ms_per_formula': round(1e3 * per, 1)}

    def elements(self, targets: list) -> dict:
        """Tell the elements of the targets alone."""
        found: dict[str, list] = {'templates of the elements': [], 'in random order': []}
        formulas = dict.fromkeys(found, 0)
        for k, target in enumerate(targets):
            every = ElementTemplates(True, sorted(set(target.numbers.tolist())), most=52)
            mixed = [every.every[at] for at in seeded(self.begin, k).permutation(len(every.every))]
            for name, templates in zip(found, (every.ordered(k).found, mixed), strict=True):
                images = [every.bank.substituted(template) for template in templates[: self.args.samples]]
                found[name].append(images)
                formulas[name] += formula_hash(target.numbers) in {formula_hash(atoms.numbers) for atoms in images}
        return {name: places(each, targets) for name, each in found.items()} | {'formulas': formulas}

    def space_group(self, targets: list) -> dict:
        """Ask for the space group of the target."""
        bank, images, same = self.bank(), [], 0
        for target in targets:
            group, numbers = space_group_of(target, 0.1), target.numbers.tolist()
            found = bank.find(numbers, 1, space_group=group)
            images.append([bank.substituted(template, len(numbers)) for template in found])
            same += sum(space_group_of(atoms, 0.1) == group for atoms in images[-1])
        return {
            'in the space group': places(images, targets),
            'asked': len(targets),
            'found': sum(map(len, images)),
            'same': same,
        }

    def network(self, targets: list) -> dict:
        """Predict by the network alone."""
        count = self.args.samples
        gen = CrystalDiffusion(
            targets[0].get_chemical_formula(), templates=False, model=self.args.model, rng=0, logfile=None, symmetrize=None
        )
        gen.numbers, gen.stoich, seeds = [], None, spawn_seeds(self.begin, count * len(targets))
        given = dict(zip(seeds, [t for t in targets for _ in range(count)], strict=True))
        images = [
            atoms
            for k in range(0, len(seeds), 64)
            for atoms in gen.candidates(seeds[k : k + 64], FromNoise(given.get, gen.steps))
        ]
        images = [images[k * count : (k + 1) * count] for k in range(len(targets))]
        smooth = [[symmetrize(atoms, 0.2) for atoms in each] for each in images]
        return {'network': places(images, targets), 'network, symmetrised': places(smooth, targets)}

    def chgnet(self, targets: list) -> dict:
        """Let CHGNet choose among templates."""
        bank, count = self.bank(), self.args.samples
        images = [self.taken(bank, atoms.numbers, count) for atoms in targets]
        flat = [atoms for each in images for atoms in each]
        if self.args.relax:
            from ase_diffusion.relax import relax

            with contextlib.redirect_stdout(io.StringIO()):
                flat = relax(flat, logfile=None, **RELAX)
            energies = iter([atoms.get_potential_energy() / len(atoms) for atoms in flat])
        else:
            energies = iter(metrics.chgnet_energies(flat))
        flat, found = iter(flat), {'lowest energy': [], 'energy and probability': []}
        for each in images:
            race = [next(flat) for _ in each]
            for atoms, energy in zip(race, energies, strict=False):
                atoms.calc = SinglePointCalculator(atoms, energy=len(atoms) * np.nan_to_num(energy, nan=np.inf))
            for name, w in (('lowest energy', 0), ('energy and probability', PRIOR_WEIGHT)):
                found[name].append(sorted(race, key=lambda atoms: energy_and_prior(atoms, w))[:1])  # noqa: B023
        found['templates'] = images
        matches = {name: [first_match(*pair) for pair in zip(each, targets, strict=True)] for name, each in found.items()}
        known, counts = metrics.chgnet_energies(targets), {'missed': 0, 'candidate': 0, 'below': 0}
        for each, (place, _), (right_one, _), energy in zip(
            found['lowest energy'], matches['lowest energy'], matches['templates'], known, strict=True
        ):
            there = place is None and right_one is not None
            counts['missed'] += place is None
            counts['candidate'] += there
            counts['below'] += there and each[0].get_potential_energy() / len(each[0]) < energy
        return {name: summary(each, targets) for name, each in matches.items()} | {'lowest': counts}

    def named(self, formula: str) -> dict:
        """Predict one of ten compounds as a user does."""
        bank = p.shipped_prototypes()
        decides = {'relax': RELAX} if self.args.relax else {'calculator': 'chgnet', 'guidance': False}
        gen = CrystalDiffusion(formula, best_of=self.args.samples, rng=0, logfile=None, **decides)
        with contextlib.redirect_stdout(io.StringIO()):
            atoms = gen.sample()
        first = CrystalDiffusion(formula, rng=0, logfile=None).sample()
        pairs = atoms.info['key_value_pairs']
        return {
            'formula': formula,
            'right': right(atoms, formula),
            'first_right': right(first, formula),
            'space_group': space_group_of(atoms, 0.1),
            'source': pairs['source'],
            'template': pairs.get('template_formula'),
            'in_bank': any(template.difference == 0 for template in bank.find(gen.numbers)),
            'in_test_split': formula_hash(gen.numbers) in set(bank.table['held_out'].tolist()),
        }

    def report(self, results: dict) -> None:
        rows = []
        for (run,), records in grouped(results, 'run'):
            names = {name for record in records for name, found in record.items() if isinstance(found, dict) and 'at' in found}
            for name in sorted(names):
                parts = [record for record in records if name in record]
                limit = (
                    1
                    if name in ('nearest', 'alike', 'distance', 'lowest energy', 'energy and probability', 'in the space group')
                    else min(record['limit'] for record in parts)
                )
                found = judged([record[name] for record in parts], limit)
                cells = [f'{100 * found["rates"][k][0]:.1f}' if k in found['rates'] else '' for k in BEST]
                cells += [number(found['rmse'], 3), f'{100 * found["rates"][1][1]:.1f}']
                cells.append(f'{sum(record["cpu_seconds"] for record in parts):.0f}')
                rows.append((run, name, found['n'], *cells))
        for (run,), records in grouped({k: r for k, r in results.items() if 'lowest' in r}, 'run'):
            missed, candidate, below = (sum(r['lowest'][name] for r in records) for name in ('missed', 'candidate', 'below'))
            print(f'{run}: the lowest energy misses {missed}, {candidate} with a right candidate; for {below} of these the one')
            print('    that was taken lies below the known crystal by CHGNet')
        print(table(('run', 'by', 'n', *(f'best of {k}' for k in BEST), 'RMSE', 'SMACT too', 'CPU s'), rows))
        for (run,), records in grouped({k: r for k, r in results.items() if 'formulas' in r}, 'run'):
            for name in records[0]['formulas']:
                print(f'{run}, {name}: the formula is there {sum(r["formulas"][name] for r in records)} times')
        for (run,), records in grouped({k: r for k, r in results.items() if 'same' in r}, 'run'):
            asked, found, same = (sum(record[name] for record in records) for name in ('asked', 'found', 'same'))
            print(f'{run}: {asked} space groups asked for, {found} with a template, {same} results have it')
        for record in results.values():
            if 'formula' in record:
                names = ('formula', 'right', 'first_right', 'source', 'template', 'in_bank', 'in_test_split')
                print(record['run'], *(f'{name} {record[name]}' for name in names), sep=', ')


if __name__ == '__main__':
    main(CrystalPrediction)
