"""The crystal generator: compositions, conditions, bad input, reproducibility, provenance, perturbation, training."""

import io
import json
import logging
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.db import connect

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.errors import CheckpointError, GenerationFailed
from ase_diffusion.generators.bulk import shortest_distance
from ase_diffusion.generators.crystal.guidance import CrystalGuidance
from ase_diffusion.representations import Crystal
from ase_diffusion.representations.cells import space_group_of

SMALL = dict(
    features=16,
    blocks=1,
    settings=dict(heads=2, head_width=8, hidden=16, pair_hidden=16, pair_width=8, frequencies=3),
    batch_size=8,
    progress=False,
    accelerator='cpu',
    lr=3e-3,
    every=10,
    warmup=5,
)
QUICK = dict(steps=6, logfile=None, rng=1, maxtries=50)


def data():
    images = []
    for k in range(16):
        atoms = bulk(('NaCl', 'LiCl', 'NaF')[k % 3], 'rocksalt', a=5.0 + 0.02 * k)
        atoms = atoms * (2, 1, 1) if k % 4 == 0 else atoms
        atoms.info['key_value_pairs'] = {'gap': 0.1 * k, 'energy_per_atom': -3.0 + 0.01 * k}
        images.append(atoms)
    return images


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model of two elements' salts after a few steps: it generates anything, but by all the rules."""
    path = tmp_path_factory.mktemp('model') / 'salts.safetensors'
    CrystalDiffusion(model='untrained', conditioning='cdi', logfile=None).fit(data(), steps=20, **SMALL).save(path)
    return path


def distances(images):
    return [sorted(a.get_all_distances(mic=True).ravel()) for a in images]


def test_structures_are_periodic_reduced_wrapped_and_labelled(model):
    images = CrystalDiffusion(model=model, **QUICK).sample(6, gap=0.5)
    for atoms in images:
        assert atoms.pbc.all() and len(atoms) in (2, 4)
        assert set(atoms.symbols) <= {'Na', 'Cl', 'Li', 'F'}
        f = atoms.get_scaled_positions(wrap=False)
        assert (f >= -1e-8).all() and (f < 1).all()
        reduced, _ = atoms.cell.niggli_reduce()
        assert np.allclose(reduced.cellpar(), atoms.cell.cellpar(), atol=1e-2)
        assert shortest_distance(atoms) >= 0.5
        pairs = atoms.info['key_value_pairs']
        assert pairs['condition_gap'] == 0.5 and pairs['generator'] == 'CrystalDiffusion'
        assert 'condition_energy_per_atom' not in pairs
        assert atoms.info['data']['diffusion']['type'] == 'crystal-diffusion'


def test_structures_have_their_symmetry_exactly_unless_it_is_not_wanted():
    options = dict(model='perov-5', steps=40, rng=0, logfile=None)
    exact, plain, same = (CrystalDiffusion(**options, **more).sample(3) for more in ({}, {'symmetrize': None}, {'symmetrize': 0}))
    assert plain == same
    for a, b in zip(exact, plain, strict=True):
        assert space_group_of(a, 1e-4) == space_group_of(b, 0.1) and space_group_of(b, 1e-4) == 1


def test_sizes_are_those_of_the_data(model):
    images = CrystalDiffusion(model=model, steps=2, logfile=None, rng=0).sample(60)
    share = np.mean([len(atoms) == 2 for atoms in images])
    assert 0.6 < share < 0.9  # 12 of 16


@pytest.mark.parametrize('batch_size', [1, 3])
@pytest.mark.parametrize('options', [{}, {'stoich': 'NaCl'}, {'natoms': 3}], ids=['data', 'stoich', 'natoms'])
def test_the_same_seed_gives_the_same_atoms_in_any_batch(model, batch_size, options):
    together = CrystalDiffusion(model=model, batch_size=6, **options, **QUICK).sample(6)
    apart = CrystalDiffusion(model=model, batch_size=batch_size, **options, **QUICK).sample(6)
    for a, b in zip(together, apart, strict=True):
        assert (a.numbers == b.numbers).all()
        assert np.allclose(a.cell.cellpar(), b.cell.cellpar(), rtol=1e-3, atol=1e-2)
    other = CrystalDiffusion(model=model, batch_size=6, **options, **{**QUICK, 'rng': 2}).sample(1)[0]
    assert not np.allclose(other.cell.cellpar(), together[0].cell.cellpar(), rtol=0.01)


