"""The cascade of U-Nets of CrysTens (Alverson et al., Digital Discovery 3, 62, 2024; Ho et al., arXiv 2106.15282)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .unet import UNet


class Cascade(nn.Module):
    """Two U-Nets in one network: one for images of half the size, one for whole images that sees a small one, upscaled.

    The resolution of the field says which of them is meant. Whole images need the upscaled small one, with some noise, in
    ``batch.extras['context']`` (B, C, H, W), see :meth:`context`.

    Parameters
    ----------
    channels, size : int
        Of whole images: (B, channels, size, size).
    width, multipliers, blocks, embedding
        Of both U-Nets, see :class:`~ase_diffusion.networks.unet.UNet`; the paper has a width of 256.
    noise : float
        Conditioning augmentation: standard deviation of the noise on the small image, 0.2 in the paper, in training and sampling.
    conditions : dict of str to (shift, scale), optional
        Numbers that may be asked for.
    dropout : float
    field : str
    """

    def __init__(
        self,
        channels: int = 4,
        size: int = 64,
        width: int = 256,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        embedding: int | None = None,
        noise: float = 0.2,
        conditions: dict | None = None,
        dropout: float = 0.0,
        field: str = 'image',
    ) -> None:
        super().__init__()
        shared = dict(width=width, multipliers=list(multipliers), blocks=blocks, embedding=embedding)
        shared |= dict(conditions=dict(conditions or {}), dropout=dropout, field=field)
        self.settings = dict(channels=channels, size=size, noise=float(noise), **shared)
        self.field, self.size, self.strength = field, int(size), float(noise)
        self.small = UNet(2, channels, circular=False, **shared)
        self.whole = UNet(2, channels, circular=False, context=channels, **shared)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{field: ...}``, the prediction for small or for whole images."""
        stage = self.whole if batch.fields[self.field].shape[-1] == self.size else self.small
        return stage(batch, c_noise, conditions)

    def reduce(self, image: Tensor) -> Tensor:
        """Return small images, means of 2 x 2 pixels, (B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return nn.functional.avg_pool2d(image, 2)

    def context(self, small: Tensor, noise: Tensor) -> Tensor:
        """Return what the second U-Net sees of small images (B, C, h, w): upscaled, with noise (B, C, h, w) of this strength."""
        return (small + self.strength * noise).repeat_interleave(2, 2).repeat_interleave(2, 3)
