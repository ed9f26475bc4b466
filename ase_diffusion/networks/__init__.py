"""Neural networks: one per file. A network never knows the noise schedule."""

from .cascade import Cascade
from .cloudtokens import CloudTokens
from .cloudunet import CloudUNet
from .composition import CompositionNet
from .forcefield import ForceField
from .gan import ConvCritic, ConvGenerator
from .lattice import LatticeNet
from .overlayer import OverlayerDenoiser
from .painn import PaiNN
from .rowtokens import RowTransformer
from .transformer import CrystalTransformer
from .unet import UNet
from .voxelnet import VoxelNet

_CLASSES = (
    OverlayerDenoiser,
    Cascade,
    ConvCritic,
    ConvGenerator,
    ForceField,
    PaiNN,
    CrystalTransformer,
    CloudTokens,
    CloudUNet,
    CompositionNet,
    LatticeNet,
    RowTransformer,
    UNet,
    VoxelNet,
)
NETWORKS = {cls.__name__: cls for cls in _CLASSES}

__all__ = ['NETWORKS', *NETWORKS]
