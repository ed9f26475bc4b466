"""Nets of tetrahedral sites in periodic cells: neighbors, 4-connected nets, coordination sequences, connectivity.

A 4-connected net of n sites is a pair of integer arrays: ``neighbors`` (n, 4), and ``shifts`` (n, 4, 3), the lattice
translation of each neighbor. Positions are fractional, cells have their vectors as rows, in A.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ['angle_cycles', 'coordination_sequences', 'four_connected_net', 'framework_net', 'is_connected', 'net_hash', 'net_key']

Net = tuple[np.ndarray, np.ndarray]  # neighbors (n, 4) and shifts (n, 4, 3), int32

BOND_RANGE = (2.5, 3.9)  # A, T-T distance of a bond; IZA frameworks: 2.8 to 3.4
SHELLS = 10
CYCLE_SHELLS = 9  # of the shortest cycles: up to 18 sites
KEY_SHELLS = 14  # of coordination sequences in a key; 10 do not tell SBS from SBT


@njit(cache=True)
def cell_heights(cell: np.ndarray) -> np.ndarray:
    """Return the distances (3,) between opposite faces of a cell, A."""
    heights = np.empty(3)
    for k in range(3):
        a, b = cell[(k + 1) % 3], cell[(k + 2) % 3]
        x = a[1] * b[2] - a[2] * b[1]
        y = a[2] * b[0] - a[0] * b[2]
        z = a[0] * b[1] - a[1] * b[0]
        heights[k] = abs(x * cell[k, 0] + y * cell[k, 1] + z * cell[k, 2]) / math.sqrt(x * x + y * y + z * z)
    return heights


@njit(cache=True)
def neighbor_pairs(scaled: np.ndarray, cell: np.ndarray, cutoff: float, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """List all pairs of sites with all images nearer than a cutoff, each pair once.

    Parameters
    ----------
    scaled : numpy.ndarray
        ``(n, 3)`` fractional, inside the cell or not.
    cell : numpy.ndarray
        ``(3, 3)`` A.
    cutoff : float
        A.
    limit : int
        Largest number of pairs; what is beyond is dropped.

    Returns
    -------
    pairs : numpy.ndarray
        ``(m, 5)`` int32: i <= j, and the shift of j. A site and its own image come once.
    distances : numpy.ndarray
        ``(m,)`` A.
    """
    n = len(scaled)
    heights = cell_heights(cell)
    reach = np.empty(3, np.int64)
    for k in range(3):
        reach[k] = int(math.floor(cutoff / heights[k] + 0.5))
    pairs = np.empty((limit, 5), np.int32)
    distances = np.empty(limit)
    count = 0
    square = cutoff * cutoff
    for i in range(n):
        for j in range(i, n):
            u0, u1, u2 = scaled[j, 0] - scaled[i, 0], scaled[j, 1] - scaled[i, 1], scaled[j, 2] - scaled[i, 2]
            s0, s1, s2 = -round(u0), -round(u1), -round(u2)
            for a in range(s0 - reach[0], s0 + reach[0] + 1):
                f0 = u0 + a
                if abs(f0) * heights[0] > cutoff:
                    continue
                for b in range(s1 - reach[1], s1 + reach[1] + 1):
                    f1 = u1 + b
                    if abs(f1) * heights[1] > cutoff:
                        continue
                    for c in range(s2 - reach[2], s2 + reach[2] + 1):
                        if i == j and (a < 0 or (a == 0 and (b < 0 or (b == 0 and c <= 0)))):
                            continue
                        f2 = u2 + c
                        x = f0 * cell[0, 0] + f1 * cell[1, 0] + f2 * cell[2, 0]
                        y = f0 * cell[0, 1] + f1 * cell[1, 1] + f2 * cell[2, 1]
                        z = f0 * cell[0, 2] + f1 * cell[1, 2] + f2 * cell[2, 2]
                        r2 = x * x + y * y + z * z
                        if r2 < square and count < limit:
                            pairs[count, 0], pairs[count, 1] = i, j
                            pairs[count, 2], pairs[count, 3], pairs[count, 4] = a, b, c
                            distances[count] = math.sqrt(r2)
                            count += 1
    return pairs[:count], distances[:count]


@njit(cache=True)
def nearest_four(n: int, pairs: np.ndarray, distances: np.ndarray, longest: float) -> Net:
    """Return the four nearest neighbors of each site.

    Returns
    -------
    neighbors, shifts : numpy.ndarray
        ``(n, 4)`` and ``(n, 4, 3)`` int32; -1 where there are fewer than four below `longest`.
    """
    neighbors = np.full((n, 4), -1, np.int32)
    shifts = np.zeros((n, 4, 3), np.int32)
    nearest = np.full((n, 4), longest)
    for p in range(len(pairs)):
        d = distances[p]
        for side in range(2):
            i, j, sign = pairs[p, side], pairs[p, 1 - side], 1 - 2 * side
            if d >= nearest[i, 3]:
                continue
            k = 3
            while k > 0 and nearest[i, k - 1] > d:
                nearest[i, k], neighbors[i, k], shifts[i, k] = nearest[i, k - 1], neighbors[i, k - 1], shifts[i, k - 1]
                k -= 1
            nearest[i, k], neighbors[i, k] = d, j
            for axis in range(3):
                shifts[i, k, axis] = sign * pairs[p, 2 + axis]
    return neighbors, shifts


@njit(cache=True)
def is_mutual(neighbors: np.ndarray, shifts: np.ndarray) -> bool:
    """Tell whether every bond of a net is listed at both of its ends."""
    for i in range(len(neighbors)):
        for k in range(4):
            j = neighbors[i, k]
            if j < 0:
                return False
            found = False
            for m in range(4):
                if neighbors[j, m] == i and (shifts[j, m] == -shifts[i, k]).all():
                    found = True
            if not found:
                return False
    return True


@njit(cache=True)
def is_connected(neighbors: np.ndarray, shifts: np.ndarray) -> bool:
    """Tell whether a net is one piece, periodic in three dimensions (not layers, chains, clusters or several nets).

    The sum of the shifts around closed paths spans a lattice; the net is one piece where it is that of the cell.
    """
    n = len(neighbors)
    place = np.zeros((n, 3), np.int64)
    seen = np.zeros(n, np.bool_)
    queue = np.empty(n, np.int64)
    queue[0], seen[0], size = 0, True, 1
    k = 0
    while k < size:
        i = queue[k]
        for m in range(4):
            j = neighbors[i, m]
            if not seen[j]:
                seen[j], queue[size] = True, j
                place[j] = place[i] + shifts[i, m]
                size += 1
        k += 1
    if size < n:
        return False
    basis = np.zeros((3, 3), np.int64)  # row echelon form of the closed paths
    vector = np.empty(3, np.int64)
    for i in range(n):
        for m in range(4):
            vector[:] = place[i] + shifts[i, m] - place[neighbors[i, m]]
            for row in range(3):
                while vector[row] != 0:  # Euclid's algorithm on one column
                    if basis[row, row] == 0:
                        basis[row] = vector
                        vector[:] = 0
                        break
                    q = vector[row] // basis[row, row]
                    vector -= q * basis[row]
                    if vector[row] != 0:
                        for axis in range(3):
                            basis[row, axis], vector[axis] = vector[axis], basis[row, axis]
    return abs(basis[0, 0] * basis[1, 1] * basis[2, 2]) == 1


@njit(cache=True)
def sequences_of(
    neighbors: np.ndarray, shifts: np.ndarray, sites: np.ndarray, shells: int, reach: int, stamp: np.ndarray, first: int
) -> np.ndarray:
    """Return the numbers (len(sites), shells) of sites in each shell around the given ones.

    Shifts are at most `reach` cells after all shells; `stamp` (n (2 reach + 1)^3,) int32 is a scratch array in which no
    element is in the range from `first` to first + len(sites).
    """
    width = 2 * reach + 1
    found = np.zeros((len(sites), shells), np.int32)
    queue = np.empty((4000, 4), np.int32)
    for place in range(len(sites)):
        s = first + place
        queue[0, 0] = sites[place]
        queue[0, 1:] = reach
        stamp[((sites[place] * width + reach) * width + reach) * width + reach] = s
        begin, end = 0, 1
        for shell in range(shells):
            size = end
            for k in range(begin, end):
                i = queue[k, 0]
                for m in range(4):
                    j = neighbors[i, m]
                    x, y, z = queue[k, 1] + shifts[i, m, 0], queue[k, 2] + shifts[i, m, 1], queue[k, 3] + shifts[i, m, 2]
                    cell = ((j * width + x) * width + y) * width + z
                    if stamp[cell] != s:
                        stamp[cell] = s
                        if size == len(queue):
                            queue = np.concatenate((queue, np.empty_like(queue)))
                        queue[size, 0], queue[size, 1], queue[size, 2], queue[size, 3] = j, x, y, z
                        size += 1
            begin, end = end, size
            found[place, shell] = end - begin
    return found


def four_connected_net(scaled: np.ndarray, cell: np.ndarray, bond_range: tuple[float, float] = BOND_RANGE) -> Net | None:
    """Return the net of sites in which the four nearest neighbors of each are its bonds, or None.

    Parameters
    ----------
    scaled : numpy.ndarray
        ``(n, 3)`` fractional.
    cell : numpy.ndarray
        ``(3, 3)`` A, or three lengths.
    bond_range : (float, float)
        A; all bonds lie inside.

    Returns
    -------
    (neighbors, shifts) or None
        ``(n, 4)`` and ``(n, 4, 3)`` int32. None where a site lacks four neighbors inside the range, has one below it, or two
        sites disagree on whether they are neighbors.
    """
    cell = full_cell(cell)
    scaled = np.ascontiguousarray(scaled, float)
    pairs, distances = neighbor_pairs(scaled, cell, float(bond_range[1]), 40 * len(scaled) + 100)
    if not len(distances) or distances.min() < bond_range[0]:
        return None
    net = nearest_four(len(scaled), pairs, distances, float(bond_range[1]))
    return net if is_mutual(*net) else None


def _parts(net: Net) -> Net:
    """Return neighbors and shifts; raise a TypeError for what is no net."""
    try:
        neighbors, shifts = (np.asarray(part) for part in net)
        good = neighbors.shape[1:] == (4,) and shifts.shape == (*neighbors.shape, 3) and neighbors.dtype.kind in 'iu'
    except (TypeError, ValueError):
        good = False
    if not good:
        raise TypeError(
            f'a net is a pair of integer arrays (neighbors (n, 4), shifts (n, 4, 3)), such as framework_net(atoms.numbers, '
            f'atoms.get_scaled_positions(), atoms.cell) of ase_diffusion.porous.nets returns; got {type(net).__name__}'
        )
    return neighbors, shifts


def coordination_sequences(net: Net, shells: int = SHELLS, sites: ArrayLike | None = None) -> np.ndarray:
    """Return how many sites are 1, 2, ... bonds away from each site.

    Parameters
    ----------
    net : (neighbors, shifts)
        Of `four_connected_net`, or the net of a framework, of `framework_net`.
    shells : int
    sites : sequence of int, optional
        Only of these sites.

    Returns
    -------
    numpy.ndarray
        ``(n, shells)`` int32; 4, 10, 20, 34, 52, ... for sodalite.

    Raises
    ------
    TypeError
        ``net`` is none: a structure, or what is returned where there is no net.
    """
    neighbors, shifts = _parts(net)
    sites = np.arange(len(neighbors)) if sites is None else np.asarray(sites, np.int64)
    reach = shells * max(1, int(np.abs(shifts).max()))
    stamp = np.full(len(neighbors) * (2 * reach + 1) ** 3, -1, np.int32)
    return sequences_of(neighbors, shifts, sites, shells, reach, stamp, 0)


@njit(cache=True)
def _cycles_of(neighbors, shifts, shells, stamp):
    """Return size and number of the shortest cycles through the six angles of each site, (n, 6, 2); 0 where none was found."""
    n, width = len(neighbors), 2 * shells + 1
    found = np.zeros((n, 6, 2), np.int64)
    nodes = np.empty((6000, 4), np.int32)
    near = np.empty((6000, 4), np.int32)  # neighbors of the nodes, -1 outside
    depth, paths, queue = np.empty(6000, np.int32), np.empty(6000, np.int64), np.empty(6000, np.int32)
    for site in range(n):
        nodes[0, 0] = site
        nodes[0, 1:] = shells
        stamp[((site * width + shells) * width + shells) * width + shells] = 0
        size, begin = 1, 0
        for shell in range(shells + 1):  # the last round finds neighbors only
            end = size
            for k in range(begin, end):
                i = nodes[k, 0]
                for m in range(4):
                    x, y, z = nodes[k, 1] + shifts[i, m, 0], nodes[k, 2] + shifts[i, m, 1], nodes[k, 3] + shifts[i, m, 2]
                    near[k, m] = -1
                    if not (0 <= x < width and 0 <= y < width and 0 <= z < width):
                        continue
                    cell = ((neighbors[i, m] * width + x) * width + y) * width + z
                    if stamp[cell] < 0 and shell < shells and size < len(nodes):
                        stamp[cell] = size
                        nodes[size, 0], nodes[size, 1], nodes[size, 2], nodes[size, 3] = neighbors[i, m], x, y, z
                        size += 1
                    near[k, m] = stamp[cell]
            begin = end
        angle = 0
        for p in range(4):
            for q in range(p):
                start, goal = near[0, p], near[0, q]
                depth[:size] = -1
                depth[0] = 0  # no path leads through the site
                depth[start], paths[start], queue[0] = 0, 1, start
                first, last = 0, 1
                while first < last and depth[goal] < 0:
                    level = depth[queue[first]]
                    while first < last and depth[queue[first]] == level:
                        k = queue[first]
                        first += 1
                        for m in range(4):
                            j = near[k, m]
                            if j <= 0:
                                continue
                            if depth[j] < 0:
                                depth[j], paths[j], queue[last] = level + 1, 0, j
                                last += 1
                            if depth[j] == level + 1:
                                paths[j] += paths[k]
                if depth[goal] > 0:
                    found[site, angle, 0], found[site, angle, 1] = depth[goal] + 2, paths[goal]
                angle += 1
        for k in range(size):
            stamp[((nodes[k, 0] * width + nodes[k, 1]) * width + nodes[k, 2]) * width + nodes[k, 3]] = -1
    return found


def angle_cycles(net: Net, shells: int = CYCLE_SHELLS) -> np.ndarray:
    """Return the shortest cycles through the six angles of each site.

    Vertex symbols list the same of rings, cycles without shortcuts, and are equal where the shortest cycles are such.

    Parameters
    ----------
    net : (neighbors, shifts)
    shells : int
        Cycles of up to twice as many sites are found.

    Returns
    -------
    numpy.ndarray
        ``(n, 6, 2)``: size and number of the cycles, sorted; 6, 6, 6_2, 6_2, 8_9, 8_9 for quartz (7 of the 9 are rings). Zeros
        where none was found.
    """
    neighbors, shifts = _parts(net)
    shells = int(shells)
    stamp = np.full(len(neighbors) * (2 * shells + 1) ** 3, -1, np.int32)
    found = _cycles_of(neighbors, shifts, shells, stamp)
    codes = np.sort(found[..., 0] * 10**6 + np.minimum(found[..., 1], 10**6 - 1), 1)
    return np.stack([codes // 10**6, codes % 10**6], -1)


def net_key(net: Net) -> int:
    """Return a 64-bit integer of coordination sequences and shortest cycles, equal for equal nets whatever their cell."""
    rows = np.concatenate([coordination_sequences(net, KEY_SHELLS), angle_cycles(net).reshape(len(net[0]), -1)], 1)
    return net_hash(rows)


def net_hash(sequences: ArrayLike, weights: ArrayLike | None = None) -> int:
    """Return a 64-bit integer that is equal for nets of equal coordination sequences, whatever their cell.

    Parameters
    ----------
    sequences : array_like
        ``(n, shells)`` of all sites, or of one site of each orbit.
    weights : array_like, optional
        ``(n,)`` number of sites in each orbit.

    Raises
    ------
    TypeError
        ``sequences`` is no such array.
    """
    given = sequences
    try:
        sequences = np.asarray(sequences).astype(np.int64, casting='safe')
    except (TypeError, ValueError):
        sequences = np.empty(0)
    if sequences.ndim != 2:
        raise TypeError(f'sequences is an integer array (n, shells), of coordination_sequences; got {type(given).__name__}')
    weights = np.ones(len(sequences), np.int64) if weights is None else np.asarray(weights, np.int64)
    rows, places = np.unique(sequences, axis=0, return_inverse=True)
    counts = np.bincount(places.ravel(), weights=weights).astype(np.int64)
    counts //= np.gcd.reduce(counts)
    data = np.column_stack([rows, counts]).astype('<i8').tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'little')


def full_cell(cell: ArrayLike) -> np.ndarray:
    """Return a cell (3, 3) of float64 for a cell, three lengths or a structure."""
    cell = np.asarray(getattr(cell, 'cell', cell), float)
    return np.ascontiguousarray(np.diag(cell) if cell.ndim == 1 else cell)


@njit(cache=True)
def bonds_of(
    silicon: np.ndarray, scaled: np.ndarray, cell: np.ndarray, shortest: float, longest: float, apart: float
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return a code (0 is good), and for each O its two Si (m, 2) and their shifts (m, 2, 3).

    The numbers of Si come before those of O; code 1: no bond in the range, 2: Si without 4 O, 3: O without 2 Si, 4: too near.
    """
    m = len(scaled)
    ends, shifts = np.full((m, 2), -1, np.int32), np.zeros((m, 2, 3), np.int32)
    filled = np.zeros(m, np.int64)
    pairs, distances = neighbor_pairs(scaled, cell, apart, 30 * m + 30)
    code = 0
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        if silicon[i] == silicon[j] or distances[p] < shortest:
            code = max(code, 4)
            continue
        if distances[p] > longest:
            code = max(code, 1)
            continue
        sign = 1
        if not silicon[i]:
            i, j, sign = j, i, -1
        filled[i] += 1
        if filled[j] < 2:
            ends[j, filled[j]] = i
            for axis in range(3):
                shifts[j, filled[j], axis] = -sign * pairs[p, 2 + axis]
        filled[j] += 1
    for i in range(m):
        if silicon[i] and filled[i] != 4:
            code = max(code, 2)
        elif not silicon[i] and filled[i] != 2:
            code = max(code, 3)
    return code, ends, shifts


