"""Time the fused Lennard-Jones kernel on a GPU for several shapes of a program, and what surrounds it.

    python scripts/tune_triton.py [--batch 1024] [--out scripts/tune_triton.json]

LTA and MFI, grids of 32^3, cutoff 12 A. Of each: preparation on the host, one call with its transfers, copying the grids
back, the whole ``energy_grid`` (wall seconds), and the kernel alone (the least of three runs by CUDA events) for programs of
X x Y lines of Z points and 1, 2 or 4 warps. The default of ``porous/triton_backend.py`` is the fastest row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from grid_iza import lta_and_mfi  # noqa: E402

from ase_diffusion.porous import energy_grid, lennard_jones, triton_backend  # noqa: E402

SHAPE, CUTOFF = (32, 32, 32), 12.0
PROGRAMS = ((4, 4, 32), (4, 2, 32), (2, 2, 32), (4, 8, 32), (8, 8, 32), (2, 4, 32))


def milliseconds(function, repeat: int = 3) -> float:
    """Return the least time of a function on the GPU, after one run that compiles it."""
    times = []
    for _ in range(repeat + 1):
        begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return min(times[1:])


def seconds(function) -> float:
    """Return the wall time of a function."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def kernel(systems, program: tuple[int, int, int], warps: int):
    """Return a function that runs the kernel alone on data that are on the GPU."""
    triton_backend.X, triton_backend.Y, triton_backend.Z = program
    box, numbers = triton_backend._describe(np.stack([cell for *_, cell in systems]), SHAPE, CUTOFF)
    places = np.concatenate([scaled @ one for (scaled, *_), one in zip(systems, box, strict=True)])
    starts = np.cumsum([0, *(len(scaled) for scaled, *_ in systems)])
    a, b = (np.concatenate([system[k] for system in systems]) for k in (1, 2))
    kinds = ((places, np.float64), (a, np.float32), (b, np.float32), (starts, np.int32), (numbers, np.float64))
    data = [torch.as_tensor(np.ascontiguousarray(array, kind), device='cuda') for array, kind in kinds]
    out = torch.empty((len(systems), *SHAPE), device='cuda')
    bundles = int(np.prod([-(-n // p) for n, p in zip(SHAPE, program, strict=True)]))
    x, y, z = program
    return lambda: triton_backend._fill[(len(systems), bundles)](
        out, *data, *SHAPE, X=x, Y=y, Z=z, NUMBERS=triton_backend.NUMBERS, num_warps=warps
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=1024)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    found = {'gpu': torch.cuda.get_device_name(), 'torch': torch.__version__, 'batch': args.batch, 'shape': SHAPE}
    default = (triton_backend.X, triton_backend.Y, triton_backend.Z)
    for code, atoms in lta_and_mfi().items():
        images = [atoms] * args.batch
        systems = [lennard_jones._system(each, 'CH4', 'silica') for each in images]
        call = lambda systems=systems: triton_backend.triton_grids(systems, SHAPE, CUTOFF, 'cuda')  # noqa: E731
        found[code] = {
            'prepare_s': seconds(lambda images=images: [lennard_jones._system(each, 'CH4', 'silica') for each in images]),
            'call_ms': milliseconds(call),
            'copy_s': seconds(call().cpu),
            'energy_grid_s': seconds(lambda images=images: energy_grid(images, SHAPE, device='cuda', backend='triton')),
        }
        print(code, found[code])
        for program, warps in itertools.product(PROGRAMS, (1, 2, 4)):
            ms = milliseconds(kernel(systems, program, warps))
            found[code][f'kernel_ms {program}, {warps} warps'] = ms
            print(f'  {program}, {warps} warps: {ms:7.2f} ms, {1e3 * args.batch / ms:7.0f} structures/s')
        triton_backend.X, triton_backend.Y, triton_backend.Z = default
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
