"""Local relaxation of many structures; failures are reported in the results and not raised."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypedDict, Unpack, overload

from ase import Atoms

from ..calculators.default import default_calculator
from ..calculators.names import CalculatorLike, calculator_name
from ..utils.atoms import as_list, frozen_mask, mobile_formula
from ..utils.checks import check_limits
from ..utils.log import Log
from ..utils.progress import Progress
from ..utils.provenance import note
from .relaxer import Relaxer
from .settings import Settings, optimizer_name

if TYPE_CHECKING:
    import torch
    from ase.filters import Filter
    from ase.optimize.optimize import Optimizer


class RelaxOptions(TypedDict, total=False):
    """Keywords of :func:`relax`, for type checkers."""

    optimizer: str | Callable[..., Optimizer]
    fmax: float
    steps: int
    filter: str | Callable[..., Filter] | None
    hessian: CalculatorLike | None
    min_distance: float | None
    max_energy: float | None
    timeout: float | None
    batch_size: int
    pbc: bool | Sequence[bool] | None
    directory: str | Path | None
    device: str | torch.device | None
    frames: list[list[Atoms]] | None
    logfile: str | Path | IO | None


@overload
def relax(images: Atoms, calculator: CalculatorLike | None = None, **options: Unpack[RelaxOptions]) -> Atoms: ...
@overload
def relax(images: Iterable[Atoms], calculator: CalculatorLike | None = None, **options: Unpack[RelaxOptions]) -> list[Atoms]: ...
def relax(
    images: Atoms | Iterable[Atoms],
    calculator: CalculatorLike | None = None,
    *,
    optimizer: str | Callable[..., Optimizer] = 'BFGS',
    fmax: float = 0.05,
    steps: int = 200,
    filter: str | Callable[..., Filter] | None = None,
    hessian: CalculatorLike | None = None,
    min_distance: float | None = 0.4,
    max_energy: float | None = 100.0,
    timeout: float | None = None,
    batch_size: int = 16,
    pbc: bool | Sequence[bool] | None = None,
    directory: str | Path | None = None,
    device: str | torch.device | None = None,
    frames: list[list[Atoms]] | None = None,
    logfile: str | Path | IO | None = None,
) -> Atoms | list[Atoms]:
    """Relax structures with an ASE calculator and optimizer.

    The input is not changed. Structures are independent: if the calculator raises, hangs or returns NaN, or a structure
    explodes, a warning is logged, the result is a copy of the input, and the other structures continue.

    With a force field of this package, or SevenNet by name on a GPU, BFGS, and none of `filter`, `hessian`, `timeout` and `pbc`,
    structures are relaxed in batches: one network call for `batch_size` structures, each with its own BFGS history. Calculators
    that write files or keep wave functions (GPAW, VASP) and come from a name or a factory are made anew for each structure, in a
    separate folder.

    Parameters
    ----------
    images : Atoms or list of Atoms
        Structures; atoms in FixAtoms have bit-identical positions in the result.
    calculator : str, Path, callable, Calculator or None
        As `get_calculator` takes it. None: :func:`ase_diffusion.calculators.default.default_calculator`; the log
        and the key ``relax_calculator`` of the results say which.
    optimizer : str or class
        Name of a class of `ase.optimize`, such as ``'BFGS'``, ``'FIRE'`` or ``'LBFGS'``, or the class.
    fmax : float
        Largest force on a mobile atom at convergence (eV/A).
    steps : int
        Largest number of steps per structure; 0 is a single point.
    filter : str, class or None
        Class of `ase.filters`, its name such as ``'FrechetCellFilter'``, or a function of the Atoms: degrees of freedom to relax.
    hessian : str, callable, Calculator or None
        Cheap potential, as `get_calculator` takes it (``'ag-o'``), for the initial Hessian of BFGS: saves steps of an expensive
        calculator, see :func:`ase_diffusion.relax.hessian.surrogate_hessian`.
    min_distance : float or None
        Smallest distance over the sum of covalent radii; a structure fails below it (and below the value at the start). None: no
        check.
    max_energy : float or None
        Largest rise of the energy above the start (eV); a structure fails above it. None: no check.
    timeout : float or None
        Time limit per structure in seconds. The calculator then runs in a separate process, which is killed with all its child
        processes at the limit. It must be picklable (names and factories are).
    batch_size : int
        Structures per batch; 1 relaxes them one by one.
    pbc : bool, sequence of bool or None
        Periodicity during the relaxation; results have that of the input. None: that of the input, except for plane waves
        (VASP, GPAW with ``mode='pw'``), which need all directions.
    directory : str or Path, optional
        Parent of the folders of calculators with files, ``vasp-0000``, ``vasp-0001``, ...; existing folders are not reused.
        Default: the current folder.
    device : str or torch.device, optional
        Device of a calculator given by name, if it has the choice.
    frames : list or None
        For each structure a list of Atoms (all steps, with energy and raw forces) is appended.
    logfile : str, Path, stream or None
        One line per structure; ``'-'`` is stdout.

    Returns
    -------
    Atoms or list of Atoms
        One result per input, in the same order, with energy (eV) and forces before constraints (eV/A) in a SinglePointCalculator.
        ``info['key_value_pairs']`` has ``relax_steps``, ``relax_converged``, ``relax_calculator`` and ``energy_generated``
        (eV, of the input geometry). Failed structures have ``relax_failed`` = True there and the reason in
        ``info['data']['relax_error']``.

    Raises
    ------
    ValueError
        The optimizer, the calculator or a number is not valid, a filter changes the cell of structures with fixed atoms, a
        calculator with a time limit cannot be pickled, or a force field of this package knows none of the structures;
        no calculator was named and none that is installed fits.
    MissingDependency
        The package of the calculator is not installed.
    KeyboardInterrupt
        After Ctrl-C; those that are relaxed are in its ``.images``.
    """
    given = dict(locals())  # a copy: in Python 3.12 a debugger adds names to that of locals() while it is read
    options = {name: value for name, value in given.items() if name not in ('images', 'calculator')}
    single = isinstance(images, Atoms)
    relaxed = {}
    try:
        for number, atoms in irelax([images] if single else images, calculator, **options):
            relaxed[number] = atoms
    except KeyboardInterrupt as stop:
        stop.images = [relaxed[number] for number in sorted(relaxed)]
        raise
    relaxed = [relaxed[number] for number in range(len(relaxed))]
    return relaxed[0] if single else relaxed


def irelax(
    images: Iterable[Atoms],
    calculator: CalculatorLike | None = None,
    *,
    timeout: float | None = None,
    batch_size: int = 16,
    directory: str | Path | None = None,
    device: str | torch.device | None = None,
    frames: list[list[Atoms]] | None = None,
    logfile: str | Path | IO | None = None,
    **settings: Any,
) -> Iterator[tuple[int, Atoms]]:
    """Check the arguments and return an iterator over (number, relaxed Atoms), in the order of completion.

    In batches that is the order of convergence, otherwise that of the images. Arguments and errors are those of
    :func:`relax`; `settings` are the fields of :class:`ase_diffusion.relax.settings.Settings`.
    """
    inputs = as_list(images)
    if not isinstance(frames, list | None):
        raise TypeError(f'frames is a list, to which the frames of each structure are added; got {frames!r}')
    how = Settings(**settings)
    check_limits(timeout=timeout, batch_size=batch_size)
    if calculator is None:
        calculator = default_calculator(inputs) if inputs else 'ag-o'
    _check_filter(how.filter, inputs)
    relaxer = Relaxer(calculator, how, timeout=timeout, batch_size=batch_size, directory=directory, device=device)
    relaxer.check(inputs)
    return _logged(inputs, relaxer, calculator_name(calculator), frames, logfile)


irelax.__signature__ = inspect.signature(relax).replace(return_annotation='Iterator[tuple[int, Atoms]]')


def _logged(images, relaxer, name, frames, logfile):
    how = relaxer.settings
    with Log(logfile) as log, Progress(len(images), 'relaxed') as progress:
        log.write(f'relax: {name}, {optimizer_name(how.optimizer)}, fmax {how.fmax} eV/A, at most {how.steps} steps')
        log.write(f'{"#":>5s} {"formula":<20s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s}  outcome')
        try:
            for number, result in relaxer.iterate(images, frames=frames):
                note(result, relax_calculator=name)
                log.write(_line(number, result))
                progress.add()
                yield number, result
        finally:
            relaxer.close()


def _line(number, atoms):
    """Return the line of the log for one result."""
    pairs = atoms.info['key_value_pairs']
    start = f'{number:5d} {mobile_formula(atoms):<20s}'
    if pairs.get('relax_failed'):
        return f'{start} {"-":>5s} {"-":>12s} {"-":>12s}  failed: {atoms.info["data"]["relax_error"]}'
    outcome = 'converged' if pairs['relax_converged'] else 'not converged'
    energy = atoms.calc.results['energy']
    return f'{start} {pairs["relax_steps"]:5d} {pairs["energy_generated"]:12.4f} {energy:12.4f}  {outcome}'


def _check_filter(filter: Callable[..., Filter] | None, images: list[Atoms]) -> None:
    """Raise a ValueError if a filter would change the cell of structures with fixed atoms."""
    from ase.filters import StrainFilter, UnitCellFilter

    filter = getattr(filter, 'func', filter)  # of a partial
    cell_filter = isinstance(filter, type) and issubclass(filter, (UnitCellFilter, StrainFilter))
    if cell_filter and any(frozen_mask(atoms).any() for atoms in images):
        raise ValueError(
            f'atoms that FixAtoms holds keep their positions, but {filter.__name__} changes the cell and moves them; '
            'relax with filter=None, or remove FixAtoms with atoms.set_constraint()'
        )
