"""Another round of the data set `metal-oxide`: overlayers of metals and oxygen on their own facets, relaxed with 7net-mf-0.

    python scripts/metal_oxide_round.py run --seed 1 --minutes 60     # any number of these, with different seeds
    python scripts/metal_oxide_round.py starts --seed 2 --minutes 30; the same with `relax --seed 2 --device cuda`
    python scripts/metal_oxide_round.py run --seed 1 --minutes 60 --adsorbates          # H, C, N and S alone, or with O
    python scripts/metal_oxide_round.py merge metal_oxide.npz FILE ...     # all rounds and the relaxations of FILES, in one file

A start is random (a quarter), or a sample of the model that `SurfaceDiffusion` takes by default. It is relaxed with 7net-mf-0
(modal PBE; BFGS to 0.05 eV/A, at most 120 steps), and frames along the way are kept, with energies and raw forces. Ni and Rh are
never used with O alone: they are the test. Rounds of adsorbates have random starts, and a folder of their own: they are in no
data set yet.

Batch k of a round is seeded by (seed, k); its starts are ``runs/metal-oxide-rounds/SEED/K.starts``, its relaxations K.traj; the
same command continues after the last. `run` does both, batch by batch; on a GPU `relax` takes many batches at once
(``--together`` structures in one call of the network), and ``--share i/n`` lets several processes share the batches.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MALLOC_MMAP_THRESHOLD_', '4000000000')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from ase import Atoms
from ase.build import fcc100, fcc110, fcc111, fcc211
from ase.constraints import FixAtoms
from ase.io import read, write

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.data.frames import write_frames
from ase_diffusion.relax import get_calculator, irelax
from ase_diffusion.search import random_start
from ase_diffusion.utils.atoms import detached

RUNS = Path(__file__).parent.parent / 'runs'
STORE, ADSORBATES = RUNS / 'metal-oxide-rounds', RUNS / 'adsorbate-rounds'
KEEP = {0, 1, 2, 4, 8, 16, 32, 64}
# lattice constants of 7net-mf-0 (modal PBE), A
METALS = {'Cu': 3.6137, 'Ag': 4.1682, 'Au': 4.1728, 'Pd': 3.9581, 'Pt': 3.9771, 'Ir': 3.8766, 'Al': 4.0473}
MORE_METALS = {'Ni': 3.5046, 'Rh': 3.849}  # of adsorbates
# facet: (share, builder, sizes)
FACETS = {
    '111': (0.35, fcc111, [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2)]),
    '100': (0.30, fcc100, [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2)]),
    '110': (0.25, fcc110, [(2, 2, 3), (3, 2, 3), (2, 3, 3), (3, 3, 3)]),
    '211': (0.10, fcc211, [(3, 2, 2), (3, 3, 2), (6, 2, 2)]),
}


def substrate(metal: str, facet: str, size: tuple[int, int, int], a: float) -> Atoms:
    """Return frozen layers of a facet, 20 A of vacuum in all."""
    slab = FACETS[facet][1](metal, size, a=a, vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.wrap()
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def overlayer(metal: str, size: tuple[int, int, int], rng: np.random.Generator) -> str:
    """Return a formula: oxygen alone once in four, else metal and oxygen, of up to one layer of the metal."""
    sites = size[0] * size[1]
    if rng.random() < 0.25:
        return f'O{rng.integers(1, max(2, round(0.8 * sites)) + 1)}'
    metals = int(np.clip(round(sites * rng.uniform(0.2, 1.0)), 1, sites))
    oxygens = int(np.clip(round(sites * rng.uniform(0.2, 0.75)), 1, None))
    return f'{metal}{metals}O{oxygens}'


def adsorbates(size: tuple[int, int, int], rng: np.random.Generator) -> str:
    """Return a formula of H, C, N or S, with O once in five, of up to three quarters of the sites."""
    count = int(rng.integers(1, max(1, round(0.75 * size[0] * size[1])) + 1))
    oxygens = int(rng.integers(1, count)) if count > 1 and rng.random() < 0.2 else 0
    return f'{rng.choice(["H", "C", "N", "S"])}{count - oxygens}' + (f'O{oxygens}' if oxygens else '')


def starts(metal: str, facet: str, size, formula: str, count: int, rng, always_random: bool = False) -> tuple[list[Atoms], str]:
    """Return ``count`` structures and where they come from."""
    slab = substrate(metal, facet, size, (METALS | MORE_METALS)[metal])
    if always_random or rng.random() < 0.25:
        return [random_start(slab, formula, rng) for _ in range(count)], 'random'
    options = dict(steps=50, rng=int(rng.integers(1 << 31)), logfile=None, compile=False)
    gen = SurfaceDiffusion(slab, stoich=formula, **options)
    return gen.sample(count, energy=0.0, guidance_scale=float(rng.choice([1.0, 2.0, 4.0]))), 'model'


def make(folder: Path, seed: int, number: int, count: int, light: bool = False) -> list[Atoms]:
    """Return the starts of batch ``number``, made and stored where they are not there yet."""
    path = folder / f'{number:05d}.starts'
    if path.exists():
        return read(path, ':', format='traj')
    rng = np.random.default_rng((seed, number))
    metal = str(rng.choice(list(METALS | MORE_METALS if light else METALS)))
    facet = str(rng.choice(list(FACETS), p=[share for share, _, _ in FACETS.values()]))
    size = FACETS[facet][2][rng.integers(len(FACETS[facet][2]))]
    formula = adsorbates(size, rng) if light else overlayer(metal, size, rng)
    images, start = starts(metal, facet, size, formula, count, rng, always_random=light)
    for k, atoms in enumerate(images):
        atoms.calc = None
        about = {'run': 1_000_000 * seed + 10 * number + k, 'metal': metal, 'facet': facet, 'start': start}
        atoms.info = {'key_value_pairs': about}
    put(path, images)
    return images


def put(path: Path, images: list[Atoms]) -> None:
    """Write a trajectory, whole or not at all."""
    partial = path.with_name(path.name + '.partial')
    write(partial, images, format='traj')
    partial.replace(path)


def refine(folder: Path, batches: dict[int, list[Atoms]], calculator, device: str | None, together: int) -> None:
    """Relax the starts of batches and store the frames kept, with energies and raw forces, batch by batch as they are done."""
    images = [(number, atoms) for number, some in batches.items() for atoms in some]
    left, kept, paths = {number: len(some) for number, some in batches.items()}, collections.defaultdict(list), []
    options = {'fmax': 0.05, 'steps': 120, 'batch_size': together, 'device': device, 'frames': paths}
    for index, end in irelax([atoms for _, atoms in images], calculator, **options):
        number, pairs = images[index][0], end.info['key_value_pairs']
        about = {name: pairs[name] for name in ('run', 'metal', 'facet', 'start')}
        for step, frame in enumerate(paths[index]):
            last = step == len(paths[index]) - 1
            if not pairs.get('relax_failed') and (last or step in KEEP):
                frame.info['key_value_pairs'] = about | {'step': step, 'last': last, 'converged': pairs['relax_converged']}
                kept[number].append(frame)
        paths[index].clear()
        left[number] -= 1
        if not left[number]:
            put(folder / f'{number:05d}.traj', kept.pop(number, []))
            what = [pairs[name] for name in ('metal', 'facet', 'start')]
            print(f'{time.process_time() / 60:6.1f} CPU min {number:5d}', *what, end.symbols, flush=True)


def run(args) -> None:
    """Make starts, relax them, or both, until the time is over."""
    logging.getLogger('ase_diffusion').setLevel(logging.ERROR)
    light = getattr(args, 'adsorbates', False)
    folder = (ADSORBATES if light else STORE) / str(args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    begun = time.monotonic()
    made, done = ({int(path.stem) for path in folder.glob(f'*.{kind}')} for kind in ('starts', 'traj'))
    if args.command == 'relax':
        part, parts = map(int, args.share.split('/'))
        batches = {number: make(folder, args.seed, number, 0) for number in sorted(made - done)[part::parts]}
        refine(folder, batches, '7net-mf-0', args.device, args.together)
        return
    calculator = get_calculator('7net-mf-0') if args.command == 'run' else None
    number = max(made if calculator is None else done, default=-1) + 1
    while time.monotonic() - begun < 60 * args.minutes:
        images = make(folder, args.seed, number, args.batch, light)
        if calculator is not None:
            refine(folder, {number: images}, calculator, None, 1)
        number += 1


def merge(args) -> None:
    """Write all relaxations but those of Ni and Rh, and those whose end lost a molecule, to one file; print their numbers."""
    frames = []
    for path in [*args.seeds, *sorted(STORE.glob('*/*.traj'))]:
        packed = path.suffix == '.gz'  # by file name ASE takes ten times as long
        source, form = (io.StringIO(gzip.decompress(path.read_bytes()).decode()), 'extxyz') if packed else (path, None)
        frames += read(source, ':', format=form)
    for atoms in frames:
        atoms.info['key_value_pairs'] = atoms.info.get('key_value_pairs') or {
            k: v for k, v in atoms.info.items() if np.isscalar(v)
        }
    pairs = [atoms.info['key_value_pairs'] for atoms in frames]
    left = {x['run'] for x, atoms in zip(pairs, frames, strict=True) if x['last'] and len(detached(atoms))}
    kept = [k for k, x in enumerate(pairs) if x['metal'] in METALS and x['run'] not in left]
    write_frames([frames[k] for k in kept], args.out)
    found = collections.Counter((pairs[k]['metal'], str(pairs[k]['facet'])) for k in kept if pairs[k]['last'])
    for key, n in sorted(found.items()):
        print(*key, n)
    print(f'{sum(found.values())} relaxations, {len(kept)} frames in {args.out}; {len(left)} lost a molecule')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name in ('run', 'starts', 'relax'):
        one = commands.add_parser(name)
        one.add_argument('--seed', type=int, required=True)
        one.add_argument('--minutes', type=float, default=60)
        one.add_argument('--batch', type=int, default=3, help='starts of one formula and cell')
        if name == 'run':
            one.add_argument('--adsorbates', action='store_true', help='H, C, N, S in place of overlayers of metal and oxygen')
    one.add_argument('--device')
    one.add_argument('--together', type=int, default=64, help='structures in one call of the network')
    one.add_argument('--share', default='0/1', help='i/n: every n-th batch from the i-th on')
    two = commands.add_parser('merge')
    two.add_argument('out', type=Path)
    two.add_argument('seeds', type=Path, nargs='*')
    args = parser.parse_args()
    merge(args) if args.command == 'merge' else run(args)


if __name__ == '__main__':
    main()
