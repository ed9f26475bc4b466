"""Overlayers of metals and oxygen on their own facets: as generated, relaxed, and steps to relax, by model and metal.

    python benchmarks/metals.py run [--rows held held-large trained others silver layers adsorbates] [-n 8]
    python benchmarks/metals.py report

Oxygen on Ni and Rh is in no training data. Starts: `random` (the simplest baseline), `renamed` (samples of ag-o-overlayer on
silver, scaled by the lattice constants and renamed), `model` (metal-oxide-overlayer), `chosen` (best of eight of the default
model, each relaxed with the force field metal-oxide), and `random-chosen` (the same of eight random starts: no network that
generates). On four layers of silver, two of them fixed, `held` and `generated` upper layers (ag-o-overlayer). Adsorbates are H,
C, N or S alone. Random starts of the rows `others` are those of the data set `metal-oxide` (on an H200, at most 120 steps).
All are relaxed with 7net-mf-0 (modal PBE; BFGS, 0.05 eV/A, at most 150 steps), oxygen on Ni with CHGNet, since 7net-mf-0 is wrong
there (oxygen_labels.py). Energies are eV per cell above ``zero_eV``, the lowest that any of them, or of the shipped data
`metal-oxide`, found. Ends that lost a molecule (O2, mostly) are counted and left out. "Found": ends within 0.05 eV of the lowest;
the inverse of their share is the number of relaxations that a search takes. Records whose structures are not in the store stay;
``zero_eV`` ties new ones to them. ``--quick``: Cu with EMT, random starts alone. For a GPU: ``--starts-only`` elsewhere, then
``--together 64`` there.
"""

from __future__ import annotations

from bench import StructureBenchmark, digest, main, mean_error, seeded, table, write_images

# isort: split
import time

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.calculators.elements import mixes_functionals
from ase_diffusion.data import read_frames
from ase_diffusion.relax import get_calculator, irelax, relax
from ase_diffusion.search import random_start
from ase_diffusion.utils.atoms import detached, frozen_mask
from scripts.metal_oxide_round import LATTICES, layers

SILVER = 4.16  # A, of the data of ag-o-overlayer
METALS = LATTICES['fcc']  # lattice constants of 7net-mf-0 (modal PBE), A
EVERY = sorted({metal for metals in LATTICES.values() for metal in metals})
# facet: what scripts/metal_oxide_round.py calls it, layers; of four, two relax
FACETS = {facet: (facet, 2) for facet in ('111', '100', '0001', 'bcc110')}
FACETS |= {'110': ('110', 3), 'bcc100': ('bcc100', 3), '111x4': ('111', 4)}
SMALL, LARGE = (3, 2, 4, 2), (3, 3, 6, 3)  # cell, metal and oxygen atoms (or a formula)
CATALYSTS = ('Pt', 'Cu', 'Pd', 'Ni', 'Rh')
ROWS = {
    'held': [(metal, facet, SMALL) for metal in ('Ni', 'Rh') for facet in ('111', '100')],
    'held-large': [(metal, facet, LARGE) for metal in ('Ni', 'Rh') for facet in ('111', '100')],
    'trained': [(metal, facet, SMALL) for facet in ('111', '100', '110') for metal in ('Cu', 'Pd', 'Pt', 'Au', 'Ir', 'Al')],
    'others': [(metal, '0001', SMALL) for metal in ('Ru', 'Os', 'Re', 'Ti', 'Zr', 'Mg')]
    + [(metal, 'bcc110', SMALL) for metal in ('Ta', 'Nb')],
    'silver': [('Ag', '111', (4, 4, 12, 6))],
    'layers': [('Ag', '111x4', LARGE)],
    'adsorbates': [  # each element on each metal, on (111) and (100) in turn
        (metal, ('111', '100')[(k + j) % 2], (2, 2, what))
        for k, what in enumerate(('S2', 'N2', 'H2', 'C2'))
        for j, metal in enumerate(CATALYSTS)
    ],
}
STARTS = ('random', 'renamed', 'model', 'chosen', 'random-chosen', 'held', 'generated')
CANDIDATES = 8  # of which one is chosen
FOUND = 0.05  # eV per cell above the lowest of all starts of a row, within which that minimum counts as found
SAME = 0.003  # eV per cell, of structures that were made again and relaxed elsewhere
FIRST = {'calculator': 'metal-oxide', 'fmax': 0.05, 'steps': 150}  # relaxation of candidates
LAYERS = {'held': False, 'generated': True}  # start: generate_slab


