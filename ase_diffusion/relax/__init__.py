"""Calculators by name, and local relaxation of lists of structures."""

from .calculators import calculator_name, get_calculator
from .relax import relax

__all__ = ['calculator_name', 'get_calculator', 'relax']
