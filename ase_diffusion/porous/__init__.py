"""Porous frameworks: energy grids of probes, density grids, adsorption properties.

Names are imported at their first use; torch and numba are needed only to compute grids.
"""

from ..utils.lazy import lazy_names

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
    'Restoration': 'silica',
    'framework_from_grid': 'silica',
    'check_framework': 'silica',
    'relax_framework': 'silica',
    'coordination_sequences': 'nets',
    'net_hash': 'nets',
    'Probe': 'parameters',
    'PROBES': 'parameters',
    'SILICA': 'parameters',
    'UFF': 'parameters',
    'pair_parameters': 'parameters',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
