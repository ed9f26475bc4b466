"""Helpers of all rooms: log, random numbers, checks. `utils.device` needs torch and is not imported here."""

from .log import Log
from .rng import coerce_rng, spawn_seeds

__all__ = ['Log', 'coerce_rng', 'spawn_seeds']
