"""Settings of a relaxation, with their checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..calculators.names import CalculatorLike, check_calculator
from ..utils.checks import check_integer, check_limits, check_number

if TYPE_CHECKING:
    from ase.filters import Filter
    from ase.optimize.optimize import Optimizer


@dataclass(frozen=True)
class Settings:
    """Settings that decide the result of a relaxation; checked when made.

    They are the one list of these arguments: :func:`ase_diffusion.relax.relax`, searches and generators pass them on.
    The arguments are described in :func:`ase_diffusion.relax.relax`. Names of optimizers and filters become classes.

    Raises
    ------
    ValueError, TypeError
        An optimizer, filter, number or calculator is not valid; the message names it.
    """

    optimizer: str | Callable[..., Optimizer] = 'BFGS'
    fmax: float = 0.05
    steps: int = 200
    filter: str | Callable[..., Filter] | None = None
    min_distance: float | None = 0.4
    max_energy: float | None = 100.0
    pbc: bool | Sequence[bool] | None = None
    hessian: CalculatorLike | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'optimizer', find_optimizer(self.optimizer))
        object.__setattr__(self, 'filter', find_filter(self.filter))
        if optimizer_name(self.optimizer) == 'CellAwareBFGS':
            object.__setattr__(self, 'filter', _filter_of_cell_aware(self.filter))
        object.__setattr__(self, 'fmax', check_number('fmax', self.fmax, 'a positive force in eV/A, such as 0.05'))
        object.__setattr__(self, 'steps', check_integer('steps', self.steps, 0))  # 0 is a single point
        check_limits(min_distance=self.min_distance, max_energy=self.max_energy)
        for name in ('min_distance', 'max_energy'):
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else float(value))
        if self.pbc is not None and not (np.asarray(self.pbc).dtype.kind in 'biu' and np.shape(self.pbc) in ((), (3,))):
            raise ValueError(f'pbc is True, False or three of these, one for each cell vector; got {self.pbc!r}')
        if self.hessian is not None:
            self._check_hessian()

    def _check_hessian(self) -> None:
        """Raise if the optimizer cannot start from a Hessian of the atoms."""
        from ase.optimize import BFGS

        kind = self.optimizer
        if not (isinstance(kind, type) and issubclass(kind, BFGS)) or self.filter is not None:
            raise ValueError(
                'a first Hessian is one of atoms for BFGS; it came together with '
                f'{optimizer_name(kind) if self.filter is None else "a filter"}; leave hessian=None, or take BFGS '
                'without a filter'
            )
        check_calculator(self.hessian)


def _filter_of_cell_aware(filter):
    """Return the filter with the scale of the cell that CellAwareBFGS needs; raise a ValueError for none."""
    from ase.filters import FrechetCellFilter, StrainFilter

    if filter in (None, StrainFilter):
        came = 'without a filter' if filter is None else 'with StrainFilter'
        raise ValueError(
            f"the optimizer CellAwareBFGS relaxes positions and cell; it came {came}; take filter='FrechetCellFilter', or BFGS"
        )
    return partial(FrechetCellFilter, exp_cell_factor=1.0) if filter is FrechetCellFilter else filter


def find_optimizer(optimizer: str | Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Return the class of `ase.optimize` with this name; a class or factory is returned unchanged.

    Raises
    ------
    ValueError
        No optimizer has this name.
    TypeError
        It is neither a name nor callable.
    """
    import ase.optimize

    names = [name for name in ase.optimize.__all__ if not name.endswith('Error')]
    if not isinstance(optimizer, str):
        if callable(optimizer):
            return optimizer
        raise TypeError(f'an optimizer is a class or one of {names}; got {type(optimizer).__name__}')
    for name in names:
        if name.lower() == optimizer.strip().lower():
            return getattr(ase.optimize, name)
    raise ValueError(f'an optimizer is a class or one of {names}; got {optimizer!r}')


def find_filter(filter: str | Callable[..., Filter] | None) -> Callable[..., Filter] | None:
    """Return the class of `ase.filters` with this name; a class, a function or None is returned unchanged.

    Raises
    ------
    ValueError
        No filter has this name.
    TypeError
        It is neither a name nor callable, for example a filter that was made already.
    """
    import ase.filters

    if isinstance(filter, str):
        for name in ase.filters.__all__:
            if name.lower() == filter.strip().lower():
                return getattr(ase.filters, name)
        raise ValueError(f'filter is a class or one of {ase.filters.__all__}; got {filter!r}')
    if filter is not None and not callable(filter):
        raise TypeError(
            f'filter is a class such as ase.filters.FrechetCellFilter, or None; got {type(filter).__name__}; '
            'pass the class: every structure gets a filter of its own'
        )
    return filter


def optimizer_name(kind: Callable) -> str:
    """Return the name of an optimizer class, function or partial."""
    return getattr(getattr(kind, 'func', kind), '__name__', type(kind).__name__)
