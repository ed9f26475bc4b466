"""Ranges in place of numbers: every structure has a number of its own, and is what this number alone gives."""

import logging

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read
from ase.spacegroup import crystal

from ase_diffusion import CrystalDiffusion, CrysTensDiffusion, PointCloudDiffusion, SurfaceDiffusion, ZeoliteDiffusion
from ase_diffusion.cli.main import main
from ase_diffusion.generators.model import GenerativeModel
from ase_diffusion.networks.voxelnet import VoxelNet
from ase_diffusion.representations.conditions import NumberCondition, Range, conditions_of, with_numbers
from ase_diffusion.representations.voxels import Voxels
from ase_diffusion.training import save_checkpoint
from ase_diffusion.training.recipe import header_of
from ase_diffusion.utils.rng import spawn_seeds

QUICK = dict(rng=1, steps=3, logfile=None, validate=False)
ROWS = dict(
    features=16, blocks=1, settings=dict(heads=2, pair_hidden=8, pair_width=8, waves=1, shells=4), steps=2, progress=False
)


def crystens():
    images = [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)]
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs'] = {'formation_energy': -2.0 + 0.5 * k}
    return CrysTensDiffusion('untrained', **QUICK).fit(images, batch_size=4, **ROWS)


def zeolites(folder, **options):
    conditions = {'void_fraction': NumberCondition(0.0, 0.4), 'heat_of_adsorption': NumberCondition(5.0, 40.0)}
    scales = {'void_fraction': [0.06, 0.07], 'heat_of_adsorption': [20.0, 5.0]}
    voxels = Voxels(shape=None, multiple=2, sigma=(0.08, 40.0))
    header = header_of(
        'zeolite', voxels, voxels.process(), conditions=conditions, sampling={'sampler': 'ancestral', 'steps': 3}, data={}
    )
    network = VoxelNet(width=8, blocks=1, attention=0, embedding=16, conditions=scales)
    return ZeoliteDiffusion(save_checkpoint(folder / 'tiny.safetensors', network, header), **{**QUICK, **options})


def overlayers():
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return SurfaceDiffusion(slab, 'Ag3O', **QUICK)


CASES = {
    'surface': (lambda folder: overlayers(), {'energy': (0.0, 0.5)}),
    'crystal': (lambda folder: CrystalDiffusion(natoms=5, model='perov-5', **QUICK), {'heat_of_formation': (-0.3, 2.0)}),
    'pointcloud': (lambda folder: PointCloudDiffusion(['Mg', 'O'], templates=1, **QUICK), {'formation_energy': (-3.0, -1.0)}),
    'crystens': (lambda folder: crystens(), {'formation_energy': (-2.0, -0.5)}),
    'zeolite': (zeolites, {'void_fraction': (0.05, 0.25)}),
}


@pytest.fixture(scope='module', params=CASES)
def case(request, tmp_path_factory):
    """A generator whose network listens to its conditions, the name of one, and a range."""
    make, asked = CASES[request.param]
    gen = make(tmp_path_factory.mktemp(request.param))
    torch.manual_seed(0)
    for network in gen.networks.values() if request.param in ('crystens', 'zeolite') else ():
        for parameter in network.parameters():  # untrained ones begin with layers of zeros
            parameter.data += 0.05 * torch.randn_like(parameter)
    return gen, *next(iter(asked.items()))


def fields(gen, seed, **asked):
    """Return all tensors of the structure with this seed."""
    return torch.cat(
        [x.float().ravel() for x in gen._sample_batch([seed], gen.check_conditions(asked), gen._task()).fields.values()]
    )


def test_a_structure_is_that_of_the_number_it_drew(case):
    gen, name, (low, high) = case
    asked = gen.check_conditions({name: [low, high]})
    assert asked[name] == Range(low, high)
    seeds = spawn_seeds(3, 40)
    numbers = np.array([gen._asked_of(asked, seed)[name] for seed in seeds])
    assert ((low <= numbers) & (numbers <= high)).all() and len(set(numbers)) == 40
    assert abs((numbers.mean() - low) / (high - low) - 0.5) < 4 / np.sqrt(12 * 40)  # four standard errors
    together = gen._sample_batch(seeds[:3], asked, gen._task()).conditions if gen.kind != 'zeolite' else {}
    assert gen.kind == 'zeolite' or torch.allclose(together[name].cpu(), torch.tensor(numbers[:3], dtype=torch.float32))
    one = fields(gen, seeds[0], **{name: (low, high)})
    assert torch.equal(one, fields(gen, seeds[0], **{name: float(numbers[0])}))
    assert not torch.equal(one, fields(gen, seeds[0], **{name: low if numbers[0] > (low + high) / 2 else high}))


