"""The folder of a training, for one network or several, with any trainer."""

import csv

import numpy as np
import pytest
import torch

from ase_diffusion.networks import PaiNN
from ase_diffusion.representations import Slab
from ase_diffusion.training import load_checkpoint
from ase_diffusion.training.run_folder import RunFolder, check_run, differences, identity

HEADER = {'kind': 'forcefield', 'representation': Slab().todict(), 'data': {'fingerprint': 'a'}, 'metrics': {'old': 1.0}}


def pair():
    torch.manual_seed(0)
    return {'generator': PaiNN(8, 1, 3.0, 4), 'critic': PaiNN(8, 2, 3.0, 4)}


def test_the_last_and_the_best_of_several_networks_are_kept(tmp_path):
    networks = pair()
    folder = RunFolder(tmp_path / 'run', networks, HEADER)
    assert folder.begun(10) == 0 and not folder.best.exists()
    for step, score in ((1, 0.5), (2, 0.3), (3, 0.4)):
        row = {'step': step, 'loss': score}
        folder.append(row)
        folder.keep(networks, row, score)
    best, last = load_checkpoint(folder.best), load_checkpoint(folder.last)
    assert list(best[0]) == ['generator', 'critic'] and best[1]['steps'] == 2 and last[1]['steps'] == 3
    assert best[1]['metrics'] == {'old': 1.0, 'step': 2, 'loss': 0.3} and folder.best_score == 0.3
    with folder.table.open() as file:
        assert [row['loss'] for row in csv.DictReader(file)] == ['0.5', '0.3', '0.4']


def test_a_run_goes_on_in_its_own_folder_only(tmp_path):
    networks = pair()
    folder = RunFolder(tmp_path, networks, HEADER)
    torch.save({'global_step': 7, 'run': folder.identity}, folder.resume)
    assert RunFolder(tmp_path, networks, {**HEADER, 'metrics': {}, 'units': {'x': 'A'}}).begun(10) == 7
    for header, nets, text in (
        ({**HEADER, 'data': {'fingerprint': 'b'}}, networks, "data.fingerprint 'a', now 'b'"),
        (HEADER, {**networks, 'critic': PaiNN(8, 3, 3.0, 4)}, 'networks.critic.settings.blocks 2, now 3'),
        (HEADER, networks['critic'], 'networks.generator .* now None'),
    ):
        with pytest.raises(ValueError, match=f'belongs to one training.*{text}.*Take another folder'):
            RunFolder(tmp_path, nets, header).begun(10)


def test_rounding_is_no_difference():
    assert differences({'a': [1.0, 2], 'b': {'c': 'x'}}, {'a': [1.0 + 1e-9, 2], 'b': {'c': 'y'}}) == ["b.c 'x', now 'y'"]
    assert identity(PaiNN(8, 1, 3.0, 4), {'data': {}, 'kind': 'x', 'metrics': 3})['networks']['denoiser']['name'] == 'PaiNN'


@pytest.mark.parametrize(
    'steps, minutes, lr', [(0, None, 1e-3), (-2, None, 1e-3), (2, -1, 1e-3), (2, 0, 1e-3), (2, None, float('nan'))]
)
def test_a_training_has_steps_time_and_a_learning_rate(steps, minutes, lr):
    with pytest.raises(ValueError, match=r'steps is an integer|minutes is a time|lr is the learning rate'):
        check_run(steps, minutes, lr, every=1, seed=0)


@pytest.mark.parametrize(
    'name, value', [('every', 0), ('every', 1.5), ('seed', -1), ('seed', 1.5), ('warmup', -5), ('ema', 1), ('ema', -1)]
)
def test_other_numbers_have_a_meaning_too(name, value):
    with pytest.raises(ValueError, match=f'{name} is '):
        check_run(1, None, 1e-3, **{'every': 1, 'seed': 0, name: value})


@pytest.mark.parametrize('content', [b'', b'PK half of a file', 'half', {'run': {}}, [1]])
def test_a_damaged_state_is_named_with_the_way_out(tmp_path, content):
    folder = RunFolder(tmp_path, pair(), HEADER)
    if content == 'half':
        torch.save({'global_step': 7, 'run': folder.identity}, folder.resume)
        content = folder.resume.read_bytes()[:300]
    if isinstance(content, bytes):
        folder.resume.write_bytes(content)
    else:
        torch.save(content, folder.resume)
    with pytest.raises(ValueError, match=r'resume\.ckpt is damaged \(.+\); take another folder \(out\), or delete this one'):
        folder.begun(10)


def test_settings_may_be_numbers_of_numpy(tmp_path):
    network = PaiNN(np.int64(8), 1, np.float32(3.0), 4)
    folder = RunFolder(tmp_path, network, {**HEADER, 'data': {'structures': np.int64(2)}})
    folder.keep(network, {'step': np.int64(1), 'loss': np.float32(0.5)}, 0.5)
    networks, header = load_checkpoint(folder.best)
    assert networks['denoiser'].settings == PaiNN(8, 1, 3.0, 4).settings and header['data'] == {'structures': 2}
    with pytest.raises(TypeError, match='a header holds numbers'):
        RunFolder(tmp_path, network, {'kind': object()})
