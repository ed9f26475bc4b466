"""Relaxation with an expensive potential, with and without a first Hessian from our force field.

    python benchmarks/surrogate_hessian.py -n 12 --potential 7net-mf-0

The same structures (Ag6O3 in p(3x3), as generated, and random starts relaxed to 0.5 eV/A with our force field first) go
through relax() twice: ase.optimize.BFGS as it is, and with hessian='ag-o'. Steps, seconds (the Hessian's included) and the
energies at the end are compared. Writes results/surrogate_hessian.json.
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

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.search import random_start

OUT = Path(__file__).parent / 'results' / 'surrogate_hessian.json'


def starts(n: int) -> dict:
    """Return two lists of n structures."""
    slab = fcc111('Ag', (3, 3, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    generated = SurfaceDiffusion(slab, 'Ag6O3', rng=21, logfile=None).sample(n)
    rough = [random_start(slab, 'Ag6O3', np.random.default_rng((22, k))) for k in range(n)]
    return {'as generated': generated, 'random, ag-o to 0.5 eV/A': relax(rough, 'ag-o', fmax=0.5)}


def compare(images, calculator, fmax: float) -> dict:
    """Return steps, seconds and energies of both ways."""
    rows = {}
    for name, hessian in (('plain', None), ('ag-o', 'ag-o')):
        begun = time.perf_counter()
        done = relax(images, calculator, fmax=fmax, steps=300, hessian=hessian)
        seconds = (time.perf_counter() - begun) / len(images)
        pairs = [a.info['key_value_pairs'] for a in done]
        rows[name] = {
            'steps': [int(p['relax_steps']) for p in pairs],
            'converged': [bool(p['relax_converged']) for p in pairs],
            'energy': [round(a.get_potential_energy(), 4) for a in done],
            'seconds_each': round(seconds, 2),
        }
    gap = np.array(rows['ag-o']['energy']) - np.array(rows['plain']['energy'])
    steps = [np.mean(rows[name]['steps']) for name in ('plain', 'ag-o')]
    return rows | {
        'mean_steps': [round(float(s), 1) for s in steps],
        'mean_energy_change_eV': round(float(gap.mean()), 4),
        'same_minimum_to_10_meV': int((np.abs(gap) < 0.01).sum()),
        'n': len(images),
    }


def main() -> None:
    """Run both lists and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-n', type=int, default=12)
    parser.add_argument('--potential', default='7net-mf-0')
    parser.add_argument('--fmax', type=float, default=0.03)
    args = parser.parse_args()
    torch.set_num_threads(1)
    calculator = get_calculator(args.potential)
    results = {}
    for name, images in starts(args.n).items():
        results[name] = r = compare(images, calculator, args.fmax)
        print(
            f'{name}: {r["n"]} structures, steps {r["mean_steps"][0]} plain, {r["mean_steps"][1]} with the Hessian; '
            f'{r["plain"]["seconds_each"]} and {r["ag-o"]["seconds_each"]} s each; same minimum {r["same_minimum_to_10_meV"]}, '
            f'mean change of the energy {1000 * r["mean_energy_change_eV"]:.0f} meV',
            flush=True,
        )
    record = {
        'potential': args.potential,
        'fmax': args.fmax,
        'seeds': 'generated: 21; random start k: default_rng((22, k))',
        'machine': f'{platform.machine()}, {os.cpu_count()} cores, 1 thread',
        'versions': {'ase': ase.__version__, 'torch': torch.__version__},
        'results': results,
    }
    OUT.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
