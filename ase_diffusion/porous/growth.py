"""Growth of silica frameworks: random orbits of T sites -> net -> O -> distance least squares -> labels.

From every framework found, others are looked for near it: its T sites displaced at random under the same symmetry. Or
frameworks are looked for in a given cell, with a given space group and number of T sites.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

from .adsorption import adsorption_properties, framework_density
from .dls import fit_distances, insert_oxygen
from .lennard_jones import energy_grid
from .nets import framework_net, is_connected, net_hash
from .random_nets import STATUS, disturb_orbits, draw_orbits, optimize_net, orbits_in_cell
from .symmetry import orthogonal_groups

SIZES = (24, 100)  # T sites
EDGES = (4.8, 34.0)  # A
OPERATIONS = 96  # of a space group; in larger ones few nets are new
STEPS = 120
ROUNDS = np.array([20, 20, 40, 70, 500])  # of DLS
LIMITS = np.array([0.03, 0.012, 0.0102, 0.0101, np.inf])  # A^2 per T after each round: loses 3 % of what would be good
GOOD = 0.01  # A^2 per T
GRID = (32, 32, 32)
TEMPERATURE = 298.0  # K
IDLE, CHAIN = 40, 200  # attempts from one start: without a framework, in all
DISTURBANCE = 1.0  # A
MOST_ORBITS = 6
OUTCOMES = ('starts', 'disturbed', 'placed badly', 'no four neighbors', 'not connected', 'met before', 'strained', 'found')
FARTHEST = (*STATUS[:3], 'strained')  # ends of attempts, the earlier one first
LABELS = ('void_fraction', 'henry_coefficient', 'heat_of_adsorption')
CELL = 65536  # parts of a fractional coordinate
NEAR = 0.3  # A, from the middle of a bond to its image

Framework = tuple[np.ndarray, np.ndarray, float]  # lengths (3,) in A, scaled (3 n, 3) with the Si first, A^2 per T site

SEEN = {}  # of this process: (seed, sizes) -> hashes of nets that lower starts have found


def try_starts(
    seed: int, sizes: tuple[int, int], labels: bool, first: int, last: int
) -> tuple[int, dict[str, int], list[tuple[int, np.ndarray, dict]]]:
    """Make the starts `first` to `last` - 1: random orbits, and from every framework found disturbed ones.

    Returns
    -------
    last : int
    counts : dict
        How many attempts ended in which way, but for those found.
    found : list
        (start, coded positions (3 n, 3) uint16, dict of `COLUMNS`).
    """
    groups = orthogonal_groups(OPERATIONS)
    seen = SEEN.setdefault((seed, sizes), set())
    stamp = np.full(sizes[1] * 21**3, -1, np.int32)
    counts, found = dict.fromkeys(OUTCOMES, 0), []
    for start in range(first, last):
        counts['starts'] += 1
        for net, group, framework in _chain(np.random.default_rng([seed, start]), groups, sizes, counts, stamp):
            if net in seen:
                counts['met before'] += 1
                continue
            seen.add(net)
            lengths, scaled, cost = framework
            found.append((start, *_entry(lengths, scaled, {'space_group': group, 'cost': cost, 'net': net}, labels)))
    return last, counts, found


def _chain(rng, groups, sizes, counts, stamp):
    """Yield (hash of the net, space group, framework): of random orbits, and of those disturbed that gave a framework.

    It ends after `IDLE` attempts without a framework, or `CHAIN` attempts.
    """
    group = groups[rng.integers(len(groups))]
    lengths, orbits = draw_orbits(rng, *group, sizes)
    if not len(orbits[3]):
        counts[STATUS[0]] += 1
        return
    base, tried, idle = None, set(), 0
    first = counts['starts'] * CHAIN * MOST_ORBITS  # of the numbers in stamp
    for attempt in range(CHAIN):
        if base is not None:
            counts['disturbed'] += 1
            lengths, orbits = disturb_orbits(rng, group[0], *base, DISTURBANCE * rng.uniform(0.4, 1.6))
        status, sites, neighbors, shifts, sequences = optimize_net(
            group[0], lengths, orbits, *group[1:], EDGES, STEPS, stamp, first + attempt * MOST_ORBITS
        )
        outcome = STATUS[status]
        if outcome == 'net':
            net = net_hash(sequences, orbits[2])
            framework = None if net in tried else fit_net(lengths, sites, neighbors, shifts)
            outcome = 'met before' if net in tried else 'strained'
            tried.add(net)
            if framework is not None:
                yield net, group[0], framework
                base, idle = (lengths, orbits), 0
                continue
        counts[outcome] += 1
        idle += 1
        if base is None or idle >= IDLE:
            return


def framework_in_cell(
    rng: np.random.Generator,
    lengths: np.ndarray,
    silicon: int,
    operations: tuple[np.ndarray, np.ndarray],
    *,
    attempts: int = 20,
    good: float = GOOD,
    symmetric: bool = False,
) -> Framework | str:
    """Try random symmetric T sites in a cell until they relax to a framework; the cell relaxes with them.

    Parameters
    ----------
    rng : numpy.random.Generator
    lengths : numpy.ndarray
        ``(3,)`` A.
    silicon : int
        T sites, met within 10 %.
    operations : (rotations, translations)
        ``(G, 3, 3)`` and ``(G, 3)``, fractional.
    attempts : int
    good : float
        A^2 per T site, largest cost of the distance least squares.
    symmetric : bool
        O begins in symmetric places, so that a framework has the space group, unless it is too strained so.

    Returns
    -------
    (lengths, scaled, cost) or str
        As of `fit_net`, or how the attempt ended that came farthest.
    """
    rotations, translations = (np.ascontiguousarray(x, float) for x in operations)
    number = _system(rotations)
    if number is None:
        return FARTHEST[0]
    stamp, depth = np.full(int(1.1 * silicon + 1) * 21**3, -1, np.int32), 0
    for attempt in range(attempts):
        box, orbits = orbits_in_cell(rng, silicon, np.asarray(lengths, float), rotations, translations)
        status, *net, _ = optimize_net(
            number, box, orbits, rotations, translations, np.array(EDGES), STEPS, stamp, attempt * MOST_ORBITS
        )
        if STATUS[status] == 'net':
            framework = fit_net(box, *net, good, (rotations, translations) if symmetric else None)
            if framework is not None:
                return framework
        depth = max(depth, status)
    return FARTHEST[depth]


def _system(rotations):
    """Return the number of a space group with the same relations of the edges: none, a = b, a = b = c; None: others."""
    coupled = np.abs(rotations).sum(0) > 0  # (3, 3)
    xy, other = coupled[0, 1] or coupled[1, 0], coupled[2, :2].any() or coupled[:2, 2].any()
    return 195 if xy and other else None if other else 75 if xy else 16


def _entry(lengths, scaled, values, labels):
    """Return the coded positions of a framework and its columns."""
    coded = (np.round((scaled - np.floor(scaled)) * CELL).astype(np.int64) % CELL).astype(np.uint16)
    lengths = np.asarray(lengths, np.float32)
    atoms = build(lengths, coded)
    values = {**values, **dict.fromkeys(LABELS, np.nan), 'cell_lengths': lengths, 'density': framework_density(atoms)}
    if labels:
        found = adsorption_properties(energy_grid(atoms, GRID, device='cpu'), TEMPERATURE)
        values |= {name: found[name] for name in LABELS}
    return coded, values


def fit_net(
    lengths: np.ndarray,
    sites: np.ndarray,
    neighbors: np.ndarray,
    shifts: np.ndarray,
    good: float = GOOD,
    operations: tuple[np.ndarray, np.ndarray] | None = None,
) -> Framework | None:
    """Put oxygen on a net and fit it by distance least squares; first in places with the symmetry of ``operations``, if given.

    Returns
    -------
    (lengths, scaled, cost) or None
        ``(3,)`` A, ``(3 n, 3)`` fractional with the Si first, A^2 per T site; None where the cost is above `good` or the
        framework fails the check.
    """
    n = len(sites)
    cell, scaled, bonds = np.diag(lengths), np.empty((3 * n, 3)), np.empty((2 * n, 5), np.int32)
    if insert_oxygen(sites, cell, np.linalg.inv(cell), neighbors, shifts, scaled, bonds) != 2 * n:
        return None
    starts = [] if operations is None else symmetric_oxygen(scaled, bonds, lengths, *operations)
    return next(filter(None, (_fitted(start, cell.copy(), bonds, good) for start in (*starts, scaled))), None)


def symmetric_oxygen(
    scaled: np.ndarray, bonds: np.ndarray, lengths: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> list[np.ndarray]:
    """Return a framework whose O, displacements from the middles of T-T bonds, are averaged over a space group, in a list.

    It is empty where an operation maps a bond onto none.

    Parameters
    ----------
    scaled : numpy.ndarray
        ``(3 n, 3)`` fractional, T sites first; these have the symmetry.
    bonds : numpy.ndarray
        ``(2 n, 5)``: i, j, shift of j.
    lengths : numpy.ndarray
        ``(3,)`` A, of an orthogonal cell.
    rotations, translations : numpy.ndarray
        ``(G, 3, 3)`` and ``(G, 3)``, fractional.
    """
    from scipy.spatial import cKDTree

    n = len(scaled) // 3
    middles = (scaled[bonds[:, 0]] + scaled[bonds[:, 1]] + bonds[:, 2:]) / 2  # (2 n, 3)
    aside = scaled[n:] - middles
    images = np.einsum('gab,mb->gma', rotations, middles) + translations[:, None]
    tree = cKDTree(middles % 1.0 % 1.0 * lengths, boxsize=lengths)
    far, where = tree.query(images % 1.0 % 1.0 * lengths, distance_upper_bound=NEAR)  # (G, 2 n)
    if not np.isfinite(far).all():
        return []
    total = np.zeros_like(aside)
    np.add.at(total, where, np.einsum('gab,mb->gma', rotations, aside))
    return [np.concatenate([scaled[:n], middles + total / len(rotations)])]


def _fitted(scaled: np.ndarray, cell: np.ndarray, bonds: np.ndarray, good: float) -> Framework | None:
    """Return a framework fitted to its distances, None where it is too strained or fails the check."""
    n = len(scaled) // 3
    cost = fit_distances(n, scaled, cell, bonds, np.eye(3), ROUNDS, LIMITS, 1e-4)
    if not cost < good:
        return None
    numbers = np.repeat([14, 8], [n, 2 * n])
    net = framework_net(numbers, scaled, cell)
    if isinstance(net, str) or not is_connected(*net):
        return None
    return np.diag(cell).copy(), scaled, cost


def build(lengths: np.ndarray, coded: np.ndarray) -> Atoms:
    """Return the Atoms of cell lengths (3,) in A and coded positions (3 n, 3)."""
    n = len(coded) // 3
    scaled = np.asarray(coded, float) / CELL
    return Atoms(np.repeat([14, 8], [n, 2 * n]), cell=np.asarray(lengths, float), scaled_positions=scaled, pbc=True)
