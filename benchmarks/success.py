"""How many relaxations, and how much CPU time, until the best known minimum is found?

    python benchmarks/success.py run              # fills runs/success up to the targets below, goes on where it stopped
    python benchmarks/success.py run ag6o3 random diffusion -n 512
    python benchmarks/success.py run ag6o3-7net   # an expensive potential: 7net-mf-0
    python benchmarks/success.py report           # results/success.json and .png from what is there

All methods relax with BFGS, fmax 0.05 eV/A, at most 400 steps, with the shipped force field ``ag-o``, or with 7net-mf-0 where the
system says so; only relaxations with that potential count. ``screened`` is made for the latter: of 4 guided samples, relaxed with
``ag-o``, the lowest is relaxed with 7net-mf-0; its CPU time counts everything. Generators have their default sampler; ``long``
takes four times its steps. The store is keyed by the sha256 of the weights and by the sampler: with others the same command
computes anew what depends on them (random search depends on the force field only). Found
means: same composition, energy within 0.02 eV and fingerprint (invariant under the symmetry of the substrate) within the
tolerance of ``metrics.duplicates`` of the best structure that any method has seen.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import torch
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read, write

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import relax, relax_batched
from ase_diffusion.search import random_start
from ase_diffusion.weights.zoo import find_model

HERE = Path(__file__).parent
STORE = HERE.parent / 'runs' / 'success'
SYSTEMS = {  # cell, what is on it, potential
    'ag6o3': ((3, 3), 'Ag6O3', 'ag-o'),
    'ag12o6': ((4, 4), 'Ag12O6', 'ag-o'),
    'ag6o3-7net': ((3, 3), 'Ag6O3', '7net-mf-0'),
    'ag12o6-7net': ((4, 4), 'Ag12O6', '7net-mf-0'),
}
RELAX = {'fmax': 0.05, 'steps': 400}
SAMPLER = f'{SurfaceDiffusion.default_sampler}-{SurfaceDiffusion.default_steps}'
CHUNK = {'ag-o': 32, '7net-mf-0': 4}  # independent attempts per file
OPTIONS = {
    'diffusion': {},
    'guided': {'guidance': True},
    'long': {'steps': 4 * SurfaceDiffusion.default_steps},
    'screened': {'guidance': True, 'best_of': 4, 'relax': {'calculator': 'ag-o', **RELAX}},
}
RUNS, SIZE = 8, {'ag6o3': 40, 'ag12o6': 60}  # runs of the genetic algorithm per file, and relaxations of each
TARGETS = {  # attempts; for the genetic algorithm 32 runs times SIZE
    'ag6o3': {'random': 1024, 'diffusion': 512, 'guided': 512, 'ga': 1280, 'ga-diffusion': 1280},
    'ag12o6': {'random': 2048, 'diffusion': 512, 'guided': 256, 'long': 128, 'ga': 1920, 'ga-diffusion': 1920},
    'ag6o3-7net': {'random': 64, 'screened': 32},
    'ag12o6-7net': {'random': 64, 'screened': 32},
}
ROUNDS = 4  # the store grows evenly: in round r every method is brought to r / ROUNDS of its target


def slab_of(system: str):
    """Return two frozen layers of Ag(111), a = 4.16 A."""
    slab = fcc111('Ag', (*SYSTEMS[system][0], 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def folder(system: str, method: str) -> Path:
    """Return where the results of a method with the present weights are kept."""
    without = method in ('random', 'ga')
    models = ['ag-o-forcefield'] + ([] if without else ['ag-o-overlayer'])
    key = '-'.join(hashlib.sha256(find_model(name).read_bytes()).hexdigest()[:10] for name in models)
    key += '' if without else f'-{SAMPLER}'
    return STORE / key / f'{system}.{method}'


def attempts(system: str, method: str, chunk: int, size: int):
    """Return (relaxed structures, CPU seconds of generation, of relaxation, calculator calls of guidance) of a chunk."""
    slab, (_, stoich, potential) = slab_of(system), SYSTEMS[system]
    begun, calls = time.process_time(), 0
    if method == 'random':
        images = [random_start(slab, stoich, np.random.default_rng((7, chunk, k))) for k in range(size)]
    else:
        gen = SurfaceDiffusion(
            slab, stoich, rng=np.random.default_rng((11, chunk)), logfile=None, compile=False, **OPTIONS[method]
        )
        images = gen.sample(size)
        calls = gen.guidance.calls if gen.guidance else 0
    middle = time.process_time()
    final = relax_batched(images, 'ag-o', **RELAX) if potential == 'ag-o' else relax(images, potential, **RELAX)
    return final, middle - begun, time.process_time() - middle, calls


def store(path: Path, images) -> None:
    """Write a chunk as one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix='.partial', delete=False) as file:
        partial = Path(file.name)
    write(partial, images, format='traj')
    partial.replace(path)


def fill(system: str, method: str, target: int, end: float) -> None:
    """Compute missing chunks until ``target`` attempts are there or the time is over."""
    where = folder(system, method)
    size = RUNS * SIZE[system] if method.startswith('ga') else CHUNK[SYSTEMS[system][2]]
    for chunk in range(-(-target // size)):
        path = where / f'{chunk:04d}.traj'
        if path.exists() or time.monotonic() > end:
            continue
        if method.startswith('ga'):
            from success_ga import runs

            images = runs(system, method, chunk)
        else:
            images, generate, relax, calls = attempts(system, method, chunk, size)
            for number, atoms in enumerate(images):
                atoms.info['key_value_pairs'] |= {
                    'cpu_generate': generate / size,
                    'cpu_relax': relax / size,
                    'guidance_calls': calls / size,
                    'number': number,
                }
        for atoms in images:
            atoms.info.pop('data', None)  # the same for all; would make up most of the file
        store(path, images)
        print(f'{time.strftime("%H:%M:%S")} {system} {method}: {(chunk + 1) * size}', flush=True)


def load(system: str, method: str) -> list:
    """Return the structures of a method in the order of their chunks."""
    return [atoms for path in sorted(folder(system, method).glob('*.traj')) for atoms in read(path, ':')]


def run(args) -> None:
    """Fill the store."""
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * args.minutes
    chosen = [
        (s, m, n)
        for s, methods in TARGETS.items()
        for m, n in methods.items()
        if args.system in (None, s) and (not args.methods or m in args.methods)
    ]
    for share in range(1, ROUNDS + 1):
        for system, method, target in chosen:
            fill(system, method, (args.n or target) * share // ROUNDS, end)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('run')
    one.add_argument('system', nargs='?', choices=SYSTEMS)
    one.add_argument('methods', nargs='*', choices=[*TARGETS['ag12o6'], 'screened', []])
    one.add_argument('-n', type=int, help='attempts per method instead of the targets')
    one.add_argument('--minutes', type=float, default=1e6, help='begin nothing new after this time')
    commands.add_parser('report')
    args = parser.parse_args()
    if args.command == 'run':
        return run(args)
    from success_report import report

    return report()


if __name__ == '__main__':
    main()