def test_composition_number_and_elements_are_kept(model):
    assert {a.get_chemical_formula() for a in CrystalDiffusion('NaLiCl2', model=model, **QUICK).sample(3)} == {'Cl2LiNa'}
    assert {len(a) for a in CrystalDiffusion(natoms=3, model=model, **QUICK).sample(3)} == {3}
    for allowed in ({'Li', 'F'}, {'F'}):
        some = CrystalDiffusion(natoms=4, elements=sorted(allowed), model=model, **QUICK).sample(6)
        assert set().union(*(a.symbols for a in some)) <= allowed
    strict = CrystalDiffusion(natoms=2, elements=['Na', 'Cl'], all_elements=True, model=model, **QUICK)
    assert strict._reason_to_reject(bulk('NaCl', 'rocksalt', a=5.6)) is None
    assert strict._reason_to_reject(bulk('Na', 'bcc', a=4.2, cubic=True)) == 'no Cl'
    one = CrystalDiffusion('NaCl', model=model, **QUICK).sample()
    assert isinstance(one, Atoms) and one.info['key_value_pairs']['stoich'] == 'NaCl'


@pytest.mark.parametrize('sampler', ['renoised_ancestral', 'ancestral', 'ddim', 'heun', 'dpmpp_2m', 'euler_maruyama'])
def test_every_sampler_makes_crystals(model, sampler):
    images = CrystalDiffusion(model=model, sampler=sampler, **QUICK).sample(2, gap=1.0, guidance_scale=2.0)
    assert all(shortest_distance(atoms) >= 0.5 for atoms in images)
    assert images[0].info['key_value_pairs']['sampler'] == sampler


def test_conditions_change_what_comes(model):
    plain, asked, strong = (
        CrystalDiffusion('NaCl', model=model, **QUICK).sample(2, **c)
        for c in ({}, {'gap': 1.4}, {'gap': 1.4, 'guidance_scale': 4.0})
    )
    cells = [images[0].cell.cellpar() for images in (plain, asked, strong)]
    assert not np.allclose(cells[0], cells[1]) and not np.allclose(cells[1], cells[2])


def test_a_given_composition_is_predicted_by_the_specialist():
    gen = CrystalDiffusion('TiO2', **QUICK)
    assert gen.model == 'mp-le20-prediction' and CrystalDiffusion(**QUICK).model == 'mp-le20'
    assert sorted(gen.sample().symbols) == ['O', 'O', 'Ti']
    with pytest.raises(TypeError, match="unknown conditions .'band_gap'.; .* model='mp-le20' knows more"):
        gen.sample(band_gap=1.0)
    with pytest.raises(ValueError, match='predicts structures of a given composition: pass stoich'):
        CrystalDiffusion(model='mp-le20-prediction', **QUICK)


# bad input


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'stoich': 'Na3Cl3'}, 'Na3Cl3 has 6 atoms, .* up to 4'),
        ({'natoms': 5}, 'the cell has 5 atoms'),
        ({'stoich': 'KCl'}, 'never saw K; it knows Li, F, Na, Cl'),
        ({'elements': ['Na', 'Fe']}, 'never saw Fe'),
        ({'elements': ['Na', 'Xx']}, "'Xx' is none"),
        ({'elements': 'NaCl'}, r"such as \['Li', 'O'\]"),
        ({'elements': []}, 'got none'),
        ({'stoich': 'NaCl', 'natoms': 4}, 'stoich=.NaCl. has 2 atoms, natoms=4'),
        ({'stoich': 'NaCl', 'elements': ['Na', 'F']}, 'fixes the elements'),
        ({'stoich': 'salt'}, 'a formula is'),
        ({'all_elements': True}, 'all_elements needs elements'),
        ({'elements': ['Na', 'Cl'], 'all_elements': True, 'natoms': 1}, 'no more of them than natoms=1'),
        ({'natoms': 0}, 'natoms is an integer'),
        ({'conditioning': 'x'}, "'cds' or 'cdi'"),
        ({'conditioning': 'cds'}, "trained with .*'cdi'"),
        ({'symmetrize': -1}, 'tolerance in A'),
        ({'symmetrize': True}, 'tolerance in A'),
        ({'symmetrize': 5}, 'tolerance in A, at most 1, .* or None'),
        ({'sampler': 'x'}, 'sampler must be one of'),
        ({'guidance': {'power': 1}}, 'unknown guidance'),
        ({'guidance': {'strength': 1}}, 'needs a calculator'),
    ],
)
def test_contradictions_and_unknowns_are_refused(model, options, text):
    with pytest.raises(ValueError, match=text):
        CrystalDiffusion(model=model, logfile=None, **options)


