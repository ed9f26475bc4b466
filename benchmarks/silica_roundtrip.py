"""Round trip of silica frameworks: framework -> density grids (with noise) -> framework, and how many come back exactly.

    python benchmarks/silica_roundtrip.py iza_zeolites.extxyz.gz [--grids 32 16 0.95] [--noise 0 0.1 0.2 0.3 0.4] [--every 1]

The orthogonal frameworks of the file with edges up to 29 A and up to 150 T sites. A grid is n for n^3 points, or a voxel edge in
A. The noise is white, its standard deviation on the scale on which a channel goes from -1 to 1 (the range of its grid). Exact
means equal coordination sequences of all sites. Four ways: the four nearest peaks where they agree ("mutual"), one search for
bonds ("direct"), with variants, and with relaxed sites. The seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ase_diffusion.data.zeolites import read_zeolites
from ase_diffusion.porous import density_grid
from ase_diffusion.porous.nets import coordination_sequences, four_connected_net, framework_net
from ase_diffusion.porous.peaks import COARSE, find_peaks, fit_peaks
from ase_diffusion.porous.silica import STRONG, VARIANTS, framework_from_grid

LONGEST_EDGE, MOST_T = 29.0, 150
WAYS = {'direct': ((), False), 'variants': (VARIANTS, False), 'relaxed': (VARIANTS, True)}


def sorted_sequences(net) -> np.ndarray | None:
    """Return the coordination sequences of a net, sorted."""
    if net is None or isinstance(net, str):
        return None
    rows = coordination_sequences(net)
    return rows[np.lexsort(rows.T)]


def shape_of(cell: np.ndarray, grid: float) -> tuple:
    """Return the shape of a grid of n^3 points (grid >= 4), or of voxels of about this edge in A."""
    if grid >= 4:
        return (int(grid),) * 3
    return tuple(max(4, round(length / grid)) for length in cell)


def measure(frameworks: list, grid: float, width: float, noise: float, seed: int) -> dict:
    """Count what comes back from the grids of all frameworks."""
    rng = np.random.default_rng([seed, round(1000 * noise), round(100 * grid)])
    exact, valid, reasons, seconds, steps = Counter(), Counter(), Counter(), [], Counter()
    for atoms in frameworks:
        cell = atoms.cell.lengths()
        silicon = atoms[atoms.numbers == 14].get_scaled_positions()
        true = sorted_sequences(four_connected_net(silicon, cell))
        shape = shape_of(cell, grid)
        grids = [density_grid(atoms, symbol, shape=shape, width=width, device='cpu').astype(float) for symbol in ('Si', 'O')]
        grids = [x + 0.5 * np.ptp(x) * noise * rng.normal(size=shape) for x in grids]
        sites, heights, _ = find_peaks(grids[0], cell, width=width)
        if (cell / shape).max() > COARSE:
            sites, heights = fit_peaks(grids[0], sites, heights, cell, width=width)
        found = sorted_sequences(four_connected_net(sites[heights > STRONG], cell, (2.2, 4.3)) if len(sites) else None)
        exact['mutual'] += found is not None and np.array_equal(found, true)
        done = None
        for way, (variants, relax) in WAYS.items():
            if done is None or not done:
                begun = time.process_time()
                done = framework_from_grid(*grids, cell, width=width, variants=variants, relax=relax)
                if way == 'direct':
                    seconds.append(time.process_time() - begun)
            valid[way] += bool(done)
            if done:
                net = framework_net(done.atoms.numbers, done.atoms.get_scaled_positions(), done.atoms.cell.array)
                exact[way] += np.array_equal(sorted_sequences(net), true)
        steps[done.step.split()[0] if done else 'none'] += 1
        if not done:
            reasons[done.reason] += 1
    return {
        'grid': grid,
        'width': width,
        'noise': noise,
        'frameworks': len(frameworks),
        'exact': dict(exact),
        'valid': dict(valid),
        'step': dict(steps),
        'reasons': dict(reasons),
        'process_ms_direct': round(1e3 * float(np.median(seconds)), 1),
    }


def main() -> None:
    """Measure, print the table, and write results/silica_roundtrip.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file')
    parser.add_argument('--grids', type=float, nargs='+', default=[32, 16, 0.95])
    parser.add_argument('--noise', type=float, nargs='+', default=[0.0, 0.1, 0.2, 0.3, 0.4])
    parser.add_argument('--every', type=int, default=1, help='take every n-th framework')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'silica_roundtrip.json'))
    args = parser.parse_args()
    frameworks = [
        atoms
        for atoms in read_zeolites(args.file)
        if np.allclose(atoms.cell.angles(), 90)
        and atoms.cell.lengths().max() <= LONGEST_EDGE
        and (atoms.numbers == 14).sum() <= MOST_T
    ][:: args.every]
    machine = {'cores': os.cpu_count(), 'load': os.getloadavg(), 'python': platform.python_version()}
    rows = []
    print(f'{len(frameworks)} frameworks; exact nets: mutual / direct / + variants / + relaxed; CPU time (direct)')
    for grid in args.grids:
        for noise in args.noise:
            row = measure(frameworks, grid, 1.0 if grid >= 24 else 1.2, noise, args.seed)
            rows.append(row)
            counts = ' / '.join(str(row['exact'].get(way, 0)) for way in ('mutual', *WAYS))
            print(
                f'grid {grid:5.2f}  width {row["width"]}  noise {noise:.1f}  {counts}  {row["process_ms_direct"]} ms  '
                f'{row["reasons"]}',
                flush=True,
            )
            Path(args.out).write_text(json.dumps({'machine': machine, 'seed': args.seed, 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
