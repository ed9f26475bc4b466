"""What the decorator adds to the step of a sampler, and who reads the registry."""

import inspect

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.cli.main import main
from ase_diffusion.diffusion import SAMPLERS, TWO_CALLS, CosineVP, Gaussian, TimeDensity, sampler

COMMON = ['network', 'process', 'batch', 'steps', 'generator', 'mask', 'guidance', 'callback', 'start', 'initial', 'options']


def run(one, **options):
    schedule = CosineVP()
    calls, network = [], exact.GaussianNoise(schedule)

    def counted(*args):
        calls.append(args)
        return network(*args)

    out = one(
        counted,
        exact.single(Gaussian(schedule)),
        exact.free_batch(50),
        **{'steps': 10, 'generator': torch.Generator().manual_seed(0), **options},
    )
    return out.fields[exact.FIELD], len(calls)


@pytest.fixture
def scaled():
    @sampler(calls=1)
    def scaled(run, x, t, s, *, strength=1.0):
        """Sample by DDIM and scale the result."""
        pred = run.predict(x, t)
        out = run.process.reverse(x, pred, t, s, run.generator, 0.0)
        out.fields[exact.FIELD] *= strength if s is None else 1.0
        return out, run.process.to_x0(x, pred, t)

    yield scaled
    del SAMPLERS['scaled']


def test_a_sampler_is_one_function(scaled):
    """Registered, documented, with its option, and with all that samplers have: masks, guidance, callback, start, initial."""
    assert SAMPLERS['scaled'] is scaled and (scaled.name, scaled.calls, scaled.options) == ('scaled', 1, {'strength': 1.0})
    assert scaled.__doc__ == 'Sample by DDIM and scale the result.' and scaled.__name__ == 'scaled'
    plain, calls = run(SAMPLERS['ddim'])
    assert torch.equal(run(scaled)[0], plain) and calls == 10
    assert torch.allclose(run(scaled, strength=3.0)[0], 3 * plain)
    kept = torch.zeros(50, 2, dtype=torch.bool)
    kept[:, 1] = True
    seen = []
    x, _ = run(scaled, mask={exact.FIELD: kept}, callback=lambda k, t, batch, x0: seen.append((k, t)), strength=3.0)
    assert (x[:, 1] == 0).all() and (x[:, 0] != 0).all() and seen[0] == (0, 1.0) and seen[-1] == (9, 0.0)


def test_calls_and_options_are_those_that_are_declared():
    assert set(TWO_CALLS) == {'renoised_ancestral', 'predictor_corrector', 'heun'}
    options = {name: one.options for name, one in SAMPLERS.items() if one.options}
    assert options == {
        'ancestral': {'eta': 1.0},
        'predictor_corrector': {'corrector': 0.04},
        'renoised_ancestral': {'density': TimeDensity(0.5, 0.15, 0.9)},
    }
    for name, one in SAMPLERS.items():
        _, calls = run(one)
        expected = (
            10 if one.calls == 1 or name == 'predictor_corrector' else 19
        )  # no field on a torus; the last step has one call
        assert calls == expected, name
        assert list(inspect.signature(one).parameters) == COMMON


def test_options_of_others_are_refused():
    with pytest.raises(TypeError, match=r"ddim has no option \['corrector'\]; its options: none"):
        run(SAMPLERS['ddim'], corrector=0.1)
    with pytest.raises(TypeError, match=r"ancestral has no option .*its options: \['eta'\]"):
        run(SAMPLERS['ancestral'], density=(0.5, 0.1, 0.9))


def test_deterministic_ancestral_sampling_is_ddim_and_tuples_are_densities():
    assert torch.equal(run(SAMPLERS['ancestral'], eta=0.0)[0], run(SAMPLERS['ddim'])[0])
    one, two = (run(SAMPLERS['renoised_ancestral'], density=d)[0] for d in (TimeDensity(0.4, 0.2, 0.7), (0.4, 0.2, 0.7)))
    assert torch.equal(one, two) and not torch.equal(one, run(SAMPLERS['renoised_ancestral'])[0])
    assert torch.isfinite(run(SAMPLERS['renoised_ancestral'], density=None)[0]).all()  # equidistant


def test_options_are_read_from_the_header_of_a_checkpoint():
    header = {'sampler': 'ancestral', 'steps': 9, 'corrector': 0.2, 'density': {'mean': 0.5, 'std': 0.2, 'weight': 0.9}}
    old = {'steps': 9, 'corrector': 0.2, 'focus': [0.5, 0.2, 0.9]}
    for table in (header, old):
        found = {name: one.options_in(table) for name, one in SAMPLERS.items()}
        assert {name: options for name, options in found.items() if options} == {
            'predictor_corrector': {'corrector': 0.2},
            'renoised_ancestral': {'density': TimeDensity(0.5, 0.2, 0.9)},
        }
    for name, wrong in (
        ('corrector', None),
        ('corrector', -1),
        ('corrector', True),
        ('eta', '1'),
        ('density', [1, 2]),
        ('focus', 3),
    ):
        with pytest.raises(ValueError, match='number from 0 on|time density'):
            [one.options_in({name: wrong}) for one in SAMPLERS.values()]


def test_the_command_line_names_every_sampler(capsys):
    with pytest.raises(SystemExit):
        main(['sample', 'crystal', '--help'])
    text = capsys.readouterr().out
    assert not [name for name in SAMPLERS if name not in text]
