"""Calculators by name, and local relaxation of lists of structures."""

from .calculators import calculator_name, get_calculator
from .relax import irelax, relax

__all__ = ['calculator_name', 'get_calculator', 'irelax', 'relax', 'relax_batched']


def __getattr__(name):
    """Import `relax_batched` at its first use: it needs torch, and plain ASE relaxations do not."""
    if name == 'relax_batched':
        from .batched import relax_batched

        return relax_batched
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
