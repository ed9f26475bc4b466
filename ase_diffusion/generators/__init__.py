"""What users touch: one generator per file."""

from .crystal.generator import CrystalDiffusion
from .surface.generator import SurfaceDiffusion
from .zeolite import ZeoliteDiffusion

__all__ = ['CrystalDiffusion', 'SurfaceDiffusion', 'ZeoliteDiffusion']
