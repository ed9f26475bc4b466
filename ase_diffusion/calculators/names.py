"""ASE calculators by name, for the command line, generators and searches.

The package of a calculator is imported when the calculator is made.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import MissingDependency
from ..utils.checks import CALCULATOR_KEYWORDS
from .own import OWN

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from ..networks.forcefield import ForceField

# a name or path, a factory, a calculator or a network: the argument of `get_calculator`
CalculatorLike: TypeAlias = 'str | Path | Callable[..., Calculator] | Calculator | ForceField'

GPAW_DEFAULTS = {'mode': 'lcao', 'basis': 'dzp', 'xc': 'PBE'}


def get_calculator(calculator: CalculatorLike, **kwargs: Any) -> Calculator:
    """Return an ASE calculator for a name, a file, a factory or an instance.

    Parameters
    ----------
    calculator : str, Path, callable, Calculator or ForceField
        ``'ag-o'`` and ``'metal-oxide'`` (shipped force fields), ``'emt'``, ``'lj'``, ``'7net-mf-0'`` (SevenNet, fidelity PBE),
        ``'7net-0'``, ``'chgnet'``, ``'gpaw'``, ``'vasp'``; the path of a ``.safetensors`` force field; a class or
        function that makes a calculator; a network of `forcefield_from_schnetpack`; or a calculator, which is returned
        unchanged.
    **kwargs
        Keywords of the constructor; they override the defaults of a name.

    Raises
    ------
    ValueError
        The name is unknown, or keywords came with a calculator instance.
    TypeError
        The calculator of this name does not know a keyword.
    FileNotFoundError
        There is no force field at the path.
    MissingDependency
        The package of the calculator is not installed.
    """
    make = check_calculator(calculator)
    if make is None:
        if kwargs:
            raise ValueError(
                f'keywords make a new calculator, but a finished {type(calculator).__name__} came together with '
                f'{sorted(kwargs)}; set them where the calculator is made, or pass its class'
            )
        return calculator
    made = make(**kwargs)
    if not _is_calculator(made):
        raise TypeError(
            f'a factory returns an ASE calculator; {_text(calculator)} returned {type(made).__name__}; '
            "return the calculator, or pass one of the names, such as 'emt'"
        )
    return made


def check_calculator(calculator: CalculatorLike) -> Callable[..., Calculator] | None:
    """Return the function that makes the calculator, None for an instance; nothing is made or imported.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        As `get_calculator` takes it.

    Raises
    ------
    ValueError, FileNotFoundError, TypeError
        It is not a calculator, nor the name or path of one.
    """
    if isinstance(calculator, (str, Path)):
        return _from_text(str(calculator))
    if _is_network(calculator):
        return partial(_own, calculator)
    if _is_calculator(calculator):
        return None
    if callable(calculator):
        return calculator
    raise TypeError(
        f'a calculator is a name, a path, a factory or an ASE calculator; got {type(calculator).__name__}; names: {_names()}'
    )


def calculator_name(calculator: CalculatorLike) -> str:
    """Return a short name for logs and databases: the name, the file name or the class.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        As `get_calculator` takes it.
    """
    if isinstance(calculator, (str, Path)):
        text = str(calculator)
        return text.lower() if text.lower() in NAMES else Path(text).name
    return _text(calculator)


def calculator_title(calculator: Calculator) -> str:
    """Return the name of a calculator instance as ``ase db`` shows it."""
    return str(getattr(calculator, 'name', None) or type(calculator).__name__).lower()


def is_own_force_field(calculator: CalculatorLike) -> bool:
    """Return whether a name, path or calculator is a force field of this package, which computes batches."""
    if isinstance(calculator, (str, Path)):
        return str(calculator).lower() in OWN or str(calculator).endswith('.safetensors')
    return _is_network(calculator) or (hasattr(calculator, 'network') and hasattr(calculator, 'header'))


def _is_network(thing):
    """Return whether an object is a network `ForceField`, without importing torch."""
    module = sys.modules.get('ase_diffusion.networks.forcefield')
    return module is not None and isinstance(thing, module.ForceField)


def _from_text(text):
    """Return the function that makes the calculator of a name or of a force field file."""
    if text.lower() in NAMES:
        return NAMES[text.lower()]
    if text.endswith('.safetensors'):
        if not os.path.isfile(text):
            raise FileNotFoundError(
                f'a force field is a .safetensors file; there is none at {os.path.abspath(text)}; '
                f'correct the path or use one of the names: {_names()}'
            )
        return partial(_own, text)
    raise ValueError(
        f'a calculator is one of {_names()}, or the path of a .safetensors force field; got {text!r}; '
        'any other ASE calculator works too: pass the object itself'
    )


def _names():
    """Return the names as one line of text."""
    return ', '.join(repr(name) for name in NAMES)


def _text(thing):
    """Return the name of a function or class, and the class name of an object."""
    if getattr(thing, 'func', None) is get_calculator and thing.args:  # functools.partial(get_calculator, 'gpaw', ...)
        return calculator_name(thing.args[0])
    thing = getattr(thing, 'func', thing)
    return getattr(thing, '__name__', None) or type(thing).__name__


def _is_calculator(thing):
    """Return whether an object is a calculator instance (not a class or a function, nor Atoms, which have its methods)."""
    methods = hasattr(thing, 'get_potential_energy') and hasattr(thing, 'get_forces')
    return methods and not isinstance(thing, type) and not hasattr(thing, 'get_chemical_formula')


def _made(name, kind, kwargs, more=(), *args):
    """Return a calculator; raise a TypeError for keywords that its class would store without a word."""
    if not isinstance(kind, type):
        return kind(*args, **kwargs)
    named = {key for key, each in inspect.signature(kind).parameters.items() if each.kind is not each.VAR_KEYWORD}
    known = {*named, *more, *CALCULATOR_KEYWORDS}
    if unknown := sorted(set(kwargs) - known):
        raise TypeError(f'{name!r} has the keywords {sorted(known)}; got {unknown}')
    return kind(*args, **kwargs)


def _titled(calculator, name, parameters):
    """Return a calculator whose name and parameters say which model it is, for ``ase db``."""
    calculator._get_name = partial(str, name)  # ASE's property ``name`` reads it
    calculator.parameters.update({key: value for key, value in parameters.items() if isinstance(value, (str, int, float, bool))})
    return calculator


def _own(model='ag-o', **kwargs):
    """Return the force field of this package."""
    from .forcefield import ForceFieldCalculator

    return ForceFieldCalculator(model, **kwargs)


def _emt(**kwargs):
    """Return effective medium theory: fast, for metals; oxygen for tests only."""
    from ase.calculators.emt import EMT

    return _made('emt', EMT, kwargs, EMT.default_parameters)


def _lennard_jones(**kwargs):
    """Return the Lennard-Jones pair potential of ASE."""
    from ase.calculators.lj import LennardJones

    return _made('lj', LennardJones, kwargs, LennardJones.default_parameters)


def _sevennet(model, **kwargs):
    """Return a SevenNet calculator without its warning about accelerators."""
    try:
        from sevenn.calculator import SevenNetCalculator
    except ModuleNotFoundError as err:
        raise _missing(err, 'sevenn', '7net') from err
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='No tensor product accelerator', category=UserWarning)
        return _titled(_made(model, SevenNetCalculator, kwargs, (), model), model, kwargs)


def _sevennet_mf_0(**kwargs):
    """Return SevenNet-MF-0 with its PBE fidelity."""
    return _sevennet('7net-mf-0', **{'modal': 'PBE', **kwargs})


def _sevennet_0(**kwargs):
    """Return SevenNet-0."""
    return _sevennet('7net-0', **kwargs)


def _chgnet(**kwargs):
    """Return CHGNet with its default weights."""
    try:
        from chgnet.model.dynamics import CHGNetCalculator
    except ModuleNotFoundError as err:
        raise _missing(err, 'chgnet', 'chgnet') from err
    options = {('use_device' if name == 'device' else name): value for name, value in kwargs.items()}
    with redirect_stdout(StringIO()):  # it prints its device
        made = _made('chgnet', CHGNetCalculator, options)
    return _titled(made, 'chgnet', {'version': getattr(made, 'version', None)})


def _gpaw(**kwargs):
    """Return GPAW: LCAO with a dzp basis and PBE, by default."""
    try:
        from gpaw import GPAW
    except ModuleNotFoundError as err:
        raise _missing(err, 'gpaw', 'gpaw') from err
    basis = {key: value for key, value in GPAW_DEFAULTS.items() if 'mode' not in kwargs or key not in ('mode', 'basis')}
    return GPAW(**{**basis, 'txt': None, **kwargs})


def _vasp(**kwargs):
    """Return ASE's interface to VASP with PBE (it runs ASE_VASP_COMMAND)."""
    from ase.calculators.vasp import Vasp

    return Vasp(**{'xc': 'pbe', **kwargs})


def _missing(err, package, extra):
    """Return a MissingDependency for a package that is not installed; otherwise the error itself."""
    if (err.name or '').split('.')[0] != package:
        return err
    return MissingDependency(package, extra)


NAMES = {
    **{name: partial(_own, name) for name in OWN},
    'emt': _emt,
    'lj': _lennard_jones,
    '7net-mf-0': _sevennet_mf_0,
    '7net-0': _sevennet_0,
    'chgnet': _chgnet,
    'gpaw': _gpaw,
    'vasp': _vasp,
}
