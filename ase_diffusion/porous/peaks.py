"""Peaks of density grids, to a fraction of a voxel."""

import numpy as np

from .nets import full_cell

__all__ = ['find_peaks', 'smooth_grid']

COARSE = 0.6  # A, grids of larger voxels are interpolated
SMOOTH = 0.5  # A, standard deviation of the filter
WIDTH = 1.0  # A, of the Gaussians exp(-r^2 / width^2) of a grid
WEAK = 0.25  # height of the lowest peak


def smooth_grid(grid, cell, width=WIDTH, smooth=SMOOTH):
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


def find_peaks(grid, cell, *, width=WIDTH, smooth=SMOOTH, lowest=WEAK):
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
