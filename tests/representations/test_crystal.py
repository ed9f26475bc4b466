"""Crystals to tensors and back."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from ase_diffusion.representations import Crystal, LogLatticeCrystal, representation_from_dict
from ase_diffusion.representations.crystal import cells_from_log_lattice, check_crystal, log_lattice
from ase_diffusion.representations.elements import element_points, period_and_group
from ase_diffusion.representations.reduction import niggli

ELEMENTS = (11, 17, 29, 30, 16)


def crystals():
    images = [bulk('NaCl', 'rocksalt', a=5.6), bulk('Cu', 'fcc', a=3.6), bulk('ZnS', 'wurtzite', a=3.8, c=6.2)]
    for atoms in images:
        atoms.rattle(0.1, seed=1)
        atoms.wrap()
    return images


@pytest.mark.parametrize(('dtype', 'tol'), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_decode_undoes_encode(dtype, tol):
    images = crystals()
    back = Crystal(ELEMENTS, dtype).decode(Crystal(ELEMENTS, dtype).encode(images))
    for a, b in zip(images, back, strict=True):
        assert (a.numbers == b.numbers).all() and b.pbc.all()
        sign = np.sign(np.linalg.det(a.cell))
        assert np.abs(sign * a.cell[:] - b.cell[:]).max() < tol * 10
        d = a.get_scaled_positions() - b.get_scaled_positions()
        assert np.abs(d - np.round(d)).max() < tol


def test_left_handed_cells_are_inverted_and_distances_stay():
    atoms = crystals()[2]
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell[:] @ np.diag([1, 1, -1]), scale_atoms=True)
    back = Crystal(ELEMENTS, torch.float64).decode(Crystal(ELEMENTS, torch.float64).encode([mirrored]))[0]
    assert np.linalg.det(back.cell) > 0
    assert np.allclose(back.get_all_distances(mic=True), mirrored.get_all_distances(mic=True))


def test_batches_tell_where_every_atom_goes():
    batch = Crystal(ELEMENTS).encode(crystals(), {'gap': [1.0, 2.0, float('nan')]})
    assert batch.extras['slots'].tolist() == [0, 1, 4, 8, 9, 10, 11]
    assert batch.extras['counts'].tolist() == [2, 1, 4] and batch.extras['width'] == 4
    assert batch.rows['fractional'].tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert batch.fields['species'].dtype == torch.int64
    assert batch.conditions['gap'][:2].tolist() == [1.0, 2.0]


def test_what_is_no_crystal_of_these_elements_is_refused():
    encode = Crystal(ELEMENTS).encode
    with pytest.raises(ValueError, match='unknown elements Fe; known: Na, Cl'):
        encode([bulk('Fe')])
    with pytest.raises(ValueError, match=r'periodic in three directions; structure 0 .*atoms.pbc = True'):
        encode([Atoms('Cu', cell=[3, 3, 3], pbc=(True, True, False))])
    with pytest.raises(ValueError, match='three independent vectors'):
        encode([molecule('H2O')])
    with pytest.raises(ValueError, match='structure 1 has no atoms'):
        encode([bulk('Cu'), Atoms(cell=[3, 3, 3], pbc=True)])
    with pytest.raises(TypeError, match='ase.Atoms'):
        encode(['Cu'])


def test_the_process_has_the_weights_of_the_paper():
    process = Crystal(range(1, 7 + 1)).process()
    assert process.weights == {'lattice': 1.0, 'fractional': 1.0, 'species': 20.0}
    assert process.processes['species'].classes == 7 and process.processes['species'].steps == 1000
    sigma = process.schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([0.005, 0.5])


def smooth(dtype=torch.float64):
    images = crystals()
    return LogLatticeCrystal.of(ELEMENTS, np.array([a.cell[:] for a in images]), np.array([len(a) for a in images]), dtype)


@pytest.mark.parametrize(('dtype', 'tol'), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_smooth_crystals_come_back_turned_at_most(dtype, tol):
    images, representation = crystals(), representation_from_dict(smooth(dtype).todict())
    representation.dtype = dtype
    batch = representation.encode(images)
    assert batch.fields['lattice'].shape == (3, 6) and batch.fields['species'].dtype == dtype
    for a, b in zip(images, representation.decode(batch), strict=True):
        assert (a.numbers == b.numbers).all() and np.linalg.det(b.cell) > 0
        assert np.abs(a.cell.cellpar() - b.cell.cellpar()).max() < 1e4 * tol
        assert np.abs(a.get_all_distances(mic=True) - b.get_all_distances(mic=True)).max() < 100 * tol


def test_lattice_numbers_are_logarithms_of_lengths_and_forget_the_orientation():
    rng = np.random.default_rng(0)
    cells, counts = 4 * np.eye(3) + rng.normal(size=(20, 3, 3)), rng.integers(1, 20, 20)
    numbers = log_lattice(cells, counts)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert np.allclose(log_lattice(cells @ turn, counts), numbers)
    back = cells_from_log_lattice(numbers, counts)
    assert np.allclose(back @ back.transpose(0, 2, 1), cells @ cells.transpose(0, 2, 1))
    assert np.allclose(numbers[:, :3].sum(1), np.log(np.abs(np.linalg.det(cells)) / counts))  # volume per atom
    assert np.allclose(log_lattice(np.diag([2.0, 3.0, 4.0])[None], np.array([1])), [[*np.log([2, 3, 4]), 0, 0, 0]])


def test_smooth_numbers_have_unit_size_and_any_numbers_are_a_cell():
    cells = np.array([bulk('Cu', 'fcc', a=a).cell[:] for a in (3.4, 3.6, 3.8, 4.0)])
    representation = LogLatticeCrystal.of((29,), cells, np.ones(4))
    lattice = representation.from_cells(cells, np.ones(4))
    assert lattice[:, :3].mean(0).abs().max() < 1e-5 and lattice[:, :3].std(0, correction=0).tolist() == pytest.approx([1] * 3)
    wild = representation.to_cells(100 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.ones(50))
    assert np.isfinite(wild).all() and (np.linalg.det(wild) > 0).all()


@pytest.mark.parametrize('representation', [Crystal(ELEMENTS, torch.float64), smooth()], ids=['plain', 'smooth'])
def test_strain_deforms_the_cells(representation):
    images = crystals()
    batch = representation.encode(images)
    strain = np.random.default_rng(0).normal(size=(3, 3, 3)) * 0.02
    strain = strain + strain.transpose(0, 2, 1)
    before = [a.cell[:] for a in representation.decode(batch)]
    after = batch.with_fields(lattice=batch.fields['lattice'] + representation.strained(batch, strain))
    for cell, e, atoms in zip(before, strain, representation.decode(after), strict=True):
        assert np.allclose(atoms.cell[:] @ atoms.cell[:].T, (cell + cell @ e) @ (cell + cell @ e).T)


def test_elements_lie_where_the_periodic_table_has_them():
    from pymatgen.core import Element

    for z in [*range(1, 57), *range(72, 89)]:
        assert period_and_group(z) == (Element.from_Z(z).row, Element.from_Z(z).group)
    assert [period_and_group(z) for z in (57, 71, 89, 103, 104)] == [(6, 19), (6, 33), (7, 19), (7, 33), (7, 4)]
    points = element_points(range(1, 104))
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    assert apart[10, 18] == pytest.approx(apart[10, 11]) and apart[10, 16] < apart[10, 33] / 1.2  # Na K, Na Mg; Na Cl, Na Se
    assert (apart + 9 * np.eye(103)).min() > 4 and (points**2).mean() == pytest.approx(1)
    with pytest.raises(ValueError, match='between 1 and'):
        period_and_group(0)


def test_flat_cells_are_decoded_and_left_alone():
    batch = Crystal(ELEMENTS, torch.float64).encode(crystals())
    flat = batch.fields['lattice'].clone()
    flat[0, 2], flat[1, 1] = 0.0, flat[1, 0]
    for k, atoms in enumerate(Crystal(ELEMENTS, torch.float64).decode(batch.with_fields(lattice=flat))):
        assert len(atoms) == (2, 1, 4)[k] and np.isfinite(niggli(atoms).positions).all()


def test_partly_occupied_sites_are_refused():
    salt = bulk('NaCl', 'rocksalt', a=5.64)
    salt.info['occupancy'] = {'0': {'Na': 1.0}, '1': {'Cl': 1.0}}
    check_crystal(salt)
    salt.info['occupancy'] = {'0': {'Na': 0.5, 'K': 0.5}, '1': {'Cl': 1.0}}
    with pytest.raises(ValueError, match=r'in structure 3 site 0 is occupied by .*delete atoms.info'):
        check_crystal(salt, 'structure 3')
    salt.arrays['spacegroup_kinds'] = np.array([0, 1])
    check_crystal(salt[[1]])  # the shared site was deleted
