"""Translations between ase.Atoms and tensors, without any learning."""

from .base import Failure, Representation
from .crystal import Crystal, LogLatticeCrystal
from .slab import Slab

REPRESENTATIONS: dict[str, type] = {cls.__name__: cls for cls in (Slab, Crystal, LogLatticeCrystal)}


def representation_from_dict(values: dict) -> Representation:
    """Rebuild a representation from its ``todict()``; only the classes of :data:`REPRESENTATIONS` are accepted.

    Raises
    ------
    ValueError
        The name is unknown.
    """
    name = values.get('name')
    if name not in REPRESENTATIONS:
        raise ValueError(f'expected: a representation is one of {", ".join(sorted(REPRESENTATIONS))}, got {name!r}')
    return REPRESENTATIONS[name].fromdict(values)


__all__ = [
    'REPRESENTATIONS',
    'Crystal',
    'Failure',
    'LogLatticeCrystal',
    'Representation',
    'Slab',
    'representation_from_dict',
]
