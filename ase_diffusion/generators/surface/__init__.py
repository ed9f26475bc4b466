"""Overlayers on a frozen substrate."""

from .generator import SurfaceDiffusion

__all__ = ['SurfaceDiffusion']
