"""What users touch: one generator per file."""

from .crystal import CrystalDiffusion
from .surface import SurfaceDiffusion

__all__ = ['CrystalDiffusion', 'SurfaceDiffusion']
