"""Energy grids of a probe in porous frameworks, and the adsorption properties that follow from them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

HELP = 'energy grids, adsorption in porous frameworks'
Job = tuple[str, 'Atoms | str']  # name of a structure, and the structure or why it cannot be read
COLUMNS = ('structure', 'void', 'Henry', 'mol/kg/Pa', 'Q/(kJ/mol)', 'Henry, open', 'pores')


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    from ase_diffusion.cli.common import add_force

    parser.add_argument(
        'files', nargs='+', metavar='FILE', help='structures: .cif, .extxyz, .traj, ..., folders of .cif; all in each file'
    )
    parser.add_argument(
        '--probe', default='CH4', metavar='NAME', help='CH4, Ar, Kr, Xe, N2, CO2, or EPSILON,SIGMA in K and A (CH4)'
    )
    parser.add_argument(
        '--shape', nargs='+', type=int, metavar='N', help='points along the cell vectors, one number or three (32)'
    )
    parser.add_argument('--spacing', type=float, metavar='D', help='largest distance of points in A, in place of --shape')
    parser.add_argument('--cutoff', type=float, default=12.0, metavar='R', help='A (12)')
    parser.add_argument('--framework', default='silica', metavar='TABLE', help='silica (UFF for other elements) or uff (silica)')
    parser.add_argument('--shifted', action='store_true', help='subtract the energy of each pair at the cutoff')
    parser.add_argument('--temperature', type=float, default=298.0, metavar='T', help='K (298)')
    parser.add_argument('-o', '--out', metavar='FOLDER', help='for --cube and --npz (the current one); made where missing')
    parser.add_argument('--cube', action='store_true', help='write NAME.cube, for viewers')
    parser.add_argument('--npz', action='store_true', help='write NAME.npz: energy (K), cell (A), accessible, properties')
    parser.add_argument('--plot', action='store_true', help='write NAME.png: the pore wall (E = 0) and a slice')
    add_force(parser)
    parser.add_argument('--device', help='cpu, cuda, ... (the best)')
    parser.add_argument('--backend', choices=('numba', 'torch', 'triton'), help='by default the fastest')
    parser.add_argument('--processes', type=int, default=1, metavar='N', help='structures handled at the same time (1)')
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Go through the files; a structure that fails does not stop the others, and Ctrl-C keeps what is done."""
    from pathlib import Path

    from ase_diffusion.utils.checks import check_output_folder

    options = check(args)
    if args.out:
        check_output_folder(args.out)
        Path(args.out).mkdir(parents=True, exist_ok=True)
    jobs, failures, done = list(find_jobs(args.files)), 0, 0
    check_outputs(jobs, options, args.force)
    warn_of_elements(jobs, options)
    width = max([len(job[0]) for job in jobs] + [len(COLUMNS[0])])
    print(f'{args.probe}, {args.temperature:g} K, cutoff {args.cutoff:g} A, {len(jobs)} structures')
    print('  '.join([' ' * 9, COLUMNS[0].ljust(width), *(name.rjust(11) for name in COLUMNS[1:-1]), COLUMNS[-1]]))
    status = 0
    try:
        for number, (name, found) in enumerate(results(jobs, options, args.processes), 1):
            start = f'{number:4d}/{len(jobs):<4d}  {name:<{width}s}'
            if isinstance(found, str):
                failures += 1
                print(f'{start}  failed: {found}', flush=True)
                continue
            done += 1
            print(
                f'{start}  {found["void_fraction"]:11.4f}  {found["henry_coefficient"]:11.5g}  '
                f'{found["henry_coefficient_mol_kg_pa"]:11.4g}  {heat(found):>11s}  '
                f'{found["henry_open"]:11.5g}  {found["pores"]}',
                flush=True,
            )
    except KeyboardInterrupt:
        status = 130
    print(f'{done} of {len(jobs)} structures' + (f'; {failures} failed' if failures else ''))
    return status or int(failures > 0)


def heat(found: dict) -> str:
    """Return the heat of adsorption as text; a closed framework has none."""
    value = found['heat_of_adsorption']
    return f'{value:.3f}' if value == value else '-'


