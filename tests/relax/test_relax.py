"""Relaxation agrees with plain ASE, keeps what is fixed, and survives bad structures."""

import copy
import dataclasses
import inspect
import io
import logging
from typing import get_overloads

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import BFGS, FIRE

from ase_diffusion.relax import irelax, relax
from ase_diffusion.relax.relax import RelaxOptions
from ase_diffusion.relax.relaxer import Relaxer
from ase_diffusion.relax.settings import Settings


@pytest.fixture
def images():
    """Three adatoms on Cu(111), the lower layer fixed at positions with no short decimal form."""
    made = []
    for x in (0.1, 0.9, 1.7):
        atoms = fcc111('Cu', (2, 2, 2), a=3.61 + np.pi / 1000, vacuum=8.0)
        atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 2))
        add_adsorbate(atoms, 'Cu', 2.1, (x, 0.3))
        atoms.info = {'key_value_pairs': {'origin': 'test'}, 'data': {'note': [1, 2]}}
        made.append(atoms)
    return made


class Broken(EMT):
    """EMT that fails for structures with a silver atom."""

    how = 'raise'

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if 47 not in atoms.numbers:
            return
        if self.how == 'raise':
            raise RuntimeError('no convergence')
        if self.how == 'energy':
            self.results['energy'] = np.nan
        if self.how == 'forces':
            self.results['forces'] = np.full((len(atoms), 3), np.nan)
        if self.how == 'huge':
            self.results['forces'] = np.full((len(atoms), 3), 1e9)


def test_agrees_with_plain_ase(images):
    plain = images[1].copy()
    plain.calc = EMT()
    opt = BFGS(plain, logfile=None)
    converged = opt.run(fmax=0.02, steps=100)
    result = relax(images[1], 'emt', fmax=0.02, steps=100)
    assert isinstance(result, Atoms)
    assert np.allclose(result.positions, plain.positions, rtol=0, atol=1e-10)
    assert result.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=1e-10)
    assert np.allclose(result.get_forces(), plain.get_forces(), atol=1e-9)
    pairs = result.info['key_value_pairs']
    assert pairs['relax_steps'] == opt.nsteps > 0
    assert pairs['relax_converged'] is True
    assert converged
    assert np.abs(result.get_forces()).max() < 0.02


def test_provenance_order_and_energy_of_the_input(images):
    results = relax(images, EMT(), fmax=0.05)
    for before, after in zip(images, results, strict=True):
        start = before.copy()
        start.calc = EMT()
        pairs = after.info['key_value_pairs']
        assert pairs['energy_generated'] == pytest.approx(start.get_potential_energy(), abs=1e-9)
        assert pairs['relax_calculator'] == 'EMT'
        assert pairs['origin'] == 'test'
        assert isinstance(after.calc, SinglePointCalculator)
        assert after.get_potential_energy() < pairs['energy_generated']
        assert (after.get_tags() == before.get_tags()).all()


def test_input_is_not_changed(images):
    kept = copy.deepcopy(images)
    relax(images, 'emt', steps=3)
    relax([images[0]], Broken(), steps=3)
    for before, after in zip(kept, images, strict=True):
        assert before == after
        assert before.info == after.info
        assert after.calc is None
        assert str(before.constraints) == str(after.constraints)


def test_fixed_atoms_are_bit_identical(images):
    for result, before in zip(relax(images, 'emt', optimizer='FIRE', steps=30), images, strict=True):
        fixed = before.get_tags() == 2
        assert result.positions[fixed].tobytes() == before.positions[fixed].tobytes()
        assert (result.positions[~fixed] != before.positions[~fixed]).any()
        assert (result.constraints[0].index == before.constraints[0].index).all()


def test_fixed_atoms_survive_an_optimizer_that_moves_them(images):
    class Opt(BFGS):
        def step(self, *args):
            super().step(*args)
            self.optimizable.atoms.positions[0] += 1e-3

    result = relax(images[0], 'emt', optimizer=Opt, steps=3)
    fixed = images[0].get_tags() == 2
    assert result.positions[fixed].tobytes() == images[0].positions[fixed].tobytes()
    check = result.copy()
    check.calc = EMT()
    assert result.get_potential_energy() == pytest.approx(check.get_potential_energy(), abs=1e-10)


