"""Calculators by name, as factories, in killable processes; force fields of this package."""

from .names import calculator_name, get_calculator

__all__ = ['calculator_name', 'get_calculator']
