"""Forces of structures that move step by step, by any ASE calculator: in this process, or in one that can be killed."""

import numpy as np
import torch

from ..utils.checks import check_limits
from .factory import CalculatorFactory, needs_periodic
from .names import check_calculator


class Forces:
    """Compute forces of structures in batches, each structure with its calculator from the first step to the last.

    Who gets which calculator, and in which folder, is said in :class:`ase_diffusion.calculators.factory.CalculatorFactory`.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes; it is made here, so that errors come before any work.
    directory : str or Path, optional
        Where calculators with files get their folders; here by default.
    time_limit : float, optional
        Seconds for one structure and step (not for making the calculator). The calculator then lives in a process of its own,
        which is killed with all that it started where it takes longer; the next call starts another one, whose calculators
        remember nothing. The calculator must be fit for pickle (a name or a factory always is). None: no limit, no process.

    Raises
    ------
    ValueError
        The calculator is none, or cannot be pickled and has a time limit; the time limit is not a positive number.
    MissingDependency
        The package of the calculator is not installed.
    """

    def __init__(self, calculator, directory=None, *, time_limit=None):
        check_calculator(calculator)
        check_limits(time_limit=time_limit)
        self.count, self.first, self.process = 0, 0, None
        if time_limit is None:
            self.work = _ForceTask(calculator, directory)
        else:
            from .process import CalculatorProcess

            self.work = self.process = CalculatorProcess(_ForceTask, calculator, directory, timeout=time_limit)
            self.process.start()

    def begin(self, count):
        """Let go of the structures before; `count` new ones are numbered 0, 1, ... from now on."""
        self.first, self.count = self.count, self.count + count

    def __call__(self, k, atoms, *, stress=False):
        """Return forces and stress of structure k.

        Parameters
        ----------
        k : int
            Its number in the batch.
        atoms : Atoms
            Where it is now; not changed.
        stress : bool
            Whether the stress is asked for.

        Returns
        -------
        array (n, 3), and array (3, 3) or None
            Forces before constraints in eV/A, finite. Stress in eV/A^3, finite; None where it was not asked for, or where the
            calculator has none.

        Raises
        ------
        Exception
            What the calculator raised; ValueError for forces that are not finite or of another shape.
        CalculatorProcessFailed
            With a time limit: the same as text, or the call took too long, or the process died.
        """
        return self.work(self.first, k, atoms, stress)

    def close(self):
        """End the process with the calculator, if there is one; the next call starts another one."""
        if self.process is not None:
            self.process.close()


class _ForceTask:
    """What computes, in this process or another one."""

    def __init__(self, calculator, directory=None):
        self.factory, self.first, self.kept = CalculatorFactory(calculator, directory), None, {}

    @torch.inference_mode(False)  # samplers run without gradients, but many calculators differentiate with torch
    @torch.enable_grad()
    def __call__(self, first, k, atoms, stress):
        if first != self.first:
            self.first, self.kept = first, {}
        try:
            if k not in self.kept:
                self.kept[k] = self.factory.get(first + k)
            work = atoms.copy()
            if needs_periodic(self.kept[k]):
                work.pbc = True
            work.calc = self.kept[k]
            forces = np.array(work.get_forces(apply_constraint=False), float)  # (n, 3)
            if forces.shape != (len(work), 3):
                raise ValueError(f'forces have the shape ({len(work)}, 3), the calculator returned {forces.shape}')
            if not np.isfinite(forces).all():
                raise ValueError('the calculator returned forces that are NaN or infinite')
        except Exception:
            self.factory.failed()
            raise
        return forces, _stress(work) if stress else None


def _stress(atoms):
    """Return the stress (3, 3) in eV/A^3; None where there is none, which many calculators have for a reason."""
    try:
        stress = np.array(atoms.get_stress(voigt=False), float)
    except Exception:  # any calculator may raise anything
        return None
    return stress if stress.shape == (3, 3) and np.isfinite(stress).all() else None
