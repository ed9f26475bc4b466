"""What users touch: one generator per file."""

from .crystal.generator import CrystalDiffusion
from .pointcloud import PointCloudDiffusion
from .surface.generator import SurfaceDiffusion
from .zeolite import ZeoliteDiffusion

__all__ = ['CrystalDiffusion', 'PointCloudDiffusion', 'SurfaceDiffusion', 'ZeoliteDiffusion']
