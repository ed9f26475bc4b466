"""The state that diffuses: named fields of several structures at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .domains import Domain


@dataclass
class Batch:
    """Fields of ``size`` structures, flat over rows.

    A field has a row for each of its objects (atoms, lattices), of all structures one after another. A dense field, such as
    images (B, C, H, W), has one row per structure, see :meth:`dense`.

    Parameters
    ----------
    fields : dict of str to Tensor
        Noised and generated, each ``(n, ...)``.
    rows : dict of str to Tensor
        Structure index of every row of a field, ``(n,)``, sorted, int64.
    size : int
        Number of structures B.
    domains : dict, optional
        Domains of the fields (see :mod:`ase_diffusion.diffusion.domains`); free space where absent.
    conditions : dict of str to Tensor, optional
        Conditions of the structures, ``(B,)`` or ``(B, K)``; NaN means "not asked for".
    extras : dict, optional
        Further input of the network (species, frozen atoms, cells); never noised.
    """

    fields: dict[str, Tensor]
    rows: dict[str, Tensor]
    size: int
    domains: dict[str, Domain] = field(default_factory=dict)
    conditions: dict[str, Tensor] = field(default_factory=dict)
    extras: dict = field(default_factory=dict)

    @classmethod
    def dense(cls, name: str, tensor: Tensor, conditions: dict[str, Tensor] | None = None, extras: dict | None = None) -> Batch:
        """Return the batch of one dense field: row k is the whole of structure k.

        Parameters
        ----------
        name : str
            Name of the field.
        tensor : Tensor
            ``(B, ...)``, such as images (B, C, H, W).
        conditions, extras : dict, optional
        """
        size = len(tensor)
        rows = torch.arange(size, device=tensor.device)
        return cls({name: tensor}, {name: rows}, size, conditions=dict(conditions or {}), extras=dict(extras or {}))

    def with_fields(self, **fields: Tensor) -> Batch:
        """Return a copy that shares everything but the given fields."""
        return replace(self, fields={**self.fields, **fields})

    def merged(self, other: Batch, masks: Mapping[str, Tensor] | None) -> Batch:
        """Return a copy with the values of ``other`` where masks are True.

        Parameters
        ----------
        other : Batch
            With the same fields.
        masks : dict of str to Tensor, optional
            Field -> bool mask of rows or elements, see :func:`as_mask`; other fields stay.

        Raises
        ------
        ValueError
            A mask does not fit its field.
        """
        if not masks:
            return self
        new = {}
        for name, mask in masks.items():
            x = self.fields[name]
            new[name] = torch.where(as_mask(mask, x, name), other.fields[name], x)
        return self.with_fields(**new)

    def to(self, device: str | torch.device | None) -> Batch:
        """Return the batch on another device."""

        def move(value):
            if isinstance(value, dict):
                return {key: move(item) for key, item in value.items()}
            if isinstance(value, (tuple, list)):
                return type(value)(move(item) for item in value)
            return value.to(device) if hasattr(value, 'to') else value

        return Batch(
            fields=move(self.fields),
            rows=move(self.rows),
            size=self.size,
            domains=move(self.domains),
            conditions=move(self.conditions),
            extras=move(self.extras),
        )

    def mean_over_rows(self, name: str, values: Tensor) -> Tensor:
        """Average values (n,) of the rows of a field over each structure, (B,)."""
        rows = self.rows[name]
        total = torch.zeros(self.size, dtype=values.dtype, device=values.device).index_add(0, rows, values)
        count = torch.bincount(rows, minlength=self.size).clamp(min=1)
        return total / count


# network(batch, c_noise, conditions) -> field: prediction; a torch.nn.Module or what wraps one
Network = Callable[[Batch, Tensor, dict[str, Tensor]], dict[str, Tensor]]


def as_mask(mask: Tensor, like: Tensor, name: str = 'field') -> Tensor:
    """Return a bool mask in a shape that broadcasts against a field.

    Parameters
    ----------
    mask : Tensor
        bool: ``(n,)`` for whole rows, else the shape of the field or what broadcasts to it, such as (1, C, 1, 1) for channels.
    like : Tensor
        The field, ``(n, ...)``.
    name : str
        Of the field, for the error.

    Raises
    ------
    ValueError
        The mask is not bool or does not fit.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f'a mask is bool, got {mask.dtype} for {name}; compare it with something, such as mask > 0')
    if mask.shape == like.shape[:1]:
        return mask.reshape(-1, *[1] * (like.dim() - 1))
    wrong = mask.dim() > like.dim() or any(
        m not in (1, n) for m, n in zip(reversed(mask.shape), reversed(like.shape), strict=False)
    )
    if wrong:
        raise ValueError(
            f'a mask of {name} has a value for each row, ({len(like)},), or broadcasts against the field, {tuple(like.shape)}; '
            f'got the shape {tuple(mask.shape)}'
        )
    return mask
