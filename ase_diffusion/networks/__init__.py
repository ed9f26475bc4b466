"""Neural networks: one per file. A network never knows the noise schedule."""

from .forcefield import ForceField
from .overlayer import OverlayerDenoiser
from .painn import PaiNN
from .transformer import CrystalTransformer

NETWORKS = {cls.__name__: cls for cls in (OverlayerDenoiser, ForceField, PaiNN, CrystalTransformer)}

__all__ = ['NETWORKS', 'CrystalTransformer', 'ForceField', 'OverlayerDenoiser', 'PaiNN']
