"""Databases that schnetpack wrote: energies and forces in the data of the rows, units in the metadata."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate
from ase.db import connect

from ase_diffusion.data.frames import read_frames
from ase_diffusion.training import Overlayers
from ase_diffusion.utils.atoms import frozen_mask

UNITS = {
    'eV': ({'energy': 'eV', 'forces': 'eV/Ang'}, 'Ang', 1.0, 1.0),
    'kcal/mol': ({'energy': 'kcal/mol', 'forces': 'kcal/mol/Ang'}, 'Ang', units.kcal / units.mol, 1.0),
    'atomic': ({'energy': 'Hartree', 'forces': 'Hartree / Bohr'}, 'Bohr', units.Hartree, units.Bohr),
}


def frames(slab):
    """Two frames with energies and forces, in eV and A."""
    images, labels = [], []
    for k in range(2):
        atoms = slab.copy()
        add_adsorbate(atoms, 'O', 1.2 + 0.1 * k, (0.3, 0.2))
        images.append(atoms)
        forces = np.random.default_rng(k).normal(size=(len(atoms), 3))
        labels.append({'energy': np.array([-3.0 - k]), 'forces': forces, 'gap': np.array([1.5])})
    return images, labels


def write(path, images, labels, properties, distance):
    """What schnetpack's ASEAtomsData.create and add_systems write, without schnetpack."""
    db = connect(path)
    db.metadata = {'_property_unit_dict': properties, '_distance_unit': distance, 'atomrefs': {}}
    for k, (atoms, label) in enumerate(zip(images, labels, strict=True)):
        db.write(atoms, data={name: label[name] for name in properties}, key_value_pairs={'run': 7 + k})


def in_units(images, labels, energy, length):
    """The frames in other units."""
    scaled = []
    for atoms in images:
        atoms = atoms.copy()
        atoms.set_cell(atoms.cell[:] / length)
        atoms.set_positions(atoms.positions / length, apply_constraint=False)
        scaled.append(atoms)
    return scaled, [
        {**label, 'energy': label['energy'] / energy, 'forces': label['forces'] / energy * length} for label in labels
    ]


def check(read, images, labels, constrained=True):
    assert len(read) == len(images)
    for atoms, image, label in zip(read, images, labels, strict=True):
        assert np.allclose(atoms.positions, image.positions) and np.allclose(atoms.cell, image.cell)
        assert atoms.get_potential_energy() == pytest.approx(label['energy'].item())
        assert np.allclose(atoms.get_forces(apply_constraint=False), label['forces'])
        assert not {'energy', 'forces'} & set(atoms.info.get('data', {}))
        assert frozen_mask(atoms).any() == constrained


@pytest.mark.parametrize('unit', UNITS)
def test_energies_forces_and_units_are_read(tmp_path, ag_slab, unit):
    images, labels = frames(ag_slab)
    properties, distance, energy, length = UNITS[unit]
    write(tmp_path / 'a.db', *in_units(images, labels, energy, length), {**properties, 'gap': 'eV'}, distance)
    read = read_frames(tmp_path / 'a.db')
    check(read, images, labels)
    assert [atoms.info['key_value_pairs']['run'] for atoms in read] == [7, 8]
    assert read[0].info['data']['gap'].item() == 1.5
    data = Overlayers.from_atoms(read)
    assert [item.energy for item in data.items] == pytest.approx([-3.0, -4.0])


@pytest.mark.parametrize('unit', ['meV', 'eV/A', None, 'arb. unit', '', 'eV/'])
def test_unknown_units_are_refused(tmp_path, ag_slab, unit):
    write(tmp_path / 'a.db', *frames(ag_slab), {'energy': 'eV', 'forces': unit}, 'Ang')
    with pytest.raises(ValueError, match=r'for forces .*a\.db has'):
        read_frames(tmp_path / 'a.db')


@pytest.mark.parametrize('unit', UNITS)
def test_databases_of_schnetpack_itself(tmp_path, ag_slab, unit):
    data = pytest.importorskip('schnetpack.data')
    images, labels = frames(ag_slab)
    properties, distance, energy, length = UNITS[unit]
    written = data.ASEAtomsData.create(str(tmp_path / 'a.db'), distance_unit=distance, property_unit_dict=properties)
    scaled, values = in_units(images, labels, energy, length)
    values = [{name: value[name] for name in properties} for value in values]
    written.add_systems(values, scaled)
    check(read_frames(tmp_path / 'a.db'), images, labels)


def test_constraints_that_schnetpack_did_not_get_are_asked_for(tmp_path, ag_slab):
    """Structures given to it as arrays have no constraints; training then says how to mark the substrate."""
    data = pytest.importorskip('schnetpack.data')
    images, labels = frames(ag_slab)
    written = data.ASEAtomsData.create(str(tmp_path / 'a.db'), distance_unit='Ang', property_unit_dict=UNITS['eV'][0])
    names = {'_atomic_numbers': 'numbers', '_positions': 'positions', '_cell': 'cell', '_pbc': 'pbc'}
    written.add_systems(
        [
            {
                'energy': label['energy'],
                'forces': label['forces'],
                **{key: np.asarray(getattr(atoms, name)) for key, name in names.items()},
            }
            for atoms, label in zip(images, labels, strict=True)
        ]
    )
    read = read_frames(tmp_path / 'a.db')
    check(read, images, labels, constrained=False)
    assert all(isinstance(atoms, Atoms) for atoms in read)
    with pytest.raises(ValueError, match='structure 0 .*FixAtoms(.|\n)*set_constraint'):
        Overlayers.from_atoms(read)
