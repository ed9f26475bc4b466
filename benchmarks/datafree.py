"""Training without data against random search, with the same number of calculator calls: Pt7 on Pt(111), EMT.

    python benchmarks/datafree.py run        # fills runs/datafree, goes on where it stopped
    python benchmarks/datafree.py report     # results/datafree.json and .png from what is there

The shipped model has never seen platinum. Every seed of ``fit_with_calculator`` starts from nothing. Both relax with BFGS to
0.05 eV/A: random search with at most 100 steps; the training with at most RELAX steps, after which it goes on to the next
structure (what it finds is relaxed to the end, and these calls count too). A call is one evaluation of energy and forces.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import ase
import numpy as np
import torch
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read, write

import ase_diffusion
from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import duplicates
from ase_diffusion.relax import relax
from ase_diffusion.search import random_start

HERE = Path(__file__).parent
STORE = HERE.parent / 'runs' / 'datafree'
STOICH, RANDOM, SEEDS, CHUNK = 'Pt7', 200, 4, 10
PLAN = {'rounds': 8, 'samples': 16, 'relax_steps': 30, 'steps': 150, 'explore': 0.2}
OPTIONS = {'features': 32, 'blocks': 3, 'batch_size': 8}
FINAL = 5  # structures of each round that are relaxed to the end, the lowest ones


def substrate():
    """Return two frozen layers of p(4x4) Pt(111)."""
    slab = fcc111('Pt', (4, 4, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def random_search() -> None:
    """Relax random starts, in files of CHUNK."""
    slab = substrate()
    for chunk in range(RANDOM // CHUNK):
        path = STORE / 'random' / f'{chunk:03d}.traj'
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = time.process_time()
        starts = [random_start(slab, STOICH, np.random.default_rng((5, chunk, k))) for k in range(CHUNK)]
        ends = relax(starts, 'emt', fmax=0.05, steps=100)
        seconds = (time.process_time() - begun) / CHUNK
        for atoms in ends:
            atoms.info['key_value_pairs'] |= {'calls': atoms.info['key_value_pairs']['relax_steps'] + 1, 'cpu': seconds}
        write(path.with_suffix('.partial'), ends, format='traj')
        path.with_suffix('.partial').replace(path)
        print('random', (chunk + 1) * CHUNK, flush=True)


def training(seed: int) -> None:
    """Train from nothing, and relax the lowest structures of every round to the end."""
    out, path = STORE / f'seed_{seed}', STORE / f'seed_{seed}.traj'
    if path.exists():
        return
    begun = time.process_time()
    gen = SurfaceDiffusion(substrate(), STOICH, model='untrained', steps=40, rng=seed, compile=False)
    gen.fit_with_calculator('emt', out, seed=seed, options=OPTIONS, **PLAN)
    history, calls = [], 0
    for number in range(PLAN['rounds']):
        ends = [read(file, -1) for file in sorted((out / f'round_{number:03d}').glob('*.traj'))]
        calls += sum(atoms.info['key_value_pairs']['relax_steps'] + 1 for atoms in ends)
        ends.sort(key=lambda atoms: atoms.get_potential_energy())
        for atoms in relax(ends[:FINAL], 'emt', fmax=0.05, steps=100):
            calls += atoms.info['key_value_pairs']['relax_steps']
            atoms.info['key_value_pairs'] |= {'calls': calls, 'round': number, 'cpu': time.process_time() - begun}
            history.append(atoms)
    write(path, history)
    print('seed', seed, 'calls', calls, flush=True)


def found(images, best):
    """Tell which images are the best structure, up to the symmetry of the substrate."""
    return [first == 0 for first in duplicates([best, *images])[1:]]


def report() -> None:
    """Write results/datafree.json and .png."""
    random = [atoms for path in sorted((STORE / 'random').glob('*.traj')) for atoms in read(path, ':')]
    runs = {path.stem: read(path, ':') for path in sorted(STORE.glob('seed_*.traj'))}
    best = min([*random, *(a for images in runs.values() for a in images)], key=lambda a: a.get_potential_energy())
    zero, each = best.get_potential_energy(), np.mean([a.info['key_value_pairs']['calls'] for a in random])
    hits = found(random, best)
    q = float(np.mean(hits))
    energies = np.array([a.get_potential_energy() - zero for a in random])
    total = {name: images[-1].info['key_value_pairs']['calls'] for name, images in runs.items()}
    first = {
        name: next((a.info['key_value_pairs']['calls'] for a, hit in zip(images, found(images, best), strict=True) if hit), None)
        for name, images in runs.items()
    }
    k = int(np.mean(list(total.values())) / each) if total else 0
    rng = np.random.default_rng(0)
    of_random = [energies[rng.integers(len(energies), size=k)].min() for _ in range(1000)] if k else []
    record = {
        'system': f'{STOICH} on p(4x4) Pt(111), two frozen layers, EMT',
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread, beside other programs',
        'versions': {'ase_diffusion': ase_diffusion.__version__, 'ase': ase.__version__, 'torch': torch.__version__},
        'settings': {**PLAN, **OPTIONS, 'final': FINAL},
        'best_eV': zero,
        'random': {
            'n': len(random),
            'calls_each': round(each, 1),
            'hits': int(sum(hits)),
            'mean_eV': round(float(energies.mean()), 3),
            'error_eV': round(float(energies.std() / len(energies) ** 0.5), 3),
            'at_equal_calls': {
                'relaxations': k,
                'probability': round(1 - (1 - q) ** k, 3),
                'best_eV': round(float(np.mean(of_random)), 3) if k else None,
            },
        },
        'trained': {
            name: {
                'calls': total[name],
                'calls_to_best': first[name],
                'best_eV': round(min(a.get_potential_energy() for a in images) - zero, 4),
                'by_round_eV': [
                    round(
                        float(
                            np.mean([a.get_potential_energy() - zero for a in images if a.info['key_value_pairs']['round'] == r])
                        ),
                        3,
                    )
                    for r in range(PLAN['rounds'])
                ],
                'cpu_s': round(images[-1].info['key_value_pairs']['cpu']),
            }
            for name, images in runs.items()
        },
    }
    out = HERE / 'results' / 'datafree.json'
    out.write_text(json.dumps(record, indent=1) + '\n')
    print(json.dumps(record, indent=1))
    draw(random, runs, zero, q, each, out.with_suffix('.png'))


def draw(random, runs, zero, q, each, path) -> None:
    """Draw the energies over the calls, and the probability of random search."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout='constrained')
    left.hist([a.get_potential_energy() - zero for a in random], bins=30, color='0.7', label='random search')
    left.set(xlabel='eV above the best', ylabel='relaxations')
    for name, images in runs.items():
        x = [a.info['key_value_pairs']['calls'] for a in images]
        right.plot(x, np.minimum.accumulate([a.get_potential_energy() - zero for a in images]), label=name)
    right.set(xlabel='calculator calls', ylabel='best so far (eV above the best)')
    if runs:
        calls = np.linspace(0, right.get_xlim()[1], 100)
        twin = right.twinx()
        twin.plot(calls, 1 - (1 - q) ** (calls / each), 'k--')
        twin.set(ylabel='probability of random search (dashed)', ylim=(0, 1))
        right.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('command', choices=('run', 'report'))
    if parser.parse_args().command == 'report':
        return report()
    torch.set_num_threads(1)
    training(0)
    random_search()
    for seed in range(1, SEEDS):
        training(seed)


if __name__ == '__main__':
    main()
