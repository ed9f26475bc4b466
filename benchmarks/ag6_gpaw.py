"""GPAW as the arbiter: does density-functional theory put the Ag6 model below the other Ag12O6 overlayers on p(4x4) Ag(111)?

    python benchmarks/ag6_gpaw.py run --files runs/surface_paper/*/ag12o6.energy-8*/*.traj --relax-steps 0
    python benchmarks/ag6_gpaw.py report

``run`` relaxes the Ag6 model with 7net-mf-0 (with its symmetry, and without), takes the lowest different candidates of the files
beside it (relaxed with 7net-mf-0 as well), and computes all of them with 7net-mf-0, 7net-0, CHGNet and GPAW: PBE, LCAO with a dzp
basis at the Gamma point, 11 electrons per Ag, grid spacing 0.2 A, Fermi smearing 0.1 eV. It needs hours. The structures are in
the results, so that the report and a later run do not need the trajectories. ``--relax-steps N`` lets GPAW relax each of them by
up to N steps of BFGS afterwards. ``--quick``: the Ag6 model alone and the shipped force field.

Known limits: two frozen layers of the lattice constant of 7net-mf-0 (4.16 A; PBE 4.15), one k-point, a small basis. Differences
between overlayers of one composition in one cell suffer least from all three.
"""

from __future__ import annotations

from bench import Benchmark, main, table

# isort: split
import time

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read
from ase.optimize import BFGS

from ase_diffusion.metrics import ag6_model, duplicates, is_ag6
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.utils.atoms import frozen_mask

FIRST, DISTORTED = 'Ag6 model', 'Ag6 distorted'
VACUUM = 6.0  # A on either side, for GPAW
GPAW = {
    'mode': 'lcao',
    'basis': 'dzp',
    'xc': 'PBE',
    'h': 0.2,
    'kpts': (1, 1, 1),
    'setups': {'Ag': '11'},
    'occupations': {'name': 'fermi-dirac', 'width': 0.1},
    'convergence': {'energy': 2e-5, 'density': 5e-4},  # eV and electrons per valence electron
    'symmetry': 'off',
    'maxiter': 200,
}


