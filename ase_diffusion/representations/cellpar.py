"""Lengths and angles of many cells at once."""

from __future__ import annotations

import numpy as np


def cell_parameters(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lengths (B, 3) in A, angles (B, 3) in degrees and handedness (B,), 1 or -1, of cells (B, 3, 3)."""
    lengths = np.linalg.norm(cells, axis=-1)
    unit = cells / lengths[..., None]
    pairs = ((1, 2), (0, 2), (0, 1))
    # the half angle from sum and difference of unit vectors is accurate at all angles, the arc cosine is not
    angles = np.stack(
        [
            2 * np.arctan2(np.linalg.norm(unit[:, i] - unit[:, j], axis=-1), np.linalg.norm(unit[:, i] + unit[:, j], axis=-1))
            for i, j in pairs
        ],
        -1,
    )
    return lengths, np.degrees(angles), np.where(np.linalg.det(cells) < 0, -1.0, 1.0)


def cells_of_parameters(lengths: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower triangular cells (B, 3, 3) in A of lengths (B, 3) and angles (B, 3) in degrees, and which have a volume."""
    cos_a, cos_b, cos_c = np.cos(np.radians(angles)).T
    sin_c = np.sin(np.radians(angles[:, 2]))
    with np.errstate(all='ignore'):
        y = (cos_a - cos_b * cos_c) / sin_c
        z = np.sqrt(1 - cos_b**2 - y**2)
        zero, one = np.zeros_like(z), np.ones_like(z)
        unit = np.stack([one, zero, zero, cos_c, sin_c, zero, cos_b, y, z], -1).reshape(-1, 3, 3)
        solid = (z * sin_c > 1e-4) & ((angles > 0) & (angles < 180)).all(-1) & ((lengths > 0.1) & (lengths < 1e3)).all(-1)
    return np.where(solid[:, None, None], unit * lengths[..., None], np.eye(3)), solid