def test_conditions_that_are_unknown_are_refused_and_those_outside_the_data_warn(model, caplog):
    gen = CrystalDiffusion(model=model, **QUICK)
    with pytest.raises(TypeError, match=r"unknown conditions \['heat'\]; this model knows .*'energy_per_atom', 'gap'"):
        gen.sample(1, heat=1.0)
    for value in (float('nan'), True, 'low'):
        with pytest.raises(ValueError, match='gap must be a finite number'):
            gen.sample(1, gap=value)
    with caplog.at_level(logging.WARNING):
        gen.sample(1, gap=9.0)
    assert 'gap = 9 lies outside the training data, ' in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        CrystalDiffusion(natoms=3, model=model, **QUICK)
    assert 'never saw cells of 3 atoms, only of 2, 4' in caplog.text


def test_what_is_no_crystal_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'surface' model; CrystalDiffusion needs a crystal model"):
        CrystalDiffusion(model='ag-o-overlayer', logfile=None)
    with pytest.raises(CheckpointError, match='no model'):
        CrystalDiffusion(model=tmp_path / 'no.safetensors', logfile=None)
    with pytest.raises(ValueError, match='untrained'):
        CrystalDiffusion(model='untrained', logfile=None).sample()
    with pytest.raises(ValueError, match='nothing to save'):
        CrystalDiffusion(model='untrained', logfile=None).save(tmp_path / 'x')
    with pytest.raises(ValueError, match='data set is empty'):
        CrystalDiffusion(model='untrained', logfile=None).fit([])


def test_a_crystal_model_is_no_surface_model(model, ag_slab):
    with pytest.raises(ValueError, match="'crystal' model; SurfaceDiffusion needs a surface model"):
        SurfaceDiffusion(ag_slab, 'O', model=model, logfile=None)


# more ways to use it


def test_provenance_survives_traj_extxyz_and_db(model, tmp_path):
    log = io.StringIO()
    with CrystalDiffusion(model=model, steps=6, rng=1, logfile=log, trajectory=str(tmp_path / 'a.traj')) as gen:
        atoms = gen.sample(2, gap=0.5)[1]
    assert 'CrystalDiffusion: 2 structures, renoised_ancestral, 6 steps' in log.getvalue() and 'gap 0.5' in log.getvalue()
    assert ase.io.read(tmp_path / 'a.traj').info['key_value_pairs']['condition_gap'] == 0.5
    ase.io.write(tmp_path / 'a.extxyz', atoms)
    assert 'condition_gap' in (tmp_path / 'a.extxyz').read_text()
    with connect(tmp_path / 'a.db') as db:
        db.write(atoms, data=atoms.info['data'], **atoms.info['key_value_pairs'])
        assert db.get(id=1).condition_gap == 0.5
    json.dumps(gen.todict())


def test_the_way_from_noise_is_written_once(model, tmp_path):
    gen = CrystalDiffusion(model=model, denoising_trajectory=tmp_path / 'm.traj', **QUICK)
    last = gen.sample(2)[0]
    frames = ase.io.read(tmp_path / 'm.traj', ':')
    assert len(frames) == 6 and frames[0].info['sigma'] > frames[-1].info['sigma']
    assert len(frames[-1]) == len(last) and np.isclose(frames[-1].cell.volume, last.cell.volume, rtol=1e-4)


def test_perturb_keeps_what_is_fixed_and_a_little_noise_changes_little(model):
    parent = bulk('NaCl', 'rocksalt', a=5.1)
    before = parent.copy()
    gen = CrystalDiffusion('NaCl', model=model, **{**QUICK, 'steps': 50})
    near, far = (gen.perturb(parent, noise, n=3) for noise in (0.03, 2.0))
    assert parent == before
    assert all(a.get_chemical_formula() == 'ClNa' for a in [*near, *far])
    gaps = [np.mean([abs(a.cell.volume / parent.cell.volume - 1) for a in images]) for images in (near, far)]
    assert gaps[0] < 0.05 and 2 * gaps[0] < gaps[1]
    assert near[0].info['key_value_pairs']['operation'] == 'perturb'
    assert isinstance(gen.perturb(parent, n=None), Atoms)
    for bad, text in (([], 'at least one'), (bulk('KCl', 'rocksalt', a=6.0), 'composition'), (parent * (2, 2, 1), 'up to 4')):
        with pytest.raises(ValueError, match=text):
            gen.perturb(bad)
    for noise in (0, -1, float('nan'), True):
        with pytest.raises(ValueError, match='noise is a positive length'):
            gen.perturb(parent, noise)


