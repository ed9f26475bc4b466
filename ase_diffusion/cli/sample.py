"""Generate structures with a trained model. Ctrl-C keeps what was accepted."""

HELP = 'generate structures'
MISSING = object()  # --energy was not given; none is a value


def add_arguments(parser, again):
    """Add the options of this verb."""
    methods = parser.add_subparsers(dest='method', metavar='METHOD', required=True)
    surface = methods.add_parser('surface', help='overlayers on a fixed slab', description=__doc__, parents=[again])
    _add_surface(surface)
    surface.set_defaults(run=run)


def _add_surface(parser):
    from argparse import BooleanOptionalAction

    from ase_diffusion.cli.common import add_height, add_slab, number_or_none

    add_slab(parser)
    parser.add_argument('--stoich', required=True, metavar='FORMULA', help='the new atoms, such as Ag12O6')
    parser.add_argument('-n', type=int, default=16, metavar='N', help='how many structures (16)')
    parser.add_argument('-o', '--out', default='overlayers.traj', metavar='FILE',
                        help='.traj, .db, .extxyz, ... (overlayers.traj)')
    parser.add_argument('--model', metavar='NAME', help='shipped model or .safetensors file (ag-o-overlayer)')
    parser.add_argument('--steps', type=int, metavar='N', help='denoising steps (100)')
    parser.add_argument('--sampler', metavar='NAME', help='ancestral, euler_maruyama, ddim, heun or dpmpp_2m')
    parser.add_argument('--energy', type=number_or_none, default=MISSING, metavar='E',
                        help='wanted energy above the best of the composition, eV per mobile atom; none: any (0)')
    parser.add_argument('--guidance-scale', type=float, metavar='W', help='weight of that condition (2)')
    parser.add_argument('--force-guidance', action='store_true', help='follow the forces of the shipped force field')
    add_height(parser)
    parser.add_argument('--relax', metavar='CALC', help='relax each structure: ag-o, emt, 7net-mf-0, ...')
    parser.add_argument('--relax-steps', type=int, default=200, metavar='N', help='most steps of a relaxation (200)')
    parser.add_argument('--fmax', type=float, default=0.05, metavar='F', help='force at its end, eV/A (0.05)')
    parser.add_argument('--seed', type=int, help='same seed, same structures')
    parser.add_argument('--batch-size', type=int, metavar='N', help='structures at a time')
    parser.add_argument('--device', help='cpu, cuda, ...')
    parser.add_argument('--compile', action=BooleanOptionalAction,
                        help='compile the network first, some 30 s (default: where it pays)')
    parser.add_argument('--log', default='-', metavar='FILE', help='log, one line per structure (stdout)')
    parser.add_argument('--denoising-trajectory', metavar='FILE', help='every step of the first structure of a batch')


def run(args):
    """Sample overlayers into a file."""
    from ase_diffusion import SurfaceDiffusion
    from ase_diffusion.cli.common import Output, given, read_slab

    options = given(args, 'model', 'steps', 'sampler', 'height', 'batch_size', 'device', 'compile',
                    'denoising_trajectory')
    if args.relax:
        from ase_diffusion.relax.calculators import check_calculator

        check_calculator(args.relax)
        options['relax'] = {'calculator': args.relax, 'steps': args.relax_steps, 'fmax': args.fmax}
    if args.force_guidance:
        options['guidance'] = True
    conditions = given(args, 'guidance_scale')
    if args.energy is not MISSING:
        conditions['energy'] = args.energy
    status = 0
    generator = SurfaceDiffusion(read_slab(args), args.stoich, rng=args.seed, logfile=args.log, **options)
    with Output(args.out) as out, generator:
        try:
            for atoms in generator.irun(args.n, **conditions):
                out.write(atoms)
        except KeyboardInterrupt:
            status = 130
        finally:
            print(f'{out.count} of {args.n} structures in {args.out}' if out.count else 'no structure was accepted')
    if out.count and not args.relax:
        print(f'next: ase gui {args.out}   or: ase-diffusion relax {args.out} -o relaxed.traj --calculator ag-o')
    return status
