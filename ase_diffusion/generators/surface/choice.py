"""Which shipped model a slab and its overlayer get, and what was measured nearest to it."""

from __future__ import annotations

import re

import numpy as np
from ase.data import atomic_numbers

from ...representations.descriptors import metal_descriptors
from ...representations.slab import SlabTemplate, top_contacts
from ...utils.header import read_header
from ...weights.zoo import find_model, list_models

DEFAULT_MODEL, OTHER_METALS, ROWS_OF_ATOMS = 'ag-o-overlayer', 'metal-oxide-overlayer', 'renamed-silver'
FACETS = {'111': 6, '100': 4, '110': 2}  # neighbors within the topmost layer


def default_model(overlayer: SlabTemplate) -> str:
    """Return the name of the shipped model for a slab and its overlayer.

    Other metals than silver have the model of many metals, except where the topmost layer consists of rows of atoms, as on (110)
    and steps: there silver, scaled and renamed, is better (benchmarks/metals.py).
    """
    try:
        overlayer.check_known(read_header(find_model(DEFAULT_MODEL)).get('data', {}), DEFAULT_MODEL)
        return DEFAULT_MODEL
    except ValueError:
        rows = overlayer.of_metal and top_contacts(overlayer.atoms, overlayer.frozen) <= 2
        return ROWS_OF_ATOMS if rows else OTHER_METALS


def nearest_measured(model: str, overlayer: SlabTemplate) -> str:
    """Return what a shipped model reached on the measured substrate that is most similar: facet first, then metal."""
    rows = next((entry.get('measured') for entry in list_models('surface') if entry['name'] == model), None)
    if not rows:
        return 'what it reaches there was not measured'
    contacts, table = top_contacts(overlayer.atoms, overlayer.frozen), metal_descriptors()
    metal = table[np.bincount(overlayer.atoms.numbers[overlayer.frozen]).argmax()]

    def unlike(name):
        symbol, facet = re.fullmatch(r'.* on (\w+)\((\d+)\)', name).groups()
        return abs(FACETS[facet] - contacts), np.linalg.norm(table[atomic_numbers[symbol]] - metal)

    name = min(rows, key=unlike)
    text = ['{:.2f} eV per cell above the lowest known as generated, {:.2f} relaxed', ', random starts {:.2f}, {:.2f}']
    numbers = ''.join(text[: len(rows[name]) // 2]).format(*rows[name])
    return f'measured nearest to it: {name}, {numbers}'
