"""perturb and complete: generation that begins with given overlayers."""

import io

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from ase.io import read

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.metrics import duplicates
from ase_diffusion.relax import relax_batched
from ase_diffusion.utils.atoms import frozen_mask

N = 16  # slab atoms; then Ag6O3


@pytest.fixture(scope='module')
def slab():
    """p(2x4) Ag(111), two frozen layers."""
    slab = fcc111('Ag', (2, 4, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(N)))
    return slab


@pytest.fixture(scope='module')
def parent(slab):
    """A relaxed overlayer."""
    atoms = SurfaceDiffusion(slab, 'Ag6O3', rng=1, steps=50, logfile=None).sample()
    (atoms,) = relax_batched([atoms], 'ag-o', fmax=0.02, steps=300)
    assert atoms.info['key_value_pairs']['relax_converged']
    atoms.info['key_value_pairs']['raw_score'] = 77.7  # of a genetic algorithm; must not be inherited
    return atoms


@pytest.fixture
def gen(slab):
    """A generator that accepts whatever comes."""
    gen = SurfaceDiffusion(slab, 'Ag6O3', rng=3, steps=30, logfile=None)
    gen._reason_to_reject = lambda atoms: None
    return gen


def travel(atoms, parent):
    """Return how far the mobile atoms are from where they were in the parent, (n,)."""
    return find_mic((atoms.positions - parent.positions)[N:], atoms.cell, atoms.pbc)[1]


def test_small_noise_returns_the_parent_after_relaxation(gen, parent):
    images = gen.perturb(parent, noise=0.1, n=4)
    assert max(travel(atoms, parent).max() for atoms in images) < 0.7
    assert min(travel(atoms, parent).max() for atoms in images) > 1e-3  # but noised they were
    assert duplicates([parent, *relax_batched(images, 'ag-o', fmax=0.02, steps=300)]) == [0] * 5


def test_large_noise_is_like_a_fresh_sample(gen, parent):
    def mean(images):
        return np.mean([travel(atoms, parent) for atoms in images])

    gen.steps = 12
    fresh = mean(gen.sample(4))
    assert mean(gen.perturb(parent, noise=0.1, n=4)) < 0.2 * fresh
    assert mean(gen.perturb(parent, noise=50.0, n=4)) > 0.75 * fresh


def test_late_beginnings_take_fewer_steps(gen, parent):
    steps = [gen.perturb(parent, noise, n=None).info['key_value_pairs']['sampling_steps'] for noise in (0.05, 0.5, 50.0)]
    assert 10 <= steps[0] < steps[1] < steps[2] == 30


def test_perturb_keeps_what_sample_keeps(gen, slab, parent):
    before = parent.copy()
    images = gen.perturb(parent, 0.5, n=3, energy=0.1, guidance_scale=1.5)
    assert np.array_equal(parent.positions, before.positions)
    for atoms in images:
        pairs = atoms.info['key_value_pairs']
        assert np.array_equal(atoms.positions[:N], slab.positions)  # bit by bit
        assert np.array_equal(atoms.get_tags(), parent.get_tags())
        assert np.array_equal(frozen_mask(atoms), frozen_mask(parent))
        assert (pairs['operation'], pairs['noise'], pairs['condition_energy']) == ('perturb', 0.5, 0.1)
        assert 'raw_score' not in pairs
        assert 'relax_steps' not in pairs
        assert atoms.calc is None


def test_parents_have_their_turns_and_the_batch_size_does_not_matter(slab, parent):
    other = parent.copy()
    other.positions[N:, :2] += 0.5 * slab.cell[0, :2]
    runs = []
    for batch_size in (1, 4):
        gen = SurfaceDiffusion(slab, 'Ag6O3', rng=5, steps=20, logfile=None, batch_size=batch_size)
        gen._reason_to_reject = lambda atoms: None
        runs.append(gen.perturb([parent, other], 0.05, n=4))
    for k, (one, two) in enumerate(zip(*runs, strict=True)):
        assert travel(one, two).max() < 2e-3
        assert travel(one, (parent, other)[k % 2]).max() < 0.5 < travel(one, (other, parent)[k % 2]).max()


def test_an_own_order_of_the_mobile_atoms_is_kept(gen, parent):
    order = [*range(N), *range(N + 8, N - 1, -1)]
    mixed = parent[order]
    atoms = gen.perturb(mixed, 0.05, n=None)
    assert np.array_equal(atoms.numbers, mixed.numbers)
    assert travel(atoms, mixed).max() < 0.5


@pytest.mark.parametrize('sampler', ['renoised_ancestral', 'ancestral', 'euler_maruyama', 'ddim', 'heun', 'dpmpp_2m'])
def test_complete_moves_the_chosen_atoms_only(slab, parent, sampler):
    gen = SurfaceDiffusion(slab, 'Ag6O3', rng=3, steps=10, sampler=sampler, logfile=None)
    gen._reason_to_reject = lambda atoms: None
    chosen = [N + 2, -1]
    rest = [i for i in range(N + 9) if i not in (N + 2, N + 8)]
    for atoms in gen.complete(parent, chosen, n=2, repeats=2):
        assert np.array_equal(atoms.positions[rest], parent.positions[rest])  # bit by bit, float64
        assert np.abs(atoms.positions[chosen] - parent.positions[chosen]).max() > 1e-3
        assert atoms.info['key_value_pairs']['regenerated'] == 2


