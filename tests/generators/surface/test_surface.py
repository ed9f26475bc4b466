"""SurfaceDiffusion as a user meets it: what comes back, what is kept, what is refused."""

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bcc100, bcc110, fcc110, fcc111, hcp0001
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian
from ase.db import connect
from ase.io import read, write
from ase.io.trajectory import Trajectory
from ase.optimize import BFGS

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.calculators.forcefield import ForceFieldCalculator
from ase_diffusion.errors import CheckpointError, GenerationFailed
from ase_diffusion.relax import get_calculator
from ase_diffusion.search import random_start
from ase_diffusion.training.checkpoint import save_checkpoint
from ase_diffusion.utils.atoms import detached, frozen_mask
from ase_diffusion.weights.zoo import load_model

QUICK = {'steps': 12, 'logfile': None}


@pytest.fixture
def slab():
    """p(2x4) Ag(111), two frozen layers, tags and a constraint."""
    slab = fcc111('Ag', (2, 4, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


@pytest.fixture
def gen(slab):
    """A generator that accepts whatever twelve steps give."""
    gen = SurfaceDiffusion(slab, 'Ag6O3', rng=3, **QUICK)
    gen._reason_to_reject = lambda atoms: None
    return gen


def test_one_sample_is_an_atoms_fit_for_ase(gen, slab):
    atoms = gen.sample()
    assert isinstance(atoms, Atoms)
    assert len(atoms) == len(slab) + 9
    assert atoms.get_chemical_symbols()[len(slab) :] == ['Ag'] * 6 + ['O'] * 3
    assert np.array_equal(atoms.positions[: len(slab)], slab.positions)  # bit by bit
    assert np.array_equal(atoms.cell[:], slab.cell[:])
    assert np.array_equal(atoms.pbc, slab.pbc)
    assert np.array_equal(frozen_mask(atoms), [True] * 16 + [False] * 9)
    assert np.array_equal(atoms.get_tags()[:16], slab.get_tags())
    assert len(set(atoms.get_tags()[16:])) == 1
    assert atoms.get_tags()[16] not in slab.get_tags()
    assert 'adsorbate_info' not in atoms.info


def test_the_slab_is_never_changed(slab):
    before = slab.copy()
    SurfaceDiffusion(slab, 'Ag2O', rng=0, **QUICK).template.positions += 1.0
    assert np.array_equal(before.positions, slab.positions)
    assert slab.info.keys() == before.info.keys()


def test_atoms_stay_in_the_window_at_every_step(slab, tmp_path):
    path = tmp_path / 'movie.traj'
    gen = SurfaceDiffusion(slab, 'Ag6O3', rng=0, height=(1.0, 4.0), denoising_trajectory=path, **QUICK)
    gen._reason_to_reject = lambda atoms: None
    gen.sample()
    frames = read(path, ':')
    assert len(frames) == 12
    top = slab.positions[:, 2].max()
    for atoms in frames:
        z = atoms.positions[16:, 2] - top
        assert z.min() >= 1.0 - 1e-5
        assert z.max() <= 4.0 + 1e-5
        assert np.array_equal(atoms.positions[:16], slab.positions)
    sigmas = [atoms.info['sigma'] for atoms in frames]
    assert sigmas == sorted(sigmas, reverse=True)


def test_the_same_seed_gives_the_same_atoms_at_any_batch_size(slab):
    sets = []
    for batch_size in (1, 3, 4):
        gen = SurfaceDiffusion(slab, 'Ag6O3', rng=5, batch_size=batch_size, **QUICK)
        gen._reason_to_reject = lambda atoms: None
        sets.append(gen.sample(4, guidance_scale=1.0))  # a larger scale amplifies rounding
    for other in sets[1:]:
        for a, b in zip(sets[0], other, strict=True):
            difference = a.copy()
            difference.set_constraint()
            difference.positions = a.positions - b.positions
            shift = difference.positions @ np.linalg.inv(np.asarray(slab.cell))
            shift[:, :2] -= np.round(shift[:, :2])
            assert np.abs(shift @ np.asarray(slab.cell)).max() < 2e-3
            assert a.info['key_value_pairs']['seed'] == b.info['key_value_pairs']['seed']


def test_random_state_and_generator_seeds_are_accepted(slab):
    for rng in (np.random.RandomState(1), np.random.default_rng(1), None, np.random):
        assert SurfaceDiffusion(slab, 'Ag2O', rng=rng, **QUICK).rng is not None


@pytest.mark.parametrize('sampler', ['renoised_ancestral', 'ancestral', 'euler_maruyama', 'ddim', 'heun', 'dpmpp_2m'])
def test_every_sampler_gives_valid_overlayers(slab, sampler):
    gen = SurfaceDiffusion(slab, 'Ag6O3', rng=1, sampler=sampler, steps=40, logfile=None)
    for atoms in gen.sample(3):
        assert atoms.info['key_value_pairs']['min_distance_ratio'] >= 0.7
    assert gen.statistics['generated'] <= 12


def test_provenance_survives_traj_extxyz_and_db(gen, tmp_path):
    atoms = gen.sample(energy=0.05, guidance_scale=1.5)
    pairs = atoms.info['key_value_pairs']
    assert pairs['generator'] == 'SurfaceDiffusion'
    assert pairs['condition_energy'] == 0.05
    write(tmp_path / 'a.traj', atoms)
    back = read(tmp_path / 'a.traj')
    assert back.info['key_value_pairs'] == pairs
    assert np.array_equal(frozen_mask(back), frozen_mask(atoms))
    assert np.array_equal(back.get_tags(), atoms.get_tags())
    write(tmp_path / 'a.extxyz', atoms)
    assert len(read(tmp_path / 'a.extxyz')) == len(atoms)
    with connect(tmp_path / 'a.db') as db:
        db.write(atoms, **pairs, data=atoms.info['data'])
    row = connect(tmp_path / 'a.db').get(1)
    assert row.seed == pairs['seed']
    assert row.data['diffusion']['stoich'] == 'Ag6O3'
    assert len(row.toatoms().constraints) == 1


def test_what_comes_back_relaxes_with_bfgs(slab):
    atoms = SurfaceDiffusion(slab, 'Ag6O3', rng=1, steps=50, logfile=None).sample()
    atoms.calc = get_calculator('ag-o')
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=60)
    assert atoms.get_potential_energy() < before
    assert np.array_equal(atoms.positions[:16], slab.positions)


@pytest.mark.parametrize('name', ['trajectory', 'denoising_trajectory'])
def test_a_folder_that_is_not_there_is_noticed_at_once(slab, name, tmp_path):
    with pytest.raises(FileNotFoundError, match=name):
        SurfaceDiffusion(slab, 'Ag2O', **{name: tmp_path / 'no' / 'x.traj'}, **QUICK)


def test_trajectory_log_and_observers(gen, slab, tmp_path):
    log, seen = io.StringIO(), []
    gen = SurfaceDiffusion(slab, 'Ag2O', rng=0, steps=8, logfile=log, trajectory=tmp_path / 'out.traj', batch_size=2)
    gen._reason_to_reject = lambda atoms: None
    gen.attach(lambda: seen.append(gen.atoms))
    with gen:
        images = gen.sample(3)
    assert len(Trajectory(tmp_path / 'out.traj')) == 3
    assert seen == images
    assert len(log.getvalue().splitlines()) == 5  # two lines of header
    assert gen.statistics == {'generated': 3, 'accepted': 3, 'rejected': 0}


def test_an_interrupted_irun_keeps_what_was_accepted(slab, tmp_path):
    gen = SurfaceDiffusion(slab, 'Ag2O', rng=0, steps=8, logfile=None, trajectory=tmp_path / 'o.traj', batch_size=1)
    gen._reason_to_reject = lambda atoms: None
    with pytest.raises(KeyboardInterrupt):
        for k, _ in enumerate(gen.irun(10)):
            if k == 1:
                raise KeyboardInterrupt
    gen.close()
    assert len(read(tmp_path / 'o.traj', ':')) == 2


def test_rejections_are_counted_and_end_in_an_error(slab):
    gen = SurfaceDiffusion(slab, 'Ag2O', rng=0, steps=8, logfile=None, maxtries=2)
    gen._reason_to_reject = lambda atoms: 'never good enough'
    with pytest.raises(GenerationFailed, match='rejected') as caught:
        gen.sample(2)
    assert caught.value.images == []
    assert gen.statistics['accepted'] == 0
    assert gen.get_new_candidate(maxiter=1) is None


def test_start_generator_contract(gen):
    assert isinstance(gen.get_new_candidate(), Atoms)
    assert isinstance(gen.get_new_candidate(maxiter=5), Atoms)


def test_a_mobile_top_layer_is_generated_and_the_log_says_so(slab):
    slab.set_constraint(FixAtoms(indices=range(8)))
    log = io.StringIO()
    gen = SurfaceDiffusion(slab, 'Ag2O', rng=0, steps=8, logfile=log, height=(1.0, 7.0), generate_slab=True)
    gen._reason_to_reject = lambda atoms: None
    atoms = gen.sample()
    assert '8 slab atoms are not in FixAtoms; they are generated' in log.getvalue()
    assert np.array_equal(atoms.positions[:8], slab.positions[:8])
    assert not np.allclose(atoms.positions[8:16], slab.positions[8:16])


def test_the_default_window_makes_room_for_mobile_layers_of_the_slab():
    slab = fcc111('Ag', (2, 4, 3), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(16)))
    fixed = slab.copy()
    fixed.set_constraint(FixAtoms(indices=range(24)))
    low, high = SurfaceDiffusion(fixed, 'Ag2O', **QUICK).representation.height
    layer = slab.positions[16:, 2].max() - slab.positions[:16, 2].max()
    generated = {'generate_slab': True, **QUICK}
    assert SurfaceDiffusion(slab, 'Ag2O', **QUICK).representation.height == pytest.approx((low, high))
    assert SurfaceDiffusion(slab, 'Ag2O', **generated).representation.height == pytest.approx((low, high + layer))
    assert SurfaceDiffusion(slab, 'Ag2O', height=(1.0, 7.0), **generated).representation.height == (1.0, 7.0)


