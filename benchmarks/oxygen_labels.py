"""How strongly 7net-mf-0 and CHGNet bind oxygen to metals: where data mix PBE and PBE+U, energies are wrong by several eV.

    python benchmarks/oxygen_labels.py run
    python benchmarks/oxygen_labels.py report

One O in p(2x2) on two frozen layers of the close-packed facet, near the hollow, relaxed (BFGS, 0.03 eV/A): energy of adsorption,
eV, relative to half an O2 molecule, and the shortest metal-oxygen distance, A, by 7net-mf-0 with the modals PBE and R2SCAN and by
CHGNet. From right to left in a row of the periodic table the binding should become stronger; the data, MPtrj, have oxides of Co,
Cr, Fe, Mo, Ni, V and W with a Hubbard U and their metals without; those of CHGNet are corrected for it. Baseline: calorimetry on
Ni(111), 440 kJ/mol of O2, -2.3 eV for each O (Stuckless et al., J. Chem. Phys. 106, 2012, 1997).
"""

from __future__ import annotations

from bench import Benchmark, main, table

# isort: split
import numpy as np
from ase import Atoms
from ase.build import molecule
from metals import LATTICES, substrate

from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.utils.atoms import frozen_mask

POTENTIALS = {'PBE': '7net-mf-0', 'R2SCAN': '7net-mf-0', 'CHGNet': 'chgnet'}
FACETS = {'fcc': '111', 'hcp': '0001', 'bcc': 'bcc110'}
HOLLOW = {'111': (1 / 3, 1 / 3), '0001': (1 / 3, 1 / 3), 'bcc110': (0.5, 0.25)}  # in units of the surface cell


class OxygenLabels(Benchmark):
    """An item is a facet of a metal."""

    name = 'oxygen_labels'

    def settings(self) -> dict:
        return {'calculator': 'emt' if self.quick else '7net-mf-0, chgnet', 'numbers': 'eV for each O, relative to half an O2; A'}

    def items(self):
        for structure, metals in LATTICES.items():
            for metal in ('Cu',) if self.quick else metals:
                if not self.quick or structure == 'fcc':
                    yield f'{metal}({FACETS[structure]})', (metal, FACETS[structure])

    def run(self, item) -> dict:
        metal, facet = item
        out = {}
        for modal, name in [('EMT', 'emt')] if self.quick else POTENTIALS.items():
            calculator = get_calculator(name, **({'modal': modal} if name == '7net-mf-0' else {}))
            gas = molecule('O2', vacuum=6.0, pbc=(True, True, False))
            half = relax(gas, calculator, fmax=0.03, steps=100).get_potential_energy() / 2
            slab = substrate(metal, facet, (2, 2))
            slab.calc = calculator
            bare = slab.get_potential_energy()
            end = relax(with_oxygen(slab, facet), calculator, fmax=0.03, steps=100)
            mobile = int(np.flatnonzero(~frozen_mask(end))[0])
            nearest = end.get_distances(mobile, range(len(slab)), mic=True).min()
            out[modal] = {
                'adsorption_eV': round(float(end.get_potential_energy() - bare - half), 2),
                'distance_A': round(float(nearest), 2),
            }
        return out

    def report(self, results: dict) -> None:
        names = [name for name in ('EMT', *POTENTIALS) if name in next(iter(results.values()), {})]
        head = ('surface', *(f'{what}, {name}' for name in names for what in ('adsorption, eV', 'distance, A')))
        rows = [
            (key, *(r[name][what] for name in names for what in ('adsorption_eV', 'distance_A'))) for key, r in results.items()
        ]
        print(table(head, rows))
        print('calorimetry on Ni(111): -2.3 eV (Stuckless et al., J. Chem. Phys. 106, 2012, 1997)')


def with_oxygen(slab: Atoms, facet: str) -> Atoms:
    """Return a slab with O 1.3 A above a hollow of its topmost layer."""
    top = slab.positions[slab.positions[:, 2].argmax()]
    place = np.array(HOLLOW[facet]) @ (slab.cell[:2] / 2)
    atoms = slab + Atoms('O', positions=[top + place + [0, 0, 1.3]])
    atoms.set_constraint(slab.constraints)
    return atoms


if __name__ == '__main__':
    main(OxygenLabels)
