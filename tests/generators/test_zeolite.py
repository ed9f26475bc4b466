"""ZeoliteDiffusion: draws of cells, batches, notes, interpolation, training; with small networks."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from ase.calculators.calculator import Calculator
from ase.spacegroup import crystal

from ase_diffusion import ZeoliteDiffusion
from ase_diffusion.data.zeolite_cells import ZeoliteCells, shipped_cells
from ase_diffusion.data.zeolites import read_zeolites
from ase_diffusion.diffusion import SAMPLERS
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.grids import Draw, Interpolation, SymmetricNoise
from ase_diffusion.networks.voxelnet import VoxelNet
from ase_diffusion.porous import adsorption_properties, check_framework, energy_grid
from ase_diffusion.representations import Failure
from ase_diffusion.representations.cells import space_group_of
from ase_diffusion.representations.conditions import NumberCondition
from ase_diffusion.representations.voxels import GridSymmetry, Voxels
from ase_diffusion.training import save_checkpoint
from ase_diffusion.training.recipe import header_of
from ase_diffusion.training.zeolite import new_voxels

SCALES = {'volume_per_t': [54.0, 10.0], 'void_fraction': [0.06, 0.07], 'multiplicity': [2.0, 1.3]}


def sodalite(edge=8.87, **info):
    """Return SOD, Im-3m, whose atoms lie on special positions."""
    atoms = crystal(['Si', 'O'], [(0.25, 0.5, 0.0), (0.3534, 0.3534, 0.0)], spacegroup=229, cellpar=[edge] * 3 + [90] * 3)
    atoms.info = {'key_value_pairs': info}
    return atoms


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of a network with random weights."""
    torch.manual_seed(0)
    network = VoxelNet(width=8, blocks=1, attention=0, embedding=16, conditions=SCALES, logarithmic=['multiplicity'])
    torch.nn.init.normal_(network.last.conv.weight, std=0.05)
    voxels = Voxels(shape=None, multiple=2, sigma=(0.08, 40.0))
    conditions = {'void_fraction': NumberCondition(0.0, 0.4), 'heat_of_adsorption': NumberCondition(5.0, 40.0)}
    header = header_of(
        'zeolite', voxels, voxels.process(), conditions=conditions, sampling={'sampler': 'ancestral', 'steps': 3}, data={}
    )
    return save_checkpoint(tmp_path_factory.mktemp('zeolite') / 'tiny.safetensors', network, header)


@pytest.fixture
def gen(checkpoint):
    """Return a generator with random weights."""
    return ZeoliteDiffusion(checkpoint, rng=1, logfile=None)


@pytest.fixture
def answers(monkeypatch):
    """Let every grid be a framework."""

    def decode(self, batch, assemble=None):
        found = [sodalite() for _ in range(batch.size)]
        for atoms in found:
            atoms.info |= {'step': 'direct', 'moved': 0.1, 'cost': 2e-4}
        return found

    monkeypatch.setattr(Voxels, 'decode', decode)


def test_frameworks_have_the_space_group_that_was_asked_for():
    """O is put in symmetric places first; beside them 3 of 16 had group 225, none 227."""
    for group in (225, 227):
        images = ZeoliteDiffusion(rng=5, logfile=None, space_group=group).sample(4)
        assert sum(atoms.info['key_value_pairs']['space_group'] == group for atoms in images) >= 3


def test_the_mode_without_symmetry_has_a_sampler_of_its_own(checkpoint):
    assert ZeoliteDiffusion(checkpoint, symmetry=False, logfile=None).sampler == 'renoised_ancestral'
    assert ZeoliteDiffusion(checkpoint, symmetry=False, sampler='heun', logfile=None).sampler == 'heun'
    assert ZeoliteDiffusion(checkpoint, logfile=None).sampler != 'renoised_ancestral'


def test_the_table_of_cells_holds_groups_that_fit():
    cells = shipped_cells()
    assert len(cells) > 4000 and (cells.silicon > 3).all()
    volumes = cells.lengths.astype(float).prod(1) / cells.silicon
    assert volumes.min() > 30 and volumes.max() < 125
    for row in range(0, len(cells), 400):
        rotations, _ = cells.operations(row)
        metric = np.diag(cells.lengths[row].astype(float) ** 2)
        assert np.allclose(rotations.transpose(0, 2, 1) @ metric @ rotations, metric, rtol=2e-2, atol=1.0)


