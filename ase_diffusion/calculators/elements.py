"""Which elements a calculator knows, as far as it can be told before a calculation."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ase.data import atomic_numbers, chemical_symbols

from ..utils.atoms import frozen_mask
from .names import CalculatorLike, calculator_name, calculator_title

if TYPE_CHECKING:
    from ase import Atoms

    from ..representations.slab import SlabTemplate

log = logging.getLogger(__name__)
MPTRJ = frozenset(range(1, 95)) - frozenset(range(84, 89))  # elements of the data of SevenNet (its type_map) and CHGNet
POTENTIALS = ('7net-mf-0', '7net-0', 'chgnet')
HUBBARD = frozenset(atomic_numbers[x] for x in ('Co', 'Cr', 'Fe', 'Mn', 'Mo', 'Ni', 'V', 'W'))
ELECTRONEGATIVE = frozenset({8, 9})
_told: set[str] = set()  # calculators of which a warning was written


def known_elements(calculator: CalculatorLike) -> frozenset[int] | None:
    """Return the atomic numbers that a calculator knows; None where that cannot be told.

    Told are EMT, by name, class or instance; SevenNet and CHGNet by name; instances with a table of their elements: SevenNet
    (``type_map``), MACE (``z_table``), EAM of ASE (``elements``); and the force fields of this package.
    """
    if isinstance(calculator, str):
        return _emt_elements() if calculator.lower() == 'emt' else MPTRJ if calculator.lower() in POTENTIALS else None
    kind = calculator if isinstance(calculator, type) else type(calculator)
    if kind.__module__ == 'ase.calculators.emt':
        return _emt_elements()
    if isinstance(calculator, type):
        return None
    if isinstance(found := getattr(calculator, 'type_map', None), dict):
        return _numbers(found)
    if (table := getattr(calculator, 'z_table', None)) is not None:
        return _numbers(getattr(table, 'zs', ()))
    if kind.__module__ == 'ase.calculators.eam':
        return _numbers(getattr(calculator, 'elements', ()))
    return None


def check_elements(calculator: CalculatorLike, numbers: Iterable[int], who: str) -> None:
    """Raise a ValueError where a calculator is known not to know an element.

    Parameters
    ----------
    calculator : anything that `get_calculator` takes
    numbers : iterable of int
        Atomic numbers of what it would be given.
    who : str
        What it would be used for, such as 'guidance'.
    """
    known = known_elements(calculator)
    if known and (unknown := sorted({int(z) for z in numbers} - known)):
        names = [', '.join(chemical_symbols[z] for z in some) for some in (unknown, sorted(known))]
        short = names[1] if len(known) <= 30 else f'{len(known)} others'
        such = '' if known >= MPTRJ else ", such as '7net-mf-0' or 'chgnet'"
        raise ValueError(
            f'{who} needs a calculator that knows all elements; {calculator_name(calculator)} does not know {names[0]}, '
            f'only {short}; pass another one{such}'
        )


def mixes_functionals(atoms: Atoms | SlabTemplate) -> bool:
    """Return whether SevenNet is wrong by several eV: mobile O or F on a frozen metal of which MPtrj has oxides with PBE+U.

    MPtrj has such a metal alone with PBE. SevenNet learned these energies as they are, CHGNet corrected ones
    (``benchmarks/oxygen_labels.py``).
    """
    atoms = getattr(atoms, 'atoms', atoms)
    frozen = frozen_mask(atoms)
    mobile, held = set(atoms.numbers[~frozen].tolist()), set(atoms.numbers[frozen].tolist())
    return bool(mobile & ELECTRONEGATIVE and held & HUBBARD and not held & ELECTRONEGATIVE)


def warn_of_mixed_functionals(calculator: CalculatorLike, images: Iterable[Atoms | SlabTemplate]) -> None:
    """Log a warning, once for each calculator, where a calculator is SevenNet and :func:`mixes_functionals` of a structure."""
    names = (calculator_name(calculator), calculator_title(calculator))
    name = next((name for name in names if name.startswith(('7net', 'sevennet'))), None)
    if name and name not in _told and any(map(mixes_functionals, images)):
        _told.add(name)
        log.warning(
            '%s binds oxygen and fluorine several eV too weakly to Co, Cr, Fe, Mn, Mo, Ni, V and W: its data have oxides of '
            "these with PBE+U, the metals with PBE; take 'chgnet', whose data are corrected for it, or DFT",
            name,
        )


def _emt_elements() -> frozenset[int]:
    from ase.calculators.emt import parameters

    return _numbers(parameters)


def _numbers(found: Iterable) -> frozenset[int] | None:
    """Return atomic numbers of symbols or numbers; None where there is anything else, or nothing."""
    try:
        return frozenset(atomic_numbers[x] if isinstance(x, str) else int(x) for x in found) or None
    except (KeyError, TypeError, ValueError):
        return None
