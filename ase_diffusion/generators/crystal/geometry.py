"""Geometry of crystals by kinds of sites, in units of (V / n)^(1/3): partial radial distributions and nearest distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH, BINS, WIDTH = 3.0, 24, 0.09  # distances, centers from 0.5 to REACH, their Gaussian
FINE = 0.02
CENTERS = np.linspace(0.5, REACH, BINS)
FAR = REACH + 3 * WIDTH  # distances up to here count; what is farther has this distance
_AT = FINE * (np.arange(int(np.ceil(FAR / FINE))) + 0.5)
_SMEAR = np.exp(-0.5 * ((_AT[:, None] - CENTERS) / WIDTH) ** 2) / CENTERS**2  # (fine, 24)
ALIKE, SOFT = 0.3, 0.08  # difference at which every second pair is one structure for StructureMatcher, and how sharply


@dataclass(frozen=True)
class Geometry:
    """What a crystal looks like from its sites.

    Attributes
    ----------
    spectrum : numpy.ndarray
        (k, k, 24), partial radial distributions between k kinds of sites.
    least, mean : numpy.ndarray
        (k, k), distance from the atoms of a kind to their nearest atom of another: of the closest pair, and on average.
    """

    spectrum: np.ndarray
    least: np.ndarray
    mean: np.ndarray

    def of(self, order: np.ndarray) -> Geometry:
        """Return the geometry with kinds in another order."""
        pick = np.ix_(order, order)
        return Geometry(self.spectrum[pick], self.least[pick], self.mean[pick])


def geometry(scaled: np.ndarray, cell: np.ndarray, kinds: np.ndarray) -> Geometry:
    """Return the geometry of a crystal.

    Parameters
    ----------
    scaled : (n, 3) array
        Fractional coordinates.
    cell : (3, 3) array
        Rows are cell vectors, A.
    kinds : (n,) array of int
        Kind of each site: 0, 1, ..., each occurs.
    """
    count = int(kinds.max()) + 1
    unit = cell / (abs(np.linalg.det(cell)) / len(scaled)) ** (1 / 3)
    most = np.ceil(FAR * np.linalg.norm(np.linalg.inv(unit), axis=0) + 0.5).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing='ij'), -1).reshape(-1, 3) @ unit
    counts, nearest = np.zeros((count, count, len(_AT))), np.full((len(scaled), count), FAR)
    for atom, kind in enumerate(kinds):
        apart = scaled - scaled[atom]
        distance = np.linalg.norm(((apart - np.round(apart)) @ unit)[:, None] + images, axis=-1)  # (n, images)
        which, image = np.nonzero((distance > 1e-3) & (distance < FAR))
        found, other = distance[which, image], kinds[which]
        np.minimum.at(nearest[atom], other, found)
        np.add.at(counts[kind], (other, (found / FINE).astype(int)), 1)
    parts = [nearest[kinds == kind] for kind in range(count)]
    least, mean = np.array([part.min(0) for part in parts]), np.array([part.mean(0) for part in parts])
    return Geometry(counts @ _SMEAR / len(scaled), least, mean)


def likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how likely spectra (m, k, k, 24) and (n, k, k, 24) belong to one structure, (m, n).

    Calibrated against pymatgen's StructureMatcher (stol 0.5, ltol 0.3, angle_tol 10) on pairs of template and true crystal.
    """
    one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
    change = np.abs(one[:, None] - other[None]).sum(-1) / (0.5 * (one.sum(-1)[:, None] + other.sum(-1)[None]))
    return 1 / (1 + np.exp((change - ALIKE) / SOFT))
