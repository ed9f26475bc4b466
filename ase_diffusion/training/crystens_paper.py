"""Training recipes of the networks of the CrysTens paper: the cascade of U-Nets, the WGAN and the GAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from ase import Atoms

from ..diffusion import Batch, NoiseStream
from ..networks import Cascade, ConvCritic, ConvGenerator
from ..representations import CrysTens
from ..utils.checks import check_keywords, keywords_of
from .crystens import ImageData
from .gan import ONLY, CrossEntropy, Wasserstein, train_gan
from .objectives import DenoisingLoss
from .recipe import check_new, check_options, network_to_train, run

SAMPLING = {'sampler': 'dpmpp_2m', 'steps': 20}
# losses, normalizations and slopes of ReLUs, learning rate and betas of Adam: appendix B of the paper
ADVERSARIES = {
    'wgan': (Wasserstein(), dict(norm='batch', slope=0.2), 'layer', 1e-4, (0.0, 0.9)),
    'gan': (CrossEntropy(), dict(norm='batch', slope=0.0), 'batch', 1e-5, (0.5, 0.999)),
}


class CascadeLoss(DenoisingLoss):
    """Denoising loss of both U-Nets of a :class:`~ase_diffusion.networks.Cascade`, their mean."""

    def __call__(self, network: Cascade, batch: Batch, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        """Return ``{'loss': ..., 'small': ..., 'whole': ...}``."""
        small = network.reduce(batch.fields['image'])
        noise = NoiseStream(generator).normal(small)
        with_context = Batch.dense('image', batch.fields['image'], batch.conditions, {'context': network.context(small, noise)})
        parts = {
            'small': super().__call__(network, Batch.dense('image', small, batch.conditions), generator)['loss'],
            'whole': super().__call__(network, with_context, generator)['loss'],
        }
        return {'loss': sum(parts.values()) / 2, **{name: value.detach() for name, value in parts.items()}}


def train_cascade(
    images: list[Atoms],
    out: str | Path,
    *,
    validation: list[Atoms] | None = None,
    conditions: list[str] | None = None,
    network: Cascade | None = None,
    representation: CrysTens | None = None,
    steps: int = 20_000,
    features: int | None = None,
    blocks: int | None = None,
    batch_size: int = 16,
    dropout: float = 0.33,
    seed: int = 0,
    settings: dict | None = None,
    **options: Any,
) -> Path:
    """Train a :class:`~ase_diffusion.networks.Cascade` on crystals; returns the path of the best checkpoint.

    Parameters
    ----------
    images, validation, network, representation, dropout
        See :func:`~ase_diffusion.training.crystens.train_crystens`.
    conditions : list of str, optional
        Numbers of the key-value pairs; default: none, as in the paper. These networks know no classes and no sets of elements.
    features, blocks : int, optional
        Width of new U-Nets (32), and residual blocks on each level (2); a width of 256 in the paper, which trained each U-Net for
        250,000 steps of 4 images.
    settings : dict, optional
        More settings of a new network.
    options : passed to :func:`ase_diffusion.training.train`.
    """
    check_options(options, train_cascade)
    settings = check_new(settings, Cascade, but=('channels', 'size', 'conditions', 'field'), own=('width', 'blocks'))
    data = ImageData(images, validation, conditions or [], representation, batch_size, dropout, seed)
    if words := [name for name, scale in data.scales.items() if isinstance(scale, dict)]:
        raise ValueError(f"conditions of U-Nets are numbers, not {words}; network='diffusion' learns these")
    process = data.representation.process()

    def build(features: int = 32, blocks: int = 2, **asked: Any) -> Cascade:
        return Cascade(width=features, blocks=blocks, conditions=data.scales, **asked)

    return run(
        network_to_train(network, build, list(data.forms), seed, features=features, blocks=blocks, **settings),
        process,
        data.source,
        data.held,
        out,
        header=data.header(process, sampling=SAMPLING, variant='cascade'),
        steps=steps,
        objective=CascadeLoss(process, density=(0.5, 0.18, 1.0)),
        seed=seed,
        **options,
    )


def train_image_gan(
    images: list[Atoms],
    out: str | Path,
    *,
    adversary: Literal['wgan', 'gan'] = 'wgan',
    conditions: list[str] | None = None,
    validation: list[Atoms] | None = None,
    network: torch.nn.Module | None = None,
    representation: CrysTens | None = None,
    steps: int = 20_000,
    features: int = 32,
    batch_size: int = 64,
    seed: int = 0,
    settings: dict | None = None,
    **options: Any,
) -> Path:
    """Train a generator of images in one pass against a critic; returns the path of the last checkpoint.

    Parameters
    ----------
    images
        See :func:`~ase_diffusion.training.crystens.train_crystens`; all of them are trained on but for the split 'val'.
    adversary : 'wgan' or 'gan'
        Wasserstein distance with gradient penalty, or cross-entropy.
    conditions, validation, network
        Refused: these networks know no conditions, have no loss to validate and are trained from scratch.
    features : int
        Width of both networks.
    settings : dict, optional
        More settings of the generator, such as ``latent``.
    options : passed to :func:`~ase_diffusion.training.gan.train_gan`.
    """
    trainer = keywords_of(train_gan) - {'header'}
    check_keywords('train_image_gan', options, keywords_of(train_image_gan) | trainer | set(ONLY))
    settings = check_new(settings, ConvGenerator, but=('shape', 'slope', 'norm', 'field'), own=('width',))
    if conditions:
        raise ValueError(f'a GAN of images knows no conditions, got {list(conditions)}; the diffusion network does')
    if network is not None:
        raise ValueError('a GAN is trained from scratch; the same folder (out) goes on with an interrupted training')
    objective, style, norm, lr, betas = ADVERSARIES[adversary]
    data = ImageData(images, validation, [], representation, batch_size, 0.0, seed, scaling='minmax', log_lengths=False)
    torch.manual_seed(seed)
    generator = ConvGenerator(width=features, **style, **settings)
    networks = {'generator': generator, 'critic': ConvCritic(width=features, norm=norm)}
    header = data.header(None, variant=adversary)
    options = {'lr': lr, 'betas': betas} | options
    return train_gan(networks, objective, data.source, out, steps=steps, header=header, seed=seed, **options)
