"""Lennard-Jones grids on a CPU with numba: vectors of eight floats along one axis of the cell.

For a line of grid points an atom (with all its images along the line) is described by three numbers: its distance from the
line, the nearest point on the line, and the range of points inside the cutoff. These are computed in float64, so that the
sharp cutoff is exact; the rest is one subtraction, one division and six products per pair in float32, on coordinates relative
to the atom. Lines extend beyond the cell on both sides and are folded back at the end.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import llvmlite.ir as ir
import numpy as np
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

WIDTH = 8  # floats per vector; LLVM splits them on machines with shorter vectors
BUCKETS = 32  # of distances: similar loop lengths of successive atoms help branch prediction
TILE = 2.4  # A, edge of a bundle of lines with a common list of atoms
SMALLEST = np.float32(0.01)  # A^2, smallest squared distance: points on atoms have large finite values
FLAGS = {'reassoc', 'contract', 'arcp', 'nsz'}
MASKS = np.repeat(np.float32([1, 0]), WIDTH)  # its windows begin with any number of ones


@intrinsic
def _element(typingctx, array, index):
    """Return a pointer to an element of a contiguous float32 array."""

    def codegen(context, builder, signature, args):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(types.float32)(array, index), codegen


@intrinsic
def _add_chord(typingctx, total, ramp, tail, end, last, square, offset, a, b):
    """Add a / r^12 - b / r^6 for the points of one chord; r^2 = square + (ramp - offset)^2 (pointers and float32).

    The vectors 0 to `last` (at least 1); the last two are multiplied by the vectors at `tail` and `end`.
    """

    def codegen(context, builder, signature, args):
        total, ramp, tail, end, last, *numbers = args
        vector, lane = ir.VectorType(ir.FloatType(), WIDTH), ir.IntType(32)
        empty = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(lane, WIDTH), [0] * WIDTH)
        square, offset, a, b = (
            builder.shuffle_vector(builder.insert_element(empty, x, ir.Constant(lane, 0)), empty, zeros) for x in numbers
        )
        total, ramp = (builder.bitcast(x, vector.as_pointer()) for x in (total, ramp))
        tail, end = (builder.load(builder.bitcast(x, vector.as_pointer()), align=4) for x in (tail, end))
        one, smallest = (ir.Constant(vector, [x] * WIDTH) for x in (1.0, float(SMALLEST)))

        def add(index, mask=None):
            fast = {'flags': ('fast',)}
            here = builder.gep(total, [index])
            t = builder.fsub(builder.load(builder.gep(ramp, [index]), align=4), offset, **fast)
            r2 = builder.fadd(builder.fmul(t, t, **fast), square, **fast)
            r2 = builder.select(builder.fcmp_ordered('>', r2, smallest, **fast), r2, smallest)
            inverse = builder.fdiv(one, r2, **fast)
            sixth = builder.fmul(inverse, builder.fmul(inverse, inverse, **fast), **fast)
            pair = builder.fmul(sixth, builder.fsub(builder.fmul(a, sixth, **fast), b, **fast), **fast)
            if mask is not None:
                pair = builder.fmul(pair, mask, **fast)
            builder.store(builder.fadd(builder.load(here, align=4), pair, **fast), here, align=4)

        before = builder.sub(last, ir.Constant(last.type, 1))
        with cgutils.for_range(builder, before) as loop:
            add(loop.index)
        add(before, tail)
        add(last, end)
        return context.get_dummy_value()

    return types.void(total, ramp, tail, end, last, square, offset, a, b), codegen


@njit(nogil=True, cache=True, fastmath=FLAGS, error_model='numpy')
def _candidates(positions, a, b, ends, images, px, py, reach, places, ca, cb, ce):
    """List the lines of atoms within `reach` of the line through (px, py), nearest first; return their number."""
    n, k = len(positions), len(images)
    bucket = np.empty(n * k, np.int32)
    starts = np.zeros(BUCKETS + 1, np.int64)
    scale = BUCKETS / (reach * reach)
    for i in range(n):
        for j in range(k):
            x, y = positions[i, 0] + images[j, 0] - px, positions[i, 1] + images[j, 1] - py
            which = (x * x + y * y) * scale
            bucket[i * k + j] = np.int32(which) if which < BUCKETS else -1
            if which < BUCKETS:
                starts[np.int32(which) + 1] += 1
    for q in range(BUCKETS):
        starts[q + 1] += starts[q]
    count = starts[BUCKETS]
    for i in range(n):
        for j in range(k):
            q = bucket[i * k + j]
            if q >= 0:
                m = starts[q]
                starts[q] += 1
                for axis in range(3):
                    places[axis, m] = positions[i, axis] + images[j, axis]
                ca[m], cb[m], ce[m] = a[i], b[i], ends[i]
    return count


@njit(nogil=True, cache=True, fastmath=FLAGS, error_model='numpy')
def _chords(x, y, z, px, py, pz, periods, step, cutoff2, squares, offsets, first, shift, count):
    """Find for each line of atoms the points of the grid line at (px, py, pz) inside the cutoff.

    In float64; `first` counts from the start of the line, `shift` from the point just below the atom.
    """
    size = x.size
    inverse, once = 1.0 / step, 1.0 / periods
    for j in range(size):
        dx, dy = x[j] - px, y[j] - py
        square = dx * dx + dy * dy
        half = np.sqrt(max(cutoff2 - square, 0.0)) * inverse
        t = (z[j] - pz) * inverse  # in steps of the grid
        t -= periods * np.floor(t * once)
        low = np.floor(t - half) + 1.0  # strictly inside
        nearest = np.floor(t)
        squares[j] = square
        offsets[j] = (t - nearest) * step
        first[j] = np.int32(low)
        shift[j] = np.int32(low - nearest)
        count[j] = np.int32(np.ceil(t + half) - low)


@njit(nogil=True, cache=True, fastmath=FLAGS, error_model='numpy')
def _sum_line(line, pad, ramp, masks, first, shift, count, squares, offsets, ca, cb, ce, shifted, work, jumps, row):
    """Sum the chords of one grid line, and fold the parts beyond the cell back into it."""
    nz, origin, last = line.size, ramp.size // 2, 1
    work[:] = np.float32(0.0)
    if shifted:  # the energy at the cutoff, once for each atom in reach: a sum of steps
        jumps[:] = 0.0
        for j in range(first.size):
            if count[j] > 0:
                jumps[first[j] + pad] -= ce[j]
                jumps[first[j] + count[j] + pad] += ce[j]
        total = 0.0
        for k in range(nz + 2 * pad):
            total += jumps[k]
            work[k] = np.float32(total)
    for j in range(first.size):
        n = count[j]
        if n > 0:
            need = (n - 1) // WIDTH
            if need > last or need < last - 1:  # rare in this order: the loop is as long as before, which is predicted
                last = max(need, 1)
            rest = last * WIDTH - n
            _add_chord(
                _element(work, first[j] + pad),
                _element(ramp, shift[j] + origin),
                _element(masks, min(max(rest, 0), WIDTH)),
                _element(masks, min(rest + WIDTH, WIDTH)),
                last,
                squares[j],
                offsets[j],
                ca[j],
                cb[j],
            )
    row[:] = np.float32(0.0)
    for begin in range(-(-pad // nz) * -nz, nz + pad, nz):  # period by period
        for k in range(max(0, -pad - begin), min(nz, nz + pad - begin)):
            row[k] += work[begin + k + pad]
    line[:] = row  # one write: points of a line may be kilobytes apart in the grid


@njit(nogil=True, cache=True, fastmath=FLAGS, error_model='numpy')
def _sum_lines(out, tiles, tile, positions, a, b, ends, images, cell, cutoff, pad, ramp, masks, shifted):
    """Fill the given tiles (m, 2) of a grid (nx, ny, nz).

    All vectors are in a frame whose third axis runs along the third cell vector.
    """
    nx, ny, nz = out.shape
    step = cell[2, 2] / nz
    most = len(positions) * len(images)
    places, ca, cb, ce = np.empty((3, most)), np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most)
    squares, offsets, numbers = np.empty(most, np.float32), np.empty(most, np.float32), np.empty((3, most), np.int32)
    work, row = np.zeros(nz + 2 * pad + 3 * WIDTH, np.float32), np.zeros(nz, np.float32)
    jumps = np.zeros(work.size)
    for m in range(len(tiles)):
        x0, y0 = tiles[m, 0], tiles[m, 1]
        x1, y1 = min(x0 + tile[0], nx), min(y0 + tile[1], ny)
        center = 0.5 * ((x0 + x1 - 1) / nx * cell[0] + (y0 + y1 - 1) / ny * cell[1])
        one, other = 0.5 * (x1 - x0 - 1) / nx * cell[0], 0.5 * (y1 - y0 - 1) / ny * cell[1]
        radius = max(math.hypot(one[0] + other[0], one[1] + other[1]), math.hypot(one[0] - other[0], one[1] - other[1]))
        size = _candidates(positions, a, b, ends, images, center[0], center[1], cutoff + radius + 1e-6, places, ca, cb, ce)
        x, y, z = places[0, :size], places[1, :size], places[2, :size]
        first, shift, count = numbers[0, :size], numbers[1, :size], numbers[2, :size]
        for ix in range(x0, x1):
            for iy in range(y0, y1):
                point = ix / nx * cell[0] + iy / ny * cell[1]
                _chords(
                    x,
                    y,
                    z,
                    point[0],
                    point[1],
                    point[2],
                    float(nz),
                    step,
                    cutoff * cutoff,
                    squares[:size],
                    offsets[:size],
                    first,
                    shift,
                    count,
                )
                _sum_line(
                    out[ix, iy], pad, ramp, masks, first, shift, count, squares, offsets, ca, cb, ce, shifted, work, jumps, row
                )


def line_frame(cell: np.ndarray) -> np.ndarray:
    """Return orthonormal rows (3, 3), the third along the third cell vector."""
    along = cell[2] / np.linalg.norm(cell[2])
    across = cell[0] - (cell[0] @ along) * along
    across /= np.linalg.norm(across)
    return np.array([across, np.cross(along, across), along])


def lateral_images(cell: np.ndarray, cutoff: float) -> np.ndarray:
    """Return the lateral shifts (k, 3) in A within reach of a cutoff, for a cell in its `line_frame`."""
    flat = cell[:2, :2]
    heights = abs(np.linalg.det(flat)) / np.linalg.norm(flat[::-1], axis=1)
    m, n = np.ceil(cutoff / heights).astype(int).tolist()
    return np.array([(i, j) for i in range(-m, m + 1) for j in range(-n, n + 1)], float) @ cell[:2]


def sum_grid(
    out: np.ndarray,
    scaled: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    cell: np.ndarray,
    cutoff: float,
    pool: ThreadPoolExecutor | None = None,
    parts: int = 1,
    shifted: bool = False,
) -> None:
    """Fill a float32 grid with the sum of a / r^12 - b / r^6 over atoms and images within the cutoff.

    Parameters
    ----------
    out : numpy.ndarray
        ``(nx, ny, nz)`` float32, overwritten.
    scaled : numpy.ndarray
        ``(n, 3)`` float64 in [0, 1), fractional positions of the interacting atoms.
    a, b : numpy.ndarray
        ``(n,)``, K A^12 and K A^6.
    cell : numpy.ndarray
        ``(3, 3)`` float64, rows, A.
    cutoff : float
        A.
    pool : ThreadPoolExecutor, optional
    parts : int
        Number of threads.
    shifted : bool
        Subtract the energy of each pair at the cutoff.
    """
    steps = np.linalg.norm(cell, axis=1) / out.shape
    # lines along the finest axis (few and long loops); of equal axes along the last one (contiguous points)
    finest = int(np.flatnonzero(steps < 1.02 * steps.min())[-1])
    order = [(finest + 1) % 3, (finest + 2) % 3, finest]
    out, steps = out.transpose(order), steps[order]
    cell = cell[order] @ line_frame(cell[order]).T
    pad = int(cutoff / steps[2]) + 2
    origin = pad + 3 * WIDTH
    ramp = (np.arange(-origin, origin + 1) * steps[2]).astype(np.float32)
    tile = np.array([min(max(round(TILE / step), 1), 16) for step in steps[:2].tolist()])
    corners = np.array([(i, j) for i in range(0, out.shape[0], tile[0]) for j in range(0, out.shape[1], tile[1])])
    rest = (
        tile,
        scaled[:, order] @ cell,
        a.astype(np.float32),
        b.astype(np.float32),
        cutoff**-6 * (np.asarray(a, float) * cutoff**-6 - np.asarray(b, float)),
        lateral_images(cell, cutoff),
        cell,
        float(cutoff),
        pad,
        ramp,
        MASKS,
        bool(shifted),
    )
    if pool is None or parts < 2:
        _sum_lines(out, corners, *rest)
    else:
        list(pool.map(lambda part: _sum_lines(out, part, *rest), np.array_split(corners, min(4 * parts, len(corners)))))


def cpu_grids(
    systems: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    shape: tuple[int, int, int],
    cutoff: float,
    threads: int | None = None,
    *,
    shifted: bool = False,
) -> Iterator[np.ndarray]:
    """Yield the float32 grids of systems ``(scaled, a, b, cell)`` one by one; threads share one structure."""
    threads = threads or available_threads()
    with ThreadPoolExecutor(threads) as pool:
        for scaled, a, b, cell in systems:
            out = np.zeros(shape, np.float32)
            if len(scaled):
                sum_grid(out, scaled, a, b, cell, cutoff, pool, threads, shifted)
            yield out


def available_threads() -> int:
    """Return OMP_NUM_THREADS if set, otherwise the number of cores of this process."""
    wanted = os.environ.get('OMP_NUM_THREADS', '')
    return int(wanted) if wanted.isdigit() and int(wanted) else len(os.sched_getaffinity(0))
