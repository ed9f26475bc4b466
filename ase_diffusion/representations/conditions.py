"""What may be asked of a model: numbers, classes, sets of elements, vectors; as tensors for networks, as entries of a header.

An entry of the header of a checkpoint is ``[low, high]`` for a number (the range of the training data), ``{'classes': [...]}``
for a class, ``{'elements': [...]}`` for a set of chemical elements and ``{'low': [...], 'high': [...]}`` for a vector.

Of a number a :class:`Range` may be asked for: each structure has its own number in it (:func:`with_numbers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from ..utils.atoms import atomic_numbers_of

N_ELEMENTS = 119  # length of a row of an element set; index = atomic number
RANGES = 3  # with a seed, that of the random numbers from which a structure draws what it is asked for in ranges


class Range(NamedTuple):
    """What is asked for where any number between two will do, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class NumberCondition:
    """A number; NaN in a batch means "not asked for".

    Parameters
    ----------
    low, high : float
        Range of the training data.
    """

    low: float
    high: float

    def check(self, name: str, value: object) -> float:
        """Return the value as a float; raise a ValueError where it is no finite number."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.number)) or not math.isfinite(value):
            raise ValueError(f'{name} must be a finite number, got {value!r}')
        return float(value)

    def check_asked(self, name: str, value: object) -> float | Range:
        """Return what is asked for as a float or a range; raise a ValueError where it is neither."""
        several = isinstance(value, Sequence) and not isinstance(value, str) or getattr(value, 'ndim', 0) == 1
        pair = several and len(value) == 2
        try:
            low, high = (self.check(name, each) for each in (value if pair else (value, value)))
        except ValueError:
            low, high = 1.0, 0.0
        if low > high:
            raise ValueError(
                f'{name} must be a finite number, a range (low, high) with low <= high, or None; got {value!r}; several numbers '
                'need several calls of sample'
            )
        return Range(low, high) if pair else low

    def outside(self, value: float | Range) -> str | None:
        """Return the range of the training data where the value, or an end of a range, lies outside of it, else None."""
        inside = all(self.low <= each <= self.high for each in ends_of(value))
        return None if inside else f'{self.low:.6g} to {self.high:.6g}'

    def overlap(self, value: Range) -> Range | None:
        """Return the part of a range that lies in that of the training data, None where there is none."""
        low, high = max(self.low, value.low), min(self.high, value.high)
        return Range(low, high) if low <= high else None

    def tensor(self, values: Sequence, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (B,), NaN for None."""
        return torch.tensor([math.nan if v is None else float(v) for v in values], dtype=dtype)

    def parse(self, text: str) -> float | list[float]:
        """Return the value of a word of the command line, such as -2.5 or the range -3:-2."""
        try:
            numbers = [float(part) for part in text.split(':')]
        except ValueError:
            raise ValueError(f'a number, a range LOW:HIGH or none, got {text!r}') from None
        return numbers[0] if len(numbers) == 1 else numbers

    def entry(self) -> list[float]:
        """Return the entry of the header."""
        return [self.low, self.high]


