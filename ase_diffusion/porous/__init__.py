"""Porous frameworks: energy grids of probes, density grids, adsorption properties.

The names are imported at their first use: neither torch nor numba is needed before a grid is computed.
"""

from importlib import import_module

_HOME = {
    'energy_grid': 'lennard_jones',
    'iter_energy_grids': 'lennard_jones',
    'density_grid': 'lennard_jones',
    'interaction': 'lennard_jones',
    'torch_grid': 'torch_backend',
    'adsorption_properties': 'adsorption',
    'boltzmann_grid': 'adsorption',
    'framework_density': 'adsorption',
    'GAS_CONSTANT': 'adsorption',
    'KELVIN_TO_KJ_MOL': 'adsorption',
    'accessible_mask': 'blocking',
    'find_channels': 'blocking',
    'GridCalculator': 'calculator',
    'write_cube': 'cube',
    'Probe': 'parameters',
    'PROBES': 'parameters',
    'SILICA': 'parameters',
    'UFF': 'parameters',
    'pair_parameters': 'parameters',
}
__all__ = list(_HOME)


def __getattr__(name):
    """Import a public name at its first use."""
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
    value = getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
