"""The crystal generator: perturbation by shipped models, training from it, formulas in databases."""

from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect

from ase_diffusion import CrystalDiffusion, CrysTensDiffusion, PointCloudDiffusion, ZeoliteDiffusion
from ase_diffusion.errors import CheckpointError
from ase_diffusion.training.crystal_data import CrystalData

OPTIONS = dict(batch_size=8, progress=False, accelerator='cpu', every=10, warmup=5)
SMALL = dict(features=16, blocks=1, **OPTIONS)
QUICK = dict(steps=6, logfile=None, rng=1, maxtries=50)


def data():
    images = [bulk(('NaCl', 'LiCl', 'NaF')[k % 3], 'rocksalt', a=5.0 + 0.02 * k) for k in range(16)]
    images = [atoms * (2, 1, 1) if k % 4 == 0 else atoms for k, atoms in enumerate(images)]
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs'] = {'gap': 0.1 * k, 'energy_per_atom': -3.0 + 0.01 * k}
    return images


def test_perturb_keeps_the_species_unless_asked_not_to():
    gen = CrystalDiffusion(model='perov-5', steps=20, logfile=None, rng=0)
    gen._reason_to_reject = lambda atoms: None
    cell = [[3.9, 0, 0], [3.9, 3.9, 0], [0, 0, 3.9]]  # not reduced: models know reduced cells only
    sites = [[0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0], [0.5, 0, 0.5], [0.5, 0.5, 0.5]]
    parent = Atoms('SrTiO3', scaled_positions=sites, cell=cell, pbc=True)
    near = gen.perturb(parent, 0.2, n=4)
    assert {a.get_chemical_formula() for a in near} == {'O3SrTi'}
    assert np.mean([abs(a.cell.volume / parent.cell.volume - 1) for a in near]) < 0.1
    assert any(a.get_chemical_formula() != 'O3SrTi' for a in gen.perturb(parent, 0.3, n=4, species=True))
    with pytest.raises(ValueError, match='exceed the least noise that the model knows, 0.0195 A'):
        gen.perturb(parent, 0.01)
    with pytest.raises(ValueError, match='fixes the species'):
        CrystalDiffusion('SrTiO3', model='perov-5', logfile=None).perturb(parent, species=True)


@pytest.mark.parametrize(
    ('make', 'options', 'text'),
    [
        ({}, {'csp_fraction': 1.0}, 'predicts structures of a given composition'),
        ({'stoich': 'KBr'}, {}, 'never saw Br, K'),
        ({'natoms': 9}, {}, 'cells of up to 4'),
        ({'conditioning': 'cdi'}, {'conditioning': 'cds'}, "conditioning='cds', not 'cdi'"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_training(make, options, text, tmp_path):
    gen = CrystalDiffusion(model='untrained', logfile=None, **make)
    with pytest.raises(ValueError, match=text):
        gen.fit(data(), tmp_path / 'run', steps=5, **{**SMALL, **options})
    assert not (tmp_path / 'run').exists()


def test_a_fit_that_is_interrupted_leaves_the_model_as_it_was(monkeypatch):
    gen = CrystalDiffusion(model='perov-5', **QUICK)
    before = {name: value.clone() for name, value in gen.network.state_dict().items()}
    draw, salts = CrystalData.draw, [bulk(name, 'rocksalt', a=4.3) for name in ('LiF', 'NaF', 'MgO', 'KF')]
    for atoms in salts:
        atoms.info['key_value_pairs'] = {'heat_of_formation': 0.1}

    def interrupted(self, k):
        if k > 3:
            raise KeyboardInterrupt
        return draw(self, k)

    monkeypatch.setattr(CrystalData, 'draw', interrupted)
    with pytest.raises(KeyboardInterrupt):
        gen.fit(salts, steps=10, **OPTIONS)
    assert all((value == gen.network.state_dict()[name]).all() for name, value in before.items())
    assert gen.model == 'perov-5' and len(gen.sample(1)) == 1


@pytest.mark.parametrize(('stoich', 'text'), [('InF', 'In1F1'), ('NaN', 'Na1N1')])
def test_formulas_that_read_like_numbers_go_into_a_database(stoich, text, tmp_path):
    gen = CrystalDiffusion(stoich, steps=4, logfile=None, rng=0)
    gen._reason_to_reject = lambda atoms: None
    atoms = gen.sample()
    with connect(tmp_path / 'a.db') as db:
        db.write(atoms, **atoms.info['key_value_pairs'])
        assert db.get(id=1).stoich == text


@pytest.mark.parametrize('thing', [4, Atoms('NaCl')])
def test_a_formula_is_a_text(thing):
    with pytest.raises(TypeError, match='(stoich|a composition) is a formula'):
        CrystalDiffusion(thing, logfile=None)


def test_fit_uses_the_splits_that_the_data_carries(tmp_path):
    images = data()
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs']['split'] = ('train', 'train', 'val', 'test')[k % 4]
    gen = CrystalDiffusion(model='untrained', logfile=None, rng=1)
    gen.fit(images, tmp_path / 'run', steps=5, conditions=['gap'], **SMALL)
    assert gen.header['data']['structures'] == 8
    assert list(gen.header['conditions']) == ['gap']
    again = CrystalDiffusion.from_pretrained(tmp_path / 'run' / 'best.safetensors', **QUICK).sample(1)
    assert len(again) == 1


@pytest.mark.parametrize('data', [None, 3, bulk('Cu'), ['a.cif'], [bulk('Cu'), None], []])
def test_data_that_are_no_structures_are_refused(data):
    for make in (CrystalDiffusion, partial(PointCloudDiffusion, ['Cu']), CrysTensDiffusion, ZeoliteDiffusion):
        with pytest.raises((TypeError, ValueError), match='list of Atoms|are ase.Atoms|data set is empty'):
            make(model='untrained', logfile=None).fit(data, steps=1)


def test_arguments_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(TypeError, match='CrysTensDiffusion has no argument space_group; .* conditions are keywords of sample'):
        CrysTensDiffusion(space_group=225)
    with pytest.raises(TypeError, match="unknown conditions .'natoms'.*; stoich, natoms, elements and space_group are arguments"):
        CrystalDiffusion(logfile=None).sample(1, natoms=3)
    with pytest.raises(FileNotFoundError, match='logfile=.* needs the folder .* mkdir -p'):
        CrystalDiffusion(model='untrained', logfile=tmp_path / 'none' / 'x.log')
    (tmp_path / 'best.safetensors').write_bytes(b'')
    with pytest.raises(CheckpointError, match='a model is a file, and .* a folder: give .*best.safetensors'):
        CrystalDiffusion(model=tmp_path)
