"""A Transformer whose tokens are the rows of a CrysTens image.

An image holds every number many times: a cell parameter 8 A times, Z of an atom 8 times, its place in 8 pixels and in the
differences to the other atoms, and rows are columns. The network makes an estimate D of the clean image, which has the symmetry
of images and the known pixels by construction, and returns F = (D - alpha x_t) / sigma; the noise level says what alpha and
sigma are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .conditions import ConditionEmbedding, LevelEmbedding
from .coverage import covering
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
from .pair_attention import Block, PairTerms
from .site_symmetry import SiteSymmetry, site_symmetry

_MASKED = -1e4
_NEVER = -1e9  # log of the probability of an element that is not allowed; far below any likelihood of noisy numbers
_FIXED = 0.02  # least share of the noise by which errors are measured
ELEMENTS, _GROUPS = 100, 230
_HARMONICS = (1, 2, 3, 4, 6, 8, 12)  # of coordinates: special positions are multiples of 1/12 and 1/8
_WEIGHTS = (2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.3, 0.3, 0.3, 0.3)  # of FIELDS in the loss


class Estimate(NamedTuple):
    """Best linear estimates of clean numbers from noise r: mean of their copies, and the noise of that mean.

    ``atoms`` (B, N, 4), ``cell`` (B, 7), ``length`` (B, N, N), ``directions`` (B, 3, N, N); ``noise`` (B, 13) of the fields Z to
    space_group, length and directions; ``sites`` (B, N, 3) and ``box`` (B, 6) that of places, lengths and angles where symmetry
    says more about them.
    """

    atoms: Tensor
    cell: Tensor
    length: Tensor
    directions: Tensor
    noise: Tensor
    sites: Tensor
    box: Tensor


def skipped(estimate: Tensor, noise: Tensor, output: Tensor, weight: float | Tensor | None = None) -> Tensor:
    """Return the best linear estimate of numbers of unit variance, corrected by the output of a network (EDM).

    ``weight`` of the estimate: by default 1 / (1 + noise^2).
    """
    weight = 1 / (1 + noise**2) if weight is None else weight
    return weight * estimate + noise * torch.rsqrt(1 + noise**2) * output.float()


class Integers(nn.Module):
    """Numbers 1 to n that carry a meaning of their own, seen through noise: elements, space groups.

    Parameters
    ----------
    n, features : int
    shift, scale : float
        Of the field in the image.
    """

    def __init__(self, n: int, features: int, shift: float, scale: float) -> None:
        super().__init__()
        self.register_buffer('values', (torch.arange(1, n + 1) - float(shift)) / float(scale), persistent=False)
        self.prior = nn.Parameter(torch.zeros(n))
        self.table = nn.Parameter(torch.randn(n, features))

    def likelihood(self, estimate: Tensor, noise: Tensor) -> Tensor:
        """Return log p(estimate | k) (..., n) of estimates with Gaussian noise."""
        return -0.5 * ((estimate[..., None] - self.values) / noise[..., None]) ** 2

    def forward(self, likelihood: Tensor) -> Tensor:
        """Return the mean of learned vectors over the posterior, (..., n) -> (..., features)."""
        return torch.softmax(likelihood + self.prior, -1) @ self.table

    def mean(self, logits: Tensor) -> Tensor:
        """Return the mean of the number in the image, (..., n) -> (...)."""
        return (torch.softmax(logits, -1) * self.values).sum(-1)


class RowTransformer(nn.Module):
    """Predict F of CrysTens images (B, 4, 64, 64); ``extras['counts']`` (B,) gives the numbers of atoms.

    The process has to be :class:`ase_diffusion.diffusion.Preconditioned`: alpha^2 + sigma^2 = 1. Pixels without an atom, the
    diagonal of the pair block, the corner and row 11 are known: whatever the input says there is ignored, and the sampler arrives
    at their values.

    Parameters
    ----------
    shift, scale : 16 floats
        Of the representation.
    deviation : 16 floats, optional
        Standard deviations of the fields in images; default: 1. A field with a larger one is seen earlier while sampling.
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
        the paper are then zero by construction, and Z and the space group end at whole numbers. Otherwise every pixel has an
        output of its own, the same for rows and columns, beside learned shares of itself and of what all copies say of it.
    ordered : bool
        Whether tokens know their place in the order of atoms. Without, exchanging two atoms exchanges rows and columns of the
        output; needs ``tied``.
    conditions : dict, optional
        See :class:`ase_diffusion.networks.conditions.ConditionEmbedding`.
    dropout : float

    A tied network takes the extras of :func:`~ase_diffusion.networks.site_symmetry.site_symmetry`, too: copies are then averaged
    over symmetry as well, and the estimate has the symmetry; and ``extras['allowed']`` (B, 100) bool, the elements 1 to 100 that
    atoms can be, in a crystal one as likely as another, and ``extras['required']`` (B, 100) bool, those that all have to occur:
    :func:`~ase_diffusion.networks.coverage.covering`.
    """

    def __init__(
        self,
        shift: Sequence[float],
        scale: Sequence[float],
        absent: float = 0.0,
        log_lengths: bool = True,
        deviation: Sequence[float] | None = None,
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
    ) -> None:
        super().__init__()
        if len(shift) != len(FIELDS) or len(scale) != len(FIELDS):
            raise ValueError(f'shift and scale hold {len(FIELDS)} numbers each, got {len(shift)} and {len(scale)}')
        if not (tied or ordered):
            raise ValueError('rows of pixels know their place: ordered=False needs tied=True')
        deviation = [1.0] * len(FIELDS) if deviation is None else [float(x) for x in deviation]
        if len(deviation) != len(FIELDS) or min(deviation) <= 0:
            raise ValueError(f'deviation holds {len(FIELDS)} positive numbers, got {deviation}')
        self.settings = dict(
            shift=[float(x) for x in shift],
            scale=[float(x) for x in scale],
            absent=float(absent),
            log_lengths=bool(log_lengths),
            deviation=deviation,
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
        self.register_buffer('deviation', torch.tensor(deviation), persistent=False)
        self.register_buffer('weights', torch.tensor(_WEIGHTS), persistent=False)
        self.level = LevelEmbedding(d)
        self.count = nn.Sequential(nn.Linear(2, d), nn.SiLU(), nn.Linear(d, d))
        self.conditions = ConditionEmbedding(conditions or {}, d)
        self.rows, self.box = nn.Linear(HEADER, d), nn.Linear(7, d)
        self.symmetry = nn.Linear(10, d, bias=False) if tied else None
        self.place = nn.Parameter(0.02 * torch.randn(SIZE if ordered else HEADER + 1, d))
        self.pairs = PairTerms(d, pair_hidden, pair_width, blocks * heads, waves, shells)
        self.layers = nn.ModuleList(Block(d, heads, hidden, pair_width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.modulation = nn.Linear(d, 2 * d)
        self.key = nn.Linear(d, 64)
        self.elements, self.groups = Integers(ELEMENTS, d, shift[0], scale[0]), Integers(_GROUPS, d, shift[10], scale[10])
        self.register_buffer('harmonics', 2 * math.pi * torch.tensor(_HARMONICS), persistent=False)
        self.sites = nn.Linear(6 * len(_HARMONICS), d)
        outputs = {'places': 3, 'cell': 6, 'elements': ELEMENTS, 'groups': _GROUPS} if tied else {'rows': 4 * SIZE}
        self.heads_out = nn.ModuleDict({name: nn.Linear(d, n) for name, n in outputs.items()})
        self.share = None if tied else nn.Linear(d, 13)
        for layer in (self.modulation, *self.heads_out.values(), *([] if tied else [self.share])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.share is not None:
            nn.init.ones_(self.share.bias)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``image`` (B, 4, 64, 64), float32; ``c_noise`` (B,) is log(sigma / alpha) / 4.

        A tied network in training mode returns ``elements`` (B, N, 100) and ``groups`` (B, 230) as well, the logits of Z - 1 (of
        at least as many slots as there are atoms) and of the space group - 1, for a cross-entropy beside the loss of the image.
        """
        if 'counts' not in batch.extras:
            raise ValueError("the numbers of atoms are given: batch.extras['counts'] (B,), drawn from those of the data")
        image, counts = batch.fields['image'].float(), batch.extras['counts']
        c = self.condition(c_noise.float(), counts, conditions)
        width = int(counts.max())  # absent slots cost nothing
        sites = site_symmetry(batch.extras, width) if self.tied else None
        allowed, required = (batch.extras.get(name) if self.tied else None for name in ('allowed', 'required'))
        found = self.core(image, counts, c_noise.float(), c, width, sites, allowed, required)
        out = dict(zip(('image', 'elements', 'groups'), found, strict=True))
        return out if self.training and self.tied else {'image': out['image']}

    def condition(self, c_noise: Tensor, counts: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the vector (B, d) of noise level, number of atoms and what is asked for."""
        c = self.level(c_noise)
        n = counts.to(c.dtype)
        c = c + self.conditions(conditions, c) + self.count(torch.stack([n.log(), n / 10], -1))
        return nn.functional.silu(c)

    def core(
        self,
        image: Tensor,
        counts: Tensor,
        c_noise: Tensor,
        c: Tensor,
        width: int,
        sites: SiteSymmetry | None = None,
        allowed: Tensor | None = None,
        required: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Evaluate the network. Returns F (B, 4, 64, 64) and logits, see :meth:`forward`."""
        with torch.autocast(image.device.type, enabled=False):
            here = is_present(counts, width)
            r = torch.exp(4 * c_noise)[:, None, None, None]  # sigma / alpha
            alpha = torch.rsqrt(1 + r**2)
            x = image[:, :, : HEADER + width, : HEADER + width]
            estimate = self.estimate(x / alpha, here, r[:, 0, 0, 0])
            elements = self.elements.likelihood(estimate.atoms[..., 0], estimate.noise[:, :1])  # (B, N, 100)
            if allowed is not None:
                elements = torch.where(allowed[:, None], elements, _NEVER)
            if sites is not None:
                elements, estimate = sites.total(elements), self.symmetric(estimate, sites)
            groups = self.groups.likelihood(estimate.cell[:, 6], estimate.noise[:, 10])  # (B, 230)
            groups = groups if sites is None else sites.sure(groups)
        tokens = self.trunk(self.visible(estimate, here), estimate, elements, groups, here, c, sites)
        if self.tied:
            found = self.heads_out['elements'](tokens[:, HEADER:]).float()
            if allowed is not None:  # elements that were asked for are as likely as each other in a crystal, not in a site
                mean = (found * here[..., None]).sum(1, keepdim=True) / here.sum(1)[:, None, None]
                found = torch.where(allowed.all(1)[:, None, None], found, found - mean)
            with torch.autocast(image.device.type, enabled=False):
                elements = elements + (found if sites is None else sites.mean(found))
                if required is not None:
                    share = here.float() if sites is None else here / sites.same.sum(-1)
                    elements = covering(elements, required, share)
            groups = groups + self.heads_out['groups'](tokens[:, 10]).float()
            clean = self.tied_output(tokens, estimate, elements, groups, here, sites)
        else:
            clean = self.free_output(tokens, x / alpha, r, estimate, self.share(c), here)
        with torch.autocast(image.device.type, enabled=False):
            known = self.known(counts, image)
            clean = torch.where(is_generated(counts), nn.functional.pad(clean, (0, ATOMS - width) * 2), known)
            return (clean - alpha * image) / (r * alpha), elements, groups

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
        noise = self.copy_noise(n, r)
        return Estimate(atoms, cell, length, directions, noise, noise[:, None, 1:4].expand_as(atoms[..., 1:]), noise[:, 4:10])

    def symmetric(self, estimate: Estimate, sites: SiteSymmetry) -> Estimate:
        """Return an estimate that is averaged over symmetry."""
        z = sites.mean(estimate.atoms[..., :1])
        places = sites.project(estimate.atoms[..., 1:], self.shift[1:4], self.scale[1:4])
        cell = sites.project_cell(estimate.cell[:, :6], self.shift[4:10], self.scale[4:10])
        return estimate._replace(
            atoms=torch.cat([z, places], -1),
            cell=torch.cat([cell, estimate.cell[:, 6:]], -1),
            sites=estimate.sites * sites.freedom().sqrt(),
            box=estimate.box * sites.cell_freedom().sqrt(),
        )

    def copy_noise(self, n: Tensor, r: Tensor) -> Tensor:
        """Return the noise (B, 13) that averaging leaves of r (B,) in crystals of n (B,) atoms, see :class:`Estimate`."""
        n = n[:, None]
        w, v = 8 / self.scale[1:4] ** 2, 2 / self.scale[DIRECTIONS] ** 2
        place = (1 - 1 / n) / ((w + v * n) * self.scale[1:4] ** 2) + 1 / (8 * n)  # (B, 3)
        one = torch.ones_like(n)
        variance = torch.cat([one / 8, place, (1 / (8 * n)).expand(-1, 7), (one / 2).expand(-1, 2)], 1)
        return r[:, None] * variance.sqrt()

    def visible(self, estimate: Estimate, here: Tensor) -> tuple[Tensor, Tensor]:
        """Return what tokens see, of unit variance: averaged copies (B, N, 12), and the pair block (B, 4, N, N)."""
        places = estimate.atoms[..., 1:] * torch.rsqrt(1 + estimate.sites**2)
        z = estimate.atoms[..., :1] * torch.rsqrt(self.deviation[0] ** 2 + estimate.noise[:, None, :1] ** 2)
        fields = torch.cat([z, places, self.cell_of(estimate)[:, None].expand(-1, here.shape[1], -1)], -1)
        fields = torch.cat([fields, torch.ones_like(z)], -1) * here[..., None]
        shrunk = estimate.atoms[..., 1:] / (1 + estimate.sites**2) * self.scale[1:4] / self.scale[DIRECTIONS]  # (B, N, 3)
        shrunk = shrunk.transpose(1, 2)
        length = (estimate.length * torch.rsqrt(1 + estimate.noise[:, 11, None, None] ** 2))[:, None]
        block = torch.cat([length, shrunk[..., :, None] - shrunk[..., None, :]], 1)
        return fields, torch.where(is_pair(here)[:, None], block, 0.0)

    def cell_of(self, estimate: Estimate) -> Tensor:
        """Return the estimated fields a to space_group (B, 7), of unit variance."""
        unit = torch.rsqrt(self.deviation[10] ** 2 + estimate.noise[:, 10:11] ** 2)
        return estimate.cell * torch.cat([torch.rsqrt(1 + estimate.box**2), unit], 1)

    def metric(self, estimate: Estimate) -> Tensor:
        """Return the scalar products of the estimated lattice vectors, (B, 3, 3) in A^2."""
        cell = (estimate.cell[:, :6] / (1 + estimate.box**2)).clamp(-3.0, 3.0)
        cell = cell * self.scale[4:10] + self.shift[4:10]
        lengths = cell[:, :3].exp() if self.log_lengths else cell[:, :3].clamp(min=1.0)
        cos = torch.cos(cell[:, 3:].clamp(45.0, 135.0) * (math.pi / 180))
        one = torch.ones_like(cos[:, 0])
        yz, xz, xy = cos.unbind(-1)
        angles = torch.stack([one, xy, xz, xy, one, yz, xz, yz, one], -1).view(-1, 3, 3)
        return angles * lengths[:, :, None] * lengths[:, None]

    def trunk(
        self,
        seen: tuple[Tensor, Tensor],
        estimate: Estimate,
        elements: Tensor,
        groups: Tensor,
        here: Tensor,
        c: Tensor,
        sites: SiteSymmetry | None = None,
    ) -> Tensor:
        """Return tokens (B, T, d), normalised and modulated; ``seen`` as :meth:`visible` returns it."""
        width, (pixels, block) = here.shape[1], seen
        with torch.autocast(pixels.device.type, enabled=False):
            shrunk = estimate.atoms[..., 1:] / (1 + estimate.sites**2)
            f = shrunk * self.scale[1:4] + self.shift[1:4]  # (B, N, 3)
            noise = torch.cat([estimate.noise[:, None, :1].expand_as(f[..., :1]), estimate.sites], -1) * self.scale[:4]
            phase = f[..., None] * self.harmonics  # (B, N, 3, M)
            blur = torch.exp(-0.5 * (noise[..., 1:, None] * self.harmonics) ** 2)  # mean of a wave over the noise
            waves = torch.cat([torch.sin(phase) * blur, torch.cos(phase) * blur], -1).flatten(2)  # (B, N, 6 M)
            mean = noise.mean(1, keepdim=True)  # of two atoms one value
            equal = estimate.atoms * self.scale[:4] / (2**0.5 * mean + noise.new_tensor([0.3, 0.003, 0.003, 0.003]))
            same = torch.zeros_like(block[:, 0]) if sites is None else sites.same * sites.known[:, None, None]
            block = torch.cat([block, same[:, None]], 1)  # (B, 5, N, N)
            metric = self.metric(estimate)
        elements, groups = self.elements(elements), self.groups(groups)  # (B, N, d), (B, d)
        alpha, h = self.pairs(f, metric, block, equal[..., [1, 2, 3, 0]], c)
        place = self.place[: HEADER + width]
        if not self.ordered:
            place = torch.cat([self.place[:HEADER], self.place[HEADER:].expand(width, -1)])
        atoms = (elements + self.sites(waves)) * here[..., None]
        c = c + groups + self.box(self.cell_of(estimate))
        atoms = atoms + self.rows(pixels) + (0.0 if sites is None else self.symmetry(sites.features()))
        x = place + nn.functional.pad(atoms, (0, 0, HEADER, 0))  # (B, T, d)
        absent = nn.functional.pad((~here).to(alpha.dtype) * _MASKED, (HEADER, 0))  # (B, T)
        bias = nn.functional.pad(alpha, (HEADER, 0, HEADER, 0)) + absent[:, None, None]
        for layer, part in zip(self.layers, bias.split(self.heads, 1), strict=True):
            x = layer(x, c, part, h)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift

    def tied_output(
        self,
        tokens: Tensor,
        estimate: Estimate,
        elements: Tensor,
        groups: Tensor,
        here: Tensor,
        sites: SiteSymmetry | None = None,
    ) -> Tensor:
        """Return the clean image D (B, 4, T, T) of one output per number."""
        places = self.heads_out['places'](tokens[:, HEADER:])  # (B, N, 3)
        cell = self.heads_out['cell'](tokens[:, 4:10]).diagonal(dim1=1, dim2=2)  # (B, 6), one token per number
        key = self.key(tokens[:, HEADER:]).float() * 0.125
        with torch.autocast(tokens.device.type, enabled=False):
            places = skipped(estimate.atoms[..., 1:], estimate.sites, places)
            cell = skipped(estimate.cell[:, :6], estimate.box, cell)
            if sites is not None:
                places = sites.project(places, self.shift[1:4], self.scale[1:4])
                cell = sites.project_cell(cell, self.shift[4:10], self.scale[4:10])
            cell = torch.cat([cell, self.groups.mean(groups)[:, None]], 1)
            fields = torch.cat([self.elements.mean(elements)[..., None], places, cell[:, None].expand(-1, here.shape[1], -1)], -1)
            d = self.differences(places)
            length = skipped(self.lengths(d), estimate.noise[:, 11, None, None], key @ key.transpose(1, 2), 1.0)
            return compose_image(fields, length, d / self.scale[DIRECTIONS, None, None], here, self.absent)

    def free_output(self, tokens: Tensor, y: Tensor, r: Tensor, estimate: Estimate, share: Tensor, here: Tensor) -> Tensor:
        """Return the clean image D (B, 4, T, T) of one output per pixel, rows equal to columns, from y = x_0 + r noise.

        ``share`` (B, 13): of the best linear estimate from all copies, in place of that from the pixel alone; of the length of a
        pair: of the norm of the three differences in its pixels.
        """
        (size, width), unit = tokens.shape[:2], self.scale[DIRECTIONS, None, None]
        out = self.heads_out['rows'](tokens).view(size, width, 4, SIZE)[..., :width].transpose(1, 2).float()  # (B, 4, T, T)
        key = nn.functional.pad(self.key(tokens[:, HEADER:]).float() * 0.125, (0, 0, HEADER, 0))
        with torch.autocast(tokens.device.type, enabled=False):
            out = torch.cat([out[:, :1] + (key @ key.transpose(1, 2))[:, None], out[:, 1:]], 1)
            share, spread = share.float(), self.spread()
            fields = torch.cat([estimate.atoms, estimate.cell[:, None].expand(-1, here.shape[1], -1)], -1)
            own, apart = r[:, 0, 0] / math.sqrt(2.0), 2**0.5 * (estimate.noise[:, 1:4] * self.scale[1:4]).mean(1, keepdim=True)
            noise = torch.cat([estimate.noise[:, :11], apart / self.scale[LENGTH], apart / unit.mean()], 1)
            differences = self.differences(estimate.atoms[..., 1:]) / unit
            copies = compose_image(fields, torch.zeros_like(estimate.length), differences, here)
            clean = y * self.by_field((1 - share) * spread**2 / (spread**2 + own**2), here)
            clean = clean + copies * self.by_field(share * spread**2 / (spread**2 + noise**2), here)
            clean = clean + out * self.by_field(noise * spread * torch.rsqrt(spread**2 + noise**2), here)
            length, directions = pair_block(clean)
            length = length + share[:, 11, None, None] * self.lengths(directions * unit)
            return symmetric_image(strips(clean).mean(2), length, directions, here)

    def differences(self, places: Tensor) -> Tensor:
        """Return the differences of fractional coordinates (B, 3, N, N) of places in the image (B, N, 3)."""
        raw = (places * self.scale[1:4]).transpose(1, 2)  # (B, 3, N)
        return raw[..., :, None] - raw[..., None, :]

    def lengths(self, differences: Tensor) -> Tensor:
        """Return the lengths of differences (B, 3, N, N) of fractional coordinates in units of the image, (B, N, N)."""
        return (differences.square().sum(1).clamp(min=1e-8).sqrt() - self.shift[LENGTH]) / self.scale[LENGTH]

    def spread(self) -> Tensor:
        """Return the standard deviations (13,) of the fields Z to space_group, length and directions."""
        return torch.cat([self.deviation[:PRESENT], self.deviation[LENGTH : LENGTH + 2]]).clamp(min=1e-3)

    def by_field(self, values: Tensor, here: Tensor) -> Tensor:
        """Return an image (B, 4, T, T) with the number of its field (B, 13) in every pixel of an atom."""
        width = here.shape[1]
        fields = values[:, None, :PRESENT].expand(-1, width, -1)
        block = values[:, PRESENT:, None, None].expand(-1, -1, width, width)
        return compose_image(fields, block[:, 0], block[:, 1:].expand(-1, 3, -1, -1), here)

    def loss_weights(self, counts: Tensor, c_noise: Tensor, extras: dict | None = None) -> Tensor:
        """Return weights (B, 4, 64, 64) of the squared error of F whose mean counts every field alike, not every pixel.

        Errors are measured in units of what the copies of a number leave unknown about it, and symmetry where the ``extras`` of
        the batch tell it; Z counts twice, the cell half.
        """
        n = counts.to(c_noise.dtype)[:, None]
        r = torch.exp(4 * c_noise)[:, None]
        noise, spread = self.copy_noise(n[:, 0], r[:, 0]), self.spread() ** 2  # (B, 13), (13,)
        unit = (r**2 / (1 + r**2)) * (spread + noise**2) / (noise**2 * spread)  # (B, 13)
        pixels = torch.cat([(8 * n).expand(-1, PRESENT), (n * (n - 1)).clamp(min=1).expand(-1, 4)], 1)  # of each field
        unit = unit[:, [*range(13), 12, 12]]  # (B, 15)
        share = torch.cat([self.weights[:PRESENT], self.weights[LENGTH:]]).to(n.dtype)
        weight = share / share.sum() * unit / pixels * (4 * SIZE * SIZE)
        fields = weight[:, None, :PRESENT].expand(-1, ATOMS, -1)
        sites = site_symmetry(extras or {}, int(counts.max())) if self.tied else None
        if sites is not None:
            freedom = nn.functional.pad(sites.freedom(), (0, 0, 0, ATOMS - sites.offset.shape[1]), value=1.0)
            free = torch.cat([freedom, sites.cell_freedom()[:, None].expand(-1, ATOMS, -1)], -1).clamp(min=_FIXED)
            noise = noise[:, None, 1:10]  # (B, 1, 9)
            less = (1 + free * noise**2) / (free * (1 + noise**2))
            fields = torch.cat([fields[..., :1], fields[..., 1:10] * less, fields[..., 10:]], -1)
        block = weight[:, PRESENT:, None, None].expand(-1, -1, ATOMS, ATOMS)
        image = compose_image(fields, block[:, 0], block[:, 1:], is_present(counts))
        return torch.where(is_generated(counts), image, 0.0)
