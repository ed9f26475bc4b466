"""Translations between ase.Atoms and tensors, without any learning."""

from .slab import Slab

__all__ = ['Slab']
