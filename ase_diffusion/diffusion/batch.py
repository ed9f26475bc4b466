"""The state that diffuses: named fields of several structures at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Hold the fields of ``size`` structures, flat over rows.

    Parameters
    ----------
    fields : dict of str to Tensor
        What is noised and generated, each ``(n, ...)``.
    rows : dict of str to Tensor
        Structure index of every row of a field, ``(n,)``, sorted, int64.
    size : int
        Number of structures B.
    domains : dict, optional
        Where a field lives (see :mod:`ase_diffusion.diffusion.domains`); free space where absent.
    conditions : dict of str to Tensor, optional
        Asked-for properties, each ``(B,)``; NaN means "not asked for".
    extras : dict, optional
        Whatever else the network needs (species, frozen atoms, cells); never noised.
    """

    fields: dict[str, Tensor]
    rows: dict[str, Tensor]
    size: int
    domains: dict = field(default_factory=dict)
    conditions: dict[str, Tensor] = field(default_factory=dict)
    extras: dict = field(default_factory=dict)

    def with_fields(self, **fields: Tensor) -> Batch:
        """Return a copy that shares everything but the given fields."""
        return replace(self, fields={**self.fields, **fields})

    def to(self, device) -> Batch:
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
        """Average per-row ``values`` (n,) of a field into one number per structure, (B,)."""
        rows = self.rows[name]
        total = torch.zeros(self.size, dtype=values.dtype, device=values.device).index_add(0, rows, values)
        count = torch.bincount(rows, minlength=self.size).clamp(min=1)
        return total / count
