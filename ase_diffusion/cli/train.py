"""Train a model on your own data; a run that was interrupted goes on with the same line."""

HELP = 'train a model or a force field'
SHARED = (
    'steps',
    'minutes',
    'features',
    'blocks',
    'cutoff',
    'batch_size',
    'lr',
    'seed',
    'devices',
    'accelerator',
    'precision',
    'every',
)


def add_arguments(parser, again):
    """Add the options of this verb."""
    kinds = parser.add_subparsers(dest='kind', metavar='KIND', required=True)
    common = {'description': __doc__, 'parents': [again]}
    surface = kinds.add_parser('surface', help='the diffusion model of overlayers', **common)
    _add_shared(surface)
    surface.add_argument('--repeat', type=float, metavar='SHARE', help='share repeated in the plane (0.25)')
    surface.add_argument(
        '--max-relative',
        type=float,
        metavar='E',
        help='leave out what is higher above the best of its composition, eV per mobile atom',
    )
    from ase_diffusion.cli.common import add_height

    add_height(surface)
    field = kinds.add_parser('forcefield', help='energies and forces', **common)
    _add_shared(field)
    field.add_argument('--max-force', type=float, metavar='F', help='leave out what has larger forces, eV/A (40)')
    for each in (surface, field):
        each.set_defaults(run=run)
    crystal = kinds.add_parser('crystal', help='the diffusion model of crystals', **common)
    _add_crystal(crystal)
    crystal.set_defaults(run=run_crystal)


def _add_shared(parser):
    parser.add_argument('data', nargs='+', metavar='DATA', help='.npz, .db, .traj, .extxyz: overlayers on fixed slabs')
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (64)')
    parser.add_argument('--blocks', type=int, metavar='N', help='message passing steps')
    parser.add_argument('--cutoff', type=float, metavar='R', help='A (6)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='structures per step (16)')
    _add_common(parser)


def _add_common(parser):
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for best.safetensors, last.safetensors, log.csv')
    parser.add_argument(
        '--init', metavar='MODEL', help='model to start from, shipped or a .safetensors file; its width, blocks and cutoff hold'
    )
    parser.add_argument('--steps', type=int, metavar='N', help='training steps (20000)')
    parser.add_argument('--minutes', type=float, metavar='M', help='stop after this time')
    parser.add_argument('--lr', type=float, help='learning rate (0.001)')
    parser.add_argument('--every', type=int, metavar='N', help='steps between validations (1000)')
    parser.add_argument('--seed', type=int, help='of weights, split and noise (0)')
    parser.add_argument('--compile', action='store_true', help='compile the network (needs a C++ compiler)')
    parser.add_argument('--accelerator', metavar='NAME', help='auto, cpu, gpu, ...')
    parser.add_argument('--devices', type=int, metavar='N', help='how many of them (1)')
    parser.add_argument('--precision', metavar='NAME', help='32-true, bf16-mixed, ... as Lightning names it')
    parser.add_argument('--quiet', action='store_true', help='no progress bar')


def run(args):
    """Train into a folder."""
    import logging

    from ase_diffusion.cli.common import given

    logging.basicConfig(format='%(message)s')
    logging.getLogger('ase_diffusion').setLevel(logging.INFO)
    options = given(args, *SHARED)
    images = read_data(args.data)
    from ase_diffusion.training import Overlayers
    from ase_diffusion.training.surface import train_forcefield, train_surface

    data = Overlayers.from_atoms(images)
    relaxations = len({item.run for item in data.items})
    print(f'{len(data.items)} structures of {relaxations} relaxations from {", ".join(args.data)}')
    options.update(compile_network=args.compile, progress=not args.quiet)
    if args.init:
        options['network'], _ = start_from(args.init, args.kind)
    if args.kind == 'surface':
        best = train_surface(data, args.out, **options, **given(args, 'repeat', 'max_relative', 'height'))
        then = f'ase-diffusion sample surface slab.traj --stoich ... --model {best}'
    else:
        best = train_forcefield(data, args.out, **options, **given(args, 'max_force'))
        then = f'ase-diffusion relax structures.traj --calculator {best}'
    print(f'best model: {best}\nnext: {then}')


def _add_crystal(parser):
    parser.add_argument(
        'data',
        metavar='DATA',
        help='.npz, .csv with a column cif, a folder of such, .db, or what ASE reads; their splits are kept',
    )
    parser.add_argument(
        '--split',
        nargs='+',
        default=['train'],
        metavar='NAME',
        help='splits to train on; with val among them 5 %% of the compositions are held out instead (train)',
    )
    parser.add_argument('--conditions', nargs='*', metavar='NAME', help='conditions to learn (all numbers of the data)')
    parser.add_argument(
        '--scheme',
        metavar='NAME',
        help='d3pm: discrete species, 1000 steps; edm: preconditioned, continuous species, 100 steps (edm)',
    )
    parser.add_argument(
        '--conditioning', metavar='KIND', help='cds: conditions enter every attention block; cdi: the first embedding (cds)'
    )
    parser.add_argument(
        '--paper-network',
        dest='coupled',
        action='store_false',
        default=None,
        help='pair terms that know the geometry only, not the sender',
    )
    parser.add_argument(
        '--csp-fraction',
        type=float,
        metavar='SHARE',
        help='share of crystals whose species are given, for structure prediction (0.33)',
    )
    parser.add_argument('--features', type=int, metavar='N', help='width of the network (128)')
    parser.add_argument('--blocks', type=int, metavar='N', help='attention blocks (6)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='crystals per step (128)')
    _add_common(parser)


def run_crystal(args):
    """Train the model of crystals into a folder."""
    import logging

    from ase_diffusion.cli.common import given
    from ase_diffusion.data.crystals import read_crystals
    from ase_diffusion.training.crystal import train_crystal
    from ase_diffusion.training.crystal_data import split_crystals

    logging.basicConfig(format='%(message)s')
    logging.getLogger('ase_diffusion').setLevel(logging.INFO)
    training, held = split_crystals(read_crystals(args.data), args.split)
    print(f'{len(training)} crystals to train on, {"5 %" if held is None else len(held)} to validate, from {args.data}')
    options = given(
        args, *(name for name in SHARED if name != 'cutoff'), 'conditions', 'scheme', 'conditioning', 'csp_fraction', 'coupled'
    )
    if args.init:
        options['network'], header = start_from(args.init, 'crystal')
        options['elements'] = header['representation']['elements']
    best = train_crystal(training, args.out, validation=held, compile_network=args.compile, progress=not args.quiet, **options)
    print(f'best model: {best}\nnext: ase-diffusion sample crystal --model {best}')


def start_from(model, kind):
    """Return network and header of a model; ValueError if it is of another kind."""
    from ase_diffusion.weights.zoo import load_model

    network, header = load_model(model)
    if header.get('kind') != kind:
        raise ValueError(f'--init {model}: a model of kind {kind} is asked for, this one is of kind {header.get("kind")}.')
    return network, header


def read_data(paths):
    """Return the frames of all files; the relaxations of different files stay different ones."""
    from ase_diffusion.cli.common import pairs_of, read_images

    images, offset = [], 0
    for path in paths:
        frames = read_images(path)
        runs = [pairs_of(atoms)['run'] for atoms in frames if 'run' in pairs_of(atoms)]
        for atoms in frames:
            if 'run' in pairs_of(atoms):
                pairs_of(atoms)['run'] += offset
        offset += max(runs, default=-1) + 1
        images += frames
    return images
