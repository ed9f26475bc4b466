"""Overlayers known from experiment: how many of the relaxed samples, and of relaxed random starts, are the known structure.

    python benchmarks/known_overlayers.py run [-n 32]
    python benchmarks/known_overlayers.py report

Each is built as published and relaxed with 7net-mf-0 (modal PBE, its own lattice constants; BFGS to 0.03 eV/A, at most 200
steps), as are the samples of the default model and random starts. Found: the same by ``metrics.duplicates``, by fingerprint
and energy. ``lower``: ends more than 10 meV per cell below the known one, so that 7net-mf-0 prefers something else.

O p(2x2) on Pt(111) and on Rh(111) (fcc hollow); Cu(110)-(2x1)O, an added row of Cu and O along [001] (Besenbacher and Norskov,
Prog. Surf. Sci. 44, 5, 1993); Cu(100)-(2 sqrt2 x sqrt2)R45-2O, with every fourth row missing (Zeng et al., Surf. Sci. 208, L7,
1989); Pd(100)-(sqrt5 x sqrt5)R27, one layer of PdO(101) (Todorova et al., Surf. Sci. 541, 101, 2003), cut from the crystal and
put where 7net-mf-0 prefers it. Rh with oxygen is in no training data. Single atoms in p(2x2): H on Pt(111) and Ni(111) and S on
Pt(111) and Rh(111) in the fcc hollow; C, N and S on Ni(100) and S on Cu(100) in the fourfold one.
``--quick``: O on Cu(111) with EMT.
"""

from __future__ import annotations

from bench import StructureBenchmark, digest, main, seeded, table

# isort: split
import time

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc100, fcc110, fcc111, make_supercell, sort
from ase.constraints import FixAtoms
from metals import METALS, is_whole

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import duplicates
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.search import random_start

PDO = 'Pd(100)-(r5xr5)R27-PdO(101)'
KNOWN = ('Pt(111) p(2x2)-O', 'Rh(111) p(2x2)-O', 'Cu(110)-(2x1)O', 'Cu(100)-(2r2xr2)R45-2O', PDO)
KNOWN += tuple(f'{on} p(2x2)-{x}' for on, some in {'Pt(111)': 'HS', 'Ni(111)': 'H', 'Rh(111)': 'S'}.items() for x in some)
KNOWN += tuple(f'{on} p(2x2)-{x}' for on, some in {'Ni(100)': 'CNS', 'Cu(100)': 'S'}.items() for x in some)
STARTS = ('model', 'random')


class KnownOverlayers(StructureBenchmark):
    """An item is a known overlayer, a kind of start and a number; the known structure itself is the start 'known', number 0."""

    name, goes_on = 'known_overlayers', True
    calculator = None

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('-n', type=int, default=32, help='structures of each start (32)')
        parser.add_argument('--names', nargs='+', choices=KNOWN, default=KNOWN, help='overlayers (all)')
        parser.add_argument('--starts', nargs='+', choices=STARTS, default=STARTS)

    def settings(self) -> dict:
        return {'judge': 'emt' if self.quick else '7net-mf-0', 'models': digest('metal-oxide-overlayer', 'renamed-silver')}

    def items(self):
        for name in ('Cu(111) (1x1)-O',) if self.quick else self.args.names:
            yield f'{name}/known.000', (name, 'known', 0)
            for number in range(2 if self.quick else self.args.n):
                for start in STARTS[1:] if self.quick else self.args.starts:
                    yield f'{name}/{start}.{number:03d}', (name, start, number)

    def run(self, item) -> list:
        name, start, number = item
        self.calculator = self.calculator or get_calculator(self.settings()['judge'])
        known, frozen = built(name)
        slab = known[:frozen]
        slab.set_constraint(FixAtoms(indices=range(frozen)))
        stoich = str(known[frozen:].symbols)
        if start == 'model':
            known = SurfaceDiffusion(slab, stoich, rng=number, logfile=None, compile=False).sample()
        elif start == 'random':
            known = random_start(slab, stoich, seeded(number))
        begun = time.process_time()
        end = relax(known, self.calculator, fmax=0.03, steps=200)
        end.info['key_value_pairs']['cpu_relax'] = time.process_time() - begun
        return [known, end]

    def summarize(self) -> dict:
        out = dict(self.results)
        for folder in sorted(path for path in self.store.iterdir() if path.is_dir()):
            _, known = self.images(f'{folder.name}/known.*')
            for start in STARTS:
                if ends := [atoms for atoms in self.images(f'{folder.name}/{start}.*')[1::2] if is_whole(atoms)]:
                    energies = np.array([atoms.get_potential_energy() for atoms in ends]) - known.get_potential_energy()
                    out[f'{folder.name} {start}'] = {
                        'n': len(ends),
                        'found': sum(duplicates([known, atoms])[1] == 0 for atoms in ends),
                        'lower': int((energies < -0.01).sum()),
                        'lowest_eV': round(float(energies.min()), 3),
                        'steps': round(float(np.mean([a.info['key_value_pairs']['relax_steps'] for a in ends])), 1),
                        'cpu_s': round(float(np.mean([a.info['key_value_pairs']['cpu_relax'] for a in ends])), 1),
                    }
        return dict(sorted(out.items()))

    def report(self, results: dict) -> None:
        head = ('start', 'n', 'found', 'lower', 'lowest, eV', 'steps', 'relaxation, s')
        print(
            table(
                head,
                [(key, *(r[x] for x in ('n', 'found', 'lower', 'lowest_eV', 'steps', 'cpu_s'))) for key, r in results.items()],
            )
        )


