"""Diffusion models that generate atomic structures, for ASE.

The public names are imported when they are first used, so that ``import ase_diffusion`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers find; a test holds it against _PUBLIC
    from . import metrics as metrics
    from . import plot as plot
    from .generators.crystal import CrystalDiffusion as CrystalDiffusion
    from .generators.crystens import CrysTensDiffusion as CrysTensDiffusion
    from .generators.pointcloud import PointCloudDiffusion as PointCloudDiffusion
    from .generators.surface import SurfaceDiffusion as SurfaceDiffusion
    from .generators.zeolite import ZeoliteDiffusion as ZeoliteDiffusion
    from .weights.zoo import list_models as list_models
    from .weights.zoo import load_model as load_model

__version__ = '0.1.0'

# public name -> the module that has it; a room of the package stands for itself
_PUBLIC = {
    'SurfaceDiffusion': 'ase_diffusion.generators.surface',
    'CrystalDiffusion': 'ase_diffusion.generators.crystal',
    'PointCloudDiffusion': 'ase_diffusion.generators.pointcloud',
    'ZeoliteDiffusion': 'ase_diffusion.generators.zeolite',
    'CrysTensDiffusion': 'ase_diffusion.generators.crystens',
    'load_model': 'ase_diffusion.weights.zoo',
    'list_models': 'ase_diffusion.weights.zoo',
    'metrics': 'ase_diffusion.metrics',
    'plot': 'ase_diffusion.plot',
}
__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(_PUBLIC)}')
    path = _PUBLIC[name]
    module = import_module(path)
    value = module if path == f'{__name__}.{name}' else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what is there and what would be imported."""
    return sorted({*globals(), *__all__})
