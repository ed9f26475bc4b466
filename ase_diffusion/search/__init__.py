"""Searches for the best structure."""

from __future__ import annotations

from typing import Any

from .random_search import RandomStructureSearch, random_start

__all__ = ['DiffusionMutation', 'DiffusionStartGenerator', 'RandomStructureSearch', 'StructureSearch', 'random_start']


def __getattr__(name: str) -> Any:
    """Import at their first use the operators of ase-ga, which is an extra, and what needs the metrics."""
    if name == 'StructureSearch':
        from .structure_search import StructureSearch

        return StructureSearch
    if name in ('DiffusionMutation', 'DiffusionStartGenerator'):
        from . import genetic

        return getattr(genetic, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
