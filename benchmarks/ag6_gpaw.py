"""GPAW as the arbiter: does density-functional theory put the Ag6 model below the other Ag12O6 overlayers on p(4x4) Ag(111)?

    python benchmarks/ag6_gpaw.py run runs/surface_paper/ag12o6.energy-8*.traj --relax-steps 0
    python benchmarks/ag6_gpaw.py report

``run`` relaxes the Ag6 model with 7net-mf-0 (with its symmetry, and without), takes the lowest different candidates of the files
beside it (relaxed with 7net-mf-0 as well), and computes all of them with 7net-mf-0, 7net-0, CHGNet and GPAW: PBE, LCAO with a dzp
basis at the Gamma point, 11 electrons per Ag, grid spacing 0.2 A, Fermi smearing 0.1 eV. It needs hours, keeps every number in
results/ag6_gpaw.json as soon as it is there, and goes on where it was stopped. The structures are copied into that file, so that
the report and a later run do not need the trajectories. ``--relax-steps N`` lets GPAW relax each of them by up to N steps of BFGS
afterwards.

Known limits: two frozen layers of the lattice constant of 7net-mf-0 (4.16 A; PBE 4.15), one k-point, a small basis. Differences
between overlayers of one composition in one cell suffer least from all three.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read
from ase.optimize import BFGS

from ase_diffusion.metrics import ag6_model, duplicates, is_ag6
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.utils.atoms import frozen_mask

HERE = Path(__file__).parent
OUT = HERE / 'results' / 'ag6_gpaw.json'
FILES = HERE.parent / 'runs' / 'ag6_gpaw'
POTENTIALS = ('7net-mf-0', '7net-0', 'chgnet')
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


def load() -> dict:
    """Return the store, empty at first."""
    return json.loads(OUT.read_text()) if OUT.exists() else {'gpaw': json.loads(json.dumps(GPAW)), 'structures': {}}


def save(store: dict) -> None:
    """Write the store; a kill leaves the old one or the new one."""
    OUT.parent.mkdir(exist_ok=True)
    part = OUT.with_suffix('.part')
    part.write_text(json.dumps(store, indent=1))
    part.replace(OUT)


def pack(atoms: Atoms) -> dict:
    """Return a structure as JSON knows it (A)."""
    return {
        'symbols': str(atoms.symbols),
        'positions': atoms.positions.round(6).tolist(),
        'cell': atoms.cell.tolist(),
        'fixed': np.flatnonzero(frozen_mask(atoms)).tolist(),
    }


def unpack(entry: dict) -> Atoms:
    """Return the structure of an entry."""
    atoms = Atoms(entry['symbols'], entry['positions'], cell=entry['cell'], pbc=(True, True, False))
    atoms.set_constraint(FixAtoms(indices=entry['fixed']))
    return atoms


def prepare(store: dict, files: list[str], count: int) -> None:
    """Choose the structures: the Ag6 model and the lowest others, all at their minimum with 7net-mf-0."""
    images = [atoms for file in files for atoms in read(file, ':') if atoms.calc is not None]
    images = sorted((atoms for atoms in images if not is_ag6(atoms)), key=lambda atoms: atoms.get_potential_energy())
    chosen = [images[k] for k in sorted(set(duplicates(images)))][: 2 * count]  # the potential of the file may rank otherwise
    ag6, *others = relax([ag6_model(), *chosen], '7net-mf-0', fmax=0.03, steps=300, logfile='-')
    others.sort(key=lambda atoms: atoms.get_potential_energy())
    others = [others[k] for k in sorted(set(duplicates(others)))][:count]
    for name, atoms in [('Ag6 model', ag6), *((f'candidate {k + 1}', atoms) for k, atoms in enumerate(others))]:
        energy = atoms.get_potential_energy()
        store['structures'][name] = {**pack(atoms), 'is_ag6': is_ag6(atoms), 'energies': {'7net-mf-0': energy}, 'relaxed': {}}
    save(store)


def distort(store: dict) -> None:
    """Add the Ag6 model without its symmetry: displaced by 0.05 A at random and relaxed again with 7net-mf-0."""
    if 'Ag6 distorted' in store['structures']:
        return
    atoms = unpack(store['structures']['Ag6 model'])
    atoms.rattle(0.05, seed=0)  # leaves fixed atoms in place
    atoms = relax(atoms, '7net-mf-0', fmax=0.03, steps=300, logfile='-')
    energies = {'7net-mf-0': float(atoms.get_potential_energy())}
    store['structures']['Ag6 distorted'] = {**pack(atoms), 'is_ag6': is_ag6(atoms), 'energies': energies, 'relaxed': {}}
    save(store)


def potentials(store: dict) -> None:
    """Fill in the interatomic potentials: single points, and relaxed with the potential itself."""
    for potential in POTENTIALS:
        calc = None
        for entry in store['structures'].values():
            if potential in entry['energies'] and potential in entry['relaxed']:
                continue
            calc = calc or get_calculator(potential)
            atoms = unpack(entry)
            entry['energies'][potential] = float(relax(atoms, calc, steps=0).get_potential_energy())
            final = relax(atoms, calc, fmax=0.03, steps=300)
            entry['relaxed'][potential] = {'energy': float(final.get_potential_energy()), 'is_ag6': is_ag6(final)}
            save(store)


def gpaw_atoms(entry: dict, name: str) -> Atoms:
    """Return a structure with less vacuum and GPAW attached."""
    atoms = unpack(entry)
    atoms.center(vacuum=VACUUM, axis=2)
    FILES.mkdir(parents=True, exist_ok=True)
    atoms.calc = get_calculator('gpaw', txt=str(FILES / f'{name.replace(" ", "-")}.txt'), **GPAW)
    return atoms


def arbiter(store: dict, steps: int) -> None:
    """Fill in GPAW: single points of all, then up to `steps` steps of BFGS of each."""
    for name, entry in store['structures'].items():
        if 'gpaw' not in entry['energies']:
            begun = time.monotonic()
            entry['energies']['gpaw'] = float(gpaw_atoms(entry, name).get_potential_energy())
            entry['gpaw_seconds'] = round(time.monotonic() - begun)
            save(store)
            print(f'{name}: {entry["energies"]["gpaw"]:.4f} eV, {entry["gpaw_seconds"]} s', flush=True)
    for name, entry in store['structures'].items():
        done = entry['relaxed'].get('gpaw', {}).get('steps', -1)
        if done >= steps or not steps:
            continue
        atoms = gpaw_atoms(entry, name)
        path = FILES / f'{name.replace(" ", "-")}.bfgs.traj'
        optimizer = BFGS(atoms, trajectory=str(path), append_trajectory=True)
        if path.exists() and path.stat().st_size:
            frames = read(path, ':')
            atoms.positions[:] = frames[-1].positions
            optimizer.replay_trajectory(str(path))
        for _ in optimizer.irun(fmax=0.05, steps=steps - max(done, 0)):
            done += 1
            entry['relaxed']['gpaw'] = {
                'energy': float(atoms.get_potential_energy()),
                'steps': done,
                'is_ag6': is_ag6(atoms),
                'fmax': float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
            }
            save(store)


def report(store: dict) -> str:
    """Return the table: eV per cell relative to the Ag6 model, at the minima of 7net-mf-0 | relaxed with each method itself."""
    columns = (*POTENTIALS, 'gpaw')
    zero = store['structures']['Ag6 model']

    def cell(entry, column):
        def gap(value, base):
            return f'{value - base:+.3f}' if value is not None and base is not None else '-'

        point = gap(entry['energies'].get(column), zero['energies'].get(column))
        own = gap(*(e['relaxed'].get(column, {}).get('energy') for e in (entry, zero)))
        return f'{point} | {own}'

    lines = [f'{"":<14s}' + ''.join(f'{column:>20s}' for column in columns)]
    lines += [
        f'{name:<14s}' + ''.join(f'{cell(entry, column):>20s}' for column in columns)
        for name, entry in store['structures'].items()
    ]
    return '\n'.join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('action', choices=['run', 'report'])
    parser.add_argument('files', nargs='*', help='trajectories with relaxed Ag12O6 candidates (the first run needs them)')
    parser.add_argument('--count', type=int, default=3, help='candidates beside the Ag6 model (3)')
    parser.add_argument('--relax-steps', type=int, default=0, help='steps of BFGS with GPAW, after all single points (0)')
    args = parser.parse_args()
    store = load()
    if args.action == 'run':
        if not store['structures']:
            if not args.files:
                parser.error('the first run chooses the structures: name the trajectories that hold candidates')
            prepare(store, args.files, args.count)
        if store['gpaw'] != json.loads(json.dumps(GPAW)):
            parser.error(f'{OUT} was made with other GPAW parameters; move it away to begin anew')
        distort(store)
        potentials(store)
        arbiter(store, args.relax_steps)
    print(report(store))


if __name__ == '__main__':
    main()
