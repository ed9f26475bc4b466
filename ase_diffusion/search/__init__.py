"""Searches for the best structure."""

from .random_search import RandomStructureSearch, random_start

__all__ = ['RandomStructureSearch', 'random_start']