FAULTS = (
    None,
    'a Si-O distance out of range',
    'a Si without four O',
    'an O without two Si',
    'two atoms too near',
)
SIO_RANGE = (1.45, 1.80)  # A
NOTHING_ELSE = 2.2  # A, no other pair is nearer


def framework_net(numbers: ArrayLike, scaled: ArrayLike, cell: ArrayLike) -> Net | str:
    """Return the net of the Si of a framework.

    Parameters
    ----------
    numbers : array_like
        ``(m,)`` atomic numbers, 14 and 8.
    scaled, cell : array_like
        ``(m, 3)`` fractional, ``(3, 3)`` A.

    Returns
    -------
    (neighbors, shifts) or str
        The net of the Si in their order, or the law that is broken: a phrase of `FAULTS`.
    """
    silicon = np.asarray(numbers) == 14
    cell, scaled = full_cell(cell), np.ascontiguousarray(scaled, float)
    code, ends, shifts = bonds_of(silicon, scaled, cell, *SIO_RANGE, NOTHING_ELSE)
    if code:
        return FAULTS[code]
    place = np.cumsum(silicon) - 1
    bonds = np.flatnonzero(~silicon)
    first, second = place[ends[bonds, 0]], place[ends[bonds, 1]]
    across = shifts[bonds, 1] - shifts[bonds, 0]
    here, there, shift = np.r_[first, second], np.r_[second, first], np.concatenate([across, -across])
    order = np.argsort(here, kind='stable')
    n = int(silicon.sum())
    return there[order].reshape(n, 4).astype(np.int32), shift[order].reshape(n, 4, 3).astype(np.int32)
