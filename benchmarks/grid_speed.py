"""Time of one energy grid: dense torch, blocks in numpy, the back ends of this package, and an external program.

    python benchmarks/grid_speed.py [iza_zeolites.extxyz.gz] [--device cuda] [--program 'griday {cif}'] [--repeat 30]

Without a file, LTA and MFI of tests/porous/conftest.py are taken. One thread; CPU seconds of the thread, the least and the
median of `repeat` runs (a busy machine slows the median). On a GPU: wall seconds with synchronization, and structures per
second in batches of `--batch` copies. `--program` is a command line with {cif} for the structure, timed from start to
end (wall seconds). Nothing is random. Writes results/grid_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from grid_iza import machine

EPSILON, SIGMA, CUTOFF = 115.0, 3.47, 12.0
SHAPE = (32, 32, 32)


def frameworks(path=None):
    """Return LTA and MFI."""
    if path:
        import gzip
        import io

        from ase.io import read

        with gzip.open(path, 'rt') as file:
            images = read(io.StringIO(file.read()), ':', format='extxyz')
        return {atoms.info['framework']: atoms for atoms in images if atoms.info['framework'] in ('LTA', 'MFI')}
    import importlib.util

    place = Path(__file__).parents[1] / 'tests' / 'porous' / 'conftest.py'
    spec = importlib.util.spec_from_file_location('frameworks', place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        'LTA': module.framework(module.LTA_SITES, 221, (11.919,) * 3),
        'MFI': module.framework(module.MFI_SITES, 62, (20.090, 19.738, 13.142)),
    }


def images_of(atoms):
    """Return all oxygen images (m, 3) within the cutoff of the cell's bounding sphere, A."""
    cell = atoms.cell.array
    oxygen = atoms.get_scaled_positions()[atoms.numbers == 8]
    reach = np.ceil(CUTOFF * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing='ij'), -1).reshape(-1, 1, 3)
    return ((oxygen + shifts) @ cell).reshape(-1, 3)


def points_of(atoms):
    """Return the grid points (nx, ny, nz, 3), A."""
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in SHAPE), indexing='ij'), -1) @ atoms.cell.array


def dense_torch(atoms, device='cpu'):
    """Sum over all images for each point, in chunks: what one writes first."""
    import torch

    points = torch.tensor(points_of(atoms).reshape(-1, 3), dtype=torch.float32, device=device)
    places = torch.tensor(images_of(atoms), dtype=torch.float32, device=device)
    total = []
    for part in points.split(512):
        square = torch.cdist(part, places, compute_mode='donot_use_mm_for_euclid_dist').square().clamp(min=0.01)
        q = (SIGMA**2 / square) ** 3
        total.append((4 * EPSILON * q * (q - 1) * (square < CUTOFF**2)).sum(1))
    return torch.cat(total).reshape(SHAPE).cpu().numpy()


def numpy_blocks(atoms, edge=8):
    """Sum over the images near blocks of 8^3 points, in float32 relative to the middle of the block."""
    points, places = points_of(atoms), images_of(atoms)
    out = np.empty(SHAPE, np.float32)
    for i in range(0, SHAPE[0], edge):
        for j in range(0, SHAPE[1], edge):
            for k in range(0, SHAPE[2], edge):
                block = points[i : i + edge, j : j + edge, k : k + edge].reshape(-1, 3)
                middle = block.mean(0)
                radius = np.linalg.norm(block - middle, axis=1).max()
                near = places[((places - middle) ** 2).sum(1) < (CUTOFF + radius) ** 2] - middle
                block, near = (block - middle).astype(np.float32), near.astype(np.float32)
                square = (block**2).sum(1)[:, None] + (near**2).sum(1) - 2 * block @ near.T
                q = (np.float32(SIGMA**2) / np.maximum(square, np.float32(0.01))) ** 3
                energy = np.where(square < CUTOFF**2, np.float32(4 * EPSILON) * q * (q - 1), 0).sum(1)
                out[i : i + edge, j : j + edge, k : k + edge] = energy.reshape((edge,) * 3)
    return out


def clock(function, repeat, gpu=False):
    """Return the least and the median time in ms of a function, after one call that is not counted."""
    import torch

    function()
    times = []
    for _ in range(repeat):
        begun = time.perf_counter() if gpu else time.thread_time()
        function()
        if gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter() if gpu else time.thread_time()) - begun)
    return {'least_ms': round(1e3 * min(times), 2), 'median_ms': round(1e3 * float(np.median(times)), 2)}


def external(command, atoms, repeat):
    """Return the time of a program on a cif file, with its start."""
    with tempfile.TemporaryDirectory() as folder:
        cif = Path(folder) / 'framework.cif'
        atoms.write(cif)
        times = []
        for _ in range(repeat):
            begun = time.perf_counter()
            subprocess.run(command.format(cif=cif), shell=True, check=True, cwd=folder, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begun)
    return {'least_ms': round(1e3 * min(times), 1), 'median_ms': round(1e3 * float(np.median(times)), 1), 'wall': True}


def on_gpu(atoms, device, batch, repeat):
    """Return rows of the back ends on a GPU."""
    from ase_diffusion.porous import energy_grid

    rows = {'dense torch, GPU': clock(lambda: dense_torch(atoms, device), repeat, True)}
    for backend in ('torch', 'triton'):
        row = clock(lambda b=backend: energy_grid([atoms] * batch, SHAPE, device=device, backend=b), repeat, True)
        rows[f'{backend}, GPU, {batch} structures'] = {**row, 'structures_per_s': round(1e3 * batch / row['least_ms'])}
    return rows


def main():
    """Measure and write results/grid_speed.json."""
    from functools import partial

    import torch

    from ase_diffusion.porous import adsorption_properties, energy_grid

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', nargs='?')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--program')
    parser.add_argument('--repeat', type=int, default=30)
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'grid_speed.json'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = {'machine': machine(), 'shape': SHAPE, 'cutoff': CUTOFF, 'results': {}}
    for name, atoms in frameworks(args.file).items():
        ours = partial(energy_grid, atoms, SHAPE, device='cpu')
        cases = {
            'numba': partial(ours, backend='numba'),
            'torch': partial(ours, backend='torch'),
            'numpy, blocks of 8^3': partial(numpy_blocks, atoms),
            'torch, dense': partial(dense_torch, atoms),
        }
        rows = {}
        for case, function in cases.items():
            rows[case] = clock(function, args.repeat if case == 'numba' else max(1, args.repeat // 10))
            rows[case]['henry'] = round(adsorption_properties(function())['henry_coefficient'], 3)
            print(name, case, rows[case], flush=True)
        if args.device != 'cpu':
            rows.update(on_gpu(atoms, args.device, args.batch, args.repeat))
        if args.program:
            rows[args.program] = external(args.program, atoms, max(1, args.repeat // 10))
        record['results'][name] = rows
    Path(args.out).write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    print(json.dumps(record, indent=1))


if __name__ == '__main__':
    main()
