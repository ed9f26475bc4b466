"""Another round of the data set `metal-oxide`: overlayers on facets of many metals, relaxed with 7net-mf-0.

    python scripts/metal_oxide_round.py run --seed 1 --minutes 60     # any number of these, with different seeds
    python scripts/metal_oxide_round.py starts --seed 2 --minutes 30; the same with `relax --seed 2 --device cuda`
    python scripts/metal_oxide_round.py run --seed 3 --minutes 60 --kind compounds     # or another kind
    python scripts/metal_oxide_round.py merge metal_oxide.npz FILE ...     # all rounds and the relaxations of FILES, in one file

A batch is a group: many starts of one metal, facet, cell and composition, so that the best of them is a low one. Kinds:

- ``oxides``: a metal and oxygen, or oxygen alone, on the fcc metals of the first rounds. A quarter of the starts is random, the
  others are samples of the model that `SurfaceDiffusion` takes by default there, at three strengths of guidance, and of the other
  of the two models of many metals. The first 42 groups are M4O2 in p(3x2) and M6O3 in p(3x3) on each metal and facet.
- ``others``: the same on hcp and bcc metals, and on some of these as fcc ones; half of the starts random, the others of the two
  models of many metals.
- ``compounds``: a metal with H, C, N or S, or alone, on any metal; half of the starts random.
- ``adsorbates``: H, C, N or S, with O in one group of five; random starts.
- ``molecules``: one to three of CO, OH, H2O or NH3, whole, near the surface, turned at random (CO stands on C).

Ni and Rh are never used with oxygen: they are the test. Nor are Co, Cr, Fe, Mo, V and W: 7net-mf-0 learned oxides of these and
of Ni from PBE+U, the metals from PBE, and binds oxygen to such surfaces several eV too weakly (`benchmarks/oxygen_labels.py`).
Starts are relaxed with 7net-mf-0 (modal PBE; BFGS to 0.05 eV/A, at most 120 steps), and frames along the way are kept, with
energies and raw forces.

Group k of a round is seeded by (seed, k); its starts are ``runs/metal-oxide-rounds/SEED/K.starts``, its relaxations K.traj; the
same command continues after the last. `run` does both, group by group; on a GPU `relax` takes many at once (``--together``
structures in one call of the network), and ``--share i/n`` lets several processes share them. When its minutes are over, `relax`
keeps what relaxations that are not at their end have so far.
"""

from __future__ import annotations

import argparse
import collections
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
from ase.build import bcc100, bcc110, fcc100, fcc110, fcc111, fcc211, hcp0001, molecule
from ase.constraints import FixAtoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from ase.io import read, write

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.calculators.elements import HUBBARD
from ase_diffusion.data.frames import read_frames, write_frames
from ase_diffusion.relax import get_calculator, irelax
from ase_diffusion.search import random_start
from ase_diffusion.utils.atoms import detached, frozen_mask

