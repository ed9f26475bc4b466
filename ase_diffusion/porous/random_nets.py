"""Random 4-connected nets with the symmetry of a space group, in orthogonal cells.

A few sites are drawn, moved onto special positions where they are near one, and optimized on a cost of T-T distances and
angles under the symmetry, the cell with them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .nets import is_connected, is_mutual, nearest_four, neighbor_pairs, sequences_of
from .symmetry import images_of, orbit_of, settle_site

Orbits = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x, projectors, ..., see `_place_sites`

BOND = 3.1  # A, T-T
APART = 4.3  # A, T-T without a bond
ANGLE_WEIGHT = 1.0  # A^2, of (cos TTT + 1/3)^2
RATE = 0.25  # A, first step
SHORTEST, LONGEST = 2.5, 3.6  # A, T-T bonds of a net that is kept
VOLUMES = (54.0, 82.0)  # A^3 per T site at the start; the distance least squares make the cell smaller
MERGING = (0.8, 2.4)  # A, range of the distance below which a site and its images become one
MOST_SITES = 6  # unique sites are fewer
CANDIDATES = 48
STATUS = ('placed badly', 'no four neighbors', 'not connected', 'net')


@njit(cache=True)
def _draw_lengths(rng, number, volume):
    """Return three cell lengths (3,) in A of a volume that fit a space group, axis ratios between about 1/2 and 2."""
    a, b, c = 1.0, 1.0, 1.0
    if number < 195:
        c = math.exp(rng.uniform(-0.7, 0.7))
    if number < 75:
        b = math.exp(rng.uniform(-0.6, 0.6))
    scale = (volume / (a * b * c)) ** (1.0 / 3.0)
    return np.array([a * scale, b * scale, c * scale])


@njit(cache=True)
def _list_candidates(x, sites, lengths, cutoff, partner, shift, number):
    """List for each unique site the sites and images nearer than a cutoff."""
    for u in range(len(x)):
        count = 0
        for k in range(len(sites)):
            d0, d1, d2 = sites[k, 0] - x[u, 0], sites[k, 1] - x[u, 1], sites[k, 2] - x[u, 2]
            l0, h0 = math.ceil(-cutoff / lengths[0] - d0), math.floor(cutoff / lengths[0] - d0)
            l1, h1 = math.ceil(-cutoff / lengths[1] - d1), math.floor(cutoff / lengths[1] - d1)
            l2, h2 = math.ceil(-cutoff / lengths[2] - d2), math.floor(cutoff / lengths[2] - d2)
            for a in range(l0, h0 + 1):
                for b in range(l1, h1 + 1):
                    for c in range(l2, h2 + 1):
                        p, q, r = (d0 + a) * lengths[0], (d1 + b) * lengths[1], (d2 + c) * lengths[2]
                        square = p * p + q * q + r * r
                        if 1e-6 < square < cutoff * cutoff and count < CANDIDATES:
                            partner[u, count] = k
                            shift[u, count, 0], shift[u, count, 1], shift[u, count, 2] = a, b, c
                            count += 1
        number[u] = count


@njit(cache=True, fastmath=True)
def _cost(x, sites, lengths, multiplicity, owner, operation, rotations, partner, shift, number, angle, gradient, strain):
    """Return the cost per site of the T-T distances and angles, and its gradient for positions (A^-1) and log lengths."""
    gradient[:] = 0.0
    strain[:] = 0.0
    cost, total = 0.0, 0.0
    vector, near, length = np.empty((CANDIDATES, 3)), np.empty(4, np.int64), np.empty(CANDIDATES)
    force = np.empty((CANDIDATES, 3))
    for u in range(len(x)):
        w = float(multiplicity[u])
        total += w
        for m in range(4):
            near[m] = -1
        for c in range(number[u]):
            k = partner[u, c]
            square = 0.0
            for a in range(3):
                vector[c, a] = (sites[k, a] - x[u, a] + shift[u, c, a]) * lengths[a]
                square += vector[c, a] * vector[c, a]
                force[c, a] = 0.0
            length[c] = math.sqrt(square)
            m = 4
            while m > 0 and (near[m - 1] < 0 or length[near[m - 1]] > length[c]):
                m -= 1
            for q in range(3, m, -1):
                near[q] = near[q - 1]
            if m < 4:
                near[m] = c
        for c in range(number[u]):
            bonded = c == near[0] or c == near[1] or c == near[2] or c == near[3]
            if bonded or length[c] < APART:
                target = BOND if bonded else APART
                weight = 1.0 if bonded else 0.5
                d = length[c] - target
                cost += w * weight * d * d
                slope = 2.0 * w * weight * d / max(length[c], 0.1)
                for a in range(3):
                    force[c, a] += slope * vector[c, a]
        if near[3] >= 0 and angle > 0.0:
            for p in range(4):
                i = near[p]
                for q in range(p):
                    j = near[q]
                    li, lj = max(length[i], 0.3), max(length[j], 0.3)
                    cosine = (vector[i, 0] * vector[j, 0] + vector[i, 1] * vector[j, 1] + vector[i, 2] * vector[j, 2]) / (li * lj)
                    e = cosine + 1.0 / 3.0
                    cost += w * angle * e * e
                    slope = 2.0 * w * angle * e
                    for a in range(3):
                        force[i, a] += slope * (vector[j, a] / (li * lj) - cosine * vector[i, a] / (li * li))
                        force[j, a] += slope * (vector[i, a] / (li * lj) - cosine * vector[j, a] / (lj * lj))
        for c in range(number[u]):
            k = partner[u, c]
            o, g = owner[k], operation[k]
            for a in range(3):
                gradient[u, a] -= force[c, a]
                strain[a] += force[c, a] * vector[c, a]
                for b in range(3):
                    gradient[o, b] += rotations[g, a, b] * force[c, a]
    for u in range(len(x)):
        for a in range(3):
            gradient[u, a] /= multiplicity[u]
    for a in range(3):
        strain[a] /= total
    return cost / total


@njit(cache=True)
def _optimize(x, lengths, number, owner, operation, multiplicity, rotations, translations, projectors, steps, first_rate):
    """Optimize unique sites (u, 3), fractional, and cell lengths (3,) by Adam with projected gradients, in place.

    The step begins at `first_rate`, A.
    """
    n, u = len(owner), len(x)
    sites = np.empty((n, 3))
    partner, shift = np.empty((u, CANDIDATES), np.int64), np.empty((u, CANDIDATES, 3))
    near = np.empty(u, np.int64)
    gradient, projected, strain = np.empty((u, 3)), np.empty((u, 3)), np.empty(3)
    m1, m2 = np.zeros((u + 1, 3)), np.zeros((u + 1, 3))
    cost = np.inf
    for step in range(steps):
        images_of(x, owner, operation, rotations, translations, sites)
        part = step / steps
        if step % (6 if step < 60 else 16) == 0:
            _list_candidates(x, sites, lengths, 5.2 if step >= 60 else 6.0, partner, shift, near)
        angle = ANGLE_WEIGHT * min(1.0, 2.0 * part)
        cost = _cost(x, sites, lengths, multiplicity, owner, operation, rotations, partner, shift, near, angle, gradient, strain)
        rate = first_rate * (1.0 - part) ** 1.5 + 0.003
        for k in range(u):
            for a in range(3):
                projected[k, a] = 0.0
                for b in range(3):
                    projected[k, a] += projectors[k, a, b] * gradient[k, b]
        if number >= 195:
            strain[:] = strain.mean()
        elif number >= 75:
            strain[0] = strain[1] = 0.5 * (strain[0] + strain[1])
        b1, b2 = 0.9, 0.99
        c1, c2 = 1.0 - b1 ** (step + 1), 1.0 - b2 ** (step + 1)
        for k in range(u + 1):
            norm = 0.0
            for a in range(3):
                g = projected[k, a] if k < u else strain[a]
                m1[k, a] = b1 * m1[k, a] + (1.0 - b1) * g
                norm += g * g
            m2[k, 0] = b2 * m2[k, 0] + (1.0 - b2) * norm  # one norm for the three components: the symmetry stays
            scale = rate / (math.sqrt(m2[k, 0] / c2) + 1e-4) / c1
            for a in range(3):
                if k < u:
                    x[k, a] -= scale * m1[k, a] / lengths[a]
                else:
                    lengths[a] *= math.exp(-0.12 * scale * m1[k, a])
    return cost


def relax_sites(scaled: np.ndarray, lengths: np.ndarray, steps: int = 160, rate: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Relax T sites in an orthogonal cell on the cost of T-T distances and angles, without symmetry, the cell with them.

    Parameters
    ----------
    scaled : numpy.ndarray
        ``(n, 3)`` fractional.
    lengths : numpy.ndarray
        ``(3,)`` A.
    steps : int
    rate : float
        A, first step.

    Returns
    -------
    scaled, lengths : numpy.ndarray
        New arrays; fractional positions not wrapped.
    """
    n = len(scaled)
    x, lengths = np.array(scaled, float), np.array(lengths, float)
    one, zero = np.eye(3)[None], np.zeros((1, 3))
    owner, operation = np.arange(n), np.zeros(n, np.int64)
    _optimize(x, lengths, 16, owner, operation, np.ones(n, np.int64), one, zero, np.tile(one, (n, 1, 1)), steps, rate)
    return x, lengths


