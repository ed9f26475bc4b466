"""Judge crystals, whoever made them, by all metrics: a table, a JSON file and a picture."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms

HELP = 'judge crystals: validity, novelty, stability, ...'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    from ase_diffusion.cli.common import add_force

    parser.add_argument(
        'images', metavar='FILE', help='crystals: .extxyz, .cif, .traj, .db, .npz, .csv with cifs, a folder of cifs, ...'
    )
    parser.add_argument(
        '--reference',
        metavar='DATA',
        help='data set to compare with; where it has splits, its test split for distributions, its training '
        'split for novelty and percentiles, all for the hull',
    )
    parser.add_argument('--targets', metavar='DATA', help='true structures, if FILE holds predictions of them, in their order')
    parser.add_argument('--property', metavar='NAME', help='property that both files carry, for success rates (SR5, SR10, SR15)')
    parser.add_argument(
        '--chgnet', action='store_true', help='formation energies, energy above the hull of DATA and S.U.N. by CHGNet (slow)'
    )
    parser.add_argument('--cutoffs', default='mp', metavar='SET', help='of the coverage: mp, perovskite or carbon (mp)')
    parser.add_argument('--no-coverage', action='store_true', help='leave out the coverage, which takes longest')
    parser.add_argument('-n', type=int, metavar='N', help='judge only the first N crystals')
    parser.add_argument(
        '--reference-n',
        type=int,
        metavar='N',
        help='take only the first N crystals of DATA (of its test split) for distributions',
    )
    parser.add_argument('--processes', type=int, metavar='N', help='all cores by default')
    parser.add_argument('--json', metavar='FILE', help='all numbers (evaluation.json)')
    parser.add_argument('--picture', metavar='FILE', help='.png, .pdf or .svg (evaluation.png)')
    parser.add_argument('--quiet', action='store_true', help='show no progress')
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Evaluate the crystals of a file."""
    import matplotlib

    matplotlib.use('Agg')
    from ase_diffusion import metrics, plot
    from ase_diffusion.cli.common import check_path, check_picture, chosen_path, table
    from ase_diffusion.utils.parallel import count_processes
    from ase_diffusion.utils.unread import is_unread

    count_processes(args.processes)
    if args.property and not args.reference:
        raise ValueError('Success rates compare with percentiles of data: give --reference DATA together with --property.')
    args.json = chosen_path(args.json, 'evaluation.json', args.force)
    args.picture = chosen_path(args.picture, 'evaluation.png', args.force)
    check_path(args.json, args.force)
    check_picture(args.picture, args.force)
    images = read(args.images, args.n, '-n', keep_unread=True)
    reference, known, phases, lost = read_reference(args.reference, args.reference_n)
    targets = None if args.targets is None else read(args.targets, None, '', keep_unread=True)
    parts = {}

    def save(report, what='numbers without CHGNet'):
        """Write the numbers that are there and announce them, and return them with the names of the files."""
        report = {'file': str(args.images), 'reference': args.reference, 'targets': args.targets, **report}
        if args.reference:
            report['n_unread_reference'] = lost
        report.setdefault('n_unread', 0)
        report['unread'] = [atoms.info['unread'] for atoms in images if is_unread(atoms)]
        write_json(args.json, report)
        if what:
            print(f'{what}: {args.json}', flush=True)
        return report

    def keep(report):
        parts.update(report)
        save(report, '')

    try:
        report = metrics.evaluate_crystals(
            images,
            reference,
            known=known,
            phases=phases,
            targets=targets,
            prop=args.property,
            chgnet=args.chgnet,
            cutoffs=args.cutoffs,
            cov=not args.no_coverage,
            processes=args.processes,
            progress=not args.quiet,
            before_chgnet=save,
            on_part=keep,
        )
    except KeyboardInterrupt:
        if parts:
            print(table(('metric', 'value', ''), metrics.report_rows(parts)))
            print(f'interrupted; numbers so far: {args.json}', flush=True)
        return 130
    print(table(('metric', 'value', ''), metrics.report_rows(report)))
    plot.plot_evaluation(save(report, 'numbers'), images, reference).savefig(args.picture, dpi=200)
    print(f'picture: {args.picture}')
    return 0


def write_json(path: str | Path, report: dict) -> None:
    """Write a report in one step: an interrupt leaves the file of before."""
    import json
    import os

    if Path(path).exists() and not Path(path).is_file():  # /dev/stdout, /dev/null
        Path(path).write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
        return
    path = Path(path).resolve()
    part = Path(f'{path}.part')
    part.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    os.replace(part, path)


def read(path: str | Path, n: int | None, option: str, keep_unread: bool = False) -> list[Atoms]:
    """Return the first n crystals of a file or folder, all where n is None; those that cannot be read where asked for."""
    from ase_diffusion.cli.common import read_images
    from ase_diffusion.data.crystals import read_crystals

    if n is not None and n < 1:
        raise ValueError(f'{option} is a number of crystals, 1 or more; got {n}.')
    path = Path(path)
    own = path.is_dir() or path.suffix in ('.npz', '.csv')
    return (read_crystals if own else read_images)(path, keep_unread=keep_unread)[:n]


def read_reference(path: str | None, n: int | None) -> tuple[list[Atoms] | None, list[Atoms] | None, list[Atoms] | None, int]:
    """Return crystals for the distributions, known ones, phases and the number of those that could not be read.

    These are the test split, the training split and all; without splits all.
    """
    from ase_diffusion.utils.unread import is_unread

    if path is None:
        return None, None, None, 0
    if n is not None and n < 1:
        raise ValueError(f'--reference-n is a number of crystals, 1 or more; got {n}.')
    both = read(path, None, '', keep_unread=True)
    images = [atoms for atoms in both if not is_unread(atoms)]
    splits = {'test': [], 'train': []}
    for atoms in images:
        splits.setdefault(atoms.info.get('key_value_pairs', {}).get('split'), []).append(atoms)
    test, train = (splits['test'], splits['train']) if splits['test'] and splits['train'] else (images, images)
    return test[:n], train, images, len(both) - len(images)
