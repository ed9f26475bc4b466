"""Texts of provenance: what ase.db takes neither for a number nor for anything else."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols

from ..representations.conditions import Range


def as_text(text: str, other: str) -> str:
    """Return ``text``, or ``other`` where ase.db would take it for a number, as InF and NaN."""
    try:
        float(text)
    except ValueError:
        return text
    return other


def plain(value: object) -> str | float | list:
    """Return what JSON holds of an object: numbers of numpy as numbers, arrays as lists, all else as text; for ``json.dumps``."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def formula_text(stoich: str, numbers: list[int]) -> str:
    """Return a formula as text for ase.db: In1F1 for InF, Na1N1 for NaN."""
    return as_text(stoich, ''.join(f'{chemical_symbols[z]}{numbers.count(z)}' for z in dict.fromkeys(numbers)))


def condition_text(value: float | str | tuple[str, ...] | tuple[float, ...]) -> float | str:
    """Return the value of a condition for ase.db: numbers as they are, words, elements as Mg-O, vectors as (1,2)."""
    if isinstance(value, str):
        return as_text(value, f'class {value}')
    if isinstance(value, tuple):
        words = all(isinstance(part, str) for part in value)
        return '-'.join(value) if words else f'({",".join(f"{part:g}" for part in value)})'
    return float(value)


def shown_condition(value: float | Range | str | tuple[str, ...] | tuple[float, ...]) -> str:
    """Return the value of a condition as the log shows it; ranges as -3 to -2."""
    if isinstance(value, Range):
        return f'{value.low:g} to {value.high:g}'
    text = condition_text(value)
    return text if isinstance(text, str) else f'{text:g}'