def test_slab_atoms_that_are_not_fixed_are_held_and_relax_afterwards(slab):
    held = fcc111('Ag', (2, 4, 4), a=4.16, vacuum=10.0)
    held.set_constraint(FixAtoms(indices=range(len(held))))
    loose, log = held.copy(), io.StringIO()
    loose.set_constraint(FixAtoms(indices=range(16)))
    made = [SurfaceDiffusion(one, 'Ag2O', rng=3, steps=8, logfile=log).sample() for one in (held, loose)]
    assert log.getvalue().count('    1 Ag2O ') == 2
    assert '16 slab atoms are not in FixAtoms; they are held' in log.getvalue()
    assert np.array_equal(made[0].positions, made[1].positions)  # the constraints of the user change nothing
    assert np.array_equal(made[1].constraints[0].index, np.arange(16))
    made[1].calc = EMT()
    BFGS(made[1], logfile=None).run(steps=3)
    assert np.array_equal(made[1].positions[:16], loose.positions[:16])
    assert not np.allclose(made[1].positions[16:32], loose.positions[16:32])
    gen = SurfaceDiffusion(loose, 'Ag2O', rng=3, steps=8, logfile=None)
    again = gen.perturb(made[1], 0.1, n=None)  # of a relaxed structure: its slab atoms stay where they relaxed to
    assert np.array_equal(again.positions[:32], made[1].positions[:32])
    [one] = gen.held([made[1]])
    assert np.array_equal(one.constraints[0].index, np.arange(32)) and len(made[1].constraints[0].index) == 16


