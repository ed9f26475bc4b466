"""A method is a representation, a network, a generator and one line in each of three tables: proven by a toy method."""

import io
import re

import numpy as np
import pytest
import torch
import toy
from ase import Atoms
from ase.db import connect
from ase.io import read, write

from ase_diffusion.cli.main import main
from ase_diffusion.cli.methods import METHODS, Method
from ase_diffusion.errors import CheckpointError, GenerationFailed
from ase_diffusion.networks import NETWORKS
from ase_diffusion.representations import REPRESENTATIONS, Failure, Representation
from ase_diffusion.training.checkpoint import save_checkpoint

WORDS = ('one', 'two')


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """The three lines that a method adds."""
    monkeypatch.setitem(REPRESENTATIONS, 'ToyGrid', toy.ToyGrid)
    monkeypatch.setitem(NETWORKS, 'ToyNet', toy.ToyNet)
    monkeypatch.setitem(METHODS, 'toy', Method('toy:ToyDiffusion', 'planes of hydrogen'))


def planes(n=48):
    """One atom, or two on the diagonal; the class says which, and a number too."""
    images = []
    rng = np.random.default_rng(0)
    for k in range(n):
        first = rng.integers(8, size=2) / 8
        sites = [first] if k % 2 == 0 else [first, (first + 0.5) % 1]
        atoms = Atoms(f'H{len(sites)}', cell=[toy.CELL] * 3, scaled_positions=[[*s, 0] for s in sites], pbc=True)
        split = 'val' if k % 8 > 5 else 'train'
        atoms.info['key_value_pairs'] = {'density': len(sites) / toy.CELL**3, 'filling': WORDS[k % 2], 'split': split}
        images.append(atoms)
    return images


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The path of a model that was trained for some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REPRESENTATIONS, 'ToyGrid', toy.ToyGrid)
        patch.setitem(NETWORKS, 'ToyNet', toy.ToyNet)
        gen = toy.ToyDiffusion(model='untrained', logfile=None)
        gen.fit(planes(), steps=400, batch_size=32, lr=1e-2, warmup=20, ema=0.98, conditions=['filling'], progress=False)
        return gen.save(tmp_path_factory.mktemp('toy') / 'toy.safetensors')


def test_the_representation_keeps_its_contract():
    representation = toy.ToyGrid()
    assert isinstance(representation, Representation)
    batch = representation.encode(planes(6))
    for before, after in zip(planes(6), representation.decode(batch), strict=True):
        places = [sorted(map(tuple, np.round(a.get_scaled_positions() * 8).astype(int) % 8)) for a in (before, after)]
        assert places[0] == places[1]
    empty = batch.with_fields(grid=torch.full_like(batch.fields['grid'], -1.0))
    assert representation.decode(empty) == [Failure('no atom is present')] * 6
    assert toy.ToyGrid.fromdict(representation.todict()) == representation


def test_what_was_asked_for_comes_back(trained):
    gen = toy.ToyDiffusion(model=trained, rng=0, logfile=None)
    for word, count in (('one', 1), ('two', 2)):
        images = gen.sample(12, filling=word, guidance_scale=2.0)
        assert np.mean([len(atoms) == count for atoms in images]) >= 0.7, word
        pairs = images[0].info['key_value_pairs']
        assert pairs['condition_filling'] == word and pairs['generator'] == 'ToyDiffusion' and pairs['sampler'] == 'heun'
    with pytest.raises(ValueError, match='filling is one of one, two, or None; got .three.'):
        gen.sample(filling='three')
    with pytest.raises(TypeError, match=r"unknown conditions \['density'\]; this model knows \['filling', 'guidance_scale'\]"):
        gen.sample(density=0.1)


def test_seed_batch_size_provenance_and_tensors(trained, tmp_path):
    images = toy.ToyDiffusion(model=trained, rng=3, logfile=None).sample(6)
    again = toy.ToyDiffusion(model=trained, rng=3, logfile=None, batch_size=2, trajectory=tmp_path / 'a.traj').sample(6)
    assert all(np.allclose(a.positions, b.positions) for a, b in zip(images, again, strict=True))
    assert [a.info['key_value_pairs']['seed'] for a in read(tmp_path / 'a.traj', ':')] == [
        a.info['key_value_pairs']['seed'] for a in images
    ]
    with connect(tmp_path / 'a.db') as db:
        db.write(images[0], data=images[0].info['data'], **images[0].info['key_value_pairs'])
    batches = list(toy.ToyDiffusion(model=trained, rng=3, logfile=None, batch_size=4).sample_batches(6))
    assert [batch.fields['grid'].shape for batch in batches] == [(4, 1, 8, 8), (2, 1, 8, 8)]


