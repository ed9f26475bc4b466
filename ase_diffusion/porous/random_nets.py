"""Random 4-connected nets with the symmetry of a space group, in orthogonal cells.

A few sites are drawn, moved onto special positions where they are near one, and optimized on a cost of T-T distances and
angles under the symmetry, the cell with them.
"""

import math
from functools import cache

import numpy as np
from numba import njit

from .nets import cell_heights, is_connected, is_mutual, nearest_four, neighbor_pairs, sequences_of

BOND = 3.1  # A, T-T
APART = 4.3  # A, T-T without a bond
ANGLE_WEIGHT = 1.0  # A^2, of (cos TTT + 1/3)^2
ORDER = 192  # operations of the largest group
MOST_SITES = 6
CANDIDATES = 48
STATUS = ('placed badly', 'no four neighbors', 'not connected', 'net')


@cache
def orthogonal_groups(most=ORDER):
    """Return the operations of the space groups with orthogonal cells, 16 to 142 and 195 to 230.

    Parameters
    ----------
    most : int
        Largest number of operations, centring included.

    Returns
    -------
    numbers : numpy.ndarray
        ``(n,)`` int64; n = 163 without a limit.
    orders : numpy.ndarray
        ``(n,)`` int64, operations with centring.
    rotations, translations : numpy.ndarray
        ``(n, 192, 3, 3)`` and ``(n, 192, 3)`` float64, fractional columns: x' = R x + t.
    """
    from ase.spacegroup import Spacegroup

    numbers = np.array([*range(16, 143), *range(195, 231)])
    orders = np.zeros(len(numbers), np.int64)
    rotations, translations = np.zeros((len(numbers), ORDER, 3, 3)), np.zeros((len(numbers), ORDER, 3))
    for k, number in enumerate(numbers):
        for m, (rotation, translation) in enumerate(Spacegroup(int(number)).get_symop()):
            rotations[k, m], translations[k, m] = rotation, translation
            orders[k] = m + 1
    kept = orders <= most
    return numbers[kept], orders[kept], rotations[kept], translations[kept]


@njit(cache=True)
def _draw_lengths(number, volume):
    """Return three cell lengths (3,) in A of a volume that fit a space group, axis ratios between about 1/2 and 2."""
    a, b, c = 1.0, 1.0, 1.0
    if number < 195:
        c = math.exp(np.random.uniform(-0.7, 0.7))
    if number < 75:
        b = math.exp(np.random.uniform(-0.6, 0.6))
    scale = (volume / (a * b * c)) ** (1.0 / 3.0)
    return np.array([a * scale, b * scale, c * scale])


@njit(cache=True)
def _settle(x, lengths, rotations, translations, radius, image, fixing):
    """Move a site onto the mean of its images nearer than a radius, until nothing changes; return how many fix it.

    `fixing` (order,) is filled with the operations that map the site onto itself.
    """
    count = 0
    mean = np.empty(3)
    for _ in range(6):
        mean[:] = 0.0
        count = 0
        moved = 0.0
        for g in range(len(rotations)):
            square = 0.0
            for a in range(3):
                y = translations[g, a]
                for b in range(3):
                    y += rotations[g, a, b] * x[b]
                y -= x[a]
                image[a] = y - round(y)
                square += (image[a] * lengths[a]) ** 2
            if square < radius * radius:
                fixing[count] = g
                count += 1
                for a in range(3):
                    mean[a] += image[a]
        for a in range(3):
            mean[a] /= count
            x[a] += mean[a]
            moved += (mean[a] * lengths[a]) ** 2
        if moved < 1e-16:
            return count
    return 0


@njit(cache=True)
def _orbit(x, rotations, translations, lengths, out, operations, limit):
    """Fill the images of a site inside the cell and the operation of each; return their number, limit + 1 if more."""
    count = 0
    y = np.empty(3)
    for g in range(len(rotations)):
        for a in range(3):
            y[a] = translations[g, a]
            for b in range(3):
                y[a] += rotations[g, a, b] * x[b]
            y[a] -= math.floor(y[a])
        new = True
        for k in range(count):
            square = 0.0
            for a in range(3):
                u = y[a] - out[k, a]
                u -= round(u)
                square += (u * lengths[a]) ** 2
            if square < 0.01:
                new = False
                break
        if new:
            if count == limit:
                return limit + 1
            out[count] = y
            operations[count] = g
            count += 1
    return count


@njit(cache=True)
def _images(x, owner, operation, rotations, translations, out):
    """Fill the positions (n, 3) of all sites from those of the orbits (u, 3); not wrapped."""
    for k in range(len(owner)):
        g, u = operation[k], owner[k]
        for a in range(3):
            y = translations[g, a]
            for b in range(3):
                y += rotations[g, a, b] * x[u, b]
            out[k, a] = y


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
def _optimize(x, lengths, number, owner, operation, multiplicity, rotations, translations, projectors, steps):
    """Optimize unique sites (u, 3), fractional, and cell lengths (3,) by Adam with projected gradients, in place."""
    n, u = len(owner), len(x)
    sites = np.empty((n, 3))
    partner, shift = np.empty((u, CANDIDATES), np.int64), np.empty((u, CANDIDATES, 3))
    near = np.empty(u, np.int64)
    gradient, projected, strain = np.empty((u, 3)), np.empty((u, 3)), np.empty(3)
    m1, m2 = np.zeros((u + 1, 3)), np.zeros((u + 1, 3))
    cost = np.inf
    for step in range(steps):
        _images(x, owner, operation, rotations, translations, sites)
        part = step / steps
        if step % (6 if step < 60 else 16) == 0:
            _list_candidates(x, sites, lengths, 5.2 if step >= 60 else 6.0, partner, shift, near)
        angle = ANGLE_WEIGHT * min(1.0, 2.0 * part)
        cost = _cost(x, sites, lengths, multiplicity, owner, operation, rotations, partner, shift, near, angle, gradient, strain)
        rate = 0.25 * (1.0 - part) ** 1.5 + 0.003
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


