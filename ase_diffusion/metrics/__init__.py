"""Metrics of lists of Atoms, by kind of structure: `metrics.surface` and `metrics.crystal`.

Each namespace has ``evaluate(images, reference=None, ...) -> dict`` (plain numbers for JSON) and ``report_rows(report)`` (a
table). Single metrics are found in the namespaces and here. `report_rows` here is that of crystals.
"""

from __future__ import annotations

from ..utils.lazy import lazy_names

_SURFACE = (
    'mobile_mask',
    'min_distance_ratio',
    'is_valid',
    'validity',
    'fingerprint',
    'duplicates',
    'Distinct',
    'relative_energies',
    'success_curve',
    'substrate_symmetries',
    'ag6_model',
    'is_ag6',
)
_CRYSTAL = (
    'structural_validity',
    'crystal_features',
    'compositional_validity',
    'crystal_duplicates',
    'unique',
    'novel',
    'match_rate',
    'structure_fingerprints',
    'composition_fingerprints',
    'crystal_fingerprints',
    'coverage',
    'wasserstein_distances',
    'ks_statistics',
    'success_rates',
    'property_values',
    'chgnet_energies',
    'elemental_references',
    'formation_energies',
    'energies_above_hull',
    'sun',
    'evaluate_crystals',
    'report_rows',
)
_HOME = {**dict.fromkeys(_SURFACE, 'surface'), **dict.fromkeys(_CRYSTAL, 'crystal'), 'surface': None, 'crystal': None}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
