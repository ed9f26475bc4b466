"""Relax structures with any calculator. Ctrl-C keeps those that are done."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms

    from ase_diffusion.cli.common import Output

HELP = 'relax structures with a calculator'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    from ase_diffusion.cli.common import add_force

    parser.add_argument('images', metavar='FILE', help='structures: .traj, .db, .extxyz, ...')
    parser.add_argument('-o', '--out', metavar='FILE', help='.traj, .db, ... (relaxed.traj)')
    add_force(parser)
    parser.add_argument(
        '--calculator',
        metavar='CALC',
        help='ag-o, emt, lj, 7net-mf-0, 7net-0, chgnet, gpaw, vasp or a .safetensors file (ag-o where it knows the structures, '
        'else 7net-mf-0 or chgnet as installed)',
    )
    parser.add_argument('--optimizer', default='BFGS', metavar='NAME', help='of ase.optimize (BFGS)')
    parser.add_argument('--hessian', metavar='CALC', help='cheap potential whose Hessian BFGS starts from, such as ag-o')
    parser.add_argument('--fmax', type=float, default=0.05, metavar='F', help='force at the end, eV/A (0.05)')
    parser.add_argument('--steps', type=int, default=200, metavar='N', help='most steps (200)')
    parser.add_argument(
        '--batch-size', type=int, default=16, metavar='N', help='structures at once, with our own force fields and BFGS (16)'
    )
    parser.add_argument('--timeout', type=float, metavar='S', help='seconds for one structure; then it is given up')
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Relax the structures of a file into another."""
    from ase_diffusion.calculators.default import default_calculator
    from ase_diffusion.cli.common import Output, chosen_path, read_images, say
    from ase_diffusion.relax import irelax
    from ase_diffusion.utils.atoms import frozen_mask

    args.out = chosen_path(args.out, 'relaxed.traj', args.force)
    out = Output(args.out, args.force)
    images = read_images(args.images)
    calculator = args.calculator or default_calculator(images)
    crystals = any(atoms.pbc.all() and not frozen_mask(atoms).any() for atoms in images)
    out.expect(len(images), crystals=crystals, source=args.images)
    limits = {'batch_size': args.batch_size} if args.timeout is None else {'timeout': args.timeout}
    results = irelax(
        images, calculator, fmax=args.fmax, steps=args.steps, optimizer=args.optimizer, hessian=args.hessian, **limits
    )
    print(f'{calculator}{"" if args.calculator else " (by default)"}, fmax {args.fmax:g} eV/A, at most {args.steps} steps')
    print(f'{"#":>5s} {"formula":<20s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s}')
    status, failed, waiting, turn = 0, 0, {}, 0
    with out:
        try:
            for number, atoms in results:
                say(line(number, atoms))
                waiting[number] = None if atoms.info['key_value_pairs'].get('relax_failed') else atoms
                failed += waiting[number] is None
                while turn in waiting:  # batches end in any order; the file has that of the input
                    write(waiting.pop(turn), out)
                    turn += 1
        except KeyboardInterrupt:
            status = 130
        for number in sorted(waiting):  # done, while one before them was not
            write(waiting[number], out)
    print(f'{out.count} of {len(images)} structures in {args.out}' + (f'; {failed} failed' if failed else ''))
    return status or int(failed == len(images))


def write(atoms: Atoms | None, out: Output) -> None:
    """Write a structure that did not fail."""
    if atoms is not None:
        out.write(atoms)


def line(number: int, atoms: Atoms) -> str:
    """Return the line for one result."""
    from ase_diffusion.cli.common import energy_of, pairs_of

    pairs = pairs_of(atoms)
    start = f'{number:5d} {atoms.get_chemical_formula():<20s}'
    if pairs.get('relax_failed'):
        return f'{start} failed: {atoms.info["data"]["relax_error"]}'
    energies = f'{pairs["energy_generated"]:12.4f} {energy_of(atoms):12.4f}'
    return f'{start} {pairs["relax_steps"]:5d} {energies}{"" if pairs["relax_converged"] else "  not converged"}'
