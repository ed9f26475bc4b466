"""CrysTens crystals by CHGNet, beside known crystals; section 6 of Alverson et al.: four relaxations of the best.

Energies are above the hull of CHGNet energies of all crystals of mp_le52. Every row has crystals whose atoms are no closer
than 0.7 of the sum of covalent radii, the default rejection of the generator; what it rejects is drawn again and counted. Rows
without a network: training crystals; test crystals with random coordinates in their sites (elements and cells are those of the
data; the known crystal comes back where symmetry leaves no coordinate free); training crystals with other elements at random,
scaled by the sum of the cubes of covalent radii.

    python benchmarks/crystens_energies.py run --data mp_le52.npz
"""

from __future__ import annotations

from bench import Benchmark, kept, main, number, rounded, seeded, table, write_images

# isort: split
import contextlib
import io
from functools import cache, cached_property

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read
from ase.units import GPa
from crystal_judges import CHGNET
from crystens_paper import in_sites, percent

MODEL, RATIO = 'crystens-mp', 0.7
ROWS = {'training crystals': 64, 'random in given sites': 64, 'other elements': 256, 'mp-le20': 64, MODEL: 256}
BEST, RELAXED, ROUNDS = 20, 24, 4
SCALES, ENERGY, ASKED = (0.0, 1.0, 2.0, 4.0), -2.0, 48
EDGES = (0.1, 0.25, 0.5)
RELAX = {'filter': 'FrechetCellFilter', 'steps': 100, 'fmax': 0.1}
ONE_OF_FOUR = {'filter': 'FrechetCellFilter', 'steps': 30, 'fmax': 0.02}