class Ag6Gpaw(Benchmark):
    """An item is a structure with one method; the structures are records, too."""

    name = 'ag6_gpaw'

    def __init__(self, args):
        super().__init__(args)
        self.potentials = ('ag-o',) if self.quick else ('7net-mf-0', '7net-0', 'chgnet')
        self.calculators = {}

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('--files', nargs='+', help='relaxed Ag12O6 candidates (the first run needs them)')
        parser.add_argument('--count', type=int, default=3, help='candidates beside the Ag6 model (3)')
        parser.add_argument('--relax-steps', type=int, default=0, help='steps of BFGS with GPAW, after all single points (0)')

    def settings(self) -> dict:
        return {'gpaw': GPAW}

    def structures(self) -> dict:
        """Return the records of the structures."""
        return {name: r for name, r in self.results.items() if 'positions' in r}

    def items(self):
        if not self.structures():
            self.prepare()
        yield DISTORTED, (DISTORTED, None)
        methods = self.potentials if self.quick else (*self.potentials, 'gpaw')
        for method in methods:
            for name in self.structures():
                yield f'{name}: {method}', (name, method)
        for name in self.structures() if self.args.relax_steps else ():
            yield f'{name}: gpaw, relaxed', (name, 'gpaw, relaxed')

    def done(self, key: str) -> bool:
        steps = self.results.get(key, {}).get('relaxed', {}).get('steps', np.inf)
        return key in self.results and steps >= self.args.relax_steps

    def run(self, item) -> dict:
        name, method = item
        if method is None:
            return self.distort()
        of = {'structure': name, 'method': method.split(',')[0]}
        if method == 'gpaw':
            begun = time.monotonic()
            energy = float(self.gpaw_atoms(name).get_potential_energy())
            return {**of, 'energy': energy, 'seconds': round(time.monotonic() - begun)}
        if method == 'gpaw, relaxed':
            return self.gpaw_relaxed(name, of)
        atoms, calc = unpack(self.results[name]), self.calculator(method)
        point, final = relax(atoms, calc, steps=0), relax(atoms, calc, fmax=0.03, steps=30 if self.quick else 300)
        own = {'energy': float(final.get_potential_energy()), 'is_ag6': is_ag6(final)}
        return {**of, 'energy': float(point.get_potential_energy()), 'relaxed': own}

    def calculator(self, name: str):
        """Return a potential, each loaded once."""
        if name not in self.calculators:
            self.calculators[name] = get_calculator(name)
        return self.calculators[name]

    def prepare(self) -> None:
        """Choose the structures: the Ag6 model and the lowest others, all at their minimum with the first potential."""
        if not self.args.files and not self.quick:
            raise SystemExit('the first run chooses the structures: name the trajectories that hold candidates, --files ...')
        images = [atoms for file in self.args.files or () for atoms in read(file, ':') if atoms.calc is not None]
        images = sorted((atoms for atoms in images if not is_ag6(atoms)), key=lambda atoms: atoms.get_potential_energy())
        count = self.args.count
        chosen = [images[k] for k in sorted(set(duplicates(images)))][: 2 * count] if images else []  # may be ranked otherwise
        steps = 30 if self.quick else 300
        ag6, *others = relax([ag6_model(), *chosen], self.calculator(self.potentials[0]), fmax=0.03, steps=steps)
        others.sort(key=lambda atoms: atoms.get_potential_energy())
        others = [others[k] for k in sorted(set(duplicates(others)))][:count] if others else []
        for name, atoms in [(FIRST, ag6), *((f'candidate {k + 1}', atoms) for k, atoms in enumerate(others))]:
            self.put(name, pack(atoms))

    def distort(self) -> dict:
        """Return the Ag6 model without its symmetry: displaced by 0.05 A at random and relaxed again."""
        atoms = unpack(self.results[FIRST])
        atoms.rattle(0.05, seed=0)  # leaves fixed atoms in place
        return pack(relax(atoms, self.calculator(self.potentials[0]), fmax=0.03, steps=30 if self.quick else 300))

    def gpaw_atoms(self, name: str) -> Atoms:
        """Return a structure with less vacuum and GPAW attached."""
        atoms = unpack(self.results[name])
        atoms.center(vacuum=VACUUM, axis=2)
        self.store.mkdir(parents=True, exist_ok=True)
        atoms.calc = get_calculator('gpaw', txt=str(self.store / f'{name.replace(" ", "-")}.txt'), **GPAW)
        return atoms

    def gpaw_relaxed(self, name: str, of: dict) -> dict:
        """Return the record after up to `relax_steps` steps of BFGS; every step is stored, and a later run continues."""
        key = f'{name}: gpaw, relaxed'
        done = self.results.get(key, {}).get('relaxed', {}).get('steps', -1)
        atoms, path = self.gpaw_atoms(name), self.store / f'{name.replace(" ", "-")}.bfgs.traj'
        optimizer = BFGS(atoms, trajectory=str(path), append_trajectory=True)
        if path.exists() and path.stat().st_size:
            atoms.positions[:] = read(path, -1).positions
            optimizer.replay_trajectory(str(path))
        for _ in optimizer.irun(fmax=0.05, steps=self.args.relax_steps - max(done, 0)):
            done += 1
            fmax = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            own = {'energy': float(atoms.get_potential_energy()), 'steps': done, 'is_ag6': is_ag6(atoms), 'fmax': fmax}
            self.put(key, {**of, 'relaxed': own})
        return self.results[key]

    def report(self, results: dict) -> None:
        names = list(self.structures())
        columns = list(dict.fromkeys(r['method'] for r in results.values() if 'method' in r))

        def energy(name, method, relaxed):
            if not relaxed:
                return results.get(f'{name}: {method}', {}).get('energy')
            found = {**results.get(f'{name}: {method}', {}), **results.get(f'{name}: {method}, relaxed', {})}
            return found.get('relaxed', {}).get('energy')

        def gap(*args):
            pair = [energy(name, *args[1:]) for name in (args[0], FIRST)]
            return '-' if None in pair else f'{pair[0] - pair[1]:+.3f}'

        print('eV per cell relative to the Ag6 model, at the minima of the first potential | relaxed with each method itself')
        rows = [(name, *(f'{gap(name, c, False)} | {gap(name, c, True)}' for c in columns)) for name in names]
        print(table(('', *columns), rows))


def pack(atoms: Atoms) -> dict:
    """Return a structure as JSON knows it (A)."""
    return {
        'symbols': str(atoms.symbols),
        'positions': atoms.positions.round(6).tolist(),
        'cell': atoms.cell.tolist(),
        'fixed': np.flatnonzero(frozen_mask(atoms)).tolist(),
        'is_ag6': is_ag6(atoms),
    }


def unpack(entry: dict) -> Atoms:
    """Return the structure of an entry."""
    atoms = Atoms(entry['symbols'], entry['positions'], cell=entry['cell'], pbc=(True, True, False))
    atoms.set_constraint(FixAtoms(indices=entry['fixed']))
    return atoms


if __name__ == '__main__':
    main(Ag6Gpaw)
