"""Distance least squares of silica frameworks: oxygen on the bonds of a T net, positions and cell fitted to distances.

Ch. Baerlocher, A. Hepp, W. M. Meier, DLS-76, ETH Zurich (1977). The cost is

    sum_SiO (d - 1.61)^2 + 0.16 sum_OO (d - 2.629)^2 + 0.05 sum_SiSi (d - 3.10)^2 + 0.1 sum_other max(0, d0 - d)^2

in A^2 over the bonds, the edges of the tetrahedra, the bridged Si pairs, and the pairs that share no Si or O
(d0: O-O 3.0, Si-O 3.0, Si-Si 3.7 A). IZA frameworks have about 3e-4 A^2 per T site.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .nets import neighbor_pairs

SIO, OO, SISI = 1.61, 2.629, 3.10  # A
WEIGHTS = (1.0, 0.16, 0.05, 0.1)
APART = (3.0, 3.0, 3.7)  # A, O-O, Si-O and Si-Si without a common neighbor
LIST_CUTOFF = 4.4  # A
BEND = 0.42  # A, from the middle of a bond to its oxygen
MEMORY = 8  # of L-BFGS
LONGEST_STEP = 0.25  # A


@njit(cache=True)
def insert_oxygen(
    scaled: np.ndarray,
    cell: np.ndarray,
    inverse: np.ndarray,
    neighbors: np.ndarray,
    shifts: np.ndarray,
    out: np.ndarray,
    bonds: np.ndarray,
) -> int:
    """Put an O beside the middle of every T-T bond, on the side away from the other neighbors of the two sites.

    Fills ``out`` (3 n, 3), fractional, T sites first, and ``bonds`` (2 n, 5): i, j, shift of j. The O of bond b is atom n + b,
    in the frame of i. Returns the number of bonds.
    """
    n = len(scaled)
    out[:n] = scaled
    count = 0
    side, along, other = np.empty(3), np.empty(3), np.empty(3)
    for i in range(n):
        for k in range(4):
            j = neighbors[i, k]
            s = shifts[i, k]
            if j < i or (j == i and (s[0] < 0 or (s[0] == 0 and (s[1] < 0 or (s[1] == 0 and s[2] <= 0))))):
                continue
            along[:] = (scaled[j] + s - scaled[i]) @ cell
            side[:] = 0.0
            for m in range(4):
                if m != k:
                    side -= (scaled[neighbors[i, m]] + shifts[i, m] - scaled[i]) @ cell
            for m in range(4):
                q, t = neighbors[j, m], shifts[j, m]
                if q == i and t[0] == -s[0] and t[1] == -s[1] and t[2] == -s[2]:
                    continue
                side -= (scaled[q] + t - scaled[j]) @ cell
            length = math.sqrt((along * along).sum())
            along /= length
            side -= (side * along).sum() * along
            size = math.sqrt((side * side).sum())
            if size < 0.3:  # no side is better: one that depends on the bond
                other[0] = math.sin(1.0 + 7.0 * count)
                other[1] = math.sin(2.0 + 5.0 * count)
                other[2] = math.sin(3.0 + 11.0 * count)
                other -= (other * along).sum() * along
                side += 0.3 * other / math.sqrt((other * other).sum())
                size = math.sqrt((side * side).sum())
            out[n + count] = scaled[i] + (0.5 * length * along + BEND / size * side) @ inverse
            bonds[count, 0], bonds[count, 1] = i, j
            bonds[count, 2:5] = s
            count += 1
    return count


@njit(cache=True)
def framework_terms(n: int, bonds: np.ndarray, terms: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> int:
    """List the distances of a framework: ``terms`` (12 n, 5) with i, j, shift of j; return their number (12 n).

    4 n Si-O, 6 n O-O and 2 n Si-Si. ``bonds`` (2 n, 5): T site i, T site j, shift of j; the O of bond b is atom n + b, in the
    frame of i.
    """
    count = 0
    ends = np.empty((n, 4, 4), np.int32)  # of each T site: the O and its shift
    filled = np.zeros(n, np.int32)
    for b in range(len(bonds)):
        i, j = bonds[b, 0], bonds[b, 1]
        terms[count, 0], terms[count, 1] = i, n + b
        terms[count, 2:] = 0
        terms[count + 1, 0], terms[count + 1, 1] = j, n + b
        terms[count + 1, 2:] = -bonds[b, 2:]
        terms[count + 2, 0], terms[count + 2, 1] = i, j
        terms[count + 2, 2:] = bonds[b, 2:]
        targets[count], targets[count + 1], targets[count + 2] = SIO, SIO, SISI
        weights[count], weights[count + 1], weights[count + 2] = WEIGHTS[0], WEIGHTS[0], WEIGHTS[2]
        count += 3
        for end in range(2):
            t = bonds[b, end]
            if filled[t] == 4:
                return -1
            ends[t, filled[t], 0] = n + b
            for axis in range(3):
                ends[t, filled[t], 1 + axis] = -end * bonds[b, 2 + axis]
            filled[t] += 1
    for t in range(n):
        if filled[t] < 4:
            return -1
        for p in range(4):
            for q in range(p):
                terms[count, 0], terms[count, 1] = ends[t, p, 0], ends[t, q, 0]
                terms[count, 2:] = ends[t, q, 1:] - ends[t, p, 1:]
                targets[count], weights[count] = OO, WEIGHTS[1]
                count += 1
    return count


@njit(cache=True)
def repulsive_terms(
    n: int, scaled: np.ndarray, cell: np.ndarray, terms: np.ndarray, count: int, out: np.ndarray, floors: np.ndarray
) -> int:
    """List the pairs of a framework that are near and not among its first `count` terms; return their number."""
    m = len(scaled)
    pairs, distances = neighbor_pairs(scaled, cell, LIST_CUTOFF, len(out))
    # the terms of each atom, both ways
    starts = np.zeros(m + 1, np.int32)
    for p in range(count):
        starts[min(terms[p, 0], terms[p, 1]) + 1] += 1
    for i in range(m):
        starts[i + 1] += starts[i]
    order = np.empty(count, np.int32)
    at = starts.copy()
    for p in range(count):
        i = min(terms[p, 0], terms[p, 1])
        order[at[i]] = p
        at[i] += 1
    found = 0
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        silicon = (i < n) + (j < n)
        floor = APART[silicon]
        if distances[p] > floor + 0.7:
            continue
        listed = False
        for q in range(starts[i], starts[i + 1]):
            t = terms[order[q]]
            here = t[0] == i and t[1] == j and t[2] == pairs[p, 2] and t[3] == pairs[p, 3] and t[4] == pairs[p, 4]
            there = t[0] == j and t[1] == i and t[2] == -pairs[p, 2] and t[3] == -pairs[p, 3] and t[4] == -pairs[p, 4]
            listed = listed or here or there
        if not listed:
            out[found] = pairs[p]
            floors[found] = floor
            found += 1
    return found


@njit(cache=True, fastmath=True)
def cost_and_gradient(
    x: np.ndarray,
    cell: np.ndarray,
    scale: float,
    terms: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    pairs: np.ndarray,
    floors: np.ndarray,
    free: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the cost (A^2) and fill its gradient.

    Parameters
    ----------
    x : numpy.ndarray
        ``(m + 3, 3)``: m positions in A in the frame of `cell`, and three rows of a strain times `scale`; positions and cell
        vectors are multiplied by (1 + strain).
    cell : numpy.ndarray
        ``(3, 3)`` A.
    terms, targets, weights : numpy.ndarray
        ``(k, 5)``, ``(k,)``, ``(k,)``: harmonic distances.
    pairs, floors : numpy.ndarray
        ``(r, 5)``, ``(r,)``: repulsive below the floor.
    free : numpy.ndarray
        ``(3, 3)``, 1 for elements of the strain that change; the strain is kept symmetric.
    gradient : numpy.ndarray
        ``(m + 3, 3)``, written.
    """
    m = len(x) - 3
    f = np.empty((3, 3))
    for a in range(3):
        for b in range(3):
            f[a, b] = (1.0 if a == b else 0.0) + x[m + a, b] / scale
    gradient[:] = 0.0
    s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = 0.0
    cost = 0.0
    harmonic = len(terms)
    for p in range(harmonic + len(pairs)):
        if p < harmonic:
            i, j = terms[p, 0], terms[p, 1]
            k0, k1, k2 = terms[p, 2], terms[p, 3], terms[p, 4]
            d0, w = targets[p], weights[p]
        else:
            i, j = pairs[p - harmonic, 0], pairs[p - harmonic, 1]
            k0, k1, k2 = pairs[p - harmonic, 2], pairs[p - harmonic, 3], pairs[p - harmonic, 4]
            d0, w = floors[p - harmonic], 0.1
        u0 = x[j, 0] - x[i, 0] + k0 * cell[0, 0] + k1 * cell[1, 0] + k2 * cell[2, 0]
        u1 = x[j, 1] - x[i, 1] + k0 * cell[0, 1] + k1 * cell[1, 1] + k2 * cell[2, 1]
        u2 = x[j, 2] - x[i, 2] + k0 * cell[0, 2] + k1 * cell[1, 2] + k2 * cell[2, 2]
        r0 = u0 * f[0, 0] + u1 * f[1, 0] + u2 * f[2, 0]
        r1 = u0 * f[0, 1] + u1 * f[1, 1] + u2 * f[2, 1]
        r2 = u0 * f[0, 2] + u1 * f[1, 2] + u2 * f[2, 2]
        d = math.sqrt(r0 * r0 + r1 * r1 + r2 * r2) + 1e-12
        if p >= harmonic and d >= d0:
            continue
        cost += w * (d - d0) * (d - d0)
        g = 2.0 * w * (d - d0) / d
        g0, g1, g2 = g * r0, g * r1, g * r2
        s00 += u0 * g0
        s01 += u0 * g1
        s02 += u0 * g2
        s10 += u1 * g0
        s11 += u1 * g1
        s12 += u1 * g2
        s20 += u2 * g0
        s21 += u2 * g1
        s22 += u2 * g2
        h0 = g0 * f[0, 0] + g1 * f[0, 1] + g2 * f[0, 2]
        h1 = g0 * f[1, 0] + g1 * f[1, 1] + g2 * f[1, 2]
        h2 = g0 * f[2, 0] + g1 * f[2, 1] + g2 * f[2, 2]
        gradient[j, 0] += h0
        gradient[j, 1] += h1
        gradient[j, 2] += h2
        gradient[i, 0] -= h0
        gradient[i, 1] -= h1
        gradient[i, 2] -= h2
    gradient[m, 0] = s00 * free[0, 0] / scale
    gradient[m + 1, 1] = s11 * free[1, 1] / scale
    gradient[m + 2, 2] = s22 * free[2, 2] / scale
    gradient[m, 1] = gradient[m + 1, 0] = 0.5 * (s01 + s10) * free[0, 1] / scale
    gradient[m, 2] = gradient[m + 2, 0] = 0.5 * (s02 + s20) * free[0, 2] / scale
    gradient[m + 1, 2] = gradient[m + 2, 1] = 0.5 * (s12 + s21) * free[1, 2] / scale
    return cost