def test_cells_are_drawn_near_the_target():
    cells = shipped_cells()
    for value in (0.05, 0.2):
        weights = cells.weights({'void_fraction': value})
        assert weights.sum() == pytest.approx(1) and abs(weights @ cells.labels['void_fraction'] - value) < 0.01
    far = cells.weights({'void_fraction': 0.9})  # outside the data: the nearest
    assert far @ cells.labels['void_fraction'] > 0.2
    with pytest.raises(ValueError, match='several targets are those of one framework'):
        cells.weights({'void_fraction': 0.3, 'heat_of_adsorption': 33.0})


def test_weights_of_a_small_table_are_computed_by_hand():
    operations = {
        'operations': np.zeros(2, int),
        'counts': np.array([1]),
        'rotations': np.eye(3)[None],
        'translations': np.zeros((1, 3)),
    }
    labels = {'void_fraction': np.array([0.1, 0.12]), 'heat_of_adsorption': np.full(2, np.nan), 'henry_coefficient': np.ones(2)}
    cells = ZeoliteCells({'lengths': np.ones((2, 3)), 'silicon': np.ones(2), 'group': np.ones(2)} | operations | labels)
    assert np.allclose(cells.weights({'void_fraction': 0.1}), np.array([1, np.exp(-0.5)]) / (1 + np.exp(-0.5)))
    with pytest.raises(ValueError, match='no known framework has such a cell'):
        cells.weights({}, np.zeros(2, bool))


def test_symmetric_noise_has_the_symmetry_unit_variance_and_one_seed_for_each():
    symmetry = GridSymmetry.of([np.eye(3, dtype=int), -np.eye(3, dtype=int)], np.zeros((2, 3)), (8, 8, 8))
    like = torch.zeros(2, 3, 8, 8, 8)
    noise = SymmetricNoise([5, 6], [symmetry, None]).normal(like)
    mirrored = torch.roll(noise[0].flip((-1, -2, -3)), (1, 1, 1), (-1, -2, -3))
    assert torch.allclose(noise[0], mirrored, atol=1e-6) and abs(noise[0].var() - 1) < 0.12
    assert torch.equal(noise[1], SymmetricNoise([6], [None]).normal(like[:1])[0])


def test_grids_have_the_space_group_and_physical_units(gen):
    grids = gen.sample_grids(3)
    assert len(grids) == 3 and set(grids[0]) == {'energy', 'Si', 'O', 'cell'}
    for each in grids:
        assert each['energy'].shape == each['Si'].shape and each['energy'].min() >= -4000 and each['energy'].max() <= 5000
    seed = 12345
    draw = gen._draw(seed, {})
    conditions = gen.check_conditions({})
    grid = gen._sample_batch([seed], conditions, gen._task()).fields['grids'][0].float()
    assert torch.allclose(draw.symmetry.average(grid), grid, atol=1e-4)
    assert draw.shape == tuple(grid.shape[1:])


def test_the_same_seeds_give_the_same_grids_in_groups_and_alone(gen, monkeypatch):
    seeds, conditions, task = [7, 8, 9, 10, 11, 12], gen.check_conditions({}), gen._task()
    monkeypatch.setattr(Voxels, 'decode', lambda self, batch: [Failure(f'{x.double().sum():.3f}') for x in batch.fields['grids']])
    monkeypatch.setattr('ase_diffusion.generators.zeolite._half', lambda device: torch.autocast('cpu', enabled=False))
    alone = [outcome.reason for outcome in gen._candidates(seeds, conditions, task)]
    gen.rows = gen.rows & (gen.cells.silicon == 24)
    draws = gen._draws(seeds, conditions, task)
    shapes = [draw.shape for draw in draws]
    groups = [[k for k, s in enumerate(shapes) if s == shape] for shape in dict.fromkeys(shapes)]
    single = [outcome.reason for outcome in gen._candidates(seeds, conditions, task)]
    monkeypatch.setattr(gen, '_groups_of', lambda *args: groups[::-1])
    grouped = [outcome.reason for outcome in gen._candidates(seeds, conditions, task)]
    assert np.allclose(np.array(single, float), np.array(grouped, float), rtol=1e-3, atol=0.05)
    assert len(set(alone)) == len(seeds)


