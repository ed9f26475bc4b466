"""Choose the lowest in energy among several candidates of one composition."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ase import Atoms

from ..calculators.elements import check_elements
from ..calculators.names import CalculatorLike, calculator_name, is_own_force_field
from ..relax.relaxer import Relaxer
from ..relax.settings import Settings
from ..representations import Failure
from ..utils.atoms import energy_of
from ..utils.provenance import note

if TYPE_CHECKING:
    import torch

    from ..representations.slab import SlabTemplate

log = logging.getLogger(__name__)


class BestOf:
    """Keep one of every ``best_of`` candidates: the one of lowest energy.

    Parameters
    ----------
    best_of : int
        Candidates for each structure.
    calculator : anything :func:`ase_diffusion.relax.get_calculator` takes, or None
        Judges the candidates by a single point each; None: they carry energies already, those of a relaxation.
    device : str or torch.device, optional
        Of our own force fields.
    score : callable, optional
        Number of a structure that carries its energy; the lowest is chosen. Default: the energy.

    Attributes
    ----------
    calls : int
        Single points so far.
    """

    def __init__(
        self,
        best_of: int,
        calculator: CalculatorLike | None = None,
        device: str | torch.device | None = None,
        score: Callable[[Atoms], float] = energy_of,
    ) -> None:
        self.best_of, self.calculator, self.score, self.calls, self.relaxer = best_of, calculator, score, 0, None
        if calculator is not None:
            settings = Settings(steps=0, min_distance=None, max_energy=None)
            self.relaxer = Relaxer(calculator, settings, device=device if is_own_force_field(calculator) else None)

    def check(self, template: Atoms | SlabTemplate) -> None:
        """Raise a ValueError where a calculator does not know the elements of ``template``, as far as that can be told."""
        if self.relaxer is not None:
            check_elements(self.calculator, getattr(template, 'atoms', template).numbers, 'best_of')
            try:
                self.relaxer.check([template])
            except ValueError as error:
                raise ValueError(
                    f'best_of needs energies: {error}; or pass calculator=... (and guidance=False where it shall '
                    'not guide), or relax={...}'
                ) from None

    def choose(self, images: list[Atoms | Failure], fit: Callable[[Atoms | Failure], bool]) -> list[Atoms | Failure]:
        """Return one structure for every ``best_of`` of ``images``; those that are not ``fit(atoms)`` are out of the race.

        Of candidates that are all unfit the first comes back. What comes back carries its energy, unless all are without.
        """
        groups = [images[k : k + self.best_of] for k in range(0, len(images), self.best_of)]
        races = [[atoms for atoms in group if fit(atoms)] for group in groups]
        if self.relaxer is not None:
            self._evaluate([atoms for race in races for atoms in race])
        chosen = [min(race, key=self.score) if race else group[0] for race, group in zip(races, groups, strict=True)]
        for atoms in chosen:
            if not isinstance(atoms, Failure):
                note(atoms, **self.todict())
        return chosen

    def todict(self) -> dict:
        """Return how candidates are chosen, for provenance."""
        by = {} if self.calculator is None else {'selected_by': calculator_name(self.calculator)}
        return {'best_of': self.best_of, **by}

    def _evaluate(self, images: list[Atoms]) -> None:
        """Give every structure its energy and forces."""
        for number, result in self.relaxer.iterate(images):
            images[number].calc = result.calc
        self.calls += len(images)
        if failed := sum(not math.isfinite(energy_of(atoms)) for atoms in images):
            log.warning('best_of: %d of %d candidates have no energy; they are chosen last', failed, len(images))

    def cost(self, calls: int) -> str:
        """Return what choosing cost since there were ``calls`` as a line of the log."""
        if self.relaxer is None:
            return 'best_of: chosen by the energies of the relaxation'
        return f'best_of: {self.calls - calls} single points by {calculator_name(self.calculator)}'

    def close(self) -> None:
        """End the process of the calculator, where there is one."""
        if self.relaxer is not None:
            self.relaxer.close()
