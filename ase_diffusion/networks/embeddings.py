"""Embeddings of conditions that are classes or sets."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SetEmbedding(nn.Module):
    """Embed a set as a multi-hot vector; a row of NaN means "not asked for" and has a learned vector of its own."""

    def __init__(self, members: int, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(members, width), nn.SiLU(), nn.Linear(width, width))
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, members: Tensor) -> Tensor:
        """(B, K) -> (B, width)."""
        asked = ~torch.isnan(members).all(-1, keepdim=True)
        return torch.where(asked, self.net(torch.nan_to_num(members)), self.absent)


class ClassEmbedding(nn.Module):
    """Embed the index of a class; NaN means "not asked for"."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, index: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        last = self.table.num_embeddings - 1
        return self.table(torch.where(torch.isnan(index), last, torch.nan_to_num(index)).long().clamp(0, last))
