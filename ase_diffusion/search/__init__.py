"""Global searches: random search, search with a generator, operators for genetic algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .random_search import RandomStructureSearch, random_start

if TYPE_CHECKING:
    from .genetic import DiffusionMutation, DiffusionStartGenerator
    from .structure_search import StructureSearch

__all__ = ['DiffusionMutation', 'DiffusionStartGenerator', 'RandomStructureSearch', 'StructureSearch', 'random_start']


def __getattr__(name: str) -> Any:
    """Import at first use the operators for ase-ga (an optional package) and the search that needs metrics."""
    if name == 'StructureSearch':
        from .structure_search import StructureSearch

        return StructureSearch
    if name in ('DiffusionMutation', 'DiffusionStartGenerator'):
        from . import genetic

        return getattr(genetic, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
