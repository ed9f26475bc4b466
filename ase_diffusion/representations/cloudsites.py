"""Sites of a crystal from the 128 rows of its cloud, many noisy copies of its atoms: equal blocks, or clusters on the torus."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from torch import Tensor

POINTS = 128
MAX_ATOMS = 16
FLOOR = 1e-3  # spread within blocks that counts as none, in units of the scaled cloud
REACH = 0.25  # A
CORE = 4  # points within reach, itself included, that make a point part of a cluster
STRETCH = 2.0  # reach in noisy clouds, in units of the usual distance to the third neighbor


def count_blocks(
    points: Tensor, species: Tensor, least: Tensor, position_scale: float, species_scale: float
) -> tuple[Tensor, Tensor]:
    """Choose the number of equal blocks of rows by the Bayesian information criterion.

    Parameters
    ----------
    points, species : (B, 128, 3) Tensor, float64
        Fractional coordinates, and species.
    least : (B,) Tensor
        Smallest number of atoms allowed.
    position_scale, species_scale : float
        Units in which the spread is measured.

    Returns
    -------
    (B,) Tensor, (B,) Tensor
        Numbers of atoms, 1 to 16, and rms spread within blocks.
    """
    numbers = 2 * points[0].numel()  # positions and species
    scores, spreads = [], []
    for n in range(1, MAX_ATOMS + 1):
        blocks, of_row = _blocks(n)
        away = points - circular_mean(points, blocks)[:, of_row]  # (B, 128, 3)
        away = (away - torch.round(away)) / position_scale
        other = (species - (blocks @ species)[:, of_row]) / species_scale
        square = (away.square().sum((1, 2)) + other.square().sum((1, 2))) / numbers
        spreads.append(square.sqrt())
        score = numbers / 2 * torch.log(square.clamp(min=FLOOR**2)) + 6 * n / 2 * np.log(numbers)
        scores.append(torch.where(n < least, torch.inf, score))
    best = torch.stack(scores).argmin(0)  # (B,)
    return best + 1, torch.stack(spreads).gather(0, best[None])[0]


def block_sites(
    points: Tensor, species: Tensor, triples: Tensor, *options: Tensor | float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return fractional coordinates (N, 3) and slots (N,) of every cloud.

    ``triples`` (B, 3) are the elements of the slots, see :func:`complete_slots`; other arguments as in :func:`count_blocks`.
    """
    counts, _ = count_blocks(points, species, *options)
    sites: list = [None] * len(points)
    for n in counts.unique().tolist():
        mine = torch.nonzero(counts == n)[:, 0]
        blocks, _ = _blocks(n)
        means = circular_mean(points[mine], blocks).numpy()
        scores = (blocks @ species[mine]).numpy()
        for k, where in enumerate(mine.tolist()):
            sites[where] = (means[k], complete_slots(scores[k], triples[where].numpy()))
    return sites


def complete_slots(scores: np.ndarray, triple: np.ndarray) -> np.ndarray:
    """Return the slots (N,) of the largest total score (N, 3) in which each element of the slots (3,) occurs, if N suffices.

    That is the likeliest assignment given that all elements occur: the highest score of every atom where none is missing.
    """
    best = scores.argmax(1)
    _, first = np.unique(triple, return_index=True)  # one slot of every element
    if set(triple[first]) - set(triple[best]):
        loss = scores[np.arange(len(scores)), best][:, None] - scores[:, first]  # (N, elements)
        atoms, places = linear_sum_assignment(loss)
        best[atoms] = first[places]
    return best


def circular_mean(points: Tensor, weights: Tensor) -> Tensor:
    """Return circular means (B, N, 3), in cells, of coordinates (B, M, 3) with weights (N, M)."""
    phase = 2 * torch.pi * points
    return torch.atan2(weights @ torch.sin(phase), weights @ torch.cos(phase)) / (2 * torch.pi)


