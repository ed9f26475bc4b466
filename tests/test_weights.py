"""The shipped weights: listed, whole, described."""

import json

import pytest
from ase.data import atomic_numbers

from ase_diffusion import list_models, load_model
from ase_diffusion.calculators.elements import HUBBARD
from ase_diffusion.data import read_frames
from ase_diffusion.errors import CheckpointError
from ase_diffusion.utils.memory import keep_freed_memory
from ase_diffusion.weights import zoo
from ase_diffusion.weights.zoo import load_networks


@pytest.mark.parametrize('entry', list_models(), ids=lambda entry: entry['name'])
def test_every_shipped_model_loads_and_is_described(entry):
    networks, header = load_networks(entry['name'])
    assert header['kind'] == entry['kind']
    assert header['steps'] == entry['steps']
    assert sum(p.numel() for network in networks.values() for p in network.parameters()) > 1e4
    assert entry['licence'] == 'MIT'
    assert entry['metrics']


def test_models_are_listed_by_kind():
    assert {entry['name'] for entry in list_models('surface')} == {'ag-o-overlayer', 'metal-oxide-overlayer', 'renamed-silver'}


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    index = json.loads((zoo.FOLDER / 'index.json').read_text())
    index['ag-o-overlayer']['sha256'] = '0' * 64
    monkeypatch.setattr(zoo, '_index', lambda: index)
    with pytest.raises(CheckpointError, match='install the package again'):
        load_model('ag-o-overlayer')


def test_the_test_cell_is_not_in_the_shipped_data():
    images = read_frames('ag-o-rss')
    assert len({atoms.info['key_value_pairs']['run'] for atoms in images}) == 3013
    assert all(len(atoms.constraints[0].index) % 32 for atoms in images)  # two layers of p(4x4), and of its multiples


def test_oxygen_on_the_test_metals_and_where_labels_are_wrong_is_not_in_the_shipped_data():
    images = read_frames('metal-oxide')
    assert len({atoms.info['key_value_pairs']['run'] for atoms in images}) == 11440
    without = HUBBARD | {atomic_numbers[metal] for metal in ('Ni', 'Rh')}
    assert not any(without & set(atoms.numbers) and 8 in atoms.numbers for atoms in images)
    assert {'H', 'C', 'N', 'S'} <= {symbol for atoms in images for symbol in atoms.symbols}


def test_keeping_freed_memory_can_be_asked_for_twice():
    assert keep_freed_memory() == keep_freed_memory()
