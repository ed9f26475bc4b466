"""Training: it learns, it resumes where it was interrupted, and it says what is missing."""

import csv
import math
import signal

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.geometry import find_mic

from ase_diffusion.diffusion import SAMPLERS, JointProcess, NoisePerStructure
from ase_diffusion.errors import MissingDependency
from ase_diffusion.networks import OverlayerDenoiser
from ase_diffusion.representations import Slab
from ase_diffusion.training import OverlayerData, Overlayers, read_header, train
from ase_diffusion.training.objectives import DenoisingLoss, EnergyAndForces
from ase_diffusion.training.surface import train_forcefield, train_surface
from ase_diffusion.training.trainer import EMA, evaluate
from ase_diffusion.weights.zoo import load_model

TINY = dict(features=8, blocks=1, cutoff=3.5)
QUIET = dict(progress=False, accelerator='cpu', warmup=5)
HEADER = {'kind': 'surface', 'process': Slab().process().todict(), 'representation': Slab().todict()}


def frame(seed, run=None, frozen=4, mobile=2, length=5.0):
    """A random overlayer on a substrate without any symmetry."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    atoms = Atoms('AgCuAgAu'[: 2 * frozen] + 'OH'[:mobile], cell=[length, length, 15], pbc=(True, True, False))
    atoms.positions[:frozen] = fixed.uniform(0, length, (frozen, 3)) * [1, 1, 0.1]
    atoms.positions[frozen:] = rng.uniform(0.2, length - 0.2, (mobile, 3)) * [1, 1, 0.3] + [0, 0, 1.2]
    atoms.set_constraint(FixAtoms(indices=range(frozen)))
    atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)))
    atoms.info['key_value_pairs'] = {'run': seed if run is None else run}
    return atoms


@pytest.fixture
def data():
    return Overlayers.from_atoms([frame(seed) for seed in range(12)])


class Interrupted(Exception):
    """Stands for a killed job."""


class Fragile(OverlayerData):
    """Data that ends with an exception at batch `last`."""

    last = 10**9

    def draw(self, k):
        if k == self.last:
            raise Interrupted
        return super().draw(k)


def run(data, out, steps=30, last=10**9, objective=None, header=None, size=None, **options):
    torch.manual_seed(0)
    network = OverlayerDenoiser(**(size or TINY), conditions={'energy': (0.0, 1.0)})
    source = Fragile(data, Slab((0.0, 4.0)), batch_size=4)
    source.last = last
    options = {'every': 10, 'checkpoint_seconds': 0, **QUIET, **options}
    path = train(
        network,
        objective or DenoisingLoss(Slab().process()),
        source,
        out,
        steps=steps,
        header=header or HEADER,
        **options,
    )
    return path, source


def weights(folder):
    return load_model(folder / 'last.safetensors')[0].state_dict()


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, data):
    pytest.importorskip('lightning')
    run(data, tmp_path / 'whole')
    with pytest.raises(Interrupted):
        run(data, tmp_path / 'broken', last=17)
    done = torch.load(tmp_path / 'broken' / 'resume.ckpt', weights_only=True)['global_step']
    assert done in (16, 17)  # the loader may be one batch ahead
    path, source = run(data, tmp_path / 'broken')
    assert source.start == done
    assert path == tmp_path / 'broken' / 'best.safetensors' and path.is_file()
    assert read_header(tmp_path / 'broken' / 'last.safetensors')['steps'] == 30
    whole, resumed = weights(tmp_path / 'whole'), weights(tmp_path / 'broken')
    assert all(torch.allclose(value, resumed[name], atol=1e-6) for name, value in whole.items())
    fresh = OverlayerDenoiser(**TINY, conditions={'energy': (0.0, 1.0)}).state_dict()
    assert any(not torch.allclose(value, fresh[name], atol=1e-3) for name, value in whole.items())


def test_a_finished_run_is_not_trained_again(tmp_path, data, caplog):
    pytest.importorskip('lightning')
    run(data, tmp_path, steps=8)
    before = weights(tmp_path)
    run(data, tmp_path, steps=8)
    assert 'has its 8 steps already' in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path).items())
    run(data, tmp_path, steps=12)  # more steps go on from there
    assert read_header(tmp_path / 'last.safetensors')['steps'] == 12


def test_a_folder_of_another_training_is_refused(tmp_path, data):
    pytest.importorskip('lightning')
    header = {**HEADER, 'data': {'fingerprint': 'abc', 'elements': [1, 8]}, 'conditions': {'energy': [0.0, 0.1]}}
    run(data, tmp_path, steps=4, header=header)
    kept = torch.load(tmp_path / 'resume.ckpt', weights_only=True)
    for change, size, text in (
        (dict(data={'fingerprint': 'abd', 'elements': [1, 8]}), TINY, "data.fingerprint 'abc', now 'abd'"),
        (dict(conditions={}), TINY, r'conditions.energy \[0.0, 0.1\], now None'),
        ({}, {**TINY, 'features': 16}, 'networks.denoiser.settings.features 8, now 16'),
    ):
        with pytest.raises(ValueError, match=f'belongs to one training.*{text}.*Take another folder'):
            run(data, tmp_path, steps=6, header={**header, **change}, size=size)
    rounded = {**header, 'conditions': {'energy': [0.0, 0.1 + 1e-12]}, 'metrics': {'a': 1.0}}
    run(data, tmp_path, steps=6, header=rounded, lr=1e-4)
    torch.save({key: value for key, value in kept.items() if key != 'run'}, tmp_path / 'resume.ckpt')  # of an older version
    run(data, tmp_path, steps=8, header={**header, 'conditions': {}})
    assert read_header(tmp_path / 'last.safetensors')['steps'] == 8


class Interrupt(DenoisingLoss):
    """Ctrl-C, or what comes where there are no signals, in the middle of call `at`."""

    def __init__(self, at, count=1, come=lambda: signal.raise_signal(signal.SIGINT)):
        super().__init__(Slab().process())
        self.at, self.count, self.come, self.calls = at, count, come, 0

    def __call__(self, *args):
        self.calls += 1
        for _ in range(self.count if self.calls == self.at else 0):
            self.come()
        return super().__call__(*args)


def ctrl_c():
    raise KeyboardInterrupt


@pytest.mark.parametrize('come, done', [(lambda: signal.raise_signal(signal.SIGINT), 5), (ctrl_c, 4)])
def test_ctrl_c_keeps_everything_and_says_so(tmp_path, data, caplog, come, done):
    pytest.importorskip('lightning')
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / 'broken', objective=Interrupt(5, come=come), checkpoint_seconds=1e9)
    assert signal.getsignal(signal.SIGINT) is usual and f'with what is in {tmp_path / "broken"}' in caplog.text
    assert torch.load(tmp_path / 'broken' / 'resume.ckpt', weights_only=True)['global_step'] == done
    for name in ('last', 'best'):
        assert read_header(tmp_path / 'broken' / f'{name}.safetensors')['steps'] == done
    run(data, tmp_path / 'broken')
    run(data, tmp_path / 'whole')
    resumed = weights(tmp_path / 'broken')
    assert all(torch.allclose(value, resumed[name], atol=1e-6) for name, value in weights(tmp_path / 'whole').items())


def test_a_second_ctrl_c_does_not_wait(tmp_path, data):
    pytest.importorskip('lightning')
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, objective=Interrupt(5, count=2), checkpoint_seconds=1e9)
    assert not (tmp_path / 'resume.ckpt').exists()


def test_a_training_that_diverges_is_an_error(tmp_path, data):
    pytest.importorskip('lightning')
    with pytest.raises(ValueError, match=r'finite; at step 20 it is not, with lr=1e\+12.*smaller lr, in another folder'):
        train_surface(data, tmp_path / 'a', steps=20, batch_size=4, lr=1e12, clip=None, **TINY, **QUIET)
    assert not (tmp_path / 'a' / 'best.safetensors').exists()
    with pytest.raises(ValueError, match='finite; at step 2 it is not'):  # every batch was skipped; there is no validation
        run(data, tmp_path / 'b', steps=2, objective=lambda *args: {'loss': torch.tensor(math.nan)})


def test_a_best_model_that_was_taken_away_comes_back(tmp_path, data):
    pytest.importorskip('lightning')
    path, _ = run(data, tmp_path, steps=4)
    path.unlink()
    assert run(data, tmp_path, steps=4)[0].is_file()


def test_data_of_which_nothing_is_left_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match='up to -1 eV per mobile atom.*raise max_relative'):
        train_surface(data, tmp_path, max_relative=-1, steps=1)
    with pytest.raises(ValueError, match=r'up to 0.0 eV/A: raise max_force'):
        train_forcefield(data, tmp_path, max_force=0.0, steps=1)


def test_a_network_without_conditions_learns_none(tmp_path, data, caplog):
    pytest.importorskip('lightning')
    network = OverlayerDenoiser(**TINY)
    _, header = load_model(train_surface(data, tmp_path, steps=2, batch_size=2, network=network, **QUIET))
    assert header['conditions'] == {} and 'knows no condition energy' in caplog.text


def test_a_loss_that_is_not_finite_is_skipped(tmp_path, data, caplog):
    pytest.importorskip('lightning')
    objective, seen = DenoisingLoss(Slab().process()), []

    def sometimes(network, batch, generator):
        seen.append(0)
        losses = objective(network, batch, generator)
        return {'loss': losses['loss'] * float('nan')} if len(seen) == 3 else losses

    torch.manual_seed(0)
    network = OverlayerDenoiser(**TINY)
    train(network, sometimes, OverlayerData(data, Slab(), batch_size=4), tmp_path, steps=6, header=HEADER, **QUIET)
    assert 'not finite' in caplog.text
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_denoisers_are_trained_from_data_to_checkpoint(tmp_path, data):
    pytest.importorskip('lightning')
    path = train_surface(data, tmp_path, steps=12, batch_size=4, every=6, **TINY, **QUIET)
    network, header = load_model(path)
    assert isinstance(network, OverlayerDenoiser) and set(network.conditions.names) == {'energy'}
    assert header['kind'] == 'surface' and header['units'] == {'positions': 'A', 'energy': 'eV per mobile atom'}
    assert header['representation']['height'] == pytest.approx(list(data.window()))
    assert header['data']['relaxations'] == 11  # one is held out
    assert header['data']['mobile_elements'] == [1, 8] and header['data']['substrate_elements'] == [29, 47, 79]
    low, high = header['conditions']['energy']
    assert 0 <= low <= high
    with (tmp_path / 'log.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['step'] for row in rows][:2] == ['6', '12']
    assert all(np.isfinite(float(row['val_loss'])) for row in rows)


def test_data_without_energies_trains_without_conditions(tmp_path):
    pytest.importorskip('lightning')
    images = [frame(seed) for seed in range(5)]
    for atoms in images:
        atoms.calc = None
    network, header = load_model(train_surface(Overlayers.from_atoms(images), tmp_path, steps=4, batch_size=2, **TINY, **QUIET))
    assert not network.conditions.names and header['conditions'] == {}


def test_force_fields_are_trained_from_data_to_checkpoint(tmp_path, data):
    pytest.importorskip('lightning')
    path = train_forcefield(data, tmp_path, steps=12, batch_size=4, every=6, **TINY, **QUIET)
    network, header = load_model(path)
    assert header['kind'] == 'forcefield' and header['units'] == {'energy': 'eV', 'forces': 'eV/A'}
    assert {'val_energy_mae', 'val_force_mae'} <= set(header['metrics'])
    assert network.references.abs().max() > 0


def test_force_field_errors_count_per_mobile_atom(data):
    batch = data.batch(data.items[:3], Slab())
    batch.extras['energy'] = torch.zeros(3, dtype=torch.float64)
    batch.extras['forces'] = torch.zeros(6, 3)

    class Network:
        def __call__(self, batch):
            return torch.full((3,), 0.4), torch.full((6, 3), 2.0)

        def reference_energy(self, batch):
            return torch.tensor([0.0, 0.2, -0.2], dtype=torch.float64)

    out = EnergyAndForces()(Network(), batch)
    assert float(out['energy_mae']) == pytest.approx((0.4 + 0.6 + 0.2) / 3 / 2)
    assert float(out['force_mae']) == pytest.approx(2.0)


def test_the_denoising_loss_is_that_of_the_process(data):
    """A network that predicts nothing has the mean square of unit noise as its loss; times cover all of [0, 1]."""
    objective, levels = DenoisingLoss(Slab().process()), []

    def nothing(batch, level, conditions):
        levels.append(level)
        return {'positions': torch.zeros_like(batch.fields['positions'])}

    source = OverlayerData(data, Slab((0.0, 4.0)), batch_size=64, repeat=0.0)
    losses = [float(objective(nothing, source.draw(k), torch.Generator().manual_seed(k))['loss']) for k in range(20)]
    assert 0.66 < np.mean(losses) < 1.0  # 1 in the plane, less along z, where the window cuts
    levels, schedule = torch.cat(levels), Slab().process().schedule
    assert levels.min() >= schedule.c_noise(torch.tensor(0.0)) and levels.max() <= schedule.c_noise(torch.tensor(1.0))
    t = (torch.exp(4 * levels) / schedule.sigma_min).log() / np.log(schedule.sigma_max / schedule.sigma_min)
    assert torch.histc(t, 8, 0, 1).min() == torch.histc(t, 8, 0, 1).max()  # stratified over each batch


def test_batches_that_other_processes_draw_are_the_same(tmp_path, data):
    source, objective = OverlayerData(data, Slab(), batch_size=4), DenoisingLoss(Slab().process())

    def weights(workers):
        torch.manual_seed(0)
        network, options = OverlayerDenoiser(**TINY), QUIET | {'steps': 5, 'header': HEADER, 'workers': workers}
        return load_model(train(network, objective, source, tmp_path / str(workers), **options))[0].state_dict()

    alone, shared = weights(0), weights(2)
    assert all(torch.equal(alone[name], shared[name]) for name in alone)
    with pytest.raises(ValueError, match='workers draw batches for one device'):
        train(OverlayerDenoiser(**TINY), objective, source, tmp_path, steps=1, header=HEADER, workers=2, devices=2, **QUIET)


def test_averaged_weights_and_validation_are_where_the_network_is(data):
    network = OverlayerDenoiser(**TINY)
    average = EMA(network, 0.9)
    network.to('meta')  # stands for a GPU
    average.update(network)
    assert {x.device.type for x in average.network.state_dict().values()} == {'meta'}
    batch, seen = OverlayerData(data, Slab(), batch_size=2).draw(0), []

    def objective(network, batch, generator):
        seen.append(batch.fields['positions'].device.type)
        return {'loss': torch.zeros(())}

    evaluate(network, objective, [batch])
    assert seen == ['meta']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')
def test_a_training_on_a_gpu_goes_on_where_it_was(tmp_path, data):
    source, options = OverlayerData(data, Slab(), batch_size=4), QUIET | {'accelerator': 'gpu', 'every': 2, 'header': HEADER}
    objective, checks = DenoisingLoss(Slab().process()), [source.draw(99)]
    network = OverlayerDenoiser(**TINY)
    for steps in (2, 4):
        path = train(network, objective, source, tmp_path, steps=steps, validation=checks, **options)
    assert np.isfinite(read_header(path)['metrics']['val_loss'])


def test_where_lightning_is_missing_the_error_says_what_to_install(tmp_path, data, hide):
    hide('lightning')
    with pytest.raises(MissingDependency, match='pip install lightning'):
        run(data, tmp_path)


@pytest.mark.slow
def test_one_structure_is_memorised(tmp_path):
    """A thousand small steps on a single structure, and sampling returns it; its substrate has no symmetry."""
    pytest.importorskip('lightning')
    atoms, n = frame(3), 16
    path = train_surface(
        Overlayers.from_atoms([atoms]),
        tmp_path,
        steps=1000,
        batch_size=32,
        features=32,
        blocks=2,
        cutoff=5.0,
        repeat=0.0,
        lr=1e-2,
        ema=0.98,
        sigma_max=3.0,
        every=1000,
        **QUIET,
    )
    network, header = load_model(path)
    representation = Slab(tuple(header['representation']['height']))
    process = JointProcess.fromdict(header['process'])
    for sampler, share in (('ancestral', 0.8), ('heun', 0.5)):  # noise mends what a deterministic sampler keeps
        out = SAMPLERS[sampler](
            network, process, representation.encode([atoms] * n), steps=60, generator=NoisePerStructure(range(n))
        )
        errors = []
        for made in representation.decode(out):
            d, _ = find_mic((made.positions - atoms.positions)[4:], atoms.cell, atoms.pbc)
            errors.append(np.sqrt((d**2).sum(-1).mean()))
        assert np.mean(np.array(errors) < 0.1) >= share, (sampler, errors)
