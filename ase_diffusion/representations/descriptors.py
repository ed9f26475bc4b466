"""Numbers that describe chemical elements, for networks that are told which elements to use."""

from __future__ import annotations

from functools import cache

import numpy as np
from ase.data import chemical_symbols, covalent_radii, reference_states

from .charges import oxidation_states
from .elements import period_and_group

FCC_BCC = {'fcc': 2**-0.5, 'bcc': 3**0.5 / 2}  # distance of neighbors in units of the lattice constant
STATES = range(-4, 9)  # oxidation states
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
    for z, (electronegativity, is_metal, states) in oxidation_states().items():
        table[z, 41] = 0.0 if electronegativity is None else (electronegativity - 1.8) / 0.6
        table[z, 42] = float(is_metal)
        table[z, [43 + STATES.index(state) for state in states if state in STATES]] = 1.0
    return table


@cache
def metal_descriptors() -> np.ndarray:
    """Return smooth descriptors (119, 6) of the elements, for networks on overlayers of many metals; row 0 is zero.

    Metal or not (1, 0), period (less 5), group (1 to 18, f elements 3; less 10, over 4), covalent radius (A, less 1.3, over 0.2),
    Pauling electronegativity (less 1.9, over 0.5; 0 where there is none), distance of neighbors in the crystal of the element (A,
    less 2.8, over 0.3; twice the covalent radius where it is neither fcc, bcc nor hcp). Read-only: all callers share it.
    """
    full, table = element_descriptors(), np.zeros((len(chemical_symbols), 6))
    for z in range(1, len(table)):
        period, column = period_and_group(z)
        table[z, 0] = full[z, 42]
        table[z, 1] = period - 5
        table[z, 2] = ((3 if column > 18 else column) - 10) / 4
        table[z, 3] = (min(covalent_radii[z], 2.6) - 1.3) / 0.2
        table[z, 4] = 0.0 if full[z, 41] == 0 else (0.6 * full[z, 41] - 0.1) / 0.5
        table[z, 5] = (crystal_neighbor_distance(z) - 2.8) / 0.3
    table.setflags(write=False)
    return table


def crystal_neighbor_distance(z: int) -> float:
    """Return the distance of neighbors in the crystal of an element, A; twice its covalent radius if not fcc, bcc or hcp."""
    state = (reference_states[z] if z < len(reference_states) else None) or {}
    if state.get('symmetry') == 'hcp':
        return float(state['a'])
    return float(state['a']) * FCC_BCC[state['symmetry']] if state.get('symmetry') in FCC_BCC else 2 * float(covalent_radii[z])