def test_numbers_stand_in_the_provenance_and_do_not_depend_on_the_batch(case, tmp_path, monkeypatch):
    gen, name, pair = case
    found = []
    if gen.kind == 'zeolite':  # every grid a framework
        sodalite = crystal(['Si', 'O'], [(0.25, 0.5, 0.0), (0.3534, 0.3534, 0.0)], spacegroup=229, cellpar=[8.87] * 3 + [90] * 3)
        monkeypatch.setattr(Voxels, 'decode', lambda self, batch: [sodalite.copy() for _ in range(batch.size)])
        monkeypatch.setattr(gen, 'tolerance', {})
    for size in (1, 3):
        monkeypatch.setattr(gen, 'batch_size', size)
        monkeypatch.setattr(gen, 'rng', np.random.default_rng(5))
        found.append(gen.sample(3, **{name: pair}))
    for one, other in zip(*found, strict=True):
        pairs = one.info['key_value_pairs']
        value = pairs[f'condition_{name}']
        assert type(value) is float and pair[0] <= value <= pair[1]
        assert (
            value == other.info['key_value_pairs'][f'condition_{name}'] and pairs['seed'] == other.info['key_value_pairs']['seed']
        )
        again = gen.again(other)
        assert np.array_equal(again.positions, other.positions)
        assert again.info['key_value_pairs'][f'condition_{name}'] == value
    assert len({atoms.info['key_value_pairs'][f'condition_{name}'] for atoms in found[0]}) == 3
    with connect(tmp_path / 'a.db') as db:
        db.write(found[0][0], **found[0][0].info['key_value_pairs'])
        assert db.count(f'condition_{name}>={pair[0]},condition_{name}<={pair[1]}') == 1


@pytest.mark.parametrize(
    'wrong',
    [(-1.0, -2.0), (0.0, float('nan')), (0.0, float('inf')), (-1.0, 0.0, 1.0), (0.5,), (), ('a', 'b'), (True, 2), ((0, 1), 2)],
)
def test_what_is_no_range_is_refused_before_the_work(case, wrong, monkeypatch):
    gen, name, _ = case
    monkeypatch.setattr(gen, '_sample_batch', lambda *args: pytest.fail('began'))
    with pytest.raises(ValueError, match=f'{name}.* finite number'):
        gen.sample(**{name: wrong})
    with pytest.raises(ValueError, match='guidance_scale must be a finite number'):
        gen.sample(**{name: 0.1, 'guidance_scale': (1, 2)})


def test_only_numbers_have_ranges():
    gen = PointCloudDiffusion(['Mg', 'O'], **QUICK)
    for wrong in (('metal', 'insulator'), (0, 1), np.array([0, 1])):
        with pytest.raises(ValueError, match='band_gap is one of metal, semiconductor, insulator, or None; got'):
            gen.sample(band_gap=wrong)
    gen = CrysTensDiffusion(**QUICK)
    with pytest.raises(ValueError, match='space_group is a number of the International Tables'):
        gen.sample(space_group=(221, 225))
    with pytest.raises(ValueError, match='elements is a list of chemical symbols; 1 is none'):
        gen.sample(elements=(1, 2))
    with pytest.raises(ValueError, match='natoms is an integer'):
        gen.sample(natoms=(4, 8))


def test_a_range_beyond_the_data_warns_and_the_log_tells_it(caplog, tmp_path):
    gen = CrystalDiffusion(model='perov-5', **{**QUICK, 'logfile': tmp_path / 'log'})
    with caplog.at_level(logging.WARNING):
        gen.sample(heat_of_formation=(0.0, 1.0))
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        gen.sample(heat_of_formation=(0.0, 99.0))
    assert 'heat_of_formation = 0 to 99 reaches outside the training data, ' in caplog.text
    assert 'heat_of_formation 0 to 1' in (tmp_path / 'log').read_text().splitlines()[0]


