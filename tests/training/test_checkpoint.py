"""Checkpoints: what is written comes back; damaged and foreign files are refused, and nothing in them runs."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from safetensors.torch import load_file, save_file

from ase_diffusion.errors import CheckpointError
from ase_diffusion.networks import CrystalTransformer, ForceField, OverlayerDenoiser, PaiNN
from ase_diffusion.representations import Slab, representation_from_dict
from ase_diffusion.representations.crystal import Crystal
from ase_diffusion.training import load_checkpoint, read_header, save_checkpoint
from ase_diffusion.weights.zoo import load_model, load_networks

SIZE = dict(features=8, blocks=2, cutoff=4.0, n_basis=6)
NETWORKS = {
    'denoiser': lambda: OverlayerDenoiser(**SIZE, conditions={'energy': (0.1, 0.2)}),
    'force field': lambda: ForceField(**SIZE, basis='bessel', passive_edges=True),
    'painn': lambda: PaiNN(**SIZE),
}
HEADER = {
    'kind': 'surface',
    'process': Slab().process().todict(),
    'representation': Slab((0.5, 4.0)).todict(),
    'metrics': {'val_loss': 0.25},
}


PROCESS_OF_OTHERS = {'processes': {'cloud': next(iter(Slab().process().todict()['processes'].values()))}}
NO_LEVEL = {
    'processes': {
        name: {'name': 'WrappedScore', 'schedule': {'name': 'GeometricVE', 'sigma_min': 'x', 'sigma_max': 1.0}}
        for name in ('positions', 'fractional', 'lattice', 'species')
    }
}


@pytest.fixture
def path(tmp_path):
    return save_checkpoint(tmp_path / 'deep' / 'folder' / 'a.safetensors', NETWORKS['denoiser'](), HEADER)


def rewrite(path, change):
    """Change the header of a checkpoint."""
    header = read_header(path)
    header = change(header) or header
    save_file(load_file(path), str(path), metadata={'ase_diffusion': json.dumps(header)})
    return path


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_come_back(tmp_path, name):
    network = NETWORKS[name]().train()
    if name == 'force field':
        network.references.normal_()
    networks, header = load_checkpoint(save_checkpoint(tmp_path / 'a.safetensors', network, HEADER))
    again = networks.pop('denoiser')
    assert type(again) is type(network) and not again.training and not networks
    assert json.dumps(again.settings) == json.dumps(network.settings)  # tuples become lists
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) and value.dtype == state[key].dtype for key, value in network.state_dict().items())
    assert all(header[key] == value for key, value in json.loads(json.dumps(HEADER)).items())
    assert not list(tmp_path.glob('*.partial'))


def test_half_precision_halves_the_file_and_comes_back_as_single(tmp_path):
    network = ForceField(features=64, blocks=2)
    network.references.fill_(-2812.123456789)
    full = save_checkpoint(tmp_path / 'full.safetensors', network, HEADER)
    half = save_checkpoint(tmp_path / 'half.safetensors', network, HEADER, torch.float16)
    assert half.stat().st_size < 0.55 * full.stat().st_size
    again = load_checkpoint(half)[0]['denoiser']
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(again.references, network.references)  # energies keep all their digits
    for a, b in zip(again.parameters(), network.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_an_older_file_stays_until_the_new_one_is_whole(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr('ase_diffusion.training.checkpoint.os.replace', lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(path, NETWORKS['denoiser'](), {})
    assert path.read_bytes() == before


@pytest.mark.parametrize('keep', [0, 1, 7, 100, 0.5, -1])
def test_truncated_files_are_refused(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    for read in (load_checkpoint, read_header):
        with pytest.raises(CheckpointError, match=str(path)):
            read(path)


class Trap:
    """Pickles as a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('share', [0.3, 0.6, 0.9, 1.0])