def built(name: str) -> tuple[Atoms, int]:
    """Return a known structure, not relaxed, with its frozen atoms first, and their number."""
    metal, a = name[:2], METALS[name[:2]]
    if '(1x1)' in name or 'p(2x2)' in name:
        build, site = (fcc111, 'fcc') if '(111)' in name else (fcc100, 'hollow')
        slab = build(metal, (1, 1, 2) if '(1x1)' in name else (2, 2, 2), a=a, vacuum=10.0)
        frozen = len(slab)
        add_adsorbate(slab, name[-1], 1.2, site)
    elif '(110)' in name:  # rows along [001], the first axis of ASE, on every second site of the other
        slab = fcc110(metal, (1, 2, 3), a=a, vacuum=10.0)
        frozen = len(slab)
        add_adsorbate(slab, metal, a / 8**0.5, 'hollow')
        add_adsorbate(slab, 'O', a / 8**0.5 + 0.3, 'hollow', offset=(0.5, 0))
    else:
        slab, frozen = palladium_oxide(a) if name == PDO else missing_row(metal, a)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(frozen)))
    slab.wrap()
    return slab, frozen


def missing_row(metal: str, a: float) -> tuple[Atoms, int]:
    """Return (2 sqrt2 x sqrt2)R45-2O on (100): three of four rows along [001] in the topmost layer, O beside the missing one."""
    slab = make_supercell(fcc100(metal, (1, 1, 2), a=a, vacuum=10.0), [[2, 2, 0], [-1, 1, 0], [0, 0, 1]])
    slab = sort(slab, slab.positions[:, 2].round(2))
    frozen, top = len(slab), slab.positions[:, 2].max()
    first = slab.positions[-1] + [0.5 * a / 2**0.5, 0.5 * a / 2**0.5, 0.0]  # a hollow
    row, next_row = slab.cell[1], slab.cell[0] / 4
    for k in (1, 2, 3):
        slab.append(metal)
        slab.positions[-1] = first + k * next_row + (k % 2) * row / 2 + [0, 0, a / 2]
    for k in (1, 3):
        slab.append('O')
        slab.positions[-1] = first + k * next_row + ((k + 1) % 2) * row / 2 + [0, 0, a / 2 + 0.2]
    assert slab.positions[frozen:, 2].min() > top
    return slab, frozen


def palladium_oxide(a: float) -> tuple[Atoms, int]:
    """Return a layer of PdO(101), 2 x 1, on (sqrt5 x sqrt5)R27 of (100): O lies 0.66 A above and below a plane of Pd.

    Of 100 places and orientations the best six by a single point relax to the same structure.
    """
    slab = make_supercell(fcc100('Pd', (1, 1, 2), a=a, vacuum=10.0), [[2, 1, 0], [-1, 2, 0], [0, 0, 1]])
    slab = sort(slab, slab.positions[:, 2].round(2))
    frozen, top = len(slab), slab.positions[:, 2].max()
    layer = [('Pd', 0.25, 0.0, 0.66), ('Pd', 0.75, 0.0, 0.66), ('Pd', 0.0, 0.5, 0.66), ('Pd', 0.5, 0.5, 0.66)]
    layer += [('O', x, y, z) for y, z in ((-0.189, 1.32), (0.189, 0.0)) for x in (0.0, 0.5)]
    for symbol, x, y, z in layer:
        slab.append(symbol)
        slab.positions[-1] = x * slab.cell[0] + (y + 0.2) * slab.cell[1] + [0, 0, top + 1.4 + z]
    return slab, frozen


if __name__ == '__main__':
    main(KnownOverlayers)
