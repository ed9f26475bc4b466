"""PaiNN: equivariant message passing (Schuett, Unke and Gastegger, ICML 2021, arXiv 2102.03150).

Weights of the representation interchange with schnetpack's ``schnetpack.representation.PaiNN`` (see
:mod:`.schnetpack_io`); the additions are an optional modulation of every message block (noise level, conditions), an
optional role embedding and an optional normalisation, all neutral when absent.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

MAX_Z = 100


class GaussianBasis(nn.Module):
    """Expand distances in Gaussians on [0, cutoff] (width = spacing).

    Values below 1e-12 are cut to zero: denormal numbers make matrix products tens of times slower on CPUs.
    """

    def __init__(self, n_basis: int, cutoff: float) -> None:
        super().__init__()
        offset = torch.linspace(0.0, cutoff, n_basis)
        self.register_buffer('offsets', offset)
        self.register_buffer('widths', (offset[1] - offset[0]).abs() * torch.ones_like(offset))

    def forward(self, r: Tensor) -> Tensor:
        """(E,) A -> (E, n_basis)."""
        exponent = -0.5 * ((r[:, None] - self.offsets) / self.widths) ** 2  # (E, n_basis)
        return torch.where(exponent > -27.0, torch.exp(exponent.clamp(min=-30.0)), torch.zeros_like(exponent))


class BesselBasis(nn.Module):
    """Expand distances in sin(n pi r / cutoff) / r (Gasteiger et al., arXiv 2003.03123, eq. 7, without prefactor)."""

    def __init__(self, n_basis: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer('freqs', torch.arange(1, n_basis + 1) * math.pi / cutoff)

    def forward(self, r: Tensor) -> Tensor:
        """(E,) A -> (E, n_basis), 1/A."""
        return torch.sin(r[:, None] * self.freqs) / r[:, None].clamp(min=1e-6)


def cosine_cutoff(r: Tensor, cutoff: float) -> Tensor:
    """Return (cos(pi r / cutoff) + 1) / 2 inside the cutoff and 0 outside, (E,)."""
    return torch.where(r < cutoff, 0.5 * (torch.cos(r * (math.pi / cutoff)) + 1.0), torch.zeros_like(r))


class ElementRows(nn.Module):
    """What the network knows of an element: a function of descriptors, and a learned row.

    Rows are zero at first and left out at times in training, so that elements which no data have are described, too.

    Parameters
    ----------
    features : int
    descriptors : int
        Numbers that describe an element, the columns of the buffer ``descriptors`` (100, K), which whoever builds the network
        fills.
    dropout : float
        Probability that the row of a metal is left out of a batch in training.
    """

    def __init__(self, features: int, descriptors: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.dropout = float(dropout)
        self.register_buffer('descriptors', torch.zeros(MAX_Z, descriptors))
        self.rows = nn.Parameter(torch.zeros(MAX_Z, features))
        self.net = nn.Sequential(nn.Linear(descriptors, features), nn.SiLU(), nn.Linear(features, features))

    def forward(self, numbers: Tensor) -> Tensor:
        """(n,) -> (n, F)."""
        rows = self.rows
        if self.training and self.dropout:
            metal = self.descriptors[:, 0] > 0  # (Z,)
            rows = rows.masked_fill((metal & (torch.rand(MAX_Z, device=rows.device) < self.dropout))[:, None], 0.0)
        return (self.net(self.descriptors) + rows).index_select(0, numbers)


class Message(nn.Module):
    """Pass messages between neighbors (paper, section 3.2, eqs 7 and 8)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.interatomic_context_net = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 3 * features))

    def forward(
        self,
        s: Tensor,
        v: Tensor,
        s_in: Tensor,
        v_in: Tensor,
        filters: Tensor,
        direction: Tensor,
        receivers: Tensor,
        senders: Tensor,
        n_out: int,
    ) -> tuple[Tensor, Tensor]:
        """Update scalars s (n, F) and vectors v (n, 3, F) of the first ``n_out`` atoms; messages carry s_in, v_in."""
        x = self.interatomic_context_net(s_in).index_select(0, senders) * filters  # (E, 3F)
        ds, dr, dv = x.chunk(3, -1)  # each (E, F)
        dmu = dv[:, None] * v_in.index_select(0, senders)  # (E, 3, F)
        dmu = torch.addcmul(dmu, dr[:, None], direction[:, :, None])
        s_sum = torch.zeros_like(s[:n_out]).index_add(0, receivers, ds)
        v_sum = torch.zeros_like(v[:n_out]).index_add(0, receivers, dmu)
        return s[:n_out] + s_sum, v[:n_out] + v_sum


