"""Arguments of the generator of zeolites, checked: cells, points, tolerances, space groups, frameworks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ..data.zeolite_cells import ZeoliteCells
from ..porous import check_framework
from ..representations.conditions import RANGES, ends_of, with_numbers
from ..utils.checks import check_integer
from .text import shown_condition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TOLERANCE = {'void_fraction': 0.03, 'heat_of_adsorption': 1.5, 'henry_coefficient': 1.5}  # kJ/mol; the last a factor
PROPERTIES = tuple(TOLERANCE)
DRAWS = 1000  # of targets in ranges, until they go together


def space_group_text(groups: Iterable[int] | None) -> str:
    """Return numbers of space groups for a message."""
    return 'asked for' if groups is None else ', '.join(map(str, groups))


def check_edges(cell: ArrayLike | None) -> np.ndarray | None:
    """Return the edges (3,) of an orthogonal cell; raise a ValueError for another."""
    if cell is None:
        return None
    try:
        values = np.array(cell, float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape == (3, 3) and np.abs(values - np.diag(np.diag(values))).max() < 1e-6:
        values = np.diag(values)
    if values.shape != (3,) or not np.isfinite(values).all() or not (values > 4).all() or not (values < 60).all():
        raise ValueError(f'cell is three edges, or an orthogonal cell (3, 3) along x, y and z, of 4 to 60 A; got {cell!r}')
    return values.copy()


def check_cost(value: float) -> float:
    """Return the largest cost of a framework; raise a ValueError where it is no number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not value > 0:
        raise ValueError(f'max_cost is a cost in A^2 per T above 0, such as 0.01; got {value!r}')
    return float(value)


def check_points(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the points of a grid; raise a ValueError where they are not three or too many."""
    try:
        points = tuple(check_integer('probe_shape', n, 1) for n in shape)
    except TypeError:
        points = ()
    if len(points) != 3 or max(points) > 256:
        raise ValueError(f'probe_shape is three numbers of points up to 256, such as (32, 32, 32); got {shape!r}')
    return points


def check_tolerance(tolerance: dict[str, float] | None) -> dict[str, float]:
    """Return property -> largest deviation from its target; raise a ValueError for what is none."""
    if not isinstance(tolerance, dict | None):
        raise ValueError(f'tolerance is a dict such as {TOLERANCE}, or None; got {tolerance!r}')
    values = {**TOLERANCE, **tolerance} if tolerance else {}
    for name, value in values.items():
        least = 1.0 if name == 'henry_coefficient' else 0.0
        if name not in TOLERANCE or isinstance(value, bool) or not isinstance(value, Real) or not value > least:
            raise ValueError(
                f'tolerance is a dict of deviations above 0 (of henry_coefficient a factor above 1), such as {TOLERANCE}; '
                f'got {name}: {value!r}'
            )
    return {name: float(value) for name, value in values.items()}


def targets_of(conditions: dict) -> dict[str, float]:
    """Return the properties that are asked for."""
    return {name: conditions[name] for name in PROPERTIES if conditions.get(name) is not None}


def check_targets(conditions: dict) -> None:
    """Raise a ValueError where no framework can have what is asked for."""
    share, henry = conditions.get('void_fraction'), conditions.get('henry_coefficient')
    if share is not None and not all(0 <= value <= 1 for value in ends_of(share)):
        raise ValueError(f'void_fraction is a share of the volume, 0 to 1; got {shown_condition(share)}')
    if henry is not None and not all(value > 0 for value in ends_of(henry)):
        raise ValueError(f'henry_coefficient is above 0, and 1 for an empty box; got {shown_condition(henry)}')


def numbers_together(conditions: dict, seed: int, check: Callable[[dict[str, float]], object]) -> dict:
    """Return conditions with a number in place of each range, drawn again while ``check(targets)`` raises a ValueError."""
    rng = np.random.default_rng([seed, RANGES])
    for _ in range(DRAWS):
        asked = with_numbers(conditions, rng)
        with contextlib.suppress(ValueError):
            check(targets_of(asked))
            return asked
    return asked


def check_groups(space_group: int | Sequence[int] | None, cells: ZeoliteCells) -> list[int] | None:
    """Return numbers of space groups, sorted; raise a ValueError for one that no known cell has."""
    if space_group is None:
        return None
    numbers = np.atleast_1d(space_group).tolist()
    known = sorted(set(cells.group.tolist()))
    if not numbers or (unknown := [number for number in numbers if number not in known]):
        raise ValueError(f'space_group is one or several of {", ".join(map(str, known))}; got {unknown if numbers else numbers}')
    return sorted({int(number) for number in numbers})


def is_compatible(edges: np.ndarray, rotations: np.ndarray) -> bool:
    """Tell whether axes that rotations exchange have equal edges, within 1 %."""
    coupled = np.abs(rotations).sum(0) > 0  # (3, 3)
    return all(abs(math.log(edges[i] / edges[j])) < 0.01 for i in range(3) for j in range(3) if coupled[i, j])


def check_given(name: str, atoms: Atoms) -> None:
    """Raise a ValueError where a structure is no SiO2 framework in an orthogonal cell."""
    if not isinstance(atoms, Atoms):
        raise ValueError(f'frameworks to interpolate are Atoms; the {name} is {atoms!r}')
    cell = atoms.cell.array
    if (fault := check_framework(atoms)) is not None:
        raise ValueError(f'frameworks to interpolate are of SiO2, four O at each Si; the {name}, {atoms.symbols}: {fault}')
    if np.abs(cell - np.diag(np.diag(cell))).max() > 1e-4:
        raise ValueError(
            f'frameworks to interpolate have orthogonal cells along x, y and z; the {name} has {np.round(cell, 2).tolist()}'
        )
