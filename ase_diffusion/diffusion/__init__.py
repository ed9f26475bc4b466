"""Noise schedules, processes and samplers: pure torch, independent of ASE and of any network."""

from .batch import Batch
from .categorical import Categorical
from .domains import Free, Interval, Torus, UnitTorus
from .fractional import WrappedScore
from .guidance import ClassifierFree, ForceGuidance
from .inpainting import Inpainting
from .joint import JointProcess
from .noise import NoisePerStructure, NoiseStream
from .preconditioned import Embedded, Preconditioned
from .processes import Components, Gaussian, TruncatedNormal, WrappedNormal
from .samplers import SAMPLERS, TWO_CALLS, ancestral, ddim, dpmpp_2m, euler_maruyama, heun, predictor_corrector, resampling
from .schedules import CosineVP, GeometricVE, GeometricVP, LinearVP

__all__ = [
    'SAMPLERS',
    'TWO_CALLS',
    'Batch',
    'Categorical',
    'ClassifierFree',
    'Components',
    'CosineVP',
    'Embedded',
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
    'resampling',
]