@dataclass(frozen=True)
class ClassCondition:
    """One of several words; in a batch its index as a float, NaN for "not asked for"."""

    classes: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        """Return the word; raise a ValueError with the allowed words for any other."""
        if not isinstance(value, str) or value not in self.classes:
            raise ValueError(f'{name} is one of {", ".join(self.classes)}, or None; got {value!r}')
        return str(value)

    def outside(self, value: str) -> None:
        """Return None: every class occurs in the training data."""
        return None

    def tensor(self, values: Sequence, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (B,) of indices, NaN for None."""
        return torch.tensor([math.nan if v is None else float(self.classes.index(v)) for v in values], dtype=dtype)

    def parse(self, text: str) -> str:
        """Return the value of a word of the command line."""
        return text

    def entry(self) -> dict:
        """Return the entry of the header."""
        return {'classes': list(self.classes)}


@dataclass(frozen=True)
class ElementsCondition:
    """A set of chemical elements; in a batch a row (119,) of zeros and ones, all NaN for "not asked for".

    Parameters
    ----------
    elements : tuple of int
        Atomic numbers of the training data.
    """

    elements: tuple[int, ...]

    def check(self, name: str, value: object) -> tuple[str, ...]:
        """Return the symbols in the order of their atomic numbers, each once; raise a ValueError for what is no set of them."""
        if isinstance(value, str) or not isinstance(value, (Sequence, set, frozenset, np.ndarray)) or not len(value):
            raise ValueError(f"{name} is a list of chemical symbols such as ['Mg', 'O'], or None; got {value!r}")
        numbers = atomic_numbers_of(value, name)
        if unknown := [z for z in numbers if z not in self.elements]:
            known = ', '.join(chemical_symbols[z] for z in self.elements)
            raise ValueError(f'{name} holds {", ".join(chemical_symbols[z] for z in unknown)}, the model knows {known}')
        return tuple(chemical_symbols[z] for z in numbers)

    def outside(self, value: tuple[str, ...]) -> None:
        """Return None: unknown elements are refused by :meth:`check`."""
        return None

    def tensor(self, values: Sequence, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (B, 119), rows of NaN for None."""
        out = torch.zeros(len(values), N_ELEMENTS, dtype=dtype)
        for row, value in zip(out, values, strict=True):
            if value is None:
                row[:] = math.nan
            else:
                row[[chemical_symbols.index(symbol) for symbol in value]] = 1.0
        return out

    def parse(self, text: str) -> list[str]:
        """Return the value of a word of the command line, such as Mg,Mn,O."""
        return [symbol.strip() for symbol in text.split(',')]

    def entry(self) -> dict:
        """Return the entry of the header."""
        return {'elements': list(self.elements)}


@dataclass(frozen=True)
class VectorCondition:
    """Several numbers that belong together; in a batch a row (k,), all NaN for "not asked for".

    Parameters
    ----------
    low, high : tuple of float
        Range of each number in the training data.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def check(self, name: str, value: object) -> tuple[float, ...]:
        """Return the numbers; raise a ValueError where there are not k finite ones."""
        try:
            numbers = tuple(float(x) for x in value)
        except (TypeError, ValueError):
            numbers = ()
        if isinstance(value, str) or len(numbers) != len(self.low) or not all(map(math.isfinite, numbers)):
            raise ValueError(f'{name} is a sequence of {len(self.low)} finite numbers, or None; got {value!r}')
        return numbers

    def outside(self, value: tuple[float, ...]) -> str | None:
        """Return the ranges of the training data where a number lies outside of its own, else None."""
        inside = all(a <= x <= b for a, x, b in zip(self.low, value, self.high, strict=True))
        return None if inside else ', '.join(f'{a:.6g} to {b:.6g}' for a, b in zip(self.low, self.high, strict=True))

    def tensor(self, values: Sequence, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (B, k), rows of NaN for None."""
        absent = (math.nan,) * len(self.low)
        return torch.tensor([absent if v is None else tuple(v) for v in values], dtype=dtype)

    def parse(self, text: str) -> list[float]:
        """Return the value of a word of the command line, such as 4.1,4.1,6.5."""
        try:
            return [float(part) for part in text.split(',')]
        except ValueError:
            raise ValueError(f'numbers with commas between them, or none, got {text!r}') from None

    def entry(self) -> dict:
        """Return the entry of the header."""
        return {'low': list(self.low), 'high': list(self.high)}


Condition = NumberCondition | ClassCondition | ElementsCondition | VectorCondition


def condition_from_entry(entry: object) -> Condition:
    """Return the condition of an entry of a header.

    Raises
    ------
    ValueError
        It has none of the four forms.
    """
    law = "[low, high], {'classes': [...]}, {'elements': [...]} or {'low': [...], 'high': [...]}"
    try:
        if isinstance(entry, dict) and set(entry) == {'classes'}:
            classes = tuple(entry['classes'])
            if classes and len(set(classes)) == len(classes) and all(isinstance(word, str) and word for word in classes):
                return ClassCondition(classes)
        elif isinstance(entry, dict) and set(entry) == {'elements'}:
            numbers = tuple(entry['elements'])
            if numbers and all(type(z) is int and 0 < z < N_ELEMENTS for z in numbers):
                return ElementsCondition(numbers)
        elif isinstance(entry, dict) and set(entry) == {'low', 'high'}:
            low, high = (tuple(float(x) for x in entry[name]) for name in ('low', 'high'))
            if low and len(low) == len(high) and all(map(math.isfinite, low + high)):
                return VectorCondition(low, high)
        elif isinstance(entry, (list, tuple)) and len(entry) == 2 and all(type(x) in (int, float) for x in entry):
            low, high = (float(x) for x in entry)
            if math.isfinite(low) and math.isfinite(high):
                return NumberCondition(low, high)
    except (TypeError, ValueError):
        pass
    raise ValueError(f'expected: a condition is {law}, got {entry!r}')


def ends_of(value: float | Range) -> tuple[float, ...]:
    """Return the two ends of a range, or the number alone."""
    return value if isinstance(value, Range) else (value,)


def with_numbers(conditions: dict, rng: np.random.Generator) -> dict:
    """Return conditions with a number, drawn uniformly, in place of each range."""
    return {name: float(rng.uniform(*value)) if isinstance(value, Range) else value for name, value in conditions.items()}


def or_unknown(condition: Condition, values: Sequence) -> list:
    """Return values with None for those that the condition does not know, such as a word that training never saw."""
    out = []
    for value in values:
        try:
            out.append(None if value is None else condition.check('', value))
        except ValueError:
            out.append(None)
    return out


def conditions_of(header: dict) -> dict[str, Condition]:
    """Return the conditions that a model knows, by name.

    Raises
    ------
    ValueError
        An entry of ``header['conditions']`` has none of the four forms.
    """
    return {name: condition_from_entry(entry) for name, entry in header.get('conditions', {}).items()}
