"""A network that says which known crystal has the structure of a new composition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NUMBERS, SITE_NUMBERS = 12, 8


class TemplateRanker(nn.Module):
    """Score candidates of one composition: a network of each exchange of elements, summed, and one of the candidate.

    Parameters
    ----------
    points : (119, p) tensor
        Fixed descriptors of the elements.
    features, embedding : int
        Widths.
    dropout : float
    """

    def __init__(self, points: Tensor, features: int = 64, embedding: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.features = features
        self.embedding = nn.Embedding(len(points), embedding)
        nn.init.normal_(self.embedding.weight, 0, 0.1)
        self.register_buffer('points', points)
        self.register_buffer('shift', torch.zeros(NUMBERS))
        self.register_buffer('scale', torch.ones(NUMBERS))
        inputs = 3 * (embedding + points.shape[1]) + SITE_NUMBERS
        self.exchange = nn.Sequential(nn.Linear(inputs, features), nn.SiLU(), nn.Dropout(dropout), nn.Linear(features, features))
        layers = [
            nn.Linear(features + NUMBERS, features),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(features, features),
            nn.SiLU(),
        ]
        self.whole = nn.Sequential(*layers, nn.Linear(features, 1))
        self.plain = nn.Linear(NUMBERS, 1)
        for layer in (self.whole[-1], self.plain):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.plain.weight[0, 0] = -1  # begins as exp(-difference)

    def forward(self, numbers: Tensor, new: Tensor, old: Tensor, sites: Tensor, there: Tensor) -> Tensor:
        """Return log-probabilities (B, m) that a candidate is the right one.

        Parameters
        ----------
        numbers : (B, m, 12)
        new, old : (B, m, s)
            Atomic numbers of the exchanged elements, 0 where there are fewer.
        sites : (B, m, s, 8)
        there : (B, m)
            Which candidates exist.
        """
        one, two = (torch.cat([self.embedding(z), self.points[z]], -1) for z in (new, old))  # (B, m, s, e + p)
        given, real = torch.cat([one, two, (one - two).abs(), sites], -1), new > 0
        exchange = given.new_zeros(*new.shape, self.features).masked_scatter(real[..., None], self.exchange(given[real]))
        whole = self.whole(torch.cat([exchange.sum(2), (numbers - self.shift) / self.scale], -1))
        score = (whole + self.plain(numbers))[..., 0]
        return torch.log_softmax(score.masked_fill(~there, -1e9), 1)
