"""Recipes: data sets and batches for any representation, conditions of four forms, one header; a toy method trains and loads."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import nn

from ase_diffusion.diffusion import Batch, GeometricVP, JointProcess, Preconditioned
from ase_diffusion.errors import CheckpointError
from ase_diffusion.networks import NETWORKS
from ase_diffusion.networks.conditions import ConditionEmbedding, LevelEmbedding
from ase_diffusion.representations import REPRESENTATIONS, Failure, Slab
from ase_diffusion.representations.base import PlainRepresentation
from ase_diffusion.representations.conditions import conditions_of
from ase_diffusion.training import RandomBatches, Structures, load_checkpoint, train_method
from ase_diffusion.training.data import drop_conditions, fixed_batches, split_images, take, validation_mask
from ase_diffusion.training.recipe import condition_form, condition_forms, condition_scales


@dataclass
class Dots(PlainRepresentation):
    """Encode structures as pictures (B, 1, n, n) of +1 where an atom is and -1 elsewhere."""

    kinds: ClassVar[tuple[str, ...]] = ('dots',)
    fields: ClassVar[frozenset[str]] = frozenset({'image'})

    n: int = 4

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        pictures = torch.full((len(images), 1, self.n, self.n), -1.0)
        for picture, atoms in zip(pictures, images, strict=True):
            for x, y in np.floor(atoms.get_scaled_positions()[:, :2] * self.n).astype(int) % self.n:
                picture[0, x, y] = 1.0
        rows = torch.arange(len(images))
        extras = {'area': torch.tensor([atoms.cell.volume for atoms in images]), 'names': [str(a.symbols) for a in images]}
        return Batch({'image': pictures}, {'image': rows}, len(images), conditions=dict(conditions or {}), extras=extras)

    def decode(self, batch: Batch) -> list[Atoms | Failure]:
        out = []
        for picture in batch.fields['image']:
            x, y = np.nonzero(picture[0].numpy() > 0)
            places = np.stack([(x + 0.5) / self.n, (y + 0.5) / self.n, np.full(len(x), 0.5)], 1)
            cell = [self.n, self.n, 1.0]
            out.append(Atoms('H' * len(x), scaled_positions=places, cell=cell, pbc=True) if len(x) else Failure('no atom'))
        return out

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Shift all pictures by whole pixels."""
        shift = torch.randint(self.n, (2,), generator=rng).tolist()
        return batch.with_fields(image=batch.fields['image'].roll(shift, (2, 3)))

    def process(self) -> JointProcess:
        return JointProcess({'image': Preconditioned(GeometricVP(0.02, 20.0))})

    def todict(self) -> dict:
        return {'name': 'Dots', 'n': self.n}

    @classmethod
    def fromdict(cls, values: dict) -> Dots:
        return cls(values['n'])


class DotsNet(nn.Module):
    """Two circular convolutions."""

    def __init__(self, width=16, conditions=None):
        super().__init__()
        self.settings = dict(width=width, conditions=dict(conditions or {}))
        self.level = LevelEmbedding(width)
        self.conditions = ConditionEmbedding(conditions or {}, width)
        self.first = nn.Conv2d(1, width, 3, padding=1, padding_mode='circular')
        self.last = nn.Conv2d(width, 1, 3, padding=1, padding_mode='circular')

    def forward(self, batch, c_noise, conditions):
        c = self.level(c_noise)
        c = c + self.conditions(conditions, c)  # (B, w)
        h = torch.nn.functional.silu(self.first(batch.fields['image']) + c[:, :, None, None])  # (B, w, n, n)
        return {'image': self.last(h)}


QUIET = dict(progress=False, accelerator='cpu', warmup=2, every=100)
MIXED = {
    'gap': [0.5, None, 1.5, math.nan],
    'phase': ['hcp', 'fcc', None, 'fcc'],
    'elements': [('Mg', 'O'), ['O'], None, {'O', 'Mn'}],
    'cell': [(1.0, 2.0), None, [3.0, 2.0], np.array([2.0, 5.0])],
}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(REPRESENTATIONS, 'Dots', Dots)
    monkeypatch.setitem(NETWORKS, 'DotsNet', DotsNet)


def dots(n=24):
    """Rows and columns of atoms, with what may be asked for."""
    images = []
    for k in range(n):
        count = 1 + k % 3
        places = [[(j + 0.5) / 4, (k % 4 + 0.5) / 4, 0.5] for j in range(count)]
        atoms = Atoms('HHe'[: 1 + k % 2] + 'H' * (count - 1), cell=[4, 4, 1], pbc=True)[:count]
        atoms.set_scaled_positions(places)
        pairs = {'weight': float(k), 'phase': ('a', 'b')[k % 2], 'seed': 3}
        atoms.info['key_value_pairs'] = pairs if k else {'phase': 'a'}
        images.append(atoms)
    return images


