"""The U-Net over the 128 rows of point clouds (Li et al., PCCD) between means over the copies of every atom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .cloudtokens import ELEMENTS, MAX_ATOMS, BlockMeans, average_slots, s_of_atoms, same_slots
from .conditions import ConditionEmbedding
from .unet import UNet


class CloudUNet(BlockMeans):
    """Convolve the rows of a cloud, copies of the means before the U-Net; means over its outputs make copies equal.

    The network of the paper has width 64, multipliers (1, 2, 4, 8, 16) and linear attention on every level (164 M parameters).
    The order of the slots matters: augmentation permutes them in training, and generators sort them.

    Parameters
    ----------
    width, multipliers, blocks, attention, linear
        See :class:`ase_diffusion.networks.UNet`; linear attention on every level by default.
    descriptors, conditions, lattice, scales
        See :class:`ase_diffusion.networks.CloudTokens`; the last two say what the network was trained for.
    dropout : float
    """

    def __init__(
        self,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 1,
        attention: Sequence[bool] | None = None,
        linear: bool = True,
        descriptors: int = 0,
        conditions: dict | None = None,
        lattice: str = 'log',
        scales: Mapping[str, Sequence[float]] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        multipliers = list(multipliers)
        attention = [True] * len(multipliers) if attention is None else list(attention)
        self.settings = dict(
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            linear=linear,
            descriptors=descriptors,
            conditions={name: spec if isinstance(spec, dict) else list(spec) for name, spec in (conditions or {}).items()},
            lattice=lattice,
            scales={name: list(pair) for name, pair in (scales or {}).items()},
            dropout=dropout,
        )
        d = 4 * width
        self.register_buffer('descriptors', torch.zeros(ELEMENTS, descriptors))
        self._register_tables()
        self.unet = UNet(1, 9, width, multipliers, blocks, attention, linear, circular=False, dropout=dropout, field='cloud')
        self.element = nn.Embedding(ELEMENTS, d)
        self.describe = nn.Linear(descriptors, d) if descriptors else None
        self.unknown = nn.Parameter(torch.randn(3, d))
        self.slots = nn.Sequential(nn.Linear(3 * d, d), nn.SiLU(), nn.Linear(d, d))
        self.count = nn.Embedding(MAX_ATOMS + 1, d)
        self.conditions = ConditionEmbedding(conditions or {}, d)

    def core(
        self,
        atoms: Tensor,
        lattice: Tensor,
        s: Tensor,
        counts: Tensor,
        slots: Tensor,
        known: Tensor,
        conditions: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return F of the means, (B, W, 6) and (B, 6)."""
        vectors = self.element(slots) if self.describe is None else self.element(slots) + self.describe(self.descriptors[slots])
        vectors = torch.where(known[:, None, None], vectors, self.unknown[same_slots(slots).argmax(-1)])  # (B, 3, d)
        level = self.unet.level(torch.log(s_of_atoms(s, counts)) / 4)
        c = silu(level + self.slots(vectors.flatten(1)) + self.count(counts) + self.conditions(conditions, level))  # (B, d)
        rows = self.unpool(atoms, lattice, counts).transpose(1, 2).flatten(2)  # (B, 128, 9)
        out = self.unet.core(rows.transpose(1, 2), c).transpose(1, 2)  # (B, 128, 9)
        positions, species, channel = out.unflatten(2, (3, 3)).unbind(2)  # each (B, 128, 3)
        return self.means(torch.cat([positions, average_slots(species, slots)], -1), channel, counts, atoms.shape[1])
