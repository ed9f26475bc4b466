"""Metrics of overlayers on a frozen substrate.

Frozen atoms are those in a ``FixAtoms`` constraint, all others are mobile. Distances are periodic along the axes of
``atoms.pbc``, with all images within the cutoff. Energies are read from stored results; no calculator runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ...utils.atoms import VALID_RATIO, as_list, is_valid, judged, min_distance_ratio, mobile_mask, neighbors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    'Distinct',
    'duplicates',
    'fingerprint',
    'is_valid',
    'mobile_mask',
    'relative_energies',
    'min_distance_ratio',
    'substrate_symmetries',
    'success_curve',
    'validity',
]

CUTOFF = 8.0  # A; includes the second substrate layer and so distinguishes fcc from hcp
WIDTH = 0.3  # A; smearing of a distance in the fingerprint
SPACING = 0.15  # A; grid of the fingerprint
ENERGY_TOL = 0.02  # eV per structure
FINGERPRINT_TOL = 0.07  # random displacements of 0.03 A give up to 0.065, one O of six on another site 0.08 and more


def validity(images: Atoms | Iterable[Atoms], ratio: float = VALID_RATIO) -> float:
    """Return the share of valid structures (see `is_valid`) of a list, or of one; nan for an empty list."""
    images = as_list(images)
    return float(np.mean([is_valid(atoms, ratio) for atoms in images])) if len(images) else float('nan')


def fingerprint(atoms: Atoms, *, cutoff: float = CUTOFF, width: float = WIDTH) -> np.ndarray:
    """Describe an overlayer by its smeared distances, mobile to mobile and mobile to frozen, by species.

    Each pair adds a Gaussian at its distance d, weighted by (1 + cos(pi d / cutoff)) / 2 d^2. Each pair of species is one
    channel, scaled to unit norm, so that species with few and with many atoms have equal weight. The fingerprint is
    invariant under permutations, symmetries of the substrate, and repetition of the cell; different sites differ because
    the second substrate layer is within the cutoff.

    Parameters
    ----------
    atoms : Atoms
    cutoff : float
        Largest distance, in A.
    width : float
        Standard deviation of the Gaussians, in A.

    Returns
    -------
    numpy.ndarray
        Shape (channels * grid,), norm at most 1. Comparable between structures of the same mobile and frozen species:
        Euclidean distances lie between 0 and sqrt(2).
    """
    grid = np.arange(0.5, cutoff + width, SPACING)
    mobile = mobile_mask(atoms)
    i, j, d = neighbors(atoms, cutoff)
    near = mobile[i] & (d > 1e-3)
    i, j, d = i[near], j[near], d[near]
    weights = 0.5 * (1 + np.cos(np.pi * d / cutoff)) / d**2
    gauss = weights[:, None] * np.exp(-0.5 * ((grid - d[:, None]) / width) ** 2)  # (pairs, grid)
    free, fixed = np.unique(atoms.numbers[mobile]), np.unique(atoms.numbers[~mobile])
    channels = [(z, y, True) for z in free for y in free if y >= z] + [(z, y, False) for z in free for y in fixed]
    rows = np.zeros((len(channels), len(grid)))
    for row, (z, y, is_mobile) in zip(rows, channels, strict=True):
        row += gauss[(atoms.numbers[i] == z) & (atoms.numbers[j] == y) & (mobile[j] == is_mobile)].sum(0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1.0)
    return rows.ravel() / np.sqrt(max(len(channels), 1))


def stored_energy(atoms: Atoms) -> float:
    """Return the stored energy of a structure (eV), nan without one; runs no calculation."""
    energy = getattr(atoms.calc, 'results', {}).get('energy')
    return float('nan') if energy is None else float(energy)


def _kind(atoms):
    """Return the composition that duplicates share: numbers of atoms by species, mobile and frozen."""
    mobile = mobile_mask(atoms)
    return tuple(tuple(np.bincount(atoms.numbers[part], minlength=119)) for part in (mobile, ~mobile))


def duplicates(
    images: Atoms | Iterable[Atoms], energy_tol: float = ENERGY_TOL, *, fingerprint_tol: float = FINGERPRINT_TOL
) -> list[int]:
    """Return for each structure the index of its first duplicate.

    Duplicates have equal compositions (mobile and frozen), fingerprints within `fingerprint_tol` and, if both have energies,
    energies within `energy_tol`. Structures are compared with the first member of each group, not in chains.

    Parameters
    ----------
    images : list of Atoms
    energy_tol : float
        eV per structure.
    fingerprint_tol : float
        Euclidean distance of two fingerprints (0 to sqrt(2)).

    Returns
    -------
    list of int
        Index of the first duplicate (its own for a new one) of each image; ``len(set(...))`` counts the distinct structures.
    """
    seen = Distinct(energy_tol, fingerprint_tol)
    return [seen.add(index, atoms) for index, atoms in enumerate(as_list(images))]


class Distinct:
    """Set of distinct structures that grows one by one; :func:`duplicates` does the same for a list.

    Fingerprints are invariant under symmetries of the substrate, so duplicates may differ by a translation, rotation or mirror
    that maps the frozen atoms onto themselves, and by the order of the atoms. Where every atom is fixed, all count as mobile.
    Structures without atoms, with atoms X or with positions that are not finite have no duplicates.

    Parameters
    ----------
    energy_tol, fingerprint_tol
        As in :func:`duplicates`.
    """

    def __init__(self, energy_tol: float = ENERGY_TOL, fingerprint_tol: float = FINGERPRINT_TOL) -> None:
        self.energy_tol, self.fingerprint_tol = energy_tol, fingerprint_tol
        self.groups = {}  # composition -> (names, energies, fingerprints) of distinct structures

    def add(self, name: Hashable, atoms: Atoms) -> Hashable:
        """Return the name of the first duplicate; a new structure is added and its own name returned.

        Parameters
        ----------
        name : int or str
        atoms : Atoms
        """
        if not len(atoms) or not np.isfinite(atoms.positions).all() or not (atoms.numbers > 0).all():
            return name  # no structure, and so no duplicate
        energy, atoms = stored_energy(atoms), judged(atoms)
        print_ = fingerprint(atoms)
        names, energies, prints = self.groups.setdefault(_kind(atoms), ([], [], []))
        if names:
            far = np.linalg.norm(np.asarray(prints) - print_, axis=1)  # (firsts,)
            apart = np.abs(np.asarray(energies) - energy) > self.energy_tol  # nan does not separate
            same = (far <= self.fingerprint_tol) & ~apart
            if same.any():
                return names[int(np.argmin(np.where(same, far, np.inf)))]
        names.append(name)
        energies.append(energy)
        prints.append(print_)
        return name


def relative_energies(images: Atoms | Iterable[Atoms], reference: float | Atoms | None = None) -> np.ndarray:
    """Return the energies of structures relative to a reference.

    Parameters
    ----------
    images : list of Atoms
        With stored energies, for example in a SinglePointCalculator.
    reference : float, Atoms or None
        Energy in eV, or a structure with an energy and the composition of all images; None is the lowest energy of the same
        composition among the images.

    Returns
    -------
    numpy.ndarray
        eV per structure, shape (n,); nan for structures without an energy.

    Raises
    ------
    ValueError
        The reference has no energy or another composition.
    """
    images = as_list(images)
    energies = np.array([stored_energy(atoms) for atoms in images], float)
    if reference is None:
        formulas = np.array([atoms.get_chemical_formula() for atoms in images])
        for formula in np.unique(formulas):
            energies[formulas == formula] -= np.fmin.reduce(energies[formulas == formula])
        return energies
    if np.isscalar(reference):
        return energies - float(reference)
    zero, formula = stored_energy(reference), reference.get_chemical_formula()
    if np.isnan(zero):
        raise ValueError(f'the reference has an energy; {formula} has none; relax it first, or pass a number in eV')
    for index, atoms in enumerate(images):
        if atoms.get_chemical_formula() != formula:
            raise ValueError(
                'energies compare at equal composition, but image '
                f'{index} is {atoms.get_chemical_formula()} and the reference {formula}: '
                'select the images, or pass reference=None'
            )
    return energies - zero


def success_curve(
    found: ArrayLike, counts: ArrayLike | None = None, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the probability of at least one success among k independent attempts, p_k = 1 - (1 - q)^k.

    Parameters
    ----------
    found : sequence of bool
        Whether each attempt (relaxation of one structure) reached the target; q is the mean.
    counts : sequence of int, optional
        Numbers of attempts k; 1 to the number of attempts by default.
    confidence : float
        Confidence level of the band: the Clopper-Pearson interval of q, transformed to p_k.

    Returns
    -------
    counts, p, (low, high)
        Arrays of shape (m,), ready for `plot_success_curve`.

    Raises
    ------
    ValueError
        There are no attempts.
    """
    from scipy.stats import binomtest

    found = np.asarray(found, bool)
    if not found.size:
        raise ValueError('a success curve needs at least one attempt; got an empty list; pass one bool per relaxation')
    counts = np.arange(1, found.size + 1) if counts is None else np.asarray(counts)
    interval = binomtest(int(found.sum()), found.size).proportion_ci(confidence)
    p, low, high = (1 - (1 - q) ** counts for q in (found.mean(), interval.low, interval.high))
    return counts, p, (low, high)


