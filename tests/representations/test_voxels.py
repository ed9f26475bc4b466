"""Frameworks to grids and back, and the symmetry of grids."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.spacegroup import crystal

from ase_diffusion.diffusion import ddim
from ase_diffusion.porous import adsorption_properties, density_grid, energy_grid
from ase_diffusion.representations.base import Failure
from ase_diffusion.representations.voxels import Voxels

LIMITS = (-4000.0, 5000.0)


def framework(seed=0, lengths=(9.0, 10.0, 12.5), n=4, cell=None):
    rng = np.random.default_rng(seed)
    return Atoms(f'Si{n}O{2 * n}', scaled_positions=rng.random((3 * n, 3)), cell=lengths if cell is None else cell, pbc=True)


def exact(shape=(8, 8, 8), **options):
    return Voxels(shape, mean=(0.3, -0.8, -0.6), std=(0.5, 0.3, 0.4), dtype=torch.float64, **options)


def test_grids_are_those_of_porous_and_the_maps_are_invertible():
    images = [framework(0), framework(1)]
    voxels = exact((8, 12, 10))
    grids = voxels.to_grids(voxels.encode(images).fields['grids'])
    energy = np.clip(energy_grid(images, shape=(8, 12, 10)), *LIMITS)
    assert np.abs(grids['energy'].numpy() - energy).max() < 1e-9
    for symbol in ('Si', 'O'):
        assert np.abs(grids[symbol].numpy() - density_grid(images, symbol, shape=(8, 12, 10))).max() < 1e-12
    field = voxels.from_grids(*(grids[name] for name in ('energy', 'Si', 'O')))
    assert torch.allclose(field, voxels.encode(images).fields['grids'], atol=1e-12, rtol=0)


def test_clipping_keeps_the_void_fraction():
    atoms = framework(2, lengths=(18.0, 18.0, 18.0))
    voxels = exact((16, 16, 16))
    grid = voxels.to_grids(voxels.encode([atoms]).fields['grids'])['energy'][0].numpy()
    raw = energy_grid(atoms, shape=(16, 16, 16))
    assert 0 < adsorption_properties(raw)['void_fraction'] < 1
    assert adsorption_properties(grid)['void_fraction'] == adsorption_properties(raw)['void_fraction']


def test_the_boltzmann_channel_is_invertible():
    voxels = Voxels((8, 8, 8), channels=4, dtype=torch.float64)
    grids = voxels.to_grids(voxels.encode([framework(3, (15.0, 15.0, 15.0))]).fields['grids'])
    expected = torch.exp(-grids['energy'] / 298.0)
    assert expected.max() > 1
    assert torch.allclose(grids['boltzmann'], expected, rtol=1e-8, atol=1e-12)


def test_scaled_channels_lie_in_the_unit_interval():
    field = Voxels((8, 8, 8), channels=4).encode([framework(4)]).fields['grids']
    assert field.dtype == torch.float32
    assert field.min() >= -1 and field[:, (0, 3)].max() <= 1


@pytest.mark.parametrize('cell', [None, [[9, 0, 0], [2, 9, 0], [-1, 3, 10]]])
def test_rolls_commute_with_translations(cell):
    atoms = framework(5, cell=cell)
    moved = atoms.copy()
    moved.set_scaled_positions(atoms.get_scaled_positions() + np.array([3, -2, 5]) / 8)
    a, b = (exact().encode([x]).fields['grids'] for x in (atoms, moved))
    assert torch.allclose(torch.roll(a, (3, -2, 5), (2, 3, 4)), b, atol=2e-4)  # energies are summed in float32


@pytest.mark.parametrize('cell', [None, [[9, 0, 0], [2, 9, 0], [-1, 3, 10]]])
@pytest.mark.parametrize('shape', [(8, 8, 8), (8, 10, 12)])
def test_augmented_grids_are_those_of_the_moved_structure(cell, shape):
    atoms = framework(6, cell=cell)
    voxels = exact(shape)
    batch = voxels.encode([atoms] * 6)
    out = voxels.augment(batch, torch.Generator().manual_seed(1))
    assert torch.equal(batch.fields['grids'], voxels.encode([atoms] * 6).fields['grids'])  # the input is as it was
    cells, seen = out.extras['cells'].numpy(), set()
    for grid, new in zip(out.fields['grids'], cells, strict=True):
        found = None
        for matrix in signed_permutations():
            if np.abs(matrix @ np.asarray(atoms.cell) @ matrix.T - new).max() > 1e-9:
                continue
            sizes = tuple(int(n) for n in np.abs(matrix) @ np.array(shape))
            if sizes != tuple(grid.shape[1:]):
                continue
            moved = Atoms(atoms.numbers, scaled_positions=atoms.get_scaled_positions() @ matrix.T, cell=new, pbc=True)
            plain = exact(sizes).encode([moved]).fields['grids'][0]
            shift = same_up_to_a_roll(plain, grid)
            if shift is not None:
                found = (tuple(matrix.ravel()), shift)
                break
        assert found is not None
        seen.add(found)
    assert len(seen) > 1


def signed_permutations():
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            yield np.eye(3, dtype=int)[list(order)] * (1 - 2 * np.array(signs))[:, None]


def same_up_to_a_roll(a, b):
    match = torch.fft.ifftn(torch.fft.fftn(b[1]) * torch.fft.fftn(a[1]).conj()).real
    shift = tuple(int(i) for i in np.unravel_index(int(match.argmax()), match.shape))
    return shift if torch.allclose(torch.roll(a, shift, (1, 2, 3)), b, atol=2e-4) else None


def test_shapes_follow_the_cell_and_one_batch_has_one_shape():
    voxels = Voxels(None, pitch=0.95)
    small, large = framework(0, (5.0, 9.0, 12.5)), framework(0, (15.0, 20.0, 30.0))
    assert voxels.shape_of(small) == (6, 8, 12) and voxels.shape_of(large) == (16, 20, 32)
    assert voxels.encode([small, small]).fields['grids'].shape == (2, 3, 6, 8, 12)
    assert voxels.empty([np.diag([5.0, 9.0, 12.5])]).fields['grids'].shape == (1, 3, 6, 8, 12)
    with pytest.raises(ValueError, match='one shape'):
        voxels.encode([small, large])


def test_decode_hands_densities_and_cell_to_the_assembly():
    atoms, voxels = framework(7), Voxels((8, 8, 8))

    def assemble(silicon, oxygen, cell):
        assert np.abs(silicon - density_grid(atoms, 'Si', shape=(8, 8, 8))).max() < 1e-5
        assert np.abs(oxygen - density_grid(atoms, 'O', shape=(8, 8, 8))).max() < 1e-5
        assert np.abs(cell - np.asarray(atoms.cell)).max() < 1e-5
        return SimpleNamespace(atoms=None, reason='no net')

    assert voxels.decode(voxels.encode([atoms]), assemble) == [Failure('no net')]
    made = voxels.decode(voxels.encode([atoms]), lambda *_: SimpleNamespace(atoms=atoms, reason=None, step='direct'))
    assert made == [atoms] and made[0].info['step'] == 'direct'


@pytest.mark.parametrize('options', [{}, {'shape': (16, 16, 16)}, {'shape': None}])
def test_a_zeolite_comes_back(options):
    pytest.importorskip('ase_diffusion.porous.silica')
    sodalite = crystal(['Si', 'O'], [(0.25, 0, 0.5), (0.148, 0.148, 0.5)], spacegroup=229, cellpar=[8.83] * 3 + [90] * 3)
    voxels = Voxels(**options)
    (atoms,) = voxels.decode(voxels.encode([sodalite]))
    assert isinstance(atoms, Atoms) and str(atoms.symbols) == 'Si12O24'
    a, b = (x.get_scaled_positions()[x.numbers == 14] for x in (atoms, sodalite))
    d = a[:, None] - b
    assert (np.linalg.norm((d - np.round(d)) * 8.83, axis=-1).min(1) < 0.2).all()  # O tilts: distances leave it free


def test_settings_survive_a_dictionary():
    for voxels in (Voxels(), exact((8, 8, 12)), Voxels(None, pitch=1.1, channels=4)):
        again = Voxels.fromdict(voxels.todict())
        assert again.todict() == voxels.todict()


def test_an_exact_network_gives_the_grids_back():
    voxels = exact()
    batch = voxels.encode([framework(8)])
    process = voxels.process()

    def network(x, c_noise, conditions):
        ratio = torch.exp(4 * c_noise)[:, None, None, None, None]  # sigma / alpha
        alpha = 1 / torch.sqrt(1 + ratio**2)
        return {'grids': (batch.fields['grids'] - alpha * x.fields['grids']) / (ratio * alpha)}

    out = ddim(network, process, batch, steps=8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(out.fields['grids'], batch.fields['grids'], atol=1e-9)


def test_wrong_channels_and_scales_are_refused():
    with pytest.raises(ValueError, match='channels'):
        Voxels(channels=2)
    with pytest.raises(ValueError, match='means'):
        Voxels(mean=(0.0, 1.0))
