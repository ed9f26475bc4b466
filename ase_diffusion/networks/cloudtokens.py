"""Denoiser of point clouds of crystals on one token for each atom and one for the lattice.

The rows of a cloud (see :class:`ase_diffusion.representations.PointCloud`) are r = 128 // N copies of each of N atoms with
independent noise, so that the mean of the copies is a sufficient statistic: with given N,
D(x; sigma, N) = copies of D'(means; sigma / sqrt(r)) is exact for every distribution of crystals. The network is D'. Slots of
the same element are pooled in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from .conditions import ConditionEmbedding, LevelEmbedding
from .precision import full_precision
from .transformer import PairTerms

POINTS, MAX_ATOMS, ELEMENTS = 128, 16, 119
LATTICE_COPIES = 64
_MASKED = -1e4


class CloudPairs(PairTerms):
    """Terms of pairs of atoms, with distances in single precision under autocast, too."""

    @full_precision
    def _shells_of(self, fractional: Tensor, metric: Tensor) -> Tensor:
        return super()._shells_of(fractional.float(), metric.float())


class CloudBlock(nn.Module):
    """Self-attention with pair terms and a feed-forward network, modulated by the conditions (adaLN-Zero, arXiv 2212.09748).

    Parameters
    ----------
    features, heads, hidden : int
        Width d, number of heads (a divisor of d), width inside the feed-forward network.
    pair_width : int
    dropout : float
        Share of the numbers that training leaves out behind attention and inside the feed-forward network.
    """

    def __init__(self, features: int, heads: int, hidden: int, pair_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(features, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(features, elementwise_affine=False)
        self.modulation = nn.Linear(features, 6 * features)
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.pair_out = nn.Linear(heads * pair_width, features, bias=False)
        self.couple = nn.Linear(features, pair_width)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), self.dropout, nn.Linear(hidden, features))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, z: Tensor, c: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """z (B, T, d), c (B, d), bias (B, H, T, T), h (B, T, T, P) -> (B, T, d)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)  # each (B, 1, d)
        y = self.norm1(z) * (1 + scale1) + shift1  # (B, T, d)
        z = z + gate1 * self.dropout(self.attend(y, bias, h))
        return z + gate2 * self.mlp(self.norm2(z) * (1 + scale2) + shift2)

    def attend(self, y: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """Mix tokens y (B, T, d); attention is written out, because the pair terms are values, too."""
        size, n, width = y.shape
        q, k, v = self.qkv(y).view(size, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, w)
        weight = torch.softmax(q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + bias, -1)  # (B, H, T, T)
        atoms = (weight @ v).transpose(1, 2).reshape(size, n, -1)  # (B, T, d)
        h = h * (1 + self.couple(y))[:, None]  # (B, T, T, P): what the sender is changes what its place means
        pairs = (weight.transpose(1, 2) @ h).reshape(size, n, -1)  # (B, T, H, T) @ (B, T, T, P) -> (B, T, H P)
        return self.out(atoms) + self.pair_out(pairs)


class BlockMeans(nn.Module):
    """Predict F of the field ``cloud`` (B, 3, 128, 3) for preconditioned diffusion, D = alpha x + sigma F.

    A subclass writes :meth:`core`: F of the means over copies, from these means.

    The batch has the extras ``counts`` (B,), the numbers of atoms, and ``elements`` (B, 3), the atomic numbers of the slots.
    Where they are absent they are taken from the conditions ``natoms`` (B,) and ``elements``.

    The condition ``elements`` is (B, 119), 1 for the asked elements, or (B, 3), the elements of the slots; a row of NaN stands
    for "not asked", and the network then does not know the elements of the slots.
    """

    def _register_tables(self) -> None:
        """Keep, for N = 0 to 16, the atom of every row (17, 128) and the number of copies of every atom (17, 16)."""
        n = torch.arange(MAX_ATOMS + 1).clamp(min=1)[:, None]
        of_row = torch.minimum(torch.arange(POINTS) // (POINTS // n), n - 1)
        copies = torch.zeros(MAX_ATOMS + 1, MAX_ATOMS).scatter_add_(1, of_row, torch.ones(MAX_ATOMS + 1, POINTS))
        self.register_buffer('of_row', of_row, persistent=False)
        self.register_buffer('copies', copies, persistent=False)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return F of the rows, ``cloud`` (B, 3, 128, 3).

        Raises
        ------
        ValueError
            Neither the extras nor the conditions tell the numbers of atoms or the elements.
        """
        x = batch.fields['cloud'].float()  # (B, 3, 128, 3)
        counts, slots, known = self.structure(batch, conditions)
        s = torch.exp(4 * c_noise.to(x.dtype))  # (B,) noise over signal of a row
        atoms, lattice, s_atoms, s_lattice = self.pool(x, s, counts, slots, int(counts.max()))
        f_atoms, f_lattice = self.core(atoms, lattice, s, counts, slots, known, conditions)
        clean = self.unpool(denoised(atoms, f_atoms, s_atoms), denoised(lattice, f_lattice, s_lattice), counts)
        s = s[:, None, None, None]
        return {'cloud': (torch.sqrt(1 + s**2) * clean - x) / s}

    def structure(self, batch: Any, conditions: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return numbers of atoms (B,), elements of the slots (B, 3), and where the network knows these (B,)."""
        counts = batch.extras.get('counts', conditions.get('natoms'))
        asked, slots = conditions.get('elements'), batch.extras.get('elements')
        if counts is None:
            raise ValueError("rows are copies of a given number of atoms: extras['counts'] or the condition natoms is needed")
        if slots is None and asked is None:
            raise ValueError("extras['elements'] (B, 3) or the condition elements is needed")
        if slots is None:
            slots = slots_of(asked)
        known = torch.ones_like(counts, dtype=torch.bool) if asked is None else ~torch.isnan(asked).any(-1)
        return counts.long(), slots.long(), known

    def ratios(self, s: Tensor, counts: Tensor, slots: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Return noise over signal of the means, (B, W, 6) of the atoms and (B, 1) of the lattice, for ``s`` (B,) of the rows."""
        copies = self.copies[counts, :width].clamp(min=1)  # (B, W)
        shared = same_slots(slots).sum(-1)  # (B, 3)
        number = torch.cat([copies[..., None].expand(-1, -1, 3), copies[..., None] * shared[:, None]], -1)  # (B, W, 6)
        return s[:, None, None] * number.rsqrt(), s[:, None] * LATTICE_COPIES**-0.5

    def pool(self, x: Tensor, s: Tensor, counts: Tensor, slots: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return means of the rows x (B, 3, 128, 3), of unit variance again, and their noise over signal.

        These are positions and slots of the atoms (B, W, 6) and angles and lengths (B, 6), with :meth:`ratios`.
        """
        s_atoms, s_lattice = self.ratios(s, counts, slots, width)
        rows = torch.cat([x[:, 0], average_slots(x[:, 1], slots)], -1)  # (B, 128, 6)
        atoms, lattice = self.means(rows, x[:, 2], counts, width)
        s = s[:, None]
        atoms = atoms * torch.sqrt((1 + s[..., None] ** 2) / (1 + s_atoms**2))
        return atoms, lattice * torch.sqrt((1 + s**2) / (1 + s_lattice**2)), s_atoms, s_lattice

    def means(self, rows: Tensor, channel: Tensor, counts: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Average rows (B, 128, 6) over copies, (B, W, 6), and channel 2 (B, 128, 3) over its halves, (B, 6)."""
        of_row = self.of_row[counts][..., None].expand(-1, -1, 6)
        total = rows.new_zeros(len(rows), MAX_ATOMS, 6).scatter_add(1, of_row, rows)[:, :width]
        halves = channel.unflatten(1, (2, LATTICE_COPIES)).mean(2)  # (B, 2, 3)
        return total / self.copies[counts, :width, None].clamp(min=1), halves.flatten(1)

    def unpool(self, atoms: Tensor, lattice: Tensor, counts: Tensor) -> Tensor:
        """Return copies (B, 3, 128, 3) of atoms (B, W, 6) and lattice (B, 6)."""
        rows = atoms.gather(1, self.of_row[counts][..., None].expand(-1, -1, 6))  # (B, 128, 6)
        halves = lattice.view(-1, 2, 1, 3).expand(-1, -1, LATTICE_COPIES, -1).flatten(1, 2)  # (B, 128, 3)
        return torch.stack([rows[..., :3], rows[..., 3:], halves], 1)

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
        """Return F of the means, (B, W, 6) and (B, 6); this is the part to train and to compile.

        Parameters
        ----------
        atoms : (B, W, 6) Tensor
            Noised positions and slots, of unit variance; slots of the same element are equal.
        lattice : (B, 6) Tensor
            Noised angles and lengths.
        s : (B,) Tensor
            Noise over signal of a row.
        counts, slots, known
            As :meth:`structure` returns them.
        conditions : dict of str to Tensor
        """
        raise NotImplementedError


class CloudTokens(BlockMeans):
    """Attend to tokens of the atoms and one of the lattice.

    The order of elements does not matter: slots enter as sums over vectors of their elements, and come out as products with
    them.

    Parameters
    ----------
    features, blocks, heads, hidden, dropout
        See :class:`CloudBlock`.
    frequencies, pair_hidden, pair_width, distances : int
        See :class:`ase_diffusion.networks.transformer.PairTerms`.
    descriptors : int
        Numbers that describe an element beside its embedding, the columns of the buffer ``descriptors`` (119, K) that whoever
        trains the network fills.
    conditions : dict, optional
        Further conditions, see :class:`ase_diffusion.networks.conditions.ConditionEmbedding`.
    lattice : 'log' or 'paper'
    scales : dict of str to (mean, std), optional
        Of 'positions', 'angles' and 'lengths'; both as in the representation.
    """

    def __init__(
        self,
        features: int = 192,
        blocks: int = 6,
        heads: int = 6,
        hidden: int = 768,
        frequencies: int = 6,
        pair_hidden: int = 64,
        pair_width: int = 32,
        distances: int = 24,
        descriptors: int = 0,
        conditions: dict | None = None,
        lattice: str = 'log',
        scales: Mapping[str, Sequence[float]] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f'features must be a multiple of heads, got {features} and {heads}')
        scales = {'positions': (0.0, 1.0), 'angles': (0.0, 1.0), 'lengths': (0.0, 1.0)} | dict(scales or {})
        scales = {name: list(scales[name]) for name in ('positions', 'angles', 'lengths')}
        self.settings = dict(
            features=features,
            blocks=blocks,
            heads=heads,
            hidden=hidden,
            frequencies=frequencies,
            pair_hidden=pair_hidden,
            pair_width=pair_width,
            distances=distances,
            descriptors=descriptors,
            conditions={name: spec if isinstance(spec, dict) else list(spec) for name, spec in (conditions or {}).items()},
            lattice=lattice,
            scales=scales,
            dropout=dropout,
        )
        d, self.lattice_form, self.scales = features, lattice, scales
        self.register_buffer('descriptors', torch.zeros(ELEMENTS, descriptors))
        self._register_tables()
        self.level = LevelEmbedding(d)
        self.element = nn.Embedding(ELEMENTS, d)
        self.describe = nn.Sequential(nn.Linear(descriptors, d), nn.SiLU(), nn.Linear(d, d)) if descriptors else None
        self.unknown = nn.Parameter(torch.randn(3, d))
        self.of_set = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.count = nn.Embedding(MAX_ATOMS + 1, d)
        self.conditions = ConditionEmbedding(conditions or {}, d)
        self.join = nn.Sequential(nn.Linear(2 * d, d), nn.SiLU(), nn.Linear(d, d))
        self.register_buffer('waves', torch.arange(1.0, 5.0), persistent=False)
        self.position_in = nn.Linear(3 + 24 + 1, d)
        self.species_in = nn.Linear(d, d)
        self.lattice_in = nn.Sequential(nn.Linear(6, d), nn.SiLU(), nn.Linear(d, d))
        self.level_of_pairs = nn.Linear(d, 10)
        self.pairs = CloudPairs(frequencies, pair_hidden, pair_width, blocks, heads, 16, distances)
        self.layers = nn.ModuleList(CloudBlock(d, heads, hidden, pair_width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.modulation = nn.Linear(d, 2 * d)
        self.position_out = nn.Linear(d, 3)
        self.species_out = nn.Linear(d, d)
        self.species_key = nn.Linear(d, d)
        self.lattice_out = nn.Linear(d, 6)
        for layer in (self.modulation, self.position_out, self.species_out, self.lattice_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

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
        width = atoms.shape[1]
        s_atoms, s_lattice = self.ratios(s, counts, slots, width)
        here = torch.arange(width, device=atoms.device) < counts[:, None]  # (B, W)
        elements = self.elements(slots, known)  # (B, 3, d)
        c = self.condition(s_of_atoms(s, counts), counts, slots, elements, conditions)  # (B, d)
        noisy = atoms[..., :3] * torch.sqrt(1 + s_atoms[..., :3] ** 2)
        fractional = noisy * self.scales['positions'][1] + self.scales['positions'][0]  # (B, W, 3)
        z = self.embed(atoms, fractional, s_atoms, elements) * here[..., None]
        cell = torch.cat([lattice, self.level_of_pairs(c)], -1)  # (B, 16)
        bias, h = self.pairs(fractional, cell, torch.zeros_like(atoms[..., 0]), self.metric(lattice, s_lattice))
        z = torch.cat([z, self.lattice_in(lattice)[:, None]], 1)  # (B, W + 1, d), the lattice last
        mask = pad(torch.where(here, 0.0, _MASKED), (0, 1))[:, None, None]  # (B, 1, 1, W + 1)
        bias, h = pad(bias, (0, 1, 0, 1)) + mask, pad(h, (0, 0, 0, 1, 0, 1))
        c = silu(c)
        for k, layer in enumerate(self.layers):
            z = layer(z, c, bias[k], h)
        scale, shift = self.modulation(c)[:, None].chunk(2, -1)
        z = self.norm(z) * (1 + scale) + shift
        keys = self.species_key(elements) * z.shape[-1] ** -0.5  # (B, 3, d)
        species = self.species_out(z[:, :-1]) @ keys.transpose(1, 2)  # (B, W, 3)
        return torch.cat([self.position_out(z[:, :-1]), species], -1).float(), self.lattice_out(z[:, -1]).float()

    def elements(self, slots: Tensor, known: Tensor) -> Tensor:
        """Return the vectors (B, 3, d) of the elements of the slots (B, 3), others where they are not known (B,)."""
        vectors = self.element(slots)
        if self.describe is not None:
            vectors = vectors + self.describe(self.descriptors[slots])
        first = same_slots(slots).argmax(-1)  # (B, 3): slots of one element share a vector
        return torch.where(known[:, None, None], vectors, self.unknown[first])

    def condition(self, s: Tensor, counts: Tensor, slots: Tensor, elements: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return c (B, d) of noise over signal of an atom (B,), number of atoms, elements and asked-for conditions."""
        level = self.level(torch.log(s) / 4)
        once = 1 / same_slots(slots).sum(-1, keepdim=True)  # (B, 3, 1): every element counts once
        asked = self.count(counts) + (self.of_set(elements) * once).sum(1)
        asked = asked + self.conditions(conditions, level)
        return self.join(torch.cat([level, asked], -1))

    def embed(self, atoms: Tensor, fractional: Tensor, s_atoms: Tensor, elements: Tensor) -> Tensor:
        """Return the tokens (B, W, d) of the atoms."""
        phase = (2 * math.pi * fractional[..., None] * self.waves).flatten(-2)  # (B, W, 12)
        more = torch.log(s_atoms[:, :1, :1] / s_atoms[..., :1])  # (B, W, 1): the last atom may have more copies
        known = torch.cat([atoms[..., :3], torch.sin(phase), torch.cos(phase), more], -1)  # (B, W, 28)
        return self.position_in(known) + atoms[..., 3:] @ self.species_in(elements)

    def metric(self, lattice: Tensor, s: Tensor) -> Tensor:
        """Return the metric (B, 3, 3), A^2, of noised angles and lengths (B, 6), shrunk to what is known of them."""
        likely = (lattice / torch.sqrt(1 + s**2)).clamp(-4.0, 4.0)
        angles = likely[:, :3] * self.scales['angles'][1] + self.scales['angles'][0]
        lengths = likely[:, 3:] * self.scales['lengths'][1] + self.scales['lengths'][0]
        if self.lattice_form == 'log':
            angles, lengths = 60.0 * angles + 90.0, 6.0 * torch.exp((0.84 * lengths).clamp(-3.0, 3.0))
        else:
            angles, lengths = 180.0 * angles, (15.0 * lengths).clamp(0.5, 60.0)
        cosine = torch.cos(torch.deg2rad(angles.clamp(20.0, 160.0)))
        one = torch.ones_like(cosine[:, 0])
        rows = [one, cosine[:, 2], cosine[:, 1], cosine[:, 2], one, cosine[:, 0], cosine[:, 1], cosine[:, 0], one]
        return torch.stack(rows, -1).view(-1, 3, 3) * lengths[:, :, None] * lengths[:, None]


def denoised(x: Tensor, f: Tensor, s: Tensor) -> Tensor:
    """Return D of noised x of unit variance, its prediction F, and noise over signal s."""
    return (x + s * f) / torch.sqrt(1 + s**2)


def s_of_atoms(s: Tensor, counts: Tensor) -> Tensor:
    """Return noise over signal (B,) of the mean of r = 128 // N rows whose own is ``s`` (B,)."""
    return s * (POINTS // counts).to(s.dtype).rsqrt()


def same_slots(slots: Tensor) -> Tensor:
    """Return 1 where two of the slots (B, 3) have the same element, else 0, (B, 3, 3)."""
    return (slots[:, :, None] == slots[:, None]).float()


def average_slots(x: Tensor, slots: Tensor) -> Tensor:
    """Average x (B, n, 3) over slots (B, 3) of the same element."""
    same = same_slots(slots)
    same = (same / same.sum(-1, keepdim=True)).to(x.dtype)
    return (x[..., None, :] * same[:, None]).sum(-1)


def slots_of(elements: Tensor) -> Tensor:
    """Return the elements of the slots (B, 3) of sets (B, 119): [A, B, C], [A, B, A] or [A, A, A], sorted.

    Slots (B, 3) come back as they are. Where nothing is asked (NaN), three slots are different.
    """
    asked = ~torch.isnan(elements).any(-1, keepdim=True)
    if elements.shape[-1] == 3:
        return torch.where(asked, torch.nan_to_num(elements), torch.arange(3.0, device=elements.device)).long()
    there = torch.nan_to_num(elements) > 0.5
    first = torch.sort(there.long(), dim=-1, descending=True, stable=True).indices[:, :3]  # (B, 3)
    number = there.sum(-1, keepdim=True)
    place = torch.arange(3, device=elements.device).expand(len(elements), -1)
    slots = torch.where(place < number, first, first[:, :1])
    return torch.where(asked, slots, place)
