"""The calculator where the user names none, and whether the package of a calculator is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import MissingDependency
from .elements import mixes_functionals
from .names import CalculatorLike
from .own import OWN

if TYPE_CHECKING:
    from ase import Atoms

    from ..representations.slab import SlabTemplate

PACKAGES = {  # name: package on PyPI and of imports, extra of ase_diffusion
    '7net-mf-0': ('sevenn', '7net'),
    '7net-0': ('sevenn', '7net'),
    'chgnet': ('chgnet', 'chgnet'),
    'gpaw': ('gpaw', 'gpaw'),
}
UNIVERSAL = ('7net-mf-0', 'chgnet')  # for nearly all elements, the preferred one first


def default_calculator(images: Iterable[Atoms] = (), own_first: bool = False) -> str:
    """Return the name of a calculator for structures, without making it.

    That is ``'ag-o'`` where it knows all structures (overlayers of Ag and O on two frozen layers of Ag(111)), else the first
    installed one of ``'7net-mf-0'`` and ``'chgnet'``, which know nearly all elements (the other way round for
    O or F on metals where :func:`~ase_diffusion.calculators.elements.mixes_functionals`); where neither is, ``'metal-oxide'`` if
    it knows them (overlayers on frozen metals).

    Parameters
    ----------
    images : iterable of Atoms
        Structures to relax; none: any.
    own_first : bool
        Prefer ``'metal-oxide'`` where it knows them: to judge many candidates, of which one is kept.

    Raises
    ------
    ValueError
        None fits; the message lists the choices.
    """
    images = list(images)
    reasons: dict[str, str] = {}
    universal = UNIVERSAL[::-1] if any(map(mixes_functionals, images)) else UNIVERSAL
    for name in ('ag-o', 'metal-oxide', *universal) if own_first else ('ag-o', *universal, 'metal-oxide'):
        if name in UNIVERSAL:
            if _installed(PACKAGES[name][0]):
                return name
        elif (reason := unknown_to(name, images) if images else 'nothing is known of the structures') is None:
            return name
        else:
            reasons[name] = reason
    reason = '; '.join(f'{name}: {why}' for name, why in reasons.items())
    ways = ' or '.join(f'{name!r} after pip install {PACKAGES[name][0]}' for name in UNIVERSAL)
    raise ValueError(
        f'no calculator was named, and none that is installed fits by default ({reason}); name one: {ways}; '
        "'emt' for some metals, 'lj', 'gpaw', 'vasp', a .safetensors force field, or any ASE calculator in Python"
    )


def default_for_slab(slab: Atoms, numbers: Sequence[int]) -> str:
    """Return `default_calculator` for overlayers of the elements ``numbers`` on a slab."""
    return default_calculator([example_structure(slab, numbers)])


def example_structure(slab: Atoms, numbers: Sequence[int]) -> Atoms:
    """Return a slab with an atom of each of these elements, by which calculators are asked what they know."""
    atoms = slab.copy()
    for number in numbers:
        atoms.append(number)
    return atoms


def check_installed(calculator: CalculatorLike) -> None:
    """Raise a MissingDependency if the package of a calculator given by name is not installed; nothing is imported."""
    package, extra = PACKAGES.get(calculator.lower(), (None, None)) if isinstance(calculator, str) else (None, None)
    if package is not None and not _installed(package):
        raise MissingDependency(package, extra)


def _installed(package):
    """Return whether a package is there, without importing it."""
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a spec, put into sys.modules
        return True


@lru_cache(maxsize=len(OWN))
def _header(name):
    from ..utils.header import read_header
    from ..weights.zoo import find_model

    return read_header(find_model(OWN[name]))


def unknown_to(name: str, images: Iterable[Atoms | SlabTemplate]) -> str | None:
    """Return why a shipped force field ('ag-o', 'metal-oxide') should not compute the structures, None where it should.

    It should not where it never saw an element, nor by default where its data have nothing like them: metal without oxygen, an
    alloy, another facet or coverage.
    """
    from ..representations.slab import SlabTemplate
    from .forcefield import check_known

    for atoms in images:
        try:
            template = SlabTemplate.of(atoms)
            check_known(template, _header(name), False)
        except ValueError as err:
            return ' '.join(str(err).split())
        if news := template.news(_header(name).get('data', {})):
            return f'its data have no {news}'
    return None
