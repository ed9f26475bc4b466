"""CrysTens images: layout, round trip, clusters and what is refused."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_diffusion.networks.image_layout import HEADER, pair_block
from ase_diffusion.networks.rowtokens import RowTransformer
from ase_diffusion.representations.base import Failure, Representation
from ase_diffusion.representations.crystens import CrysTens, table_of

RUTILE_X = 0.305


def rutile():
    x = RUTILE_X
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (x, x, 0), (1 - x, 1 - x, 0), (0.5 + x, 0.5 - x, 0.5), (0.5 - x, 0.5 + x, 0.5)]
    return Atoms('Ti2O4', scaled_positions=sites, cell=[4.594, 4.594, 2.959], pbc=True)


def representations():
    minmax = CrysTens.of([rutile()], scaling='minmax')
    return {'standard': CrysTens(), 'paper': CrysTens.published(clusters=None), 'minmax': minmax}


@st.composite
def crystals(draw):
    """Any crystal: 1 to 52 atoms, skewed cells, few or many elements; sites are at least 0.001 apart."""
    n = draw(st.sampled_from([1, 2, 3, 7, 20, 51, 52]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = rng.choice(rng.integers(1, 119, draw(st.integers(1, 6))), n)
    sites = rng.permutation(11**3)[:n]
    sites = np.stack([sites // 121, sites // 11 % 11, sites % 11], 1) / 11
    if draw(st.booleans()):  # no site is special
        sites = sites + rng.uniform(0, 0.08, (n, 3))
    skewed = [(60, 60, 60), (90, 90, 120), (55.1, 70.3, 95.7), (119, 118, 110), (90, 90.01, 90)]
    angles = draw(st.sampled_from([(90, 90, 90), *skewed]))
    lengths = rng.uniform(2, 40, 3)
    atoms = Atoms(numbers, cell=[*lengths, *angles], pbc=True)
    atoms.set_scaled_positions(sites)
    atoms.info['key_value_pairs'] = {'space_group': int(rng.integers(1, 231))}
    return atoms


def same(a, b, sites=3e-6, cell=3e-4):
    """Compare two crystals: composition, sites, cell parameters and space group, whatever the order and orientation."""
    (ta, ca, na), (tb, cb, nb) = table_of([a]), table_of([b])
    gap = ta[0, : na[0], 1:][:, None] - tb[0, : nb[0], 1:]
    far = np.abs(gap - np.round(gap)).max(-1) + 10 * (ta[0, : na[0], 0][:, None] != tb[0, : nb[0], 0])
    assert na == nb and far.min(1).max() < sites and far.min(0).max() < sites
    assert np.abs(ca - cb).max() < cell


@settings(max_examples=60, deadline=None)
@given(crystals(), st.sampled_from(sorted(representations())))
def test_decode_undoes_encode(atoms, name):
    representation = representations()[name]
    (back,) = representation.decode(representation.encode([atoms]))
    same(back, atoms)


def test_many_structures_of_different_size_in_one_batch():
    images = [rutile(), bulk('Cu'), bulk('NaCl', 'rocksalt', a=5.64, cubic=True).repeat((2, 1, 1)), bulk('Cu')]
    representation = CrysTens()
    batch = representation.encode(images, {'formation_energy': [-1.0, 0.0, np.nan, 0.5]})
    assert batch.extras['counts'].tolist() == [6, 1, 16, 1] and batch.rows['image'].tolist() == [0, 1, 2, 3]
    assert batch.conditions['formation_energy'].shape == (4,)
    for a, b in zip(images, representation.decode(batch), strict=True):
        same(a, b)


def test_layout_of_the_paper():
    """Every number by hand, in the units of the paper."""
    atoms = rutile()
    raw = CrysTens(dtype=torch.float64).raw(CrysTens(dtype=torch.float64).encode([atoms]).fields['image'])[0].numpy()
    order = np.lexsort((*atoms.get_scaled_positions().T[::-1], atoms.numbers))
    f, z = atoms.get_scaled_positions()[order], atoms.numbers[order]
    for channel in raw:
        assert np.allclose(channel[0, 12:18], z) and np.allclose(channel[1:4, 12:18], f.T)
        assert np.allclose(channel[4:12, 12:18].T, [4.594, 4.594, 2.959, 90, 90, 90, 136, 0])
        assert np.allclose(channel[:12, 12:], channel[12:, :12].T)
        assert not channel[:12, :12].any() and not channel[18:].any() and not channel[:, 18:].any()
    d = f[:, None] - f
    assert np.allclose(raw[1:, 12:18, 12:18], d.transpose(2, 0, 1))
    assert np.allclose(raw[0, 12:18, 12:18], np.linalg.norm(d, axis=2))


def test_published_ranges_are_minus_one_to_one():
    image = CrysTens.published().encode([rutile()]).fields['image'][0]
    assert image.min() == -1 and image.max() <= 1
    assert torch.equal(image[1:, 12 + 6 :, 12:], torch.zeros(3, 46, 52))  # absent in an antisymmetric channel
    assert (image[0, 12 + 6 :, 12:] == -1).all()


def test_unit_variance_where_there_are_atoms():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(60):
        n = int(rng.integers(2, 30))
        atoms = Atoms(rng.integers(1, 90, n), cell=[*rng.uniform(3, 12, 3), *rng.uniform(75, 110, 3)], pbc=True)
        atoms.set_scaled_positions(rng.uniform(size=(n, 3)))
        atoms.info['key_value_pairs'] = {'space_group': int(rng.integers(1, 231))}
        images.append(atoms)
    batch = CrysTens.of(images).encode(images)
    image, counts = batch.fields['image'], batch.extras['counts']
    for field in range(4):
        values = torch.cat([image[k, 0, field, 12 : 12 + n] for k, n in enumerate(counts.tolist())])
        assert abs(values.mean()) < 1e-4 and abs(values.std() - 1) < 0.01
    cell = image[:, 0, 4:11, HEADER]
    assert cell.mean(0).abs().max() < 1e-4 and (cell.std(0, unbiased=False) - 1).abs().max() < 1e-3
    assert torch.equal(pair_block(image)[1], image[:, 1:, HEADER:, HEADER:])


def test_presence_is_not_read_from_values():
    """Z = 1, x = 0 and alpha = 59.8 are -1 in the ranges of the paper, as an absent atom is."""
    atoms = Atoms('H', positions=[(0, 0, 0)], cell=[3, 3, 3, 59.8, 59.8, 59.8], pbc=True)
    representation = CrysTens.published(clusters=None)
    same(representation.decode(representation.encode([atoms]))[0], atoms)


def test_gaps_in_the_mask_give_the_best_prefix():
    representation = CrysTens()
    batch = representation.encode([bulk('NaCl', 'rocksalt', a=5.64, cubic=True)])
    batch.fields['image'][:, :, 11, 12 + 3] = -1.0  # half of the copies of one atom
    batch.fields['image'][:, :, 11, 12 + 30] = 1.0
    assert len(representation.decode(batch)[0]) == 8


def test_failures_say_why():
    representation = CrysTens()
    batch = representation.encode([rutile()] * 4)
    image = batch.fields['image']
    image[0, :, 11] = image[0, :, :, 11] = -1.0
    image[1, 2, 20, 20] = float('nan')
    image[2, :, 7, 12:18] = image[2, :, 12:18, 7] = (200.0 - representation.shift[7]) / representation.scale[7]
    reasons = [x.reason if isinstance(x, Failure) else x for x in representation.decode(batch)]
    assert reasons[0] == 'no atom is present' and 'NaN' in reasons[1]
    assert reasons[2] == 'no cell has these lengths and angles'
    same(reasons[3], rutile())


def test_refusals():
    representation = CrysTens()
    with pytest.raises(ValueError, match='at most 52 atoms; structure 1 .* has 54'):
        representation.encode([rutile(), rutile().repeat((3, 3, 1))])
    shared = rutile()
    shared.info['occupancy'] = {'0': {'Ti': 0.5, 'Sn': 0.5}}
    with pytest.raises(ValueError, match='in structure 0 site 0'):
        representation.encode([shared])
    shared.info['occupancy'] = {'0': {'Ti': 0.9}}
    with pytest.raises(ValueError, match='whole atoms'):
        representation.encode([shared])
    shared.info['occupancy'] = {'0': {'Ti': 1.0}, '1': {'O': 1}}
    representation.encode([shared])
    with pytest.raises(ValueError, match='periodic'):
        representation.encode([Atoms('H', cell=[3, 3, 3])])
    batch = representation.encode([rutile()])
    with pytest.raises(ValueError, match=r'\(B, 4, 64, 64\)'):
        representation.decode(batch.with_fields(image=batch.fields['image'][:, :3]))
    with pytest.raises(ValueError, match='antisymmetric'):
        CrysTens(shift=(0.0,) * 13 + (0.1, 0, 0))
    with pytest.raises(ValueError, match='scale positive'):
        CrysTens(scale=(0.0,) * 16)
    with pytest.raises(ValueError, match='scaling'):
        CrysTens.of([rutile()], scaling='robust')


def test_todict_is_json():
    import json

    representation = CrysTens.published(guesses=False)
    assert CrysTens.fromdict(json.loads(json.dumps(representation.todict()))) == representation


def test_contract_and_header():
    representation = CrysTens()
    assert isinstance(representation, Representation)
    network = RowTransformer(representation.shift, representation.scale, features=12, blocks=1)
    representation.check_header({'sizes': {'4': 10, '52': 1}}, {'network': network})
    for header in ({}, {'sizes': {}}, {'sizes': {'53': 1}}, {'sizes': {'4': 'many'}}):
        with pytest.raises(ValueError, match='sizes'):
            representation.check_header(header, {'network': network})
    with pytest.raises(ValueError, match='same shift'):
        CrysTens.published().check_header({'sizes': {'4': 10}}, {'network': network})


def test_variances_against_their_definitions():
    """Noise in known pixels; every statistic again by plain numpy."""
    representation = CrysTens(dtype=torch.float64, log_lengths=False)
    image = representation.encode([rutile(), bulk('Cu')]).fields['image']
    rng = np.random.default_rng(1)
    image = image + 0.01 * torch.as_tensor(rng.normal(size=image.shape))
    found = representation.variances(image)
    raw = image[0].numpy()
    shift, scale, n = np.array(representation.shift), np.array(representation.scale), 6
    copies = np.stack([raw[:, :12, 12:18], raw[:, 12:18, :12].transpose(0, 2, 1)]).reshape(8, 12, n)
    copies = copies * scale[:12, None] + shift[:12, None]
    flat = copies.transpose(1, 0, 2).reshape(12, -1)
    assert np.isclose(found['lattice'][0], flat[4:7].var(1).mean()) and np.isclose(found['angle'][0], flat[7:10].var(1).mean())
    assert np.isclose(found['space_group'][0], flat[10].var()) and found['atoms'][0] == 6
    assert np.isclose(found['coordinate'][0], copies[:, 1:4].var(0).mean())
    own, final = copies[:, 1:4].mean(0).T, np.zeros((n, 3))
    block = raw[1:, 12:18, 12:18] * scale[13:, None, None]
    block = (block - block.transpose(0, 2, 1)) / 2
    for j in range(n):
        final[j] = np.mean([own[i] - (block[:, i, j] if i != j else 0) for i in range(n)], axis=0)
    assert np.isclose(found['agreement'][0], np.abs(own - final).mean())
    assert np.isclose(found['agreement_per_atom'][0], np.abs(own - final).mean() / n)
    length = raw[0, 12:18, 12:18] * scale[12] + shift[12]
    length = (length + length.T) / 2
    rebuilt = np.linalg.norm(final[:, None] - final, axis=2)
    assert np.isclose(found['pair_difference'][0], np.abs(length - rebuilt)[~np.eye(n, dtype=bool)].sum() / n)
    assert found['agreement'][1] == 0 and found['pair_difference'][1] == 0
    clean = representation.variances(representation.encode([rutile()]).fields['image'])
    assert all(clean[name][0] < 1e-12 for name in clean if name != 'atoms')


@pytest.mark.parametrize('level', [0.003, 0.01])
def test_clusters_find_elements_and_sites_in_noise(level):
    """The number of elements and of coordinates comes out right without being told."""
    representation = CrysTens()
    batch = representation.encode([rutile()] * 20)
    image = batch.fields['image']
    noisy = image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    images = representation.decode(batch.with_fields(image=noisy))
    assert sum(atoms.get_chemical_formula() == 'O4Ti2' for atoms in images) >= 19
    for atoms in images:
        assert np.array_equal(atoms.cell.angles(), [90, 90, 90])
        values = np.unique(np.round(atoms.get_scaled_positions().ravel(), 9))
        assert len(values) == 6  # 0, 1/2, x, 1 - x, 1/2 + x, 1/2 - x


def test_clusters_of_the_paper():
    atoms = bulk('NaCl', 'rocksalt', a=5.64, cubic=True)
    representation = CrysTens.published()
    assert representation.clusters == (3, 6)
    same(representation.decode(representation.encode([atoms]))[0], atoms)
    four = Atoms('HCNO', scaled_positions=[[0.1 * k, 0.1 * k, 0.1 * k] for k in range(4)], cell=[5, 5, 5], pbc=True)
    (back,) = representation.decode(representation.encode([four]))
    assert len(set(back.numbers)) == 3


def test_same_element_at_the_same_site_is_one_atom():
    atoms = Atoms('Na2Cl', scaled_positions=[(0.2, 0.2, 0.2)] * 3, cell=[5, 5, 5], pbc=True)
    (back,) = CrysTens().decode(CrysTens().encode([atoms]))
    assert sorted(back.numbers) == [11, 17]


def test_same_noise_same_crystal_at_any_batch_size():
    representation = CrysTens()
    batch = representation.encode([rutile(), bulk('Cu'), rutile()])
    alone = representation.encode([rutile()])
    assert torch.equal(batch.fields['image'][2], alone.fields['image'][0])
    assert np.array_equal(representation.decode(batch)[2].positions, representation.decode(alone)[0].positions)