def _blocks(n: int) -> tuple[Tensor, Tensor]:
    """Return the averages over the rows of ``n`` atoms (n, 128), float64, and the atom of every row (128,)."""
    of_row = (torch.arange(POINTS) // (POINTS // n)).clamp(max=n - 1)
    blocks = torch.nn.functional.one_hot(of_row, n).T.double()
    return blocks / blocks.sum(1, keepdim=True), of_row


def clustered_sites(
    points: np.ndarray, labels: np.ndarray, cell: np.ndarray, most: int, reach: float = REACH
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sites of one cloud by density clustering (DBSCAN) of the points of each label.

    Points with too few neighbors are dropped. The number of atoms N is the one whose 128 // N copies explain the sizes of the
    clusters best; a cluster with the copies of several atoms is divided.

    Parameters
    ----------
    points : (M, 3) array
        Fractional coordinates.
    labels : (M,) int array
        Points of different labels are never in one cluster.
    cell : (3, 3) array
        Lattice vectors in rows, A.
    most : int
        Largest number of atoms.
    reach : float
        Distance of neighbors in a clean cloud, A.

    Returns
    -------
    (N, 3) array, (N,) int array
        Fractional coordinates and labels of the sites.
    """
    away = points[:, None] - points
    away -= np.round(away)
    distances = np.where(labels[:, None] == labels, np.linalg.norm(away @ cell, axis=-1), np.inf)
    usual = np.median(np.partition(distances, CORE - 1, axis=1)[:, CORE - 1])  # to the third neighbor
    near = distances < (max(reach, STRETCH * usual) if np.isfinite(usual) else reach)
    core = near.sum(1) >= CORE
    members = [np.nonzero(core)[0][part] for part in _components(near[core][:, core])]
    if not members:
        return points[:0], labels[:0]
    shares = _shares(np.array([len(part) for part in members]), len(points), most)
    fractional, found = [], []
    for part, share in zip(members, shares, strict=True):
        for piece in _divided(points[part], int(share)):
            fractional.append(piece)
            found.append(labels[part[0]])
    return np.array(fractional).reshape(-1, 3), np.array(found, int)


def _components(near: np.ndarray) -> list[np.ndarray]:
    """Return the connected components of a matrix of neighbors (m, m) as lists of indices, in the order of their first ones."""
    if not len(near):
        return []
    number, label = connected_components(near, directed=False)
    parts = [np.nonzero(label == k)[0] for k in range(number)]
    return sorted(parts, key=lambda part: part[0])


def _shares(sizes: np.ndarray, points: int, most: int) -> np.ndarray:
    """Return the number of atoms of every cluster, by the N <= ``most`` whose copies explain the sizes best."""
    best, least = np.ones(len(sizes), int), np.inf
    for n in range(1, most + 1):
        copies = points // n
        shares = np.round(sizes / copies).astype(int)
        extra = points - n * copies  # more copies of the last atom
        shares[-1] = max(1, round((sizes[-1] - extra) / copies))  # clusters come in the order of the rows, labels aside
        misfit = np.abs(sizes - shares * copies)
        misfit[-1] = abs(sizes[-1] - shares[-1] * copies - extra)
        cost = misfit.sum() + points * abs(shares.sum() - n)
        if cost < least:
            best, least = shares, cost
    return best


def _divided(points: np.ndarray, share: int, rounds: int = 10) -> list[np.ndarray]:
    """Return the centers (3,) of ``share`` parts of a cluster (m, 3): k-means on the torus, from the farthest points."""
    if share == 0:
        return []
    centers = [points[0]]
    for _ in range(share - 1):
        away = points[:, None] - np.array(centers)
        centers.append(points[np.linalg.norm(away - np.round(away), axis=-1).min(1).argmax()])
    centers = np.array(centers)
    for _ in range(rounds if share > 1 else 1):
        away = points[:, None] - centers
        away -= np.round(away)
        mine = np.linalg.norm(away, axis=-1).argmin(1) if share > 1 else np.zeros(len(points), int)
        for k in range(share):
            if (mine == k).any():
                centers[k] = centers[k] + away[mine == k, k].mean(0)
    return list(centers)
