"""One molecule on Pt(111), whole or not, as generated and relaxed, beside random placements and the same formula as atoms.

    python benchmarks/molecules.py run [-n 8]
    python benchmarks/molecules.py report

CO, OH, H2O and NH3 in p(2x2) and p(3x3), two frozen layers. Starts: `random` (the molecule turned at random near the surface, no
atoms too close, CO on its C; the simplest baseline), `atoms` (SurfaceDiffusion with the formula) and `molecules`
(SurfaceDiffusion with the molecule). All are relaxed with 7net-mf-0 (modal PBE and its lattice constant; BFGS, 0.05 eV/A, at most
150 steps). Energies are eV per cell above the lowest whole end of all starts of a row. Whole: all atoms within 1.25 times the sum
of the covalent radii of the one they are bonded to. Upright: that, or C, lies below all others. ``--quick``: CO and H2O with EMT.
"""

from __future__ import annotations

from bench import StructureBenchmark, digest, main, mean_error, seeded, table

# isort: split
import time

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from metals import substrate

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.utils.atoms import mobile_mask
from scripts.metal_oxide_round import with_molecules

NAMES, SIZES, STARTS = ('CO', 'OH', 'H2O', 'NH3'), (2, 3), ('random', 'atoms', 'molecules')


class MoleculesOnPlatinum(StructureBenchmark):
    """An item is a molecule, a cell, a kind of start and a number; it gives the start and the end of a relaxation."""

    name = 'molecules'
    calculator = None

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('-n', type=int, default=8, help='structures of each start (8)')

    def settings(self) -> dict:
        return {'judge': 'emt' if self.quick else '7net-mf-0', 'model': digest('metal-oxide-overlayer')}

    def items(self):
        for number in range(1 if self.quick else self.args.n):
            for name in NAMES[::2] if self.quick else NAMES:
                for size in SIZES[: 1 if self.quick else None]:
                    for start in STARTS:
                        yield f'{name}-{size}x{size}/{start}.{number:03d}', (name, size, start, number)

    def run(self, item) -> list[Atoms]:
        name, size, start, number = item
        self.calculator = self.calculator or get_calculator(self.settings()['judge'])
        slab, options = substrate('Pt', '111', (size, size)), {'rng': number, 'logfile': None, 'compile': False}
        if start == 'random':
            atoms = with_molecules(slab, [name], seeded(number))
        elif start == 'atoms':
            atoms = SurfaceDiffusion(slab, str(molecule(name).symbols), **options).sample()
        else:
            atoms = SurfaceDiffusion(slab, molecules=[name], **options).sample()
        begun = time.process_time()
        end = relax(atoms, self.calculator, fmax=0.05, steps=150)
        end.info['key_value_pairs']['cpu_relax'] = time.process_time() - begun
        atoms.calc = self.calculator
        atoms.get_potential_energy()
        return [atoms, end]

    def summarize(self) -> dict:
        out = {}
        for folder in sorted(path for path in self.store.iterdir() if path.is_dir()):
            found = {start: self.images(f'{folder.name}/{start}.*') for start in STARTS}
            whole = [atoms for images in found.values() for atoms in images[1::2] if is_whole(atoms)]
            zero = min((atoms.get_potential_energy() for atoms in whole), default=np.nan)
            for start, images in found.items():
                begins, ends = images[::2], images[1::2]
                if not ends:
                    continue
                energies = [np.array([atoms.get_potential_energy() for atoms in some]) - zero for some in (begins, ends)]
                out[f'{folder.name} {start}'] = {
                    'n': len(ends),
                    'whole_generated': sum(map(is_whole, begins)),
                    'whole_relaxed': sum(map(is_whole, ends)),
                    'upright_relaxed': sum(is_whole(atoms) and is_upright(atoms) for atoms in ends),
                    'generated_eV': mean_error(energies[0]),
                    'relaxed_eV': mean_error(energies[1]),
                    'lowest_eV': round(float(energies[1].min()), 3),
                    'steps': round(float(np.mean([atoms.info['key_value_pairs']['relax_steps'] for atoms in ends])), 1),
                    'cpu_s': round(float(np.mean([atoms.info['key_value_pairs']['cpu_relax'] for atoms in ends])), 1),
                    'zero_eV': round(zero, 4),
                }
        return out

    def report(self, results: dict) -> None:
        head = ('start', 'n', 'whole', 'relaxed', 'upright', 'as generated, eV', 'relaxed, eV', 'lowest, eV', 'steps', 's')
        keys = ('n', 'whole_generated', 'whole_relaxed', 'upright_relaxed', 'generated_eV', 'relaxed_eV', 'lowest_eV', 'steps')
        print(table(head, [(key, *(r[x] for x in (*keys, 'cpu_s'))) for key, r in results.items()]))


def is_whole(atoms: Atoms) -> bool:
    """Return whether the mobile atoms are the molecule: all others are bonded to the first."""
    first, *others = np.flatnonzero(mobile_mask(atoms))
    radii = covalent_radii[atoms.numbers]
    return bool((atoms.get_distances(first, others, mic=True) < 1.25 * (radii[first] + radii[others])).all())


def is_upright(atoms: Atoms) -> bool:
    """Return whether C of CO, or the atom that the hydrogen is bonded to, is the lowest."""
    mobile = atoms[mobile_mask(atoms)]
    return mobile.symbols[mobile.positions[:, 2].argmin()] == ('C' if 'C' in mobile.symbols else mobile.symbols[0])


if __name__ == '__main__':
    main(MoleculesOnPlatinum)
