"""Point clouds of crystals: exact there and back, by blocks of rows and by clusters on the torus."""

import itertools
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_diffusion.networks.cloudtokens import CloudTokens
from ase_diffusion.representations.base import Failure, Representation
from ase_diffusion.representations.cloudsites import complete_slots
from ase_diffusion.representations.pointcloud import (
    PointCloud,
    band_gap_class,
    multi_hot,
    shared_slots,
    slots_of,
)

TOLERANCE = 2e-5  # A and degrees, of clouds in single precision


def crystal(seed, n, n_elements, skew=0.0, border=False):
    """Return a random crystal of n atoms, no two closer than 0.55 A; skewed cells, atoms near the borders of the cell."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice(np.arange(1, 95), n_elements, replace=False)
    numbers = np.concatenate([numbers, rng.choice(numbers, n - n_elements)])
    rng.shuffle(numbers)
    cell = np.diag(rng.uniform(3.0, 18.0, 3)) + skew * rng.normal(size=(3, 3))
    if rng.random() < 0.5:
        cell = cell[[1, 0, 2]]  # left-handed, mostly
    while abs(np.linalg.det(cell)) < 20:
        cell = cell + np.diag(rng.uniform(1.0, 4.0, 3))
    for _ in range(200):
        fractional = rng.uniform(size=(n, 3))
        if border:
            fractional = np.where(rng.random((n, 3)) < 0.5, rng.choice([-1e-7, 0.0, 1e-7, 0.9499999, 0.95], (n, 3)), fractional)
        atoms = Atoms(numbers, scaled_positions=fractional, cell=cell, pbc=True)
        away = atoms.get_all_distances(mic=True) + 9 * np.eye(n)
        if away.min() > 0.55:
            return atoms
    return None


def assert_same(atoms, other, tolerance=TOLERANCE):
    """Assert that two crystals are equal up to a rotation, atom by atom."""
    assert isinstance(other, Atoms), other
    assert other.numbers.tolist() == atoms.numbers.tolist()
    assert np.linalg.det(other.cell) > 0
    assert np.abs(other.cell.cellpar() - atoms.cell.cellpar()).max() < tolerance
    sign = np.sign(np.linalg.det(atoms.cell))
    away = sign * atoms.get_scaled_positions() - other.get_scaled_positions()
    assert np.abs((away - np.round(away)) @ np.asarray(other.cell)).max() < tolerance


@pytest.mark.parametrize('method', ['blocks', 'clusters'])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 16),
    n_elements=st.integers(1, 3),
    skew=st.sampled_from([0.0, 1.0, 3.0]),
    border=st.booleans(),
)
def test_there_and_back(method, seed, n, n_elements, skew, border):
    atoms = crystal(seed, n, min(n, n_elements), skew, border)
    if atoms is None:
        return
    for lattice in ('log', 'paper'):
        cloud = PointCloud(lattice=lattice)
        batch = cloud.encode([atoms])
        assert batch.fields['cloud'].shape == (1, 3, 128, 3) and batch.fields['cloud'].dtype == torch.float32
        assert_same(atoms, cloud.decode(batch, method)[0])


@pytest.mark.parametrize('n', range(1, 17))
def test_double_precision_is_exact(n):
    images = [a for seed in range(5) if (a := crystal(100 * n + seed, n, min(n, 3), skew=2.0)) is not None]
    cloud = PointCloud(dtype=torch.float64)
    for atoms, other in zip(images, cloud.decode(cloud.encode(images)), strict=True):
        assert_same(atoms, other, 1e-10)


def test_layout_is_that_of_the_paper():
    atoms = Atoms('MgMnO3', scaled_positions=np.arange(15).reshape(5, 3) / 15, cell=[4, 5, 6, 90, 100, 110], pbc=True)
    batch = PointCloud(lattice='paper', dtype=torch.float64).encode([atoms])
    cloud = (batch.fields['cloud'][0].numpy() + 1) / 2
    order = np.minimum(np.arange(128) // 25, 4)  # 25 copies each, the last atom three more
    assert np.allclose(cloud[0], atoms.get_scaled_positions()[order])
    assert batch.extras['elements'].tolist() == [[8, 12, 25]]
    assert np.allclose(cloud[1], (atoms.numbers[order, None] == [8, 12, 25]))
    assert np.allclose(cloud[2, :64], np.array([90, 100, 110]) / 180)
    assert np.allclose(cloud[2, 64:], np.array([4, 5, 6]) / 15)
    assert cloud.min() >= 0 and cloud.max() <= 1


def test_slots_of_repeated_elements():
    assert slots_of([8, 1, 1]) == (1, 8, 1)
    assert slots_of([14, 14]) == (14, 14, 14)
    assert slots_of([25, 8, 12, 8, 8]) == (8, 12, 25)
    cloud = PointCloud(scales={'species': (0.0, 1.0)})
    batch = cloud.encode([bulk('NaCl', 'rocksalt', a=5.64)])
    assert batch.fields['cloud'][0, 1, [0, 127]].tolist() == [[1, 0, 1], [0, 1, 0]]  # Na fills both of its slots
    assert batch.conditions['elements'].nonzero().tolist() == [[0, 11], [0, 17]]
    mixed = shared_slots(torch.tensor([[[1.0, 0.2, 0.0]]]), torch.tensor([[11, 17, 11]]))
    assert torch.allclose(mixed, torch.tensor([[[0.5, 0.2, 0.5]]]))


def test_scaled_to_unit_variance():
    images = [
        bulk('NaCl', 'rocksalt', a=5.64),
        bulk('ZnS', 'zincblende', a=5.4),
        bulk('Si'),
        bulk('Ti'),
        bulk('CsCl', 'cesiumchloride', a=4.1),
    ]
    x = PointCloud().encode(images).fields['cloud']
    assert 0.5 < x[:, 0].std() < 1.5 and 0.5 < x[:, 1].std() < 1.5 and x[:, 2].abs().max() < 4


def test_long_cells_beyond_the_paper():
    atoms = Atoms('NaCl', scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.0125]], cell=[3, 40, 42, 91, 60, 120], pbc=True)
    for lattice in ('log', 'paper'):
        cloud = PointCloud(lattice=lattice)
        assert_same(atoms, cloud.decode(cloud.encode([atoms]))[0])
        assert_same(atoms, cloud.decode(cloud.encode([atoms]), 'clusters')[0])


def test_mirror_images_stay_apart():
    """A left-handed description of a chiral crystal comes back as the same enantiomer: det of four bonds keeps its sign."""
    cell = np.array([[5.0, 0, 0], [0.3, 6, 0], [0.7, 0.2, 7]])
    fractional = np.array([[0.0, 0, 0], [0.2, 0, 0], [0, 0.25, 0], [0, 0, 0.1]])
    cloud = PointCloud(dtype=torch.float64)
    for swap in ([0, 1, 2], [1, 0, 2]):
        atoms = Atoms('C4', scaled_positions=fractional[:, swap], cell=cell[swap], pbc=True)
        other = cloud.decode(cloud.encode([atoms]))[0]
        bonds = other.get_distances(0, [1, 2, 3], mic=True, vector=True)
        assert np.isclose(np.linalg.det(bonds), np.linalg.det(atoms.get_distances(0, [1, 2, 3], mic=True, vector=True)))


def test_number_of_atoms_from_noisy_blocks():
    images = [a for seed in range(60) if (a := crystal(seed, 1 + seed % 16, min(1 + seed % 16, 3))) is not None]
    cloud = PointCloud()
    batch = cloud.encode(images)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(batch.fields['cloud'].shape, generator=rng)
    counts, spread = cloud.spread(batch.with_fields(cloud=batch.fields['cloud'] + 0.1 * noise))
    assert (counts == batch.extras['counts']).float().mean() > 0.97
    assert torch.allclose(spread, torch.full_like(spread, 0.1), atol=0.025)  # slots of one element are averaged
    assert torch.equal(cloud.spread(batch)[0], batch.extras['counts'])


@pytest.mark.parametrize('method', ['blocks', 'clusters'])
def test_noise_is_averaged_across_the_border(method):
    atoms = Atoms('NaCl', scaled_positions=[[0, 0, 0], [0.5, 0.95, 0.5]], cell=[4, 4, 4], pbc=True)
    cloud = PointCloud()
    batch = cloud.encode([atoms])
    x = batch.fields['cloud'].clone()
    x[:, 0] += 0.02 * torch.randn(x[:, 0].shape, generator=torch.Generator().manual_seed(0))
    x[:, 0] += torch.randint(-2, 3, x[:, 0].shape) / cloud.scales['positions'][1]  # whole cells away
    assert_same(atoms, cloud.decode(batch.with_fields(cloud=x), method)[0], 0.05)


def test_augmented_clouds_are_the_same_crystals():
    images = [a for seed in range(30) if (a := crystal(seed, 3 + seed % 14, 3, skew=1.0)) is not None]
    cloud = PointCloud(dtype=torch.float64)
    batch = cloud.encode(images)
    other = cloud.augment(batch, torch.Generator().manual_seed(1))
    assert not torch.equal(other.fields['cloud'], batch.fields['cloud'])
    assert torch.equal(other.conditions['elements'], batch.conditions['elements'])
    assert (other.extras['elements'] != batch.extras['elements']).any()
    assert torch.equal(multi_hot(other.extras['elements']), multi_hot(batch.extras['elements']))
    for atoms, changed in zip(images, cloud.decode(other), strict=True):
        a, b = (np.sort(x.get_all_distances(mic=True), axis=None) for x in (atoms, changed))
        assert np.allclose(a, b, atol=1e-8) and sorted(atoms.numbers) == sorted(changed.numbers)
    again = cloud.augment(batch, torch.Generator().manual_seed(1))
    assert torch.equal(again.fields['cloud'], other.fields['cloud'])
    still = PointCloud(augmentations=(), dtype=torch.float64)
    assert torch.allclose(still.augment(batch, torch.Generator()).fields['cloud'], batch.fields['cloud'], atol=1e-12)


@pytest.mark.parametrize('triple', [(3, 8, 26), (8, 26, 8), (8, 8, 8)])
def test_species_are_the_likeliest_in_which_every_element_occurs(triple):
    """All assignments by brute force, and the highest scores where they miss no element."""
    rng, changed = np.random.default_rng(0), 0
    for _ in range(100):
        scores = rng.normal(size=(4, 3)) + [0.0, 1.5, 0.0]
        if triple[0] == triple[2]:
            scores[:, 2] = scores[:, 0]
        slots = complete_slots(scores, np.array(triple))
        whole = [p for p in itertools.product(range(3), repeat=4) if {triple[k] for k in p} == set(triple)]
        total = [sum(row[k] for row, k in zip(scores, p, strict=True)) for p in whole]
        assert {triple[k] for k in slots} == set(triple)
        assert np.isclose(scores[np.arange(4), slots].sum(), max(total))
        changed += (slots != scores.argmax(1)).any()
    assert (changed > 5) == (len(set(triple)) > 1)
    assert complete_slots(np.eye(3)[:1], np.array([3, 8, 26])).shape == (1,)


def test_failures_have_reasons():
    cloud = PointCloud()
    batch = cloud.encode([Atoms('LiFeO2', scaled_positions=np.eye(4, 3) / 2, cell=[4, 5, 6], pbc=True)] * 4)
    x = batch.fields['cloud'].clone()
    x[1, 1] = x[1, 1, :1]  # every point is lithium
    x[2, 2, :64] = 9.0
    x[3, 0, 5, 1] = float('nan')
    out = cloud.decode(batch.with_fields(cloud=x))
    assert isinstance(out[0], Atoms)
    assert set(out[1].symbols) == {'Li', 'Fe', 'O'}  # each of them once
    assert cloud.decode(batch.with_fields(cloud=x), 'clusters')[1] == Failure('an asked element has no atom')
    assert out[2] == Failure('the lattice parameters form no cell')
    assert out[3] == Failure('the cloud holds NaN or infinite numbers')
    assert [type(a) for a in cloud.decode(batch.with_fields(cloud=x), 'clusters')] == [Atoms, Failure, Failure, Failure]


def test_refused():
    cloud = PointCloud()
    with pytest.raises(ValueError, match=r'1 to 3 elements, got 4: H, C, N, O'):
        cloud.encode([Atoms('HCNO', scaled_positions=np.eye(4, 3) / 2, cell=[4, 5, 6], pbc=True)])
    with pytest.raises(ValueError, match=r'1 to 16 sites; structure 1 has 27'):
        cloud.encode([bulk('Cu'), bulk('Cu').repeat(3)])
    with pytest.raises(ValueError, match=r'unknown elements Cu; known: Si, Ge'):
        PointCloud(elements=[14, 32]).encode([bulk('Cu')])
    with pytest.raises(ValueError, match=r'at least one atom of each of O, Mg, Mn, got 2'):
        cloud.blank([2], [[8, 12, 25]])
    with pytest.raises(ValueError, match='not among its slots Si'):
        cloud.assemble([[0, 0, 0]], [29], [np.eye(3)], [1], triples=[[14, 14, 14]])
    with pytest.raises(ValueError, match="'blocks' or 'clusters'"):
        cloud.decode(cloud.encode([bulk('Cu')]), 'dbscan')
    with pytest.raises(ValueError, match="'log' or 'paper'"):
        PointCloud(lattice='linear')
    with pytest.raises(ValueError, match='unknown augmentations'):
        PointCloud(augmentations=('rotation',))


def test_kept_as_json():
    cloud = PointCloud(elements=[8, 12], lattice='paper', augmentations=('axes',))
    assert PointCloud.fromdict(json.loads(json.dumps(cloud.todict()))) == cloud


def test_band_gap_classes():
    assert np.array_equal(band_gap_class([0.0, 0.2, 1.5, 4.0, np.nan]), [0, 1, 2, 2, np.nan], equal_nan=True)


def test_contract_and_header():
    cloud = PointCloud()
    assert isinstance(cloud, Representation)
    network = CloudTokens(
        features=8, blocks=1, heads=1, hidden=8, scales={k: v for k, v in cloud.scales.items() if k != 'species'}
    )
    cloud.check_header({'process': {}}, {'network': network})
    with pytest.raises(ValueError, match='has a process'):
        cloud.check_header({}, {'network': network})
    with pytest.raises(ValueError, match=r"a network for the lattice 'paper'"):
        PointCloud(lattice='paper').check_header({'process': {}}, {'network': network})
    with pytest.raises(ValueError, match='of positions'):
        PointCloud(scales={'positions': (0.0, 1.0)}).check_header({'process': {}}, {'network': network})