class Metals(StructureBenchmark):
    """An item is a metal, a facet, a cell, a kind of start and a number; its structures are the start and its end."""

    name, goes_on = 'metals', True

    def __init__(self, args):
        super().__init__(args)
        self.calculators = {}

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('--rows', nargs='+', choices=list(ROWS), default=list(ROWS))
        parser.add_argument('--metals', nargs='+', choices=EVERY, default=EVERY, help='of these rows (all)')
        parser.add_argument('--starts', nargs='+', choices=STARTS, default=STARTS[:3])
        parser.add_argument('-n', type=int, default=8, help='structures of each start (8)')
        parser.add_argument('--starts-only', action='store_true', help='make and keep the starts; a later run relaxes them')
        parser.add_argument('--together', type=int, default=1, help='on a GPU: structures in one call of the network')

    def settings(self) -> dict:
        return {
            'numbers': 'mean and standard error; eV per cell above the lowest of the row',
            'judge': 'emt' if self.quick else '7net-mf-0; chgnet for O on Ni',
            'silver': digest('ag-o-overlayer'),
        }

    def items(self):
        rows = [row for name in self.args.rows for row in ROWS[name] if row[0] in self.args.metals]
        rows = [('Cu', '111', (2, 2, 2, 1))] if self.quick else rows
        for number in range(1 if self.quick else self.args.n):
            for metal, facet, what in rows:
                starts = LAYERS if facet == '111x4' else self.args.starts
                renamed = len(what) == 4 and facet in ('111', '100', '110')
                for start in ('random',) if self.quick else [x for x in starts if x != 'renamed' or renamed]:
                    yield f'{row_name(metal, facet, what)}/{start}.{number:03d}', (metal, facet, what, start, number)

    def _run_items(self) -> None:
        """Run item by item, or make all starts and relax them together."""
        if self.args.together == 1 and not self.args.starts_only:
            super()._run_items()
            return
        todo = [(key, self.start(key, item)) for key, item in self.items() if not self.done(key)]
        if self.args.starts_only:
            raise SystemExit(f'{len(todo)} starts wait in {self.store}')
        options = {'fmax': 0.05, 'steps': 150, 'batch_size': self.args.together}
        for judge in sorted({self.judge(atoms) for _, atoms in todo}):
            some = [(key, atoms) for key, atoms in todo if self.judge(atoms) == judge]
            for index, end in irelax([atoms for _, atoms in some], judge, **options):
                key, atoms = some[index]
                write_images(self.path(key), [atoms, end])
                print(f'{time.strftime("%H:%M:%S")} {key}', flush=True)
        self._machine()

    def judge(self, atoms: Atoms) -> str:
        """Return the name of the calculator that relaxes a start."""
        return 'emt' if self.quick else 'chgnet' if mixes_functionals(atoms) else '7net-mf-0'

    def start(self, key: str, item) -> Atoms:
        """Return the start of an item, made and kept where it does not wait in the store."""
        path = self.store / f'{key}.start'
        if not path.exists():
            metal, facet, _, start, _ = item
            begun = time.process_time()
            atoms = made(*item)
            about = {'metal': metal, 'facet': facet, 'start': start, 'cpu_generate': time.process_time() - begun}
            atoms.info.setdefault('key_value_pairs', {}).update(about)
            write_images(path, [atoms])
        return read(path, format='traj')

    def _work(self, key: str, item) -> None:
        super()._work(key, (key, item))

    def run(self, item) -> list:
        key, item = item
        atoms = self.start(key, item)
        name = self.judge(atoms)
        self.calculators[name] = calculator = self.calculators.get(name) or get_calculator(name)
        begun = time.process_time()
        end = relax(atoms, calculator, fmax=0.05, steps=150)
        end.info['key_value_pairs']['cpu_relax'] = time.process_time() - begun
        return [atoms, end]

    def summarize(self) -> dict:
        out, known = dict(self.results), {} if self.quick else in_data()
        for folder in sorted(path for path in self.store.iterdir() if path.is_dir()):
            ends = {start: self.images(f'{folder.name}/{start}.*')[1::2] for start in STARTS}
            whole = {start: list(filter(is_whole, found)) for start, found in ends.items()}
            old = {start: r for start in STARTS if (r := self.results.get(f'{folder.name} {start}'))}
            if any('zero_eV' not in r for r in old.values()):
                found = [z for s, r in old.items() if (z := zero_of(r, ends[s])) is not None]
                if not found:
                    print(f'{folder.name}: the records have no zero_eV, to which new structures could be added; they stay')
                    continue
                old = {start: {'zero_eV': round(found[0], 3), **r} for start, r in old.items()}
            zeros = [r['zero_eV'] for r in old.values()] + [a.get_potential_energy() for some in whole.values() for a in some]
            zero = min([*zeros, *known.get(folder.name, [])], default=0.0)
            for start, found in whole.items():
                if found and (start not in old or len(ends[start]) >= old[start]['n'] + old[start]['lost']):
                    out[f'{folder.name} {start}'] = row(found, zero, len(ends[start]))
                elif start in old:
                    out[f'{folder.name} {start}'] = moved(old[start], zero)
        return dict(sorted(out.items()))

    def report(self, results: dict) -> None:
        head = ('start', 'n', 'lost', 'as generated', 'relaxed', 'lowest', 'found', 'steps', 'generation, s', 'relaxation, s')
        shown = [
            (
                key,
                r['n'],
                r['lost'],
                *(f'{r[name][0]} +- {r[name][1]}' for name in ('generated_eV', 'relaxed_eV')),
                r['lowest_eV'],
                r.get('found', '-'),
            )
            + tuple(f'{r[name][0]}' for name in ('steps', 'cpu_generate_s', 'cpu_relax_s'))
            for key, r in results.items()
        ]
        print(table(head, shown))


