"""Which shipped model a slab and its overlayer get, and what was measured nearest to it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from ase.data import atomic_numbers

from ...representations.descriptors import metal_descriptors
from ...representations.slab import SlabTemplate, top_contacts
from ...utils.atoms import parse_formula
from ...utils.header import read_header
from ...weights.zoo import find_model, list_models

DEFAULT_MODEL, OTHER_METALS, ROWS_OF_ATOMS = 'ag-o-overlayer', 'metal-oxide-overlayer', 'renamed-silver'
FACETS = {'111': 6, '0001': 6, '100': 4, 'bcc110': 4, '110': 2, 'bcc100': 0}  # neighbors within the topmost layer


def default_model(overlayer: SlabTemplate) -> str:
    """Return the name of the shipped model for a slab and its overlayer.

    What is not silver and oxygen on silver has the model of many metals, except for metals and oxygen where the topmost layer
    consists of rows of atoms, as on (110) and steps: there silver, scaled and renamed, is better (benchmarks/metals.py).
    """
    if _knows(DEFAULT_MODEL, overlayer):
        return DEFAULT_MODEL
    rows = overlayer.of_metal and top_contacts(overlayer.atoms, overlayer.frozen) in (1, 2)
    return ROWS_OF_ATOMS if rows and _knows(ROWS_OF_ATOMS, overlayer) else OTHER_METALS


def _knows(model: str, overlayer: SlabTemplate) -> bool:
    """Return whether a shipped model knows all elements in their roles."""
    try:
        overlayer.check_known(read_header(find_model(model)).get('data', {}), model)
    except ValueError:
        return False
    return True


def nearest_measured(model: str, overlayer: SlabTemplate) -> str:
    """Return what a shipped model reached in the measured case that is most similar: nonmetals, then facet, then metal."""
    rows = next((entry.get('measured') for entry in list_models('surface') if entry['name'] == model), None)
    if not rows:
        return 'what it reaches there was not measured'
    contacts, table = top_contacts(overlayer.atoms, overlayer.frozen), metal_descriptors()
    numbers = overlayer.atoms.numbers
    metal = table[np.bincount(numbers[overlayer.frozen]).argmax()]
    new = numbers[~overlayer.frozen].tolist()

    def unlike(name):
        formula, symbol, facet = re.fullmatch(r'(\w+) on (\w+)\((\w+)\)', name).groups()
        old = parse_formula(formula)
        one, other = (_nonmetals(each) < set(each) for each in (old, new))  # whether there is a metal
        near = np.linalg.norm(table[atomic_numbers[symbol]] - metal)
        return len(_nonmetals(old) ^ _nonmetals(new)), one != other, abs(FACETS[facet] - contacts), near

    name = min(rows, key=unlike)
    text = ['{:.2f} eV per cell above the lowest known as generated, {:.2f} relaxed', ', random starts {:.2f}, {:.2f}']
    numbers = ''.join(text[: len(rows[name]) // 2]).format(*rows[name])
    return f'measured nearest to it: {name}, {numbers}'


def _nonmetals(numbers: Iterable[int]) -> set[int]:
    """Return which of these elements are no metals."""
    return {int(z) for z in numbers if not metal_descriptors()[z, 0]}
