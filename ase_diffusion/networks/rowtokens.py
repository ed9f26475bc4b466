"""A Transformer whose tokens are the rows of a CrysTens image.

An image holds every number many times: a cell parameter 8 A times, Z of an atom 8 times, its place in 8 pixels and in the
differences to the other atoms, and rows are columns. The network makes an estimate D of the clean image, which has the symmetry
of images and the known pixels by construction, and returns F = (D - alpha x_t) / sigma; the noise level says what alpha and
sigma are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .conditions import ConditionEmbedding, LevelEmbedding
from .image_layout import (
    ATOMS,
    CELL,
    DIRECTIONS,
    FIELDS,
    HEADER,
    LENGTH,
    PRESENT,
    SIZE,
    compose_image,
    is_generated,
    is_pair,
    is_present,
    pair_block,
    strips,
    symmetric_image,
)

_MASKED = -1e4
_WEIGHTS = (2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.3, 0.3, 0.3, 0.3)  # of FIELDS in the loss


class Estimate(NamedTuple):
    """Best linear estimates of clean numbers from noise r: mean of their copies, and the noise of that mean.

    ``atoms`` (B, N, 4), ``cell`` (B, 7), ``length`` (B, N, N), ``directions`` (B, 3, N, N); ``noise`` (B, 13) of the fields Z to
    space_group, length and directions.
    """

    atoms: Tensor
    cell: Tensor
    length: Tensor
    directions: Tensor
    noise: Tensor


class PairTerms(nn.Module):
    """Tell attention about pairs of atoms: differences of their fractional coordinates and distances in A.

    Parameters
    ----------
    features : int
        Width of the vector of noise level and conditions.
    hidden, width : int
        Of the two layers of the trunk, which all blocks share.
    rows : int
        Attention maps of the network, blocks times heads.
    waves, shells : int
        Fourier waves per direction, and Gaussians of the distance to the nearest image up to 8 A.
    """

    def __init__(self, features: int, hidden: int, width: int, rows: int, waves: int, shells: int):
        super().__init__()
        self.register_buffer('waves', 2 * math.pi * torch.arange(1, waves + 1), persistent=False)
        self.register_buffer('shells', torch.linspace(0.5, 8.0, shells), persistent=False)
        self.first = nn.Linear(6 * waves + shells + 4, hidden)
        self.level = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, width)
        self.alpha = nn.Linear(width, rows)

    def forward(self, f: Tensor, metric: Tensor, block: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """f (B, N, 3), metric (B, 3, 3) in A^2, block (B, 4, N, N), c (B, d) -> (B, rows, N, N), h (B, N, N, width)."""
        phase = (f[..., None] * self.waves).flatten(-2)  # (B, N, 3 M)
        sin, cos = torch.sin(phase), torch.cos(phase)
        si, sj, ci, cj = sin[:, :, None], sin[:, None], cos[:, :, None], cos[:, None]
        d = f[:, :, None] - f[:, None]
        d = d - torch.round(d)
        r = ((d @ metric[:, None]) * d).sum(-1, keepdim=True).clamp(min=1e-4).sqrt()  # (B, N, N, 1) A
        shells = torch.exp(-0.5 * ((r - self.shells) / (self.shells[1] - self.shells[0])) ** 2)
        x = torch.cat([si * cj - ci * sj, ci * cj + si * sj, shells, block.permute(0, 2, 3, 1)], -1)
        x = nn.functional.silu(self.first(x) + self.level(c)[:, None, None])  # (B, N, N, hidden)
        h = nn.functional.silu(self.second(x))  # (B, N, N, width)
        return self.alpha(h).permute(0, 3, 1, 2), h


class Block(nn.Module):
    """Self-attention with pair terms and a feed-forward network, modulated by noise level and conditions (adaLN-Zero, DiT).

    Parameters
    ----------
    features, heads, hidden : int
        Width of tokens, number of heads, width inside the feed-forward network.
    pair_width : int
        Of the pair terms h.
    dropout : float
        Of what both parts add.
    """

    def __init__(self, features: int, heads: int, hidden: int, pair_width: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(features, elementwise_affine=False) for _ in range(2))
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.pair_out = nn.Linear(heads * pair_width, features, bias=False)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, features))
        self.modulation = nn.Linear(features, 6 * features)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, c: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """x (B, T, d), c (B, d), bias (B, H, T, T), h (B, N, N, P) of the last N tokens -> (B, T, d)."""
        size, tokens, width = x.shape
        atoms = h.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)  # each (B, 1, d)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(size, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, w)
        weight = torch.softmax(q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + bias, -1)  # (B, H, T, T)
        y = self.out((weight.to(v.dtype) @ v).transpose(1, 2).reshape(size, tokens, width))
        near = weight[:, :, tokens - atoms :, tokens - atoms :].transpose(1, 2).to(h.dtype) @ h  # (B, N, H, P)
        y = y + nn.functional.pad(self.pair_out(near.flatten(2)), (0, 0, tokens - atoms, 0))
        x = x + gate1 * self.dropout(y)
        y = self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        return x + gate2 * self.dropout(y)


class RowTransformer(nn.Module):
    """Predict F of CrysTens images (B, 4, 64, 64); ``extras['counts']`` (B,) gives the numbers of atoms.

    The process has to be :class:`ase_diffusion.diffusion.Preconditioned`: alpha^2 + sigma^2 = 1. Pixels without an atom, the
    diagonal of the pair block, the corner and row 11 are known: whatever the input says there is ignored, and the sampler arrives
    at their values.

    Parameters
    ----------
    shift, scale : 16 floats
        Of the representation.
    absent : float
        Of the representation.
    log_lengths : bool
        Of the representation.
    features, blocks, heads, hidden : int
        See :class:`Block`.
    pair_hidden, pair_width, waves, shells : int
        See :class:`PairTerms`.
    tied : bool
        Whether all copies of a number come from one output, which the posterior mean does, as all clean images have it; the
        copies of the input are averaged first, so that little noise is left for the network. The statistics of tables 1 and 2 of
        the paper are then zero by construction. Otherwise every pixel has an output of its own, the same for rows and columns.
    ordered : bool
        Whether tokens know their place in the order of atoms. Without, exchanging two atoms exchanges rows and columns of the
        output; needs ``tied``.
    conditions : dict, optional
        See :class:`ase_diffusion.networks.conditions.ConditionEmbedding`.
    dropout : float
    """

    def __init__(
        self,
        shift: Sequence[float],
        scale: Sequence[float],
        absent: float = 0.0,
        log_lengths: bool = True,
        features: int = 192,
        blocks: int = 6,
        heads: int = 3,
        hidden: int = 768,
        pair_hidden: int = 64,
        pair_width: int = 32,
        waves: int = 3,
        shells: int = 16,
        tied: bool = True,
        ordered: bool = True,
        conditions: dict | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        if len(shift) != len(FIELDS) or len(scale) != len(FIELDS):
            raise ValueError(f'shift and scale hold {len(FIELDS)} numbers each, got {len(shift)} and {len(scale)}')
        if not (tied or ordered):
            raise ValueError('rows of pixels know their place: ordered=False needs tied=True')
        self.settings = dict(
            shift=[float(x) for x in shift],
            scale=[float(x) for x in scale],
            absent=float(absent),
            log_lengths=bool(log_lengths),
            features=features,
            blocks=blocks,
            heads=heads,
            hidden=hidden,
            pair_hidden=pair_hidden,
            pair_width=pair_width,
            waves=waves,
            shells=shells,
            tied=bool(tied),
            ordered=bool(ordered),
            conditions=dict(conditions or {}),
            dropout=float(dropout),
        )
        self.absent, self.log_lengths, self.tied, self.ordered = float(absent), bool(log_lengths), bool(tied), bool(ordered)
        d, self.heads, self.blocks = features, heads, blocks
        self.register_buffer('shift', torch.tensor(self.settings['shift']), persistent=False)
        self.register_buffer('scale', torch.tensor(self.settings['scale']), persistent=False)
        self.register_buffer('weights', torch.tensor(_WEIGHTS), persistent=False)
        self.level = LevelEmbedding(d)
        self.count = nn.Sequential(nn.Linear(2, d), nn.SiLU(), nn.Linear(d, d))
        self.conditions = ConditionEmbedding(conditions or {}, d)
        self.rows = nn.Linear(4 * SIZE, d)
        self.place = nn.Parameter(0.02 * torch.randn(SIZE if ordered else HEADER + 1, d))
        self.pairs = PairTerms(d, pair_hidden, pair_width, blocks * heads, waves, shells)
        self.layers = nn.ModuleList(Block(d, heads, hidden, pair_width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.modulation = nn.Linear(d, 2 * d)
        self.key = nn.Linear(d, 64)
        self.head_atoms = nn.Linear(d, 4) if tied else None
        self.head_cell = nn.Linear(d, 7) if tied else None
        self.head_rows = None if tied else nn.Linear(d, 4 * SIZE)
        for layer in (self.modulation, self.head_atoms, self.head_cell, self.head_rows):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, batch, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``image`` (B, 4, 64, 64), float32; ``c_noise`` (B,) is log(sigma / alpha) / 4."""
        if 'counts' not in batch.extras:
            raise ValueError("the numbers of atoms are given: batch.extras['counts'] (B,), drawn from those of the data")
        image, counts = batch.fields['image'].float(), batch.extras['counts']
        c = self.condition(c_noise.float(), counts, conditions)
        width = ATOMS if self.training else int(counts.max())  # absent slots cost nothing
        return {'image': self.core(image, counts, c_noise.float(), c, width)}

    def condition(self, c_noise: Tensor, counts: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the vector (B, d) of noise level, number of atoms and what is asked for."""
        c = self.level(c_noise)
        n = counts.to(c.dtype)
        c = c + self.conditions(conditions, c) + self.count(torch.stack([n.log(), n / 10], -1))
        return nn.functional.silu(c)

    def core(self, image: Tensor, counts: Tensor, c_noise: Tensor, c: Tensor, width: int) -> Tensor:
        """Evaluate the network; this is the part to compile. Returns F (B, 4, 64, 64)."""
        with torch.autocast(image.device.type, enabled=False):
            here = is_present(counts, width)
            r = torch.exp(4 * c_noise)[:, None, None, None]  # sigma / alpha
            alpha = torch.rsqrt(1 + r**2)
            sigma = r * alpha
            x = image[:, :, : HEADER + width, : HEADER + width]
            estimate = self.estimate(x / alpha, here, r[:, 0, 0, 0])
            pixels = self.visible(x, estimate, here)  # (B, 4, T, T)
            metric = self.metric(estimate)
            f = (estimate.atoms * self.shrink(estimate)[:, None, :4])[..., 1:] * self.scale[1:4] + self.shift[1:4]
        tokens = self.trunk(pixels, f, metric, here, c)
        if self.tied:
            clean = self.tied_output(tokens, estimate, here)
        else:
            clean = self.free_output(tokens, x, r, alpha, here)
        with torch.autocast(image.device.type, enabled=False):
            known = self.known(counts, image)
            clean = torch.where(is_generated(counts), nn.functional.pad(clean, (0, ATOMS - width) * 2), known)
            return (clean - alpha * image) / sigma

    def known(self, counts: Tensor, like: Tensor) -> Tensor:
        """Return an image (B, 4, 64, 64) that is right where :func:`is_generated` is False."""
        size = len(counts)
        pairs = like.new_zeros(size, 4, ATOMS, ATOMS)
        return compose_image(like.new_zeros(size, ATOMS, PRESENT), pairs[:, 0], pairs[:, 1:], is_present(counts), self.absent)

    def estimate(self, y: Tensor, here: Tensor, r: Tensor) -> Estimate:
        """Average the copies in y = x_0 + r noise, (B, 4, T, T); places by least squares from pixels and differences.

        Pixels of places have the noise r scale_f and differences r scale_d: with w = 8 / scale_f^2 and v = 2 / scale_d^2 the
        deviation of a place from the mean of all is (w own + v sum of differences) / (w + v A).
        """
        n = here.sum(1).to(y.dtype)  # (B,)
        copies = strips(y).mean((1, 2))  # (B, 12, N)
        copies = torch.where(here[:, None], copies, 0.0)
        cell = copies[:, CELL].sum(-1) / n[:, None]  # (B, 7)
        length, directions = pair_block(y)
        pair = is_pair(here)
        length, directions = torch.where(pair, length, 0.0), torch.where(pair[:, None], directions, 0.0)
        scale_f, scale_d = self.scale[1:4], self.scale[DIRECTIONS]
        own = copies[:, 1:4] * scale_f[:, None]  # (B, 3, N) without the shift
        w, v = 8 / scale_f**2, 2 / scale_d**2  # (3,)
        mean = own.sum(-1) / n[:, None]  # (B, 3)
        deviation = w[:, None] * (own - mean[..., None]) + v[:, None] * (directions * scale_d[:, None, None]).sum(-1)
        place = mean[..., None] + deviation / (w + v * n[:, None])[..., None]
        place = torch.where(here[:, None], place / scale_f[:, None], 0.0)  # (B, 3, N)
        atoms = torch.cat([copies[:, :1], place], 1).transpose(1, 2)  # (B, N, 4)
        return Estimate(atoms, cell, length, directions, self.copy_noise(n, r))

    def copy_noise(self, n: Tensor, r: Tensor) -> Tensor:
        """Return the noise (B, 13) that averaging leaves of r (B,) in crystals of n (B,) atoms, see :class:`Estimate`."""
        n = n[:, None]
        w, v = 8 / self.scale[1:4] ** 2, 2 / self.scale[DIRECTIONS] ** 2
        place = (1 - 1 / n) / ((w + v * n) * self.scale[1:4] ** 2) + 1 / (8 * n)  # (B, 3)
        one = torch.ones_like(n)
        variance = torch.cat([one / 8, place, (1 / (8 * n)).expand(-1, 7), (one / 2).expand(-1, 2)], 1)
        return r[:, None] * variance.sqrt()

    def shrink(self, estimate: Estimate) -> Tensor:
        """Return what makes an estimate the best linear one of numbers of unit variance, (B, 13)."""
        return 1 / (1 + estimate.noise**2)

    def visible(self, x: Tensor, estimate: Estimate, here: Tensor) -> Tensor:
        """Return the image that tokens see, of unit variance: averaged copies, or the pixels (rows equal to columns)."""
        if not self.tied:
            return symmetric_image(strips(x).mean(2), *pair_block(x), here)
        unit = torch.rsqrt(1 + estimate.noise**2)
        cell = (estimate.cell * unit[:, 4:11])[:, None].expand(-1, here.shape[1], -1)
        fields = torch.cat([estimate.atoms * unit[:, None, :4], cell], -1)
        place = (fields[..., 1:4] * self.scale[1:4] / self.scale[DIRECTIONS]).transpose(1, 2)  # (B, 3, N)
        pair = is_pair(here)
        length = estimate.length * unit[:, 11, None, None]
        directions = torch.where(pair[:, None], place[..., :, None] - place[..., None, :], 0.0)
        return symmetric_image(fields.transpose(1, 2)[:, None].expand(-1, 4, -1, -1), length, directions, here)

    def metric(self, estimate: Estimate) -> Tensor:
        """Return the scalar products of the estimated lattice vectors, (B, 3, 3) in A^2."""
        cell = (estimate.cell * self.shrink(estimate)[:, 4:11])[:, :6].clamp(-3.0, 3.0)
        cell = cell * self.scale[4:10] + self.shift[4:10]
        lengths = cell[:, :3].exp() if self.log_lengths else cell[:, :3].clamp(min=1.0)
        cos = torch.cos(cell[:, 3:].clamp(45.0, 135.0) * (math.pi / 180))
        one = torch.ones_like(cos[:, 0])
        yz, xz, xy = cos.unbind(-1)
        angles = torch.stack([one, xy, xz, xy, one, yz, xz, yz, one], -1).view(-1, 3, 3)
        return angles * lengths[:, :, None] * lengths[:, None]

    def trunk(self, pixels: Tensor, f: Tensor, metric: Tensor, here: Tensor, c: Tensor) -> Tensor:
        """Return tokens (B, T, d), normalised and modulated."""
        width = here.shape[1]
        block = pixels[:, :, HEADER:, HEADER:]
        alpha, h = self.pairs(f, metric, block, c)
        full = nn.functional.pad(pixels, (0, ATOMS - width))  # (B, 4, T, 64)
        place = self.place[: HEADER + width]
        if not self.ordered:
            full = torch.cat([full[..., :HEADER], torch.zeros_like(full[..., HEADER:])], -1)
            place = torch.cat([self.place[:HEADER], self.place[HEADER:].expand(width, -1)])
        x = self.rows(full.transpose(1, 2).flatten(2)) + place  # (B, T, d)
        absent = nn.functional.pad((~here).to(alpha.dtype) * _MASKED, (HEADER, 0))  # (B, T)
        bias = nn.functional.pad(alpha, (HEADER, 0, HEADER, 0)) + absent[:, None, None]
        for layer, part in zip(self.layers, bias.split(self.heads, 1), strict=True):
            x = layer(x, c, part, h)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift

    def tied_output(self, tokens: Tensor, estimate: Estimate, here: Tensor) -> Tensor:
        """Return the clean image D (B, 4, T, T) of one output per number."""
        atoms = self.head_atoms(tokens[:, HEADER:])  # (B, N, 4)
        cell = self.head_cell(tokens[:, CELL]).diagonal(dim1=1, dim2=2)  # (B, 7), one token per number
        key = self.key(tokens[:, HEADER:]) * 0.125
        with torch.autocast(tokens.device.type, enabled=False):
            skip = self.shrink(estimate)
            step = estimate.noise * torch.sqrt(skip)  # c_out (B, 13)
            atoms = estimate.atoms * skip[:, None, :4] + step[:, None, :4] * atoms.float()
            cell = estimate.cell * skip[:, 4:11] + step[:, 4:11] * cell.float()
            fields = torch.cat([atoms, cell[:, None].expand(-1, here.shape[1], -1)], -1)
            place = (atoms[..., 1:] * self.scale[1:4]).transpose(1, 2)  # (B, 3, N)
            d = place[..., :, None] - place[..., None, :]
            length = d.square().sum(1).clamp(min=1e-8).sqrt()
            key = key.float()
            length = (length - self.shift[LENGTH]) / self.scale[LENGTH]
            length = length + step[:, 11, None, None] * (key @ key.transpose(1, 2))
            return compose_image(fields, length, d / self.scale[DIRECTIONS, None, None], here, self.absent)

    def free_output(self, tokens: Tensor, x: Tensor, r: Tensor, alpha: Tensor, here: Tensor) -> Tensor:
        """Return the clean image D (B, 4, T, T) of one output per pixel, rows equal to columns."""
        size, length = tokens.shape[:2]
        out = self.head_rows(tokens).view(size, length, 4, SIZE)[..., :length].transpose(1, 2).float()  # (B, 4, T, T)
        with torch.autocast(tokens.device.type, enabled=False):
            noise = r / math.sqrt(2.0)  # a row and a column
            clean = x / alpha / (1 + noise**2) + out * (noise * torch.rsqrt(1 + noise**2))
            return symmetric_image(strips(clean).mean(2), *pair_block(clean), here)

    def loss_weights(self, counts: Tensor, c_noise: Tensor) -> Tensor:
        """Return weights (B, 4, 64, 64) of the squared error of F whose mean counts every field alike, not every pixel.

        Errors are measured in units of what the copies of a number leave unknown about it; Z counts twice, the cell half.
        """
        n = counts.to(c_noise.dtype)[:, None]
        r = torch.exp(4 * c_noise)[:, None]
        here = is_present(counts)
        noise = self.copy_noise(n[:, 0], r[:, 0]) if self.tied else (r / math.sqrt(2.0)).expand(-1, 13)
        unit = (r**2 / (1 + r**2)) * (1 + noise**2) / noise**2  # (B, 13)
        pixels = torch.cat([(8 * n).expand(-1, PRESENT), (n * (n - 1)).clamp(min=1).expand(-1, 4)], 1)  # of each field
        unit = torch.cat([unit, unit[:, -1:].expand(-1, 2)], 1)  # (B, 15)
        share = torch.cat([self.weights[:PRESENT], self.weights[LENGTH:]]).to(n.dtype)
        weight = share / share.sum() * unit / pixels * (4 * SIZE * SIZE)
        fields = weight[:, None, :PRESENT].expand(-1, ATOMS, -1)
        block = weight[:, PRESENT:, None, None].expand(-1, -1, ATOMS, ATOMS)
        image = compose_image(fields, block[:, 0], block[:, 1:], here)
        return torch.where(is_generated(counts), image, 0.0)
