"""Numbers that describe chemical elements, for networks that are told which elements to use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from .elements import period_and_group

STATES = range(-4, 9)  # oxidation states
_TABLE = Path(__file__).parents[1] / 'metrics' / 'crystal' / 'smact_elements.txt'  # source and licence: DATA.md beside it
_COLUMNS = 33  # groups 1 to 18 and those of the f elements


def element_descriptors() -> np.ndarray:
    """Return descriptors (119, 56) of the elements by atomic number; row 0 is zero.

    One-hot period (7) and column (33), covalent radius (A, less 1.5, over 0.5), Pauling electronegativity (less 1.8, over 0.6;
    0 where there is none), metal or not, and which of the oxidation states -4 to +8 are known (13).
    """
    table = np.zeros((len(chemical_symbols), 7 + _COLUMNS + 3 + len(STATES)))
    for z in range(1, len(table)):
        period, column = period_and_group(z)
        table[z, period - 1] = table[z, 6 + column] = 1.0
        table[z, 40] = (min(covalent_radii[z], 2.6) - 1.5) / 0.5
    for line in _TABLE.read_text(encoding='utf-8').splitlines():
        if line.startswith('#'):
            continue
        symbol, electronegativity, kind, *states = line.split()
        row = table[chemical_symbols.index(symbol)]
        row[41] = 0.0 if electronegativity == '-' else (float(electronegativity) - 1.8) / 0.6
        row[42] = float(kind == 'm')
        for state in states:
            if int(state) in STATES:
                row[43 + STATES.index(int(state))] = 1.0
    return table
