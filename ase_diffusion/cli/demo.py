"""Generate Ag12O6 overlayers on p(4x4) Ag(111), relax them and show the best: all with what ships, on one core."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

HELP = 'generate, relax and draw Ag12O6 overlayers on Ag(111)'
RELAX = {'fmax': 0.05, 'steps': 150}
SHOWN = 4  # structures in the picture
FILES = ('candidates.traj', 'candidates.png', 'slab.traj')


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument('-n', type=int, default=16, metavar='N', help='structures (16)')
    parser.add_argument(
        '--out', metavar='DIR', help='folder for what is written (here; demo-1, ... where such files are here already)'
    )
    parser.add_argument('--seed', type=int, default=0, help='same seed, same structures (0)')
    parser.add_argument('--steps', type=int, default=50, metavar='N', help='denoising steps (50)')
    parser.add_argument('--relax-steps', type=int, default=RELAX['steps'], metavar='N', help='most steps (150)')
    parser.add_argument('--model', default=None, metavar='NAME', help='shipped model or .safetensors (ag-o-overlayer)')
    parser.add_argument('--calculator', default='ag-o', metavar='CALC', help='what relaxes them (ag-o)')
    parser.add_argument('--force', action='store_true', help='replace files that exist')
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Run the demo."""
    import time

    from ase_diffusion import SurfaceDiffusion
    from ase_diffusion.cli.common import check_path, command
    from ase_diffusion.relax import get_calculator
    from ase_diffusion.utils.checks import check_output_folder

    get_calculator(args.calculator)  # its name, and that its package is there, before the work begins
    folder = chosen_folder(args.out, args.force)
    check_output_folder(folder)
    for name in FILES:
        if folder.is_dir():
            check_path(folder / name, args.force)
    folder.mkdir(parents=True, exist_ok=True)
    slab, begun = make_slab(), time.monotonic()
    generator = SurfaceDiffusion(slab, 'Ag12O6', model=args.model, rng=args.seed, steps=args.steps, logfile=None)
    print(f'{args.n} x Ag12O6 on p(4x4) Ag(111), seed {args.seed}: {args.steps} denoising steps ...', flush=True)
    images = generator.sample(args.n)
    sampled = time.monotonic()
    print(f'  {sampled - begun:.0f} s; relaxing with {args.calculator} ...', flush=True)
    images, reference = relax(images, args.calculator, args.relax_steps)
    print(f'  {time.monotonic() - sampled:.0f} s\n')
    report(images, reference)
    write(images, folder)
    print(
        f'\nwhole demo: {time.monotonic() - begun:.0f} s. Next:\n'
        f'  {command("ase", "gui", folder / "candidates.traj")}\n'
        f'  {command("ase-diffusion", "sample", "surface", folder / "slab.traj")} --stoich Ag12O6 -n 32 -o out.traj\n'
        '  ase-diffusion relax out.traj -o relaxed.traj --calculator ag-o'
    )


def chosen_folder(path: str | None, force: bool) -> Path:
    """Return the folder that was named; where none was, this one, or demo-1, ... where this one has files of such names."""
    if path is not None or force:
        return Path(path or '.')
    folders = (Path(f'demo-{number}') if number else Path('.') for number in range(10**6))
    return next(folder for folder in folders if not any((folder / name).exists() for name in FILES))


