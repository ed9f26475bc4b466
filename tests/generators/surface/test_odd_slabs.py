"""Odd slabs: a right answer or an error of ours, and never a moved substrate."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixedPlane, Hookean
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.relax import relax
from ase_diffusion.search import RandomStructureSearch, random_start
from ase_diffusion.utils.atoms import cut_of, energy_of

QUIET = dict(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
HELD = ('all', 'bottom', 'negative', 'mask', 'several', 'top', 'none')
OTHERS = {
    'hookean': lambda n: [Hookean(-1, (0.0, 0.0, 0.0), rt=0.1, k=0.5)],
    'cartesian': lambda n: [FixCartesian([-1, 0], (True, True, False))],
    'plane': lambda n: [FixedPlane(-1, (0, 0, 1))],
    'bond': lambda n: [FixBondLength(0, -1)],
}


def held_constraints(slab, how):
    """Return constraints of FixAtoms and the mask that they mean."""
    n, bottom = len(slab), slab.get_tags() == slab.get_tags().max()
    mask = {'bottom': bottom, 'top': ~bottom, 'none': np.zeros(n, bool)}.get(how, np.ones(n, bool))
    if how == 'negative':
        return [FixAtoms(range(-n, 0))], mask
    if how == 'mask':
        return [FixAtoms(mask=mask.tolist())], mask
    if how == 'several':
        return [FixAtoms([-1]), FixAtoms(range(n // 2)), FixAtoms(np.arange(n // 2 - 1, n))], mask
    return ([FixAtoms(np.flatnonzero(mask))] if mask.any() else []), mask


@st.composite
def slabs(draw):
    """Draw a slab of four or eight silver atoms, the mask of its atoms that are held, and what is odd about it."""
    build = draw(st.sampled_from([fcc111, fcc100]))
    slab = build('Ag', (2, 2, draw(st.integers(1, 2))), a=4.16, vacuum=draw(st.sampled_from([6.0, 10.0])))
    slab.rattle(0.03, seed=draw(st.integers(0, 3)))
    odd = draw(
        st.sets(st.sampled_from(['wrapped', 'flipped', 'lefthanded', 'skewed', 'shifted', 'shuffled', 'tilted', 'arrays']))
    )
    if 'arrays' in odd:
        slab.set_initial_magnetic_moments(np.arange(len(slab), dtype=float))
        slab.set_array('own', np.arange(2 * len(slab)).reshape(-1, 2))
        slab.info.update(mine={'a': [1]}, key_value_pairs={'U': 3.0, 'relax_failed': True}, data={'relax_error': 'old'})
    if 'skewed' in odd:
        slab.cell[2, :2] = [1.3, -0.4]
    if 'flipped' in odd:
        slab.rotate(180, 'x', rotate_cell=True)
    if 'lefthanded' in odd:
        slab.cell[[0, 1]] = slab.cell[[1, 0]]
    if 'tilted' in odd:
        slab.rotate(20, 'y', rotate_cell=True)
    if 'shifted' in odd:
        slab.positions += [9.0, -7.0, draw(st.sampled_from([-5.0, 4.0]))]
    if 'wrapped' in odd:
        slab.positions[:, 2] -= slab.positions[:, 2].mean()
        slab.pbc = True
        slab.wrap()
    if 'shuffled' in odd:
        slab = slab[np.random.default_rng(0).permutation(len(slab))]
    slab.pbc = draw(st.sampled_from([(True, True, False)] * 5 + [(True, False, False), (False,) * 3, (True,) * 3]))
    constraints, mask = held_constraints(slab, draw(st.sampled_from(HELD)))
    other = draw(st.sampled_from([None, None, *OTHERS]))
    slab.set_constraint([*constraints, *(OTHERS[other](len(slab)) if other else [])])
    return slab, mask, odd


def state(slab):
    """Return what must not change in the input."""
    return slab.positions.tobytes(), slab.cell[:].tobytes(), slab.pbc.tobytes(), str(slab.info), str(slab.constraints)


def check_result(atoms, slab, mask, odd):
    """Check slab, order, constraints, arrays and info of a structure on it."""
    n = len(slab)
    assert np.array_equal(atoms.positions[:n][mask], slab.positions[mask])
    assert np.array_equal(atoms.numbers[:n], slab.numbers) and np.array_equal(atoms.cell[:], slab.cell[:])
    assert np.array_equal(atoms.pbc, slab.pbc)
    held = sorted({int(i) for each in atoms.constraints if isinstance(each, FixAtoms) for i in each.index})
    assert held == np.flatnonzero(mask).tolist()
    assert len(atoms.constraints) == len(slab.constraints)
    assert (atoms.get_tags()[n:] > slab.get_tags().max()).all()
    if 'arrays' in odd:
        moments = [*slab.get_initial_magnetic_moments(), *[0] * (len(atoms) - n)]
        assert np.array_equal(atoms.get_initial_magnetic_moments(), moments)
        assert np.array_equal(atoms.arrays['own'][:n], slab.arrays['own'])
        assert atoms.info['mine'] == {'a': [1]} and atoms.info['key_value_pairs']['U'] == 3.0
        assert 'relax_failed' not in atoms.info['key_value_pairs'] and 'relax_error' not in atoms.info.get('data', {})


def is_fine(slab, mask):
    """Tell, independently of the package, whether a slab is one that everything takes."""
    flat = np.abs(slab.cell[:2, 2]).max() < 1e-6 and slab.pbc.tolist() == [True, True, False]
    z = np.sort(slab.positions[:, 2])
    return flat and mask.any() and np.ptp(z) < 4 and (mask.all() or slab.positions[~mask, 2].min() >= z[-1] - 0.2)


@settings(max_examples=40, **QUIET)
@given(slabs())
def test_generation(drawn):
    slab, mask, odd = drawn
    before = state(slab)
    try:
        gen = SurfaceDiffusion(slab, {'Ag': np.int64(1), 'O': 1}, rng=0, steps=8, validate=False, logfile=None)
        [atoms] = gen.sample(np.int64(1))
    except ValueError as error:
        assert not is_fine(slab, mask), error
        assert state(slab) == before
        return
    check_result(atoms, slab, mask, odd)
    low, high = gen.representation.height
    z = atoms.positions[np.r_[~mask, True, True], 2] - slab.positions[mask, 2].max()
    assert (z > low - 1e-4).all() and (z < high + 1e-4).all()
    assert slab.positions[~mask, 2].min(initial=np.inf) > slab.positions[mask, 2].max() - 1.01  # nothing came from below
    assert cut_of(atoms) is None
    again = gen.again(atoms)
    assert np.array_equal(again.positions, atoms.positions)
    parent = atoms.copy()
    parent.set_array('later', np.arange(len(atoms)))
    near, anew = gen.perturb(parent, 0.1, None), gen.complete(parent, [len(atoms) - 1], repeats=1)
    for one in (near, anew):
        check_result(one, slab, mask, odd)
        assert np.array_equal(one.arrays['later'], parent.arrays['later'])
    assert np.array_equal(anew.positions[:-1], parent.positions[:-1])
    assert state(slab) == before


@settings(max_examples=40, **QUIET)
@given(slabs(), st.sampled_from(['emt', 'ag-o']))
def test_relaxation(drawn, calculator):
    slab, mask, odd = drawn
    slab = slab + Atoms('O', [slab.positions[slab.positions[:, 2].argmax()] + [0.3, 0.2, 2.0]])
    constraints = [FixAtoms(np.flatnonzero(mask) - (len(slab) if len(mask) % 8 else 0))] if mask.any() else []
    slab.set_constraint(constraints)
    before = state(slab)
    images = relax([slab, slab], calculator, steps=2) if calculator == 'emt' or mask.any() else []
    for new in images:
        assert state(slab) == before
        assert np.array_equal(new.positions[:-1][mask], slab.positions[:-1][mask])
        assert np.array_equal(new.cell[:], slab.cell[:]) and np.array_equal(new.pbc, slab.pbc)
        if 'arrays' in odd:
            assert np.array_equal(new.arrays['own'], slab.arrays['own']) and new.info['mine'] == {'a': [1]}
        if new.info['key_value_pairs'].get('relax_failed'):
            assert new.calc is None and np.array_equal(new.positions, slab.positions)
            continue
        if calculator == 'emt':
            plain = new.copy()
            plain.calc = EMT()
            assert energy_of(new) == pytest.approx(plain.get_potential_energy(apply_constraint=False), abs=1e-8)


@settings(max_examples=60, **QUIET)
@given(slabs())
def test_random_starts(drawn):
    slab, mask, odd = drawn
    before = state(slab)
    try:
        atoms = random_start(slab, {'Ag': 1, 'O': 1}, 0)
    except (ValueError, GenerationFailed) as error:
        assert not is_fine(slab, mask), error
        return
    check_result(atoms, slab, mask, odd)
    assert np.array_equal(atoms.positions[:-2], slab.positions)
    assert (atoms.positions[-2:, 2] > slab.positions[:, 2].max()).all()
    assert state(slab) == before


@settings(max_examples=15, **QUIET)
@given(slabs())
def test_random_search(tmp_path_factory, drawn):
    slab, mask, odd = drawn
    database = tmp_path_factory.mktemp('search') / 'x.db'
    before = state(slab)
    try:
        images = RandomStructureSearch(slab, 'O', 'emt', rng=0, steps=2, database=database, logfile=None).run(1)
    except (ValueError, GenerationFailed) as error:
        assert not is_fine(slab, mask) or isinstance(error, GenerationFailed), error
        return
    for atoms in images:
        n = len(slab)
        assert np.array_equal(atoms.positions[:n][mask], slab.positions[mask])
        assert 'relax_failed' not in atoms.info['key_value_pairs']
        if 'arrays' in odd:
            assert atoms.info['data']['other_pairs'] == {'U': 3.0}  # ase.db has no column of the name of an element
        plain = atoms.copy()
        plain.calc = EMT()
        assert energy_of(atoms) == pytest.approx(plain.get_potential_energy(apply_constraint=False), abs=1e-8)
    assert state(slab) == before