def check(args: Namespace) -> dict:
    """Return the options of `compute` as a dict, or raise a ValueError before any work is done."""
    from ase_diffusion.porous.lennard_jones import check_cutoff, check_shape
    from ase_diffusion.porous.parameters import find_probe, find_table

    if args.shape and args.spacing is not None:
        raise ValueError('A grid has a --shape or a --spacing; got both.')
    if args.shape and len(args.shape) not in (1, 3):
        raise ValueError(f'--shape takes one number or three; got {" ".join(map(str, args.shape))}.')
    if args.spacing is not None and not 0 < args.spacing < float('inf'):
        raise ValueError(f'--spacing is a positive distance in A; got {args.spacing:g}.')
    if not 0 < args.temperature < float('inf'):
        raise ValueError(f'--temperature is positive, in K; got {args.temperature:g}.')
    if args.processes < 1:
        raise ValueError(f'--processes is 1 or more; got {args.processes}.')
    probe = args.probe
    if ',' in probe:
        try:
            probe = tuple(float(word) for word in probe.split(','))
        except ValueError:
            raise ValueError(f'A probe is a name or EPSILON,SIGMA, such as 148,3.73; got {probe!r}.') from None
        if len(probe) != 2:
            raise ValueError(f'A probe is a name or EPSILON,SIGMA, such as 148,3.73; got {args.probe!r}.')
    find_probe(probe)
    find_table(args.framework)
    shape = args.shape or [32]
    return {
        'grid': {
            'probe': probe,
            'cutoff': check_cutoff(args.cutoff),
            'framework': args.framework,
            'shifted': args.shifted,
            'device': args.device,
            'backend': args.backend,
        },
        'shape': check_shape(shape * 3 if len(shape) == 1 else shape),
        'spacing': args.spacing,
        'temperature': args.temperature,
        'folder': args.out or '.',
        'cube': args.cube,
        'npz': args.npz,
        'plot': args.plot,
    }


def check_outputs(jobs: list[Job], options: dict, force: bool) -> None:
    """Raise a FileExistsError where a file would be replaced without ``--force``, before any work is done."""
    from pathlib import Path

    from ase_diffusion.cli.common import check_path

    for name, _ in jobs:
        for ending in ('cube', 'npz', 'plot'):
            path = Path(options['folder']) / f'{name}.{"png" if ending == "plot" else ending}'
            if options[ending] and path.exists():
                check_path(path, force)


def find_jobs(files: Iterable[str]) -> Iterator[Job]:
    """Yield (name, Atoms or the text of an error) for every structure of files and folders of CIFs; names are unique."""
    from pathlib import Path

    seen = {}
    for path in files:
        try:
            images = read_each(path)
        except (ValueError, OSError) as error:
            images = [str(error)]
        for k, atoms in enumerate(images):
            name = Path(path).name.split('.')[0] + (f'-{k}' if len(images) > 1 else '')
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f'{name}~{seen[name]}'), atoms


def read_each(path: str) -> list[Atoms | str]:
    """Return the structures of a file or of a folder of CIFs, or the text of an error in the place of one that cannot be read."""
    from pathlib import Path

    from ase_diffusion.cli.evaluate import read
    from ase_diffusion.utils.unread import is_unread

    images = read(Path(path), None, '', keep_unread=True)
    return [atoms.info['unread'] if is_unread(atoms) else atoms for atoms in images]


def warn_of_elements(jobs: list[Job], options: dict) -> None:
    """Name the elements of all structures that the table of silica takes from UFF, in one warning."""
    import logging

    from ase_diffusion.porous.parameters import unlisted, unlisted_text

    names = {symbol for _, atoms in jobs if not isinstance(atoms, str) for symbol in atoms.symbols}
    if others := unlisted(names, options['grid']['framework']):
        logging.getLogger(__name__).warning(unlisted_text(others))


