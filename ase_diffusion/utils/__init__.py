"""Small things that every room uses; `utils.device` needs torch and is imported by its own name."""

from .log import Log
from .rng import coerce_rng, spawn_seeds

__all__ = ['Log', 'coerce_rng', 'spawn_seeds']
