"""Local relaxation of many structures: one call, one list back, failures reported and not raised."""

import logging

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ..utils.atoms import copy_atoms, frozen_mask
from ..utils.log import Log
from .calculators import calculator_name, get_calculator

logger = logging.getLogger(__name__)

MAX_TRAVEL = 50.0  # A; an atom that went further did not relax, it was shot away
MAX_FORCE = 1e3  # eV/A; above it at the end the potential was asked for something that it does not know
RESULTS = ('relax_steps', 'relax_converged', 'relax_calculator', 'energy_generated', 'relax_failed')


class RelaxationFailed(RuntimeError):
    """One structure left the realm of the calculator."""


def relax(
    images,
    calculator='7net-mf-0',
    *,
    optimizer='BFGS',
    fmax=0.05,
    steps=200,
    filter=None,
    frames=None,
    logfile=None,
):
    """Relax structures with an ASE calculator and optimizer.

    The input is not changed. Every structure stands alone: where the calculator raises, returns NaN or explodes, a
    warning is logged, a copy of the input takes the place of the result, and the others go on.

    Parameters
    ----------
    images : Atoms or list of Atoms
        Structures; FixAtoms are bit-identical in the result.
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes.
    optimizer : str or class
        Name of a class of `ase.optimize`, such as ``'BFGS'``, ``'FIRE'`` or ``'LBFGS'``, or the class.
    fmax : float
        Largest force on a mobile atom at convergence (eV/A).
    steps : int
        Most steps for each structure; 0 is a single point.
    filter : class or None
        A class of `ase.filters` (or a function of the Atoms) for what moves, such as ``FrechetCellFilter``.
    frames : list or None
        One list of Atoms (every step, with energy and raw forces) is appended to it for each structure.
    logfile : str, Path, stream or None
        One line for each structure; ``'-'`` is stdout.

    Returns
    -------
    Atoms or list of Atoms
        As many as came, in the same order, with a SinglePointCalculator that holds energy (eV) and the forces before
        constraints (eV/A). ``info['key_value_pairs']`` has ``relax_steps``, ``relax_converged``, ``relax_calculator``
        and ``energy_generated`` (eV, of the input geometry). A failed one has ``relax_failed`` = True there, and the
        reason as text in ``info['data']['relax_error']``.

    Raises
    ------
    ValueError
        The optimizer, calculator, fmax or steps is not one, or a filter changes a cell in which atoms are fixed.
    """
    single = isinstance(images, Atoms)
    inputs = _check_images([images] if single else images)
    kind = find_optimizer(optimizer)
    check_numbers(fmax, steps)
    _check_filter(filter, inputs)
    calc, name = get_calculator(calculator), calculator_name(calculator)
    relaxed = []
    with Log(logfile) as log:
        log.write(f'relax: {name}, {optimizer_name(kind)}, fmax {fmax} eV/A, at most {steps} steps')
        log.write(f'{"#":>5s} {"formula":<20s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s}  outcome')
        for number, atoms in enumerate(inputs):
            path = []
            try:
                result = _relax_one(atoms, calc, kind, fmax, steps, filter, path)
            except Exception as err:  # noqa: BLE001  any calculator may raise anything; the others go on
                result = _failed(atoms, err, number)
                if hasattr(calc, 'reset'):
                    calc.reset()
            result.info['key_value_pairs']['relax_calculator'] = name
            relaxed.append(result)
            if frames is not None:
                frames.append(path)
            log.write(_line(number, result))
    return relaxed[0] if single else relaxed