def test_numbers_are_drawn_where_there_are_data(case, caplog):
    gen, name, _ = case
    known = conditions_of(gen.header)[name]
    middle = (known.low + known.high) / 2
    asked = gen.check_conditions({name: (middle, known.high + 99.0)})[name]
    assert asked == Range(middle, known.high)
    assert f'; numbers are drawn from {middle:g} to {known.high:g}' in caplog.text
    caplog.clear()
    if gen.kind != 'zeolite':  # a share of the volume
        beyond = (known.high + 1, known.high + 2)
        assert gen.check_conditions({name: beyond})[name] == Range(*beyond)
        assert 'lies outside the training data' in caplog.text and 'drawn' not in caplog.text


def test_numbers_are_drawn_in_all_ranges_and_nothing_else_changes():
    asked = {'a': Range(1.0, 1.0), 'b': Range(-2.0, 3.0), 'c': 'metal', 'd': (1.0, 2.0), 'e': None}
    found = with_numbers(asked, np.random.default_rng(0))
    assert found['a'] == 1.0 and -2 <= found['b'] <= 3 and {**found, 'a': 0, 'b': 0} == {**asked, 'a': 0, 'b': 0}
    assert with_numbers(asked, np.random.default_rng(0)) == found != with_numbers(asked, np.random.default_rng(1))


def test_targets_of_a_framework_go_together():
    gen = ZeoliteDiffusion(rng=1, logfile=None)
    asked = gen.check_conditions({'void_fraction': (0.05, 0.3), 'heat_of_adsorption': (8.0, 40.0)})
    drawn = [gen._asked_of(asked, seed) for seed in range(60)]
    for each in drawn:  # no known framework is void and attractive
        gen.cells.weights({name: each[name] for name in ('void_fraction', 'heat_of_adsorption')}, gen.rows)
    assert 0 < sum(GenerativeModel._asked_of(gen, asked, seed) != drawn[seed] for seed in range(60)) < 30
    with pytest.raises(ValueError, match='several targets are those of one framework'):
        gen.sample(void_fraction=(0.3, 0.31), heat_of_adsorption=(32.0, 33.0))
    for wrong, text in (
        ({'void_fraction': (0.9, 1.1)}, 'share of the volume, 0 to 1; got 0.9 to 1.1'),
        ({'henry_coefficient': (-5, 0)}, 'above 0'),
    ):
        with pytest.raises(ValueError, match=text):
            gen.sample(**wrong)


def test_frameworks_meet_the_number_they_drew():
    for atoms in ZeoliteDiffusion(rng=5, logfile=None).sample(4, void_fraction=(0.1, 0.3)):
        pairs = atoms.info['key_value_pairs']
        assert 0.1 <= pairs['condition_void_fraction'] <= 0.3
        assert abs(pairs['void_fraction'] - pairs['condition_void_fraction']) <= 0.03


def test_the_command_line_takes_ranges(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = 'sample crystal --model perov-5 -n 3 --steps 4 --seed 1 -o a.traj --condition heat_of_formation='
    assert main(f'{line}-0.5:1.5'.split()) in (None, 0)
    values = [atoms.info['key_value_pairs']['condition_heat_of_formation'] for atoms in read('a.traj', ':')]
    assert len(set(values)) == 3 and all(-0.5 <= value <= 1.5 for value in values)
    for wrong in ('2:1', '1:2:3', '1:nan', '1:'):
        assert main(f'{line}{wrong}'.replace('a.traj', 'b.traj').split()) == 2
        assert 'heat_of_formation' in capsys.readouterr().err
    assert not (tmp_path / 'b.traj').exists()


def test_the_message_says_what_may_be_asked_for():
    number = NumberCondition(0.0, 1.0)
    for wrong in ((0.0, None), {1, 2}, '0:1', np.array(['a', 'b'])):
        with pytest.raises(ValueError, match=r'^x must be a finite number, a range \(low, high\) with low <= high, or None'):
            number.check_asked('x', wrong)
    assert number.check_asked('x', np.array([0, 1])) == Range(0.0, 1.0)