@njit(cache=True)
def _clear(site, sites, lengths):
    """Tell whether a site (3,) and its images are 2 A or more away from others (n, 3)."""
    for k in range(len(sites)):
        square = 0.0
        for a in range(3):
            d = sites[k, a] - site[a]
            d -= round(d)
            square += (d * lengths[a]) ** 2
        if square < 4.0:
            return False
    return True


@njit(cache=True)
def _place_sites(rng, asked, most, radius, lengths, rotations, translations):
    """Draw unique sites, on special positions where they are near one, until there are `asked` sites in the cell.

    Returns
    -------
    x, projectors, multiplicity : numpy.ndarray
        ``(u, 3)`` fractional, ``(u, 3, 3)`` onto the directions in which a site may move, ``(u,)`` sizes of the orbits.
    owner, operation : numpy.ndarray
        ``(n,)`` unique site of each site, and the operation that maps it there; n = 0 where too few found a place.
    """
    order, unique = len(rotations), rng.integers(1, MOST_SITES)
    x, projectors, multiplicity = np.empty((unique, 3)), np.zeros((unique, 3, 3)), np.empty(unique, np.int64)
    sites, owner, operation = np.empty((most, 3)), np.empty(most, np.int64), np.empty(most, np.int64)
    image, fixing = np.empty(3), np.empty(order, np.int64)
    n, u, tries = 0, 0, 0
    while u < unique and n < asked and tries < 6:
        tries += 1
        for a in range(3):
            x[u, a] = rng.random()
        fixed = settle_site(x[u], lengths, rotations, translations, radius, image, fixing)
        if fixed == 0 or order % fixed != 0:
            continue
        size = orbit_of(x[u], rotations, translations, lengths, sites[n:], operation[n:], most - n)
        if size > most - n or size * fixed != order or not _clear(sites[n], sites[:n], lengths):
            continue
        owner[n : n + size] = u
        multiplicity[u] = size
        for f in range(fixed):
            projectors[u] += rotations[fixing[f]] / fixed
        n += size
        u += 1
        tries = 0
    if n < 4 or n < asked // 2:
        n = 0
    return x[:u], projectors[:u], multiplicity[:u], owner[:n], operation[:n]


