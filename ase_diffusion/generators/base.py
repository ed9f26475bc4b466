"""What all generators share: seeds, batches, log, trajectory, observers, interruption."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from pathlib import Path

import torch
from ase import Atoms
from ase.io.trajectory import Trajectory

from ..diffusion import SAMPLERS
from ..errors import GenerationFailed
from ..training.checkpoint import save_checkpoint
from ..utils.atoms import min_distance_ratio
from ..utils.checks import check_folder, check_integer
from ..utils.device import pick_device
from ..utils.interrupts import held_interrupts
from ..utils.log import Log
from ..utils.memory import keep_freed_memory
from ..utils.rng import coerce_rng, spawn_seeds
from .relaxation import relax_in_order
from .selection import energy_of

log = logging.getLogger(__name__)


class Generator:
    """Generate structures one batch at a time; subclasses write :meth:`_generate` and little more.

    Parameters
    ----------
    rng : int, numpy Generator, RandomState, numpy.random or None
        Source of all randomness; the same seed gives the same structures, at any batch size up to rounding (which the sampler
        'renoised_ancestral' amplifies, so that one structure in ten or so is another one).
    steps : int, optional
        Sampling steps, at least 2.
    sampler : str, optional
        A name of :data:`ase_diffusion.diffusion.SAMPLERS`.
    batch_size : int, optional
        Structures sampled at once.
    device : str, optional
    logfile : '-', path, stream or None
    trajectory : path or ase Trajectory, optional
        Every accepted structure is appended.
    denoising_trajectory : path, optional
        The way from noise to structure, for the first structure that is generated.
    best_of : int
        Generate this many candidates for each structure of :meth:`sample` and :meth:`irun`, and keep the one of lowest energy.
    maxtries : int, optional
        Rejected structures per accepted one after which :class:`GenerationFailed` is raised.
    """

    default_steps, default_sampler = 100, 'ancestral'
    guidance = relax = None

    def __init__(
        self,
        *,
        rng=None,
        steps=None,
        sampler=None,
        batch_size=None,
        device=None,
        logfile='-',
        trajectory=None,
        denoising_trajectory=None,
        best_of=1,
        maxtries=20,
    ):
        self.rng = coerce_rng(rng)
        self.steps = self.default_steps if steps is None else check_integer('steps', steps, 2)
        sampler = self.default_sampler if sampler is None else sampler
        if sampler not in SAMPLERS:
            raise ValueError(f'sampler must be one of {sorted(SAMPLERS)}, got {sampler!r}')
        self.sampler = sampler
        self.batch_size = None if batch_size is None else check_integer('batch_size', batch_size, 1)
        self.best_of, self.selection = check_integer('best_of', best_of, 1), None
        self.maxtries = check_integer('maxtries', maxtries, 1)
        self.device = pick_device(device)
        check_folder('trajectory', trajectory)
        check_folder('denoising_trajectory', denoising_trajectory)
        self.log = Log(logfile)
        self._trajectory, self._opened = trajectory, None
        self.denoising_trajectory = denoising_trajectory
        self.observers: list = []
        self.atoms: Atoms | None = None
        self.statistics = {'generated': 0, 'accepted': 0, 'rejected': 0}

    def _generate(self, seeds: list[int], conditions: dict) -> list[Atoms]:
        """Return one structure per seed."""
        raise NotImplementedError

    def _prepare(self, n: int) -> None:
        """Get ready for n structures."""

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        """Return why a structure is not fit to be returned, or None."""
        return None

    def _reason(self, atoms: Atoms, chosen: bool = False) -> str | None:
        """Return why a structure, relaxed and ``chosen`` by its energy where that was asked for, is not fit, or None."""
        if atoms.info['key_value_pairs'].get('relax_failed'):
            return 'the relaxation failed'
        reason = self._reason_to_reject(atoms)
        return 'no energy to choose by' if reason is None and chosen and not math.isfinite(energy_of(atoms)) else reason

    def _after_relaxation(self, atoms: Atoms) -> Atoms:
        """Return the result of a relaxation as it shall be handed out."""
        atoms.info['key_value_pairs']['min_distance_ratio'] = self._closest(atoms)
        return atoms

    def _closest(self, atoms: Atoms) -> float:
        """Return the shortest distance over the sum of the covalent radii, at most 99: databases hold no infinity."""
        return float(min(min_distance_ratio(atoms), 99.0))

    def _check_conditions(self, conditions: dict) -> dict:
        """Return all conditions with their defaults; raise for unknown ones."""
        if conditions:
            raise TypeError(f'unknown conditions {sorted(conditions)}')
        return conditions

    def _auto_batch_size(self) -> int:
        return 16

    def sample(self, n: int | None = None, **conditions):
        """Return one structure (n=None) or a list of n.

        Raises
        ------
        ValueError
            n is not a positive integer; a condition has no meaning.
        TypeError
            A keyword is no condition of this model.
        GenerationFailed
            Too many structures in a row were rejected; those accepted so far are in its ``.images``.
        """
        return _collect(self.irun(1 if n is None else n, **conditions), n)

    def irun(self, n: int, **conditions):
        """Check the arguments at once and return an iterator over n structures, each as it is accepted.

        Everything accepted before an interruption is in the trajectory and has been handed out.
        """
        n = check_integer('n', n, 1)
        return self._iterate(n, self._check_conditions(conditions))

    def _iterate(self, n: int, conditions: dict, task=None):
        self.log.write(self._header(n, conditions, task))
        self.log.write(f'{"#":>5s} {"formula":<24s} {"seed":>20s} {"closest":>8s} {"s":>7s}')
        generate = self._generate if task is None else partial(self._generate, task=task)
        keep_freed_memory()
        tries = self.best_of if task is None else 1
        self._prepare(n * tries)
        done, refused, reasons = 0, 0, {}
        guidance = self.guidance
        spent, chosen = guidance and guidance.spent(), self.selection.calls if tries > 1 else 0
        try:
            while done < n:
                batch = self.batch_size or self._auto_batch_size()
                size = min(n - done, max(1, batch // tries))
                seeds = spawn_seeds(self.rng, size * tries)
                begun, before = time.perf_counter(), guidance and guidance.spent()
                images = [atoms for k in range(0, len(seeds), batch) for atoms in generate(seeds[k : k + batch], conditions)]
                self.statistics['generated'] += len(images)
                if guidance is not None:
                    guidance.warn(before)
                if self.relax is not None and (task is None or task.relaxes):
                    images = relax_in_order(images, lambda atoms: self._reason(atoms) is None, self.relax, self._after_relaxation)
                if tries > 1:
                    images = self.selection.choose(list(images), lambda atoms: self._reason(atoms) is None)
                seconds = (time.perf_counter() - begun) / size
                for atoms in images:
                    reason = self._reason(atoms, chosen=tries > 1)
                    if reason is not None:
                        refused, reasons[reason] = refused + 1, reasons.get(reason, 0) + 1
                        self.statistics['rejected'] += 1
                        continue
                    done += 1
                    self._accept(atoms, done, seconds)
                    yield atoms
                if refused > self.maxtries * max(1, done):
                    raise GenerationFailed(
                        f'{refused} structures were rejected and {done} accepted of {n} asked for; '
                        'try more steps, a wider window or another model',
                        reasons,
                    )
        finally:
            self._close_trajectory()
            if guidance is not None:
                self.log.write(guidance.cost(spent, done))
            if tries > 1:
                self.log.write(self.selection.cost(chosen))

    def _header(self, n: int, conditions: dict, task=None) -> str:
        conditions = {**conditions, **({} if task is None else task.labels())}
        shown = ', '.join(f'{k} {v:g}' for k, v in conditions.items() if isinstance(v, (int, float)))
        name, steps = type(self).__name__ + ('' if task is None else f'.{task.name}'), self.steps if task is None else task.steps
        return (
            f'{name}: {n} structures, {self.sampler}, {steps} steps, {self.device}'
            + (f', the best of {self.best_of} each' if self.best_of > 1 and task is None else '')
            + (f', {shown}' if shown else '')
        )

    def _accept(self, atoms: Atoms, number: int, seconds: float) -> None:
        self.atoms = atoms
        self.statistics['accepted'] += 1
        pairs = atoms.info['key_value_pairs']
        seed, closest = pairs.get('seed', ''), pairs.get('min_distance_ratio', float('nan'))
        self.log.write(f'{number:5d} {atoms.get_chemical_formula():<24s} {seed:>20s} {closest:8.3f} {seconds:7.2f}')
        if self._trajectory is not None:
            if self._opened is None:
                owns = not hasattr(self._trajectory, 'write')
                self._opened = Trajectory(self._trajectory, 'a') if owns else self._trajectory
            with held_interrupts():  # half a frame would make the whole file unreadable
                self._opened.write(atoms)
        for function, interval, args, kwargs in self.observers:
            if self.statistics['accepted'] % interval == 0:
                function(*args, **kwargs)

    def get_new_candidate(self, maxiter: int | None = None) -> Atoms | None:
        """Return one structure (the contract of a start generator of ase-ga), or None after ``maxiter`` rejections."""
        before = self.maxtries
        self.maxtries = before if maxiter is None else check_integer('maxiter', maxiter, 1)
        try:
            return self.sample()
        except GenerationFailed:
            return None
        finally:
            self.maxtries = before

    def attach(self, function, interval: int = 1, *args, **kwargs) -> None:
        """Call ``function(*args, **kwargs)`` after every ``interval``-th accepted structure (``self.atoms``)."""
        if not callable(function) and hasattr(function, 'write'):
            writer = function
            function = lambda: writer.write(self.atoms)  # noqa: E731  an ase Trajectory is attached like this
        self.observers.append((function, check_integer('interval', interval, 1), args, kwargs))

    def save(self, path) -> Path:
        """Write the model as one safetensors file that ``model=path`` reads."""
        if self.network is None:
            raise ValueError('there is nothing to save: this generator is untrained; call gen.fit(data) first')
        return save_checkpoint(path, self.network, self.header)

    def _close_trajectory(self) -> None:
        if self._opened is not None and self._opened is not self._trajectory:
            self._opened.close()
        self._opened = None

    def close(self) -> None:
        """Close logfile and trajectory, and end the process of a calculator, if there is one."""
        self._close_trajectory()
        if self.guidance is not None:
            self.guidance.close()
        if self.selection is not None:
            self.selection.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _collect(structures, n: int | None):
    """Return the structures of an iterator as a list, or the only one where n is None; a failure carries those before it."""
    images: list[Atoms] = []
    try:
        for atoms in structures:
            images.append(atoms)
    except GenerationFailed as error:
        error.images = images
        raise
    return images[0] if n is None else images


def compile_core(network) -> None:
    """Compile ``network.core`` with torch; where that fails, the plain network goes on and a warning says so."""
    plain = network.core
    fast = torch.compile(plain, dynamic=True)

    def core(*args):
        try:
            return fast(*args)
        except Exception as error:  # compilers fail in many ways; the result does not depend on them
            log.warning('torch.compile failed (%s); going on without it', str(error).splitlines()[0] if str(error) else error)
            network.core = plain
            return plain(*args)

    network.core = core