def make_slab() -> Atoms:
    """Return p(4x4) Ag(111), two layers, all atoms held."""
    from ase.build import fcc111
    from ase.constraints import FixAtoms

    slab = fcc111('Ag', (4, 4, 2), a=4.16, vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def relax(images: list[Atoms], calculator: str, steps: int) -> tuple[list[Atoms], Atoms]:
    """Return the relaxed images, the lowest energy first and failed ones last, and the relaxed Ag6 model."""
    import math

    from ase_diffusion.cli.common import energy_of, pairs_of
    from ase_diffusion.metrics import ag6_model
    from ase_diffusion.relax import relax

    everything = [*images, ag6_model()]
    *relaxed, reference = relax(everything, calculator, fmax=RELAX['fmax'], steps=steps, batch_size=len(everything))

    def rank(atoms):
        energy = energy_of(atoms)
        return math.inf if pairs_of(atoms).get('relax_failed') or math.isnan(energy) else energy

    return sorted(relaxed, key=rank), reference


def report(images: list[Atoms], reference: Atoms) -> None:
    """Print one row per candidate."""
    from ase_diffusion.cli.common import energy_of, pairs_of, table
    from ase_diffusion.metrics import duplicates

    good = [atoms for atoms in images if not pairs_of(atoms).get('relax_failed')]
    firsts, rows = duplicates(good), []
    zero = energy_of(good[0]) if good else 0.0
    for k, atoms in enumerate(images):
        pairs = pairs_of(atoms)
        if k >= len(good):
            rows.append((k + 1, '-', '-', '-', '-', f'failed: {atoms.info["data"]["relax_error"]}'))
            continue
        same = '' if firsts[k] == k else f'#{firsts[k] + 1}'
        energies = (f'{pairs["energy_generated"] - zero:.3f}', f'{energy_of(atoms) - zero:.3f}')
        rows.append((k + 1, *energies, pairs['relax_steps'], same, note(atoms)))
    print(table(('rank', 'as generated/eV', 'relaxed/eV', 'steps', 'same as', 'note'), rows))
    if good:
        found = sum(ag6(atoms) for atoms in good)
        above = zero - energy_of(reference)
        print(
            f'\n{len(set(firsts))} different structures; {found} of {len(good)} candidates are the Ag6 model'
            f'\nthe best lies {above:+.3f} eV from the Ag6 model, relaxed in the same way'
        )


def ag6(atoms: Atoms) -> bool:
    """Tell whether a candidate is the Ag6 model."""
    from ase_diffusion.metrics import is_ag6

    return is_ag6(atoms)


def note(atoms: Atoms) -> str:
    """Return what is special about a candidate."""
    from ase_diffusion.cli.common import pairs_of

    notes = ['Ag6 model'] if ag6(atoms) else []
    return ', '.join(notes + ([] if pairs_of(atoms)['relax_converged'] else ['not converged']))


def write(images: list[Atoms], folder: Path) -> None:
    """Write candidates.traj, slab.traj and candidates.png."""
    import ase.io

    from ase_diffusion.cli.common import pairs_of

    ase.io.write(folder / 'candidates.traj', images)
    ase.io.write(folder / 'slab.traj', make_slab())
    good = [atoms for atoms in images if not pairs_of(atoms).get('relax_failed')]
    if good:
        draw(good).savefig(folder / 'candidates.png', dpi=200)
        print(f'\nwritten: {folder / "candidates.traj"}, {folder / "candidates.png"}, {folder / "slab.traj"}')


def draw(images: list[Atoms]) -> Figure:
    """Return a figure: the best different structures from the top and the side, and the ladder of all energies.

    Parameters
    ----------
    images : list of Atoms
        With energies, the lowest first.
    """
    import matplotlib

    matplotlib.use('Agg')
    from ase_diffusion.cli.common import energy_of, pairs_of
    from ase_diffusion.metrics import duplicates
    from ase_diffusion.plot import plot_energy_ladder, plot_structures

    zero = energy_of(images[0])
    best = sorted(set(duplicates(images)))[:SHOWN]
    labels = [f'#{k + 1}   {energy_of(images[k]) - zero:+.2f} eV' + ('   Ag6 model' if ag6(images[k]) else '') for k in best]
    figure = plot_structures([images[k] for k in best], labels=labels, columns=len(best), width=2.0 * SHOWN)
    ladder, (width, height) = 2.6, figure.get_size_inches()  # inches
    boxes = [ax.get_position(original=True) for ax in figure.axes]
    total, tall = width + ladder, max(height, 2.4)
    for ax, box in zip(figure.axes, boxes, strict=True):
        ax.set_position(
            [
                box.x0 * width / total,
                (box.y0 * height + (tall - height) / 2) / tall,
                box.width * width / total,
                box.height * height / tall,
            ]
        )
    figure.set_size_inches(total, tall)
    ax = figure.add_axes([(width + 0.75) / total, 0.3 / tall, (ladder - 0.85) / total, (tall - 0.55) / tall])
    generated = [pairs_of(atoms)['energy_generated'] - zero for atoms in images]
    plot_energy_ladder(
        {'generated': generated, 'relaxed': [energy_of(atoms) - zero for atoms in images]},
        ax,
        ylabel='Energy above the best (eV)',
    )
    return figure
