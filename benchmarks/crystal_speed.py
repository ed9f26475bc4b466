"""Crystals per hour on one thread: the network of the paper's size, random weights, 1000 steps of two calls, batch 64.

    python benchmarks/crystal_speed.py run [--cases 'eager, 5 atoms' ...]
    python benchmarks/crystal_speed.py report

The cases edm are the default scheme with its 100 steps of two calls. Every case runs in its own process. Times are
CPU seconds of the process, so that a busy machine disturbs them little (shared caches still do). Measured elsewhere on this kind
of machine, not in this run: DiffCSP (512 x 6) 433 and 21 structures/h at 5 and 20 atoms, DiffCSP at the paper's size (128 x 6)
2,393 and 74.
"""

from __future__ import annotations

from bench import Benchmark, main, number, table

# isort: split
import resource
import time

import numpy as np
import torch

from ase_diffusion.diffusion import SAMPLERS, NoisePerStructure
from ase_diffusion.generators.base import compile_core
from ase_diffusion.networks import CrystalTransformer
from ase_diffusion.representations.crystal import Crystal, LogLatticeCrystal
from ase_diffusion.training.crystal import SCHEMES
from ase_diffusion.training.objectives import DenoisingLoss
from ase_diffusion.utils.memory import keep_freed_memory

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


class CrystalSpeed(Benchmark):
    """An item is a case, in a process of its own."""

    name, isolated = 'crystal_speed', True

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('--cases', nargs='+', choices=list(CASES), default=list(CASES))

    def settings(self) -> dict:
        return {'batch': 2 if self.quick else BATCH, 'steps': STEPS}

    def items(self):
        if self.quick:
            yield 'eager, 5 atoms', {'natoms': 5, 'batch': 2, 'measured': 2}
            return
        for name in self.args.cases:
            yield name, CASES[name]

    def run(self, item: dict) -> dict:
        return one(item)

    def report(self, results: dict) -> None:
        columns = {  # head -> name, digits
            'ms per call': ('ms_per_call', 2),
            'per hour': ('structures_per_hour', 0),
            'ms per step': ('ms_per_step', 1),
            'parameters': ('parameters', 0),
            'first call, s': ('first_call_s', 1),
            'MB': ('memory_mb', 0),
            'load': ('load', 1),
        }
        rows = []
        for name, r in results.items():
            row = (number(r.get(key), digits) for key, digits in columns.values())
            rows.append((name, *row, r.get('error', '')))
        print(table(('case', *columns, ''), rows))


def setting(case: dict):
    """Return network, process and a batch of placeholders."""
    torch.manual_seed(0)
    n, size, representation, more = case['natoms'], case.get('batch', BATCH), Crystal(range(1, 89)), {}
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
    fractional, numbers = rng.random((size * n, 3)), rng.integers(1, 89, size * n)
    batch = representation.assemble(fractional, numbers, np.tile(4 * np.eye(3), (size, 1, 1)), [n] * size)
    process = representation.process() if case.get('edm') else representation.process(longest=20.0)
    return network, process, batch


def one(case: dict) -> dict:
    """Measure one case."""
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network, process, batch = setting(case)
    steps, size = case.get('measured', MEASURED), batch.size
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
            noise = NoisePerStructure(range(size))
            SAMPLERS['predictor_corrector'](network, process, batch, steps=steps, generator=noise)

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
    calls, steps = 2 * steps - 1, SCHEMES['edm']['steps'] if case.get('edm') else STEPS
    return {
        'ms_per_call': round(1e3 * seconds / calls, 2),
        'structures_per_hour': round(3600 * size / (seconds / calls * 2 * steps)),
        **common,
    }


if __name__ == '__main__':
    main(CrystalSpeed)
