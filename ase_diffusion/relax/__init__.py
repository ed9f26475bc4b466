"""Local relaxation of lists of structures, with calculators by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..calculators.names import calculator_name, get_calculator
from .relax import irelax, relax

if TYPE_CHECKING:
    from .batched import relax_batched
    from .hessian import surrogate_hessian

__all__ = ['calculator_name', 'get_calculator', 'irelax', 'relax', 'relax_batched', 'surrogate_hessian']


def __getattr__(name: str) -> Any:
    """Import names that need torch at their first use; relaxations with plain ASE calculators do not need it."""
    if name == 'relax_batched':
        from .batched import relax_batched

        return relax_batched
    if name == 'surrogate_hessian':
        from .hessian import surrogate_hessian

        return surrogate_hessian
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
