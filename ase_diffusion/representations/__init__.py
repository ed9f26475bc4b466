"""Translations between ase.Atoms and tensors, without any learning."""

from .crystal import Crystal, SmoothCrystal
from .slab import Slab

__all__ = ['Crystal', 'Slab', 'SmoothCrystal']
