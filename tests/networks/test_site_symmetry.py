"""Symmetry of sites: projections against what is known of crystals, and networks whose estimates have it."""

import numpy as np
import pytest
import torch
from ase.spacegroup import crystal

from ase_diffusion.diffusion import Batch, GeometricVP, JointProcess, Preconditioned, heun
from ase_diffusion.networks.rowtokens import RowTransformer
from ase_diffusion.networks.site_symmetry import FORMS, projections, site_symmetry
from ase_diffusion.representations import CrysTens
from ase_diffusion.representations.cells import conventional, operations_of, space_group_of

SMALL = dict(features=24, blocks=2, heads=3, hidden=32, pair_hidden=8, pair_width=6, shells=5)
PROCESS = JointProcess({'image': Preconditioned(GeometricVP(0.004, 80.0))})
# crystal, free coordinates of all its sites
KNOWN = {
    'rock salt': (crystal('NaCl', [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3), 0),
    'rutile': (crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90]), 1),
    'quartz': (
        crystal(['Si', 'O'], [(0.47, 0, 2 / 3), (0.41, 0.27, 0.12)], spacegroup=154, cellpar=[4.91, 4.91, 5.4, 90, 90, 120]),
        4,
    ),
    'baddeleyite': (
        crystal(
            ['Zr', 'O', 'O'],
            [(0.275, 0.04, 0.208), (0.07, 0.336, 0.344), (0.45, 0.758, 0.479)],
            spacegroup=14,
            cellpar=[5.15, 5.21, 5.32, 90, 99.2, 90],
        ),
        9,
    ),
}


def given(atoms):
    """The crystal in its conventional cell, encoded, with the extras that tell its sites."""
    atoms = conventional(atoms)
    representation = CrysTens()
    batch = representation.encode([atoms])
    number = atoms.info['key_value_pairs']['space_group']
    rotations, translations = (torch.as_tensor(x) for x in operations_of(number))
    image = batch.fields['image'].double()
    shift, scale = (torch.tensor(x[1:4], dtype=torch.float64) for x in (representation.shift, representation.scale))
    f = image[:, 0, 12:, 1:4] * scale + shift
    found = projections(f, batch.extras['counts'], rotations, translations)
    assert found[3].all()
    batch.extras |= dict(zip(FORMS, (*found[:3], torch.tensor([number])), strict=True))
    return batch, representation, f


@pytest.mark.parametrize('name', KNOWN)
def test_projections_have_the_free_coordinates_of_the_sites(name):
    atoms, free = KNOWN[name]
    batch, _, f = given(atoms)
    n = len(conventional(atoms))
    p = batch.extras['projection'][0, :n, :, :n].reshape(3 * n, 3 * n)
    assert torch.allclose(p @ p, p, atol=1e-9) and abs(float(p.trace()) - free) < 1e-6
    assert torch.allclose(p @ f[0, :n].flatten() + batch.extras['offset'][0, :n].flatten(), f[0, :n].flatten(), atol=1e-9)
    moved = (p @ torch.randn(3 * n, dtype=torch.float64) * 0.01).view(n, 3)  # keeps the symmetry
    new = conventional(atoms).copy()
    new.set_scaled_positions((f[0, :n] + moved).numpy())
    order = np.lexsort((*f[0, :n].numpy().T[::-1], np.zeros(n)))
    assert len(order) == n
    assert len(set(batch.extras['orbits'][0, :n].tolist())) == len(set(batch.extras['orbits'][0].tolist())) - 52 + n


@pytest.mark.parametrize('name', KNOWN)
def test_samples_have_the_space_group_that_is_asked_for(name):
    """A network of random parameters."""
    atoms, _ = KNOWN[name]
    batch, representation, _ = given(atoms)
    torch.manual_seed(3)
    net = RowTransformer(representation.shift, representation.scale, **SMALL).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    found = heun(net, PROCESS, batch, steps=12, generator=torch.Generator().manual_seed(8))
    (made,) = representation.decode(found)
    number = int(batch.extras['space_group'])
    assert made.info['key_value_pairs']['space_group'] == number
    rotations, translations = operations_of(number)
    f = made.get_scaled_positions()
    for rotation, translation in zip(rotations, translations, strict=True):
        d = (f @ rotation.T + translation)[:, None] - f
        d -= np.round(d)
        nearest = np.abs(d).max(2).argmin(1)
        assert np.abs(d).max(2).min(1).max() < 2e-3 and (made.numbers[nearest] == made.numbers).all()
        g = made.cell.array @ made.cell.array.T
        assert np.allclose(rotation.T @ g @ rotation, g, atol=2e-3 * g.max())
    assert space_group_of(made, 0.02) >= 1


def test_nothing_known_changes_nothing():
    batch, representation, _ = given(KNOWN['rutile'][0])
    plain = Batch.dense('image', batch.fields['image'], extras={'counts': batch.extras['counts']})
    torch.manual_seed(3)
    net = RowTransformer(representation.shift, representation.scale, **SMALL).eval()
    t = torch.tensor([PROCESS.schedule.time(0.5)])
    noisy = PROCESS.add_noise(plain, t, torch.Generator().manual_seed(1))[0]
    eye = torch.einsum('ij,kl->ikjl', torch.eye(52), torch.eye(3))[None]
    extras = dict(zip(FORMS, (eye, torch.zeros(1, 52, 3), torch.arange(52)[None], torch.tensor([0])), strict=True))
    empty = Batch.dense('image', noisy.fields['image'], extras=noisy.extras | extras)
    level = PROCESS.c_noise(t)
    with torch.no_grad():
        assert torch.allclose(net(noisy, level, {})['image'], net(empty, level, {})['image'], atol=2e-4)
    assert site_symmetry(noisy.extras, 6) is None
    weights = net.loss_weights(noisy.extras['counts'], level)
    assert torch.allclose(weights, net.loss_weights(noisy.extras['counts'], level, empty.extras), rtol=1e-5)
