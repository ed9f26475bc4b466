"""Translations between ase.Atoms and tensors, without any learning."""

from .base import Failure, Representation
from .crystal import Crystal, LogLatticeCrystal
from .crystens import CrysTens
from .pointcloud import PointCloud
from .slab import Slab
from .voxels import Voxels

REPRESENTATIONS: dict[str, type[Representation]] = {
    cls.__name__: cls for cls in (Slab, Crystal, LogLatticeCrystal, CrysTens, PointCloud, Voxels)
}


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
    'CrysTens',
    'Crystal',
    'Failure',
    'LogLatticeCrystal',
    'PointCloud',
    'Representation',
    'Slab',
    'Voxels',
    'representation_from_dict',
]
