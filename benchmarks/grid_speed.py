"""Time of one energy grid: dense torch, blocks in numpy, the back ends of this package, and an external program.

    python benchmarks/grid_speed.py run [iza_zeolites.extxyz.gz] [--device cuda] [--program 'griday {cif}'] [--repeat 30]
    python benchmarks/grid_speed.py report

Without a file, LTA and MFI of tests/porous/conftest.py are taken. One thread; CPU seconds of the thread, the least and the
median of ``repeat`` runs (a busy machine slows the median). On a GPU: wall seconds with synchronization, and structures per
second in batches of ``--batch`` copies. ``--program`` is a command line with {cif} for the structure, timed from start to
end (wall seconds). Nothing is random. ``--quick``: LTA by the two back ends, once.
"""

from __future__ import annotations

from bench import Benchmark, main, number, table

# isort: split
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from grid_iza import lta_and_mfi

from ase_diffusion.porous import adsorption_properties, energy_grid

EPSILON, SIGMA, CUTOFF = 115.0, 3.47, 12.0
SHAPE = (32, 32, 32)
OURS = ('numba', 'torch')


class GridSpeed(Benchmark):
    """An item is a framework and a way to compute its grid."""

    name = 'grid_speed'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('file', nargs='?')
        parser.add_argument('--device', default='cpu')
        parser.add_argument('--program', metavar='COMMAND')
        parser.add_argument('--repeat', type=int, default=30, help='runs of the fastest way, a tenth of it for others (30)')
        parser.add_argument('--batch', type=int, default=256, help='structures in one call on a GPU (256)')

    def settings(self) -> dict:
        return {'shape': SHAPE, 'cutoff': CUTOFF}

    def frameworks(self) -> dict:
        """Return {code: Atoms}."""
        if self.args.file:
            images = read(self.args.file, ':')
            return {atoms.info['framework']: atoms for atoms in images if atoms.info['framework'] in ('LTA', 'MFI')}
        return {code: atoms for code, atoms in lta_and_mfi().items() if code == 'LTA' or not self.quick}

    def items(self):
        cases = [*OURS] if self.quick else [*OURS, 'numpy, blocks of 8^3', 'torch, dense']
        if self.args.device != 'cpu':
            cases += ['dense torch, GPU', *(f'{backend}, GPU, {self.args.batch} structures' for backend in ('torch', 'triton'))]
        cases += [self.args.program] if self.args.program else []
        for code, atoms in self.frameworks().items():
            for case in cases:
                yield f'{code}: {case}', (code, atoms, case)

    def run(self, item) -> dict:
        code, atoms, case = item
        many = 1 if self.quick else self.args.repeat
        few, device, batch = max(1, many // 10), self.args.device, self.args.batch
        of = {'framework': code, 'case': case}
        if case == self.args.program:
            return {**of, **external(case, atoms, few)}
        if case == 'dense torch, GPU':
            return {**of, **clock(lambda: dense_torch(atoms, device), many, True)}
        if 'GPU' in case:
            backend = case.split(',')[0]
            row = clock(lambda: energy_grid([atoms] * batch, SHAPE, device=device, backend=backend), many, True)
            return {**of, **row, 'structures_per_s': round(1e3 * batch / row['least_ms'])}
        plain = {'numpy, blocks of 8^3': numpy_blocks, 'torch, dense': dense_torch}.get(case)

        def function():
            return plain(atoms) if plain else energy_grid(atoms, SHAPE, device='cpu', backend=case)

        row = clock(function, many if case == 'numba' else few)
        return {**of, **row, 'henry': round(adsorption_properties(function())['henry_coefficient'], 3)}

    def report(self, results: dict) -> None:
        rows = []
        for key, r in results.items():
            times = (number(r[name]) for name in ('least_ms', 'median_ms'))
            rows.append((key, *times, number(r.get('henry'), 3), number(r.get('structures_per_s'), 0)))
        print(table(('', 'least, ms', 'median, ms', 'Henry coefficient', 'structures/s'), rows))


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


if __name__ == '__main__':
    main(GridSpeed)
