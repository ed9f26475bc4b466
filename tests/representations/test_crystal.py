"""Crystals to tensors and back."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from ase_diffusion.representations import Crystal
from ase_diffusion.representations.crystal import crystal_process

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
    process = crystal_process(7)
    assert process.weights == {'lattice': 1.0, 'fractional': 1.0, 'species': 20.0}
    assert process.processes['species'].classes == 7 and process.processes['species'].steps == 1000
    sigma = process.schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([0.005, 0.5])
