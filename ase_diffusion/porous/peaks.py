"""Peaks of density grids, to a fraction of a voxel."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .nets import cell_heights, full_cell

__all__ = ['find_peaks', 'fit_peaks', 'smooth_grid']

COARSE = 0.6  # A, grids of larger voxels are interpolated
SMOOTH = 0.5  # A, standard deviation of the filter
WIDTH = 1.0  # A, of the Gaussians exp(-r^2 / width^2) of a grid
WEAK = 0.25  # height of the lowest peak
DAMPING = 0.02  # of the fit; keeps heights near 1 and steps short where voxels are few


def smooth_grid(grid: np.ndarray, cell: np.ndarray, width: float = WIDTH, smooth: float = SMOOTH) -> np.ndarray:
    """Filter a grid with a Gaussian, and interpolate it (Fourier) where its voxels are larger than 0.6 A.

    Parameters
    ----------
    grid : numpy.ndarray
        ``(nx, ny, nz)``.
    cell : numpy.ndarray
        ``(3, 3)`` A.
    width : float
        A, of the Gaussians of the grid; the result is scaled so that a lone atom has height 1 again.
    smooth : float
        A, standard deviation of the filter.

    Returns
    -------
    numpy.ndarray
        ``(mx, my, mz)``; each axis has n or 2 n points (4 n above 1.2 A).
    """
    lengths = np.linalg.norm(cell, axis=1)
    shape, voxels = np.array(grid.shape), lengths / grid.shape
    new = shape * np.where(voxels > 2 * COARSE, 4, np.where(voxels > COARSE, 2, 1))
    spectrum = np.fft.fftn(grid)
    for axis, (n, m) in enumerate(zip(shape, new, strict=True)):
        if m == n:
            continue
        spectrum = np.moveaxis(spectrum, axis, 0)
        half = n // 2
        padded = np.zeros((m, *spectrum.shape[1:]), complex)
        padded[: half + 1] = spectrum[: half + 1]
        padded[m - (n - half - 1) :] = spectrum[half + 1 :]
        if n % 2 == 0:  # the highest wave belongs to both signs
            padded[half] *= 0.5
            padded[m - half] = padded[half]
        spectrum = np.moveaxis(padded, 0, axis)
    waves = [np.fft.fftfreq(m, 1.0 / m) for m in new]
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    k = sum(w.reshape([-1 if a == axis else 1 for a in range(3)] + [1]) * reciprocal[axis] for axis, w in enumerate(waves))
    variance = 0.5 * width**2
    filtered = np.fft.ifftn(spectrum * np.exp(-0.5 * smooth**2 * (k**2).sum(-1))).real
    return filtered * (np.prod(new) / np.prod(shape)) * ((variance + smooth**2) / variance) ** 1.5


def find_peaks(
    grid: np.ndarray, cell: np.ndarray, *, width: float = WIDTH, smooth: float = SMOOTH, lowest: float = WEAK
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the local maxima of a density grid, to a fraction of a voxel.

    The logarithm around a maximum is a parabola, exact for a lone Gaussian.

    Returns
    -------
    scaled : numpy.ndarray
        ``(n, 3)`` fractional in [0, 1), the highest first.
    heights : numpy.ndarray
        ``(n,)``, about 1 for an atom, at least `lowest`.
    smoothed : numpy.ndarray
        The grid they were found on, of `smooth_grid`.
    """
    grid = smooth_grid(np.asarray(grid, float), full_cell(cell), width, smooth)
    higher = np.ones(grid.shape, bool)
    steps = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    for step in steps:
        if step < (0, 0, 0):
            higher &= grid > np.roll(grid, step, (0, 1, 2))
        elif step > (0, 0, 0):
            higher &= grid >= np.roll(grid, step, (0, 1, 2))
    places = np.argwhere(higher & (grid >= lowest))
    if not len(places):
        return np.empty((0, 3)), np.empty(0), grid
    shape = np.array(grid.shape)

    def log(*step):
        at = (places + step) % shape
        return np.log(np.maximum(grid[tuple(at.T)], 1e-6))

    center, unit = log(0, 0, 0), np.eye(3, dtype=int)
    gradient, hessian = np.empty((len(places), 3)), np.empty((len(places), 3, 3))
    for a in range(3):
        up, down = log(*unit[a]), log(*-unit[a])
        gradient[:, a], hessian[:, a, a] = 0.5 * (up - down), np.minimum(up + down - 2 * center, -1e-3)
        for b in range(a):
            mixed = log(*(unit[a] + unit[b])) + log(*(-unit[a] - unit[b])) - log(*(unit[a] - unit[b])) - log(*(unit[b] - unit[a]))
            hessian[:, a, b] = hessian[:, b, a] = 0.25 * mixed
    shift = -np.linalg.solve(hessian - 1e-9 * np.eye(3), gradient[..., None])[..., 0]
    diagonal = -gradient / np.diagonal(hessian, axis1=1, axis2=2)
    shift = np.where((abs(shift) <= 1.0).all(1, keepdims=True), shift, np.clip(diagonal, -0.6, 0.6))
    heights = np.exp(center + 0.5 * (gradient * shift).sum(1))
    scaled = (places + shift) / shape
    order = np.argsort(-heights, kind='stable')
    return (scaled - np.floor(scaled))[order], heights[order], grid


