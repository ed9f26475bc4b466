"""The trainer of GANs: losses with known values, a toy distribution, resuming bit by bit."""

import math

import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.networks import ConvCritic, ConvGenerator
from ase_diffusion.training.gan import CrossEntropy, Wasserstein, gradient_penalty, train_gan


class Ring:
    """Images of 8 x 8 pixels that are all equal: +0.7 or -0.4, three to one."""

    def draw(self, k):
        g = torch.Generator().manual_seed(k)
        level = torch.where(torch.rand(32, 1, 1, 1, generator=g) < 0.75, 0.7, -0.4)
        return Batch.dense('image', level.expand(-1, 1, 8, 8).clone())


def networks(norm='layer'):
    torch.manual_seed(0)
    shape = dict(shape=(1, 8, 8), width=16)
    return {'generator': ConvGenerator(**shape, latent=4, slope=0.2), 'critic': ConvCritic(**shape, norm=norm)}


HEADER = {'kind': 'crystens'}


def test_the_penalty_of_a_linear_critic_is_the_square_of_its_slope_minus_one():
    w = torch.randn(3, 5, 7, dtype=torch.float64)
    critic = lambda x: (x * w).sum((1, 2, 3))  # noqa: E731
    real, fake = torch.randn(2, 4, 3, 5, 7, dtype=torch.float64)
    penalty = gradient_penalty(critic, real, fake, torch.rand(4, dtype=torch.float64))
    assert float(penalty) == pytest.approx((float(w.norm()) - 1) ** 2, rel=1e-12)


def test_losses_have_their_known_values():
    real, fake, u = torch.full((4, 1, 2, 2), 3.0), torch.full((4, 1, 2, 2), -1.0), torch.full((4,), 0.5)
    critic = lambda x: x.mean((1, 2, 3)) * 2  # gradient 1/2 in each of four pixels: norm 1, no penalty  # noqa: E731
    assert float(Wasserstein().critic(critic, real, fake, u)) == pytest.approx(-8.0)
    assert float(Wasserstein().generator(torch.tensor([1.0, 3.0]))) == -2.0
    flat = lambda x: x.mean((1, 2, 3)) * 0  # noqa: E731
    assert float(CrossEntropy().critic(flat, real, fake, u)) == pytest.approx(2 * math.log(2))
    assert float(CrossEntropy().generator(torch.zeros(2))) == pytest.approx(math.log(2))


@pytest.mark.parametrize('shape', [(4, 64, 64), (3, 32, 32, 32), (9, 128), (1, 8, 16)])
def test_networks_fit_any_field(shape):
    size = dict(shape=shape, width=4)
    generator, critic = ConvGenerator(**size), ConvCritic(**size)
    x = generator(torch.randn(2, 128))
    assert x.shape == (2, *shape) and x.abs().max() <= 1 and critic(x).shape == (2,)
    assert ConvGenerator(**generator.settings).settings == generator.settings


@pytest.mark.parametrize(('options', 'match'), [(dict(shape=(4, 6, 6)), '4 x 2'), (dict(norm='none'), 'batch, layer')])
def test_networks_without_meaning_are_refused(options, match):
    for cls in (ConvGenerator, ConvCritic):
        with pytest.raises(ValueError, match=match):
            cls(**options)


def samples(adversary, folder, steps):
    """Mean and spread of the pixels of 400 images of a trained generator."""
    nets = networks()
    train_gan(nets, adversary, Ring(), folder, steps=steps, header=HEADER, lr=3e-3, progress=False)
    with torch.no_grad():
        x = nets['generator'].eval()(torch.randn(400, 4, generator=torch.Generator().manual_seed(1)))
    return x.mean((1, 2, 3)), x.std((1, 2, 3)).mean()


def test_a_wasserstein_gan_learns_both_levels_and_their_shares(tmp_path):
    level, spread = samples(Wasserstein(), tmp_path, 150)
    high = level > 0.15
    assert 0.6 < float(high.float().mean()) < 0.9 and float(spread) < 0.25
    assert float(level[high].mean()) == pytest.approx(0.7, abs=0.15)
    assert float(level[~high].mean()) == pytest.approx(-0.4, abs=0.3)


def test_a_gan_with_cross_entropy_makes_images_of_a_level(tmp_path):
    level, spread = samples(CrossEntropy(), tmp_path, 300)  # of one level only, the mode collapse that the paper reports
    assert float(spread) < 0.2 and float(level[level > 0.15].mean()) == pytest.approx(0.7, abs=0.15)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    common = dict(header=HEADER, every=2, progress=False)
    whole, parts = networks('batch'), networks('batch')
    train_gan(whole, Wasserstein(), Ring(), tmp_path / 'a', steps=4, **common)
    train_gan(parts, Wasserstein(), Ring(), tmp_path / 'b', steps=2, **common)
    parts = networks('batch')
    train_gan(parts, Wasserstein(), Ring(), tmp_path / 'b', steps=4, **common)
    for a, b in zip(whole['generator'].state_dict().values(), parts['generator'].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / 'b' / 'best.safetensors').exists()
    with pytest.raises(ValueError, match='a folder belongs to one training'):
        train_gan(networks('layer') | {'critic': ConvCritic((1, 8, 8))}, Wasserstein(), Ring(), tmp_path / 'b', steps=5, **common)


def test_options_of_the_other_trainer_and_broken_losses_are_refused(tmp_path):
    with pytest.raises(ValueError, match='single precision'):
        train_gan(networks(), Wasserstein(), Ring(), tmp_path, steps=1, header=HEADER, precision='bf16-mixed')
    with pytest.raises(ValueError, match='finite'):
        train_gan(networks(), Wasserstein(), Ring(), tmp_path, steps=3, header=HEADER, lr=1e30, progress=False)