STORE = Path(__file__).parent.parent / 'runs' / 'metal-oxide-rounds'
KEEP = {0, 1, 2, 4, 8, 16, 32, 64}
ABOUT = ('run', 'metal', 'facet', 'start')
UNFINISHED = 16  # steps from which a relaxation that was not finished is kept
# lattice constants of 7net-mf-0 (modal PBE), A; of hexagonal metals a and c
METALS = {'Cu': 3.6137, 'Ag': 4.1682, 'Au': 4.1728, 'Pd': 3.9581, 'Pt': 3.9771, 'Ir': 3.8766, 'Al': 4.0473}
TEST_METALS = {'Ni': 3.5046, 'Rh': 3.849}  # without oxygen
OTHERS = {
    'fcc': {'Co': 3.5156, 'Fe': 3.4843, 'Ru': 3.8265, 'Os': 3.8637, 'Re': 3.9238},
    'hcp': {'Co': (2.4885, 4.036), 'Ru': (2.7379, 4.2922), 'Os': (2.7666, 4.3376), 'Re': (2.7771, 4.5182), 'Tc': (2.7657, 4.4113)}
    | {'Ti': (2.9662, 4.5702), 'Zr': (3.2271, 5.2097), 'Mg': (3.1892, 5.2076), 'Zn': (2.6255, 5.1694)},
    'bcc': {'Fe': 2.8506, 'W': 3.1896, 'Mo': 3.1715, 'Ta': 3.3205, 'Nb': 3.3202, 'V': 2.9989, 'Cr': 2.8541},
}
LATTICES = {**OTHERS, 'fcc': METALS | TEST_METALS | OTHERS['fcc']}
EVERY = [(metal, structure) for structure, metals in LATTICES.items() for metal in metals]
CATALYSTS = [(metal, 'fcc') for metal in ('Cu', 'Pt', 'Pd', 'Ni', 'Rh')]  # drawn twice as often for adsorbates
LIGHT = ('H', 'C', 'N', 'S')
MOLECULES = ('CO', 'OH', 'H2O', 'NH3')  # names in ase.build.molecule
MODELS = ('metal-oxide-overlayer', 'renamed-silver')
# facet: (structure, share, builder, sizes)
FACETS = {
    '111': ('fcc', 0.35, fcc111, [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2)]),
    '100': ('fcc', 0.30, fcc100, [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2)]),
    '110': ('fcc', 0.25, fcc110, [(2, 2, 3), (3, 2, 3), (2, 3, 3), (3, 3, 3)]),
    '211': ('fcc', 0.10, fcc211, [(3, 2, 2), (3, 3, 2), (6, 2, 2)]),
    '0001': ('hcp', 1.0, hcp0001, [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2)]),
    'bcc110': ('bcc', 0.6, bcc110, [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2)]),
    'bcc100': ('bcc', 0.4, bcc100, [(2, 2, 3), (3, 2, 3), (3, 3, 3), (4, 2, 3)]),
}


def without_oxygen(metal: str) -> bool:
    """Return whether a metal is never used with oxygen: one of the test, or one of which labels are several eV off."""
    return metal in TEST_METALS or atomic_numbers[metal] in HUBBARD


KNOWN = [(metal, facet, k) for k in (1, 2) for facet in ('111', '100', '110') for metal in METALS]
OXIDES = [(metal, structure) for structure, metals in OTHERS.items() for metal in metals if not without_oxygen(metal)]
KNOWN_OTHERS = [
    (metal, facet, k)
    for k in (1, 2)
    for facet, (structure, *_) in FACETS.items()
    for metal, of in OXIDES
    if of == structure and facet not in ('110', '211')
]


def layers(metal: str, facet: str, size: tuple[int, int, int], a: float | None = None) -> Atoms:
    """Return layers of a facet, 20 A of vacuum in all; the lattice constants are those of 7net-mf-0, or ``a`` in A."""
    structure, _, build, _ = FACETS[facet]
    constants = dict(zip('ac', np.atleast_1d(LATTICES[structure][metal] if a is None else a).tolist(), strict=False))
    slab = build(metal, size, vacuum=10.0, **constants)
    slab.pbc = (True, True, False)
    return slab


def substrate(metal: str, facet: str, size: tuple[int, int, int]) -> Atoms:
    """Return frozen layers of a facet, see :func:`layers`."""
    slab = layers(metal, facet, size)
    slab.wrap()
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def oxide(number: int, rng: np.random.Generator) -> tuple[str, str, tuple[int, int, int], str]:
    """Return metal, facet, size and formula: the well-known ones first, then oxygen alone once in four, else with the metal."""
    return _oxide(number, rng, KNOWN, [(metal, 'fcc') for metal in METALS])


def other(number: int, rng: np.random.Generator) -> tuple[str, str, tuple[int, int, int], str]:
    """Return the same of the other metals."""
    return _oxide(number, rng, KNOWN_OTHERS, OXIDES)


def _oxide(number, rng, known, metals):
    if number < len(known):
        metal, facet, k = known[number]
        return metal, facet, FACETS[facet][3][2 * k - 1 if facet == '110' else k], f'{metal}{2 + 2 * k}O{1 + k}'
    metal, facet, size = place(rng, metals)
    if rng.random() < 0.25:
        return metal, facet, size, f'O{rng.integers(1, max(2, round(0.8 * size[0] * size[1])) + 1)}'
    return metal, facet, size, mixture(metal, 'O', size, rng)