def substrate(metal: str, facet: str, cell: tuple[int, int], a: float | None = None):
    """Return frozen layers of a facet; the lattice constants are those of 7net-mf-0, or ``a`` in A."""
    of, depth = FACETS[facet]
    slab = layers(metal, of, (*cell, depth), a)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2 if depth == 4 else slab.get_tags() > 0))
    return slab


def row_name(metal: str, facet: str, what: tuple) -> str:
    """Return the name of a row."""
    return f'{metal}{facet}-{"-".join(map(str, what))}'


def stoich(metal: str, what: tuple) -> str:
    """Return what is put on a slab: a formula, or so many atoms of the metal and of oxygen."""
    return what[2] if len(what) == 3 else f'{metal}{what[2]}O{what[3]}'


def blank(metal: str, facet: str, what: tuple) -> Atoms:
    """Return a structure of a row, its new atoms anywhere."""
    slab = substrate(metal, facet, what[:2])
    slab.extend(Atoms(stoich(metal, what)))
    return slab


def made(metal: str, facet: str, what: tuple, start: str, number: int):
    """Return one start."""
    slab, formula = substrate(metal, facet, what[:2]), stoich(metal, what)
    if start == 'random':
        return random_start(slab, formula, seeded(number))
    if start == 'random-chosen':
        images = [random_start(slab, formula, seeded(10_000 + CANDIDATES * number + k)) for k in range(CANDIDATES)]
        ends = relax(images, **FIRST)
        atoms = min(list(filter(is_whole, ends)) or ends, key=lambda atoms: atoms.get_potential_energy())
        atoms.calc = None
        return atoms
    options = {'rng': number, 'logfile': None, 'compile': False}
    if start in LAYERS:
        return SurfaceDiffusion(slab, formula, generate_slab=LAYERS[start], **options).sample()
    if start == 'chosen':
        options |= {'best_of': CANDIDATES, 'relax': FIRST}
        return SurfaceDiffusion(slab, formula, **options).sample()
    if start == 'model':
        return SurfaceDiffusion(slab, formula, model='metal-oxide-overlayer', **options).sample()
    silver = substrate('Ag', facet, what[:2], SILVER)
    mobile = SurfaceDiffusion(silver, stoich('Ag', what), model='ag-o-overlayer', **options).sample()[len(silver) :]
    mobile.symbols[mobile.symbols == 'Ag'] = metal
    heights = [np.array([0, 0, one.positions[:, 2].max()]) for one in (silver, slab)]
    mobile.positions = (mobile.positions - heights[0]) * METALS[metal] / SILVER + heights[1]
    atoms = slab + mobile
    atoms.set_constraint(slab.constraints)
    return atoms


