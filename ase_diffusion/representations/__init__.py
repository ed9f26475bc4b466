"""Translations between ase.Atoms and tensors, without any learning."""

from .crystal import Crystal, LogLatticeCrystal
from .slab import Slab

__all__ = ['Crystal', 'Slab', 'LogLatticeCrystal']