@njit(cache=True)
def draw_orbits(
    rng: np.random.Generator, number: int, rotations: np.ndarray, translations: np.ndarray, sizes: tuple[int, int]
) -> tuple[np.ndarray, Orbits]:
    """Draw cell lengths and unique sites for a space group.

    Parameters
    ----------
    rng : numpy.random.Generator
    number : int
        Space group.
    rotations, translations : numpy.ndarray
        Its operations.
    sizes : (int, int)
        Range of the number of sites asked for; there are at least half of the smaller and at most the larger number.

    Returns
    -------
    lengths : numpy.ndarray
        ``(3,)`` A.
    x, projectors, multiplicity, owner, operation
        See `_place_sites`.
    """
    volume = rng.uniform(*VOLUMES)
    asked = int(rng.uniform(sizes[0], 1.1 * sizes[1]))
    radius = rng.uniform(*MERGING)
    lengths = _draw_lengths(rng, number, volume * asked)
    orbits = _place_sites(rng, asked, sizes[1], radius, lengths, rotations, translations)
    lengths *= (len(orbits[3]) / asked) ** (1.0 / 3.0)
    return lengths, orbits


@njit(cache=True)
def orbits_in_cell(
    rng: np.random.Generator, asked: int, lengths: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, Orbits]:
    """Draw unique sites in a given cell, `asked` sites within 10 %; the cell is scaled to their number.

    Returns
    -------
    lengths, orbits
        As of `draw_orbits`; no sites where they find no place.
    """
    orbits = _place_sites(rng, asked, int(1.1 * asked), rng.uniform(*MERGING), lengths, rotations, translations)
    n = len(orbits[3])
    if n < 0.9 * asked:
        orbits = (orbits[0], orbits[1], orbits[2], orbits[3][:0], orbits[4][:0])
    return lengths * (n / asked) ** (1.0 / 3.0), orbits