class Springs(Calculator):
    """Pull the first atom along x and ask for a larger cell."""

    implemented_properties = ['energy', 'forces', 'stress']

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = 1.0
        self.results = {'energy': 0.0, 'forces': forces, 'stress': np.array([-1.0, -1.0, -1.0, 0, 0, 0])}


def test_guidance_moves_atoms_and_lattice_by_the_laws(model):
    guide = CrystalGuidance.coerce({'strength': 0.02, 'stress_strength': 0.004}, Springs())
    atoms = bulk('NaCl', 'rocksalt', a=5.0)
    sites, strain = guide._move(0, atoms.copy(), 0.5)
    assert np.allclose(sites @ atoms.cell[:], [[0.01, 0, 0], [0, 0, 0]])
    assert np.allclose(strain, 0.002 * np.eye(3))
    guide = CrystalGuidance.coerce({'strength': 50.0, 'stress_strength': 50.0}, Springs())
    sites, strain = guide._move(0, atoms.copy(), 0.5)
    assert np.linalg.norm(sites @ atoms.cell[:], axis=1).max() == pytest.approx(guide.cap)
    assert np.abs(strain).max() == pytest.approx(guide.strain_cap)
    free = CrystalDiffusion('NaCl', model=model, **{**QUICK, 'steps': 30}).sample(3)
    pushed = CrystalDiffusion(
        'NaCl', model=model, calculator=Springs(), guidance={'stress_strength': 0.01, 'below': 0.5}, **{**QUICK, 'steps': 30}
    ).sample(3)
    assert all(b.cell.volume > a.cell.volume * 1.02 for a, b in zip(free, pushed, strict=True))


def guided(model, calculator, log=None, **options):
    """Return a generator of salt that accepts whatever comes; guided where a calculator is given."""
    guidance = None if calculator is None else {'below': 0.9}
    gen = CrystalDiffusion('NaCl', model=model, calculator=calculator, guidance=guidance, **{**QUICK, 'logfile': log, **options})
    gen._reason_to_reject = lambda atoms: None
    return gen


def test_guidance_by_a_calculator_that_fails_is_counted_and_ends_where_all_calls_fail(model, caplog):
    class Fails(Springs):
        made = 0

        def calculate(self, *args, **kwargs):
            Fails.made += 1
            if Fails.made > 1:
                raise RuntimeError('no convergence')
            super().calculate(*args, **kwargs)

    log = io.StringIO()
    gen = guided(model, Fails, log, batch_size=2)
    with caplog.at_level(logging.WARNING), pytest.raises(GenerationFailed, match='the last error: RuntimeError: no convergence'):
        gen.sample(4)  # one call of the first batch succeeds, none of the second
    calls = gen.guidance.calls
    assert gen.guidance.failures == calls - 1 > 0 and calls % 4 == 0
    assert log.getvalue().splitlines()[-1].startswith(f'guidance: {calls} calculator calls, {calls - 1} failed, ')
    text = f'force guidance: {calls // 2 - 1} of {calls // 2} evaluations failed and were skipped'
    assert [record.getMessage() for record in caplog.records] == [text]


def test_calculators_that_do_not_know_an_element_are_refused_before_any_work(model):
    for options in (
        {'calculator': EMT()},
        {'relax': {'calculator': 'emt'}},
        {'best_of': 2, 'calculator': EMT, 'guidance': False},
    ):
        with pytest.raises(ValueError, match='does not know Na, Cl, only'):
            CrystalDiffusion('NaCl', model=model, **options, **QUICK)


