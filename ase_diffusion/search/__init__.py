"""Searches for the best structure."""

from .random_search import RandomStructureSearch, random_start

__all__ = ['DiffusionMutation', 'DiffusionStartGenerator', 'RandomStructureSearch', 'random_start']


def __getattr__(name):
    """Import the operators of ase-ga at their first use: ase-ga is an extra."""
    if name in ('DiffusionMutation', 'DiffusionStartGenerator'):
        from . import genetic

        return getattr(genetic, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
