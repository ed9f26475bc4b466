"""Crystals per hour on one thread: the network of the paper's size, random weights, 1000 steps of two calls, batch 64.

The cases edm are the default scheme with its 100 steps of two calls.

    python benchmarks/crystal_speed.py [--cases 'eager, 5 atoms' ...]

Every case runs in its own process and is kept in results/crystal_speed.json; a case that is there is not run again. Times are
CPU seconds of the process, so that a busy machine disturbs them little (shared caches still do). Measured elsewhere on this kind
of machine, not in this run: DiffCSP (512 x 6) 433 and 21 structures/h at 5 and 20 atoms, DiffCSP at the paper's size (128 x 6)
2,393 and 74.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / 'results' / 'crystal_speed.json'
CASES = {
    'eager, 5 atoms': {'natoms': 5},
    'eager, 20 atoms': {'natoms': 20},
    'eager, 5 atoms, coupled pair terms': {'natoms': 5, 'coupled': True},
    'eager, 20 atoms, coupled pair terms': {'natoms': 20, 'coupled': True},
    'compiled, 5 atoms': {'natoms': 5, 'compile': True},
    'compiled, 20 atoms': {'natoms': 20, 'compile': True},
    'edm, 100 steps, 5 atoms': {'natoms': 5, 'coupled': True, 'edm': True},
    'edm, 100 steps, 20 atoms': {'natoms': 20, 'coupled': True, 'edm': True},
    'training step, 5 atoms': {'natoms': 5, 'train': True},
    'training step, 20 atoms': {'natoms': 20, 'train': True},
}
STEPS, MEASURED, BATCH = 1000, 20, 64


def setting(case: dict):
    """Return network, process and a batch of 64 placeholders."""
    import numpy as np
    import torch

    from ase_diffusion.networks import CrystalTransformer
    from ase_diffusion.representations.crystal import Crystal, LogLatticeCrystal

    torch.manual_seed(0)
    n, representation, more = case['natoms'], Crystal(range(1, 89)), {}
    if case.get('edm'):
        representation = LogLatticeCrystal(range(1, 89), mean=(1.0, 1.0, 1.0, 0.0, 0.0, 0.0), std=(0.2,) * 6)
        more = {
            'points': representation.table.shape[1],
            'cell_mean': representation.mean,
            'cell_std': representation.std,
            'distances': 16,
        }
    network = CrystalTransformer(88, coupled=case.get('coupled', False), **more)
    rng = np.random.default_rng(0)
    batch = representation.assemble(
        rng.random((BATCH * n, 3)), rng.integers(1, 89, BATCH * n), np.tile(4 * np.eye(3), (BATCH, 1, 1)), [n] * BATCH
    )
    process = representation.process() if case.get('edm') else representation.process(longest=20.0)
    return network, process, batch


def one(case: dict) -> dict:
    """Measure one case."""
    import resource
    import time

    import torch

    from ase_diffusion.diffusion import SAMPLERS, NoisePerStructure
    from ase_diffusion.generators.base import compile_core
    from ase_diffusion.training.crystal import SCHEMES
    from ase_diffusion.training.objectives import DenoisingLoss
    from ase_diffusion.utils.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network, process, batch = setting(case)
    parameters = sum(p.numel() for p in network.parameters())
    if case.get('train'):
        torch.set_flush_denormal(True)
        objective, optimizer = DenoisingLoss(process, {'species': 0.33}), torch.optim.AdamW(network.parameters(), 1e-4)

        def work():
            loss = objective(network, batch, torch.Generator().manual_seed(0))['loss']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    else:
        network.eval().requires_grad_(False)
        if case.get('compile'):
            compile_core(network)

        def work():
            SAMPLERS['predictor_corrector'](network, process, batch, steps=MEASURED, generator=NoisePerStructure(range(BATCH)))

    begun = time.perf_counter()
    work()  # warm-up, compilation
    warm, cpu, times = time.perf_counter() - begun, time.process_time(), 3
    for _ in range(times):
        work()
    seconds = (time.process_time() - cpu) / times
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    common = {'parameters': parameters, 'first_call_s': round(warm, 1), 'memory_mb': round(memory)}
    if case.get('train'):
        return {'ms_per_step': round(1e3 * seconds, 1), **common}
    calls, steps = 2 * MEASURED - 1, SCHEMES['edm']['steps'] if case.get('edm') else STEPS
    return {
        'ms_per_call': round(1e3 * seconds / calls, 2),
        'structures_per_hour': round(3600 * BATCH / (seconds / calls * 2 * steps)),
        **common,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', nargs='+', choices=list(CASES), default=list(CASES))
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {'cases': {}}
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    for name in args.cases:
        if name not in results['cases']:
            done = subprocess.run(
                [sys.executable, __file__, '--one', json.dumps(CASES[name])],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            results['cases'][name] = {**json.loads(done.stdout.splitlines()[-1]), 'load': round(os.getloadavg()[0], 1)}
            results['machine'] = f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores'
            results['batch'], results['steps'] = BATCH, STEPS
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + '\n')
        print(f'{name:38s} {results["cases"][name]}', flush=True)


if __name__ == '__main__':
    main()
