"""Our operators inside a real, short run of ase-ga."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('ase_ga')
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase_ga.cutandsplicepairing import CutAndSplicePairing
from ase_ga.data import DataConnection, PrepareDB
from ase_ga.offspring_creator import OperationSelector
from ase_ga.population import Population
from ase_ga.standard_comparators import InteratomicDistanceComparator
from ase_ga.utilities import closest_distances_generator, get_all_atom_types

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.relax import relax_batched
from ase_diffusion.search import DiffusionMutation, DiffusionStartGenerator

N = 16
NUMBERS = [47] * 4 + [8] * 2


@pytest.fixture
def slab():
    """p(2x4) Ag(111), two frozen layers."""
    slab = fcc111('Ag', (2, 4, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(N)))
    return slab


@pytest.fixture
def gen(slab):
    """A quick generator."""
    return SurfaceDiffusion(slab, 'Ag4O2', rng=np.random.RandomState(0), steps=20, logfile=None)


def relax_and_store(images, db):
    """Relax candidates and hand them back to the database."""
    for atoms, relaxed in zip(images, relax_batched(images, 'ag-o', steps=30), strict=True):
        relaxed.info['confid'] = atoms.info['confid']
        relaxed.info['key_value_pairs']['raw_score'] = -relaxed.get_potential_energy()
        relaxed.info.setdefault('data', {})
        db.add_relaxed_step(relaxed)


def test_a_generation_of_ase_ga_with_our_operators(gen, slab, tmp_path):
    start = DiffusionStartGenerator(gen, batch=4)
    prepared = PrepareDB(tmp_path / 'ga.db', simulation_cell=slab, stoichiometry=NUMBERS, population_size=4)
    for _ in range(4):
        prepared.add_unrelaxed_candidate(start.get_new_candidate())
    db = DataConnection(tmp_path / 'ga.db')
    assert db.get_number_of_unrelaxed_candidates() == 4
    relax_and_store([db.get_an_unrelaxed_candidate()], db)
    relax_and_store(db.get_all_unrelaxed_candidates(), db)

    rng = np.random.RandomState(1)
    blmin = closest_distances_generator(get_all_atom_types(slab, NUMBERS), 0.5)
    comparator = InteratomicDistanceComparator(n_top=6, pair_cor_cum_diff=0.015, pair_cor_max=0.7, dE=0.02, mic=False)
    population = Population(db, population_size=4, comparator=comparator, rng=rng)
    pairing = CutAndSplicePairing(slab, 6, blmin, rng=rng)
    mutation = DiffusionMutation(gen, noise=0.7, energy=0.0)
    selector = OperationSelector([1, 1], [pairing, mutation], rng=rng)
    descriptions = []
    for k in range(4):
        parents = population.get_two_candidates()
        operator = (pairing, mutation)[k] if k < 2 else selector
        child, description = operator.get_new_individual(parents)
        assert child is not None
        db.add_unrelaxed_candidate(child, description)
        relax_and_store([child], db)
        population.update()
        descriptions.append(description)
    assert descriptions[1] == 'mutation: diffusion'
    rows = list(db.c.select(relaxed=1))
    assert len(rows) == 8
    mutants = [row for row in rows if row.get('origin') == 'DiffusionMutation']
    assert mutants
    for row in mutants:
        assert (row.operation, row.noise, row.generator) == ('perturb', 0.7, 'SurfaceDiffusion')
        assert len(row.data['parents']) == 1
        gap = (row.toatoms().positions - slab.positions[[*range(N), *[0] * 6]])[:N] @ np.linalg.inv(slab.cell)
        assert np.abs(gap - np.round(gap)).max() < 1e-9  # ase-ga wraps, so that fixed atoms may be one cell further


def test_the_contract_of_a_start_generator(gen):
    start = DiffusionStartGenerator(gen, batch=2, energy=0.05)
    candidates = [start.get_new_candidate(), start.get_new_candidate(maxiter=3), start.get_new_candidate()]
    assert gen.statistics['accepted'] == 4  # in batches of two
    for atoms in candidates:
        tags = atoms.get_tags()[N:].tolist()
        assert atoms.numbers[N:].tolist() == NUMBERS
        assert len(set(tags)) == 6
        assert not set(tags) & set(atoms.get_tags()[:N].tolist())
        assert atoms.info['key_value_pairs']['condition_energy'] == 0.05


def test_none_is_returned_where_nothing_is_accepted(gen):
    gen.maxtries = 1
    gen._reason_to_reject = lambda atoms: 'no'
    assert DiffusionStartGenerator(gen, batch=2).get_new_candidate() is None
    assert DiffusionStartGenerator(gen, batch=2).get_new_candidate(maxiter=2) is None
    assert gen.maxtries == 1
    parent = gen.template.copy()
    parent.positions[N:] += np.random.default_rng(0).normal(size=(6, 3))
    parent.info['confid'] = 1
    assert DiffusionMutation(gen).get_new_individual([parent]) == (None, 'mutation: diffusion')


def test_the_mutation_is_one_of_overlayers():
    with pytest.raises(TypeError, match='noises overlayers, by a SurfaceDiffusion; got CrystalDiffusion'):
        DiffusionMutation(CrystalDiffusion('NaCl', logfile=None))


def test_bad_settings_are_refused_where_the_operator_is_made(gen, slab):
    with pytest.raises(ValueError, match='noise'):
        DiffusionMutation(gen, noise=-1)
    platinum = fcc111('Pt', (2, 2, 2), a=3.98, vacuum=8.0)
    platinum.set_constraint(FixAtoms(range(len(platinum))))
    wide = SurfaceDiffusion(platinum, 'PtO', logfile=None)  # its lengths are in units of the substrate
    with pytest.raises(ValueError, match='noise'):
        DiffusionMutation(wide, noise=0.99 * wide.least_noise)
    assert DiffusionMutation(wide, noise=1.01 * wide.least_noise).noise < wide.process.schedule.sigma_min
    with pytest.raises(TypeError, match='unknown conditions'):
        DiffusionMutation(gen, temperature=300)
    with pytest.raises(TypeError, match='unknown conditions'):
        DiffusionStartGenerator(gen, temperature=300)
    for batch in (0, True, 1.5):
        with pytest.raises(ValueError, match='batch'):
            DiffusionStartGenerator(gen, batch=batch)
    with pytest.raises(ValueError, match='composition'):
        DiffusionMutation(gen).get_new_individual([slab])


def test_without_ase_ga_the_error_says_what_to_install(environment):
    code = (
        'import sys; sys.modules["ase_ga"] = None; sys.modules["ase_ga.offspring_creator"] = None\n'
        'from ase_diffusion.search import random_start\n'
        'from ase_diffusion.errors import MissingDependency\n'
        'try:\n'
        '    from ase_diffusion.search import DiffusionMutation\n'
        'except MissingDependency as error:\n'
        '    assert "pip install ase-ga" in str(error), error\n'
        'else:\n'
        '    raise SystemExit("no error")\n'
    )
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
