"""Settings of a relaxation, and their checks."""

from dataclasses import dataclass

import numpy as np

from ..calculators.names import check_calculator
from ..utils.checks import check_limits


@dataclass(frozen=True)
class Settings:
    """How to relax; the meaning of each is in :func:`ase_diffusion.relax.relax`."""

    optimizer: object  # class
    fmax: float = 0.05
    steps: int = 200
    filter: object = None
    min_distance: float = 0.4
    max_energy: float = 100.0
    pbc: object = None
    hessian: object = None


def find_optimizer(optimizer):
    """Return the class of `ase.optimize` of this name; a class or factory passes through.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    import ase.optimize

    names = [name for name in ase.optimize.__all__ if not name.endswith('Error')]
    if not isinstance(optimizer, str):
        if callable(optimizer):
            return optimizer
        raise TypeError(f'An optimizer is a class or one of {names}; got {type(optimizer).__name__}.')
    for name in names:
        if name.lower() == optimizer.strip().lower():
            return getattr(ase.optimize, name)
    raise ValueError(f'An optimizer is a class or one of {names}; got {optimizer!r}.')


def find_filter(filter):
    """Return the class of `ase.filters` of this name; a class, a function or None passes through.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    import ase.filters

    if not isinstance(filter, str):
        return filter
    for name in ase.filters.__all__:
        if name.lower() == filter.strip().lower():
            return getattr(ase.filters, name)
    raise ValueError(f'filter is a class or one of {ase.filters.__all__}; got {filter!r}.')


def optimizer_name(kind):
    """Return the name of an optimizer class, function or partial."""
    return getattr(getattr(kind, 'func', kind), '__name__', type(kind).__name__)


def check_numbers(fmax, steps):
    """Raise where fmax or steps cannot be meant."""
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f'fmax is a positive force in eV/A; got {fmax!r}. The usual choice is 0.05.')
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f'steps is an integer, 0 (single point) or more; got {steps!r}.')


def make_settings(
    optimizer='BFGS', fmax=0.05, steps=200, filter=None, min_distance=0.4, max_energy=100.0, pbc=None, hessian=None
):
    """Return the settings of :func:`relax`, checked; the same errors."""
    settings = Settings(find_optimizer(optimizer), fmax, steps, find_filter(filter), min_distance, max_energy, pbc, hessian)
    check_numbers(fmax, steps)
    check_limits(min_distance=min_distance, max_energy=max_energy)
    if hessian is not None:
        _check_hessian(settings)
    return settings


def _check_hessian(settings):
    """Raise where a first Hessian could not be used."""
    from ase.optimize import BFGS

    kind = settings.optimizer
    if not (isinstance(kind, type) and issubclass(kind, BFGS)) or settings.filter is not None:
        raise ValueError(
            'A first Hessian is one of atoms for BFGS; it came together with '
            f'{optimizer_name(kind) if settings.filter is None else "a filter"}. Leave hessian=None, or take BFGS '
            'without a filter.'
        )
    check_calculator(settings.hessian)
