"""Force guidance of generators: parameters a user sets, and the way from a calculator to forces of a batch."""

from __future__ import annotations

import logging
import time
from dataclasses import MISSING, dataclass, field, fields, replace

import numpy as np
import torch
from ase import Atoms

from ..diffusion import ForceGuidance
from ..diffusion.guidance import limited
from ..relax.calculators import calculator_name, check_calculator, is_own_force_field
from ..relax.forcefield import ForceFieldCalculator, batch_forces, check_known
from ..relax.forces import Forces
from ..representations.slab import Slab
from ..utils.atoms import frozen_mask

log = logging.getLogger(__name__)
STRIDE, MOMENTUM = 0.03, 0.95  # of the descent at the end; A^2/eV


@dataclass
class Costs:
    """Count what guidance by a calculator costs: what guidance of surfaces and crystals has in common.

    Attributes
    ----------
    calls, failures : int
        Evaluations of one structure, and those that gave nothing to displace it by.
    seconds : float
        Time that they took.
    """

    calls: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    def spent(self) -> tuple[int, int, float]:
        """Return calls, failures and seconds so far."""
        return self.calls, self.failures, self.seconds

    def since(self, before: tuple) -> tuple[int, int, float]:
        """Return calls, failures and seconds that came after ``before``, which :meth:`spent` returned."""
        return tuple(now - then for now, then in zip(self.spent(), before, strict=True))

    def timed(self, function):
        """Return the function, its time counted."""

        def call(*args):
            begun = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds += time.perf_counter() - begun

        return call

    def warn(self, before: tuple) -> None:
        """Log a warning where calls failed since ``before``."""
        calls, failures, _ = self.since(before)
        if failures:
            log.warning('force guidance: %d of %d evaluations failed and were skipped', failures, calls)

    def cost(self, before: tuple, accepted: int) -> str:
        """Return what was spent since ``before`` as a line of the log."""
        calls, failures, seconds = self.since(before)
        each = f'{calls / accepted:.1f} calls, {seconds / accepted:.2f} s' if accepted else 'none was accepted'
        return f'guidance: {calls} calculator calls, {failures} failed, {seconds:.1f} s; cost per accepted structure: {each}'


def guidance_options(kind, guidance, calculator):
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


