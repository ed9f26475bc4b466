"""What relaxes: it keeps the calculator, or the process that has it, from one structure to the next."""

from ..calculators.factory import CalculatorFactory
from ..calculators.names import get_calculator, is_own_force_field
from ..errors import MissingDependency
from ..utils.atoms import frozen_mask, unsupported_constraints
from .single import failed, relax_one


class Relaxer:
    """Relax lists of structures with one calculator: in batches, within a time limit, or one by one.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes.
    settings : Settings
    timeout, batch_size, directory, device
        As in :func:`ase_diffusion.relax.relax`.
    """

    def __init__(self, calculator, settings, *, timeout=None, batch_size=16, directory=None, device=None):
        self.settings, self.batch_size, self.process, self.forcefield = settings, batch_size, None, None
        if timeout is not None:
            from ..calculators.process import CalculatorProcess

            self.process = CalculatorProcess(_relaxing, calculator, settings, directory, device, timeout=timeout)
        elif is_own_force_field(calculator):
            self.forcefield = get_calculator(calculator, **({} if device is None else {'device': device}))
            self.factory = CalculatorFactory(self.forcefield)
        else:
            self.factory = CalculatorFactory(calculator, directory, device)

    def check(self, images):
        """Raise the first error where our own force field knows none of the structures: then the input is wrong."""
        if self.forcefield is None:
            return
        from ..calculators.forcefield import check_known

        errors = []
        for atoms in images:
            try:
                check_known(atoms, self.forcefield.header, self.forcefield.network.passive_edges)
                return
            except ValueError as err:
                errors.append(err)
        if errors:
            raise errors[0]

    def iterate(self, images, numbers=None, frames=None):
        """Yield (index, relaxed Atoms), each as it is done.

        Parameters
        ----------
        images : list of Atoms
        numbers : list of int, optional
            Numbers of the structures in messages and folders, 0, 1, ... by default.
        frames : list or None
            One list of steps is appended for each structure.
        """
        numbers = range(len(images)) if numbers is None else numbers
        if self.forcefield is not None and frames is None and self._batchable(images):
            from .batched import irelax_batched

            yield from irelax_batched(images, self.forcefield, self.settings, batch_size=self.batch_size)
            return
        one = self._in_this_process if self.process is None else self._in_other_process
        for index, (number, atoms) in enumerate(zip(numbers, images, strict=True)):
            result, path = one(number, atoms)
            if frames is not None:
                frames.append(path)
            yield index, result

    def _in_this_process(self, number, atoms):
        path = []
        try:
            return relax_one(atoms, self.factory.get(number), self.settings, path), path
        except MissingDependency:  # of GPAW, which is made with each structure; the others would have no better luck
            raise
        except Exception as err:  # any calculator may raise anything; the others go on
            self.factory.failed()
            return failed(atoms, err, number), path

    def _in_other_process(self, number, atoms):
        from ..calculators.process import CalculatorProcessFailed

        try:
            return self.process(number, atoms)
        except CalculatorProcessFailed as err:
            return failed(atoms, str(err), number), []

    def _batchable(self, images):
        """Tell whether structures can be relaxed in batches: plain BFGS, one periodicity, something to move, only FixAtoms."""
        from ase.optimize import BFGS

        if self.forcefield.network.passive_edges:  # then they need no substrate, and fixed atoms have forces
            return False
        how, first = self.settings, images[0] if images else None
        same = all((atoms.pbc == first.pbc).all() and not frozen_mask(atoms).all() for atoms in images)
        same = same and not any(map(unsupported_constraints, images))
        plain = how.optimizer is BFGS and how.filter is None and how.pbc is None and how.hessian is None
        return same and plain and self.batch_size > 1 and len(images) > 1

    def close(self):
        """End the process with the calculator, if there is one."""
        if self.process is not None:
            self.process.close()


def _relaxing(calculator, settings, directory, device):
    """Return the function ``(number, atoms) -> (relaxed atoms, frames)`` that a child calls."""
    factory = CalculatorFactory(calculator, directory, device)

    def one(number, atoms):
        path = []
        try:
            return relax_one(atoms, factory.get(number), settings, path), path
        except Exception:
            factory.failed()
            raise

    return one
