"""The methods of the command line: one row each. A row is all that a new method adds here."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_diffusion.generators.base import Generator


@dataclass(frozen=True)
class Method:
    """One method of ``sample`` and ``train``; everything is imported when it is used.

    Parameters
    ----------
    generator : str
        ``'module:class'``, a subclass of :class:`ase_diffusion.generators.base.Generator`.
    help : str
        One line for ``--help``.
    out : str
        Default file of ``sample``.
    options : str, optional
        Module of this package with more options: ``add_sample(parser)``, ``make(cls, args, **options) -> generator``,
        ``add_train(parser)``, ``train(args, **options) -> Path``, ``next_step(args, best) -> command``; all but the
        first two may be left out.
    """

    generator: str
    help: str
    out: str = 'structures.traj'
    options: str | None = None

    def load(self) -> type[Generator]:
        """Return the class of the generator."""
        module, _, name = self.generator.partition(':')
        return getattr(import_module(module), name)

    def module(self) -> ModuleType | None:
        """Return the module with more options."""
        return None if self.options is None else import_module(self.options)

    def add(self, what: str, parser: ArgumentParser) -> None:
        """Add the options of the method, ``what`` = 'sample' or 'train'."""
        if (function := getattr(self.module(), f'add_{what}', None)) is not None:
            function(parser)

    def make(self, args: Namespace, **options: Any) -> Generator:
        """Return the generator of parsed arguments."""
        module = self.module()
        return self.load()(**options) if module is None else module.make(self.load(), args, **options)

    def train(self, args: Namespace, **options: Any) -> Path:
        """Train as the arguments say; return the path of the best checkpoint."""
        if hasattr(self.module(), 'train'):
            return self.module().train(args, **options)
        for name in ('network', 'header'):
            options.pop(name, None)
        generator = self.load()(model=args.init or 'untrained', logfile=None)
        generator.fit(args.data, args.out, **options)
        return Path(args.out) / 'best.safetensors'


METHODS = {
    'surface': Method(
        'ase_diffusion.generators.surface:SurfaceDiffusion',
        'overlayers on a fixed slab',
        'overlayers.traj',
        'ase_diffusion.cli.surface_options',
    ),
    'crystal': Method(
        'ase_diffusion.generators.crystal:CrystalDiffusion',
        'crystals: lattice, coordinates, species',
        'crystals.traj',
        'ase_diffusion.cli.crystal_options',
    ),
    'pointcloud': Method(
        'ase_diffusion.generators.pointcloud:PointCloudDiffusion',
        'crystals of one to three given elements',
        'crystals.traj',
        'ase_diffusion.cli.pointcloud_options',
    ),
    'zeolite': Method(
        'ase_diffusion.generators.zeolite:ZeoliteDiffusion',
        'SiO2 frameworks: cell, space group, grids',
        'zeolites.traj',
        'ase_diffusion.cli.zeolite_options',
    ),
    'crystens': Method(
        'ase_diffusion.generators.crystens:CrysTensDiffusion',
        'crystals of at most 52 atoms as images',
        'crystens.traj',
        'ase_diffusion.cli.crystens_options',
    ),
}
