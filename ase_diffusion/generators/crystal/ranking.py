"""Order of templates: probabilities of small networks, summed over templates of the same structure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from ase.data import covalent_radii

from ...data import crystals
from ...networks.ranking import SITE_NUMBERS, TemplateRanker
from .geometry import FAR, Geometry, likeness

FILE = Path(crystals.__file__).with_name('prototype_ranking.npz')
CANDIDATES, SITES = 24, 5  # nearest templates that are compared; exchanged elements that the network sees
LEAST = 1e-4  # weight of its own probability, so that of alike templates the likelier comes first


@dataclass
class Features:
    """What is known of m candidates of a composition, s = 5 exchanged elements each.

    Attributes
    ----------
    numbers : numpy.ndarray
        (m, 12): difference above the least, least difference, log(1 + place), log share of the votes exp(-difference) for its
        structure type, whether it has as many atoms, log volume over the sum of atomic volumes, log of how many crystals have
        this type, energy above the hull (0.1 eV / atom), log n, log sum of votes; log shortest distance over the sum of
        covalent radii, and its change by the exchange.
    new, old : numpy.ndarray
        (m, s), atomic numbers; 0 where there are fewer.
    sites : numpy.ndarray
        (m, s, 8) of each element: its share; log shortest distance over the sum of radii, new and old, and the change; nearest
        distances to any, to its own and to other elements; whether its nearest neighbor is of its own.
    spectra : numpy.ndarray
        (m, k, k, 24), partial radial distributions.
    """

    numbers: np.ndarray
    new: np.ndarray
    old: np.ndarray
    sites: np.ndarray
    spectra: np.ndarray

    @property
    def alike(self) -> np.ndarray:
        """(m, m), likelihood that two have the same structure."""
        return likeness(self.spectra, self.spectra)


def features(
    *,
    difference: np.ndarray,
    new: np.ndarray,
    old: np.ndarray,
    counts: np.ndarray,
    natoms: int,
    sizes: np.ndarray,
    kind: np.ndarray,
    common: np.ndarray,
    volumes: np.ndarray,
    atomic: np.ndarray,
    hull: np.ndarray,
    shapes: list[Geometry],
) -> Features:
    """Return the features of m candidates in the order of their differences.

    Parameters
    ----------
    difference : (m,)
        Sums of the distances of exchanged elements.
    new : (k,)
        Atomic numbers of the composition.
    old : (m, k)
        Atomic numbers that they replace.
    counts : (k,)
        Atoms of the new elements in the cell.
    natoms : int
    sizes, kind, common : (m,)
        Atoms of the templates, their structure type, and how many crystals of the bank have it.
    volumes : (m,)
        Of the templates, A^3.
    atomic : (119,)
        Atomic volumes, A^3.
    hull : (m,)
        Energies above the hull, eV / atom.
    shapes : list of Geometry
        Of the templates, kinds of sites in the order of ``new``.
    """
    share = counts / counts.sum()
    weights = np.exp(difference.min() - difference)
    votes = ((kind[:, None] == kind) * weights).sum(1) / weights.sum()
    least, mean = (np.minimum(np.array([getattr(g, name) for g in shapes]), FAR) for name in ('least', 'mean'))
    was = (volumes / sizes) ** (1 / 3)  # A
    now = was * ((share @ atomic[new]) / (atomic[old] @ share)) ** (1 / 3)
    radii, radii_old = covalent_radii[new], covalent_radii[old]
    fit = np.log(least * now[:, None, None] / (radii[:, None] + radii))  # (m, k, k)
    fit_old = np.log(least * was[:, None, None] / (radii_old[:, :, None] + radii_old[:, None]))
    tight, tight_old = fit.min((1, 2)), fit_old.min((1, 2))
    packing = np.log(volumes / sizes / (atomic[old] @ share))
    m, k = old.shape
    numbers = [difference - difference.min(), np.full(m, difference.min()), np.log1p(np.arange(m)), np.log(votes + 1e-3)]
    numbers += [
        sizes == natoms,
        packing,
        np.log(common),
        10 * hull,
        np.full(m, np.log(natoms)),
        np.full(m, np.log(weights.sum())),
    ]
    numbers += [tight, tight - tight_old]
    own = least[:, np.arange(k), np.arange(k)]
    other = np.where(np.eye(k, dtype=bool), FAR, least).min(2)
    each = [np.broadcast_to(share, (m, k)), fit.min(2), fit_old.min(2), mean.min(2), own, other]
    each += [least.argmin(2) == np.arange(k), fit.min(2) - fit_old.min(2)]
    s = min(k, SITES)
    out = [np.zeros((m, SITES), int) for _ in range(2)]
    out[0][:, :s], out[1][:, :s] = new[:s], old[:, :s]
    sites = np.zeros((m, SITES, SITE_NUMBERS), np.float32)
    sites[:, :s] = np.stack(each, -1)[:, :s]
    return Features(np.stack(numbers, -1).astype(np.float32), *out, sites, np.array([g.spectrum for g in shapes]))


def order(logs: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places of candidates and the probabilities of their structures, different structures first.

    The probability of a structure is the sum over all candidates that are alike; what one explains does not count for the next.

    Parameters
    ----------
    logs : (m,)
        Log-probabilities of candidates; their sum may be less than 1.
    alike : (m, m)
        Likelihood that two have the same structure.
    """
    own = np.exp(logs)
    left, places, chances = own.copy(), [], []
    open_ = np.ones(len(own), bool)
    while open_.any():
        found = alike @ left
        best = int(np.where(open_, found + LEAST * own, -1).argmax())
        places.append(best)
        chances.append(found[best])
        open_[best] = False
        left *= 1 - alike[best]
    return np.array(places, int), np.array(chances)


def by_difference(found: Features, smaller: np.ndarray) -> np.ndarray:
    """Return log-probabilities (m,) by the differences alone; ``smaller``: fewer atoms than the cell."""
    logs = -2.0 * found.numbers[:, 0].astype(float) - 5.0 * smaller
    return logs - np.logaddexp.reduce(logs)


class Ranking:
    """Networks with their weights, the mean of whose log-probabilities decides.

    Parameters
    ----------
    states : list of dict of str to numpy.ndarray
        Of :class:`ase_diffusion.networks.ranking.TemplateRanker`.
    """

    def __init__(self, states: list[dict[str, np.ndarray]]) -> None:
        self.networks = []
        for state in states:
            state = {name: torch.as_tensor(np.asarray(value, np.float32)) for name, value in state.items()}
            network = TemplateRanker(state['points'], len(state['exchange.0.bias']), state['embedding.weight'].shape[1])
            network.load_state_dict(state)
            self.networks.append(network.eval())

    @classmethod
    def load(cls, path: str | Path = FILE) -> Ranking:
        """Read the weights that ship: arrays (members, ...)."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return cls([{name: each[k] for name, each in arrays.items()} for k in range(len(arrays['points']))])

    def __call__(self, found: Features) -> np.ndarray:
        """Return log-probabilities (m,)."""
        given = [torch.as_tensor(each)[None] for each in (found.numbers, found.new, found.old, found.sites)]
        there = torch.ones(given[0].shape[:2], dtype=torch.bool)
        with torch.no_grad():
            logs = torch.stack([network(*given, there)[0] for network in self.networks]).mean(0)
        return logs.double().numpy() - np.logaddexp.reduce(logs.double().numpy())


@lru_cache(maxsize=1)
def shipped_ranking() -> Ranking:
    """Return the ranking that ships."""
    return Ranking.load()
