"""Structures per hour on one thread: Ag12O6 on p(4x4) Ag(111), two frozen layers (50 atoms), 500 steps, unconditional.

    python benchmarks/surface_speed.py [--peer 'COMMAND']

Baseline in the same run: the same network without the reuse of freed memory (as a plain PyTorch program behaves), and with
--peer, a Python with AGeDi (random weights, PaiNN of the same size), that: as installed, with tuned malloc, and with denormal
numbers flushed as well. A peer may live elsewhere: --peer 'chroot /trixie /root/venv/bin/python'. Every case runs in its own
process; times are CPU seconds of the process, so that a busy machine disturbs them little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}
CASES = {
    'plain PyTorch memory, batch 8': {'batch': 8, 'memory': False},
    'eager, batch 1': {'batch': 1},
    'eager, batch 8': {'batch': 8},
    'eager, batch 16': {'batch': 16},
    'compiled, batch 1': {'batch': 1, 'compile': True},
    'compiled, batch 8': {'batch': 8, 'compile': True},
    'compiled, batch 16': {'batch': 16, 'compile': True},
    'compiled, batch 64': {'batch': 64, 'compile': True},
    'eager, batch 64 (memory)': {'batch': 64},
}
TUNED = {'MALLOC_MMAP_THRESHOLD_': '4000000000', 'MALLOC_TRIM_THRESHOLD_': '8000000000'}
PEER = {  # (arguments, environment)
    'AGeDi, batch 1': (('1',), {}),
    'AGeDi, batch 8': (('8',), {}),
    'AGeDi, tuned malloc, batch 1': (('1',), TUNED),
    'AGeDi, tuned malloc, batch 8': (('8',), TUNED),
    'AGeDi, tuned malloc, flushed, batch 8': (('8', 'flush'), TUNED),
}
STEPS, MEASURED = 500, 40


def one(case: dict) -> dict:
    """Measure one case: MEASURED steps of the 500, spread over the whole schedule, after a warm-up."""
    import resource
    import time

    import torch
    from ase.build import fcc111
    from ase.constraints import FixAtoms

    import ase_diffusion.generators.base as base
    from ase_diffusion import SurfaceDiffusion

    torch.set_num_threads(1)
    if not case.get('memory', True):
        base.keep_freed_memory = lambda: False
    slab = fcc111('Ag', (4, 4, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(32)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gen = SurfaceDiffusion(
        slab,
        'Ag12O6',
        rng=0,
        sampler='ancestral',
        steps=MEASURED,
        batch_size=case['batch'],
        logfile=None,
        compile=case.get('compile', False),
    )
    gen._reason_to_reject = lambda atoms: None
    begun = time.perf_counter()
    gen.sample(case['batch'], energy=None, guidance_scale=0.0)  # warm-up, compilation
    warm = time.perf_counter() - begun
    graph = [0.0]
    inner = gen.network._neighbors

    def timed(*args):
        t = time.process_time()
        result = inner(*args)
        graph[0] += time.process_time() - t
        return result

    gen.network._neighbors = timed
    t0 = time.process_time()
    gen.sample(case['batch'], energy=None, guidance_scale=0.0)
    seconds = time.process_time() - t0
    per_step = seconds / MEASURED / case['batch']
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        'structures_per_hour': round(3600 / (per_step * STEPS)),
        'ms_per_step_and_structure': round(1e3 * per_step, 3),
        'share_neighbours': round(graph[0] / seconds, 3),
        'warm_up_s': round(warm, 1),
        'peak_MB': round(peak / 1024),
        'above_imports_MB': round((peak - before) / 1024),
    }


def peer(command: str, arguments: tuple, environment: dict) -> dict:
    """Measure one case of the peer."""
    line = [*shlex.split(command), '-', arguments[0], str(STEPS), str(MEASURED), *arguments[1:]]
    with (HERE / 'surface_speed_agedi.py').open() as source:
        return outcome(subprocess.run(line, stdin=source, capture_output=True, text=True, env={**ENVIRONMENT, **environment}))


def outcome(done: subprocess.CompletedProcess) -> dict:
    """Return what a process printed last, or the error."""
    if done.returncode:
        return {'error': done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(command: str | None) -> None:
    """Measure all cases, each in a process of its own, and write results/surface_speed.json."""
    import ase
    import torch

    import ase_diffusion

    jobs = {name: partial(peer, command, *case) for name, case in PEER.items()} if command else {}
    for name, case in CASES.items():
        line = [sys.executable, __file__, '--case', json.dumps(case)]
        jobs[name] = partial(lambda line: outcome(subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT)), line)
    rows = {}
    for name, job in jobs.items():
        rows[name] = job()
        print(f'{name:<40s} {rows[name]}', flush=True)
    record = {
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores; 1 thread, CPU seconds',
        'versions': {'ase_diffusion': ase_diffusion.__version__, 'ase': ase.__version__, 'torch': torch.__version__},
        'case': f'Ag12O6 on p(4x4) Ag(111), 50 atoms, {STEPS} steps (measured on {MEASURED}), seed 0',
        'load_average': os.getloadavg(),
        'results': rows,
    }
    (HERE / 'results' / 'surface_speed.json').write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peer', metavar='COMMAND', help='a Python that has AGeDi')
    parser.add_argument('--case', type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    print(json.dumps(one(args.case))) if args.case else main(args.peer)
