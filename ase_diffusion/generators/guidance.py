"""Force guidance of generators: parameters a user sets, and the way from a calculator to forces of a batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TypeVar

from ..calculators.names import CalculatorLike, check_calculator
from ..errors import GenerationFailed

log = logging.getLogger(__name__)

Kind = TypeVar('Kind', bound='CallCounter')


@dataclass
class CallCounter:
    """Count what guidance by a calculator costs: what guidance of surfaces and crystals has in common.

    Attributes
    ----------
    calls, failures : int
        Evaluations of one structure, and those that gave nothing to displace it by.
    seconds : float
        Time that they took.
    error : str
        Of the last evaluation that failed.
    """

    calls: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    error: str = field(default='', init=False, compare=False)

    def spent(self) -> tuple[int, int, float]:
        """Return calls, failures and seconds so far."""
        return self.calls, self.failures, self.seconds

    def since(self, before: tuple[int, int, float]) -> tuple[int, int, float]:
        """Return calls, failures and seconds that came after ``before``, which :meth:`spent` returned."""
        return tuple(now - then for now, then in zip(self.spent(), before, strict=True))

    def timed(self, function: Callable) -> Callable:
        """Return the function, its time counted."""

        def call(*args):
            begun = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds += time.perf_counter() - begun

        return call

    def warn(self, before: tuple[int, int, float]) -> None:
        """Log a warning where calls failed since ``before``.

        Raises
        ------
        GenerationFailed
            All of them failed: what was made is not guided at all.
        """
        calls, failures, _ = self.since(before)
        if failures and failures == calls:
            raise GenerationFailed(
                f'guidance needs forces, and all {calls} evaluations of a batch failed; the last error: '
                f'{self.error or "forces that are not finite"}; pass another calculator, or leave guidance out'
            )
        if failures:
            log.warning('force guidance: %d of %d evaluations failed and were skipped', failures, calls)

    def cost(self, before: tuple[int, int, float], accepted: int) -> str:
        """Return what was spent since ``before`` as a line of the log."""
        calls, failures, seconds = self.since(before)
        each = f'{calls / accepted:.1f} calls, {seconds / accepted:.2f} s' if accepted else 'none was accepted'
        return f'guidance: {calls} calculator calls, {failures} failed, {seconds:.1f} s; cost per accepted structure: {each}'


def guidance_options(
    kind: type[Kind], guidance: CalculatorLike | Kind | dict | bool | None, calculator: CalculatorLike | None
) -> Kind | None:
    """Return a copy of the guidance that a user asked for, of the class ``kind``, or None.

    Parameters
    ----------
    guidance : None, bool, dict, calculator or ``kind``
        True and a dict have the defaults of ``kind``; a name, a calculator or a factory is one to follow.
    calculator : optional
        Where forces come from; None: as ``guidance`` says.

    Raises
    ------
    ValueError, TypeError
        Unknown parameters, two calculators, or none of these.
    """
    if guidance is False or guidance is None and calculator is None:
        return None
    if isinstance(guidance, kind):
        return replace(guidance, **({} if calculator is None else {'calculator': calculator}))
    options = {} if guidance in (None, True) else guidance
    if not isinstance(options, dict):
        try:
            check_calculator(options)
        except TypeError:
            raise TypeError(
                f'guidance must be None, True, a dict, a calculator or a {kind.__name__}, got {type(guidance).__name__}'
            ) from None
        if calculator is not None:
            raise ValueError('guidance=... and calculator=... are two calculators; pass one of them')
        options = {'calculator': options}
    known = {each.name for each in fields(kind) if each.init}
    if unknown := set(options) - known:
        raise ValueError(f'unknown guidance parameters {sorted(unknown)}; known: {sorted(known)}')
    options = {**options, **({} if calculator is None else {'calculator': calculator})}
    if 'calculator' not in options and kind.__dataclass_fields__['calculator'].default is MISSING:
        raise ValueError('guidance needs a calculator: calculator=EMT(), or a name that get_calculator knows')
    return kind(**options)
