"""The laws of the Transformer hold for species as points and lattice numbers as well."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_diffusion.networks import CrystalTransformer
from ase_diffusion.networks.transformer import PairTerms
from ase_diffusion.representations import LogLatticeCrystal
from ase_diffusion.representations.reduction import niggli

ELEMENTS = (11, 17, 29, 30, 16)


def representation():
    return LogLatticeCrystal(ELEMENTS, torch.float64, (1.2, 1.3, 1.4, 0.0, 0.1, 0.0), (0.2, 0.2, 0.2, 0.1, 0.1, 0.1))


def network():
    torch.manual_seed(0)
    like = representation()
    net = CrystalTransformer(
        len(ELEMENTS),
        24,
        2,
        heads=3,
        head_width=8,
        hidden=32,
        pair_hidden=16,
        pair_width=12,
        coupled=True,
        points=like.table.shape[1],
        cell_mean=like.mean,
        cell_std=like.std,
        distances=8,
    )
    for p in net.parameters():
        p.data += 0.05 * torch.randn(p.shape)
    return net.double().eval()


def crystals():
    images = [bulk('ZnS', 'wurtzite', a=3.8, c=6.2), bulk('NaCl', 'rocksalt', a=5.6), bulk('Cu')]
    for k, atoms in enumerate(images):
        atoms.rattle(0.2, seed=k)
    return images


def evaluate(net, images, levels=(-0.5, -0.8, -0.3)):
    batch = representation().encode(images)
    with torch.no_grad():
        return net(batch, torch.tensor(levels[: len(images)], dtype=torch.float64), {})


def same(a, b):
    return all(torch.allclose(a[name], b[name], atol=1e-9) for name in b)


def test_shapes_and_no_shift_of_the_whole():
    out = evaluate(network(), crystals())
    assert {k: tuple(v.shape) for k, v in out.items()} == {'fractional': (7, 3), 'lattice': (3, 6), 'species': (7, 5)}
    assert out['fractional'][:4].sum(0).abs().max() < 1e-12 and out['fractional'][:4].abs().max() > 1e-3


def test_atoms_can_be_permuted_shifted_wrapped_and_turned():
    net, images = network(), crystals()
    base, order = evaluate(net, images), [2, 0, 3, 1]
    moved = [atoms.copy() for atoms in images]
    for atoms in moved:
        atoms.positions += (0.3, -0.7, 1.9)
        atoms.wrap()
        atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    moved[0] = moved[0][order]
    out = evaluate(net, moved)
    expected = {k: torch.cat([base[k][order], base[k][4:]]) for k in ('fractional', 'species')}
    assert same(out, {'lattice': base['lattice'], **expected})


def test_padding_reaches_nothing():
    net, images = network(), crystals()
    together = evaluate(net, images)
    alone = evaluate(net, images[2:], levels=(-0.3,))
    assert same(alone, {'lattice': together['lattice'][2:], **{k: together[k][6:] for k in ('fractional', 'species')}})


def test_the_metric_is_that_of_the_cells():
    images = crystals()
    batch = representation().encode(images)
    batch.fields['lattice'] = batch.fields['lattice'].clamp(-3, 3)
    cells = torch.tensor(np.array([a.cell[:] for a in representation().decode(batch)]))
    metric = network().metric(batch.fields['lattice'], batch.extras['counts'])
    assert torch.allclose(metric, cells @ cells.transpose(1, 2), rtol=1e-5)


def test_distances_are_those_to_the_nearest_image():
    net = network()
    atoms = Atoms('NaCl', scaled_positions=[[0, 0, 0], [0.9, 0.5, 0.2]], cell=[4, 5, 6], pbc=True)
    metric = torch.tensor((atoms.cell[:] @ atoms.cell[:].T)[None], dtype=torch.float64)
    f = torch.tensor(atoms.get_scaled_positions()[None], dtype=torch.float64)
    r = atoms.get_distance(0, 1, mic=True)
    shells, width = torch.linspace(0.5, 8, 8), 7.5 / 7
    expected = torch.exp(-0.5 * ((r - shells.double()) / width) ** 2)
    assert torch.allclose(net.pairs._shells_of(f, metric)[0, 0, 1], expected, atol=1e-6)


def test_distances_need_lattice_numbers():
    with pytest.raises(ValueError, match='distances need'):
        CrystalTransformer(3, distances=8)


def test_distances_are_those_of_the_nearest_image_in_a_skewed_reduced_cell():
    terms = PairTerms(frequencies=3, hidden=8, width=8, blocks=1, heads=2, cell_width=6, distances=12)
    rng = np.random.default_rng(0)
    for _ in range(20):
        cell = np.diag([3.0, 3.4, 4.1]) + np.tril(rng.uniform(-1.7, 1.7, (3, 3)), -1)
        atoms = niggli(Atoms('Cu6', scaled_positions=rng.random((6, 3)), cell=cell, pbc=True))
        metric = torch.tensor(atoms.cell[:] @ atoms.cell[:].T)
        fractional = torch.tensor(atoms.get_scaled_positions()) + torch.tensor(rng.integers(-2, 3, (6, 3)))  # not wrapped
        found = terms._shells_of(fractional[None], metric[None])[0]
        exact = torch.tensor(atoms.get_all_distances(mic=True)).clamp(min=1e-3)[..., None]
        wanted = torch.exp(-0.5 * ((exact - terms.shells) / (terms.shells[1] - terms.shells[0])) ** 2)
        assert torch.allclose(found, wanted, atol=1e-6)
