"""Draw the structures of a file, or their energies or properties."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

HELP = 'draw structures, energies or properties'
KINDS = ('structures', 'crystals', 'ladder', 'histogram', 'property', 'denoising')
COMPARED = ('ladder', 'histogram', 'property')


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    from ase_diffusion.cli.common import add_force

    parser.add_argument('images', nargs='+', metavar='FILE', help='structures; ladder, histogram and property compare files')
    parser.add_argument('-o', '--out', metavar='FILE', help='.png, .pdf or .svg (picture.png)')
    add_force(parser)
    parser.add_argument('--kind', choices=KINDS, default='structures', help='what to draw (structures)')
    parser.add_argument('-n', type=int, metavar='N', help='structures or frames shown (5; 16 crystals)')
    crystals = parser.add_argument_group('crystals and property')
    crystals.add_argument('--property', metavar='NAME', help='property that the structures carry, such as formation_energy')
    crystals.add_argument('--reference', metavar='DATA', help='data set whose distribution of the property is drawn in grey')
    crystals.add_argument('--target', type=float, metavar='X', help='value that was asked for; default: what the structures say')
    crystals.add_argument(
        '--directions',
        nargs='+',
        metavar='DIR',
        choices=('auto', 'a', 'b', 'c'),
        help='views, a row for each: auto (default), a, b, c',
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Draw into a file."""
    import matplotlib

    matplotlib.use('Agg')
    from ase_diffusion.cli.common import check_picture, chosen_path, read_images
    from ase_diffusion.cli.evaluate import read

    args.out = chosen_path(args.out, 'picture.png', args.force)
    check_picture(args.out, args.force)
    if args.n is not None and args.n < 1:
        raise ValueError(f'-n is the number of structures shown, 1 or more; got {args.n}')
    if args.kind not in COMPARED and len(args.images) > 1:
        raise ValueError(f'{args.kind} are drawn from one file; got {len(args.images)}; draw them one after the other')
    if args.kind == 'property' and args.property is None:
        raise ValueError('a histogram of a property needs its name: --property NAME')
    of_crystals = args.kind in ('crystals', 'property')
    images = {path: read(path, None, '') if of_crystals else read_images(path) for path in args.images}
    if args.kind == 'crystals':
        figure = crystals(next(iter(images.values())), args)
    elif args.kind == 'property':
        figure = histogram(images, args)
    else:
        figure = draw(args.kind, images, args.n or 5)
    figure.savefig(args.out, dpi=200, bbox_inches='tight')
    print(f'picture: {args.out}')


def crystals(images: list[Atoms], args: Namespace) -> Figure:
    """Return the grid of unit cells, labelled by formula and property."""
    from ase_diffusion import plot

    options = {} if args.directions is None else {'directions': tuple(args.directions)}
    return plot.plot_composition_grid(images, prop=args.property, count=args.n or 16, **options)


def histogram(images: dict[str, list[Atoms]], args: Namespace) -> Figure:
    """Return the histogram of a property; `images` maps names of files to their structures."""
    from ase_diffusion import metrics, plot
    from ase_diffusion.cli.evaluate import read
    from ase_diffusion.plot.properties import asked_for

    values = {name: metrics.property_values(each, args.property) for name, each in images.items()}
    data = None if args.reference is None else metrics.property_values(read(args.reference, None, ''), args.property)
    everything = [atoms for each in images.values() for atoms in each]
    target = asked_for(everything, args.property) if args.target is None else args.target
    label = plot.property_label(args.property)
    return plot.plot_property_histogram(values, data, target=target, xlabel=label).figure


def draw(kind: str, images: dict[str, list[Atoms]], n: int) -> Figure:
    """Return the figure of a kind; `images` maps names of files to their structures."""
    from ase_diffusion import plot
    from ase_diffusion.cli.common import energy_of

    first = next(iter(images.values()))
    if kind == 'denoising':
        return plot.plot_denoising_strip(first, count=n)
    if kind == 'structures':
        import math

        labels = [f'{energy_of(a):.3f} eV' if math.isfinite(energy_of(a)) else f'#{k}' for k, a in enumerate(first[:n])]
        return plot.plot_structures(first[:n], labels=labels)
    energies = {name: [energy_of(atoms) for atoms in each] for name, each in images.items()}
    function = plot.plot_energy_ladder if kind == 'ladder' else plot.plot_energy_histogram
    return function(energies).figure
