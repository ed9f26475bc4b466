"""Relax structures one after another with one calculator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..calculators.default import check_installed
from ..calculators.elements import warn_of_mixed_functionals
from ..calculators.factory import CalculatorFactory, named
from ..calculators.names import CalculatorLike, get_calculator, is_own_force_field
from ..errors import MissingDependency
from ..utils.atoms import frozen_mask, unsupported_constraints
from .settings import Settings
from .single import failed, relax_one

if TYPE_CHECKING:
    import torch
    from ase import Atoms


class Relaxer:
    """Relax lists of structures with one calculator: in batches, in a process with a time limit, or one by one.

    Parameters
    ----------
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes.
    settings : Settings
    timeout, batch_size, directory, device
        As in :func:`ase_diffusion.relax.relax`.
    """

    def __init__(
        self,
        calculator: CalculatorLike,
        settings: Settings,
        *,
        timeout: float | None = None,
        batch_size: int = 16,
        directory: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        check_installed(calculator)
        self.calculator = calculator
        self.settings, self.batch_size, self.process, self.batches = settings, batch_size, None, None
        if timeout is not None:
            from ..calculators.process import CalculatorProcess

            self.process = CalculatorProcess(_relaxing, calculator, settings, directory, device, timeout=timeout)
        elif is_own_force_field(calculator):
            from ..calculators.batches import OverlayerBatches

            field = get_calculator(calculator, **({} if device is None else {'device': device}))
            self.batches, self.factory = OverlayerBatches(field.network, field.header), CalculatorFactory(field)
        else:
            self.factory = CalculatorFactory(calculator, directory, device)
            if (named(calculator) or '').startswith('7net') and self.factory.shared.device.type == 'cuda':
                from ..calculators.batches import SevenNetBatches

                self.batches = SevenNetBatches(self.factory.shared)

    def check(self, images: Iterable[Atoms]) -> None:
        """Raise the first error if a force field of this package knows none of the structures; then the input is wrong.

        Warns where SevenNet is known to be wrong.
        """
        images = list(images)
        warn_of_mixed_functionals(self.calculator, images)
        if self.batches is None:
            return
        errors = []
        for atoms in images:
            try:
                self.batches.check_known(atoms)
                return
            except ValueError as err:
                errors.append(err)
        if errors:
            raise errors[0]

    def iterate(
        self, images: Sequence[Atoms], numbers: Sequence[int] | None = None, frames: list[list[Atoms]] | None = None
    ) -> Iterator[tuple[int, Atoms]]:
        """Yield (index, relaxed Atoms) in the order of completion.

        Parameters
        ----------
        images : list of Atoms
        numbers : list of int, optional
            Numbers of the structures in messages and folder names; 0, 1, ... by default.
        frames : list or None
            The list of steps of each structure is appended.
        """
        numbers = range(len(images)) if numbers is None else numbers
        paths = [[] for _ in images]
        if frames is not None:
            frames.extend(paths)
        batch = [k for k, atoms in enumerate(images) if self._batchable(atoms)]
        if len(batch) > 1:
            from .batched import irelax_batched

            some, steps = [images[k] for k in batch], None if frames is None else [paths[k] for k in batch]
            options = {'batch_size': self.batch_size, 'frames': steps}
            for k, result in irelax_batched(some, self.batches, self.settings, **options):
                yield batch[k], result
        done = set(batch) if len(batch) > 1 else set()
        one = self._in_this_process if self.process is None else self._in_other_process
        for index, (number, atoms) in enumerate(zip(numbers, images, strict=True)):
            if index in done:
                continue
            result, path = one(number, atoms)
            paths[index].extend(path)
            yield index, result

    def _in_this_process(self, number, atoms):
        path = []
        try:
            return relax_one(atoms, self.factory.get(number), self.settings, path), path
        except MissingDependency:  # GPAW is made anew for each structure, so it would be missing for all
            raise
        except Exception as err:  # calculators raise any error; the other structures continue
            self.factory.failed()
            return failed(atoms, err, number), path

    def _in_other_process(self, number, atoms):
        from ..calculators.process import CalculatorProcessFailed

        try:
            return self.process(number, atoms)
        except CalculatorProcessFailed as err:
            return failed(atoms, str(err), number), []

    def _batchable(self, atoms):
        """Return whether a structure can be part of a batch: plain BFGS, known, mobile atoms, no constraint but FixAtoms."""
        if self.batches is None or getattr(self.batches.network, 'passive_edges', False):  # edges between frozen atoms
            return False
        from ase.optimize import BFGS

        how = self.settings
        if self.batch_size == 1 or how.optimizer is not BFGS or any(x is not None for x in (how.filter, how.pbc, how.hessian)):
            return False
        try:
            self.batches.check(atoms)
        except ValueError:  # one by one the calculator decides
            return False
        return not frozen_mask(atoms).all() and not unsupported_constraints(atoms)

    def close(self) -> None:
        """End the process of the calculator, if any."""
        if self.process is not None:
            self.process.close()


def _relaxing(calculator, settings, directory, device):
    """Return the function ``(number, atoms) -> (relaxed atoms, frames)`` that runs in the other process."""
    factory = CalculatorFactory(calculator, directory, device)

    def one(number, atoms):
        path = []
        try:
            return relax_one(atoms, factory.get(number), settings, path), path
        except Exception:
            factory.failed()
            raise

    return one
