"""Make the structures of a file again, from the record of seeds that they carry."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

HELP = 'make structures again from their record'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument('images', metavar='FILE', help='.traj, .db or .json of sample or search')
    parser.add_argument('-o', '--out', metavar='FILE', help='where the structures go (nowhere: they are only compared)')
    parser.add_argument('--model', metavar='NAME', help='the model, where its file has moved')
    parser.add_argument('--device', help='cpu, cuda, ...')
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Make every structure again; return 0, or 1 where one came out otherwise or carries no record."""
    from contextlib import nullcontext

    from ase_diffusion.cli.common import Output, given, read_images, table
    from ase_diffusion.generators.records import record_of

    images = read_images(args.images)
    generators, rows, without, status = {}, [], [], 0
    with nullcontext() if args.out is None else Output(args.out) as out:
        for number, atoms in enumerate(images):
            try:
                record_of(atoms)
            except ValueError as error:
                without.append(error)
                rows.append([number, atoms.get_chemical_formula(), '-', 'carries none'])
                continue
            new = _generator(atoms, generators, given(args, 'model', 'device')).again(atoms)
            difference = abs(new.positions - atoms.positions).max() if len(new) == len(atoms) else float('inf')
            same = difference == 0 and (new.numbers == atoms.numbers).all() and (new.cell[:] == atoms.cell[:]).all()
            seed = new.info['key_value_pairs']['seed']
            rows.append([number, new.get_chemical_formula(), seed, 'identical' if same else f'{difference:.3g} A'])
            status = status or int(not same)
            if out is not None:
                out.write(new)
    if len(without) == len(images):
        raise without[0]
    print(table(['#', 'formula', 'seed', 'to the file'], rows))
    if status:
        print('structures that were relaxed or edited after they were generated differ from what was generated')
    if without:
        print(f'{len(without)} of {len(images)}: {without[0]}')
    return status or int(bool(without))


def _generator(atoms, known, options):
    """Return the generator of a structure, the same for structures of one call of sample."""
    from ase_diffusion.cli.methods import METHODS
    from ase_diffusion.generators.records import record_of

    told, record = record_of(atoms)
    slab = [] if told['type'] != 'surface-diffusion' else atoms.positions[[*map(int, _fixed(atoms))]].tolist()
    key = json.dumps([told, record['relax'], record['validate'], slab], sort_keys=True)
    if key not in known:
        known[key] = METHODS[told['type'].removesuffix('-diffusion')].load().from_record(atoms, **options)
    return known[key]


def _fixed(atoms):
    from ase_diffusion.utils.atoms import frozen_mask

    return frozen_mask(atoms).nonzero()[0]
