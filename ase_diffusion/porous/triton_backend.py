"""Lennard-Jones grids on an NVIDIA GPU: one fused Triton kernel for a batch of structures.

A program fills a bundle of lines and loops over all atoms and images of its structure; only the grids are written.
Same arithmetic as in `numba_backend`: the cutoff in float64 for each line and atom, the pairs in float32.

Without a GPU the program runs in the interpreter of Triton: ``TRITON_INTERPRET=1 pytest tests/porous/test_triton.py``.
"""

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

X, Y, Z = 4, 2, 32  # lines across and points along a line of one program; powers of two
NUMBERS = 12  # per structure, see `_describe`


@triton.jit
def _fill(
    out, places, a, b, starts, numbers, nx, ny, nz, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, NUMBERS: tl.constexpr
):
    """Fill a bundle of X x Y lines of Z points of the grid of one structure."""
    structure, bundle = tl.program_id(0), tl.program_id(1)
    tiles_y, tiles_z = tl.cdiv(ny, Y), tl.cdiv(nz, Z)
    x0, y0, z0 = bundle // (tiles_y * tiles_z) * X, bundle // tiles_z % tiles_y * Y, bundle % tiles_z * Z
    own = numbers + structure.to(tl.int64) * NUMBERS
    ax, az, bx, by, bz = tl.load(own), tl.load(own + 1), tl.load(own + 2), tl.load(own + 3), tl.load(own + 4)
    length, step, radius, spread = tl.load(own + 5), tl.load(own + 6), tl.load(own + 7), tl.load(own + 8)
    cutoff = tl.load(own + 11)  # an argument would arrive in float32
    reach_a, reach_b = tl.load(own + 9).to(tl.int32), tl.load(own + 10).to(tl.int32)

    line = tl.arange(0, X * Y)
    ix, iy = x0 + line // Y, y0 + line % Y  # (X Y,)
    fx, fy = ix.to(tl.float64) / nx, iy.to(tl.float64) / ny
    px, py, pz = fx * ax + fy * bx, fy * by, fx * az + fy * bz
    gx, gy = (x0 + 0.5 * (X - 1)).to(tl.float64) / nx, (y0 + 0.5 * (Y - 1)).to(tl.float64) / ny
    cx, cy, cz = gx * ax + gy * bx, gy * by, gx * az + gy * bz + z0 * step
    k = z0 + tl.arange(0, Z)  # (Z,)
    last = tl.minimum(Z, nz - z0) - 1
    step32 = step.to(tl.float32)
    total = tl.zeros((X * Y, Z), tl.float32)
    for atom in range(tl.load(starts + structure), tl.load(starts + structure + 1)):
        sx, sy, sz = tl.load(places + 3 * atom), tl.load(places + 3 * atom + 1), tl.load(places + 3 * atom + 2)
        repulsion, attraction = tl.load(a + atom), tl.load(b + atom)
        for i in range(-reach_a, reach_a + 1):
            for j in range(-reach_b, reach_b + 1):
                qx, qy, qz = sx + i * ax + j * bx, sy + j * by, sz + i * az + j * bz
                apart = tl.sqrt((qx - cx) * (qx - cx) + (qy - cy) * (qy - cy)) - radius
                if apart < cutoff:
                    widest = tl.sqrt(cutoff * cutoff - tl.maximum(apart, 0.0) * tl.maximum(apart, 0.0)) + spread
                    first = tl.ceil((cz - widest - qz) / length).to(tl.int32)
                    end = tl.floor((cz + last * step + widest - qz) / length).to(tl.int32) + 1
                    square = (qx - px) * (qx - px) + (qy - py) * (qy - py)  # (X Y,) float64
                    half = tl.sqrt(tl.maximum(cutoff * cutoff - square, 0.0)) / step
                    near = square.to(tl.float32)[:, None]
                    for m in range(first, end):
                        t = (qz + m * length - pz) / step  # (X Y,) in points of the line
                        low, high = tl.floor(t - half), tl.ceil(t + half)  # the first points outside
                        below = tl.floor(t)
                        offset = ((t - below) * step).to(tl.float32)
                        d = (k[None, :] - below.to(tl.int32)[:, None]).to(tl.float32) * step32 - offset[:, None]
                        inside = (k[None, :] > low.to(tl.int32)[:, None]) & (k[None, :] < high.to(tl.int32)[:, None])
                        inverse = 1.0 / tl.maximum(near + d * d, 0.01)
                        sixth = inverse * inverse * inverse
                        total += tl.where(inside, sixth * (repulsion * sixth - attraction), 0.0)
    place = ((structure.to(tl.int64) * nx + ix) * ny + iy)[:, None] * nz + k[None, :]
    tl.store(out + place, total, mask=((ix < nx) & (iy < ny))[:, None] & (k < nz)[None, :])


def _describe(cells, shape, cutoff):
    """Return the boxes (B, 3, 3) in frames with c along the third axis and a in the plane of the first, and NUMBERS (B, 12)."""
    along = cells[:, 2] / np.linalg.norm(cells[:, 2], axis=-1, keepdims=True)
    across = cells[:, 0] - (cells[:, 0] * along).sum(-1, keepdims=True) * along
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    box = cells @ np.stack([across, np.cross(along, across), along], 1).transpose(0, 2, 1)
    one, other = box[:, 0] * (X - 1) / 2 / shape[0], box[:, 1] * (Y - 1) / 2 / shape[1]
    corners = np.abs(np.stack([one + other, one - other]))  # (2, B, 3)
    flat = box[:, :2, :2]
    area = np.abs(np.linalg.det(flat))[:, None]
    reach = np.ceil(cutoff * np.linalg.norm(flat[:, ::-1], axis=-1) / area + 1e-9) + 1  # one more: a bundle may hang over
    length = box[:, 2, 2]
    numbers = [
        box[:, 0, 0],
        box[:, 0, 2],
        box[:, 1, 0],
        box[:, 1, 1],
        box[:, 1, 2],
        length,
        length / shape[2],
        np.linalg.norm(corners[..., :2], axis=-1).max(0) + 1e-6,
        corners[..., 2].max(0) + 1e-6,
        *reach.T,
        np.full(len(cells), float(cutoff)),
    ]
    return box, np.stack(numbers, -1)


def triton_grids(
    systems: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    shape: tuple[int, int, int],
    cutoff: float,
    device: str | torch.device,
) -> torch.Tensor:
    """Return the grids (B, nx, ny, nz) of systems ``(scaled, a, b, cell)``, a float32 tensor on the device."""
    cells = np.stack([cell for *_, cell in systems])
    box, numbers = _describe(cells, shape, cutoff)
    places = np.concatenate([scaled @ one for (scaled, *_), one in zip(systems, box, strict=True)])
    starts = np.cumsum([0, *(len(scaled) for scaled, *_ in systems)])

    def send(array, dtype):
        return torch.as_tensor(np.ascontiguousarray(array, dtype), device=device)

    a, b = (send(np.concatenate([system[k] for system in systems]), np.float32) for k in (1, 2))
    out = torch.empty((len(systems), *shape), dtype=torch.float32, device=device)
    bundles = triton.cdiv(shape[0], X) * triton.cdiv(shape[1], Y) * triton.cdiv(shape[2], Z)
    arguments = (send(places, np.float64), a, b, send(starts, np.int32), send(numbers, np.float64))
    _fill[(len(systems), bundles)](out, *arguments, *shape, X=X, Y=Y, Z=Z, NUMBERS=NUMBERS, num_warps=1)
    return out