def test_failures_are_counted_and_shown_by_reason(trained):
    log = io.StringIO()
    gen = toy.ToyDiffusion(model=trained, rng=0, logfile=log, maxtries=3)
    decode, calls = gen.representation.decode, []

    def sometimes(batch):
        calls.append(batch.size)
        return [Failure('no atom is present') if k % 2 else atoms for k, atoms in enumerate(decode(batch))]

    gen.representation.decode = sometimes
    assert len(gen.sample(4)) == 4
    assert gen.failures['no atom is present'] == gen.statistics['rejected'] >= 2
    assert re.search(r'^rejected: \d+ of \d+: \d+ x no atom is present$', log.getvalue(), re.M)
    gen.representation.decode = lambda batch: [Failure('no atom is present')] * batch.size
    with pytest.raises(GenerationFailed, match='no atom is present'):
        gen.sample(2)


def test_command_line(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write('planes.traj', planes(8))
    assert main(['train', 'toy', 'planes.traj', '--out', 'run', '--steps', '5', '--batch-size', '4', '--quiet']) in (None, 0)
    assert 'next: ase-diffusion sample toy --model run/best.safetensors' in capsys.readouterr().out
    line = ['sample', 'toy', '--model', str(trained), '-n', '3', '--seed', '1', '-o', 'out.extxyz']
    assert main([*line, '--condition', 'filling=two', '--guidance-scale', '2']) in (None, 0)
    assert len(read('out.extxyz', ':')) == 3
    assert main([*line, '--condition', 'filling=three', '--force']) == 2
    assert 'filling is one of one, two' in capsys.readouterr().err
    assert main(['info', str(trained)]) in (None, 0)
    assert 'toy' in capsys.readouterr().out


class OnePass(toy.ToyNet):
    """A generator network of a GAN: no process, one pass."""

    def generate(self, batch, rng, conditions):
        noise = rng.bind(batch.rows['grid']).normal(batch.fields['grid'])
        return {'grid': toy.ToyGrid().encode(planes(1)).fields['grid'] + 0.01 * noise}


def test_a_model_without_a_process_takes_no_steps(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, 'OnePass', OnePass)
    header = {'kind': 'toy', 'representation': toy.ToyGrid().todict(), 'data': {}, 'conditions': {}}
    path = save_checkpoint(tmp_path / 'gan.safetensors', {'generator': OnePass(8), 'critic': toy.ToyNet(8)}, header)
    log = io.StringIO()
    gen = toy.ToyDiffusion(model=path, rng=0, logfile=log)
    images = gen.sample(3)
    assert [len(atoms) for atoms in images] == [1, 1, 1] and set(gen.networks) == {'generator', 'critic'}
    assert 'sampler' not in images[0].info['key_value_pairs'] and 'steps' not in gen.todict()
    assert log.getvalue().startswith('ToyDiffusion: 3 structures, cpu')
    for option in ({'steps': 20}, {'sampler': 'heun'}):
        with pytest.raises(ValueError, match='generates in one pass, without a diffusion process; leave out'):
            toy.ToyDiffusion(model=path, logfile=None, **option)


@pytest.mark.parametrize(
    ('change', 'law'),
    [
        ({'kind': 'zeolite', 'representation': {'name': 'Slab', 'height': [0, 1]}}, 'kind'),
        ({'representation': {'name': 'Nonsense'}}, 'Nonsense'),
        ({'process': {'processes': {'grid': {'name': 'nonsense'}}}}, 'nonsense'),
        ({'conditions': 7}, 'conditions'),
        ({'conditions': {'filling': ['one']}}, 'condition'),
    ],
)
def test_unknown_kinds_classes_and_fields_are_refused(change, law, tmp_path):
    good = {'kind': 'toy', 'representation': toy.ToyGrid().todict(), 'process': toy.ToyGrid().process().todict()}
    path = save_checkpoint(tmp_path / 'bad.safetensors', toy.ToyNet(8), good | change)
    with pytest.raises(CheckpointError, match=law):
        toy.ToyDiffusion(model=path, logfile=None)
