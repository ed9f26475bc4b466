"""Random start structures: atoms at random positions above a slab, with a minimum distance."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.formula import Formula
from ase.symbols import Symbols

from ..errors import GenerationFailed
from ..utils.atoms import check_surface_cell, composition_text, copy_atoms, parse_formula
from ..utils.checks import check_count, check_number, check_window
from ..utils.provenance import forget_notes
from ..utils.rng import RandomSource, coerce_rng

Composition = str | Sequence[str] | Mapping[str, int | Sequence[int]]  # formula, formulas, or ranges {'Ag': (4, 6)}
TRIES = 300  # positions tried for one atom before the structure is restarted


def random_start(
    slab: Atoms,
    numbers: str | Mapping[str, int] | Sequence[int],
    rng: RandomSource = None,
    *,
    height: tuple[float, float] = (1.0, 4.5),
    ratio: float = 0.7,
    maxiter: int = 100,
) -> Atoms:
    """Place atoms at random positions above a slab, with a minimum distance.

    Parameters
    ----------
    slab : Atoms
        Cell vectors a and b in the xy plane, surface normal z. Images along periodic directions (``pbc``) keep their distance;
        a cluster has none. Not changed.
    numbers : str, dict or list of int
        Formula such as ``'Ag6O3'``, numbers of atoms such as ``{'Ag': 6, 'O': 3}``, or atomic numbers. The new atoms come
        last, in this order; they are placed in a random one.
    rng : None, int, Generator, RandomState or numpy.random
        Random number generator or seed.
    height : (float, float)
        Window of the new atoms in A above the topmost slab atom.
    ratio : float
        Smallest distance over the sum of the covalent radii, for every pair with a new atom.
    maxiter : int
        Number of restarts after an atom found no position in 300 tries.

    Returns
    -------
    Atoms
        Slab and new atoms; the tag of the new atoms is one above the largest of the slab.

    Raises
    ------
    ValueError
        The formula, window, ratio or cell is not valid.
    GenerationFailed
        The atoms did not fit.
    """
    if isinstance(numbers, (str, Mapping)):
        numbers = parse_formula(composition_text(numbers))
    numbers = _atomic_numbers(numbers)
    low, high = check_start(height, ratio, maxiter)
    check_surface_cell(slab)
    rng, blocked = coerce_rng(rng), {}
    for _ in range(maxiter):
        places = _place(slab, numbers, rng, (low, high), ratio, blocked)
        if places is not None:
            return _assemble(slab, numbers, places)
    raise GenerationFailed(
        f'new atoms stay {ratio:g} times the sum of the covalent radii apart, but {_formula(numbers)} found no room in '
        f'the window of {low:g} to {high:g} A above {slab.get_chemical_formula()} in {maxiter} attempts; raise the '
        'upper end of height, lower ratio, take fewer atoms or a larger slab, or raise maxiter',
        blocked,
    )


def _atomic_numbers(numbers) -> list[int]:
    """Return atomic numbers as a list; raise a ValueError where they are none."""
    try:
        found = [operator.index(number) for number in numbers]
    except TypeError:
        found = [0]
    if not all(0 < number < len(chemical_symbols) for number in found):
        raise ValueError(
            f"new atoms are a formula such as 'Ag6O3', a dict such as {{'Ag': 6, 'O': 3}}, or atomic numbers; got {numbers!r}"
        )
    return found


class _Room:
    """Occupied positions above a slab, with periodic images."""

    def __init__(self, slab, reach):
        self.cell, self.pbc = slab.cell.complete()[:], slab.pbc
        self.inverse = np.linalg.inv(self.cell)
        widths = 1 / np.linalg.norm(self.inverse, axis=0)  # between opposite faces
        images = np.where(self.pbc, np.floor(1 + reach / widths + 1e-6), 0).astype(int)
        self.shifts = np.indices(2 * images + 1).reshape(3, -1).T - images
        self.shifts = (self.shifts @ self.cell)[:, None]  # (images, 1, 3)
        self.positions = self.wrap(slab.positions)
        self.radii = covalent_radii[slab.numbers]

    def wrap(self, positions):
        """Return positions (n, 3) wrapped into the cell along periodic vectors."""
        scaled = positions @ self.inverse
        return (scaled - np.where(self.pbc, np.floor(scaled), 0)) @ self.cell

    def take(self, place, radius, ratio):
        """Occupy the position (3,) if it is free; return whether it was."""
        place = self.wrap(place[None])
        d2 = ((place + self.shifts - self.positions) ** 2).sum(axis=2)  # (images, atoms)
        if (d2 <= (ratio * (radius + self.radii)) ** 2).any():
            return False
        self.positions, self.radii = np.vstack([self.positions, place]), np.append(self.radii, radius)
        return True


def _place(slab, numbers, rng, window, ratio, blocked):
    """Return positions (n, 3) of new atoms, or None after a failure, which is counted in `blocked`."""
    (low, high), top = window, slab.positions[:, 2].max()
    room = _Room(slab, 2 * ratio * covalent_radii[[*numbers, *slab.numbers]].max())
    places = np.empty((len(numbers), 3))
    for index in rng.permutation(len(numbers)):
        for _ in range(TRIES):
            fa, fb, fz = rng.random(3)
            places[index] = fa * slab.cell[0] + fb * slab.cell[1] + [0, 0, top + low + (high - low) * fz]
            if room.take(places[index], covalent_radii[numbers[index]], ratio):
                break
        else:
            reason = f'no place for {chemical_symbols[numbers[index]]}'
            blocked[reason] = blocked.get(reason, 0) + 1
            return None
    return places


def _assemble(slab, numbers, places):
    """Return the slab with the new atoms last and one new tag."""
    atoms = copy_atoms(slab)
    atoms.calc = None
    atoms.info.pop('adsorbate_info', None)
    forget_notes(atoms)
    atoms.extend(Atoms(numbers, places, tags=[slab.get_tags().max() + 1] * len(numbers)))
    return atoms


def check_composition(stoich: Composition) -> Composition:
    """Return a composition in JSON form: a formula, a list of formulas, or a dict of ranges [low, high].

    Parameters
    ----------
    stoich : str, dict or list of str
        As in `RandomStructureSearch`.

    Raises
    ------
    TypeError, ValueError
        It is of another type; a formula or a range is not valid.
    """
    if isinstance(stoich, (str, Formula, Symbols)):
        return composition_text(stoich)
    if not isinstance(stoich, (Mapping, Iterable)):
        raise TypeError(f'a composition is a formula, a list of formulas or a dict of ranges; got {stoich!r}')
    if not isinstance(stoich, Mapping):
        formulas = [check_composition(formula) for formula in stoich]
        if not formulas:
            raise ValueError('a composition is a formula, a list of formulas or a dict of ranges; got an empty list')
        return formulas
    ranges = {}
    for symbol, counts in stoich.items():
        try:
            low, high = (counts, counts) if isinstance(counts, (int, np.integer)) else counts
            good = symbol in chemical_symbols[1:] and int(low) == low and int(high) == high and 0 <= low <= high
        except (TypeError, ValueError):  # not two numbers
            good = False
        if not good:
            raise ValueError(
                f'ranges are whole numbers of atoms of an element, {{"Ag": (4, 6), "O": (2, 5)}}; got {symbol!r}: {counts!r}'
            )
        ranges[symbol] = [int(low), int(high)]
    if not any(high for _, high in ranges.values()):
        raise ValueError(f'a composition has at least one atom; {stoich!r} allows none')
    return ranges


def draw_composition(stoich: Composition, rng: np.random.Generator) -> list[int]:
    """Draw atomic numbers uniformly from a composition as returned by `check_composition`.

    Parameters
    ----------
    stoich : str, dict or list of str
    rng : Generator
    """
    if isinstance(stoich, list):
        stoich = stoich[rng.integers(len(stoich))]
    if isinstance(stoich, str):
        return parse_formula(stoich)
    numbers = []
    while not numbers:  # all ranges may begin at 0
        for symbol, (low, high) in stoich.items():
            numbers += [chemical_symbols.index(symbol)] * int(rng.integers(low, high + 1))
    return numbers


def check_start(height: tuple[float, float], ratio: float, maxiter: int) -> tuple[float, float]:
    """Return the window (low, high) in A of a random start; raise a ValueError if it, the ratio or maxiter is not valid."""
    window = check_window('height', height, 'in A above the topmost slab atom, low < high, such as (1.0, 4.5)')
    check_number('ratio', ratio, 'a part of the sum of two covalent radii, such as 0.7', strict=False)
    check_count('maxiter', 'the number of attempts', maxiter)
    return window


def _formula(numbers):
    """Return the formula of atomic numbers."""
    return Atoms(numbers).get_chemical_formula()
