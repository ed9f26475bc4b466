"""What users touch: one generator per file."""

from .crystal.generator import CrystalDiffusion
from .surface.generator import SurfaceDiffusion

__all__ = ['CrystalDiffusion', 'SurfaceDiffusion']