def test_results_carry_space_group_and_properties(gen, answers):
    gen.tolerance = {}
    images = gen.sample(2, void_fraction=0.1)
    found = adsorption_properties(energy_grid(sodalite(), shape=(32, 32, 32)))
    for atoms in images:
        pairs = atoms.info['key_value_pairs']
        assert check_framework(atoms) is None and pairs['space_group'] == 229 and pairs['restored_by'] == 'direct'
        assert pairs['void_fraction'] == pytest.approx(found['void_fraction'], abs=1e-5)
        assert pairs['condition_void_fraction'] == 0.1 and pairs['cost'] == pytest.approx(2e-4)
        assert {'void_fraction', 'space_group', 'cost'} <= set(pairs['provenance'].split())
        assert pairs['topology'] == 'SOD' and pairs['novelty'] == 'iza'
    assert space_group_of(sodalite(), 0.05) == 229


def test_grids_that_give_no_framework_are_counted(gen, monkeypatch):
    monkeypatch.setattr(Voxels, 'decode', lambda self, batch: [Failure('strained')] * batch.size)
    gen.maxtries = 3
    with pytest.raises(GenerationFailed) as failure:
        gen.sample(2)
    assert gen.failures['strained'] == gen.statistics['rejected'] >= 4 and not failure.value.images


def test_strained_frameworks_are_refused(checkpoint, answers):
    gen = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, max_cost=1e-4, maxtries=1)
    with pytest.raises(GenerationFailed, match='strained'):
        gen.sample()


def test_frameworks_far_from_their_target_are_refused(checkpoint, answers):
    truth = adsorption_properties(energy_grid(sodalite(), shape=(32, 32, 32)))['void_fraction']
    gen = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, maxtries=1)
    assert gen.sample(void_fraction=truth + 0.02).info['key_value_pairs']['void_fraction'] == pytest.approx(truth, abs=1e-5)
    with pytest.raises(GenerationFailed, match='void_fraction off target'):
        gen.sample(void_fraction=truth + 0.05)
    assert gen._off_target({'condition_henry_coefficient': 10.0, 'henry_coefficient': 14.9}) is None
    assert gen._off_target({'condition_henry_coefficient': 10.0, 'henry_coefficient': 6.0}) == 'henry_coefficient off target'
    assert gen._off_target({'condition_heat_of_adsorption': 15.0}) == 'heat_of_adsorption off target'  # closed: there is none
    free = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, maxtries=1, tolerance=None)
    assert free.sample(void_fraction=truth + 0.05)
    again = ZeoliteDiffusion.from_record(free.sample(void_fraction=0.2))
    assert again.tolerance == {} and ZeoliteDiffusion(checkpoint, logfile=None, tolerance={'void_fraction': 0.1}).tolerance == {
        'void_fraction': 0.1,
        'heat_of_adsorption': 1.5,
        'henry_coefficient': 1.5,
    }
    for wrong in ({'void_fraction': 0.0}, {'henry_coefficient': 0.9}, {'density': 1.0}):
        with pytest.raises(ValueError, match='tolerance is a dict'):
            ZeoliteDiffusion(checkpoint, logfile=None, tolerance=wrong)


def test_cells_and_groups_can_be_given(checkpoint):
    gen = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, cell=[12.0, 12.0, 12.0])
    draw = gen._draw(3, {})
    assert np.allclose(draw.edges, 12) and 16 < draw.silicon < 48
    group = int(np.bincount(shipped_cells().group).argmax())
    gen = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, space_group=group)
    assert set(gen.cells.group[gen.rows].tolist()) == {group}
    assert ZeoliteDiffusion(checkpoint, logfile=None, symmetry=False)._draw(3, {}).symmetry is None
    with pytest.raises(ValueError, match='orthogonal cell'):
        ZeoliteDiffusion(checkpoint, logfile=None, cell=[[10, 1, 0], [0, 10, 0], [0, 0, 10]])
    with pytest.raises(ValueError, match='space_group is one or several of'):
        ZeoliteDiffusion(checkpoint, logfile=None, space_group=300)
    with pytest.raises(ValueError, match='best_of'):
        ZeoliteDiffusion(checkpoint, logfile=None, best_of=2)
    with pytest.raises(ValueError, match='needs symmetry=True'):
        ZeoliteDiffusion(checkpoint, logfile=None, space_group=group, symmetry=False)