def test_lengths_scale_with_the_substrate(slab, tmp_path):
    # network and process see the same numbers, whatever the lattice constant: results are scaled copies of each other
    network, header = load_model('ag-o-overlayer')
    header['representation'] = {'name': 'Slab', 'height': [0.4, 5.0], 'spacing': 4.16 / 2**0.5}
    path = save_checkpoint(tmp_path / 'scaled.safetensors', {'network': network}, header)
    wide = slab.copy()
    wide.set_cell(slab.cell * 1.1, scale_atoms=True)
    options = {'rng': 1, 'steps': 6, 'sampler': 'ddim', 'logfile': None}
    first, second = (SurfaceDiffusion(one, 'Ag6O3', model=path, **options) for one in (slab, wide))
    first.validate = second.validate = False
    assert np.array(second.todict()['height']) == pytest.approx(1.1 * np.array(first.todict()['height']))
    for operation in ('sample', 'perturb'):
        one, two = first.sample(), second.sample()
        if operation == 'perturb':
            one, two = first.perturb(one, 0.3, n=None), second.perturb(two, 0.33, n=None)
        assert two.positions == pytest.approx(1.1 * one.positions, abs=2e-3)
    plain = SurfaceDiffusion(slab, 'Ag6O3', **options)  # silver has its own lattice constant: no difference
    plain.validate, first.rng = False, np.random.default_rng(1)
    assert first.sample().positions == pytest.approx(plain.sample().positions, abs=2e-3)