def test_forms_come_from_values():
    forms = condition_forms(MIXED)
    assert {name: form.entry() for name, form in forms.items()} == {
        'gap': [0.5, 1.5],
        'phase': {'classes': ['fcc', 'hcp']},
        'elements': {'elements': [8, 12, 25]},
        'cell': {'low': [1.0, 2.0], 'high': [3.0, 5.0]},
    }
    scales = condition_scales(forms, MIXED)
    assert scales['gap'] == pytest.approx([1.0, 0.501]) and scales['phase'] == {'classes': 2}
    assert scales['elements'] == {'elements': True}
    assert scales['cell']['vector'] == 2 and scales['cell']['shift'] == pytest.approx([2.0, 3.0])


@pytest.mark.parametrize('values', [[1.0, 'a'], [(1.0, 2.0), (1.0,)], ['a', ('b',)]])
def test_values_of_several_forms_are_refused(values):
    with pytest.raises(ValueError, match='numbers, words, sets of symbols or vectors of one length; x has'):
        condition_form('x', values)
    with pytest.raises(ValueError, match='none with x'):
        condition_form('x', [None, math.inf])
    with pytest.raises(ValueError, match='keyword of sampling'):
        condition_forms({'guidance_scale': [1.0]})


def test_conditions_are_left_out_each_and_all():
    size, rng = 20_000, np.random.default_rng(0)
    one = drop_conditions({'a': torch.zeros(size)}, rng, 0.2)['a'].isnan()
    assert one.double().mean() == pytest.approx(0.2, abs=0.01)
    values = {'a': torch.zeros(size), 'b': torch.zeros(size, 3)}
    both = drop_conditions(values, rng, 0.2)
    a, b = both['a'].isnan(), both['b'].isnan()
    assert torch.equal(b.any(1), b.all(1)) and not values['a'].isnan().any()
    together, alone = 0.2 + 0.8 * 0.2**2, 0.8 * 0.2 * 0.8
    for found, share in ((a & b[:, 0], together), (a & ~b[:, 0], alone), (b[:, 0] & ~a, alone)):
        assert found.double().mean() == pytest.approx(share, abs=0.01)
    assert drop_conditions(values, rng, 0.0) is values and drop_conditions({}, rng, 0.2) == {}


def test_whole_groups_validate():
    groups = np.repeat(np.arange(10), 3)
    inside = validation_mask(groups, 0.3, seed=1)
    assert inside.sum() == 9 and all(len(set(inside[groups == g])) == 1 for g in range(10))
    assert (validation_mask(groups, 0.3, seed=1) == inside).all() and (validation_mask(groups, 0.3, seed=2) != inside).any()
    assert validation_mask(['a', 'a']) is None and validation_mask(['a', 'b'], 0.01).sum() == 1


@pytest.mark.parametrize('seed', range(6))
def test_a_composition_that_most_structures_have_is_trained_on(seed):
    for groups in (['NaCl'] * 6 + ['H2O'], ['NaCl'] * 9 + ['MgO', 'KCl', 'LiF']):
        inside = validation_mask(groups, 0.05, seed)
        assert 0 < inside.sum() < len(groups) / 2
    assert validation_mask(np.repeat(range(10), 2), 0.8, seed).sum() == 16  # a share that was asked for


@pytest.mark.parametrize('options', [{'batch_size': 0}, {'batch_size': 2.5}, {'dropout': 2}, {'dropout': -0.1}])
def test_batches_are_refused_that_are_none(options):
    with pytest.raises(ValueError, match=r'batch_size is an integer, 1 or more|dropout is the share'):
        RandomBatches(Structures(dots(4)), Dots(), {}, **options)


def test_splits_that_the_data_do_not_carry_are_named(caplog):
    assert split_images(dots(3)) == (dots(3), None) and not caplog.text
    assert split_images(dots(3), ['test']) == (dots(3), None)
    assert 'the data has no splits: all of it is taken, not test' in caplog.text


def test_dense_fields_are_encoded_once_and_batches_depend_on_seed_and_number(monkeypatch):
    data = Structures.from_atoms(dots(), ['weight', 'phase'])
    forms, calls = condition_forms(data.conditions), []
    encode = Dots.encode
    monkeypatch.setattr(Dots, 'encode', lambda self, images, conditions=None: calls.append(1) or encode(self, images, conditions))
    source, late = (RandomBatches(data, Dots(), forms, batch_size=5, seed=2, start=k) for k in (0, 3))
    before = len(calls)
    batches, iterator = [source.draw(k) for k in range(4)], iter(late)
    assert len(calls) == before
    again = next(iterator)
    assert torch.equal(again.fields['image'], batches[3].fields['image'])
    assert torch.equal(again.conditions['weight'].nan_to_num(-1), batches[3].conditions['weight'].nan_to_num(-1))
    assert not torch.equal(batches[0].fields['image'], batches[1].fields['image'])
    plain = source.batch_of([3, 0])
    assert plain.conditions['weight'][0] == 3 and plain.conditions['weight'][1].isnan() and plain.conditions['phase'][0] == 1
    assert torch.equal(plain.fields['image'], encode(Dots(), [data.images[3], data.images[0]]).fields['image'])
    assert plain.extras['names'] == [str(data.images[k].symbols) for k in (3, 0)] and len(plain.extras['area']) == 2


