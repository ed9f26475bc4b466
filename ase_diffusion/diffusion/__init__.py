"""Noise schedules, processes and samplers: pure torch, independent of ASE and of any network."""

from .batch import Batch
from .categorical import Categorical
from .domains import Free, Interval, Torus, UnitTorus
from .guidance import ClassifierFree, ForceGuidance
from .inpainting import Inpainting
from .joint import JointProcess, ProductProcess
from .noise import NoisePerStructure, NoiseStream
from .preconditioned import EmbeddedCategorical, Preconditioned
from .process import Gaussian, Process
from .samplers import (
    SAMPLERS,
    TWO_CALLS,
    ancestral,
    ddim,
    dpmpp_2m,
    euler_maruyama,
    heun,
    predictor_corrector,
    renoised_ancestral,
    sampler,
)
from .schedules import CosineVP, GeometricVE, GeometricVP, LinearVP, TimeDensity
from .truncated import TruncatedNormal
from .wrapped import WrappedNormal, WrappedScore

__all__ = [
    'SAMPLERS',
    'TWO_CALLS',
    'Batch',
    'Categorical',
    'ClassifierFree',
    'CosineVP',
    'EmbeddedCategorical',
    'ForceGuidance',
    'Free',
    'Gaussian',
    'GeometricVE',
    'GeometricVP',
    'Inpainting',
    'Interval',
    'JointProcess',
    'LinearVP',
    'NoisePerStructure',
    'NoiseStream',
    'Preconditioned',
    'Process',
    'ProductProcess',
    'TimeDensity',
    'Torus',
    'TruncatedNormal',
    'UnitTorus',
    'WrappedNormal',
    'WrappedScore',
    'ancestral',
    'ddim',
    'dpmpp_2m',
    'euler_maruyama',
    'heun',
    'predictor_corrector',
    'renoised_ancestral',
    'sampler',
]
