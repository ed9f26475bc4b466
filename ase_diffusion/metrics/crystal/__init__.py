"""Metrics of crystals: validity, uniqueness, novelty, match rate, distributions, stability."""

from __future__ import annotations

from ...utils.lazy import lazy_names

_HOME = {
    'evaluate': 'evaluation',
    'report_rows': 'evaluation',
    'evaluate_crystals': 'evaluation',
    'structural_validity': 'structures',
    'crystal_features': 'structures',
    'compositional_validity': 'composition',
    'crystal_duplicates': 'matching',
    'unique': 'matching',
    'novel': 'matching',
    'match_rate': 'matching',
    'structure_fingerprints': 'fingerprints',
    'composition_fingerprints': 'fingerprints',
    'crystal_fingerprints': 'distributions',
    'coverage': 'distributions',
    'wasserstein_distances': 'distributions',
    'ks_statistics': 'distributions',
    'success_rates': 'distributions',
    'property_values': 'distributions',
    'chgnet_energies': 'hull',
    'elemental_references': 'hull',
    'formation_energies': 'hull',
    'energies_above_hull': 'hull',
    'sun': 'hull',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
