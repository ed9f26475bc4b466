"""Neural networks: one per file. A network never knows the noise schedule."""

from .denoiser import OverlayerDenoiser
from .forcefield import ForceField
from .painn import PaiNN

NETWORKS = {cls.__name__: cls for cls in (OverlayerDenoiser, ForceField, PaiNN)}

__all__ = ['NETWORKS', 'ForceField', 'OverlayerDenoiser', 'PaiNN']