@njit(cache=True)
def _visit(grid, model, site, height, cell, inverse_width, reach, sign, matrix, vector):
    """Add sign * height * Gaussian to the model (sign 0: add to the normal equations (4, 4) and (4,) instead)."""
    shape = grid.shape
    heights = cell_heights(cell)
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for a in range(3):
        low[a] = math.ceil((site[a] - reach / heights[a]) * shape[a])
        high[a] = math.floor((site[a] + reach / heights[a]) * shape[a])
    row = np.empty(4)
    for i in range(low[0], high[0] + 1):
        for j in range(low[1], high[1] + 1):
            for k in range(low[2], high[2] + 1):
                u, v, w = i / shape[0] - site[0], j / shape[1] - site[1], k / shape[2] - site[2]
                x = u * cell[0, 0] + v * cell[1, 0] + w * cell[2, 0]
                y = u * cell[0, 1] + v * cell[1, 1] + w * cell[2, 1]
                z = u * cell[0, 2] + v * cell[1, 2] + w * cell[2, 2]
                square = x * x + y * y + z * z
                if square > reach * reach:
                    continue
                value = math.exp(-square * inverse_width)
                p, q, r = i % shape[0], j % shape[1], k % shape[2]
                if sign != 0.0:
                    model[p, q, r] += sign * height * value
                    continue
                slope = 2.0 * height * value * inverse_width
                row[0], row[1], row[2], row[3] = value, slope * x, slope * y, slope * z
                for a in range(4):
                    vector[a] += row[a] * (grid[p, q, r] - model[p, q, r])
                    for b in range(4):
                        matrix[a, b] += row[a] * row[b]


@njit(cache=True)
def _fit_gaussians(grid, scaled, heights, cell, width, rounds):
    """Fit positions (n, 3) and heights (n,) of Gaussians to a grid by damped least squares, site after site, in place."""
    inverse = np.linalg.inv(cell)
    model = np.zeros_like(grid)
    matrix, vector = np.empty((4, 4)), np.empty(4)
    reach, once = 2.6 * width, 1.0 / (width * width)
    for n in range(len(scaled)):
        _visit(grid, model, scaled[n], heights[n], cell, once, reach, 1.0, matrix, vector)
    for _ in range(rounds):
        for n in range(len(scaled)):
            matrix[:], vector[:] = 0.0, 0.0
            _visit(grid, model, scaled[n], heights[n], cell, once, reach, 0.0, matrix, vector)
            for a in range(4):
                matrix[a, a] += DAMPING
            vector[0] += DAMPING * (1.0 - heights[n])
            change = np.linalg.solve(matrix, vector)
            largest = max(abs(change[1]), abs(change[2]), abs(change[3]))
            if largest > 0.2:
                change *= 0.2 / largest
            _visit(grid, model, scaled[n], heights[n], cell, once, reach, -1.0, matrix, vector)
            heights[n] = min(max(heights[n] + change[0], 0.2), 1.5)
            scaled[n] += change[1:] @ inverse
            _visit(grid, model, scaled[n], heights[n], cell, once, reach, 1.0, matrix, vector)


def fit_peaks(
    grid: np.ndarray, scaled: np.ndarray, heights: np.ndarray, cell: np.ndarray, *, width: float = WIDTH, rounds: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Fit Gaussians to the peaks of a grid: exact on coarse voxels, where interpolation is not.

    Parameters
    ----------
    grid : numpy.ndarray
        ``(nx, ny, nz)`` sum of Gaussians exp(-r^2 / width^2), not smoothed.
    scaled, heights : numpy.ndarray
        ``(n, 3)`` and ``(n,)``, of `find_peaks`.
    cell : numpy.ndarray
        ``(3, 3)`` A.
    width : float
        A.
    rounds : int

    Returns
    -------
    scaled, heights : numpy.ndarray
        New arrays in the same order; a peak that moved more than 1 A keeps its old place.
    """
    cell, new, fitted = full_cell(cell), np.array(scaled, float), np.array(heights, float)
    _fit_gaussians(np.ascontiguousarray(grid, float), new, fitted, cell, float(width), rounds)
    far = np.linalg.norm((new - scaled) @ cell, axis=1) > 1.0
    new[far], fitted[far] = np.asarray(scaled)[far], np.asarray(heights)[far]
    return new - np.floor(new), fitted
