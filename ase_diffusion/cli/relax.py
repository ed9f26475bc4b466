"""Relax structures with any calculator. Ctrl-C keeps those that are done."""

HELP = 'relax structures with a calculator'


def add_arguments(parser, again):
    """Add the options of this verb."""
    parser.add_argument('images', metavar='FILE', help='structures: .traj, .db, .extxyz, ...')
    parser.add_argument('-o', '--out', default='relaxed.traj', metavar='FILE', help='.traj, .db, ... (relaxed.traj)')
    parser.add_argument('--calculator', default='ag-o', metavar='CALC',
                        help='ag-o, emt, lj, 7net-mf-0, 7net-0, chgnet, gpaw, vasp or a .safetensors file (ag-o)')
    parser.add_argument('--optimizer', metavar='NAME',
                        help='of ase.optimize (BFGS; our own force fields relax batches of structures at once)')
    parser.add_argument('--fmax', type=float, default=0.05, metavar='F', help='force at the end, eV/A (0.05)')
    parser.add_argument('--steps', type=int, default=200, metavar='N', help='most steps (200)')
    parser.set_defaults(run=run)


def run(args):
    """Relax the structures of a file into another."""
    from ase_diffusion.cli.common import Output, energy_of, pairs_of, read_images, relax_many
    from ase_diffusion.relax.calculators import check_calculator
    from ase_diffusion.relax.relax import check_numbers, find_optimizer

    check_calculator(args.calculator)
    check_numbers(args.fmax, args.steps)
    if args.optimizer:
        find_optimizer(args.optimizer)
    images, status, failed = read_images(args.images), 0, 0
    print(f'{args.calculator}, fmax {args.fmax:g} eV/A, at most {args.steps} steps')
    print(f'{"#":>5s} {"formula":<20s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s}')
    with Output(args.out) as out:
        options = {'fmax': args.fmax, 'steps': args.steps, 'optimizer': args.optimizer}
        try:
            for number, atoms in enumerate(relax_many(images, args.calculator, **options)):
                pairs = pairs_of(atoms)
                start = f'{number:5d} {atoms.get_chemical_formula():<20s}'
                if pairs.get('relax_failed'):
                    failed += 1
                    print(f'{start} failed: {atoms.info["data"]["relax_error"]}')
                    continue
                out.write(atoms)
                outcome = '' if pairs['relax_converged'] else '  not converged'
                energies = f'{pairs["energy_generated"]:12.4f} {energy_of(atoms):12.4f}'
                print(f'{start} {pairs["relax_steps"]:5d} {energies}{outcome}', flush=True)
        except KeyboardInterrupt:
            status = 130
    print(f'{out.count} of {len(images)} structures in {args.out}' + (f'; {failed} failed' if failed else ''))
    return status or int(failed == len(images))