@njit(cache=True)
def disturb_orbits(
    rng: np.random.Generator, number: int, lengths: np.ndarray, orbits: Orbits, amplitude: float
) -> tuple[np.ndarray, Orbits]:
    """Return cell lengths and orbits with random displacements (standard deviation in A) and strains under the symmetry."""
    x, projectors, multiplicity, owner, operation = orbits
    new = x.copy()
    for u in range(len(x)):
        step = np.array([rng.normal(), rng.normal(), rng.normal()]) * amplitude
        new[u] += projectors[u] @ step / lengths
    strain = 0.06 * np.array([rng.normal(), rng.normal(), rng.normal()])
    if number >= 195:
        strain[:] = strain[0]
    elif number >= 75:
        strain[1] = strain[0]
    return lengths * np.exp(strain), (new, projectors, multiplicity, owner, operation)


@njit(cache=True)
def optimize_net(
    number: int,
    lengths: np.ndarray,
    orbits: Orbits,
    rotations: np.ndarray,
    translations: np.ndarray,
    edges: tuple[float, float] | np.ndarray,
    steps: int,
    stamp: np.ndarray,
    first: int,
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Optimize sites and cell, and find the net of the sites.

    Parameters
    ----------
    number : int
        Space group.
    lengths, orbits
        Of `draw_orbits`; lengths and x are changed in place.
    rotations, translations : numpy.ndarray
        Operations of the group.
    edges : (float, float)
        A, range of the cell lengths after the optimization.
    steps : int
        Of the optimization.
    stamp, first
        Scratch array and first number of `sequences_of`.

    Returns
    -------
    status : int
        Place in `STATUS`; the rest is of meaning only for 3.
    sites : numpy.ndarray
        ``(n, 3)`` fractional in [0, 1).
    neighbors, shifts : numpy.ndarray
        The net.
    sequences : numpy.ndarray
        ``(u, 10)`` coordination sequences.
    """
    x, projectors, multiplicity, owner, operation = orbits
    n = len(owner)
    sites, sequences = np.empty((n, 3)), np.empty((0, 10), np.int32)
    neighbors, shifts = np.empty((0, 4), np.int32), np.empty((0, 4, 3), np.int32)
    status = 0
    if n > 0:
        _optimize(x, lengths, number, owner, operation, multiplicity, rotations, translations, projectors, steps, RATE)
        images_of(x, owner, operation, rotations, translations, sites)
        sites -= np.floor(sites)
        status = 1 if lengths.min() > edges[0] and lengths.max() < edges[1] else 0
    if status == 1:
        pairs, distances = neighbor_pairs(sites, np.diag(lengths), LONGEST, 30 * n + 60)
        if len(pairs) >= 2 * n and distances.min() > SHORTEST:
            neighbors, shifts = nearest_four(n, pairs, distances, LONGEST)
            status = 2 if is_mutual(neighbors, shifts) else 1
    if status == 2 and np.abs(shifts).max() == 1 and is_connected(neighbors, shifts):
        status = 3
        starts = np.empty(len(x), np.int64)
        for k in range(n - 1, -1, -1):
            starts[owner[k]] = k
        sequences = sequences_of(neighbors, shifts, starts, 10, 10, stamp, first)
    return status, sites, neighbors, shifts, sequences
