"""Bulk crystals."""

from .generator import CrystalDiffusion

__all__ = ['CrystalDiffusion']
