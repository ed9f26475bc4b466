"""Orbits of T sites and of their bonds under a space group: grids that have a symmetry get a framework that has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .symmetry import orbit_of, settle_site

SPECIAL = 0.6  # A, a site that near its own images lies on a special position


@dataclass(frozen=True)
class SiteOrbits:
    """Sites that a space group maps onto each other.

    Parameters
    ----------
    sites : numpy.ndarray
        ``(n, 3)`` fractional, complete orbits.
    owner : numpy.ndarray
        ``(n,)`` the orbit of each site.
    images, shifts : numpy.ndarray
        ``(G, n)`` and ``(G, n, 3)``: the operation g maps site i to site images[g, i] in the cell shifts[g, i].
    rotations : numpy.ndarray
        ``(G, 3, 3)``.
    """

    sites: np.ndarray
    owner: np.ndarray
    images: np.ndarray
    shifts: np.ndarray
    rotations: np.ndarray

    @classmethod
    def of(
        cls, peaks: np.ndarray, lengths: np.ndarray, operations: tuple[np.ndarray, np.ndarray]
    ) -> tuple[SiteOrbits, np.ndarray] | None:
        """Return the orbits of peaks (m, 3), the first of each taken, and the peak of each orbit; None where there is none.

        Parameters
        ----------
        peaks : numpy.ndarray
            Fractional; peaks that the operations map to each other within 1 A are one orbit.
        lengths : numpy.ndarray
            ``(3,)`` A, of an orthogonal cell.
        operations : (rotations, translations)
            ``(G, 3, 3)`` and ``(G, 3)``, fractional.
        """
        rotations, translations = (np.ascontiguousarray(x, float) for x in operations)
        order, sites, chosen = len(rotations), [], []
        image, fixing = np.empty(3), np.empty(order, np.int64)
        out, which = np.empty((order, 3)), np.empty(order, np.int64)
        free = np.ones(len(peaks), bool)
        for k in range(len(peaks)):
            if not free[k]:
                continue
            x = np.array(peaks[k], float)
            fixed = settle_site(x, lengths, rotations, translations, SPECIAL, image, fixing)
            size = orbit_of(x, rotations, translations, lengths, out, which, order) if fixed else order + 1
            free[k] = False
            if size > order or size * fixed != order:
                continue
            d = peaks[:, None] - out[:size]
            free &= (((d - np.round(d)) * lengths) ** 2).sum(-1).min(1) > 1.0
            sites.append(out[:size].copy())
            chosen.append(k)
        if not sites:
            return None
        owner = np.repeat(np.arange(len(sites)), [len(orbit) for orbit in sites])
        sites = np.concatenate(sites)
        moved = np.einsum('gab,nb->gna', rotations, sites) + translations[:, None]
        images = np.empty((order, len(sites)), np.int64)
        for g in range(order):
            d = moved[g][:, None] - sites
            images[g] = (((d - np.round(d)) * lengths) ** 2).sum(-1).argmin(1)
        shifts = np.round(moved - sites[images]).astype(np.int64)
        return cls(sites, owner, images, shifts, np.round(rotations).astype(np.int64)), np.array(chosen)

    def bonds(self, pairs: np.ndarray) -> np.ndarray:
        """Return the orbit of each bond (m, 5) of `neighbor_pairs`, (m,), counted from 0."""
        i, j, s = pairs[:, 0], pairs[:, 1], pairs[:, 2:]
        first, second = self.images[:, i], self.images[:, j]  # (G, m)
        shift = np.einsum('gab,mb->gma', self.rotations, s) + self.shifts[:, j] - self.shifts[:, i]
        keys = np.minimum(self._key(first, second, shift), self._key(second, first, -shift))  # (G, m)
        return np.unique(keys.min(0), return_inverse=True)[1].ravel()

    def _key(self, first, second, shift):
        n, base, half = len(self.sites), 64, 32
        key = first * n + second
        for axis in range(3):
            key = key * base + (shift[..., axis] + half)
        return key