def mixture(metal: str, nonmetal: str, size: tuple[int, int, int], rng: np.random.Generator) -> str:
    """Return a formula of 0.2 to 1 metals and 0.2 to 0.75 nonmetals for each site."""
    sites = size[0] * size[1]
    metals = int(np.clip(round(sites * rng.uniform(0.2, 1.0)), 1, sites))
    return f'{metal}{metals}{nonmetal}{max(1, round(sites * rng.uniform(0.2, 0.75)))}'


def place(rng: np.random.Generator, metals: list[tuple[str, str]]) -> tuple[str, str, tuple[int, int, int]]:
    """Return one of these metals with their structures, one of its facets and a size."""
    metal, structure = metals[rng.integers(len(metals))]
    facets = [facet for facet in FACETS if FACETS[facet][0] == structure]
    facet = str(rng.choice(facets, p=[FACETS[facet][1] for facet in facets]))
    return metal, facet, FACETS[facet][3][rng.integers(len(FACETS[facet][3]))]


def compound(number: int, rng: np.random.Generator) -> tuple[str, str, tuple[int, int, int], str]:
    """Return metal, facet, size and formula of a metal with H, C, N or S, or alone."""
    metal, facet, size = place(rng, EVERY + CATALYSTS)
    if number % 5 == 4:
        return metal, facet, size, f'{metal}{rng.integers(1, size[0] * size[1])}'
    return metal, facet, size, mixture(metal, LIGHT[number % 5], size, rng)


def adsorbates(number: int, rng: np.random.Generator) -> tuple[str, str, tuple[int, int, int], str]:
    """Return metal, facet, size and formula of H, C, N or S, with O once in five, of up to three quarters of the sites."""
    metal, facet, size = place(rng, EVERY + CATALYSTS)
    count = int(rng.integers(1, max(1, round(0.75 * size[0] * size[1])) + 1))
    oxygens = int(rng.integers(1, count)) if count > 1 and rng.random() < 0.25 and not without_oxygen(metal) else 0
    return metal, facet, size, f'{LIGHT[number % 4]}{count - oxygens}' + (f'O{oxygens}' if oxygens else '')


