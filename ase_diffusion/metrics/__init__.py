"""Measures of lists of Atoms, whoever made them: validity, duplicates, energies, success, the Ag6 model."""
from importlib import import_module

_HOME = {
    'mobile_mask': 'surface',
    'smallest_ratio': 'surface',
    'is_valid': 'surface',
    'validity': 'surface',
    'fingerprint': 'surface',
    'duplicates': 'surface',
    'relative_energies': 'surface',
    'success_curve': 'surface',
    'substrate_symmetries': 'surface',
    'ag6_model': 'ag6',
    'is_ag6': 'ag6',
}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__():
    return sorted([*globals(), *__all__])