class OfVolume(Calculator):
    """Energy (eV) of the volume alone: a minimum at 720 A^3."""

    implemented_properties = ('energy', 'forces', 'stress')

    def calculate(self, atoms=None, properties=None, system_changes=None):
        super().calculate(atoms, properties, system_changes)
        excess, stiffness = self.atoms.get_volume() - 720.0, 1e-3
        stress = 2 * stiffness * excess * np.array([1.0, 1, 1, 0, 0, 0])
        self.results = {'energy': stiffness * excess**2, 'forces': np.zeros((len(self.atoms), 3)), 'stress': stress}


def test_properties_are_those_of_the_relaxed_framework(checkpoint, answers):
    gen = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, relax={'calculator': OfVolume(), 'fmax': 1e-3})
    atoms = gen.sample()
    pairs = atoms.info['key_value_pairs']
    assert atoms.get_volume() == pytest.approx(720, abs=0.5) and pairs['relax_converged']
    assert pairs['topology'] == 'SOD' and pairs['space_group'] == 229
    found = adsorption_properties(energy_grid(atoms, shape=(32, 32, 32)))
    small = adsorption_properties(energy_grid(sodalite(), shape=(32, 32, 32)))
    assert pairs['henry_coefficient'] == pytest.approx(found['henry_coefficient'], rel=1e-3)
    assert abs(found['henry_coefficient'] - small['henry_coefficient']) > 1e-3
    assert atoms.get_potential_energy() == pytest.approx(0.0, abs=1e-2)


def test_frameworks_are_interpolated(gen, answers):
    a, b = sodalite(8.87), sodalite(8.95)
    atoms = gen.interpolate(a, b, 0.5)
    pairs = atoms.info['key_value_pairs']
    assert pairs['operation'] == 'interpolate' and pairs['weight'] == 0.5
    assert task_of(gen, a, b).symmetry.multiplicity > 20  # most of Im-3m and its centring, which both have
    assert np.allclose(a.cell.lengths(), 8.87)
    assert len(gen.interpolate(a, b, 0.3, n=2)) == 2
    for wrong, message in (
        ((a, a.repeat((2, 1, 1))), 'grids of one shape'),
        ((a, Atoms('Cu', cell=[8, 8, 8], pbc=True)), 'of SiO2'),
        ((a, make_supercell(a, [[1, 0, 0], [1, 1, 0], [0, 0, 1]])), 'orthogonal cells along'),
        (('SOD', a), 'are Atoms'),
    ):
        with pytest.raises(ValueError, match=message):
            gen.interpolate(*wrong)
    with pytest.raises(ValueError, match='share of the second'):
        gen.interpolate(a, b, 1.5)
    with pytest.raises(ValueError, match='noise lies above'):
        gen.interpolate(a, b, noise=1e3)


def task_of(gen, a, b):
    """Return the draw of an interpolation."""
    seen = []
    real, gen._iterate = gen._iterate, lambda count, conditions, task: seen.append(task) or iter([a])
    gen.interpolate(a, b)
    gen._iterate = real
    return seen[0].draw


def test_mixed_noise_keeps_its_variance(gen):
    voxels, process = gen.representation, gen.process
    x = torch.zeros(2, 3, 16, 16, 16)
    task = Interpolation(x, 0.3, Draw(np.full(3, 15.0), (16, 16, 16), 24, None), 20, 0.6)
    batch = voxels.empty(np.eye(3)[None] * 15, (16, 16, 16))
    _, begin = task.begin(process, batch, SymmetricNoise([1], [None]), None)
    sigma = process.processes['grids'].scales(torch.tensor([0.6], dtype=torch.float64), x)[1]
    assert begin['initial'].fields['grids'].std() == pytest.approx(float(sigma.flatten()[0]), rel=0.03)


