"""Adsorption properties of a framework from the energy grid of a probe, at low pressure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.units import kB, kJ, mol
from numpy.typing import ArrayLike

from ..utils.checks import check_number

if TYPE_CHECKING:
    from ase import Atoms


__all__ = ['GAS_CONSTANT', 'KELVIN_TO_KJ_MOL', 'adsorption_properties', 'boltzmann_grid', 'framework_density']

GAS_CONSTANT = kB * mol / kJ * 1e3  # J/mol/K
KELVIN_TO_KJ_MOL = GAS_CONSTANT * 1e-3
VOID = 15.0  # kB T; points below this energy are void
AMU_PER_A3 = 1660.5390666  # kg/m^3


def as_mask(mask: ArrayLike, name: str = 'a mask') -> np.ndarray:
    """Return an array of bool; raise a ValueError for other numbers than 0 and 1, such as energies."""
    values = np.asarray(mask)
    if values.dtype != bool and not np.isin(values, (0, 1)).all():
        raise ValueError(
            f'{name} is true or false at every point, such as grid < 0 or accessible_mask(grid); got {values.dtype} numbers'
        )
    return values.astype(bool)


def adsorption_properties(
    grid: ArrayLike, temperature: float = 298.0, *, density: ArrayLike | None = None, accessible: ArrayLike | None = None
) -> dict[str, float] | dict[str, np.ndarray]:
    """Compute void fraction, Henry coefficient and heat of adsorption from energy grids.

    Parameters
    ----------
    grid : array_like
        ``(nx, ny, nz)`` or ``(n, nx, ny, nz)``: E / kB in K, from `energy_grid`.
    temperature : float
        Temperature in K.
    density : float or array_like of (n,), optional
        Density of the framework in kg/m^3 (`framework_density`); adds the Henry coefficient in mol/kg/Pa.
    accessible : array_like of bool, optional
        Mask of the shape of the grid; other points are forbidden (`accessible_mask`, blocking).

    Returns
    -------
    dict
        Floats, or ``(n,)`` arrays for a grid with four axes:

        void_fraction
            Share of points with E <= 15 kB T (and accessible).
        henry_coefficient
            mean exp(-E / kB T), unitless; 1 in an empty box. Paper eq. 7.
        henry_coefficient_mol_kg_pa
            henry_coefficient / (R T density); only with a density.
        heat_of_adsorption
            R (T - <E exp(-E / T)> / <exp(-E / T)>) in kJ/mol with E in K. Paper eq. 8. nan where nothing is void: the mean
            over a closed framework is that over overlapping atoms.

    Raises
    ------
    ValueError
        The grid has not three or four axes or has values that are not finite, or the temperature or density is not positive.

    Notes
    -----
    Equations of J. Mater. Chem. A 12, 6507 (2024).
    """
    energy = np.asarray(grid, np.float64)
    if energy.ndim not in (3, 4) or not energy.size:
        raise ValueError(f'an energy grid is (nx, ny, nz) or (n, nx, ny, nz) in K; got an array of shape {energy.shape}')
    if not np.isfinite(energy).all():
        raise ValueError('an energy grid is of finite numbers, in K; there are others in it (energy_grid makes none)')
    check_number('temperature', temperature, 'a positive number, in K')
    check_density(density, energy.shape[:-3])
    allowed = np.ones(energy.shape, bool) if accessible is None else as_mask(accessible, '`accessible`')
    if allowed.shape != energy.shape:
        raise ValueError(f'`accessible` has the shape of the grid, {energy.shape}; got {allowed.shape}')
    axes = (-3, -2, -1)
    low = np.where(allowed, energy, np.inf).min(axes, keepdims=True)
    low = np.where(np.isfinite(low), low, 0.0)  # nothing allowed
    weight = np.where(allowed, np.exp((low - np.where(allowed, energy, low)) / temperature), 0.0)  # no overflow
    total = weight.mean(axes)
    with np.errstate(over='ignore', under='ignore', invalid='ignore', divide='ignore'):
        henry = np.exp(-low[..., 0, 0, 0] / temperature) * total
        heat = KELVIN_TO_KJ_MOL * (temperature - (weight * np.where(allowed, energy, 0.0)).mean(axes) / total)
    void = ((energy <= VOID * temperature) & allowed).mean(axes)
    heat = np.where(void > 0, heat, np.nan)
    found = {
        'void_fraction': void,
        'henry_coefficient': henry,
        'heat_of_adsorption': heat,
    }
    if density is not None:
        found['henry_coefficient_mol_kg_pa'] = henry / (GAS_CONSTANT * temperature * np.asarray(density, float))
    return {name: float(value) if energy.ndim == 3 else value for name, value in found.items()}


def check_density(density: ArrayLike | None, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless a density is None, a positive number, or as many as there are grids, (n,)."""
    try:
        values = np.asarray(1.0 if density is None else density, float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape not in ((), shape) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f'a density is positive, in kg/m^3, one number or one for each grid; got {density!r}')


def boltzmann_grid(grid: ArrayLike, temperature: float = 298.0) -> np.ndarray:
    """Return exp(-E / kB T) of an energy grid in K, dimensionless, in its dtype."""
    return np.exp(-np.asarray(grid) / temperature)


def framework_density(atoms: Atoms) -> float:
    """Return the density of a structure in kg/m^3."""
    return float(atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3)
