"""The cascade of U-Nets: which of the two is meant, small images, conditioning augmentation, and the exact answer as its loss."""

import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.networks import Cascade
from ase_diffusion.representations import CrysTens
from ase_diffusion.training.crystens_paper import CascadeLoss

SMALL = dict(width=8, multipliers=(1, 2), blocks=1)


def images(n=3, size=64):
    return torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(0))


def test_small_images_are_means_and_come_back_as_blocks():
    net, x = Cascade(**SMALL, noise=0.0), images()
    small = net.reduce(x)
    assert small.shape == (3, 4, 32, 32)
    assert small[1, 2, 3, 4] == pytest.approx(float(x[1, 2, 6:8, 8:10].mean()), abs=1e-6)
    assert torch.equal(net.reduce(net.context(small, torch.ones_like(small))), small)


def test_augmentation_has_its_strength():
    small = torch.zeros(2, 4, 32, 32)
    seen = Cascade(**SMALL, noise=0.2).context(small, torch.randn(small.shape, generator=torch.Generator().manual_seed(1)))
    assert float(seen.std()) == pytest.approx(0.2, rel=0.05)


def test_the_resolution_says_which_net_is_meant():
    net = Cascade(**SMALL).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    x, level = images(), torch.zeros(3)
    whole = Batch.dense('image', x, extras={'context': torch.zeros_like(x)})
    small = Batch.dense('image', net.reduce(x))
    with torch.no_grad():
        assert torch.equal(net(whole, level, {})['image'], net.whole(whole, level, {})['image'])
        assert torch.equal(net(small, level, {})['image'], net.small(small, level, {})['image'])
        seen = Batch.dense('image', x, extras={'context': torch.ones_like(x)})
        assert not torch.allclose(net(seen, level, {})['image'], net(whole, level, {})['image'])
    assert Cascade(**net.settings).settings == net.settings


def test_a_new_cascade_has_the_loss_of_no_answer():
    # F of data of unit variance has unit variance under EDM, and a new U-Net answers 0
    net, process = Cascade(**SMALL), CrysTens().process()
    with torch.no_grad():
        parts = CascadeLoss(process)(net, Batch.dense('image', images(8)), torch.Generator().manual_seed(0))
    assert float(parts['whole']) == pytest.approx(1.0, abs=0.1)
    assert float(parts['loss']) == pytest.approx((float(parts['small']) + float(parts['whole'])) / 2)
