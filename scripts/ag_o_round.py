"""Another round of the shipped data set `ag-o-rss`: candidates, relaxed with `ag-o`, then with 7net-mf-0.

    python benchmarks/ag_o_round.py run --seed 1 --minutes 60      # any number of these, with different seeds
    python benchmarks/ag_o_round.py merge ag_o_rss.npz             # shipped data and all rounds, in one file

A candidate is a random start, a sample of the shipped model at low energy, or a low structure of this run that was noised in part
and denoised (`perturb`). Relaxed with `ag-o` in batches, new ones (by energy) go on with 7net-mf-0 (modal PBE; BFGS to 0.05 eV/A
with a first Hessian from `ag-o`), of which frames are kept. p(4x4) is never used: it is the test. Rounds go to ``runs/round``;
take away from there what was merged and shipped, before the next merge.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MALLOC_MMAP_THRESHOLD_', '4000000000')

import numpy as np
import torch
from ase.build import fcc111, make_supercell
from ase.constraints import FixAtoms
from ase.io import Trajectory

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.data.frames import read_frames, write_frames
from ase_diffusion.relax import get_calculator, relax, relax_batched
from ase_diffusion.search import random_start

STORE = Path(__file__).parent.parent / 'runs' / 'round'
KEEP = {0, 1, 2, 4, 8, 16, 32}
# cell: (share, rows of its vectors in those of 1x1, compositions (Ag, O))
CELLS = {
    'p3x3': (0.15, ((3, 0), (0, 3)), [(6, 3), (6, 3), (6, 3), (7, 3), (7, 4), (6, 4), (5, 3)]),
    'p2x4': (0.09, ((2, 0), (0, 4)), [(6, 3), (6, 3), (6, 3), (5, 3), (6, 4), (5, 2), (4, 2)]),
    'c2x8': (0.12, ((2, 0), (1, 4)), [(6, 3), (6, 3), (6, 3), (5, 3), (6, 4), (5, 2), (4, 2)]),
    'p3x4': (0.20, ((3, 0), (0, 4)), [(9, 4), (9, 5), (9, 5), (8, 4), (10, 5)]),
    'p2x5': (0.08, ((2, 0), (0, 5)), [(7, 4), (7, 4), (8, 4), (7, 3)]),
    'p3x5': (0.13, ((3, 0), (0, 5)), [(11, 6), (11, 6), (11, 5), (12, 6)]),
    'r30': (0.08, ((2, 2), (-2, 4)), [(9, 4), (9, 5), (8, 4)]),
    'r14': (0.08, ((3, 1), (-1, 4)), [(10, 5), (10, 5), (9, 5)]),
    'p4x5': (0.07, ((4, 0), (0, 5)), [(15, 7), (15, 8)]),
}


def substrate(name: str):
    """Return two frozen layers of Ag(111), a = 4.16 A, in the cell ``name``."""
    (a, b), (c, d) = CELLS[name][1]
    slab = make_supercell(fcc111('Ag', (1, 1, 2), a=4.16, vacuum=10.0), [[a, b, 0], [c, d, 0], [0, 0, 1]])
    slab.pbc = (True, True, False)
    slab.wrap()
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def candidates(slab, formula, low, rng, count):
    """Return ``count`` structures from one of the three sources, and its name."""
    source = rng.choice(['random', 'model', 'perturb'] if low else ['random', 'model', 'model'], p=[0.25, 0.5, 0.25])
    if source == 'random':
        return [random_start(slab, formula, rng) for _ in range(count)], source
    gen = SurfaceDiffusion(slab, stoich=formula, steps=60, rng=int(rng.integers(1 << 31)), logfile=None)
    scale = float(rng.choice([1.0, 2.0, 4.0]))
    if source == 'model':
        return gen.sample(count, energy=0.0, guidance_scale=scale), f'{source} {scale:g}'
    return gen.perturb(low, float(rng.uniform(0.3, 1.2)), count, energy=0.0, guidance_scale=scale), source


def refine(atoms, calculator, run: int, held: bool) -> list:
    """Relax with ``calculator`` from a minimum of `ag-o`; return the frames kept, with energies and raw forces."""
    paths: list = []
    result = relax(atoms, calculator, hessian='ag-o', fmax=0.05, steps=40, frames=paths)
    if result.info['key_value_pairs'].get('relax_failed'):
        return []
    kept = []
    for step, frame in enumerate(path := paths[0]):
        last = step == len(path) - 1
        if last or step in KEEP:
            converged = result.info['key_value_pairs']['relax_converged']
            frame.info['key_value_pairs'] = {'run': run, 'step': step, 'last': last, 'held': held, 'converged': converged}
            kept.append(frame)
    return kept


def run(args) -> None:
    """Make candidates and relax them until the time is over."""
    STORE.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rng, end = np.random.default_rng(args.seed), time.monotonic() + 60 * args.minutes
    calculator, begun, number = get_calculator('7net-mf-0'), time.monotonic(), 1_000_000 * args.seed
    found: dict = {}  # (cell, formula) -> energies of ag-o
    best: dict = {}  # ... -> low structures
    names, shares = list(CELLS), [CELLS[n][0] for n in CELLS]
    with Trajectory(STORE / f'{args.seed}.traj', 'w') as file:
        while time.monotonic() < end:
            name = str(rng.choice(names, p=shares))
            silver, oxygen = CELLS[name][2][rng.integers(len(CELLS[name][2]))]
            formula, slab = f'Ag{silver}O{oxygen}', substrate(name)
            key = name, formula
            seen, low = found.setdefault(key, []), best.setdefault(key, [])
            images, source = candidates(slab, formula, low, rng, 24)
            new = 0
            for atoms in relax_batched(images, 'ag-o', fmax=0.05, steps=150):
                if atoms.info['key_value_pairs'].get('relax_failed'):
                    continue
                energy = atoms.get_potential_energy()
                if any(abs(energy - e) < 0.004 for e in seen):
                    continue
                if seen and energy > min(seen) + args.limit * (silver + oxygen):
                    continue
                seen.append(energy)
                number, new = number + 1, new + 1
                frames = refine(atoms, calculator, number, rng.random() < 0.06)
                if not frames:
                    continue
                for frame in frames:
                    frame.info['key_value_pairs']['source'] = source.split()[0]
                    file.write(frame)
                low.append(frames[-1])
                low.sort(key=lambda a: a.get_potential_energy())
                del low[8:]
            minutes, lowest = (time.monotonic() - begun) / 60, low[0].get_potential_energy() if low else np.nan
            print(
                f'{minutes:6.1f} min {number % 1_000_000:5d} {name} {formula:<8s} {source:<9s} {new:3d} new of {len(images)}, '
                f'lowest {lowest:.3f} eV',
                flush=True,
            )


def merge(args) -> None:
    """Write the shipped data and every round to one file."""
    images = read_frames('ag-o-rss')
    first = max(a.info['key_value_pairs']['run'] for a in images) + 1
    runs: dict = {}
    for path in sorted(STORE.glob('*.traj')):
        for atoms in Trajectory(path):
            pairs = atoms.info['key_value_pairs']
            pairs['run'] = runs.setdefault(pairs['run'], first + len(runs))
            pairs.pop('source', None)
            images.append(atoms)
    write_frames(images, args.out)
    print(f'{len(runs)} relaxations added, {len(images)} frames in {args.out}')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('run')
    one.add_argument('--seed', type=int, required=True)
    one.add_argument('--minutes', type=float, default=60)
    one.add_argument('--limit', type=float, default=0.4, help='leave out what is higher above the lowest, eV per mobile atom')
    commands.add_parser('merge').add_argument('out')
    args = parser.parse_args()
    run(args) if args.command == 'run' else merge(args)


if __name__ == '__main__':
    main()
