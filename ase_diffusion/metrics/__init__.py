"""Measures of lists of Atoms, whoever made them: validity, duplicates, energies, success, the Ag6 model; crystals."""
from importlib import import_module

_HOME = {
    'mobile_mask': 'surface',
    'smallest_ratio': 'surface',
    'is_valid': 'surface',
    'validity': 'surface',
    'fingerprint': 'surface',
    'duplicates': 'surface',
    'Distinct': 'surface',
    'relative_energies': 'surface',
    'success_curve': 'surface',
    'substrate_symmetries': 'surface',
    'ag6_model': 'ag6',
    'is_ag6': 'ag6',
    'structural_validity': 'crystals',
    'crystal_features': 'crystals',
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
    'evaluate_crystals': 'evaluation',
    'report_rows': 'evaluation',
}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__():
    return sorted([*globals(), *__all__])