@pytest.mark.slow
def test_a_small_model_is_trained_saved_and_used(tmp_path):
    images = [sodalite(8.6 + 0.05 * k, void_fraction=0.01 * k) for k in range(12)]
    gen = ZeoliteDiffusion('untrained', rng=1, logfile=None)
    gen.fit(
        images,
        tmp_path / 'run',
        steps=20,
        batch_size=4,
        settings={'features': 8, 'blocks': 1},
        shape=(8, 8, 8),
        every=10,
        progress=False,
    )
    assert set(gen.header['conditions']) == {'void_fraction'}
    again = ZeoliteDiffusion(gen.save(tmp_path / 'small.safetensors'), rng=1, steps=3, logfile=None)
    assert again.sample_grids(2, void_fraction=0.05)[0]['Si'].shape == (8, 8, 8)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'probe_shape': (4096, 4096, 4096)}, 'three numbers of points'),
        ({'probe_shape': 32}, 'three numbers of points'),
        ({'tolerance': 5}, 'tolerance is a dict'),
        ({'tolerance': {'void_fraction': True}}, 'tolerance is a dict'),
        ({'max_cost': float('nan')}, 'max_cost is a cost'),
        ({'max_cost': 'low'}, 'max_cost is a cost'),
        ({'max_cost': None}, 'max_cost is a cost'),
        ({'cell': [1000, 1000, 1000]}, '4 to 60 A'),
    ],
)
def test_wrong_arguments_are_refused_at_construction(checkpoint, wrong, message):
    with pytest.raises(ValueError, match=message):
        ZeoliteDiffusion(checkpoint, logfile=None, **wrong)


def test_numbers_of_numpy_are_numbers(checkpoint):
    options = {'max_cost': np.float32(0.5), 'tolerance': {'void_fraction': np.float32(0.25)}}
    gen = ZeoliteDiffusion(checkpoint, logfile=None, **options)
    assert gen.max_cost == 0.5 and gen.tolerance['void_fraction'] == 0.25


def test_impossible_targets_are_refused(gen, caplog):
    with pytest.raises(ValueError, match='share of the volume'):
        gen.sample(void_fraction=-0.1)
    with pytest.raises(ValueError, match='several targets'):
        gen.sample(void_fraction=0.3, heat_of_adsorption=33.0)
    assert gen.check_conditions({'void_fraction': 0.9})['void_fraction'] == 0.9
    assert 'void_fraction = 0.9 lies outside the training data, 0 to 0.4' in caplog.text


def test_the_unet_of_the_paper_is_a_configuration(tmp_path):
    voxels, build = new_voxels([sodalite()], shape=(8, 8, 8), network='unet')
    net = build(conditions={'void_fraction': [0.1, 0.1]})
    assert 6.4e6 < sum(p.numel() for p in net.parameters()) < 6.8e6 and net.settings['circular']
    conditions = {'void_fraction': NumberCondition(0.0, 0.4)}
    header = header_of('zeolite', voxels, voxels.process(), conditions=conditions, sampling={'steps': 2}, data={})
    path = save_checkpoint(tmp_path / 'unet.safetensors', net, header)
    gen = ZeoliteDiffusion(path, rng=1, logfile=None)
    torch.nn.init.normal_(gen.network.last.conv.weight, std=0.05)
    one, other = ([g['Si'] for g in seeded(gen).sample_grids(1, void_fraction=v)][0] for v in (0.0, 0.3))
    assert one.shape == (8, 8, 8) and not np.allclose(one, other)
    with pytest.raises(ValueError, match='networks of zeolites'):
        new_voxels([sodalite()], network='resnet')


def seeded(gen):
    """Return a generator at the beginning of its random numbers."""
    gen.rng = np.random.default_rng(3)
    return gen


def test_the_shipped_set_is_whole():
    images = read_zeolites('silica-frameworks')
    assert len(images) > 3500
    for atoms in images[::400]:
        assert check_framework(atoms) is None
        assert atoms.info['key_value_pairs']['cost'] < 0.0101
    assert len({atoms.info['key_value_pairs']['net'] for atoms in images}) == len(images)


def test_the_shipped_model_loads_and_samples():
    gen = ZeoliteDiffusion(rng=1, steps=2, logfile=None)
    assert gen.sampler in SAMPLERS
    assert gen.sample_grids(1)[0]['Si'].max() > 0.1


def test_random_sites_are_the_default_and_said_so(tmp_path):
    gen = ZeoliteDiffusion(rng=4, logfile=tmp_path / 'log')
    images = gen.sample(6)
    assert 'random symmetric sites, no network' in (tmp_path / 'log').read_text().splitlines()[0]
    for atoms in images:
        pairs = atoms.info['key_value_pairs']
        assert check_framework(atoms) is None and pairs['source'] == 'random' and pairs['cost'] < 0.01
        assert 'sampler' not in pairs and 'restored_by' not in pairs and 'guidance_scale' not in pairs
        assert pairs['model'] == 'none'  # no network took part
    assert len({atoms.info['key_value_pairs']['net_key'] for atoms in images}) > 3
    ones = ZeoliteDiffusion(rng=4, batch_size=1, logfile=None).sample(3)  # at any batch size
    assert all(np.allclose(a.positions, b.positions) for a, b in zip(ones, images, strict=False))
    again = ZeoliteDiffusion.from_record(images[2]).again(images[2])
    assert np.array_equal(again.positions, images[2].positions)


