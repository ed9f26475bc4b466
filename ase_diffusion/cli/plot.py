"""Draw the structures of a file, or their energies."""

HELP = 'draw structures or energies'
KINDS = ('structures', 'ladder', 'histogram', 'denoising')


def add_arguments(parser, again):
    """Add the options of this verb."""
    parser.add_argument('images', nargs='+', metavar='FILE', help='structures; ladder and histogram compare files')
    parser.add_argument('-o', '--out', default='picture.png', metavar='FILE', help='.png, .pdf or .svg (picture.png)')
    parser.add_argument('--kind', choices=KINDS, default='structures', help='what to draw (structures)')
    parser.add_argument('-n', type=int, default=5, metavar='N', help='structures or frames shown (5)')
    parser.set_defaults(run=run)


def run(args):
    """Draw into a file."""
    import matplotlib

    matplotlib.use('Agg')
    from ase_diffusion.cli.common import read_images

    images = {path: read_images(path) for path in args.images}
    if args.kind in ('structures', 'denoising') and len(images) > 1:
        raise ValueError(f'{args.kind} are drawn from one file; got {len(images)}. Draw them one after the other.')
    if args.n < 1:
        raise ValueError(f'-n is the number of structures shown, 1 or more; got {args.n}.')
    figure = draw(args.kind, images, args.n)
    figure.savefig(args.out, dpi=200, bbox_inches='tight')
    print(f'picture: {args.out}')


def draw(kind, images, n):
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