def test_forces_are_raw(images):
    result = relax(images[0], 'emt', steps=2)
    check = result.copy()
    check.calc = EMT()
    raw = result.get_forces(apply_constraint=False)
    assert np.allclose(raw, check.get_forces(apply_constraint=False), atol=1e-10)
    assert np.abs(raw[:4]).max() > 1e-3
    assert np.abs(result.get_forces()[:4]).max() == 0


def test_frames_hold_every_step(images):
    frames = []
    results = relax(images[:2], 'emt', frames=frames)
    assert len(frames) == 2
    for path, result, before in zip(frames, results, images, strict=False):
        steps = [frame.info['key_value_pairs']['step'] for frame in path]
        assert steps == list(range(result.info['key_value_pairs']['relax_steps'] + 1))
        assert np.array_equal(path[0].positions, before.positions)
        assert np.array_equal(path[-1].positions, result.positions)
        assert path[-1].get_potential_energy() == result.get_potential_energy()
        assert np.abs(path[0].get_forces(apply_constraint=False)[:4]).max() > 0


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@pytest.mark.parametrize('how', ['raise', 'energy', 'forces', 'huge'])
def test_one_bad_structure_is_reported_and_the_others_kept(images, how, caplog):
    calc = Broken()
    calc.how = how
    images[1].symbols[-1] = 'Ag'
    with caplog.at_level(logging.WARNING):
        results = relax(images, calc)
    assert 'structure 1' in caplog.text
    assert [bool(atoms.info['key_value_pairs'].get('relax_failed')) for atoms in results] == [False, True, False]
    assert np.array_equal(results[1].positions, images[1].positions)
    assert results[1].calc is None
    assert results[1].info['data']['note'] == [1, 2]
    text = results[1].info['data']['relax_error']
    assert {'raise': 'no convergence', 'energy': 'energy nan', 'forces': 'NaN', 'huge': 'positions became'}[how] in text
    alone = relax(images[2], 'emt')
    assert np.allclose(results[2].positions, alone.positions, atol=1e-8)


def test_huge_forces_at_the_end_are_reported(images):
    calc = Broken()
    calc.how = 'huge'
    images[0].symbols[-1] = 'Ag'
    result = relax(images[0], calc, steps=0)
    assert 'forces above 1000 eV/A are left after 0 steps' in result.info['data']['relax_error']


def test_atoms_shot_away_are_reported(images):
    class Cannon(BFGS):
        def step(self, *args):
            super().step(*args)
            self.optimizable.atoms.positions[-1, 2] += 60

    result = relax(images[0], 'emt', optimizer=Cannon)
    assert 'moved' in result.info['data']['relax_error']


def test_element_unknown_to_the_calculator(images):
    images[0].symbols[-1] = 'U'
    results = relax(images, 'emt', steps=2)
    assert results[0].info['key_value_pairs']['relax_failed'] is True
    assert 'relax_failed' not in results[1].info['key_value_pairs']


def test_failure_is_forgotten_when_it_heals(images):
    images[1].symbols[-1] = 'Ag'
    failed = relax(images[1], Broken())
    healed = relax(failed, 'emt', steps=2)
    assert 'relax_failed' not in healed.info['key_value_pairs']
    assert 'relax_error' not in healed.info['data']
    assert failed.info['key_value_pairs']['relax_failed'] is True


def test_provenance_survives_db_traj_and_extxyz(images, tmp_path):
    images[1].symbols[-1] = 'Ag'
    results = relax(images, Broken(), steps=5)
    with connect(tmp_path / 'a.db') as db:
        for atoms in results:
            db.write(atoms, data=atoms.info['data'], **atoms.info['key_value_pairs'])
    rows = list(connect(tmp_path / 'a.db').select())
    assert [row.get('relax_failed', False) for row in rows] == [False, True, False]
    assert rows[0].relax_steps == 5
    assert rows[0].relax_converged is False
    assert np.array_equal(rows[0].forces, results[0].get_forces(apply_constraint=False))
    assert 'no convergence' in rows[1].data['relax_error']
    write(tmp_path / 'a.traj', results[0])
    again = read(tmp_path / 'a.traj')
    assert again.info['key_value_pairs'] == results[0].info['key_value_pairs']
    assert again.get_potential_energy() == results[0].get_potential_energy()
    write(tmp_path / 'a.extxyz', results[0])
    assert read(tmp_path / 'a.extxyz').get_potential_energy() == pytest.approx(results[0].get_potential_energy())


