"""Crystals with other elements: each exchanged for a similar one, the volume scaled; augmentation for training.

How similar elements are was fitted to which crystals of the Materials Project share their structure type: exp(-distance) is how
much a crystal with one element votes for the structure of the same crystal with another (:mod:`ase_diffusion.data`,
``prototypes.npz``, where atomic volumes are as well).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ..data import crystals
from .charges import is_charge_neutral

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TEMPERATURE = 0.7
TRIES = 12


@lru_cache(maxsize=1)
def element_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return distances of the elements (119, 119) and their atomic volumes (119,), A^3."""
    with np.load(Path(crystals.__file__).with_name('prototypes.npz')) as file:
        points, volumes = file['similarity'].astype(float), file['volumes'].astype(float)
    return np.abs(points[:, None] - points[None]).sum(-1), volumes


class Substitution:
    """Exchange the elements of crystals for similar ones, at random.

    A crystal whose charges can cancel keeps that; different elements stay different. Fractional coordinates and the shape of the
    cell stay; its volume changes as the sum of the atomic volumes.

    Parameters
    ----------
    elements : iterable of int
        Atomic numbers that may occur.
    share : float
        Of the crystals that are changed.
    temperature : float
        Elements at a distance d are drawn with weights exp(-d / temperature).

    Raises
    ------
    ValueError
        There is no element, ``share`` is not between 0 and 1, or ``temperature`` is not positive.
    """

    def __init__(self, elements: Iterable[int], share: float = 0.5, temperature: float = TEMPERATURE) -> None:
        self.elements = np.array(sorted({int(z) for z in elements}))
        if not len(self.elements):
            raise ValueError('substitution needs the atomic numbers that may occur; got none')
        self.share = check_share(share)
        if not temperature > 0:
            raise ValueError(f'temperature is positive, in units of the distance of elements; got {temperature!r}')
        distances, self.volumes = element_tables()
        weights = np.exp(-distances[:, self.elements] / temperature)  # (119, k)
        self._cumulative = np.cumsum(weights / weights.sum(1, keepdims=True), axis=1)

    def draw(self, elements: ArrayLike, counts: ArrayLike, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """Return new elements (k,) of a crystal with ``counts`` atoms of each of ``elements``, and the ratio of the volumes.

        Without an exchange that fits in 12 tries they are the old ones.
        """
        old, counts = np.asarray(elements, int), np.asarray(counts, int)
        neutral = _neutral(old, counts)
        for _ in range(TRIES):
            place = (self._cumulative[old] < rng.random((len(old), 1))).sum(1).clip(max=len(self.elements) - 1)
            new = self.elements[place]
            if len(set(new.tolist())) == len(old) and (new != old).any() and (not neutral or _neutral(new, counts)):
                return new, float(counts @ self.volumes[new] / (counts @ self.volumes[old]))
        return old, 1.0

    def exchanges(
        self, crystals: Sequence[np.ndarray], rng: np.random.Generator
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, float]]:
        """Yield what changes among crystals of atomic numbers (n,): place, old and new elements (k,), factor of lengths."""
        for k in np.nonzero(rng.random(len(crystals)) < self.share)[0]:
            old, counts = np.unique(crystals[k], return_counts=True)
            new, ratio = self.draw(old, counts, rng)
            if (new != old).any():
                yield int(k), old, new, ratio ** (1 / 3)

    def __call__(self, atoms: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a crystal with other elements, whatever the share; calculator and info are not kept."""
        old, place, counts = np.unique(atoms.numbers, return_inverse=True, return_counts=True)
        new, ratio = self.draw(old, counts, rng)
        return Atoms(
            new[place],
            cell=atoms.cell[:] * ratio ** (1 / 3),
            scaled_positions=atoms.get_scaled_positions(wrap=False),
            pbc=atoms.pbc,
        )


def check_share(share: float) -> float:
    """Return a share between 0 and 1 as float; raise a ValueError for anything else."""
    if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 <= share <= 1:
        raise ValueError(f'substitute is the share of the crystals whose elements are exchanged, 0 to 1; got {share!r}')
    return float(share)


def _neutral(elements: np.ndarray, counts: np.ndarray) -> bool:
    return is_charge_neutral(tuple(zip(elements.tolist(), (counts // np.gcd.reduce(counts)).tolist(), strict=True)))