class Mixing(nn.Module):
    """Mix scalars and vectors of every atom (paper, section 3.2, eqs 9 and 10)."""

    def __init__(self, features: int, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.intraatomic_context_net = nn.Sequential(
            nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, 3 * features)
        )
        self.mu_channel_mix = nn.Linear(features, 2 * features, bias=False)
        self.epsilon = epsilon

    def forward(self, s: Tensor, v: Tensor, s_in: Tensor, v_in: Tensor) -> tuple[Tensor, Tensor]:
        """s, s_in (n, F), v, v_in (n, 3, F) -> s and v, updated by what is computed from s_in and v_in."""
        mu_v, mu_w = self.mu_channel_mix(v_in).to(v.dtype).chunk(2, -1)  # each (n, 3, F)
        norm = torch.sqrt(mu_v.square().sum(-2) + self.epsilon)  # (n, F)
        ds, dv, dsv = self.intraatomic_context_net(torch.cat([s_in, norm], -1)).chunk(3, -1)
        return s + ds + dsv * (mu_v * mu_w).sum(-2), v + dv[:, None] * mu_w


class PaiNN(nn.Module):
    """Represent every atom by scalars and vectors.

    Parameters
    ----------
    features : int
        Feature width F.
    blocks : int
        Message and mixing blocks.
    cutoff : float
        A.
    n_basis : int
        Radial functions.
    basis : 'bessel' or 'gaussian'
    modulation : int
        Width of the per-structure vector that modulates (FiLM) the scalars entering every message; 0: none.
    roles : int
        Number of roles (active, frozen) with an embedding of their own; 0: none.
    normalize : bool
        Feed every block with scalars normalised per atom (layer norm) and vectors divided by their root mean square:
        what the blocks add then grows slowly, also where noise puts atoms on top of each other. schnetpack's has no
        such step.
    descriptors : int
        Elements are embedded by :class:`ElementRows` with so many descriptors; 0: by a row of their own alone.
    """

    def __init__(
        self,
        features: int = 64,
        blocks: int = 4,
        cutoff: float = 6.0,
        n_basis: int = 20,
        basis: Literal['bessel', 'gaussian'] = 'gaussian',
        modulation: int = 0,
        roles: int = 0,
        normalize: bool = False,
        descriptors: int = 0,
    ) -> None:
        super().__init__()
        if basis not in ('bessel', 'gaussian'):
            raise ValueError(f"basis must be 'bessel' or 'gaussian', got {basis!r}")
        self.settings = dict(
            features=features,
            blocks=blocks,
            cutoff=cutoff,
            n_basis=n_basis,
            basis=basis,
            modulation=modulation,
            roles=roles,
            normalize=normalize,
            **({'descriptors': descriptors} if descriptors else {}),
        )
        self.features, self.cutoff, self.normalize = features, float(cutoff), bool(normalize)
        self.embedding = ElementRows(features, descriptors) if descriptors else nn.Embedding(MAX_Z, features, padding_idx=0)
        self.role_embedding = nn.Embedding(roles, features) if roles else None
        self.radial_basis = (BesselBasis if basis == 'bessel' else GaussianBasis)(n_basis, cutoff)
        self.filter_net = nn.Linear(n_basis, blocks * 3 * features)
        self.interactions = nn.ModuleList(Message(features) for _ in range(blocks))
        self.mixing = nn.ModuleList(Mixing(features) for _ in range(blocks))
        self.film = nn.Linear(modulation, blocks * 2 * features) if modulation else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.film is not None:
            nn.init.normal_(self.film.weight, std=0.02)

    def forward(
        self,
        numbers: Tensor,
        graph_receivers: Tensor,
        graph_senders: Tensor,
        vectors: Tensor,
        rows: Tensor | None = None,
        modulation: Tensor | None = None,
        roles: Tensor | None = None,
        n_out: int | None = None,
        n_out_edges: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scalars (n_out, F) and vectors (n_out, 3, F).

        Parameters
        ----------
        numbers : (n,) atomic numbers; graph_receivers, graph_senders : (E,); vectors : (E, 3), receiver to sender, A.
        rows : (n,) structure index, with modulation (B, M); roles : (n,).
        n_out, n_out_edges : in the last block only the first ``n_out`` atoms are updated, by the first ``n_out_edges``
            edges; all by default.
        """
        n = numbers.shape[0]
        distance = torch.sqrt(vectors.square().sum(-1) + 1e-12)  # (E,)
        direction = vectors / distance[:, None]  # (E, 3)
        basis, envelope = self.radial_basis(distance), cosine_cutoff(distance, self.cutoff)[:, None]
        # filters block by block: one (E, 3F) tensor at a time
        weights = self.filter_net.weight.split(3 * self.features)
        biases = self.filter_net.bias.split(3 * self.features)
        s = self.embedding(numbers)  # (n, F)
        if self.role_embedding is not None:
            s = s + self.role_embedding(roles)
        v = torch.zeros(n, 3, self.features, dtype=s.dtype, device=s.device)  # (n, 3, F)
        film = None
        if self.film is not None:
            film = self.film(modulation).index_select(0, rows).split(2 * self.features, -1)  # blocks x (n, 2F)
        last = len(self.interactions) - 1
        for k, (message, mixing) in enumerate(zip(self.interactions, self.mixing, strict=True)):
            s_in, v_in = self.normalized(s, v)
            if film is not None:
                scale, shift = film[k].chunk(2, -1)
                s_in = s_in * (1 + scale) + shift
            if k == last and n_out is not None:
                n, e = n_out, n_out_edges
                basis, envelope, direction = basis[:e], envelope[:e], direction[:e]
                graph_receivers, graph_senders = graph_receivers[:e], graph_senders[:e]
            filters = nn.functional.linear(basis, weights[k], biases[k]) * envelope  # (E, 3F)
            s, v = message(s, v, s_in, v_in, filters, direction, graph_receivers, graph_senders, n)
            s, v = mixing(s, v, *self.normalized(s, v))
        return self.normalized(s, v)

    def normalized(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised scalars and vectors (shorter than 0.1: ten times as long), or both as they are."""
        if not self.normalize:
            return s, v
        square = v.square().sum(-2, keepdim=True).mean(-1, keepdim=True)  # (n, 1, 1)
        return nn.functional.layer_norm(s, (self.features,)), v * torch.rsqrt(square + 0.01)


class GatedVector(nn.Module):
    """Turn scalars and vectors into one vector per atom by gated equivariant blocks (paper, section 3.3, figure 3)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 2 * features, bias=False)
        self.gate = nn.Sequential(nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, 2 * features))
        self.second = nn.Linear(features, 1, bias=False)
        self.last_gate = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 1))

    def forward(self, s: Tensor, v: Tensor) -> Tensor:
        """s (n, F), v (n, 3, F) -> (n, 3)."""
        a, b = self.first(v).to(v.dtype).chunk(2, -1)  # each (n, 3, F)
        norm = torch.sqrt(a.square().sum(-2) + 1e-8)
        s, gate = self.gate(torch.cat([s, norm], -1)).chunk(2, -1)
        v = b * gate[:, None]  # (n, 3, F)
        return self.second(v).squeeze(-1) * self.last_gate(torch.nn.functional.silu(s))  # (n, 3)
