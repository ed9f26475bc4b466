"""Calculators: by name, one per structure, in processes with time limits; force fields of this package."""

from .names import calculator_name, get_calculator

__all__ = ['calculator_name', 'get_calculator']