class CrysTensEnergies(Benchmark):
    """Crystals of the model and of baselines judged by CHGNet."""

    name = 'crystens_energies'

    @staticmethod
    def options(parser):
        parser.add_argument('--data', required=True, help='mp_le52.npz')

    def items(self):
        for name, n in ROWS.items():
            yield name, {'what': name, 'n': 2 if self.quick else n}
        yield f'{MODEL}, relaxed', {'what': 'relaxed', 'n': 1 if self.quick else RELAXED}
        for name in (MODEL, 'other elements'):
            yield f'four relaxations, {name}', {'what': 'four', 'row': name, 'n': 1 if self.quick else BEST}
        for scale in SCALES:
            yield f'asked/{scale:g}', {'what': 'asked', 'scale': scale, 'n': 2 if self.quick else ASKED}

    def run(self, item):
        make = {'relaxed': self.relaxed, 'four': self.four, 'asked': self.asked}.get(item['what'], self.row)
        return rounded(make(**item), 4)

    @cached_property
    def phases(self) -> list[Atoms]:
        """Crystals of all splits with CHGNet energies."""
        every = [atoms for split in ('train', 'val', 'test') for atoms in self.crystals(split)]
        return [atoms for atoms in every if CHGNET in atoms.info['key_value_pairs']]

    @cached_property
    def calculator(self):
        """CHGNet, without the lines that it prints."""
        from ase_diffusion.relax import get_calculator

        with contextlib.redirect_stdout(io.StringIO()):
            return get_calculator('chgnet')

    def crystals(self, split: str) -> list[Atoms]:
        """Return the crystals of a split."""
        return crystals(self.args.data, split)

    def path(self, name: str):
        """Return the trajectory of a row."""
        return self.store / f'{name}.traj'.replace(' ', '-')

    def row(self, what: str, n: int) -> dict:
        """Return the record of crystals as they are."""
        images, tried = self.made(what, n)
        write_images(self.path(what), images)
        return {'what': what, 'n': n, 'accepted': n / tried} | self.judged(images) | self.new(images)

    def made(self, what: str, n: int) -> tuple[list[Atoms], int]:
        """Return n crystals and how many were tried."""
        from ase_diffusion import CrystalDiffusion, CrysTensDiffusion
        from ase_diffusion.representations.cells import conventional
        from ase_diffusion.utils.atoms import min_distance_ratio

        if what in (MODEL, 'mp-le20'):
            gen = (CrysTensDiffusion if what == MODEL else CrystalDiffusion)(model=what, logfile=None, rng=11)
            images = gen.sample(n)
            return images, n + sum(gen.failures.values())
        rng, images, tried = seeded(12), [], 0
        known = self.crystals('test' if what == 'random in given sites' else 'train')
        for k in rng.permutation(len(known)):
            atoms = conventional(known[k])
            if len(atoms) > 52 or len(images) == n:
                continue
            if what == 'random in given sites':
                atoms.set_scaled_positions(in_sites(atoms, rng))
            elif what == 'other elements':
                other_elements(atoms, known, rng)
            tried += 1
            images += [atoms] if min_distance_ratio(atoms) >= RATIO else []
        return images, tried

    def judged(self, images: list[Atoms], energies=None) -> dict:
        """Return formation energies and energies above the hull, eV/atom; ``energies`` per atom, else by CHGNet."""
        from ase_diffusion import metrics

        energies = metrics.chgnet_energies(images, progress=False) if energies is None else energies
        found = np.array(metrics.formation_energies(images, energies))
        hull = metrics.formation_energies(self.phases, metrics.property_values(self.phases, CHGNET))
        above = np.array(metrics.energies_above_hull(images, found, self.phases, hull, processes=1, progress=False))
        return {
            'formation_energy': float(np.nanmedian(found)),
            'above_hull': float(np.nanmedian(above)),
            'below': {f'{edge:g}': float(np.mean(above <= edge)) for edge in EDGES},
            'each': [float(x) for x in above],
        }

    def new(self, images: list[Atoms]) -> dict:
        """Return the shares of distinct and of novel crystals."""
        from ase_diffusion import metrics

        known = self.crystals('train') + self.crystals('val')
        return {
            'unique': float(metrics.unique(images, processes=1).mean()),
            'novel': float(metrics.novel(images, known, processes=1).mean()),
        }

    def relaxed(self, what: str, n: int) -> dict:
        """Return the record of the first crystals of the model, relaxed."""
        images = read(self.path(MODEL), slice(n))
        found = self.after(images, self.path('relaxed'), RELAX)
        return {'what': what, 'n': n} | self.judged(found, [atoms.get_potential_energy() / len(atoms) for atoms in found])

    def after(self, images: list[Atoms], path, settings: dict) -> list[Atoms]:
        """Return relaxed crystals, each kept as soon as it is done."""
        from ase_diffusion.relax import relax

        def make(begin: int, end: int) -> list[Atoms]:
            return [relax(images[k], self.calculator, **settings) for k in range(begin, end)]

        return kept(path, len(images), make, size=1)

    def four(self, what: str, row: str, n: int) -> dict:
        """Return energies (eV/atom) and pressures (GPa) of the best crystals of a row before and after each relaxation."""
        images = read(self.path(row), ':')
        best = [images[k] for k in np.argsort(np.array(self.results[row]['each'], float))[:n]]
        stage, energies, pressures = best, [], []
        for turn in range(ROUNDS + 1):
            if turn:
                stage = self.after(stage, self.path(f'four-{row}-{turn}'), ONE_OF_FOUR)
            both = [self.energy_and_pressure(atoms) for atoms in stage]
            energies.append([e for e, _ in both])
            pressures.append([p for _, p in both])
        return {'what': what, 'n': n, 'energy': energies, 'pressure': pressures} | self.judged(stage, energies[-1])

    def energy_and_pressure(self, atoms: Atoms) -> tuple[float, float]:
        """Return eV/atom and GPa."""
        atoms = atoms.copy()
        atoms.calc = self.calculator
        return atoms.get_potential_energy() / len(atoms), -float(np.mean(atoms.get_stress()[:3])) / GPa

    def asked(self, what: str, scale: float, n: int) -> dict:
        """Return formation energies of crystals that were asked for one, as returned, and of the first ones relaxed."""
        from ase_diffusion import CrysTensDiffusion, metrics

        images = CrysTensDiffusion(MODEL, logfile=None, rng=21).sample(n, formation_energy=ENERGY, guidance_scale=scale)
        after = self.after(images[: 1 if self.quick else RELAXED], self.path(f'asked-{scale:g}'), RELAX)
        energies = metrics.chgnet_energies(images, progress=False), [x.get_potential_energy() / len(x) for x in after]
        record = {'what': what, 'scale': scale}
        for word, stage, values in zip(('', 'relaxed_'), (images, after), energies, strict=True):
            found = np.array(metrics.formation_energies(stage, values))
            low = float(np.mean(found < ENERGY / 2))
            record |= {f'{word}n': len(stage), f'{word}formation_energy': float(np.nanmedian(found)), f'{word}below_half': low}
        return record

    def report(self, results):
        names = [key for key, r in results.items() if 'below' in r and r['what'] != 'four']
        rows = [
            (
                key,
                r['n'],
                percent(r.get('accepted')),
                number(r['formation_energy']),
                number(r['above_hull']),
                *(percent(r['below'][f'{edge:g}']) for edge in EDGES),
                percent(r.get('unique')),
                percent(r.get('novel')),
            )
            for key, r in ((key, results[key]) for key in names)
        ]
        edges = [f'< {edge:g}' for edge in EDGES]
        print(table(('CHGNet, eV/atom', 'n', 'accepted', 'formation', 'above hull', *edges, 'unique', 'novel'), rows))
        rows = []
        for key, r in results.items():
            if r['what'] == 'four':
                e, p = np.array(r['energy']), np.array(r['pressure'])
                fall, press = (np.median(x, axis=1) for x in (e[0] - e, np.abs(p)))
                rows.append(
                    (key, r['n'], number(fall[1], 3), number(fall[-1], 3), *(number(press[k]) for k in (0, 1, -1)))
                    + (number(r['above_hull'], 3), percent(r['below']['0.1']))
                )
        if rows:
            head = ('medians', 'n', 'E0 - E1, eV/atom', 'E0 - E4', '|P0|, GPa', '|P1|', '|P4|', 'above hull', '< 0.1')
            print(f'\n{table(head, rows)}')
        columns = (('n', str), ('formation_energy', number), ('below_half', percent))
        rows = [
            (f'{r["scale"]:g}', *(f(r[word + k]) for word in ('', 'relaxed_') for k, f in columns))
            for r in results.values()
            if r['what'] == 'asked'
        ]
        if rows:
            head = ('n', 'median', f'below {ENERGY / 2:g}')
            print(f'\n{table((f"asked for {ENERGY:g} eV/atom, scale", *head, *(f"relaxed, {x}" for x in head)), rows)}')


@cache
def crystals(data: str, split: str) -> list[Atoms]:
    """Return the crystals of a split of a data set."""
    from ase_diffusion.data.crystals import read_crystals

    return read_crystals(data, split)


def other_elements(atoms: Atoms, known: list[Atoms], rng) -> None:
    """Give every element of a crystal another one, those of a known crystal at random, and the volume that radii say."""
    before = (covalent_radii[atoms.numbers] ** 3).sum()
    old = np.unique(atoms.numbers)
    pool: list[int] = []
    while len(pool) < len(old):
        pool = list(dict.fromkeys([*pool, *known[rng.integers(len(known))].numbers.tolist()]))
    new = dict(zip(old.tolist(), rng.permutation(pool)[: len(old)].tolist(), strict=True))
    atoms.numbers = [new[z] for z in atoms.numbers.tolist()]
    factor = ((covalent_radii[atoms.numbers] ** 3).sum() / before) ** (1 / 3)
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)


if __name__ == '__main__':
    main(CrysTensEnergies)
