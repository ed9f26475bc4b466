"""The Transformer of crystals (Takahara, Shibata and Mizoguchi, arXiv 2406.09263): joint denoiser of lattice, sites and species.

Crystals are padded to the largest of the batch; padding is masked and reaches nothing. Terms of pairs of atoms are computed
once per forward pass, because they depend on the geometry only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .conditions import ConditionEmbedding, LevelEmbedding
from .precision import LayerNorm, full_precision

_MASKED = -1e9


class PairTerms(nn.Module):
    """Compute what attention needs to know about pairs (paper, eqs 12 to 14).

    alpha_ij and beta_ij are networks of [Fourier(f_j - f_i), L^T L] with one hidden trunk h_ij for all blocks. The last linear
    layer of beta commutes with the sum over j and is therefore applied behind it, in each block.

    Parameters
    ----------
    frequencies : int
        Fourier waves per direction, sine and cosine of 2 pi m f for m = 1 ... frequencies.
    hidden, width : int
        Widths of the two layers of the trunk.
    blocks, heads : int
    cell_width : int
        Numbers that tell of the cell, 12 of L^T L in the paper.
    distances : int
        Gaussians of the distance of a pair, up to 8 A, beside the waves; 0 (the paper): none. The distance is that of the
        nearest of 27 images, which is the shortest one in a reduced cell.
    """

    def __init__(
        self, frequencies: int, hidden: int, width: int, blocks: int, heads: int, cell_width: int = 12, distances: int = 0
    ) -> None:
        super().__init__()
        self.blocks, self.heads = blocks, heads
        self.register_buffer('waves', torch.arange(1, frequencies + 1), persistent=False)
        self.first = nn.Linear(6 * frequencies, hidden)
        self.lattice = nn.Linear(cell_width, hidden, bias=False)
        self.distance = nn.Linear(distances, hidden, bias=False) if distances else None
        self.register_buffer('shells', torch.linspace(0.5, 8.0, distances), persistent=False)
        self.register_buffer('images', around(), persistent=False)
        self.second = nn.Linear(hidden, width)
        self.alpha = nn.Linear(width, blocks * heads, bias=False)

    def forward(self, fractional: Tensor, cell: Tensor, bias: Tensor, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """fractional (B, N, 3), cell (B, 12), bias (B, N) -> alpha (blocks, B, heads, N, N), h (B, N, N, width).

        ``metric`` (B, 3, 3), A^2, is needed for distances.
        """
        size, n, _ = fractional.shape
        fractional = fractional - torch.floor(fractional)
        phase = (2 * math.pi * fractional[..., None] * self.waves).flatten(-2)  # (B, N, 3 M)
        sin, cos = torch.sin(phase), torch.cos(phase)
        si, sj, ci, cj = sin[:, :, None], sin[:, None], cos[:, :, None], cos[:, None]
        x = torch.cat([sj * ci - cj * si, cj * ci + sj * si], -1)  # (B, N, N, 6 M): sine and cosine of the difference
        x = self.first(x) + self.lattice(cell)[:, None, None]
        if self.distance is not None:
            x = x + self.distance(self._shells_of(fractional, metric))
        x = nn.functional.silu(x)  # (B, N, N, hidden)
        h = nn.functional.silu(self.second(x))  # (B, N, N, width)
        alpha = self.alpha(h).view(size, n, n, self.blocks, self.heads).permute(3, 0, 4, 1, 2)
        return alpha + bias[None, :, None, None, :], h

    @full_precision
    def _shells_of(self, fractional: Tensor, metric: Tensor) -> Tensor:
        """Return Gaussians (B, N, N, K) of the distance to the nearest of 27 images."""
        r = nearest_distances(fractional, metric, self.images)
        return torch.exp(-0.5 * ((r - self.shells) / (self.shells[1] - self.shells[0])) ** 2)


def nearest_distances(fractional: Tensor, metric: Tensor, images: Tensor) -> Tensor:
    """Return distances (B, N, N, 1) to the nearest of 27 images, A.

    Parameters
    ----------
    fractional : (B, N, 3) Tensor
    metric : (B, 3, 3) Tensor
        Scalar products of the lattice vectors, A^2.
    images : (13, 3) Tensor
        One of each pair of opposite lattice vectors of the 26 around a cell, see :func:`around`.
    """
    d = fractional[:, None] - fractional[:, :, None]
    d = d - torch.round(d)
    along = d @ metric[:, None]  # (B, N, N, 3)
    images = images.to(metric.dtype)
    squares = ((images @ metric) * images).sum(-1)[:, None, None]  # |m|^2 of m lattice vectors, (B, 1, 1, 13)
    nearer = (squares - 2 * (along @ images.T).abs()).amin(-1, keepdim=True).clamp(max=0.0)  # |d +- m|^2 - |d|^2
    return ((along * d).sum(-1, keepdim=True) + nearer).clamp(min=1e-6).sqrt()


def around() -> Tensor:
    """Return one of each pair of opposite lattice vectors around a cell, (13, 3)."""
    return torch.cartesian_prod(*3 * [torch.arange(-1.0, 2.0)])[14:]


class Block(nn.Module):
    """Self-attention with pair terms and a feed-forward network, post-norm (paper, eqs 9 to 11, 17 to 19).

    Parameters
    ----------
    features : int
        d.
    heads, head_width : int
        128 is not divisible by the paper's 3 heads: the heads have a width of their own, and scores are divided by its root.
    hidden : int
        Width inside the feed-forward network.
    pair_width : int
    condition : int
        Width of z_c entering q, k and v (CDS); 0: none (CDI).
    coupled : bool
        Let the sender's state multiply its pair term, beta_ij = W [h_ij (1 + U z_j)]. In the paper beta_ij knows the geometry
        only, and who sits where is told by the attention weights alone.
    """

    def __init__(
        self, features: int, heads: int, head_width: int, hidden: int, pair_width: int, condition: int, coupled: bool
    ) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        inner = heads * head_width
        self.qkv = nn.Linear(features, 3 * inner)
        self.condition = nn.Linear(condition, 3 * inner, bias=False) if condition else None
        self.out = nn.Linear(inner, features)
        self.pair_out = nn.Linear(heads * pair_width, features, bias=False)
        self.couple = nn.Linear(features, pair_width) if coupled else None
        self.norm1, self.norm2 = LayerNorm(features), LayerNorm(features)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, features))

    def forward(self, z: Tensor, c: Tensor, alpha: Tensor, h: Tensor) -> Tensor:
        """z (B, N, d), c (B, d), alpha (B, H, N, N), h (B, N, N, P) -> (B, N, d)."""
        size, n, _ = z.shape
        qkv = self.qkv(z)  # (B, N, 3 H w)
        if self.condition is not None:
            qkv = qkv + self.condition(c)[:, None]
        q, k, v = qkv.view(size, n, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)  # each (B, H, N, w)
        weight = torch.softmax(q @ k.transpose(-1, -2) * self.head_width**-0.5 + alpha, -1)  # (B, H, N, N)
        atoms = (weight @ v).transpose(1, 2).reshape(size, n, -1)  # (B, N, H w)
        if self.couple is not None:
            h = h * (1 + self.couple(z))[:, None]  # (B, N, N, P)
        pairs = (weight.transpose(1, 2) @ h).reshape(size, n, -1)  # (B, N, H, N) @ (B, N, N, P) -> (B, N, H P)
        z = self.norm1(z + self.out(atoms) + self.pair_out(pairs))
        return self.norm2(z + self.mlp(z))


class CrystalTransformer(nn.Module):
    """Predict the noise of lattice and fractional coordinates and the clean species.

    The batch (see :class:`ase_diffusion.representations.Crystal`) has the fields ``fractional`` (n, 3), ``lattice`` (B, 3, 3)
    with rows in A, ``species`` (n,) and the extras ``slots`` (n,), ``counts`` (B,), ``width`` and, where species are given and
    not generated, ``given_species`` (B,).

    Parameters
    ----------
    classes : int
        Number of chemical elements.
    features, blocks, heads, head_width, hidden : int
        See :class:`Block`.
    frequencies, pair_hidden, pair_width : int
        See :class:`PairTerms`.
    conditioning : 'cds' or 'cdi'
        Conditions enter q, k and v of every block, or the initial embedding.
    conditions : dict, optional
        Conditions that the model knows, see :class:`ConditionEmbedding`.
    length : float
        Lengths enter the network divided by it, A.
    coupled : bool
        See :class:`Block`; False is the network of the paper.
    points : int
        D of species that are points (n, D), see :class:`ase_diffusion.representations.LogLatticeCrystal`; the lattice then comes
        as six numbers (B, 6), and ``lattice`` of the output is (B, 6). 0: categories and matrices.
    cell_mean, cell_std : 6 floats
        Of the six numbers, as in the representation.
    distances : int
        See :class:`PairTerms`; for points only.
    """

    def __init__(
        self,
        classes: int,
        features: int = 128,
        blocks: int = 6,
        heads: int = 3,
        head_width: int = 48,
        hidden: int = 256,
        frequencies: int = 10,
        pair_hidden: int = 128,
        pair_width: int = 64,
        conditioning: Literal['cds', 'cdi'] = 'cds',
        conditions: dict | None = None,
        length: float = 5.0,
        coupled: bool = False,
        points: int = 0,
        cell_mean: Sequence[float] = (0.0,) * 6,
        cell_std: Sequence[float] = (1.0,) * 6,
        distances: int = 0,
    ) -> None:
        super().__init__()
        if conditioning not in ('cds', 'cdi'):
            raise ValueError(f"conditioning must be 'cds' or 'cdi', got {conditioning!r}")
        if distances and not points:
            raise ValueError('distances need the lattice numbers of points > 0: a noised matrix may be flat')
        self.settings = dict(
            classes=classes,
            features=features,
            blocks=blocks,
            heads=heads,
            head_width=head_width,
            hidden=hidden,
            frequencies=frequencies,
            pair_hidden=pair_hidden,
            pair_width=pair_width,
            conditioning=conditioning,
            conditions=dict(conditions or {}),
            length=length,
            coupled=coupled,
        )
        if points:
            self.settings |= dict(points=points, cell_mean=list(cell_mean), cell_std=list(cell_std), distances=distances)
        d, self.length, self.conditioning = features, float(length), conditioning
        self.points = int(points)
        self.species = nn.Sequential(nn.Linear(points, d) if points else nn.Embedding(classes, d), nn.SiLU(), nn.Linear(d, d))
        self.cell = nn.Sequential(nn.Linear(6, d), nn.SiLU(), nn.Linear(d, d)) if points else None
        self.register_buffer('cell_scales', torch.tensor([list(cell_mean), list(cell_std)]), persistent=False)
        self.level = LevelEmbedding(d)
        self.conditions = ConditionEmbedding(conditions or {}, d)
        self.count = nn.Sequential(nn.Linear(2, d), nn.SiLU(), nn.Linear(d, d))
        self.given = nn.Parameter(torch.zeros(d))
        self.join = nn.Sequential(nn.Linear(2 * d, d), nn.SiLU(), nn.Linear(d, d))  # eq. 15
        self.initial = nn.Sequential(nn.Linear(2 * d, d), nn.SiLU(), nn.Linear(d, d)) if conditioning == 'cdi' else None
        self.pairs = PairTerms(frequencies, pair_hidden, pair_width, blocks, heads, 6 if points else 12, distances)
        self.layers = nn.ModuleList(
            Block(d, heads, head_width, hidden, pair_width, d if conditioning == 'cds' else 0, coupled) for _ in range(blocks)
        )
        self.head_fractional = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, 3))
        self.head_species = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, classes))
        self.head_lattice = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, 6 if points else 9))

    def without(self, *names: str) -> CrystalTransformer:
        """Return a network that does not know these conditions, and else predicts what this one does where they are not asked."""
        kept = {name: spec for name, spec in self.settings['conditions'].items() if name not in names}
        other = CrystalTransformer(**{**self.settings, 'conditions': kept})
        mine = set(other.state_dict())
        other.load_state_dict({name: value for name, value in self.state_dict().items() if name in mine})
        with torch.no_grad():
            for name in set(self.settings['conditions']) - set(kept):
                other.count[2].bias += self.conditions.absent[name]  # what is not asked for is a constant
        return other.to(self.given.device, self.given.dtype)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``fractional`` (n, 3), ``lattice`` (as it came) and ``species`` (n, K), the logits of the clean species."""
        extras, lattice = batch.extras, batch.fields['lattice']
        size, width, slots = batch.size, extras['width'], extras['slots']
        dtype = lattice.dtype
        fractional = pad(batch.fields['fractional'], slots, size, width)  # (B, N, 3)
        species = pad(batch.fields['species'], slots, size, width)  # (B, N)
        here = torch.arange(width, device=lattice.device) < extras['counts'][:, None]  # (B, N)
        counts, given = extras['counts'].to(dtype), extras.get('given_species')
        c = self.condition(c_noise.to(dtype), conditions, counts, given)
        if self.points:
            cell, c, metric = lattice, c + self.cell(lattice), self.metric(lattice, counts)
        else:
            cell, metric = gram_features(lattice, self.length), None  # (B, 12)
        noise, logits, phi = self.core(fractional, species, here.to(dtype), cell, c, metric)
        return {
            'fractional': noise.flatten(0, 1).index_select(0, slots),
            'lattice': phi if self.points else _times(phi.view(-1, 3, 3), lattice),
            'species': logits.flatten(0, 1).index_select(0, slots),
        }

    @full_precision
    def metric(self, lattice: Tensor, counts: Tensor) -> Tensor:
        """Return L L^T (B, 3, 3), A^2, of lattice numbers (B, 6); they have unit size, noised as they may be."""
        mean, std = self.cell_scales.to(lattice.dtype)
        s = lattice.clamp(-3.0, 3.0) * std + mean
        diagonal = torch.diag_embed(s[:, :3] + counts.log()[:, None] / 3)
        yz, xz, xy = (s[:, 3:] / math.sqrt(2.0)).unbind(-1)
        zero = torch.zeros_like(xy)
        upper = torch.stack([zero, xy, xz, zero, zero, yz, zero, zero, zero], -1).view(-1, 3, 3)
        return torch.linalg.matrix_exp(2 * (diagonal + upper + upper.transpose(1, 2)))

    def condition(self, c_noise: Tensor, conditions: dict[str, Tensor], counts: Tensor, given: Tensor | None) -> Tensor:
        """Return z_c (B, d) of time, conditions, number of atoms and whether the species are given."""
        z_t = self.level(c_noise)
        z_p = self.conditions(conditions, z_t) + self.count(torch.stack([counts.log(), counts / 10], -1))
        if given is not None:
            z_p = z_p + given.to(z_p.dtype)[:, None] * self.given
        return self.join(torch.cat([z_t, z_p], -1))

    def core(
        self, fractional: Tensor, species: Tensor, here: Tensor, cell: Tensor, c: Tensor, metric: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the network on padded tensors; this is the part to compile."""
        z = self.species(species)  # (B, N, d)
        if self.initial is not None:
            z = self.initial(torch.cat([z, c[:, None].expand_as(z)], -1))  # eq. 16
        alpha, h = self.pairs(fractional, cell, (1 - here) * _MASKED, metric)
        for k, layer in enumerate(self.layers):
            z = layer(z, c, alpha[k], h)
        mean = (z * here[..., None]).sum(1) / here.sum(1)[:, None]  # (B, d)
        phi = self.head_lattice(mean if self.cell is None else mean + c)
        noise = self.head_fractional(z) * here[..., None]
        noise = noise - noise.sum(1, keepdim=True) / here.sum(1)[:, None, None]  # no shift of the whole crystal: it has no score
        return noise, self.head_species(z), phi


@full_precision
def _times(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def pad(x: Tensor, slots: Tensor, size: int, width: int) -> Tensor:
    """Spread rows (n, ...) over (size, width, ...); slots that no row fills are zero."""
    if len(x) != size * width:
        x = x.new_zeros(size * width, *x.shape[1:]).index_copy(0, slots, x)
    return x.view(size, width, *x.shape[1:])


@full_precision
def gram_features(lattice: Tensor, length: float) -> Tensor:
    """Return the six scalar products of the lattice vectors (rows of (B, 3, 3)), linear and compressed, (B, 12)."""
    i, j = torch.triu_indices(3, 3, device=lattice.device)
    gram = (lattice @ lattice.transpose(1, 2))[:, i, j]  # (B, 6) A^2
    return torch.cat([gram / length**2, torch.asinh(gram)], -1)
