"""Sample, relax and collect the different structures in one database. The same line goes on where it was stopped."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

HELP = 'sample, relax and collect structures for hours'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    from ase_diffusion.cli.conditions import add_conditions
    from ase_diffusion.cli.methods import METHODS

    METHODS['surface'].add('sample', parser)
    parser.add_argument('--model', metavar='NAME', help='shipped model or .safetensors file (ag-o-overlayer)')
    parser.add_argument(
        '--sampler',
        metavar='NAME',
        help='renoised_ancestral, predictor_corrector, ancestral, euler_maruyama, ddim, heun or dpmpp_2m',
    )
    add_conditions(parser)
    parser.add_argument('-n', type=int, default=100, metavar='N', help='structures in all (100)')
    parser.add_argument(
        '--calculator',
        metavar='CALC',
        help='ag-o, emt, lj, 7net-mf-0, 7net-0, chgnet, gpaw, vasp or a .safetensors file (ag-o where it knows the structures, '
        'else 7net-mf-0 or chgnet as installed)',
    )
    parser.add_argument('--db', default='search.db', metavar='DB', help='*.db or postgresql://user@host/name (search.db)')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='processes that relax; 0: this one (1)')
    parser.add_argument('--scheduler', metavar='ADDRESS', help='of dask, in place of local processes, tcp://...')
    parser.add_argument('--denoising-steps', type=int, metavar='N', help='of the sampler (50)')
    parser.add_argument(
        '--best-of',
        type=int,
        metavar='K',
        help='relax only the best of K candidates, by the energy of a shipped force field, or of --prerelax after that (1)',
    )
    parser.add_argument('--prerelax', metavar='CALC', help='relax with a cheap potential first, such as ag-o')
    parser.add_argument('--optimizer', metavar='NAME', help='of ase.optimize (BFGS)')
    parser.add_argument('--fmax', type=float, metavar='F', help='force at the end, eV/A (0.05)')
    parser.add_argument('--steps', type=int, metavar='N', help='most steps of a relaxation (200)')
    parser.add_argument('--timeout', type=float, metavar='S', help='seconds for a relaxation; then it is given up')
    parser.add_argument('--directory', metavar='DIR', help='where GPAW and VASP write (here)')
    parser.add_argument('--retry-failed', action='store_true', help='try those again that failed')
    parser.add_argument('--seed', type=int, help='same seed, same search')
    parser.add_argument('--device', help='of the sampler: cpu, cuda, ...')
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Bring a search to n structures."""
    from ase_diffusion.calculators.default import check_installed
    from ase_diffusion.calculators.names import check_calculator
    from ase_diffusion.cli.common import command, given
    from ase_diffusion.cli.conditions import check_names, parse_conditions
    from ase_diffusion.cli.methods import METHODS
    from ase_diffusion.search import StructureSearch
    from ase_diffusion.search.executors import check_workers

    check_names(args)
    for calculator in filter(None, (args.calculator, args.prerelax)):
        check_calculator(calculator)
        check_installed(calculator)
    if args.scheduler is None:
        check_workers(args.workers)
    options = given(args, 'best_of') | ({} if args.denoising_steps is None else {'steps': args.denoising_steps})
    if args.prerelax:
        options['relax'] = {'calculator': args.prerelax}
    options |= given(args, 'model', 'sampler', 'device')
    generator = METHODS['surface'].make(args, logfile=None, **options)
    conditions = parse_conditions(generator, args)
    search = StructureSearch(
        generator,
        args.db,
        args.calculator,
        conditions=conditions,
        rng=args.seed,
        workers=args.workers,
        client=connect(args.scheduler),
        retry_failed=args.retry_failed,
        **given(args, 'optimizer', 'fmax', 'steps', 'timeout', 'directory'),
    )
    try:
        images = search.run(args.n)
    except KeyboardInterrupt:
        print(f'stopped; what was done is in {search.store.name}, and the same line goes on')
        return 130
    if not images:
        print('next: the same line with --retry-failed tries those that failed again')
        return 1
    look = command('ase', 'gui', f'{args.db}@unique=1')
    print(f'next: {command("ase", "db", search.store.name)} unique=1 -s energy   or: {look}')
    return 0


def connect(address: str | None) -> Client | None:
    """Return a client of a running dask scheduler, None without an address."""
    if address is None:
        return None
    from ase_diffusion.errors import MissingDependency

    try:
        from distributed import Client
    except ModuleNotFoundError as err:
        raise MissingDependency('dask[distributed]', 'search') from err
    return Client(address)
