"""Structures per hour on one thread: Ag12O6 on p(4x4) Ag(111), two frozen layers (50 atoms), 500 steps, unconditional.

    python benchmarks/surface_speed.py run [--peer 'COMMAND']
    python benchmarks/surface_speed.py report

Baseline in the same run: the same network without the reuse of freed memory (as a plain PyTorch program behaves), and with
--peer, a Python with AGeDi (random weights, PaiNN of the same size), that: as installed, with tuned malloc, and with denormal
numbers flushed as well. The command may enter another system first, such as 'chroot FOLDER python3'. Every case runs in its own
process; times are CPU seconds of the process, so that a busy machine disturbs them little.
"""

from __future__ import annotations

from bench import Benchmark, frozen_slab, last_line, main, number, sample_all, table

# isort: split
import cProfile
import os
import pstats
import resource
import shlex
import time
from pathlib import Path

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
PEER = {  # arguments and environment
    'AGeDi, batch 1': {'peer': ['1'], 'environment': {}},
    'AGeDi, batch 8': {'peer': ['8'], 'environment': {}},
    'AGeDi, tuned malloc, batch 1': {'peer': ['1'], 'environment': TUNED},
    'AGeDi, tuned malloc, batch 8': {'peer': ['8'], 'environment': TUNED},
    'AGeDi, tuned malloc, flushed, batch 8': {'peer': ['8', 'flush'], 'environment': TUNED},
}
STEPS, MEASURED = 500, 40


class SurfaceSpeed(Benchmark):
    """An item is a case, in a process of its own."""

    name, isolated = 'surface_speed', True

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('--peer', metavar='COMMAND', help='a Python that has AGeDi')

    def settings(self) -> dict:
        measured = 3 if self.quick else MEASURED
        return {'case': f'Ag12O6 on p(4x4) Ag(111), 50 atoms, {STEPS} steps (measured on {measured}), seed 0'}

    def items(self):
        if self.quick:
            yield 'eager, batch 1', {'batch': 1, 'measured': 3}
            return
        for key, case in PEER.items() if self.args.peer else ():
            yield key, {**case, 'command': self.args.peer}
        yield from CASES.items()

    def run(self, item: dict) -> dict:
        return peer(item) if 'peer' in item else ours(item)

    def report(self, results: dict) -> None:
        rows = []
        for name, r in results.items():
            row = (number(r.get(key), digits) for key, digits in COLUMNS.values())
            rows.append((name, *row, r.get('error', '')))
        print(self.file['settings']['case'])
        print(table(('case', *COLUMNS, ''), rows))


COLUMNS = {  # head -> name, digits
    'per hour': ('structures_per_hour', 0),
    'ms per step': ('ms_per_step_and_structure', 3),
    'neighbors': ('share_neighbours', 3),
    'warm-up, s': ('warm_up_s', 1),
    'peak, MB': ('peak_MB', 0),
    'above imports, MB': ('above_imports_MB', 0),
}


def ours(case: dict) -> dict:
    """Measure one case: some of the 500 steps, spread over the whole schedule, after a warm-up."""
    import ase_diffusion.generators.base as base
    from ase_diffusion import SurfaceDiffusion

    if not case.get('memory', True):
        base.keep_freed_memory = lambda: False  # the baseline is without what every generator does
    steps, batch = case.get('measured', MEASURED), case['batch']
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = {'sampler': 'ancestral', 'steps': steps, 'batch_size': batch, 'compile': case.get('compile', False)}
    gen = SurfaceDiffusion(frozen_slab((4, 4)), 'Ag12O6', rng=0, logfile=None, **options)

    def work() -> float:
        begun = time.process_time()
        sample_all(gen, batch, energy=None, guidance_scale=0.0)
        return time.process_time() - begun

    begun = time.perf_counter()
    work()  # warm-up, compilation
    warm = time.perf_counter() - begun
    per_step = work() / steps / batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        'structures_per_hour': round(3600 / (per_step * STEPS)),
        'ms_per_step_and_structure': round(1e3 * per_step, 3),
        'share_neighbours': round(share_of(work, 'neighbors'), 3),
        'warm_up_s': round(warm, 1),
        'peak_MB': round(peak / 1024),
        'above_imports_MB': round((peak - before) / 1024),
    }


def share_of(work, name: str) -> float:
    """Return the share of the time of a call that is spent in a function or method of this name."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(work)
    stats = pstats.Stats(profile)
    spent = max((cumulative for (_, _, n), (_, _, _, cumulative, _) in stats.stats.items() if n.strip('_') == name), default=0.0)
    return spent / stats.total_tt


def peer(case: dict) -> dict:
    """Measure one case of the peer."""
    line = [*shlex.split(case['command']), '-', case['peer'][0], str(STEPS), str(MEASURED), *case['peer'][1:]]
    with Path(__file__).with_name('surface_speed_agedi.py').open() as source:
        return last_line(line, stdin=source, env={**os.environ, **case['environment']})


if __name__ == '__main__':
    main(SurfaceSpeed)
