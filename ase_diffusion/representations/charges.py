"""Charge neutrality of compositions by the oxidation states and electronegativities of SMACT.

Sorted by electronegativity, cations come before anions, so that for each border between them the set of possible total charges
suffices: no enumeration, any number of elements.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ase.data import chemical_symbols

TABLE = Path(__file__).parents[1] / 'metrics' / 'crystal' / 'smact_elements.txt'  # source and licence: DATA.md beside it


@lru_cache(maxsize=1)
def oxidation_states() -> dict[int, tuple[float | None, bool, list[int]]]:
    """Return {atomic number: (electronegativity or None, is a metal, oxidation states)}."""
    table = {}
    for line in TABLE.read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            symbol, x, kind, *states = line.split()
            table[chemical_symbols.index(symbol)] = (None if x == '-' else float(x), kind == 'm', [int(s) for s in states])
    return table


@lru_cache(maxsize=100_000)
def is_charge_neutral(formula: tuple[tuple[int, int], ...]) -> bool:
    """Return whether charges can cancel with every cation less electronegative than every anion.

    One element alone passes, and so do metals among themselves.

    Parameters
    ----------
    formula : tuple of (int, int)
        Atomic numbers and counts.
    """
    if len(formula) == 1:
        return True
    elements = [oxidation_states().get(number, (None, False, [])) for number, _ in formula]
    if all(is_metal for _, is_metal, _ in elements):
        return True
    if any(x is None for x, _, _ in elements):
        return False
    ranked = sorted((x, count, states) for (x, _, states), (_, count) in zip(elements, formula, strict=True))
    return any(_can_be_neutral(ranked, border) for border in range(1, len(ranked)) if ranked[border - 1][0] < ranked[border][0])


def _can_be_neutral(ranked: list, border: int) -> bool:
    """Return whether charges can cancel with the elements before the border as cations and the others as anions."""
    totals = {0}
    for place, (_, count, states) in enumerate(ranked):
        charges = [count * state for state in states if (state > 0) == (place < border)]
        totals = {total + charge for total in totals for charge in charges}
    return 0 in totals