def in_data() -> dict[str, list[float]]:
    """Return the energies of the ends of the shipped data, eV, by the row that has their substrate and composition."""
    rows = [row for name in ('trained', 'others', 'adsorbates') for row in ROWS[name]]
    names, out = {kind(blank(metal, facet, what)): row_name(metal, facet, what) for metal, facet, what in rows}, {}
    for atoms in read_frames('metal-oxide'):
        if atoms.info['key_value_pairs']['last'] and not len(detached(atoms)) and (name := names.get(kind(atoms))):
            out.setdefault(name, []).append(atoms.get_potential_energy())
    return out


def kind(atoms: Atoms) -> tuple:
    """Return what structures of one substrate, cell and composition share."""
    return *atoms.cell[:2].round(3).ravel(), *sorted(atoms.numbers), int(frozen_mask(atoms).sum())


def is_whole(atoms) -> bool:
    """Return whether a relaxation succeeded and no molecule left the surface."""
    return not (atoms.info['key_value_pairs'].get('relax_failed') or len(detached(atoms)))


def zero_of(record: dict, ends: list) -> float | None:
    """Return the zero of a record without one from its own structures, made again; None where they are others."""
    first = ends[: record['n'] + record['lost']]
    if len(first) < record['n'] + record['lost'] or record['lost']:
        return None
    energies = np.array([atoms.get_potential_energy() for atoms in first])
    zero = energies.mean() - record['relaxed_eV'][0]
    return float(zero) if abs(energies.min() - zero - record['lowest_eV']) < SAME else None


def moved(record: dict, zero: float) -> dict:
    """Return a record with its energies counted from another zero."""
    by, (generated, relaxed) = record['zero_eV'] - zero, (record[name] for name in ('generated_eV', 'relaxed_eV'))
    energies = {
        'generated_eV': [round(generated[0] + by, 3), generated[1]],
        'relaxed_eV': [round(relaxed[0] + by, 3), relaxed[1]],
        'lowest_eV': round(record['lowest_eV'] + by, 3),
        'zero_eV': round(zero, 3),
    }
    kept = {name: value for name, value in record.items() if name != 'found' or not round(by, 3)}
    return kept | energies


def row(ends: list, zero: float, tried: int) -> dict:
    """Return the record of one start; energies in eV per cell above ``zero``."""
    told = [atoms.info['key_value_pairs'] for atoms in ends]
    energies = [atoms.get_potential_energy() - zero for atoms in ends]
    return {
        'n': len(ends),
        'lost': tried - len(ends),
        'generated_eV': mean_error([x['energy_generated'] - zero for x in told]),
        'relaxed_eV': mean_error(energies),
        'lowest_eV': round(min(energies), 3),
        'found': sum(energy <= FOUND for energy in energies),
        'zero_eV': round(zero, 3),
        'steps': mean_error([x['relax_steps'] for x in told]),
        'converged': sum(bool(x['relax_converged']) for x in told),
        'cpu_generate_s': mean_error([x['cpu_generate'] for x in told]),
        'cpu_relax_s': mean_error([x['cpu_relax'] for x in told if 'cpu_relax' in x] or [np.nan]),
    }


if __name__ == '__main__':
    main(Metals)