@pytest.mark.parametrize(('name', 'value', 'within'), [('void_fraction', 0.25, 0.03), ('heat_of_adsorption', 15.0, 1.5)])
def test_random_sites_meet_targets(name, value, within):
    images = ZeoliteDiffusion(rng=5, logfile=None).sample(4, **{name: value})
    for atoms in images:
        assert abs(adsorption_properties(energy_grid(atoms, shape=(32, 32, 32)))[name] - value) < within + 1e-3


def test_random_sites_take_cells_and_groups():
    gen = ZeoliteDiffusion(rng=1, logfile=None, space_group=62, max_cost=0.004)
    atoms = gen.sample()
    assert atoms.info['key_value_pairs']['cost'] < 0.004
    assert atoms.info['key_value_pairs']['space_group'] > 2  # O beside the bonds may lower it
    gen = ZeoliteDiffusion(rng=1, logfile=None, cell=[13.0, 13.0, 13.0])
    assert abs(gen.sample().cell.lengths() / 13 - 1).max() < 0.11
    gen = ZeoliteDiffusion(rng=0, logfile=None, cell=[8.0, 9.0, 14.0])
    assert abs(gen.sample().cell.lengths() / [8, 9, 14] - 1).max() < 0.11


def test_the_source_follows_what_is_asked_for(checkpoint):
    for options in ({'steps': 3}, {'symmetry': False}, {'sampler': 'ddim'}, {'model': checkpoint}, {'model': 'untrained'}):
        assert ZeoliteDiffusion(logfile=None, **options).source == 'network'
    assert ZeoliteDiffusion(logfile=None, source='network').source == 'network'
    assert ZeoliteDiffusion(checkpoint, source='random', logfile=None).sample().info['key_value_pairs']['source'] == 'random'
    with pytest.raises(ValueError, match='random sites are symmetric'):
        ZeoliteDiffusion(logfile=None, source='random', steps=3, symmetry=False)
    with pytest.raises(ValueError, match='source is one of random, network'):
        ZeoliteDiffusion(logfile=None, source='templates')
    with pytest.raises(ValueError, match='guidance_scale is that of a network'):
        ZeoliteDiffusion(logfile=None).sample(void_fraction=0.1, guidance_scale=2.0)
    grids = ZeoliteDiffusion(logfile=None, rng=1).sample_grids(1)  # these have the network alone
    assert grids[0]['Si'].max() > 0.1


def test_what_the_network_made_says_so_in_a_generator_of_random_sites(checkpoint, answers):
    gen = ZeoliteDiffusion(checkpoint, source='random', rng=1, logfile=None)
    atoms = gen.interpolate(sodalite(8.87), sodalite(8.95), void_fraction=0.1)  # with the default guidance
    pairs = atoms.info['key_value_pairs']
    assert pairs['source'] == 'network' and pairs['model'] == 'tiny'
    assert ZeoliteDiffusion.from_record(atoms).source == 'random'
    gen = ZeoliteDiffusion(checkpoint, rng=1, logfile=None, tolerance=None)
    assert 'guidance_scale' not in gen.sample().info['key_value_pairs']  # nothing is asked for
    assert gen.sample(void_fraction=0.1).info['key_value_pairs']['guidance_scale'] == 2.0


def test_targets_out_of_reach_end_soon_and_say_what_to_do(monkeypatch):
    monkeypatch.setattr('ase_diffusion.generators.random_sites.CELLS', 3)
    gen = ZeoliteDiffusion(rng=1, logfile=None)
    assert gen.maxtries == 20 and ZeoliteDiffusion(logfile=None, source='network').maxtries == 60
    with pytest.raises(GenerationFailed, match='ask for what known frameworks have.*tolerance'):
        gen.sample(void_fraction=0.95)
    assert gen.statistics['generated'] <= 21
