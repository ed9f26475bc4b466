"""Training of networks and the checkpoint format; Lightning is imported only when a training starts."""

from .checkpoint import load_checkpoint, read_header, save_checkpoint
from .surface_data import OverlayerData, Overlayers
from .trainer import train

__all__ = ['OverlayerData', 'Overlayers', 'load_checkpoint', 'read_header', 'save_checkpoint', 'train']