def test_guidance_moves_scaled_structures_as_far_as_others(slab, tmp_path):
    network, header = load_model('ag-o-overlayer')
    header['representation'] = {'name': 'Slab', 'height': [0.4, 5.0], 'spacing': 2 * 4.16 / 2**0.5}
    path = save_checkpoint(tmp_path / 'scaled.safetensors', {'network': network}, header)
    for calculator in ('ag-o', ForceFieldCalculator('ag-o')):
        gen = SurfaceDiffusion(slab, 'Ag6O3', model=path, guidance={'calculator': calculator}, steps=6, logfile=None)
        [atoms] = random_starts = [random_start(slab, 'Ag6O3', np.random.default_rng(0))]
        batch = gen.representation.encode(random_starts)
        forces = gen.guidance.bind(batch, gen.representation).forces(batch)
        atoms.calc = ForceFieldCalculator('ag-o')
        assert forces.numpy() == pytest.approx(2 * atoms.get_forces(apply_constraint=False)[len(slab) :], abs=1e-3)


def test_constraints_that_do_not_hold_while_sampling_are_named(slab, caplog):
    slab.set_constraint([FixAtoms(indices=range(8)), FixCartesian([8], (True, True, True))])
    gen = SurfaceDiffusion(slab, 'Ag2O', height=(1.0, 7.0), **QUICK)
    assert 'FixCartesian is kept' in caplog.text
    assert len(gen.template.constraints) == 2


def test_force_guidance_lowers_the_energy_as_generated(slab):
    energies = []
    for guidance in (None, {'strength': 0.02, 'finish_steps': 20}):
        gen = SurfaceDiffusion(slab, 'Ag6O3', rng=2, steps=40, sampler='ancestral', logfile=None, guidance=guidance)
        gen._reason_to_reject = lambda atoms: None
        images = gen.sample(4, energy=None, guidance_scale=0.0)
        energies.append(np.mean([_energy(atoms) for atoms in images]))
    assert energies[1] < energies[0] - 0.2
    late = (np.linspace(gen._start(), 0, 40)[:-1] < 0.5).sum()
    assert gen.guidance.calls == 4 * (late + 20)


def _energy(atoms):
    atoms = atoms.copy()
    atoms.calc = get_calculator('ag-o')
    return atoms.get_potential_energy()


class Broken(Calculator):
    """Works once in three calls; raises, and returns NaN, at the others."""

    implemented_properties = ['energy', 'forces']  # noqa: RUF012
    calls = 0

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        super().calculate(atoms, list(properties), system_changes)
        Broken.calls += 1
        if Broken.calls % 3 == 1:
            raise RuntimeError('no convergence')
        self.results = {'energy': 0.0, 'forces': np.full((len(atoms), 3), 0.0 if Broken.calls % 3 else np.nan)}


def test_a_calculator_that_fails_or_returns_nan_does_not_end_the_sampling(slab):
    gen = SurfaceDiffusion(slab, 'Ag2O', rng=2, steps=8, logfile=None, calculator=Broken(), guidance={'finish_steps': 1})
    gen._reason_to_reject = lambda atoms: None
    assert np.isfinite(gen.sample().positions).all() and gen.guidance.failures > 1


def test_save_and_load_give_the_same_structures(gen, slab, tmp_path):
    path = gen.save(tmp_path / 'mine.safetensors')
    again = SurfaceDiffusion.from_pretrained(path, slab, 'Ag6O3', rng=3, **QUICK)
    again._reason_to_reject = lambda atoms: None
    assert np.allclose(again.sample().positions, gen.sample().positions, atol=1e-4)