@njit(cache=True)
def minimize(
    x: np.ndarray,
    cell: np.ndarray,
    scale: float,
    terms: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    pairs: np.ndarray,
    floors: np.ndarray,
    free: np.ndarray,
    steps: int,
    tolerance: float,
) -> float:
    """Minimize the cost by L-BFGS with backtracking, in place; return it.

    Stops after `steps` evaluations or where the largest gradient is below `tolerance`, A.
    """
    size = x.size
    flat = x.reshape(-1)
    gradient, trial, new = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    g, t, h = gradient.reshape(-1), trial.reshape(-1), new.reshape(-1)
    ss, ys, rho = np.empty((MEMORY, size)), np.empty((MEMORY, size)), np.empty(MEMORY)
    alpha, direction = np.empty(MEMORY), np.empty(size)
    kept, newest = 0, 0
    cost = cost_and_gradient(x, cell, scale, terms, targets, weights, pairs, floors, free, gradient)
    done = 1
    while done < steps:
        if np.abs(g).max() < tolerance:
            break
        direction[:] = -g
        for k in range(kept):
            m = (newest - 1 - k) % MEMORY
            alpha[m] = rho[m] * np.dot(ss[m], direction)
            direction -= alpha[m] * ys[m]
        if kept > 0:
            m = (newest - 1) % MEMORY
            direction *= 1.0 / (rho[m] * np.dot(ys[m], ys[m]))
        else:
            direction *= 0.3
        for k in range(kept - 1, -1, -1):
            m = (newest - 1 - k) % MEMORY
            direction += ss[m] * (alpha[m] - rho[m] * np.dot(ys[m], direction))
        slope = np.dot(g, direction)
        longest = np.abs(direction).max()
        if slope >= 0.0:
            if kept == 0:
                break
            kept = 0
            continue
        step = min(1.0, LONGEST_STEP / longest)
        good = False
        value = cost
        for _ in range(8):
            t[:] = flat + step * direction
            value = cost_and_gradient(trial, cell, scale, terms, targets, weights, pairs, floors, free, new)
            done += 1
            if value <= cost + 1e-4 * step * slope:
                good = True
                break
            step *= 0.4
        if not good:
            if kept == 0:
                break
            kept = 0
            continue
        m = newest
        ss[m] = t - flat
        ys[m] = h - g
        curvature = np.dot(ss[m], ys[m])
        change = cost - value
        flat[:] = t
        g[:] = h
        cost = value
        if curvature > 1e-12:
            rho[m] = 1.0 / curvature
            newest = (newest + 1) % MEMORY
            kept = min(kept + 1, MEMORY)
        if change < 1e-7 * cost + 1e-13:
            break
    return cost


