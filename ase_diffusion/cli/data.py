"""Make training data by random structure search, grow silica frameworks, and convert files of frames."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ase_diffusion.data.starts import Composition

HELP = 'make and convert training data'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    _add_rss(
        actions.add_parser(
            'rss',
            parents=[again],
            help='random structure search into an ASE database',
            description='Relax random overlayers, keep every frame. The same line goes on.',
        )
    )
    _add_convert(
        actions.add_parser(
            'convert',
            parents=[again],
            help='thin a search, or convert frames',
            description='Convert frames to .npz (compact), .db, .traj or .extxyz.',
        )
    )
    _add_zeolites(
        actions.add_parser(
            'zeolites',
            parents=[again],
            help='grow silica frameworks',
            description='Grow distinct silica frameworks with little strain from random symmetric T nets. The same line goes on.',
        )
    )


def _add_zeolites(parser):
    parser.add_argument('out', metavar='FILE', help='.npz; where it exists the growth goes on')
    parser.add_argument('--minutes', type=float, metavar='M', help='wall time')
    parser.add_argument('-n', type=int, metavar='N', help='frameworks in the file')
    parser.add_argument('--sizes', type=int, nargs=2, metavar=('LOW', 'HIGH'), help='range of T sites in a cell')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='processes (1); the frameworks do not depend on it')
    parser.add_argument('--seed', type=int, help='of a new file: same seed, same frameworks')
    parser.set_defaults(run=run_zeolites)


def _add_rss(parser):
    from ase_diffusion.cli.common import add_height, add_slab

    add_slab(parser)
    parser.add_argument(
        '--stoich',
        required=True,
        nargs='+',
        action='extend',
        metavar='FORMULA',
        help='Ag6O3; or several to draw from; or ranges such as Ag:4-6,O:2-5',
    )
    parser.add_argument('-n', type=int, default=100, metavar='N', help='relaxations in all (100)')
    parser.add_argument(
        '--calculator',
        metavar='CALC',
        help='emt, ag-o, 7net-mf-0, ... (ag-o where it knows them, else 7net-mf-0 or chgnet as installed)',
    )
    parser.add_argument('--db', default='rss.db', metavar='FILE', help='ASE database (rss.db)')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='processes (1)')
    add_height(parser, above='slab')
    parser.add_argument('--ratio', type=float, metavar='X', help='smallest distance / sum of covalent radii (0.7)')
    parser.add_argument('--optimizer', metavar='NAME', help='of ase.optimize (BFGS)')
    parser.add_argument('--fmax', type=float, metavar='F', help='eV/A (0.05)')
    parser.add_argument('--steps', type=int, metavar='N', help='most steps of a relaxation (300)')
    parser.add_argument('--seed', type=int, help='same seed, same search')
    parser.set_defaults(run=run_rss)


def _add_convert(parser):
    from ase_diffusion.cli.common import add_force

    parser.add_argument('source', metavar='FILE', help='.db, .npz, .traj, .extxyz, ...')
    parser.add_argument('out', metavar='OUT', help='.npz, .db, .traj, .extxyz, ...')
    parser.add_argument(
        '--every',
        metavar='N',
        help='frames kept of a relaxation (search to .npz): every N-th, or geometric (default)',
    )
    add_force(parser)
    parser.set_defaults(run=run_convert)


def run_rss(args: Namespace) -> int | None:
    """Bring a search to n relaxations."""
    from ase_diffusion.cli.common import command, given, read_slab
    from ase_diffusion.search import RandomStructureSearch

    options = given(args, 'height', 'ratio', 'optimizer', 'fmax', 'steps')
    search = RandomStructureSearch(
        read_slab(args),
        parse_stoich(args.stoich),
        args.calculator,
        database=args.db,
        workers=args.workers,
        rng=args.seed,
        **options,
    )
    try:
        search.run(args.n)
    except KeyboardInterrupt:
        print(f'stopped; what was done is in {args.db}, and the same line goes on')
        return 130
    convert = command('ase-diffusion', 'data', 'convert', args.db, 'frames.npz')
    print(f'next: {convert} && ase-diffusion train surface frames.npz --out model')


def run_zeolites(args: Namespace) -> int | None:
    """Grow frameworks until the time is up or there are n."""
    from pathlib import Path

    from ase_diffusion.cli.common import command, given
    from ase_diffusion.data.zeolites import grow_frameworks
    from ase_diffusion.utils.checks import check_folder, check_integer

    if Path(args.out).suffix != '.npz':
        raise ValueError(f'frameworks are grown into a .npz file; got {args.out}')
    check_folder('out', args.out)
    if args.n is not None:
        check_integer('n', args.n, 1)
    options = given(args, 'minutes', 'sizes') | {'count': args.n, 'rng': args.seed, 'processes': args.workers}
    try:
        counts = grow_frameworks(args.out, progress=lambda done: print(f'{done["found"]} frameworks', flush=True), **options)
    except KeyboardInterrupt:
        print(f'stopped; what was grown is in {args.out}, and the same line goes on')
        return 130
    print(', '.join(f'{count} {name}' for name, count in counts.items()))
    print(f'next: {command("ase-diffusion", "train", "zeolite", args.out, "--out", "model")}')


def parse_stoich(texts: list[str]) -> Composition:
    """Return a formula, a list of formulas or a dict of ranges from the words of the command line."""
    if len(texts) > 1:
        return texts
    if ':' not in texts[0]:
        return texts[0]
    ranges = {}
    for part in texts[0].split(','):
        symbol, _, counts = part.strip().partition(':')
        low, _, high = counts.partition('-')
        if not symbol or not low.isdigit() or not (high or low).isdigit():
            raise ValueError(f'ranges read like Ag:4-6,O:2-5 (ends included); got {texts[0]!r}')
        ranges[symbol] = (int(low), int(high or low))
    return ranges


def run_convert(args: Namespace) -> None:
    """Convert a file of frames."""
    from pathlib import Path

    from ase_diffusion.cli.common import Output, read_images
    from ase_diffusion.data import frames_to_npz

    every = check_every(args.every or 'geometric')
    out = Output(args.out, args.force)
    search = Path(args.source).suffix == '.db' and out.path.suffix == '.npz' and _is_search(args.source)
    if args.every is not None and not search:
        raise ValueError('--every thins the frames of a random search (.db) on their way into a .npz; leave it out here')
    if search:
        count = frames_to_npz(args.source, out.path, every)
    else:
        images = read_images(args.source)
        with out.expect(len(images), source=args.source):
            for atoms in images:
                out.write(atoms)
        count = len(images)
    print(f'{count} frames in {args.out} ({out.path.stat().st_size / 1e6:.2f} MB)')


def check_every(text: str) -> int | Literal['geometric']:
    """Return N of --every N, or 'geometric'."""
    if text == 'geometric':
        return text
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f'--every is a number of frames, 1 or more, or geometric; got {text!r}')
    return int(text)


def _is_search(path):
    """Tell whether a database was written by a random structure search."""
    from pathlib import Path

    from ase.db import connect

    return Path(path).is_file() and 'random_search' in connect(path, use_lock_file=False).metadata
