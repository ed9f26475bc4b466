"""Hand out calculators: one for all structures, or a fresh one in a folder of its own for each."""

import itertools
import pickle
from pathlib import Path

from .names import calculator_name, check_calculator, get_calculator


class CalculatorFactory:
    """Give a calculator for each structure.

    Calculators that hold the state of a structure or write files (GPAW, VASP and all others that write input) are made anew for
    each structure where they come from a name or a factory, each with a folder ``<name>-<number>`` of its own below `directory`.
    All others, and finished calculators, are used again and again.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes.
    directory : str or Path, optional
        Where those folders go; here by default.
    device : str, optional
        For the names that know one.
    """

    def __init__(self, calculator, directory=None, device=None):
        self.calculator, self.name = calculator, calculator_name(calculator)
        self.directory = Path('.' if directory is None else directory)
        self.options = {} if device is None else {'device': device}
        self.finished = check_calculator(calculator) is None
        self.shared = None
        if named(calculator) not in ('gpaw', 'vasp'):  # making one costs little, and errors come at once
            self.shared = get_calculator(calculator, **self.options)

    def get(self, number):
        """Return the calculator for structure `number`."""
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

    def failed(self):
        """Forget what a calculator may remember of the structure that it failed for."""
        if hasattr(self.shared, 'reset'):
            self.shared.reset()


def named(calculator):
    """Return the name, also of ``functools.partial(get_calculator, name, ...)``; None for all that is not by name."""
    if getattr(calculator, 'func', None) is get_calculator and calculator.args:
        calculator = calculator.args[0]
    return calculator.lower() if isinstance(calculator, str) else None


def is_stateful(calc):
    """Tell whether a calculator is bound to one structure: it writes input files, or keeps wave functions."""
    return hasattr(calc, 'write_input') or hasattr(calc, 'template') or type(calc).__module__.partition('.')[0] == 'gpaw'


def check_shared(calculator, workers):
    """Raise where several processes would share the one folder of a finished calculator.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes.
    workers : int or None
        Processes that get it; None for those of a cluster, however many.

    Raises
    ------
    ValueError
        It is finished and bound to one structure, and there is more than one process; or it is no calculator.
    """
    if check_calculator(calculator) is None and is_stateful(calculator) and workers not in (0, 1):
        raise ValueError(
            f'a finished {calculator_name(calculator)} has one folder for its files, in which '
            f'{"the workers of a cluster" if workers is None else f"{workers} workers"} would overwrite each other; pass a name '
            f'or a function that makes it, or workers=1{" and no client" if workers is None else ""}'
        )


def needs_periodic(calc):
    """Tell whether a calculator expands in plane waves, and so wants a cell that is periodic in all directions."""
    mode = getattr(getattr(calc, 'params', None), 'mode', None)  # of GPAW
    return getattr(calc, 'name', '') == 'vasp' or getattr(mode, 'name', '') == 'pw'


def fresh_folder(path):
    """Make a folder that did not exist, and return it: `path`, or `path` with .1, .2, ... behind it."""
    for k in itertools.count():
        folder = Path(f'{path}.{k}') if k else Path(path)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue


def freeze(calculator, *more):
    """Return a calculator, name or factory, and what goes with it, as bytes of a tuple for another process.

    Raises
    ------
    ValueError
        It cannot be pickled.
    """
    try:
        import cloudpickle as pickler  # of dask; functions of a script or notebook go too
    except ModuleNotFoundError:
        pickler = pickle
    try:
        return pickler.dumps((calculator, *more))
    except Exception as err:
        raise ValueError(
            f'other processes get the calculator by pickle; {calculator_name(calculator)} cannot be pickled ({err}); '
            'pass a name, or a function that makes it'
        ) from err