def substrate_symmetries(slab: Atoms, *, tolerance: float = 0.05) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the symmetry operations of the surface that map the frozen atoms onto themselves.

    Parameters
    ----------
    slab : Atoms
        Slab whose frozen atoms are the substrate (all atoms if none is frozen). Periodic along the first two cell vectors.
    tolerance : float
        Largest distance between an atom and its image, in A.

    Returns
    -------
    list of (R, t)
        Orthogonal matrices (3, 3) that keep the surface normal, and translations (3,) in A along the surface, with the
        identity first: ``positions @ R.T + t`` is an equivalent placement of an overlayer. No two differ by a cell vector.
    """
    from ase.geometry import minkowski_reduce

    mobile = mobile_mask(slab)
    keep = ~mobile if not mobile.all() else mobile
    numbers, positions = slab.numbers[keep], slab.positions[keep]
    cell = np.array(minkowski_reduce(slab.cell.complete(), pbc=[True, True, False])[0])[:2]  # (2, 3)
    normal = np.cross(*cell) / np.linalg.norm(np.cross(*cell))
    frame = np.vstack([cell, normal])
    to_scaled = np.linalg.inv(frame)
    gram = cell @ cell.T
    height = np.round(positions @ normal, 1)
    layers = [np.flatnonzero((numbers == z) & (height == h)) for z, h in set(zip(numbers, height, strict=True))]
    layer = min(layers, key=lambda rows: (len(rows), rows[0]))
    same = numbers[:, None] == numbers  # (n, n)
    operations = []
    for entries in sorted(product((-1, 0, 1), repeat=4), key=lambda m: m != (1, 0, 0, 1)):
        change = np.reshape(entries, (2, 2))
        if not np.allclose(change @ gram @ change.T, gram, atol=tolerance * np.sqrt(gram.max())):
            continue
        rotation = (to_scaled @ np.vstack([change @ cell, normal])).T  # maps the cell vectors to their images
        turned = positions @ rotation.T
        for target in layer:
            shift = positions[target] - turned[layer[0]]
            shift -= shift @ normal * normal
            gap = ((turned + shift)[:, None] - positions) @ to_scaled  # (n, n, 3)
            gap[..., :2] -= np.round(gap[..., :2])
            hits = (np.linalg.norm(gap @ frame, axis=-1) < tolerance) & same
            if hits.any(1).all() and hits.any(0).all():
                operations.append((rotation, shift))
    return operations
