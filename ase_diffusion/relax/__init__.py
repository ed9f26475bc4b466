"""Calculators by name, and local relaxation of lists of structures."""

from __future__ import annotations

from typing import Any

from ..calculators.names import calculator_name, get_calculator
from .relax import irelax, relax

__all__ = ['calculator_name', 'get_calculator', 'irelax', 'relax', 'relax_batched', 'surrogate_hessian']


def __getattr__(name: str) -> Any:
    """Import what needs torch at its first use: plain ASE relaxations do not need it."""
    if name == 'relax_batched':
        from .batched import relax_batched

        return relax_batched
    if name == 'surrogate_hessian':
        from .hessian import surrogate_hessian

        return surrogate_hessian
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
