"""Names of nets: IZA codes, nets of the training data."""

import pytest
from ase import Atoms
from ase.spacegroup import crystal

from ase_diffusion.data.framework_nets import describe_net, known_nets
from ase_diffusion.data.zeolites import read_zeolites


def test_the_table_has_the_frameworks_of_the_iza():
    codes, known = known_nets()
    assert len(codes) == 232 and {'SOD', 'LTA', 'FAU', 'MFI', 'CHA'} <= set(codes.values()) and len(known) > 4500


def test_sodalite_is_found_whatever_its_cell():
    atoms = crystal(['Si', 'O'], [(0.25, 0.5, 0.0), (0.3534, 0.3534, 0.0)], spacegroup=229, cellpar=[8.87] * 3 + [90] * 3)
    found = describe_net(atoms)
    assert found['topology'] == 'SOD' and found['novelty'] == 'iza'
    moved = atoms.repeat((1, 2, 1))
    moved.rattle(0.01, seed=1)
    assert describe_net(moved) == found


def test_frameworks_of_the_shipped_set_are_not_new():
    images = read_zeolites('silica-frameworks')[::300]
    assert all(describe_net(atoms)['novelty'] in ('known', 'iza') for atoms in images)


def test_what_is_no_framework_has_no_net():
    with pytest.raises(ValueError, match='net is that of a silica framework'):
        describe_net(Atoms('Cu', cell=[3, 3, 3], pbc=True))
