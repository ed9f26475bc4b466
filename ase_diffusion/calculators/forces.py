"""Forces of structures during sampling by any ASE calculator, in this process or in one with a time limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..utils.checks import check_limits
from .factory import CalculatorFactory, check_room, needs_periodic
from .names import CalculatorLike, check_calculator

if TYPE_CHECKING:
    from ase import Atoms


class Forces:
    """Compute forces of batches of structures; each structure keeps its calculator for all steps.

    See :class:`ase_diffusion.calculators.factory.CalculatorFactory` for how calculators and folders are assigned.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        As `get_calculator` takes it; made at once, so that errors appear before sampling.
    directory : str or Path, optional
        Parent of the folders of calculators with files; the current folder by default.
    time_limit : float, optional
        Time limit per structure and step in seconds (making the calculator not included). The calculator then runs in a
        separate process, which is killed with all its child processes at the limit; the next call starts a new one with new
        calculators. The calculator must be picklable (names and factories are). None: no limit, no process.

    Raises
    ------
    ValueError
        The calculator is not valid, or cannot be pickled and has a time limit, or the time limit is not positive.
    MissingDependency
        The package of the calculator is not installed.
    """

    def __init__(
        self, calculator: CalculatorLike, directory: str | Path | None = None, *, time_limit: float | None = None
    ) -> None:
        check_calculator(calculator)
        check_limits(time_limit=time_limit)
        self.count, self.first, self.process = 0, 0, None
        if time_limit is None:
            self.work = _ForceTask(calculator, directory)
        else:
            from .process import CalculatorProcess

            self.work = self.process = CalculatorProcess(_ForceTask, calculator, directory, timeout=time_limit)
            self.process.start()

    def begin(self, count: int) -> None:
        """Start a batch of `count` new structures, numbered 0, 1, ...; calculators of the last batch are dropped."""
        self.first, self.count = self.count, self.count + count

    def __call__(self, k: int, atoms: Atoms, *, stress: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Return forces and stress of structure k.

        Parameters
        ----------
        k : int
            Number of the structure in the batch.
        atoms : Atoms
            Current positions; not changed.
        stress : bool
            Whether to compute the stress.

        Returns
        -------
        array (n, 3), and array (3, 3) or None
            Forces before constraints in eV/A, finite. Stress in eV/A^3, finite; None if not requested or not available.

        Raises
        ------
        Exception
            Errors of the calculator; a ValueError for forces that are not finite or of another shape.
        CalculatorProcessFailed
            With a time limit: the error of the calculator as text, a call above the limit, or a process that died.
        """
        return self.work(self.first, k, atoms, stress)

    def close(self) -> None:
        """End the process of the calculator, if any; the next call starts a new one."""
        if self.process is not None:
            self.process.close()


class _ForceTask:
    """Computation of forces, in this process or another one."""

    def __init__(self, calculator, directory=None):
        self.factory, self.first, self.kept = CalculatorFactory(calculator, directory), None, {}

    @torch.inference_mode(False)  # samplers disable gradients, but many calculators need them
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
                check_room(work, atoms)
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
    """Return the stress (3, 3) in eV/A^3, None if the calculator has none; its errors are raised."""
    try:
        stress = np.array(atoms.get_stress(voigt=False, apply_constraint=False), float)
    except NotImplementedError:  # ASE's PropertyNotImplementedError is one
        return None
    if stress.shape != (3, 3) or not np.isfinite(stress).all():
        raise ValueError('the calculator returned a stress that is not finite, or none of shape (3, 3)')
    return stress
