"""The U-Net of grids, images and clouds (Ho et al., arXiv 2006.11239, appendix B) in one, two or three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .conditions import LevelEmbedding, PropertyEmbedding
from .convolution import Attention, Convolution, ResBlock, head_width


class UNet(nn.Module):
    """Predict the noise target of a dense field from the noisy field, the noise level and conditions.

    The field is (B, C, X, ...) with ``dims`` axes X, ..., or has more axes, which are taken for channels:
    (B, 3, 128, 3) is a grid of one axis with 9 channels. The shapes of published networks (6.6 M parameters for ZeoDiff, whose
    paper has 5.6 M; ours are fewer for the others)::

        UNet(3, 3, width=32, multipliers=(1, 2, 4))                              # ZeoDiff, grids of 32^3
        UNet(2, 4, width=256, multipliers=(1, 2, 4), circular=False)             # CrysTens, 32 x 32
        UNet(2, 4, width=256, multipliers=(1, 2, 4), circular=False, context=4)  # CrysTens, 64 x 64, sees the upscaled 32 x 32
        UNet(1, 9, width=64, multipliers=(1, 2, 4, 8, 16), attention=(True,) * 5, linear=True, circular=False)  # PCCD

    Parameters
    ----------
    dims : int
        1, 2 or 3.
    channels : int
        Of the field, further axes included.
    width : int
        Channels of the first level, a multiple of 8.
    multipliers : sequence of int
        Width behind each level over ``width``; between levels every axis is halved.
    blocks : int
        Residual blocks of each level on the way down, and as many on the way up.
    attention : sequence of bool, optional
        Levels with attention, behind their last block; None: the last level.
    linear : bool
        Linear attention on the levels; between the two halves attention is always full.
    heads : int
        Of the attention.
    circular : bool
        Periodic axes: the output rolls with the input by multiples of :attr:`stride`.
    conditions : dict of str to (shift, scale), optional
        Conditions that scale and shift the features (FiLM), as the noise level does; NaN means "not asked for".
    tiled : dict of str to (shift, scale), optional
        Conditions that enter as constant channels beside the field (Hoogeboom et al., arXiv 2203.17003; ZeoDiff), each with a
        second one that tells whether it is asked for.
    context : int
        Channels of ``batch.extras['context']`` (B, context, X, ...) that are seen beside the field, never noised.
    embedding : int, optional
        Width of the condition vector; 4 ``width`` where absent.
    dropout : float
    field : str
        Name of the field.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        attention: Sequence[bool] | None = None,
        linear: bool = False,
        heads: int = 4,
        circular: bool = True,
        conditions: dict | None = None,
        tiled: dict | None = None,
        context: int = 0,
        embedding: int | None = None,
        dropout: float = 0.0,
        field: str = 'grids',
    ) -> None:
        super().__init__()
        multipliers, conditions, tiled = list(multipliers), dict(conditions or {}), dict(tiled or {})
        attention = [False] * (len(multipliers) - 1) + [True] if attention is None else [bool(x) for x in attention]
        if dims not in (1, 2, 3):
            raise ValueError(f'a U-Net has 1, 2 or 3 dimensions; got {dims}')
        if width < 8 or width % 8:
            raise ValueError(f'the width of a U-Net is a multiple of 8; got {width}')
        if len(attention) != len(multipliers):
            raise ValueError(f'attention is asked for level by level: {len(multipliers)} levels, got {attention}')
        self.settings = dict(
            dims=dims,
            channels=channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            linear=linear,
            heads=heads,
            circular=circular,
            conditions=conditions,
            tiled=tiled,
            context=context,
            embedding=embedding,
            dropout=dropout,
            field=field,
        )
        self.dims, self.field, self.tiled, self.context = dims, field, tiled, int(context)
        e = embedding or 4 * width
        self.level, self.conditions = LevelEmbedding(e), PropertyEmbedding(conditions, e)
        widths = [width, *(width * m for m in multipliers)]
        last = len(multipliers) - 1

        def stage(k, inputs, outputs):  # residual blocks of one level, attention behind the last
            layers = [_Stage(ResBlock(dims, i, outputs, e, circular, dropout=dropout)) for i in inputs]
            if attention[k]:
                layers[-1].attention = Attention(dims, outputs, heads, head_width(outputs, heads), linear)
            return layers

        def change(inputs, outputs, stride=1):
            return _Stage(Convolution(dims, inputs, outputs, stride=stride, circular=circular))

        self.first = Convolution(dims, channels + 2 * len(tiled) + context, width, circular=circular)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for k, (w, wider) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            self.down.append(nn.ModuleList([*stage(k, [w] * blocks, w), change(w, wider, 2 if k < last else 1)]))
            self.up.append(nn.ModuleList([*stage(k, [wider + w] * blocks, wider), change(wider, w)]))
        deepest = widths[-1]
        self.middle = nn.ModuleList(_Stage(ResBlock(dims, deepest, deepest, e, circular, dropout=dropout)) for _ in range(2))
        self.middle[0].attention = Attention(dims, deepest, heads, head_width(deepest, heads))
        self.join = _Stage(ResBlock(dims, 2 * width, width, e, circular, dropout=dropout))
        self.norm = nn.GroupNorm(8, width)
        self.last = Convolution(dims, width, channels, circular=circular, zero=True)

    @property
    def stride(self) -> int:
        """Points of the field for one point of the coarsest level; every axis is a multiple of it."""
        return 2 ** (len(self.settings['multipliers']) - 1)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{field: ...}`` in the shape and the dtype of the field."""
        field = batch.fields[self.field]  # (B, C, X, ...) or with further axes
        x = self._fold(field)
        c = self.level(c_noise.to(x.dtype))
        c = nn.functional.silu(c + self.conditions({n: v.to(x.dtype) for n, v in conditions.items()}, c))  # (B, e)
        parts = [x, *self._tiles(x, conditions)]
        if self.context:
            parts.append(self._fold(batch.extras['context'].to(x.dtype)))
        return {self.field: self._unfold(self.core(torch.cat(parts, 1), c).to(field.dtype), field)}

    def core(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, inputs, X, ...), c (B, e) -> (B, channels, X, ...); this is the part to compile."""
        h = first = self.first(x)
        kept = []
        for *blocks, change in self.down:
            for block in blocks:
                h = block(h, c)
                kept.append(h)
            h = change(h, c)
        for block in self.middle:
            h = block(h, c)
        for k, (*blocks, change) in reversed(list(enumerate(self.up))):
            for block in blocks:
                h = block(torch.cat([h, kept.pop()], 1), c)
            h = change(_upsample(h) if k else h, c)  # up to the resolution of the level above
        h = self.join(torch.cat([h, first], 1), c)
        return self.last(nn.functional.silu(self.norm(h)))

    def _tiles(self, x: Tensor, conditions: dict[str, Tensor]) -> list[Tensor]:
        """Return constant channels (B, 1, X, ...), two for each tiled condition."""
        parts = []
        for name, (shift, scale) in self.tiled.items():
            value = (conditions[name].to(x.dtype) - shift) / scale if name in conditions else x.new_full((len(x),), math.nan)
            given = torch.isfinite(value)
            for numbers in (torch.where(given, value, 0.0), given.to(x.dtype)):
                parts.append(numbers.to(x.dtype).view(-1, 1, *[1] * self.dims).expand(-1, 1, *x.shape[2:]))
        return parts

    def _fold(self, x: Tensor) -> Tensor:
        """Move axes behind the first ``dims`` ones into the channels and check the shape."""
        rest = x.dim() - 2 - self.dims
        if rest < 0 or any(n % self.stride for n in x.shape[2 : 2 + self.dims]):
            raise ValueError(
                f'a field has {self.dims} axes behind the channels, multiples of {self.stride}; got the shape {tuple(x.shape)}'
            )
        if not rest:
            return x
        axes = tuple(range(2 + self.dims, x.dim()))
        return x.permute(0, 1, *axes, *range(2, 2 + self.dims)).flatten(1, 1 + rest)

    def _unfold(self, x: Tensor, like: Tensor) -> Tensor:
        """Invert :meth:`_fold`."""
        rest = like.dim() - 2 - self.dims
        if not rest:
            return x
        x = x.unflatten(1, (like.shape[1], *like.shape[2 + self.dims :]))  # (B, C, rest ..., X, ...)
        return x.permute(0, 1, *range(2 + rest, x.dim()), *range(2, 2 + rest))


class _Stage(nn.Module):
    """A residual block and attention behind it, or a convolution that changes the resolution."""

    def __init__(self, layer: nn.Module, attention: nn.Module | None = None):
        super().__init__()
        self.layer, self.attention = layer, attention
        self.resamples = isinstance(layer, Convolution)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        h = self.layer(h) if self.resamples else self.layer(h, c)
        return h if self.attention is None else self.attention(h)


def _upsample(x: Tensor) -> Tensor:
    """Repeat every point twice along every axis, (B, C, X, ...) -> (B, C, 2 X, ...)."""
    for axis in range(2, x.dim()):
        x = x.repeat_interleave(2, axis)
    return x
