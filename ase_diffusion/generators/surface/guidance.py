"""Force guidance of overlayers (Ronne et al., Phys. Rev. B 110, 235427, 2024, eq. 3)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...calculators.default import unknown_to
from ...calculators.elements import check_elements, mixes_functionals, warn_of_mixed_functionals
from ...calculators.forcefield import ForceFieldCalculator, batch_forces, check_known
from ...calculators.forces import Forces
from ...calculators.names import CalculatorLike, calculator_name, is_own_force_field
from ...calculators.own import OWN
from ...diffusion import Batch, ForceGuidance, JointProcess
from ...diffusion.guidance import limited
from ...diffusion.rigid import RigidBodies
from ...representations.slab import Slab, SlabTemplate
from ...utils.checks import check_integer, check_number
from ..guidance import CallCounter, guidance_options

STRIDE, MOMENTUM = 0.03, 0.95  # of the descent at the end; A^2/eV


log = logging.getLogger(__name__)


@dataclass
class Guidance(CallCounter):
    """Force guidance (Ronne et al., eq. 3): after every step the mobile atoms move along their forces.

    Parameters
    ----------
    calculator : str, ASE calculator or factory
        Where forces come from; default: the shipped force field that knows the slab, ``'ag-o'`` or ``'metal-oxide'``. These
        evaluate a whole batch at once. Calculators that hold the state of a structure or write files (GPAW, VASP, ...) are made
        anew for each structure where they come from a name or a factory, each with a folder of its own, see
        :class:`ase_diffusion.calculators.factory.CalculatorFactory`.
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
        :class:`ase_diffusion.calculators.forces.Forces`; such a call is a failure like others. With it our own force fields, too,
        take one structure at a time. None: no limit.

    Attributes
    ----------
    calls, failures : int
        Evaluations of one structure, and those that raised or gave no finite forces; such a structure is not displaced then.
    seconds : float
        Time that they took.
    """

    calculator: CalculatorLike | None = None
    strength: float | None = None
    power: float = 1.0
    below: float = 0.5
    every: int = 1
    cap: float = 0.1
    finish_steps: int = 60
    directory: str | Path | None = None
    time_limit: float | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError for parameters without a meaning."""
        if self.strength is not None:
            check_number('strength', self.strength, 'a displacement per force, A^2/eV, 0 or more', strict=False)
        check_number('power', self.power, 'an exponent, 0 or more', strict=False)
        check_number('below', self.below, 'a time between 0 and 1')
        check_number('cap', self.cap, 'the largest displacement of an atom in a step, A, above 0')
        check_integer('every', self.every, 1)
        check_integer('finish_steps', self.finish_steps, 0)

    @classmethod
    def coerce(
        cls,
        guidance: CalculatorLike | Guidance | dict | bool | None,
        calculator: CalculatorLike | None,
        steps: int | None,
        template: SlabTemplate,
        device: str | torch.device | None = None,
    ) -> Guidance | None:
        """Accept None, True, a dict, a calculator (or what makes one) or a Guidance, which is copied, and a calculator.

        ``template`` is what is generated: our own force fields must know its elements; they live on ``device``.
        """
        made = guidance_options(cls, guidance, calculator)
        if made is not None:
            made.strength = min(3.0 / steps, 0.05) if made.strength is None else made.strength
            made.prepare(template, device)
        return made

    def prepare(self, template: SlabTemplate, device: str | torch.device | None = None) -> None:
        """Load the force field or make the calculator, so that errors come before any work."""
        if self.calculator is None:
            self.calculator = _shipped(template)
        own, self.network = self.calculator, None
        check_elements(own, template.atoms.numbers, 'guidance')
        warn_of_mixed_functionals(own, [template])
        if self.time_limit is not None:
            self.compute = Forces(own, self.directory, time_limit=self.time_limit)
        elif is_own_force_field(own):
            own = own if isinstance(own, ForceFieldCalculator) else ForceFieldCalculator(own, device)
            self.network = own.network
            try:
                check_known(template, own.header, own.network.passive_edges)
            except ValueError as error:
                raise ValueError(f'guidance needs forces: {error}; or pass another calculator') from None
        else:
            self.compute = Forces(own, self.directory)

    def bind(self, batch: Batch, representation: Slab, kept: torch.Tensor | None = None) -> ForceGuidance:
        """Return the hook for the structures of a batch; rows that are ``kept``, bool (n,), are not displaced."""
        if self.network is not None:
            forces = batch_forces(self.network)
        else:
            forces = self._ase_forces(batch, representation)
        if representation.spacing is not None:
            forces = _scaled(forces, self.network is not None)
        return ForceGuidance(self.timed(forces), 'positions', self.strength, self.power, self.below, self.every, self.cap, kept)

    def _ase_forces(self, batch: Batch, representation: Slab):
        """Return ``batch -> forces`` of the mobile atoms by ASE calculators, one by one; a failure gives NaN rows."""
        self.compute.begin(batch.size)

        def forces(batch):
            parts = []
            for k, (atoms, template) in enumerate(zip(representation.decode(batch), batch.extras['templates'], strict=True)):
                mobile = ~template.frozen
                atoms.wrap()
                try:
                    parts.append(self.compute(k, atoms)[0][mobile])
                except Exception as error:  # any calculator may raise anything; it is counted
                    self.error = f'{type(error).__name__}: {error}'
                    log.debug('guidance: the calculator failed: %s', error)
                    parts.append(np.full((mobile.sum(), 3), np.nan))
            like = batch.fields['positions']
            return torch.as_tensor(np.concatenate(parts), dtype=like.dtype, device=like.device)

        return forces

    def finish(self, batch: Batch, hook: ForceGuidance, process: JointProcess, bodies: RigidBodies | None = None) -> Batch:
        """Descend along the forces for ``finish_steps`` steps; a structure whose momentum turns against its forces drops it.

        ``bodies`` stay rigid.
        """
        hook.every, hook.strength = 1, STRIDE
        rows, velocity = batch.rows['positions'], torch.zeros_like(batch.fields['positions'])
        with torch.inference_mode():
            for _ in range(self.finish_steps):
                shift = hook(batch, 0.0)['positions']
                power = shift.new_zeros(batch.size).index_add_(0, rows, (shift * velocity).sum(-1))
                velocity = limited(shift + MOMENTUM * velocity * (power > 0)[rows, None], rows, batch.size, self.cap)
                moved = batch.fields['positions'] + velocity
                if bodies and bodies.rows:
                    moved = bodies.poses(moved)
                    velocity = moved - batch.fields['positions']
                batch = process.confine(batch.with_fields(positions=moved))
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


def _shipped(template: SlabTemplate) -> str:
    """Return the shipped force field that knows the slab; raise a ValueError where none does."""
    reasons = []
    for name in OWN:
        if (reason := unknown_to(name, [template])) is None:
            return name
        reasons.append(f'{name}: {reason}')
    known, other = '; '.join(reasons), 'chgnet' if mixes_functionals(template) else '7net-mf-0'
    raise ValueError(
        f'guidance needs forces, and no shipped force field knows this slab ({known}); pass calculator={other!r} or another'
    )


def _scaled(forces, own: bool):
    """Return ``batch -> forces`` for batches with scaled lengths, times the scale, so that atoms move as far as in A.

    Our ``own`` force fields take batches in A; others are given decoded structures.
    """

    def scaled(batch):
        scale = batch.extras['scale']  # (B,)
        if own:
            plain = batch.with_fields(positions=batch.fields['positions'] / scale[batch.rows['positions'], None])
            frozen = batch.extras['frozen'] / scale[batch.extras['rows'][len(plain.fields['positions']) :], None]
            plain.extras = {**batch.extras, 'frozen': frozen, 'cell': batch.extras['cell'] / scale[:, None, None]}
        return forces(plain if own else batch) * scale[batch.rows['positions'], None]

    return scaled