def oxygen_on_copper():
    """A slab, and twelve places of one oxygen atom on it, without energies."""
    slab = fcc111('Cu', (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    rng = np.random.default_rng(0)
    images = []
    for _ in range(12):
        x, y = rng.random(2)
        place = x * slab.cell[0] + y * slab.cell[1] + [0, 0, slab.positions[:, 2].max() + 1.5 + rng.random()]
        images.append(slab + Atoms('O', [place]))
        images[-1].set_constraint(slab.constraints)
    return slab, images


def test_a_fit_keeps_the_window_asked_for_and_refuses_data_without_the_elements(tmp_path):
    pytest.importorskip('lightning')
    slab, images = oxygen_on_copper()
    gen = SurfaceDiffusion(slab, 'O', model='untrained', height=(1.0, 2.9), logfile=None)
    gen.fit(images, tmp_path / 'run', steps=4, features=8, blocks=2, batch_size=4, every=2, progress=False, accelerator='cpu')
    again = SurfaceDiffusion(slab, 'O', model=tmp_path / 'run' / 'best.safetensors', logfile=None)
    assert gen.representation.height == again.representation.height == (1.0, 2.9)
    with pytest.raises(ValueError, match='the data never saw Cu as mobile'):
        SurfaceDiffusion(slab, 'CuO', model='untrained', logfile=None).fit(images, tmp_path / 'other', steps=4)
    assert not (tmp_path / 'other').exists()


def test_fit_from_nothing_on_own_data(tmp_path):
    pytest.importorskip('lightning')
    slab, images = oxygen_on_copper()
    gen = SurfaceDiffusion(slab, 'O', model='untrained', rng=0, steps=5, logfile=None)
    with pytest.raises(ValueError, match=r'gen\.fit'):
        gen.sample()
    gen.fit(images, steps=6, features=8, blocks=2, batch_size=4, every=3, progress=False, accelerator='cpu')
    gen._reason_to_reject = lambda atoms: None
    assert gen.sample(2)[0].get_chemical_formula() == 'Cu8O'
    with pytest.raises(TypeError, match='unknown conditions'):
        gen.sample(energy=0.0)  # the data had no energies


BAD_SLABS = {
    'FixAtoms': lambda s: s.set_constraint(),
    'finite': lambda s: s.positions.__setitem__((0, 0), np.nan),
    'cell': lambda s: s.set_cell([0, 0, 0]),
    'along z': lambda s: s.set_pbc(True),
}


@pytest.mark.parametrize('word', BAD_SLABS)
def test_bad_slabs_are_refused_at_construction(slab, word):
    BAD_SLABS[word](slab)
    with pytest.raises(ValueError, match=word):
        SurfaceDiffusion(slab, 'Ag6O3', **QUICK)


@pytest.mark.parametrize('stoich', ['', ' ', 'Ag0.5O', 'Xx2', '6', None, 'Ag6-O3'])
def test_bad_formulas_are_refused_at_construction(slab, stoich):
    with pytest.raises(TypeError if stoich is None else ValueError, match='formula'):
        SurfaceDiffusion(slab, stoich, **QUICK)


def test_formula_with_blanks_is_fine(slab):
    assert SurfaceDiffusion(slab, ' Ag2O ', **QUICK).stoich == 'Ag2O'


def test_unknown_elements_are_named_with_what_is_known(slab, caplog):
    with pytest.raises(ValueError, match=r'never saw Pt as mobile.*O, Ag'):
        SurfaceDiffusion(slab, 'Pt2O', model='ag-o-overlayer', **QUICK)
    with pytest.raises(ValueError, match='never saw S as mobile'):
        SurfaceDiffusion(slab, 'Ag2S', model='ag-o-overlayer', **QUICK)
    with pytest.raises(ValueError, match='never saw Cl as mobile atoms; it knows H, C, N, O, '):
        SurfaceDiffusion(slab, 'Ag2Cl', **QUICK)
    assert SurfaceDiffusion(slab, 'Pt2O', **QUICK).model == 'metal-oxide-overlayer'
    assert 'never saw O+Pt on Ag (only ' in caplog.text
    slab.symbols[0] = 'Cu'
    with pytest.raises(ValueError, match='never saw Cu as substrate'):
        SurfaceDiffusion(slab, 'Ag2O', model='ag-o-overlayer', **QUICK)


def test_on_rows_of_atoms_silver_is_renamed(caplog):
    slab = fcc110('Cu', (2, 2, 3), vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    gen = SurfaceDiffusion(slab, 'Cu2O', rng=1, steps=20, logfile=None)
    atoms = gen.sample()
    assert gen.model == 'renamed-silver' and 'never saw Cu (only Ag, O)' in caplog.text
    silver = fcc110('Ag', (2, 2, 3), a=4.16, vacuum=10.0)
    silver.pbc = (True, True, False)
    silver.set_constraint(FixAtoms(indices=range(len(silver))))
    same = SurfaceDiffusion(silver, 'Ag2O', model='renamed-silver', rng=1, steps=20, logfile=None).sample()
    tops = [one.positions[-3:] - [0, 0, one.positions[:12, 2].max()] for one in (atoms, same)]
    assert tops[0] == pytest.approx(tops[1] * 3.61 / 4.16, abs=0.02)  # the same structure, scaled


@pytest.mark.parametrize(
    ('build', 'metal', 'layers', 'new'), [(hcp0001, 'Ru', 2, False), (bcc110, 'Ta', 2, False), (bcc100, 'W', 3, True)]
)
def test_hexagonal_and_body_centred_metals_have_the_model_of_many_metals(build, metal, layers, new, caplog):
    slab = build(metal, (2, 2, layers), vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    gen = SurfaceDiffusion(slab, f'{metal}2O', **QUICK)
    assert gen.model == 'metal-oxide-overlayer'
    assert ('never saw' in caplog.text) == new
    assert ('measured nearest to it: ' in caplog.text) == new


@pytest.mark.parametrize('metal', ['Cu', 'Pd', 'Ni'])
def test_overlayers_on_other_metals_have_their_distances(metal, caplog):
    slab = fcc111(metal, (2, 4, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    gen = SurfaceDiffusion(slab, f'{metal}4O2', rng=1, steps=20, logfile=None)
    images = gen.sample(4)
    assert gen.model == 'metal-oxide-overlayer' and ('never saw Ni+O on Ni' in caplog.text) == (metal == 'Ni')
    distances = np.array([atoms.get_all_distances(mic=True)[-2:, :-2].min(1) for atoms in images])  # O to its nearest metal
    assert 1.6 < np.median(distances) < 2.3
    assert all(not len(detached(atoms)) for atoms in images)


@pytest.mark.parametrize('height', [(3.0, 1.0), (1.0,), 2.0, (np.nan, 4.0), ('a', 'b'), (-3.0, -1.0)])
def test_bad_windows_are_refused(slab, height):
    with pytest.raises(ValueError, match='height'):
        SurfaceDiffusion(slab, 'Ag2O', height=height, **QUICK)


def test_a_window_that_cannot_hold_the_atoms_is_refused(slab):
    with pytest.raises(ValueError, match='do not fit'):
        SurfaceDiffusion(slab, 'Ag90O90', height=(1.0, 2.0), **QUICK)


@pytest.mark.parametrize('n', [0, -1, 1.5, 'two', True])
def test_bad_numbers_of_structures_are_refused_before_any_work(gen, n):
    with pytest.raises(ValueError, match='n is an integer'):
        gen.sample(n)
    with pytest.raises(ValueError, match='n is an integer'):
        gen.irun(n)


@pytest.mark.parametrize('options', [{'steps': 1}, {'steps': 2.5}, {'sampler': 'magic'}, {'batch_size': 0}])
def test_bad_settings_are_refused(slab, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SurfaceDiffusion(slab, 'Ag2O', **{'logfile': None, **options})


def test_unknown_keywords_and_conditions_are_refused(slab, gen):
    with pytest.raises(TypeError):
        SurfaceDiffusion(slab, 'Ag2O', colour='red', **QUICK)
    with pytest.raises(TypeError, match='unknown conditions'):
        gen.sample(band_gap=1.0)
    for value in (float('nan'), 'low', [1, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match='finite'):
            gen.sample(energy=value)
    with pytest.raises(ValueError, match='unknown guidance'):
        SurfaceDiffusion(slab, 'Ag2O', guidance={'force': 1}, **QUICK)


def test_a_condition_outside_the_data_warns(gen, caplog):
    gen.sample(energy=5.0)
    assert 'outside the training data' in caplog.text


def test_damaged_and_unknown_models(slab, tmp_path):
    with pytest.raises(CheckpointError, match='ag-o-overlayer'):
        SurfaceDiffusion(slab, 'Ag2O', model='no-such-model', **QUICK)
    bad = tmp_path / 'bad.safetensors'
    bad.write_bytes(b'garbage')
    with pytest.raises(CheckpointError, match='safetensors'):
        SurfaceDiffusion(slab, 'Ag2O', model=bad, **QUICK)
    with pytest.raises(ValueError, match='surface model'):
        SurfaceDiffusion(slab, 'Ag2O', model='ag-o-forcefield', **QUICK)