def results(jobs: list[Job], options: dict, processes: int) -> Iterator[tuple[str, dict | str]]:
    """Yield (name, properties or the text of an error) in the order of the jobs."""
    if processes == 1:
        for job in jobs:
            yield job[0], attempt(job, options)
        return
    import os
    from functools import partial

    from ase_diffusion.utils.parallel import Workers

    os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the processes: they share the cores
    died = 'its process died, perhaps for want of memory; try a coarser --shape, or fewer --processes'
    found, place = {}, 0
    with Workers(processes, 'spawn', few=1) as workers:
        for index, result in workers.run(partial(attempt, options=options), jobs, chunk=1, lost=died):
            found[index] = result
            while place in found:
                yield jobs[place][0], found.pop(place)
                place += 1


def attempt(job: Job, options: dict) -> dict | str:
    """Return the properties of one structure, or what went wrong in one line."""
    import logging

    from ase_diffusion.utils.unread import reason_of

    name, atoms = job
    if isinstance(atoms, str):
        return ' '.join(atoms.split())
    logging.getLogger('ase_diffusion.porous.lennard_jones').setLevel(logging.ERROR)  # its warning came for all of them
    try:
        return compute(name, atoms, options)
    except Exception as error:  # of any kind: the others are computed
        return reason_of(error)
    finally:
        logging.getLogger('ase_diffusion.porous.lennard_jones').setLevel(logging.NOTSET)


def compute(name: str, atoms: Atoms, options: dict) -> dict:
    """Compute one structure and write what was asked for; return its properties."""
    import os
    from pathlib import Path

    import numpy as np

    from ase_diffusion.porous import accessible_mask, adsorption_properties, energy_grid, find_channels, framework_density
    from ase_diffusion.porous.adsorption import VOID
    from ase_diffusion.utils.interrupts import held_interrupts

    shape, temperature = options['shape'], options['temperature']
    if options['spacing'] is not None:
        points = np.ceil(atoms.cell.lengths() / options['spacing'] - 1e-9)
        if not points.prod() < 2**40:
            raise ValueError(
                f'a spacing of {options["spacing"]:g} A makes a grid of {points.prod():.3g} points; take a larger one'
            )
        shape = tuple(np.maximum(points, 1).astype(int).tolist())
    grid = energy_grid(atoms, shape, **options['grid'])
    found = adsorption_properties(grid, temperature, density=framework_density(atoms))
    accessible = accessible_mask(grid, temperature, cell=atoms.cell)
    found['henry_open'] = adsorption_properties(grid, temperature, accessible=accessible)['henry_coefficient']
    dimensions = find_channels(grid <= VOID * temperature, atoms.cell)[1]
    open_ones = sorted(dimensions[dimensions > 0].tolist(), reverse=True)
    words = [f'{n}D' for n in open_ones[:1]] + ([f'{(dimensions == 0).sum()} closed'] if (dimensions == 0).any() else [])
    found['pores'] = ' + '.join(words) or 'none'
    path = Path(options['folder']) / name
    with held_interrupts():  # Ctrl-C waits until the files are complete
        if options['cube']:
            from ase_diffusion.porous import write_cube

            write_cube(f'{path}.cube', grid, atoms)
        if options['npz']:
            numbers = {key: value for key, value in found.items() if not isinstance(value, str)}
            np.savez_compressed(f'{path}.part.npz', energy=grid, cell=atoms.cell.array, accessible=accessible, **numbers)
            os.replace(f'{path}.part.npz', f'{path}.npz')
        if options['plot']:
            draw(f'{path}.png', grid, atoms)
    return found


def draw(path: str, grid: np.ndarray, atoms: Atoms) -> None:
    """Draw the pore wall, where there is one, and a slice."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from ase_diffusion import plot

    figure = plt.figure(figsize=(9, 4), layout='constrained')
    if grid.min() < 0 < grid.max():
        plot.plot_isosurface(grid, 0.0, ax=figure.add_subplot(1, 2, 1, projection='3d'), atoms=atoms)
    plot.plot_slice(grid, atoms, figure.add_subplot(1, 2, 2))
    figure.savefig(path, dpi=150)
    plt.close(figure)