@njit(cache=True)
def fit_distances(
    n: int,
    scaled: np.ndarray,
    cell: np.ndarray,
    bonds: np.ndarray,
    free: np.ndarray,
    rounds: np.ndarray,
    limits: np.ndarray,
    tolerance: float,
) -> float:
    """Fit a framework to its distances; `scaled` (3 n, 3) and `cell` (3, 3) are changed in place.

    Parameters
    ----------
    n : int
        T sites; they come first.
    bonds : numpy.ndarray
        ``(2 n, 5)`` int32: i, j, shift of j.
    free : numpy.ndarray
        ``(3, 3)``, 1 where the strain is free.
    rounds : numpy.ndarray
        Steps of each round; the repulsive pairs are listed anew before each.
    limits : numpy.ndarray
        Cost per T site above which the fit ends after each round.

    Returns
    -------
    float
        Cost per T site, A^2; inf where the net is not 4-connected.
    """
    terms, targets, weights = np.empty((12 * n, 5), np.int32), np.empty(12 * n), np.empty(12 * n)
    count = framework_terms(n, bonds, terms, targets, weights)
    if count < 0:
        return np.inf
    m = len(scaled)
    pairs, floors = np.empty((60 * m, 5), np.int32), np.empty(60 * m)
    x = np.zeros((m + 3, 3))
    scale = 2.0 * math.sqrt(m)
    cost = np.inf
    for k in range(len(rounds)):
        found = repulsive_terms(n, scaled, cell, terms, count, pairs, floors)
        x[:m] = scaled @ cell
        x[m:] = 0.0
        inverse = np.linalg.inv(cell)
        cost = minimize(x, cell, scale, terms, targets, weights, pairs[:found], floors[:found], free, rounds[k], tolerance) / n
        scaled[:] = x[:m] @ inverse
        cell[:] = cell + cell @ (x[m:] / scale)
        if not cost < limits[k]:
            break
    return cost