def find_optimizer(optimizer):
    """Return the class of `ase.optimize` of this name; a class or factory passes through.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    import ase.optimize

    names = [name for name in ase.optimize.__all__ if not name.endswith('Error')]
    if not isinstance(optimizer, str):
        if callable(optimizer):
            return optimizer
        raise TypeError(f'An optimizer is a class or one of {names}; got {type(optimizer).__name__}.')
    for name in names:
        if name.lower() == optimizer.strip().lower():
            return getattr(ase.optimize, name)
    raise ValueError(f'An optimizer is a class or one of {names}; got {optimizer!r}.')


def _relax_one(atoms, calc, kind, fmax, steps, filter, path):
    """Return one relaxed copy; frames go to the list `path`."""
    work, fixed = copy_atoms(atoms), frozen_mask(atoms)
    work.calc = calc
    energy_generated, _ = _evaluate(work, atoms)
    opt = kind(work if filter is None else filter(work), logfile=None)

    def observe():
        energy, forces = _evaluate(work, atoms)
        frame = _snapshot(work, energy, forces)
        frame.info.setdefault('key_value_pairs', {})['step'] = int(opt.nsteps)
        path.append(frame)

    opt.attach(observe)
    converged = bool(opt.run(fmax=fmax, steps=steps))
    if not np.array_equal(work.positions[fixed], atoms.positions[fixed]):
        if not np.array_equal(work.cell[:], atoms.cell[:]):
            raise RelaxationFailed('the cell changed and moved atoms that FixAtoms holds')
        work.positions[fixed] = atoms.positions[fixed]
    energy, forces = _evaluate(work, atoms)
    if np.abs(forces[~fixed]).max(initial=0.0) > MAX_FORCE:
        raise RelaxationFailed(f'forces above {MAX_FORCE:g} eV/A are left after {opt.nsteps} steps')
    result = _snapshot(work, energy, forces)
    assert np.array_equal(result.positions[fixed], atoms.positions[fixed])
    pairs = _clean(result)
    pairs.update(relax_steps=int(opt.nsteps), relax_converged=converged, energy_generated=energy_generated)
    return result


def _evaluate(work, origin):
    """Return energy (float) and raw forces (n, 3); raise where they or the positions are no longer sensible."""
    if not np.isfinite(work.positions).all():
        raise RelaxationFailed('the positions became NaN or infinite')
    travel = np.linalg.norm(work.positions - origin.positions, axis=1).max(initial=0.0)
    if travel > MAX_TRAVEL and np.array_equal(work.cell[:], origin.cell[:]):
        raise RelaxationFailed(f'an atom moved {travel:.0f} A, which is more than {MAX_TRAVEL:.0f} A')
    energy = float(work.get_potential_energy())
    forces = np.array(work.get_forces(apply_constraint=False), dtype=float)  # (n, 3)
    if not np.isfinite(energy):
        raise RelaxationFailed(f'the calculator returned the energy {energy}')
    if not np.isfinite(forces).all():
        raise RelaxationFailed('the calculator returned forces that are NaN or infinite')
    return energy, forces


def _snapshot(work, energy, forces):
    """Return a copy with a SinglePointCalculator (raw forces)."""
    frame = copy_atoms(work)
    results = {'energy': energy, 'forces': forces}
    stress = getattr(work.calc, 'results', {}).get('stress')
    if stress is not None and work.pbc.all():  # of a slab in vacuum it means nothing
        results['stress'] = np.array(stress)
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _clean(atoms):
    """Return the key value pairs of new atoms without what an earlier relaxation left there."""
    pairs = atoms.info.setdefault('key_value_pairs', {})
    for key in RESULTS:
        pairs.pop(key, None)
    atoms.info.get('data', {}).pop('relax_error', None)
    return pairs


def _failed(atoms, err, number):
    """Return a copy of the input that says why it could not be relaxed."""
    text = f'{type(err).__name__}: {err}' if str(err) else type(err).__name__
    logger.warning('Relaxation of structure %d (%s) failed: %s', number, atoms.get_chemical_formula(), text)
    result = copy_atoms(atoms)
    _clean(result).update(relax_failed=True, relax_converged=False)
    result.info.setdefault('data', {})['relax_error'] = text
    return result


def _line(number, atoms):
    """Return the line of the log for one result."""
    pairs = atoms.info['key_value_pairs']
    start = f'{number:5d} {atoms.get_chemical_formula():<20s}'
    if pairs.get('relax_failed'):
        return f'{start} {"-":>5s} {"-":>12s} {"-":>12s}  failed: {atoms.info["data"]["relax_error"]}'
    outcome = 'converged' if pairs['relax_converged'] else 'not converged'
    energy = atoms.calc.results['energy']
    return f'{start} {pairs["relax_steps"]:5d} {pairs["energy_generated"]:12.4f} {energy:12.4f}  {outcome}'


def optimizer_name(kind):
    """Return the name of an optimizer class, function or partial."""
    return getattr(getattr(kind, 'func', kind), '__name__', type(kind).__name__)


def _check_images(images):
    """Return the images as a list of Atoms."""
    try:
        images = list(images)
    except TypeError:
        images = [images]
    for number, atoms in enumerate(images):
        if not isinstance(atoms, Atoms):
            raise TypeError(
                f'relax takes Atoms or a list of Atoms; number {number} is {type(atoms).__name__}. '
                'Read files first: ase.io.read(path, ":").'
            )
    return images


def check_numbers(fmax, steps):
    """Raise where fmax or steps cannot be meant."""
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f'fmax is a positive force in eV/A; got {fmax!r}. The usual choice is 0.05.')
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f'steps is an integer, 0 (single point) or more; got {steps!r}.')


def _check_filter(filter, images):
    """Raise where a filter is none, or is known to change the cell under fixed atoms."""
    from ase.filters import StrainFilter, UnitCellFilter

    if filter is None:
        return
    if not callable(filter):
        raise TypeError(
            f'filter is a class such as ase.filters.FrechetCellFilter, or None; got {type(filter).__name__}. '
            'Pass the class: every structure gets its own.'
        )
    cell_filter = isinstance(filter, type) and issubclass(filter, (UnitCellFilter, StrainFilter))
    if cell_filter and any(frozen_mask(atoms).any() for atoms in images):
        raise ValueError(
            f'Atoms that FixAtoms holds keep their positions, but {filter.__name__} changes the cell and moves them. '
            'Relax with filter=None, or remove FixAtoms with atoms.set_constraint().'
        )
