"""Options of overlayers for ``sample``, ``search`` and ``train``."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentParser, Namespace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_diffusion.cli.common import add_height, add_slab, command, given, pairs_of, read_images, read_slab
from ase_diffusion.cli.conditions import name_and_text

if TYPE_CHECKING:
    from ase import Atoms

    from ase_diffusion import SurfaceDiffusion
    from ase_diffusion.training import Overlayers


def add_sample(parser: ArgumentParser) -> None:
    """Add what says which overlayers are sampled: slab, formula, window, force guidance, energy."""
    add_slab(parser)
    parser._negative_number_matcher = re.compile(r'-\.?\d')  # ranges such as -0.1:0.1 are values, no options
    parser.add_argument('--stoich', metavar='FORMULA', help='new atoms, such as Ag12O6')
    parser.add_argument(
        '--molecules', nargs='+', metavar='NAME', help='new molecules, such as CO CO H2O; they keep their geometry'
    )
    parser.add_argument(
        '--energy',
        dest='condition',
        action='append',
        default=[],
        type=energy,
        metavar='E',
        help='short for --condition energy=E: eV per mobile atom above the best of the composition, or LOW:HIGH; none: any (0)',
    )
    parser.add_argument('--generate-slab', action='store_true', help='generate slab atoms that are not fixed, too')
    parser.add_argument('--force-guidance', action='store_true', help='follow the forces of the shipped force field')
    add_height(parser)


def energy(text: str) -> tuple[str, str]:
    """Return the condition of --energy E: a number, a range or none."""
    if text.lower() != 'none':
        try:
            [float(part) for part in text.split(':')]
        except ValueError:
            raise argparse.ArgumentTypeError(f'a number, a range LOW:HIGH or none, not {text!r}') from None
    return name_and_text(f'energy={text}')


def make(cls: type[SurfaceDiffusion], args: Namespace, **options: Any) -> SurfaceDiffusion:
    """Return the generator of the arguments."""
    options |= given(args, 'height', 'molecules')
    if args.generate_slab:
        options['generate_slab'] = True
    if args.force_guidance:
        options['guidance'] = True
    return cls(read_slab(args), args.stoich, **options)


def add_train(parser: ArgumentParser) -> None:
    """Add the options of a training."""
    add_data(parser)
    parser.add_argument('--repeat', type=float, metavar='SHARE', help='share repeated in the plane (0.25)')
    parser.add_argument(
        '--max-relative',
        type=float,
        metavar='E',
        help='leave out what is higher above the best of its composition, eV per mobile atom',
    )
    add_height(parser)


def add_data(parser: ArgumentParser) -> None:
    """Add data and sizes of networks on overlayers."""
    parser.add_argument('data', nargs='+', metavar='DATA', help='.npz, .db, .traj, .extxyz: overlayers on fixed slabs')
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (64)')
    parser.add_argument('--blocks', type=int, metavar='N', help='message passing steps')
    parser.add_argument('--cutoff', type=float, metavar='R', help='A (6)')


def train(args: Namespace, **options: Any) -> Path:
    """Train the denoiser; return the path of the best checkpoint."""
    from ase_diffusion.training.surface import train_surface

    options.pop('header', None)
    more = given(args, 'features', 'blocks', 'cutoff', 'repeat', 'max_relative', 'height')
    return train_surface(read_data(args.data), args.out, **options, **more)


def read_data(paths: list[str]) -> Overlayers:
    """Return the data set of all files, and tell its size."""
    from ase_diffusion.training import Overlayers

    data = Overlayers.from_atoms(read_frames_of(paths))
    relaxations = len({item.run for item in data.items})
    print(f'{len(data.items)} structures of {relaxations} relaxations from {", ".join(paths)}')
    return data


def read_frames_of(paths: list[str]) -> list[Atoms]:
    """Return the frames of all files; the relaxations of different files stay different ones."""
    images, offset = [], 0
    for path in paths:
        frames = read_images(path)
        numbered = [pairs_of(atoms) for atoms in frames if isinstance(pairs_of(atoms).get('run'), Integral)]
        highest = max((pairs['run'] for pairs in numbered), default=-1)
        for pairs in numbered:
            pairs['run'] += offset
        offset += highest + 1
        images += frames
    return images


def next_step(args: Namespace, best: Path) -> str:
    """Return a command that samples with the trained model, on the slab of the last structure, written beside the model."""
    import ase.io
    import numpy as np

    from ase_diffusion.utils.atoms import mobile_mask

    finite = [atoms for atoms in read_frames_of(args.data) if np.isfinite(atoms.positions).all()]
    atoms = next(atoms for atoms in reversed(finite) if 0 < mobile_mask(atoms).sum() < len(atoms))
    mobile = mobile_mask(atoms)
    slab, path = atoms[~mobile], Path(best).with_name('slab.traj')
    ase.io.write(path, slab)
    stoich = atoms[mobile].get_chemical_formula()
    return command('ase-diffusion', 'sample', 'surface', path, '--stoich', stoich, '--model', best)
