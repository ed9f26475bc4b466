"""Neighbour graphs against ASE's neighbour list."""

from collections import Counter

import ase.neighborlist
import numpy as np
import pytest
import torch
from ase import Atoms

from ase_diffusion.networks import neighbors
from ase_diffusion.networks.neighbors import build_graph

CUTOFF = 4.3
PATHS = ['brute', 'chunks', 'large']


@pytest.fixture(params=PATHS)
def way(request, monkeypatch):
    """Every test of a graph runs through brute force, brute force in small chunks, and matscipy."""
    if request.param == 'chunks':
        monkeypatch.setattr(neighbors, '_CHUNK', 500)
    if request.param == 'large':
        monkeypatch.setattr(neighbors, '_BRUTE_FORCE_LIMIT', 0)
    return request.param


def structure(seed, n=9, scale=5.0, pbc=(True, True, False)):
    """Atoms in a random skewed cell, some of them outside of it."""
    rng = np.random.default_rng(seed)
    while True:
        cell = np.eye(3) * scale + rng.uniform(-0.45, 0.45, (3, 3)) * scale
        if np.linalg.det(cell) > 0.3 * scale**3:
            break
    return Atoms('Ag' * n, scaled_positions=rng.uniform(-1.2, 2.2, (n, 3)), cell=cell, pbc=pbc)


def edges(images, active, cutoff, passive_edges, dtype=torch.float64):
    """Edges as build_graph finds them: structure, receiver and sender as numbered there, rounded vector."""
    first = [np.arange(len(a)) < k for a, k in zip(images, active, strict=True)]
    order = [(s, i) for s, mask in enumerate(first) for i in np.nonzero(mask)[0]]
    order += [(s, i) for s, mask in enumerate(first) for i in np.nonzero(~mask)[0]]
    positions = torch.tensor(np.array([images[s].positions[i] for s, i in order]), dtype=dtype)
    rows = torch.tensor([s for s, _ in order])
    cell = torch.tensor(np.array([a.cell[:] for a in images]), dtype=dtype)
    graph = build_graph(positions, rows, cell, images[0].pbc.tolist(), cutoff, sum(active), passive_edges=passive_edges)
    assert (graph.receivers[: graph.n_active_edges] < sum(active)).all()
    assert (graph.receivers[graph.n_active_edges :] >= sum(active)).all()
    found = Counter()
    for i, j, v in zip(graph.receivers.tolist(), graph.senders.tolist(), graph.vectors.numpy(), strict=True):
        assert order[i][0] == order[j][0]
        found[(*order[i], order[j][1], *np.round(v, 5) + 0.0)] += 1
    return found


def expected(images, active, cutoff, passive_edges):
    """The same from ASE."""
    found = Counter()
    for s, (atoms, k) in enumerate(zip(images, active, strict=True)):
        for i, j, v in zip(*ase.neighborlist.neighbor_list('ijD', atoms, cutoff), strict=True):
            if passive_edges or i < k or j < k:
                found[(s, i, j, *np.round(v, 5) + 0.0)] += 1
    return found


@pytest.mark.parametrize('passive_edges', [True, False])
@pytest.mark.parametrize('pbc', [(True, True, False), (True, True, True), (False, True, False), (False, False, False)])
def test_random_skewed_cells(way, pbc, passive_edges):
    images = [structure(seed, pbc=pbc) for seed in range(3)]
    assert edges(images, [4, 9, 1], CUTOFF, passive_edges) == expected(images, [4, 9, 1], CUTOFF, passive_edges)


@pytest.mark.parametrize('passive_edges', [True, False])
def test_cells_smaller_than_the_cutoff_have_many_images(way, passive_edges):
    images = [structure(seed, n=2, scale=2.0) for seed in range(2)]
    found = edges(images, [1, 1], CUTOFF, passive_edges)
    assert found == expected(images, [1, 1], CUTOFF, passive_edges)
    assert any(i == j for _, i, j, *_ in found)  # an atom neighbors its own image


def test_structures_of_different_size_share_a_batch(way):
    images = [structure(seed, n, scale) for seed, (n, scale) in enumerate([(3, 5.0), (17, 7.0), (1, 3.0), (8, 2.5)])]
    active = [3, 5, 1, 2]
    assert edges(images, active, CUTOFF, False) == expected(images, active, CUTOFF, False)
    one_by_one = sum((edges([a], [k], CUTOFF, False) for a, k in zip(images, active, strict=True)), Counter())
    together = Counter({(0, *key[1:]): n for key, n in edges(images, active, CUTOFF, False).items()})
    assert together == one_by_one


def test_atoms_far_above_a_slab(way):
    """Nothing wraps along a direction that is not periodic, wherever the atoms are."""
    atoms = structure(5, n=4)
    atoms.positions[0, 2] += 40.0
    atoms.positions[1, 2] -= 40.0
    atoms.positions[2] = atoms.positions[0] + [0.3, 0.1, 1.0]
    assert edges([atoms], [2], CUTOFF, False) == expected([atoms], [2], CUTOFF, False)


def test_whole_cells_do_not_matter(way):
    atoms = structure(6)
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).integers(-3, 4, (len(atoms), 2)) @ atoms.cell[:2]
    assert edges([atoms], [4], CUTOFF, False) == edges([moved], [4], CUTOFF, False)


def test_vectors_are_differentiable(way):
    atoms = structure(7)
    x = torch.tensor(atoms.positions, requires_grad=True)
    graph = build_graph(
        x,
        torch.zeros(len(atoms), dtype=torch.long),
        torch.tensor(atoms.cell[:])[None],
        (True, True, False),
        CUTOFF,
        len(atoms),
        passive_edges=True,
    )
    weight = torch.randn(len(graph.senders), 3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((graph.vectors * weight).sum(), x)
    by_hand = torch.zeros_like(x).index_add(0, graph.senders, weight).index_add(0, graph.receivers, -weight)
    assert torch.allclose(gradient, by_hand)


def test_float32_finds_the_same_edges(way):
    """But for pairs within rounding of the cutoff, of which these have none."""
    images = [structure(8)]
    assert sum(edges(images, [4], CUTOFF, False, torch.float32).values()) == sum(expected(images, [4], CUTOFF, False).values())