@pytest.mark.parametrize('optimizer', ['BFGS', 'lbfgs', 'FIRE', 'BFGSLineSearch', 'QuasiNewton', FIRE])
def test_optimizer_by_name_or_class(images, optimizer):
    result = relax(images[0], 'emt', optimizer=optimizer, fmax=0.05, steps=200)
    assert result.info['key_value_pairs']['relax_converged'] is True


def test_zero_steps_is_a_single_point(images):
    result = relax(images[0], 'emt', steps=0)
    assert np.array_equal(result.positions, images[0].positions)
    assert result.get_potential_energy() == result.info['key_value_pairs']['energy_generated']
    assert result.info['key_value_pairs']['relax_steps'] == 0


def test_filter_relaxes_the_cell():
    atoms = bulk('Cu', a=3.9)
    result = relax(atoms, 'emt', filter=FrechetCellFilter, fmax=0.01)
    assert (result.cell.volume * 4) ** (1 / 3) == pytest.approx(3.59, abs=0.02)
    assert result.get_stress() == pytest.approx(np.zeros(6), abs=0.01)


def test_filter_that_would_move_fixed_atoms(images):
    with pytest.raises(ValueError, match='FrechetCellFilter changes the cell.*filter=None'):
        relax(images, 'emt', filter=FrechetCellFilter)
    hidden = relax(images[0], 'emt', filter=lambda atoms: FrechetCellFilter(atoms), steps=3)
    assert 'cell changed' in hidden.info['data']['relax_error']


def test_nothing_in_nothing_out():
    assert relax([], 'emt') == []


def test_log_has_a_line_for_each(images):
    images[1].symbols[-1] = 'Ag'
    stream = io.StringIO()
    relax(images, Broken(), logfile=stream, steps=2)
    text = stream.getvalue()
    assert 'fmax 0.05 eV/A' in text
    assert text.count('not converged') == 2
    assert 'failed: RuntimeError: no convergence' in text


def test_silent_by_default(images, capsys):
    relax(images[0], 'emt', steps=1)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('error', 'kwargs', 'text'),
    [
        (ValueError, {'optimizer': 'BFFS'}, "BFGS.*'BFFS'"),
        (TypeError, {'optimizer': 3}, 'class or one of'),
        (ValueError, {'fmax': 0}, 'fmax is a positive force'),
        (ValueError, {'fmax': np.nan}, 'fmax is a positive force'),
        (ValueError, {'steps': -1}, 'steps is an integer'),
        (ValueError, {'steps': 2.5}, 'steps is an integer'),
        (ValueError, {'filter': 'cell'}, "filter is a class or one of .*FrechetCellFilter.*'cell'"),
        (TypeError, {'filter': 3}, 'filter is a class'),
        (ValueError, {'timeout': 0}, 'timeout is a time in seconds'),
        (ValueError, {'min_distance': -1}, 'min_distance is a part'),
        (ValueError, {'max_energy': np.nan}, 'max_energy is an energy'),
        (ValueError, {'batch_size': 0}, 'batch_size is an integer'),
        (ValueError, {'calculator': 'emtt'}, "'emtt'"),
        (TypeError, {'images': ['a.traj']}, 'number 0 is str'),
        (TypeError, {'images': 3}, 'number 0 is int'),
        (TypeError, {'frames': ()}, 'frames is a list'),
    ],
)
def test_bad_input(images, error, kwargs, text):
    with pytest.raises(error, match=text):
        relax(**{'images': images, 'calculator': 'emt', **kwargs})


def test_the_arguments_of_relax_are_those_of_settings_and_relaxer():
    keywords = {name: p.default for name, p in inspect.signature(relax).parameters.items() if p.kind is p.KEYWORD_ONLY}
    settings = {field.name: field.default for field in dataclasses.fields(Settings)}
    relaxer = {name: p.default for name, p in inspect.signature(Relaxer).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords == {**settings, **relaxer, 'frames': None, 'logfile': None}
    assert inspect.signature(irelax).parameters == inspect.signature(relax).parameters
    with pytest.raises(TypeError, match="argument 'fmx'"):
        irelax([], 'emt', fmx=0.1)


def test_type_checkers_know_the_keywords():
    """The overloads say that Atoms give Atoms and lists lists; their keywords are those of the function."""
    keywords = [name for name, p in inspect.signature(relax).parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert list(RelaxOptions.__annotations__) == keywords and len(get_overloads(relax)) == 2
