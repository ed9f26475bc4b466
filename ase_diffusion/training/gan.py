"""One trainer for generative adversarial networks, with the losses of Wasserstein GANs and of GANs with cross-entropy."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..diffusion import NoiseStream
from ..utils.device import pick_device
from ..utils.interrupts import held_interrupts, noted_interrupts
from ..utils.progress import Progress
from .run_folder import RunFolder, check_run

if TYPE_CHECKING:
    from .data import EndlessBatches

log = logging.getLogger(__name__)
# the one value of options of the other trainer
ONLY = {'compile_network': False, 'precision': '32-true', 'workers': 0, 'devices': 1}


class Adversary(Protocol):
    """What a GAN optimizes.

    Attributes
    ----------
    critic_steps : int
        Steps of the critic for each of the generator.
    """

    critic_steps: int

    def critic(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
        """Return the loss of the critic on real and fake fields (B, ...); ``u`` (B,) are uniform numbers."""
        ...

    def generator(self, scores: Tensor) -> Tensor:
        """Return the loss of the generator from the scores (B,) of its fields."""
        ...


@dataclass(frozen=True)
class Wasserstein:
    """Wasserstein distance with gradient penalty (Gulrajani et al., arXiv 1704.00028, eq. 3)."""

    penalty: float = 10.0
    critic_steps: int = 5

    def critic(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
        """Return minus the estimated distance, plus the penalty."""
        distance = critic(real).mean() - critic(fake).mean()
        return self.penalty * gradient_penalty(critic, real, fake, u) - distance

    def generator(self, scores: Tensor) -> Tensor:
        """Return minus the mean score."""
        return -scores.mean()


@dataclass(frozen=True)
class CrossEntropy:
    """Binary cross-entropy, not saturating for the generator (Goodfellow et al., arXiv 1406.2661)."""

    critic_steps: int = 1

    def critic(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
        """Return the cross-entropy of 'real' and 'fake'; 2 log 2 where the critic cannot tell."""
        return softplus(-critic(real)).mean() + softplus(critic(fake)).mean()

    def generator(self, scores: Tensor) -> Tensor:
        """Return the cross-entropy of 'real' for fake fields."""
        return softplus(-scores).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """Return the mean of (|gradient of the critic| - 1)^2 at points between real and fake fields, at the shares ``u`` (B,)."""
    u = u.view(-1, *[1] * (real.dim() - 1))
    between = (u * real + (1 - u) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def train_gan(
    networks: dict[str, torch.nn.Module],
    adversary: Adversary,
    data: EndlessBatches,
    out: str | Path,
    *,
    steps: int,
    header: dict,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.0, 0.9),
    seed: int = 0,
    every: int = 1000,
    checkpoint_seconds: float = 60,
    minutes: float | None = None,
    progress: bool = True,
    accelerator: str = 'auto',
    **options: Any,
) -> Path:
    """Train a generator against a critic; returns the path of the last checkpoint, since no loss says which one is best.

    Parameters
    ----------
    networks : dict of str to module
        ``generator`` with ``noise`` and ``field``, such as :class:`ase_diffusion.networks.ConvGenerator`, and ``critic``.
    adversary : Adversary
    data : :class:`ase_diffusion.training.data.EndlessBatches`
        Batches with the field of the generator.
    out : path
        Folder for ``best.safetensors`` (the last one), ``log.csv`` and ``resume.ckpt``; the same call with the same folder goes
        on with an interrupted training as if it had not been interrupted.
    steps : int
        Of the generator.
    header : dict
        Of the checkpoints, without a process.
    lr, betas
        Of both Adam optimizers.
    every : int
        Steps between lines of the log.
    minutes : float, optional
        Stop after this time even if ``steps`` are not reached.

    Raises
    ------
    ValueError
        The folder belongs to another training, a loss is not finite, or an option is one of the trainer of denoisers.
    KeyboardInterrupt
        After Ctrl-C, when everything is kept.
    """
    if wrong := {name: value for name, value in options.items() if name not in ONLY or value != ONLY[name]}:
        raise ValueError(f'a GAN is trained in single precision on one device; options that it does not take: {wrong}')
    check_run(steps, minutes, lr, every=every, seed=seed)
    folder = RunFolder(out, networks, header)
    begun, device = time.monotonic(), pick_device({'auto': None, 'gpu': 'cuda'}.get(accelerator, accelerator))
    run = _Run(networks, adversary, data, lr, betas, seed, device)
    if folder.begun(steps):
        run.load(torch.load(folder.resume, map_location=device, weights_only=True))
    saved, losses = time.monotonic(), []
    torch.set_flush_denormal(True)
    try:
        with noted_interrupts() as came, Progress(steps, 'trained', done=run.step, unit='step') as bar:
            while run.step < steps and not came and (minutes is None or time.monotonic() - begun < 60 * minutes):
                losses.append(run.advance())
                bar.add()
                if run.step % every == 0:
                    _note(folder, run, losses, begun, lr)
                    losses = []
                if time.monotonic() - saved > checkpoint_seconds:
                    run.save(folder)
                    saved = time.monotonic()
            if losses or not folder.best.exists():
                _note(folder, run, losses, begun, lr)
            run.save(folder)
            if came:
                log.warning('interrupted; the same call goes on with what is in %s', folder.path)
                raise KeyboardInterrupt
    finally:
        torch.set_flush_denormal(False)
    return folder.best


class _Run:
    """State of a training: networks, optimizers and the number of steps."""

    def __init__(self, networks, adversary, data, lr, betas, seed, device):
        self.networks = {name: networks[name].to(device).train() for name in ('generator', 'critic')}
        self.adversary, self.data, self.seed, self.device, self.step = adversary, data, seed, device, 0
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=lr, betas=betas) for name, network in self.networks.items()
        }

    def advance(self) -> tuple[float, float]:
        """Train the critic some times and the generator once; return their losses."""
        stream = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        generator, critic = self.networks['generator'], self.networks['critic']
        for k in range(self.adversary.critic_steps):
            real = self.data.draw(self.step * self.adversary.critic_steps + k).fields[generator.field].to(self.device)
            with torch.no_grad():
                fake = generator(self._latent(real, stream))
            u = torch.rand(len(real), generator=stream).to(self.device)
            critic_loss = self._descend('critic', self.adversary.critic(critic, real, fake, u))
        critic.requires_grad_(False)
        loss = self._descend('generator', self.adversary.generator(critic(generator(self._latent(real, stream)))))
        critic.requires_grad_(True)
        self.step += 1
        return critic_loss, loss

    def _latent(self, real, stream):
        return self.networks['generator'].noise(real, len(real), NoiseStream(stream))

    def _descend(self, name: str, loss: Tensor) -> float:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()
        return float(loss.detach())

    def save(self, folder: RunFolder) -> None:
        """Write what :meth:`load` reads, whole or not at all."""
        parts = {
            name: {'network': self.networks[name].state_dict(), 'optimizer': self.optimizers[name].state_dict()}
            for name in self.networks
        }
        partial = folder.resume.with_suffix('.partial')
        with held_interrupts():
            torch.save({'run': folder.identity, 'global_step': self.step, 'parts': parts}, partial)
            partial.replace(folder.resume)

    def load(self, state: dict) -> None:
        """Go on from a saved state."""
        self.step = state['global_step']
        for name, part in state['parts'].items():
            self.networks[name].load_state_dict(part['network'])
            self.optimizers[name].load_state_dict(part['optimizer'])


def _note(folder: RunFolder, run: _Run, losses: list, begun: float, lr: float) -> None:
    """Write a line of the log and the checkpoint; raise a ValueError where a loss is not finite."""
    critic, generator = (sum(x) / max(1, len(losses)) for x in zip(*losses, strict=True)) if losses else (0.0, 0.0)
    if not (math.isfinite(critic) and math.isfinite(generator)):
        raise ValueError(
            f'a training needs losses that are finite; before step {run.step} they are not, with lr={lr:g}. Begin anew with a '
            f'smaller lr, in another folder than {folder.path}'
        )
    row = {'step': run.step, 'seconds': round(time.monotonic() - begun, 1)}
    row |= {'critic_loss': round(critic, 6), 'generator_loss': round(generator, 6)}
    folder.append(row)
    folder.keep(run.networks, row, folder.best_score)  # the last one is the best
