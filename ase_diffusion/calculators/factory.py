"""Calculators for many structures: one for all, or a new one in a separate folder for each."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import covalent_radii

from ..utils.atoms import neighbors
from .names import CalculatorLike, calculator_name, check_calculator, get_calculator, is_own_force_field

if TYPE_CHECKING:
    import torch
    from ase import Atoms
    from ase.calculators.calculator import Calculator


class CalculatorFactory:
    """Provide the calculator of each structure.

    Calculators that keep the state of a structure or write files (GPAW, VASP and others with input files) are made anew for
    each structure if they come from a name or a factory, each with its own folder ``<name>-<number>`` below `directory`.
    Other calculators, and instances, are reused.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        As `get_calculator` takes it.
    directory : str or Path, optional
        Parent of these folders; the current folder by default.
    device : str or torch.device, optional
        Device of calculators given by name, if they have the choice.
    """

    def __init__(
        self, calculator: CalculatorLike, directory: str | Path | None = None, device: str | torch.device | None = None
    ) -> None:
        self.calculator, self.name = calculator, calculator_name(calculator)
        self.directory = Path('.' if directory is None else directory)
        self.options = {'device': device} if device is not None and takes_device(calculator) else {}
        self.finished = check_calculator(calculator) is None
        self.shared = None
        if named(calculator) not in ('gpaw', 'vasp'):  # cheap to make, so errors appear immediately
            self.shared = get_calculator(calculator, **self.options)

    def get(self, number: int) -> Calculator:
        """Return the calculator of structure `number`."""
        calc, self.shared = self.shared, None
        if calc is not None and (self.finished or not is_stateful(calc)):
            self.shared = calc
            return calc
        folder = fresh_folder(self.directory / f'{self.name}-{number:04d}')
        options = dict(self.options)
        if named(self.calculator) == 'gpaw' and 'txt' not in getattr(self.calculator, 'keywords', {}):
            options['txt'] = str(folder / 'gpaw.txt')
        calc = get_calculator(self.calculator, **options) if calc is None else calc
        if hasattr(calc, 'directory'):
            calc.directory = str(folder) if isinstance(calc.directory, str) else folder
        return calc

    def failed(self) -> None:
        """Reset a shared calculator after an error, so that it keeps nothing of the failed structure."""
        if hasattr(self.shared, 'reset'):
            self.shared.reset()


def named(calculator: CalculatorLike) -> str | None:
    """Return the name, also from ``functools.partial(get_calculator, name, ...)``; None for other calculators."""
    if getattr(calculator, 'func', None) is get_calculator and calculator.args:
        calculator = calculator.args[0]
    return calculator.lower() if isinstance(calculator, str) else None


def takes_device(calculator: CalculatorLike) -> bool:
    """Return whether a calculator given by name has the choice of a device."""
    return is_own_force_field(calculator) or (named(calculator) or '').startswith(('7net', 'chgnet'))


def is_stateful(calc: CalculatorLike) -> bool:
    """Return whether a calculator is bound to one structure: it writes input files or keeps wave functions."""
    return hasattr(calc, 'write_input') or hasattr(calc, 'template') or type(calc).__module__.partition('.')[0] == 'gpaw'


def check_shared(calculator: CalculatorLike, workers: int | None) -> None:
    """Raise a ValueError if several processes would share the folder of one calculator instance.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        As `get_calculator` takes it.
    workers : int or None
        Number of processes; None for a cluster of unknown size.

    Raises
    ------
    ValueError
        The calculator is an instance bound to one structure and there is more than one process, or it is no calculator.
    """
    if check_calculator(calculator) is None and is_stateful(calculator) and workers not in (0, 1):
        raise ValueError(
            f'a finished {calculator_name(calculator)} has one folder for its files, in which '
            f'{"the workers of a cluster" if workers is None else f"{workers} workers"} would overwrite each other; pass a name '
            f'or a function that makes it, or workers=1{" and no client" if workers is None else ""}'
        )


def needs_periodic(calc: Calculator) -> bool:
    """Return whether a calculator uses plane waves and therefore needs a cell that is periodic in all directions."""
    mode = getattr(getattr(calc, 'params', None), 'mode', None)  # of GPAW
    return getattr(calc, 'name', '') == 'vasp' or getattr(mode, 'name', '') == 'pw'


def check_room(work: Atoms, origin: Atoms) -> None:
    """Raise a ValueError if a structure that was made periodic, ``work``, stands on its own images: no vacuum is left.

    That is where distances are below half again the sum of covalent radii that were not there in ``origin``.
    """
    radii, pairs = covalent_radii[work.numbers], []
    for atoms in (work, origin):
        i, j, d = neighbors(atoms, 3.0 * radii.max())
        pairs.append(int((d < 1.5 * (radii[i] + radii[j])).sum()))
    if pairs[0] > pairs[1]:
        made = [f'along {axis}' for axis, before in zip('xyz', origin.pbc, strict=True) if not before]
        raise ValueError(
            f'plane waves need a cell that is periodic in all directions, but {" and ".join(made)} the structure is so close to '
            'its own images that they bond; atoms.center(vacuum=8, axis=2) makes room (pbc=True in relax allows it as it is)'
        )


def fresh_folder(path: str | Path) -> Path:
    """Create a new folder `path` (or `path`.1, `path`.2, ... if it exists) and return it."""
    for k in itertools.count():
        folder = Path(f'{path}.{k}') if k else Path(path)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue


def freeze(calculator: CalculatorLike, *more: object) -> bytes:
    """Return a calculator, name or factory and more objects as a pickled tuple for another process.

    Raises
    ------
    ValueError
        An object cannot be pickled.
    """
    try:
        import cloudpickle as pickler  # comes with dask; pickles functions of scripts and notebooks, too
    except ModuleNotFoundError:
        pickler = pickle
    try:
        return pickler.dumps((calculator, *more))
    except Exception as err:
        raise ValueError(
            f'other processes get the calculator by pickle; {calculator_name(calculator)} cannot be pickled ({err}); '
            'pass a name, or a function that makes it'
        ) from err
