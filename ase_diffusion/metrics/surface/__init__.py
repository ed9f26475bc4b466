"""Metrics of overlayers on a frozen substrate: validity, duplicates, energies, success; the Ag6 model of p(4x4)-O/Ag(111)."""

from __future__ import annotations

from ...utils.lazy import lazy_names

_HOME = {
    'evaluate': 'evaluation',
    'report_rows': 'evaluation',
    'mobile_mask': 'overlayers',
    'min_distance_ratio': 'overlayers',
    'is_valid': 'overlayers',
    'validity': 'overlayers',
    'fingerprint': 'overlayers',
    'duplicates': 'overlayers',
    'Distinct': 'overlayers',
    'relative_energies': 'overlayers',
    'success_curve': 'overlayers',
    'substrate_symmetries': 'overlayers',
    'ag6_model': 'ag6',
    'is_ag6': 'ag6',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