def test_flipped_bits_are_refused(path, share):
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], 'little')
    data[start + int(share * (len(data) - start - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r'a.safetensors is damaged: its content is not what was written'):
        load_checkpoint(path)


def test_a_changed_number_in_the_header_is_refused(path):
    data = path.read_bytes()
    assert data.count(b'0.25') == 1
    path.write_bytes(data.replace(b'0.25', b'0.35'))
    with pytest.raises(CheckpointError, match='is damaged'):
        load_checkpoint(path)


def test_files_without_a_checksum_load(path):
    rewrite(path, lambda header: header)
    assert load_checkpoint(path)[1]['metrics'] == {'val_loss': 0.25}


@pytest.mark.parametrize('write', ['torch', 'pickle', 'text', 'plain safetensors'])
def test_foreign_files_are_refused_and_nothing_runs(tmp_path, write):
    path, made = tmp_path / 'a.safetensors', tmp_path / 'made'
    if write == 'torch':
        torch.save(Trap(str(made)), path)
    elif write == 'pickle':
        path.write_bytes(pickle.dumps(Trap(str(made))))
    elif write == 'text':
        path.write_text('a checkpoint')
    else:
        save_file({'a': torch.zeros(2)}, str(path), metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='safetensors'):
        load_checkpoint(path)
    assert not made.exists()


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / 'nothing.safetensors', tmp_path):
        with pytest.raises(CheckpointError, match='no checkpoint at'):
            load_checkpoint(path)


def settings_of(header):
    return header['networks']['denoiser']['settings']


TAMPERED = {
    'unknown network': (lambda h: h['networks']['denoiser'].update(name='os.system'), 'asks for the network .os.system.; known'),
    'name of a dunder': (lambda h: h['networks']['denoiser'].update(name='__import__'), 'known'),
    'name that is a list': (lambda h: h['networks']['denoiser'].update(name=['PaiNN']), 'damaged header'),
    'no networks': (lambda h: h.pop('networks') and None, 'damaged header'),
    'an empty table of networks': (lambda h: h.update(networks={}), 'damaged header'),
    'networks that are a list': (lambda h: h.update(networks=[h['networks']['denoiser']]), 'damaged header'),
    'another name': (lambda h: h.update(networks={'critic': h['networks']['denoiser']}), 'do not fit the header'),
    'one more network': (lambda h: h['networks'].update(critic=h['networks']['denoiser']), 'do not fit the header'),
    'no settings': (lambda h: h['networks']['denoiser'].pop('settings') and None, 'damaged header'),
    'settings that are a list': (lambda h: h['networks']['denoiser'].update(settings=[1]), 'damaged header'),
    'header that is a list': (lambda h: [1, 2], 'damaged header'),
    'future format': (lambda h: h.update(format=99), 'format 99.*upgrade'),
    'format that is a text': (lambda h: h.update(format='1'), 'damaged header'),
    'other size': (lambda h: settings_of(h).update(features=16), 'do not fit the header'),
    'one radial function': (lambda h: settings_of(h).update(n_basis=1), 'do not fit the header'),
    'no cutoff': (lambda h: settings_of(h).update(cutoff=None), 'do not fit the header'),
    'unknown keyword': (lambda h: settings_of(h).update(evil=1), 'do not fit the header'),
    'negative size': (lambda h: settings_of(h).update(features=-1), 'do not fit the header'),
    'text for a number': (lambda h: settings_of(h).update(blocks='2'), 'do not fit the header'),
    'conditions that are a number': (
        lambda h: settings_of(h).update(conditions=3),
        'do not fit the header',
    ),
    'a condition of no form': (
        lambda h: settings_of(h).update(conditions={'energy': {'colour': 3}}),
        'do not fit the header',
    ),
    'other network': (lambda h: h['networks']['denoiser'].update(name='ForceField', settings=SIZE), 'do not fit the header'),
}


@pytest.mark.parametrize('change', TAMPERED)
def test_tampered_headers_are_refused(path, change):
    function, text = TAMPERED[change]
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(rewrite(path, function))


CRYSTAL = {
    'kind': 'crystal',
    'process': Crystal(range(1, 2 + 1)).process().todict(),
    'representation': Crystal([11, 17]).todict(),
    'sizes': {'2': 5},
    'sampling': {'sampler': 'heun', 'steps': 9, 'corrector': 0.1, 'focus': (0.5, 0.2, 0.9)},
    'conditions': {'gap': [0.0, 1.0]},
    'data': {'elements': [11, 17]},
}
FORCEFIELD = {'kind': 'forcefield', 'representation': Slab().todict(), 'data': {'mobile_elements': [8]}}
MODELS = {
    'surface': (NETWORKS['denoiser'], HEADER),
    'crystal': (lambda: CrystalTransformer(2, 8, 1, conditions={'gap': (0.0, 1.0)}), CRYSTAL),
    'forcefield': (NETWORKS['force field'], FORCEFIELD),
}
DAMAGED = [
    *[
        (kind, {name: value})
        for kind in MODELS
        for name, value in (
            ('data', [1]),
            ('data', {'mobile_elements': 3}),
            ('data', {'mobile_elements': ['O']}),
            ('conditions', [1]),
            ('conditions', {'gap': 3}),
            ('conditions', {'gap': [0, None]}),
            ('conditions', {'gap': {'classes': []}}),
            ('conditions', {'gap': {'colours': ['red']}}),
            ('defaults', {'gap': 'x'}),
            ('metrics', 3),
            ('units', 'eV'),
            ('sampling', {'speed': 3}),
            ('sampling', {'sampler': 'x'}),
            ('sampling', {'steps': True}),
        )
    ],
    *[
        (kind, {name: value})
        for kind in ('surface', 'crystal')
        for name, value in (
            ('process', None),
            ('process', {}),
            ('process', {'processes': {}}),
            ('process', PROCESS_OF_OTHERS),
            ('process', NO_LEVEL),
            ('representation', None),
            ('representation', {}),
            ('representation', 'Slab'),
            ('representation', {'name': 'Voxels'}),
            ('representation', {'name': ['Slab']}),
        )
    ],
    ('surface', {'representation': Crystal([11, 17]).todict()}),
    ('crystal', {'representation': Slab().todict()}),
    ('forcefield', {'process': {}}),
    ('forcefield', {'process': 'nonsense'}),
    *[('surface', {'representation': {'height': height}}) for height in ([1], [4, 1], [0, 'x'], [0, float('nan')])],
    *[('crystal', {'representation': {'elements': elements}}) for elements in ([11], [0, 17], [11, 500], 'NaCl', [-1, 5])],
    *[('crystal', {'sizes': sizes}) for sizes in (None, {}, [2], {'x': 1}, {'0': 1}, {'2': 'many'}, {'2': 0})],
    *[
        ('crystal', {'sampling': sampling})
        for sampling in (
            'heun',
            {'sampler': 'x'},
            {'sampler': ['heun']},
            {'steps': 0},
            {'steps': '9'},
            {'corrector': None},
            {'focus': [1, 2]},
        )
    ],
    ('crystal', {'csp_fraction': 'all'}),
]


@pytest.mark.parametrize('kind, change', DAMAGED, ids=str)
def test_headers_that_generators_cannot_read_are_refused(tmp_path, kind, change):
    build, header = MODELS[kind]
    path = save_checkpoint(tmp_path / 'a.safetensors', build(), header)
    assert load_checkpoint(path)[1]['kind'] == kind
    with pytest.raises(CheckpointError, match=f'damaged header of a {kind} model'):
        load_checkpoint(save_checkpoint(path, build(), {**header, **change}))


@pytest.mark.parametrize('kind', ['liquid', None, ['surface'], 3])
def test_unknown_kinds_are_refused(tmp_path, kind):
    header = {**HEADER, 'kind': kind, 'process': 'nonsense', 'conditions': 7}
    with pytest.raises(CheckpointError, match='the kind is one of crystal, .*surface'):
        load_checkpoint(save_checkpoint(tmp_path / 'a.safetensors', NETWORKS['denoiser'](), header))
    with pytest.raises(CheckpointError, match='the kind is one of'):
        load_checkpoint(save_checkpoint(tmp_path / 'a.safetensors', NETWORKS['denoiser'](), {}))


@pytest.mark.parametrize('kind', ['surface', 'crystal'])
def test_a_model_that_diffuses_has_a_process(tmp_path, kind):
    build, header = MODELS[kind]
    header = {key: value for key, value in header.items() if key != 'process'}
    with pytest.raises(CheckpointError, match='has a process'):
        load_checkpoint(save_checkpoint(tmp_path / 'a.safetensors', build(), header))


def test_defaults_may_be_words_of_a_class(tmp_path):
    header = {**HEADER, 'conditions': {'phase': {'classes': ['fcc', 'hcp']}}, 'defaults': {'phase': 'hcp', 'guidance_scale': 2}}
    path = save_checkpoint(tmp_path / 'a.safetensors', NETWORKS['denoiser'](), header)
    assert load_checkpoint(path)[1]['defaults']['phase'] == 'hcp'
    with pytest.raises(CheckpointError, match='phase is one of fcc, hcp'):
        load_checkpoint(save_checkpoint(path, NETWORKS['denoiser'](), {**header, 'defaults': {'phase': 'bcc'}}))


def test_several_networks_are_one_file(tmp_path):
    networks = {'denoiser': NETWORKS['denoiser'](), 'lattice': PaiNN(**SIZE)}
    path = save_checkpoint(tmp_path / 'a.safetensors', networks, HEADER)
    again, header = load_checkpoint(path)
    assert list(again) == ['denoiser', 'lattice'] and header['networks']['lattice']['name'] == 'PaiNN'
    for name, network in networks.items():
        state = again[name].state_dict()
        assert type(again[name]) is type(network) and all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert set(load_networks(path)[0]) == set(load_model(path)[0]) == set(networks)
    single = save_checkpoint(tmp_path / 'b.safetensors', {'critic': networks['lattice']}, HEADER)
    assert isinstance(load_model(single)[0], PaiNN) and list(load_networks(single)[0]) == ['critic']
    again_path = save_checkpoint(tmp_path / 'c.safetensors', again, {**header, 'steps': 7})  # a header that was read
    assert load_checkpoint(again_path)[1] == {**header, 'steps': 7}
    for names in ({}, {'a.b': networks['lattice']}, {'': networks['lattice']}):
        with pytest.raises(ValueError, match='names of networks without dots'):
            save_checkpoint(path, names, HEADER)


DATA = Path(__file__).parent / 'data'


def overlayer(seed):
    """The structures of the files of format 1."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    atoms = Atoms('AgCuAgAuOH', cell=[5, 5, 15], pbc=(True, True, False))
    atoms.positions[:4] = fixed.uniform(0, 5, (4, 3)) * [1, 1, 0.1]
    atoms.positions[4:] = rng.uniform(0.2, 4.8, (2, 3)) * [1, 1, 0.3] + [0, 0, 1.2]
    atoms.set_constraint(FixAtoms(indices=range(4)))
    return atoms


@pytest.mark.parametrize('name', ['surface', 'forcefield', 'crystal_edm', 'crystal_paper'])
def test_files_of_format_1_predict_what_they_did(tmp_path, name):
    """Files written by the first version, and what its networks returned for two structures."""
    networks, header = load_checkpoint(DATA / f'format1_{name}.safetensors')
    network, expected = networks['denoiser'], json.loads((DATA / 'format1.json').read_text())[name]
    representation = representation_from_dict(header['representation'])
    nan = float('nan')
    if name.startswith('crystal'):
        images = [bulk('NaCl', 'rocksalt', a=5.0) * (2, 1, 1), bulk('KCl', 'rocksalt', a=5.02)]
        batch = representation.encode(images, {'gap': [0.4, nan], 'type.x': [nan, 3.0]})
        batch.extras['given_species'] = torch.tensor([True, False])
        assert header['scheme'] == {'crystal_edm': 'edm', 'crystal_paper': 'd3pm'}[name]
        assert header['csp_fraction'] == {'crystal_edm': 0.33, 'crystal_paper': 0.5}[name] and 'known' not in header
        assert set(network.settings['conditions']) == {'gap', 'type.x'} == set(header['conditions'])
    else:
        batch = representation.encode([overlayer(0), overlayer(1)], {'energy': [0.1, nan]})
    with torch.no_grad():
        if name == 'forcefield':
            found = dict(zip(('energy', 'forces'), network(batch), strict=True))
        else:
            found = network(batch, torch.tensor([0.3, -0.5]), batch.conditions)
    assert set(found) == set(expected)
    for key, values in expected.items():
        assert torch.allclose(found[key].double(), torch.tensor(values, dtype=torch.float64), rtol=1e-4, atol=1e-5), key
    path = save_checkpoint(tmp_path / 'a.safetensors', network, header)  # and as format 2 they are the same
    again, second = load_checkpoint(path)
    assert {**second, 'format': 1} == header and read_header(path)['format'] == 2
    assert all(torch.equal(v, again['denoiser'].state_dict()[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    network = NETWORKS['denoiser']()
    network.head_film.bias.data[3] = value
    path = save_checkpoint(tmp_path / 'a.safetensors', network, HEADER)
    with pytest.raises(CheckpointError, match='finite numbers; 1 tensors have others, such as denoiser.head_film.bias'):
        load_checkpoint(path)


def test_a_header_that_is_no_json_is_refused(path):
    save_file(load_file(path), str(path), metadata={'ase_diffusion': '{"format": 1'})
    with pytest.raises(CheckpointError, match='damaged header'):
        load_checkpoint(path)


def test_missing_and_additional_weights_are_refused(path):
    weights, header = load_file(path), {'ase_diffusion': json.dumps(read_header(path))}
    name = 'denoiser.head.second.weight'
    for tensors in (
        {k: v for k, v in weights.items() if k != name},
        {**weights, 'more': torch.zeros(1)},
        {**weights, 'denoiser.more': torch.zeros(1)},
    ):
        save_file(tensors, str(path), metadata=header)
        with pytest.raises(CheckpointError, match='do not fit the header'):
            load_checkpoint(path)
