"""What users touch: one generator per file."""

from .surface import SurfaceDiffusion

__all__ = ['SurfaceDiffusion']