def test_batches_are_augmented_and_validation_is_not():
    data = Structures(dots(1))
    source = RandomBatches(data, Dots(), {}, batch_size=1)
    pictures = {tuple(source.draw(k).fields['image'].flatten().tolist()) for k in range(60)}
    assert len(pictures) > 10 and all(sum(x > 0 for x in picture) == 1 for picture in pictures)
    assert len({tuple(b.fields['image'].flatten().tolist()) for _ in range(3) for b in fixed_batches(source)}) == 1


def test_flat_fields_are_encoded_batch_by_batch(ag_slab):
    images = []
    for k in range(4):
        atoms = ag_slab.copy()
        atoms += Atoms('O' * (1 + k), positions=[[j, k, 14.0] for j in range(1 + k)])
        images.append(atoms)
    source = RandomBatches(
        Structures(images, {'energy': [0.0, 1.0, None, 3.0]}), Slab((0, 9)), condition_forms({'energy': [0.0, 3.0]})
    )
    batch = source.batch_of(np.array([2, 1]))
    assert batch.rows['positions'].bincount().tolist() == [3, 2] and batch.conditions['energy'][1] == 1
    assert batch.conditions['energy'][0].isnan()


def test_taking_from_a_batch():
    batch = Dots().encode(dots(4), {'weight': torch.arange(4.0)})
    batch.extras['shape'] = (4, 4)
    some = take(batch, [2, 2, 0])
    assert some.size == 3 and some.conditions['weight'].tolist() == [2, 2, 0] and some.extras['shape'] == (4, 4)


def test_structures_are_split_by_composition_or_one_by_one():
    training, held = Structures(dots(), {'k': list(range(24))}).split(0.3)
    formulas = [{str(a.symbols) for a in part.images} for part in (training, held)]
    assert not formulas[0] & formulas[1] and sorted(training.conditions['k'] + held.conditions['k']) == list(range(24))
    training, held = Structures(dots(1) * 10).split(0.2)
    assert len(training) == 8 and len(held) == 2
    one = Structures(dots(1))
    assert one.split() == (one, one)


def test_data_sets_refuse_what_is_none():
    with pytest.raises(ValueError, match='empty'):
        Structures([])
    with pytest.raises(ValueError, match='one value per structure, 4; gap has 3'):
        Structures(dots(4), {'gap': [1, 2, 3]})
    with pytest.raises(ValueError, match=r"no structure has a key-value pair \['colour'\]"):
        Structures.from_atoms(dots(4), ['colour'])
    assert set(Structures.from_atoms(dots(4)).conditions) == {'weight'}  # numbers, without provenance


def test_a_toy_method_needs_no_data_set_and_no_recipe(tmp_path, toy):
    pytest.importorskip('lightning')
    common = dict(conditions=['weight', 'phase'], units={'image': '1'}, sampling={'sampler': 'heun', 'steps': 5}, batch_size=16)
    train_method(Dots(), DotsNet, dots(), tmp_path, steps=20, lr=1e-2, **common, **QUIET)
    best = train_method(Dots(), DotsNet, dots(), tmp_path, steps=150, lr=1e-2, **common, **QUIET)
    networks, header = load_checkpoint(best)
    assert isinstance(networks['denoiser'], DotsNet)
    assert (
        header['kind'] == 'dots' and header['sampling'] == {'sampler': 'heun', 'steps': 5} and header['units'] == {'image': '1'}
    )
    low, high = header['conditions']['weight']
    assert header['conditions']['phase'] == {'classes': ['a', 'b']} and 1.0 <= low < high <= 23.0
    assert set(conditions_of(header)) == set(networks['denoiser'].settings['conditions'])
    assert header['data']['elements'][0] == 1 and 0 < header['data']['structures'] < 24
    with (tmp_path / 'log.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]['val_loss']) < 0.95 * float(rows[0]['val_loss'])
    start = networks['denoiser']
    with pytest.raises(ValueError, match=r"knows the conditions \['phase', 'weight'\], not \['more'\]"):
        train_method(Dots(), start, dots(), tmp_path / 'b', conditions={'more': [1.0] * 24}, steps=1, **QUIET)
    with pytest.raises(ValueError, match='belongs to one training'):
        train_method(Dots(), DotsNet, dots(12), tmp_path, steps=200, **common, **QUIET)
    again = train_method(Dots(), start, dots(), tmp_path / 'b', conditions=['phase'], steps=2, validation=dots(4), **QUIET)
    assert load_checkpoint(again)[1]['conditions'] == {'phase': {'classes': ['a', 'b']}}


def test_the_splits_of_structures_are_taken(tmp_path, toy):
    pytest.importorskip('lightning')
    images = dots(12)
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs']['split'] = ('train', 'val', 'test')[k % 3]
    header = load_checkpoint(train_method(Dots(), DotsNet, images, tmp_path, steps=1, **QUIET))[1]
    assert header['data']['structures'] == 4


def test_a_method_that_is_not_registered_is_refused(tmp_path):
    pytest.importorskip('lightning')
    best = train_method(Dots(), DotsNet, dots(), tmp_path, steps=1, **QUIET)
    with pytest.raises(CheckpointError, match='asks for the network .DotsNet.; known'):
        load_checkpoint(best)
