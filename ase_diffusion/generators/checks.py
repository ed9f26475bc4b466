"""Small checks that surface and crystal generators share."""

from __future__ import annotations

import math
from numbers import Real

from ase.data import chemical_symbols


def check_condition(name: str, value) -> None:
    """Raise a ValueError where the value of a condition is neither None nor a finite number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value)):
        raise ValueError(f'{name} must be a finite number or None, got {value!r}; several values need several calls of sample')


def as_text(text: str, other: str) -> str:
    """Return a text that ase.db does not take for a number: ``text``, or ``other`` where it reads like one, as InF and NaN do."""
    try:
        float(text)
    except ValueError:
        return text
    return other


def formula_text(stoich: str, numbers: list[int]) -> str:
    """Return a formula as text for ase.db: In1F1 for InF, Na1N1 for NaN."""
    return as_text(stoich, ''.join(f'{chemical_symbols[z]}{numbers.count(z)}' for z in dict.fromkeys(numbers)))


def copy_network(network):
    """Return a network of the same kind, settings and weights, to be trained without changing this one."""
    copy = type(network)(**network.settings)
    copy.load_state_dict(network.state_dict())
    return copy.to(next(network.parameters()).device)