def test_guidance_counts_its_calls_and_the_log_says_what_a_crystal_costs(model, caplog):
    class Slow(Springs):
        made = 0

        def calculate(self, *args, **kwargs):
            Slow.made += 1
            time.sleep(0.01)
            super().calculate(*args, **kwargs)

    log = io.StringIO()
    gen = guided(model, Slow, log)
    images = gen.sample(3)
    calls, _, seconds = gen.guidance.spent()
    assert calls == Slow.made and calls % 3 == 0 and calls >= 6
    assert [atoms.info['key_value_pairs']['guidance_calls'] for atoms in images] == [calls // 3] * 3
    assert seconds >= 0.01 * calls
    line = f'guidance: {calls} calculator calls, 0 failed, {seconds:.1f} s; cost per accepted structure: {calls / 3:.1f} calls, '
    assert log.getvalue().splitlines()[-1] == line + f'{seconds / 3:.2f} s'
    gen.perturb(bulk('NaCl', 'rocksalt', a=5.1), noise=2.0, n=1)
    more = Slow.made - calls  # of this run, not of all
    assert more > 0 and log.getvalue().splitlines()[-1].startswith(f'guidance: {more} calculator calls, 0 failed')
    assert 'guidance' not in caplog.text
    plain = io.StringIO()
    assert 'guidance_calls' not in guided(model, None, plain).sample().info['key_value_pairs']
    assert 'guidance: ' not in plain.getvalue()


@pytest.mark.parametrize('flat', [[[4, 0, 0], [0, 4, 0], [4, 4, 0]], [[4, 0, 0], [4, 0, 0], [0, 0, 4]]])
def test_guidance_of_an_exactly_flat_cell_is_a_failure_and_the_others_are_guided(flat):
    guide, salt = CrystalGuidance.coerce(None, Springs), Crystal([11, 17])
    batch = salt.encode([bulk('NaCl', 'rocksalt', a=5.0)] * 2)
    cells = np.stack([np.array(flat, float), bulk('NaCl', 'rocksalt', a=5.0).cell[:]])
    batch = batch.with_fields(lattice=salt.from_cells(cells, batch.extras['counts']))
    moves = guide.bind(salt, 2)(batch, 0.1)
    assert (guide.calls, guide.failures) == (2, 1)
    assert not moves['fractional'][:2].any() and not moves['lattice'][0].any()
    assert moves['fractional'][2:].any() and moves['lattice'][1].any()


def test_guidance_with_a_time_limit_survives_a_calculator_that_hangs(model, tmp_path):
    """A calculator that sleeps for ever at its second call: one failure, all other calls as ever."""
    calls = tmp_path / 'calls'

    class Sleeper(LennardJones):
        def calculate(self, *args, **kwargs):
            with open(calls, 'a') as file:
                file.write('call\n')
            if len(calls.read_text().split()) == 2:
                time.sleep(1e6)
            super().calculate(*args, **kwargs)

    gen = CrystalDiffusion('NaCl', model=model, calculator=Sleeper, guidance={'below': 0.9, 'time_limit': 2.0}, **QUICK)
    limited = gen.sample(2)
    gen.close()
    free = CrystalDiffusion('NaCl', model=model, calculator=LennardJones, guidance={'below': 0.9}, **QUICK).sample(2)
    assert gen.guidance.failures == 1 and len(calls.read_text().split()) > 2
    assert np.allclose(limited[0].cell[:], free[0].cell[:], atol=1e-4)  # its calls are the first, third, ...
    assert not np.allclose(limited[1].cell[:], free[1].cell[:], atol=1e-4)
    assert limited[0].info['data']['diffusion']['guidance']['time_limit'] == 2.0
    assert 'time_limit' not in free[0].info['data']['diffusion']['guidance']
    with pytest.raises(ValueError, match='time_limit is a time in seconds'):
        CrystalDiffusion('NaCl', model=model, calculator=Springs, guidance={'time_limit': -1}, **QUICK)


def test_guidance_gives_each_crystal_a_calculator_that_writes_files(model, tmp_path):
    class Writes(Springs):
        def write_input(self, atoms, properties=None, system_changes=None):
            pass

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if args[0] is not None and str(self.directory).endswith('1'):
                self.results['forces'] = np.zeros((3, 3))  # of a wrong shape: counted, and no harm done

    gen = CrystalDiffusion('NaCl', model=model, calculator=Writes, guidance={'directory': tmp_path, 'below': 0.9}, **QUICK)
    gen._reason_to_reject = lambda atoms: None
    assert len(gen.sample(3)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ['Writes-0000', 'Writes-0001', 'Writes-0002']
    assert gen.guidance.failures == gen.guidance.calls / 3 > 0


def test_structures_too_close_are_rejected_and_counted(model, monkeypatch):
    monkeypatch.setattr('ase_diffusion.generators.bulk.shortest_distance', lambda atoms: 0.1)
    with pytest.raises(GenerationFailed, match='atoms closer than 0.5 A'):
        CrystalDiffusion(model=model, **{**QUICK, 'maxtries': 2}).sample(2)


@pytest.mark.parametrize(
    ('cell', 'distance'),
    [
        (np.diag([4, 4, 1e-7]), 1e-7),
        ([[4, 0, 0], [4, 1e-6, 0], [0, 0, 4]], 0.0),
        (np.full((3, 3), np.nan), 0.0),
        (5 * np.eye(3), 2.5),
    ],
)
def test_distances_in_cells_of_any_shape(cell, distance):
    atoms = Atoms('NaCl', positions=[[0, 0, 0], [2.5, 0, 0]], cell=cell, pbc=True)
    assert shortest_distance(atoms) == pytest.approx(distance)
