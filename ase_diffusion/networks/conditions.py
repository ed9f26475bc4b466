"""Embeddings of the noise level and of conditions into one vector per structure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .precision import full_precision

N_ELEMENTS = 119  # columns of an element set; index = atomic number


class LevelEmbedding(nn.Module):
    """Embed the noise level with fixed Fourier features and an MLP.

    Parameters
    ----------
    width : int
        Output width.
    n_frequencies : int
        Frequencies from 1 to 32 (log-spaced), sine and cosine of each.
    """

    def __init__(self, width: int, n_frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer('frequencies', torch.logspace(0, math.log2(32), n_frequencies, base=2.0))
        self.net = nn.Sequential(nn.Linear(2 * n_frequencies + 1, width), nn.SiLU(), nn.Linear(width, width))

    @full_precision
    def forward(self, level: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        x = level[:, None] * self.frequencies  # (B, n)
        return self.net(torch.cat([level[:, None], torch.sin(x), torch.cos(x)], -1))


class NumberEmbedding(nn.Sequential):
    """Embed k numbers, (B,) or (B, k): each with sine and cosine of 1, 2, 4, 8 times its scaled value.

    Parameters
    ----------
    width : int
        Output width.
    shift, scale : float or sequence of k floats
        Values enter the network as (value - shift) / scale, cut at 4.
    """

    def __init__(
        self, width: int, shift: float | Sequence[float] = 0.0, scale: float | Sequence[float] = 1.0, k: int = 1
    ) -> None:
        shift, scale = (torch.atleast_1d(torch.as_tensor(x, dtype=torch.float64)).tolist() for x in (shift, scale))
        if not len(shift) == len(scale) == k or not all(s > 0 for s in scale):
            raise ValueError(f'expected: shift and positive scale of {k} numbers of a condition, got {shift!r} and {scale!r}')
        super().__init__(nn.Linear(9 * k, width), nn.SiLU(), nn.Linear(width, width))
        self.shift, self.scale = shift, scale

    def forward(self, value: Tensor) -> Tensor:
        """(B,) or (B, k) -> (B, width)."""
        value = value.reshape(len(value), -1)  # (B, k)
        columns = []
        for x, shift, scale in zip(value.unbind(-1), self.shift, self.scale, strict=True):
            x = ((x - shift) / scale).clamp(-4.0, 4.0)  # (B,)
            columns += [x, *(torch.sin(x * k) for k in (1, 2, 4, 8)), *(torch.cos(x * k) for k in (1, 2, 4, 8))]
        return super().forward(torch.stack(columns, -1))


class ClassEmbedding(nn.Embedding):
    """Embed a class, given as its index, a float (B,)."""

    def forward(self, value: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        return super().forward(value.long())


class ElementSetEmbedding(nn.Module):
    """Embed a set of elements, given as rows (B, 119) of zeros and ones: mean of learned rows and number of elements."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(N_ELEMENTS, width))
        self.net = nn.Sequential(nn.Linear(width + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, value: Tensor) -> Tensor:
        """(B, 119) -> (B, width)."""
        count = value.sum(-1, keepdim=True).clamp(min=1.0)  # (B, 1)
        mean = value @ self.rows.to(value.dtype) / count  # (B, width)
        return self.net(torch.cat([mean, count.log()], -1))


def _build(spec, width: int) -> nn.Module:
    """Return the embedding of a condition; ValueError for an unknown form."""
    if isinstance(spec, dict):
        if 'classes' in spec:
            return ClassEmbedding(int(spec['classes']), width)
        if spec.get('elements'):
            return ElementSetEmbedding(width)
        if 'vector' in spec:
            k = int(spec['vector'])
            return NumberEmbedding(width, spec.get('shift', [0.0] * k), spec.get('scale', [1.0] * k), k)
        raise ValueError(
            f"expected: a condition is [shift, scale], {{'classes': k}}, {{'elements': true}} or {{'vector': k}}, got {spec!r}"
        )
    shift, scale = spec
    return NumberEmbedding(width, float(shift), float(scale))


def _key(name: str) -> str:
    """Return the key under which torch keeps the weights of a condition: its name, or a safe one where torch forbids that."""
    taken = hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)  # such as type, keys, pop
    if name and '.' not in name and not taken:
        return name
    return 'property ' + name.replace('%', '%25').replace('.', '%2E')


class _Vectors(nn.ParameterDict):
    """Parameters that are found by the names of conditions."""

    def __getitem__(self, name):
        return super().__getitem__(_key(name))


class ConditionEmbedding(nn.Module):
    """Embed named conditions; NaN means "not asked for" and has a learned vector of its own.

    Parameters
    ----------
    specs : dict
        Name -> ``[shift, scale]`` of a number, ``{'classes': k}``, ``{'elements': true}`` for a set of chemical elements, or
        ``{'vector': k, 'shift': [...], 'scale': [...]}``.
    width : int
        Output width.

    Raises
    ------
    ValueError
        A condition has none of the four forms.
    """

    def __init__(self, specs: dict, width: int) -> None:
        super().__init__()
        self.names = tuple(specs)
        self.nets = nn.ModuleDict({_key(name): _build(spec, width) for name, spec in specs.items()})
        self.absent = _Vectors({_key(name): nn.Parameter(torch.zeros(width)) for name in specs})

    def forward(self, conditions: dict[str, Tensor], like: Tensor) -> Tensor:
        """Return the sum of all embeddings, shaped like ``like`` (B, width); a condition that is missing is not asked for."""
        total = torch.zeros_like(like)
        for name in self.names:
            if name not in conditions:
                total = total + self.absent[name]
                continue
            total = total + self._embedded(name, conditions[name].to(like.dtype))
        return total

    @full_precision
    def _embedded(self, name: str, value: Tensor) -> Tensor:
        """(B,) or (B, k) -> (B, width)."""
        finite = torch.isfinite(value)
        given = finite.reshape(len(value), -1).all(-1)  # (B,)
        embedded = self.nets[_key(name)](torch.where(finite, value, torch.zeros_like(value)))  # (B, width)
        return torch.where(given[:, None], embedded, self.absent[name])


PropertyEmbedding = ConditionEmbedding  # name of the first edition
