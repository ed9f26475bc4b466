"""Rigid bodies: poses as estimates, for every sampler and without a preferred direction."""

import numpy as np
import pytest
import torch
from ase.geometry import find_mic

from ase_diffusion.diffusion import SAMPLERS, Batch, Gaussian, GeometricVE, JointProcess, NoiseStream, ProductProcess
from ase_diffusion.diffusion.rigid import RigidBodies, RigidProcess, shortest, superposed

SHAPE = torch.tensor([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0], [-0.3, 0.9, 0.0], [0.1, 0.2, 0.8]], dtype=torch.float64)


def bodies(size, shape=SHAPE):
    """One body in each of ``size`` structures of as many rows, in a cell of 100 A."""
    rows = torch.arange(size * len(shape)).reshape(size, len(shape))
    cells = 100.0 * torch.eye(2, dtype=torch.float64).expand(size, 2, 2)
    return RigidBodies([rows], [shape.expand(size, -1, -1)], [cells], [[(k, 0) for k in range(1, len(shape))]])


def sampled(name, network, size, shape=SHAPE, steps=20):
    """Return the bodies (B, k, 3) that a sampler makes."""
    process = ProductProcess([((0, 2), Gaussian(GeometricVE(0.02, 4.0))), ((2, 3), Gaussian(GeometricVE(0.02, 4.0)))])
    joint = JointProcess({'positions': RigidProcess(process, bodies(size, shape).poses)})
    rows = torch.arange(size).repeat_interleave(len(shape))
    batch = Batch({'positions': torch.zeros(len(rows), 3, dtype=torch.float64)}, {'positions': rows}, size)
    noise = NoiseStream(torch.Generator().manual_seed(0))
    end = SAMPLERS[name](network(process, rows), joint, batch, steps=steps, generator=noise)
    return end.fields['positions'].reshape(size, len(shape), 3)


def rotations(size):
    """Return random proper rotations (size, 3, 3)."""
    q, _ = torch.linalg.qr(torch.randn(size, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    return q * torch.linalg.det(q).sign()[:, None, None]


def test_the_nearest_pose_undoes_motion_and_never_mirrors():
    moved = SHAPE @ rotations(50) + torch.tensor([3.0, -2.0, 1.0])
    assert torch.allclose(superposed(SHAPE.expand_as(moved), moved), moved, atol=1e-12)
    mirrored = superposed(SHAPE.expand_as(moved), moved * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.allclose(torch.cdist(mirrored, mirrored), torch.cdist(SHAPE, SHAPE), atol=1e-12)
    sides = mirrored[:, 1:] - mirrored[:, :1]
    assert torch.allclose(torch.linalg.det(sides), torch.linalg.det(SHAPE[1:] - SHAPE[:1]))


@pytest.mark.parametrize('plane', [[[2.8, 0.0], [1.4, 2.4]], [[2.8, 0.0], [5.6, 9.7]], [[5.0, 0.0], [0.0, 3.0]]])
def test_the_shortest_difference_is_that_of_ase(plane):
    d = np.random.default_rng(0).normal(0.0, 6.0, (200, 3))
    cell = np.block([[np.array(plane), np.zeros((2, 1))], [0.0, 0.0, 20.0]])
    found = shortest(torch.tensor(d)[None], torch.tensor(plane, dtype=torch.float64)[None])[0]
    assert np.allclose(np.linalg.norm(found, axis=1), find_mic(d, cell, (True, True, False))[1])


@pytest.mark.parametrize('name', SAMPLERS)
def test_every_sampler_ends_at_the_pose_that_the_network_knows(name):
    known = SHAPE @ rotations(3) + 2.0

    def network(process, rows):
        wrong = known.clone()
        wrong[:, 1] += 0.05  # the bodies straighten it
        return lambda x, c, _: {'positions': (x.fields['positions'] - wrong.reshape(-1, 3)) / torch.exp(4 * c)[rows, None]}

    ends = sampled(name, network, 3)
    assert torch.allclose(torch.cdist(ends, ends), torch.cdist(SHAPE, SHAPE), atol=1e-9)
    assert (ends - known).abs().max() < 0.06


@pytest.mark.parametrize('name', ['renoised_ancestral', 'ancestral', 'ddim'])
def test_without_knowledge_no_direction_is_preferred(name):
    shape = SHAPE[:2]
    ends = sampled(name, lambda process, rows: lambda x, c, _: {'positions': 0.0 * x.fields['positions']}, 2000, shape, 8)
    along = (ends[:, 1] - ends[:, 0]) / 1.1  # unit vectors; means 0 and 1/3 of the identity, to 3 standard errors
    assert (along.mean(0).abs() < 3 * (1 / 3 / 2000) ** 0.5).all()
    assert torch.allclose(along.T @ along / 2000, torch.eye(3, dtype=torch.float64) / 3, atol=3 * (4 / 45 / 2000) ** 0.5)