@dataclass
class Guidance(Costs):
    """Force guidance (Ronne et al., eq. 3): after every step the mobile atoms move along their forces.

    Parameters
    ----------
    calculator : str, ASE calculator or factory
        Where forces come from. Our own force fields evaluate a whole batch at once. Calculators that hold the state of a
        structure or write files (GPAW, VASP, ...) are made anew for each structure where they come from a name or a factory,
        each with a folder of its own, see :class:`ase_diffusion.relax.supply.Supply`.
    strength : float, optional
        Displacement per unit force and step, A^2/eV; default 3 / steps, at most 0.05 (0.03 at 100 steps). The paper has 0.001
        at every one of its steps; here guidance acts late only, and more.
    power, every, cap : see :class:`ase_diffusion.diffusion.ForceGuidance`
    below : float
        Guidance acts at times t < below (0.5: sigma < 0.4 A with the shipped model). Earlier the atoms still overlap, and a
        force field that never saw that pulls some of them together.
    finish_steps : int
        Steps of descent along the forces at the end, each 0.03 A^2/eV, with momentum.
    directory : str or Path, optional
        Where those folders go; here by default.
    time_limit : float, optional
        Seconds for one call of the calculator, which then lives in a process that is killed where a call takes longer, see
        :class:`ase_diffusion.relax.forces.Forces`; such a call is a failure like others. With it our own force fields, too,
        take one structure at a time. None: no limit.

    Attributes
    ----------
    calls, failures : int
        Evaluations of one structure, and those that raised or gave no finite forces; such a structure is not displaced then.
    seconds : float
        Time that they took.
    """

    calculator: object = 'ag-o'
    strength: float | None = None
    power: float = 1.0
    below: float = 0.5
    every: int = 1
    cap: float = 0.1
    finish_steps: int = 60
    directory: object = None
    time_limit: float | None = None

    @classmethod
    def coerce(cls, guidance, calculator, steps: int, template: Atoms, device=None) -> Guidance | None:
        """Accept None, True, a dict, a calculator (or what makes one) or a Guidance, which is copied, and a calculator.

        ``template`` is what is generated: our own force fields must know its elements; they live on ``device``.
        """
        made = guidance_options(cls, guidance, calculator)
        if made is not None:
            made.strength = min(3.0 / steps, 0.05) if made.strength is None else made.strength
            made.prepare(template, device)
        return made

    def prepare(self, template: Atoms, device=None) -> None:
        """Load the force field or make the calculator, so that errors come before any work."""
        own, self.network = self.calculator, None
        if self.time_limit is not None:
            self.compute = Forces(own, self.directory, time_limit=self.time_limit)
        elif is_own_force_field(own):
            own = own if isinstance(own, ForceFieldCalculator) else ForceFieldCalculator(own, device)
            self.network = own.network
            try:
                check_known(template, own.header, own.network.passive_edges)
            except ValueError as error:
                raise ValueError(f'guidance needs forces: {error}; or pass calculator=...') from None
        else:
            self.compute = Forces(own, self.directory)

    def bind(self, templates, representation: Slab, kept=None) -> ForceGuidance:
        """Return the hook for a batch made of ``templates``; rows that are ``kept``, bool (n,), are not displaced."""
        if self.network is not None:
            forces = batch_forces(self.network)
        else:
            forces = _ase_forces(self.compute, templates, representation)
        return ForceGuidance(self.timed(forces), 'positions', self.strength, self.power, self.below, self.every, self.cap, kept)

    def finish(self, batch, hook: ForceGuidance, process):
        """Descend along the forces for ``finish_steps`` steps; a structure whose momentum turns against its forces drops it."""
        hook.every, hook.strength = 1, STRIDE
        rows, velocity = batch.rows['positions'], torch.zeros_like(batch.fields['positions'])
        with torch.inference_mode():
            for _ in range(self.finish_steps):
                shift = hook(batch, 0.0)['positions']
                power = shift.new_zeros(batch.size).index_add_(0, rows, (shift * velocity).sum(-1))
                velocity = limited(shift + MOMENTUM * velocity * (power > 0)[rows, None], rows, batch.size, self.cap)
                batch = process.confine(batch.with_fields(positions=batch.fields['positions'] + velocity))
        self.calls, self.failures = self.calls + hook.calls, self.failures + hook.failures
        return batch

    def close(self) -> None:
        """End the process of the calculator, where there is a time limit; the next call starts another one."""
        if self.network is None:
            self.compute.close()

    def todict(self) -> dict:
        """Return the parameters, fit for JSON."""
        values = {name: getattr(self, name) for name in ('strength', 'power', 'below', 'every', 'cap', 'finish_steps')}
        if self.time_limit is not None:
            values['time_limit'] = self.time_limit
        values['calculator'] = self.calculator if isinstance(self.calculator, str) else calculator_name(self.calculator)
        return values


def _ase_forces(compute: Forces, templates, representation: Slab):
    """Return ``batch -> forces`` of the mobile atoms by ASE calculators, structure by structure; a failure gives NaN rows."""
    compute.begin(len(templates))

    def forces(batch):
        parts = []
        for k, atoms in enumerate(representation.decode(batch, templates)):
            mobile = ~frozen_mask(atoms)
            atoms.wrap()
            try:
                parts.append(compute(k, atoms)[0][mobile])
            except Exception as error:  # any calculator may raise anything; it is counted
                log.debug('guidance: the calculator failed: %s', error)
                parts.append(np.full((mobile.sum(), 3), np.nan))
        like = batch.fields['positions']
        return torch.as_tensor(np.concatenate(parts), dtype=like.dtype, device=like.device)

    return forces
