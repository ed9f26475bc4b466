"""Training of networks and the checkpoint format; Lightning is imported only when a training starts."""

from .checkpoint import load_checkpoint, read_header, save_checkpoint
from .crystal_data import CrystalData, Crystals
from .data import EndlessBatches, RandomBatches, Structures
from .recipe import train_method
from .surface_data import OverlayerData, Overlayers
from .trainer import train

__all__ = [
    'CrystalData',
    'Crystals',
    'EndlessBatches',
    'OverlayerData',
    'Overlayers',
    'RandomBatches',
    'Structures',
    'load_checkpoint',
    'read_header',
    'save_checkpoint',
    'train',
    'train_method',
]