def test_complete_sees_the_kept_atoms(slab, parent):
    """The missing atom goes where there is room for it and bonds it likes: a blind one would not, as a uniform one does not."""
    gen = SurfaceDiffusion(slab, 'Ag6O3', rng=4, steps=20, logfile=None)
    gen._reason_to_reject = lambda atoms: None
    images = gen.complete(parent, N + 8, n=4)
    energies = [a.get_potential_energy() for a in relax_batched(images, 'ag-o', steps=0)]
    rng, blind = np.random.default_rng(0), parent.copy()
    uniform = []
    for _ in range(12):
        place = rng.random(2) @ slab.cell[:2] + [0, 0, slab.positions[:, 2].max() + rng.uniform(*gen.representation.height)]
        blind.positions[-1] = place
        uniform += [a.get_potential_energy() for a in relax_batched([blind], 'ag-o', steps=0)]
    assert np.median(energies) < np.median(uniform) - 1.0


def test_complete_of_everything_is_a_fresh_sample(slab, parent):
    one, two = (SurfaceDiffusion(slab, 'Ag6O3', rng=2, steps=12, logfile=None) for _ in range(2))
    for gen in (one, two):
        gen._reason_to_reject = lambda atoms: None
    everything = one.complete(parent, range(N, N + 9))
    assert np.isfinite(everything.positions).all()
    assert travel(everything, parent).mean() > 0.5
    assert one.statistics == {'generated': 1, 'accepted': 1, 'rejected': 0}


def test_guidance_and_relaxation_leave_kept_atoms_alone(slab, parent):
    gen = SurfaceDiffusion(
        slab,
        'Ag6O3',
        rng=3,
        steps=12,
        logfile=None,
        guidance={'finish_steps': 3, 'strength': 0.05},
        relax={'calculator': 'ag-o', 'steps': 3},
    )
    gen._reason_to_reject = lambda atoms: None
    atoms = gen.complete(parent, [N])
    assert np.array_equal(atoms.positions[N + 1 :], parent.positions[N + 1 :])
    assert gen.guidance.calls > 3
    assert 'relax_steps' not in atoms.info['key_value_pairs']
    assert gen.perturb(parent, 0.3, n=None).info['key_value_pairs']['relax_steps'] <= 3


def test_log_trajectory_observers_and_rejections_are_those_of_sample(slab, parent, tmp_path):
    log, seen = io.StringIO(), []
    with SurfaceDiffusion(
        slab,
        'Ag6O3',
        rng=0,
        steps=10,
        logfile=log,
        maxtries=2,
        trajectory=tmp_path / 'p.traj',
        denoising_trajectory=tmp_path / 'movie.traj',
    ) as gen:
        gen._reason_to_reject = lambda atoms: None
        gen.attach(lambda: seen.append(gen.atoms))
        images = gen.perturb(parent, 0.2, n=2) + [gen.complete(parent, [N])]
        gen._reason_to_reject = lambda atoms: 'no'
        with pytest.raises(GenerationFailed, match='rejected'):
            gen.perturb(parent, 0.2, n=2)
    assert seen == images
    assert len(read(tmp_path / 'p.traj', ':')) == 3
    assert len(read(tmp_path / 'movie.traj', ':')) == 10
    assert 'SurfaceDiffusion.perturb: 2 structures' in log.getvalue()
    assert 'noise 0.2' in log.getvalue()


@pytest.mark.parametrize('noise', [0, -0.3, np.nan, np.inf, 'much', None, True, 0.001])
def test_bad_noise_is_refused(gen, parent, noise):
    with pytest.raises(ValueError, match='noise'):
        gen.perturb(parent, noise)


@pytest.mark.parametrize('indices', [[], [N + 9], [-N - 10], 0, [N, 3], 1.5, [True, False], 'all'])
def test_bad_indices_are_refused(gen, parent, indices):
    with pytest.raises(ValueError, match=r'indices|FixAtoms'):
        gen.complete(parent, indices)
    with pytest.raises(ValueError, match='repeats'):
        gen.complete(parent, [N], repeats=0)
    assert gen.statistics['generated'] == 0


def spoil(parent, how):
    """Return a copy of the parent that does not fit, and a word of the message."""
    atoms = parent.copy()
    if how == 'composition':
        del atoms[-1]
    elif how == 'elements':
        atoms.numbers[-1] = 16
    elif how == 'cell':
        atoms.cell[0, 0] += 0.1
    elif how == 'fixed atoms':
        atoms.set_constraint()
        atoms.positions[:N, 2] += 0.05
    elif how == 'order':
        atoms = atoms[[*range(N, N + 9), *range(N)]]
    elif how == 'finite':
        atoms.positions[-1, 0] = np.nan
    return atoms


@pytest.mark.parametrize('how', ['composition', 'elements', 'cell', 'fixed atoms', 'order', 'finite'])
def test_structures_that_do_not_fit_are_refused(gen, parent, how):
    match = 'composition' if how == 'elements' else how
    for call in (lambda atoms: gen.perturb(atoms, 0.3), lambda atoms: gen.complete(atoms, [N])):
        with pytest.raises(ValueError, match=match):
            call(spoil(parent, how))


def test_nothing_and_no_atoms_are_refused(gen):
    with pytest.raises(ValueError, match='at least one'):
        gen.perturb([])
    with pytest.raises(TypeError, match='Atoms'):
        gen.complete('structure.traj', [N])


def test_rounded_substrates_are_accepted_and_come_back_as_given(gen, parent):
    rounded = parent.copy()
    rounded.set_constraint()
    rounded.positions = np.round(rounded.positions, 4)
    rounded.wrap()  # may move slab atoms to the other side of the cell
    assert np.array_equal(gen.perturb(rounded, 0.1, n=None).positions[:N], rounded.positions[:N])
