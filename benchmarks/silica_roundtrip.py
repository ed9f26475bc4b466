"""Round trip of silica frameworks: framework -> density grids (with noise) -> framework, and how many come back exactly.

The orthogonal frameworks of the file with edges up to 29 A and up to 150 T sites. A grid is n for n^3 points, or a voxel edge in
A. The noise is white, its standard deviation on the scale on which a channel goes from -1 to 1 (the range of its grid). Exact
means equal coordination sequences of all sites. Four ways: the four nearest peaks where they agree ("mutual"), one search for
bonds ("direct"), with variants, and with relaxed sites.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
from bench import Benchmark, main, table

from ase_diffusion.data.zeolites import read_zeolites
from ase_diffusion.porous import density_grid
from ase_diffusion.porous.nets import coordination_sequences, four_connected_net, framework_net
from ase_diffusion.porous.peaks import COARSE, find_peaks, fit_peaks
from ase_diffusion.porous.silica import STRONG, VARIANTS, framework_from_grid

LONGEST_EDGE, MOST_T = 29.0, 150
GRIDS, NOISE = (32, 16, 0.95), (0.0, 0.1, 0.2, 0.3, 0.4)
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


class SilicaRoundtrip(Benchmark):
    """One item per grid and noise."""

    name = 'silica_roundtrip'

    @staticmethod
    def options(parser):
        parser.add_argument('file', nargs='?', help='frameworks; without it those that ship, every 40th')
        parser.add_argument('--every', type=int, default=1, help='take every n-th framework (1)')

    def settings(self) -> dict:
        """Which frameworks."""
        return {'file': Path(self.args.file).name if self.args.file else 'silica-frameworks', 'every': self.args.every}

    def items(self):
        for grid in (0.95,) if self.quick else GRIDS:
            for noise in (0.0,) if self.quick else NOISE:
                yield f'{grid:g}/{noise:g}', {'grid': grid, 'noise': noise}

    def frameworks(self) -> list:
        """Return the orthogonal frameworks that are not too large."""
        every = self.args.every if self.args.file else 40 * self.args.every * (20 if self.quick else 1)
        images = read_zeolites(self.args.file or 'silica-frameworks')
        return [
            atoms
            for atoms in images
            if np.allclose(atoms.cell.angles(), 90)
            and atoms.cell.lengths().max() <= LONGEST_EDGE
            and (atoms.numbers == 14).sum() <= MOST_T
        ][::every]

    def run(self, item) -> dict:
        """Count what comes back."""
        return measure(self.frameworks(), item['grid'], 1.0 if item['grid'] >= 24 else 1.2, item['noise'], 0)

    def report(self, results: dict) -> None:
        """Print how many nets come back exactly."""
        rows = [
            (
                f'grid {row["grid"]:g}, noise {row["noise"]:g}',
                row['frameworks'],
                *(row['exact'].get(way, 0) for way in ('mutual', *WAYS)),
                f'{row["process_ms_direct"]:.1f}',
            )
            for row in results.values()
        ]
        print(table(('exact nets', 'of', 'mutual', *WAYS, 'ms (direct)'), rows))


if __name__ == '__main__':
    main(SilicaRoundtrip)