def molecules(number: int, rng: np.random.Generator) -> tuple[str, str, tuple[int, int, int], str]:
    """Return metal, facet, size and molecules, such as ``'CO+CO'``."""
    metal, facet, size = place(rng, EVERY + CATALYSTS)
    name = 'NH3' if without_oxygen(metal) else MOLECULES[number % len(MOLECULES)]
    return metal, facet, size, '+'.join([name] * int(rng.integers(1, 1 + min(3, size[0] * size[1] // 2))))


def with_molecules(slab: Atoms, names: list[str], rng: np.random.Generator) -> Atoms:
    """Return molecules at random places near the surface, no atoms closer than 0.7 times the sum of their covalent radii."""
    atoms, top = slab.copy(), slab.positions[:, 2].max()
    for name in names:
        for _ in range(1000):
            one = molecule(name)
            one.positions -= one.positions[one.numbers != 1][-1 if name == 'CO' else 0]  # C of CO, else O or N
            if name == 'CO':
                one.rotate(rng.uniform(0, 40), 'x')
                one.rotate(rng.uniform(0, 360), 'z')
            else:
                one.rotate(*random_rotation(rng))
            a, b = rng.random(2)
            one.positions += a * slab.cell[0] + b * slab.cell[1] + [0, 0, top + rng.uniform(1.0, 2.4)]
            d = get_distances(one.positions, atoms.positions, cell=slab.cell, pbc=slab.pbc)[1]
            radii = covalent_radii[one.numbers][:, None] + covalent_radii[atoms.numbers]
            if (d > 0.7 * radii).all() and one.positions[:, 2].min() > top + 0.5:
                atoms += one
                break
        else:
            raise RuntimeError(f'no room for {name}')
    return atoms


def random_rotation(rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Return an angle and an axis that turn a molecule anyhow."""
    return float(rng.uniform(0, 360)), rng.normal(size=3)


def starts(kind: str, number: int, count: int, rng: np.random.Generator) -> tuple[str, str, list[Atoms], list[str]]:
    """Return metal, facet, ``count`` structures of a group, and where they come from."""
    metal, facet, size, formula = KINDS[kind](number, rng)
    slab = substrate(metal, facet, size)
    if kind == 'molecules':
        return metal, facet, [with_molecules(slab, formula.split('+'), rng) for _ in range(count)], ['molecules'] * count
    if kind == 'adsorbates':
        return metal, facet, [random_start(slab, formula, rng, height=(0.7, 2.8)) for _ in range(count)], ['random'] * count
    images = [random_start(slab, formula, rng) for _ in range(count // (4 if kind == 'oxides' else 2))]
    sources, left = ['random'] * len(images), count - len(images)
    many, silver = MODELS
    default, second = (silver, many) if facet in ('110', '211') and kind == 'oxides' else (many, silver)
    if kind == 'compounds':  # of which renamed silver knows nothing
        second = many
    for part, (model, scale) in enumerate([(default, 1.0), (default, 2.0), (default, 4.0), (second, 2.0)]):
        n = left // 4 + (part < left % 4)
        gen = SurfaceDiffusion(slab, stoich=formula, model=model, steps=30, rng=int(rng.integers(1 << 31)), logfile=None)
        images += gen.sample(n, energy=0.0, guidance_scale=scale) if n else []
        sources += ['model'] * n
    return metal, facet, images, sources


KINDS = {'oxides': oxide, 'others': other, 'compounds': compound, 'adsorbates': adsorbates, 'molecules': molecules}


def make(folder: Path, kind: str, seed: int, number: int, count: int) -> list[Atoms]:
    """Return the starts of group ``number``, made and stored where they are not there yet."""
    path = folder / f'{number:05d}.starts'
    if path.exists():
        return read(path, ':', format='traj')
    metal, facet, images, sources = starts(kind, number, count, np.random.default_rng((seed, number)))
    for k, (atoms, source) in enumerate(zip(images, sources, strict=True)):
        atoms.calc = None
        about = {'run': 1_000_000 * seed + 100 * number + k, 'metal': metal, 'facet': facet, 'start': source}
        atoms.info = {'key_value_pairs': about}
    put(path, images)
    return images


def put(path: Path, images: list[Atoms]) -> None:
    """Write a trajectory, whole or not at all."""
    partial = path.with_name(path.name + '.partial')
    write(partial, images, format='traj')
    partial.replace(path)


def refine(folder: Path, batches: dict[int, list[Atoms]], calculator, device, together: int, until: float = np.inf) -> None:
    """Relax the starts of groups, in their order, and store the frames kept, with energies and raw forces, as a group is done.

    At the time ``until`` (of time.monotonic) what there is of every relaxation is stored.
    """
    images = [(number, atoms) for number, some in batches.items() for atoms in some]
    left, kept, paths = {number: len(some) for number, some in batches.items()}, collections.defaultdict(list), []

    def keep(index, about, converged):
        for step, frame in enumerate(paths[index]):
            last = step == len(paths[index]) - 1
            if last or step in KEEP:
                frame.info['key_value_pairs'] = about | {'step': step, 'last': last, 'converged': converged}
                kept[images[index][0]].append(frame)
        paths[index].clear()

    options = {'fmax': 0.05, 'steps': 120, 'batch_size': together, 'device': device, 'frames': paths}
    for index, end in irelax([atoms for _, atoms in images], calculator, **options):
        number, pairs = images[index][0], end.info['key_value_pairs']
        if not pairs.get('relax_failed'):
            keep(index, {name: pairs[name] for name in ABOUT}, pairs['relax_converged'])
        paths[index].clear()
        left[number] -= 1
        if not left[number]:
            put(folder / f'{number:05d}.traj', kept.pop(number, []))
            print(f'{time.process_time() / 60:6.1f} CPU min {number:5d}', *[pairs[x] for x in ABOUT], end.symbols, flush=True)
        if time.monotonic() > until:
            break
    for index, (_, atoms) in enumerate(images):
        if len(paths[index]) > UNFINISHED:
            keep(index, {name: atoms.info['key_value_pairs'][name] for name in ABOUT}, False)
    for number, frames in kept.items():
        put(folder / f'{number:05d}.traj', frames)


def run(args) -> None:
    """Make starts, relax them, or both, until the time is over."""
    logging.getLogger('ase_diffusion').setLevel(logging.ERROR)
    folder = STORE / str(args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * args.minutes
    made, done = ({int(path.stem) for path in folder.glob(f'*.{kind}')} for kind in ('starts', 'traj'))
    if args.command == 'relax':
        part, parts = map(int, args.share.split('/'))
        batches = {number: make(folder, args.kind, args.seed, number, 0) for number in sorted(made - done)[part::parts]}
        refine(folder, batches, '7net-mf-0', args.device, args.together, until)
        return
    calculator = get_calculator('7net-mf-0') if args.command == 'run' else None
    number = max(made if calculator is None else done, default=-1) + 1
    while time.monotonic() < until and number < args.groups:
        images = make(folder, args.kind, args.seed, number, args.batch)
        if calculator is not None:
            refine(folder, {number: images}, calculator, None, 1)
        number += 1


def merge(args) -> None:
    """Write all relaxations but those left out and those that lost a molecule to one file; print their numbers."""
    frames = [atoms for path in [*args.files, *sorted(STORE.glob('*/*.traj'))] for atoms in read_frames(path)]
    pairs = [atoms.info['key_value_pairs'] for atoms in frames]
    left = {x['run'] for x, atoms in zip(pairs, frames, strict=True) if x['last'] and len(detached(atoms))}
    kept = [k for k, x in enumerate(pairs) if x['run'] not in left and not is_left_out(frames[k])]
    kept = [k for k in kept if pairs[k]['last'] or pairs[k].get('held') or pairs[k]['step'] in args.steps]
    write_frames([frames[k] for k in kept], args.out)
    found = collections.Counter(what_on_what(frames[k]) for k in kept if pairs[k]['last'])
    for key, n in sorted(found.items()):
        print(*key, n)
    print(f'{sum(found.values())} relaxations, {len(kept)} frames in {args.out}; {len(left)} lost a molecule')


def what_on_what(atoms: Atoms) -> tuple[str, str]:
    """Return the elements of the frozen and of the mobile atoms."""
    frozen = frozen_mask(atoms)
    return tuple('-'.join(sorted(set(atoms.symbols[part]))) for part in (frozen, ~frozen))


def is_left_out(atoms: Atoms) -> bool:
    """Return whether a frame has oxygen and a metal that is never used with it."""
    substrate, mobile = what_on_what(atoms)
    return without_oxygen(substrate) and 'O' in mobile.split('-')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name in ('run', 'starts', 'relax'):
        one = commands.add_parser(name)
        one.add_argument('--seed', type=int, required=True)
        one.add_argument('--minutes', type=float, default=60)
        one.add_argument('--kind', choices=list(KINDS), default='oxides')
        one.add_argument('--batch', type=int, default=16, help='starts of a group')
        one.add_argument('--groups', type=int, default=1 << 30, help='groups of the round at most')
    one.add_argument('--device')
    one.add_argument('--together', type=int, default=64, help='structures in one call of the network')
    one.add_argument('--share', default='0/1', help='i/n: every n-th batch from the i-th on')
    two = commands.add_parser('merge')
    two.add_argument('out', type=Path)
    two.add_argument('files', type=Path, nargs='*')
    two.add_argument(
        '--steps', type=int, nargs='*', default=sorted(KEEP), help='frames to keep beside the last, of what is not held'
    )
    args = parser.parse_args()
    merge(args) if args.command == 'merge' else run(args)


if __name__ == '__main__':
    main()