@njit(cache=True)
def seed_random(seed):
    """Seed the random numbers of the functions of this file."""
    np.random.seed(seed)


@njit(cache=True)
def draw_net(seed, numbers, orders, all_rotations, all_translations, most, smallest_edge, largest_edge, steps, stamp, first):
    """Draw and optimize one net.

    Parameters
    ----------
    seed : int
        Of this net alone, below 2^32.
    numbers, orders, all_rotations, all_translations
        Of `orthogonal_groups`.
    most : int
        Largest number of T sites.
    smallest_edge, largest_edge : float
        A, after the optimization.
    steps : int
        Of the optimization.
    stamp, first
        Scratch array and first number of `sequences_of`.

    Returns
    -------
    status : int
        Place in `STATUS`; the rest is of meaning only for 3.
    number : int
        Space group.
    lengths : numpy.ndarray
        ``(3,)`` A.
    sites : numpy.ndarray
        ``(n, 3)`` fractional in [0, 1).
    neighbors, shifts : numpy.ndarray
        The net.
    sequences, multiplicity : numpy.ndarray
        ``(u, 10)`` coordination sequences and ``(u,)`` sizes of the orbits.
    """
    np.random.seed(seed)
    no = np.empty((0, 4), np.int32), np.empty((0, 4, 3), np.int32), np.empty((0, 10), np.int32), np.empty(0, np.int64)
    nothing = np.empty(3), np.empty((0, 3))
    which = np.random.randint(len(numbers))
    number, order = numbers[which], orders[which]
    rotations, translations = all_rotations[which, :order], all_translations[which, :order]
    volume = np.random.uniform(54.0, 82.0)
    asked = int(np.random.uniform(6.0, 1.1 * most))
    unique = np.random.randint(1, MOST_SITES)
    radius = np.random.uniform(0.8, 2.4)
    lengths = _draw_lengths(number, volume * asked)
    x, projectors = np.empty((unique, 3)), np.zeros((unique, 3, 3))
    multiplicity = np.empty(unique, np.int64)
    sites, owner, operation = np.empty((most, 3)), np.empty(most, np.int64), np.empty(most, np.int64)
    image, fixing = np.empty(3), np.empty(order, np.int64)
    n, u = 0, 0
    while u < unique:
        best = False
        for _ in range(6):  # a place that is not near to those before
            for a in range(3):
                x[u, a] = np.random.random()
            fixed = _settle(x[u], lengths, rotations, translations, radius, image, fixing)
            if fixed == 0 or order % fixed != 0:
                continue
            size = _orbit(x[u], rotations, translations, lengths, sites[n:], operation[n:], most - n)
            if size > most - n or size * fixed != order:
                continue
            clear = True
            for k in range(n):
                square = 0.0
                for a in range(3):
                    d = sites[k, a] - sites[n, a]
                    d -= round(d)
                    square += (d * lengths[a]) ** 2
                clear = clear and square > 4.0
            if clear:
                best = True
                break
        if not best:
            break
        owner[n : n + size] = u
        multiplicity[u] = size
        for f in range(fixed):
            projectors[u] += rotations[fixing[f]] / fixed
        n += size
        u += 1
        if n >= asked:
            break
    if u == 0 or n < 4 or n < asked // 2:
        return 0, number, nothing[0], nothing[1], no[0], no[1], no[2], no[3]
    x, multiplicity, owner, operation = x[:u], multiplicity[:u], owner[:n], operation[:n]
    lengths *= (n / asked) ** (1.0 / 3.0)
    _optimize(x, lengths, number, owner, operation, multiplicity, rotations, translations, projectors[:u], steps)
    sites = sites[:n]
    _images(x, owner, operation, rotations, translations, sites)
    sites -= np.floor(sites)
    if not (lengths.min() > smallest_edge and lengths.max() < largest_edge):
        return 0, number, nothing[0], nothing[1], no[0], no[1], no[2], no[3]
    cell = np.diag(lengths)
    pairs, distances = neighbor_pairs(sites, cell, 3.6, 30 * n + 60)
    if len(pairs) < 2 * n or distances.min() < 2.5:
        return 1, number, nothing[0], nothing[1], no[0], no[1], no[2], no[3]
    neighbors, shifts = nearest_four(n, pairs, distances, 3.6)
    if not is_mutual(neighbors, shifts):
        return 1, number, nothing[0], nothing[1], no[0], no[1], no[2], no[3]
    if np.abs(shifts).max() > 1 or not is_connected(neighbors, shifts):
        return 2, number, nothing[0], nothing[1], no[0], no[1], no[2], no[3]
    starts = np.empty(u, np.int64)
    for k in range(n - 1, -1, -1):
        starts[owner[k]] = k
    sequences = sequences_of(neighbors, shifts, starts, 10, 10, stamp, first)
    return 3, number, lengths, sites, neighbors, shifts, sequences, multiplicity
