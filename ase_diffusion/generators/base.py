"""The run of a generator: batches, rejections, relaxation, choice, log, trajectory, observers, interruption."""

from __future__ import annotations

import inspect
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, overload

from ase import Atoms
from ase.io.trajectory import TrajectoryWriter

from ..diffusion import SAMPLERS
from ..errors import GenerationFailed
from ..representations import Failure
from ..utils.atoms import copy_atoms, energy_of, mobile_formula
from ..utils.checks import check_folder, check_integer
from ..utils.log import Log, Logfile
from ..utils.memory import keep_freed_memory
from ..utils.progress import Progress
from ..utils.provenance import keep_own, note
from ..utils.rng import spawn_seeds
from .compiling import compile_core
from .model import UNTRAINED, GenerativeModel, Outcome
from .records import plain_options, record_of
from .relaxation import relax_in_order
from .tasks import FromNoise, FromStructures
from .text import plain, shown_condition
from .trajectory import append, check_trajectory

log = logging.getLogger(__name__)

__all__ = ['UNTRAINED', 'Generator', 'collect']


FIRST = 16  # structures of a first batch on a CPU at most: something is finished early, at no cost


class Generator(GenerativeModel):
    """Generate structures one batch at a time.

    A subclass writes ``kind``, ``_template`` or ``_sample_batch``, and what only it knows.

    Parameters
    ----------
    rng : int, numpy Generator, RandomState, numpy.random or None
        Source of all randomness; the same seed gives the same structures, at any batch size up to rounding (which the sampler
        'renoised_ancestral' amplifies, so that about one structure in ten is another one).
    steps : int, optional
        Sampling steps, at least 2; by default as the model says. A model without a process (a GAN) takes none.
    sampler : str, optional
        A name of :data:`ase_diffusion.diffusion.SAMPLERS`; by default as the model says.
    batch_size : int, optional
        Structures sampled at once.
    device : str or torch.device, optional
    logfile : '-', path, stream or None
    trajectory : path or ase Trajectory, optional
        Every accepted structure is appended.
    denoising_trajectory : path, optional
        The denoising of the first structure that is generated.
    best_of : int
        Generate this many candidates for each structure of :meth:`sample` and :meth:`irun`, and keep the one of lowest energy.
    maxtries : int, optional
        Rejected structures per accepted one after which :class:`GenerationFailed` is raised; those from templates do not count.
    validate : bool
        Reject structures that are not valid (atoms too close, ...). False hands out all that can be decoded.
    compile : bool, optional
        Compile the network with torch first; needs a C++ compiler. None: where ``compile_from`` says that it pays.

    Attributes
    ----------
    compile_from : int or None
        Structures times network calls from which compiling saves time; None: never by itself.
    statistics : dict
        Structures ``generated``, ``accepted`` and ``rejected`` so far.
    failures : Counter
        Reasons of all rejections so far.
    """

    compile_from: ClassVar[int | None] = None
    recorded: ClassVar[tuple[str, ...]] = ()  # arguments of the constructor in `todict`, with which a structure is made again
    relax: dict | None = None

    def __init__(
        self,
        *,
        logfile: Logfile = '-',
        trajectory: str | Path | TrajectoryWriter | None = None,
        best_of: int = 1,
        maxtries: int = 20,
        validate: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.best_of, self.maxtries = check_integer('best_of', best_of, 1), check_integer('maxtries', maxtries, 1)
        self.validate, self.selection = bool(validate), None
        check_folder('logfile', logfile)
        check_trajectory(trajectory)
        if hasattr(self.denoising_trajectory, 'write'):
            raise TypeError(f'denoising_trajectory is a path; got {self.denoising_trajectory!r}')
        check_trajectory(self.denoising_trajectory, 'denoising_trajectory')
        if trajectory is not None and str(trajectory) == str(self.denoising_trajectory):
            raise ValueError(f'trajectory and denoising_trajectory are two files; both are {str(trajectory)!r}')
        self.log = Log(logfile)
        self._trajectory = trajectory
        self.observers: list = []
        self.atoms: Atoms | None = None
        self.statistics = {'generated': 0, 'accepted': 0, 'rejected': 0}
        self.failures: Counter = Counter()
        self._repeated: tuple[str, list] = ('', [])

    # what a subclass may say

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        """Return why a structure is not valid, or None."""
        return None

    def _after_relaxation(self, atoms: Atoms) -> Atoms:
        """Return the result of a relaxation in its final form."""
        note(atoms, min_distance_ratio=self._min_distance_ratio(atoms))
        return atoms

    # the run

    @overload
    def sample(self, n: None = None, **conditions: Any) -> Atoms: ...
    @overload
    def sample(self, n: int, **conditions: Any) -> list[Atoms]: ...
    def sample(self, n: int | None = None, **conditions: Any) -> Atoms | list[Atoms]:
        """Return one structure (n=None) or a list of n.

        Parameters
        ----------
        n : int, optional
        conditions
            What the model knows (``ase-diffusion info MODEL`` lists it). In place of a number, a pair (low, high) asks for a
            range: each structure draws its own number in it, uniformly, from its seed; ``info['key_value_pairs']`` has it. A
            range is cut to that of the training data, with a warning.

        Raises
        ------
        ValueError
            n is not a positive integer; a condition has no meaning.
        TypeError
            A keyword is no condition of this model.
        GenerationFailed
            Too many structures in a row were rejected; those accepted so far are in its ``.images``.
        KeyboardInterrupt
            After Ctrl-C; those accepted so far are in its ``.images``.
        """
        return collect(self.irun(1 if n is None else n, **conditions), n)

    def irun(self, n: int, **conditions: Any) -> Iterator[Atoms]:
        """Check the arguments at once and return an iterator over n structures, each as it is accepted.

        Everything accepted before an interruption is in the trajectory and has been handed out.
        """
        n = check_integer('n', n, 1)
        return self._iterate(n, self.check_conditions(conditions))

    def _iterate(self, n: int, conditions: dict, task: FromNoise | None = None) -> Iterator[Atoms]:
        task = self._task(conditions) if task is None else task
        self.log.write(self._header(n, conditions, task))
        self.log.write(f'{"#":>5s} {"formula":<24s} {"seed":>20s} {"closest":>8s} {"s":>7s}')
        keep_freed_memory()
        tries = self.best_of if task.chooses else 1
        self._prepare(n * tries)
        done, refused, reasons = 0, 0, Counter()
        counted = [0, 0]  # accepted and rejected, towards maxtries
        progress = Progress(n, 'accepted')
        guidance = self.guidance
        spent, chosen = guidance and guidance.spent(), self.selection.calls if tries > 1 else 0
        try:
            while done < n:
                batch = self.batch_size or self._auto_batch_size()
                if not (done or self.batch_size or self.compile) and self.device.type == 'cpu':
                    batch = min(batch, FIRST)
                size = min(n - done, max(1, batch // tries))
                seeds = spawn_seeds(self.rng, size * tries)
                record = self._record(seeds, batch, tries, conditions, task)
                begun, before = time.perf_counter(), guidance and guidance.spent()
                outcomes = self._outcomes([seeds[k : k + batch] for k in range(0, len(seeds), batch)], conditions, task, tries)
                if guidance is not None:
                    guidance.warn(before)
                seconds = (time.perf_counter() - begun) / size
                for index, outcome in enumerate(outcomes):
                    reason = self._reason(outcome, chosen=tries > 1)
                    counted[reason is not None] += task.counts(outcome)
                    if reason is not None:
                        refused += 1
                        reasons[reason] += 1
                        self.failures[reason] += 1
                        self.statistics['rejected'] += 1
                        continue
                    done += 1
                    outcome.info['data']['diffusion']['again'] = {'index': index, **record}
                    self._accept(outcome, done, seconds)
                    progress.add()
                    yield outcome
                if done < n and task.ended:
                    raise GenerationFailed(f'{done} structures of {n} asked for: {task.ended}', reasons)
                if counted[1] > self.maxtries * max(1, counted[0]):
                    raise GenerationFailed(
                        f'{refused} structures were rejected and {done} accepted of {n} asked for; {self._advice()}',
                        reasons,
                    )
        finally:
            progress.close()
            if reasons:
                counts = ', '.join(f'{count} x {reason}' for reason, count in reasons.most_common())
                self.log.write(f'rejected: {refused} of {refused + done}: {counts}')
            if guidance is not None:
                self.log.write(guidance.cost(spent, done))
            if tries > 1:
                self.log.write(self.selection.cost(chosen))

    def _outcomes(self, parts: list[list[int]], conditions: dict, task: FromNoise, tries: int) -> Iterable[Outcome]:
        """Return the structures or failures of several batches of seeds: relaxed, and the best of every ``tries``."""
        outcomes = [outcome for seeds in parts for outcome in self._candidates(seeds, conditions, task)]
        self.statistics['generated'] += len(outcomes)
        if self.relax is not None and task.relaxes:
            outcomes = relax_in_order(outcomes, self._is_fit, self.relax, self._after_relaxation)
        if tries > 1:
            outcomes = self.selection.choose(list(outcomes), self._is_fit)
        return outcomes

    def _is_fit(self, outcome: Outcome) -> bool:
        return self._reason(outcome) is None

    def _reason(self, outcome: Outcome, chosen: bool = False) -> str | None:
        """Return why a structure, relaxed and ``chosen`` by its energy where that was asked for, is rejected, or None."""
        if isinstance(outcome, Failure):
            return outcome.reason
        if outcome.info['key_value_pairs'].get('relax_failed'):
            return 'the relaxation failed'
        reason = self._reason_to_reject(outcome) if self.validate else None
        return 'no energy to choose by' if reason is None and chosen and not math.isfinite(energy_of(outcome)) else reason

    def _prepare(self, n: int) -> None:
        """Compile the network where n structures are worth it."""
        calls = 0 if self.process is None else n * self.steps * SAMPLERS[self.sampler].calls
        if self.compile is None and self.compile_from is not None and calls >= self.compile_from and shutil.which('g++'):
            self.compile = True
            self.log.write('compiling the network first, some 20 to 60 s (compile=False leaves it out)')
            compile_core(self.network)

    def _header(self, n: int, conditions: dict, task: FromNoise) -> str:
        conditions = {**conditions, **task.labels()}
        shown = ', '.join(f'{name} {shown_condition(value)}' for name, value in conditions.items() if value is not None)
        name = type(self).__name__ + ('' if task.chooses else f'.{task.name}')
        how = [*task.before(), *self._how(task)]
        best = [f'the best of {self.best_of} each'] if self.best_of > 1 and task.chooses else []
        return f'{name}: ' + ', '.join([f'{n} structures', *how, str(self.device), *best, *([shown] if shown else [])])

    def _advice(self) -> str:
        """Return what an error says to do where too many structures are rejected."""
        return 'try more steps, a wider window or another model'

    def _how(self, task: FromNoise) -> list[str]:
        """Return what the log says of the way in which structures are made."""
        return [] if self.process is None else [self.sampler, f'{task.steps} steps']

    def _shown_formula(self, atoms: Atoms) -> str:
        """Return the formula of a structure for the log."""
        return mobile_formula(atoms)

    def _accept(self, atoms: Atoms, number: int, seconds: float) -> None:
        self.atoms = atoms
        self.statistics['accepted'] += 1
        pairs = atoms.info['key_value_pairs']
        seed, closest = pairs.get('seed', ''), pairs.get('min_distance_ratio', float('nan'))
        self.log.write(f'{number:5d} {self._shown_formula(atoms):<24s} {seed:>20s} {closest:8.3f} {seconds:7.2f}')
        if self._trajectory is not None:
            append(atoms, self._trajectory)
        for function, interval, args, kwargs in self.observers:
            if self.statistics['accepted'] % interval == 0:
                function(*args, **kwargs)

    # the same structure again

    def _record(self, seeds: list[int], batch: int, tries: int, conditions: dict, task: FromNoise) -> dict:
        """Return what :meth:`again` needs to repeat the work on these seeds, fit for JSON."""
        asked = {name: value for name, value in conditions.items() if value is not None}
        record = {
            'seeds': [f's{seed:x}' for seed in seeds],
            'batch': int(batch),
            'tries': int(tries),
            'conditions': asked,
            'task': task.todict(),
            'relax': plain_options(self.relax),
            'validate': self.validate,
            'compiled': bool(self.compile),
        }
        return json.loads(json.dumps(record, default=plain))

    def _task_again(self, values: dict, conditions: dict) -> FromNoise:
        """Return the task that :meth:`FromNoise.todict` described."""
        if values['name'] == FromNoise.name:
            return self._task()
        if 'parents' not in values:
            raise ValueError(f'structures of {values["name"]} cannot be made again: their record lacks what they began with')
        task = FromStructures(
            self._parents_again(values['parents']), values['noise'], self.steps, values['start'], values['whole']
        )
        task.turn, task.keeps_species = values['turn'], values['keeps_species']
        return task

    def _parents_again(self, parents: list[dict]) -> list:
        """Return recorded parents as the task takes them."""
        return [Atoms(**parent) for parent in parents]

    def again(self, atoms: Atoms) -> Atoms:
        """Make a structure of this generator again, bit by bit on the same machine with the same number of threads.

        The whole batch is made again, since sums in a batch round differently from those of one structure; structures of
        one batch share it. The result is what the generator handed out, without what happened to it later (a relaxation by
        :func:`ase_diffusion.relax.relax`, say); its own arrays and info are those of ``atoms``.

        Parameters
        ----------
        atoms : Atoms
            From :meth:`sample` or a file of ``.traj`` or ``.db``; other formats of ASE lose or round what is needed.

        Raises
        ------
        ValueError
            ``atoms`` carries no record of its making, or another generator made it; the differences are listed.
        """
        told, record = record_of(atoms)
        self._check_same(told, record)
        if record['compiled'] and not self.compile:
            self.compile = True
            compile_core(self.network)
        elif self.compile and not record['compiled']:
            log.warning('this generator is compiled, that of the structure was not: it comes back up to rounding')
        key = json.dumps({**record, 'index': 0}, sort_keys=True)
        if self._repeated[0] != key:
            seeds, batch = [int(seed[1:], 16) for seed in record['seeds']], record['batch']
            parts = [seeds[k : k + batch] for k in range(0, len(seeds), batch)]
            conditions = self.check_conditions(self._nothing_asked() | record['conditions'])
            before = dict(self.statistics)
            made = list(self._outcomes(parts, conditions, self._task_again(record['task'], conditions), record['tries']))
            self.statistics = before
            self._repeated = (key, made)
        new = self._repeated[1][record['index']]
        if isinstance(new, Failure):
            raise GenerationFailed(f'the structure came out otherwise, it failed: {new.reason}', Counter([new.reason]))
        calc, new = new.calc, copy_atoms(new)
        new.calc = calc
        keep_own(atoms, new)
        new.info['data']['diffusion']['again'] = record
        return new

    def _check_same(self, told: dict, record: dict) -> None:
        """Raise a ValueError where this generator is not the one that wrote a record."""
        mine = json.loads(json.dumps({**self.todict(), 'relax': plain_options(self.relax)}, default=plain))
        theirs = {**told, 'relax': record['relax']}
        for one in (mine, theirs):
            one['model'] = Path(str(one.get('model'))).name
        differ = [
            f'{name} {theirs.get(name)!r}, now {mine.get(name)!r}'
            for name in {**theirs, **mine}
            if theirs.get(name) != mine.get(name)
        ]
        if differ:
            raise ValueError(
                f'a structure is made again by the generator that made it; it had {"; ".join(differ)}. '
                f'{type(self).__name__}.from_record(atoms) makes that one; what no record can hold is given there as '
                'well, such as crystals as templates, or a calculator that is no name'
            )

    @classmethod
    def from_record(cls, atoms: Atoms, **options: Any) -> Self:
        """Return the generator that made a structure, for :meth:`again`, from what the structure says.

        Parameters
        ----------
        atoms : Atoms
        options
            Of the constructor; they win over the record. Needed for what a record cannot hold, such as a calculator that is no
            name.

        Raises
        ------
        ValueError
            There is no record, or it is of another class; a model or calculator is not there.
        """
        told, record = record_of(atoms)
        if told['type'] != f'{cls.kind}-diffusion':
            raise ValueError(f'the structure was made by a {told["type"]} generator; {cls.__name__} is another')
        return cls(**{**cls._arguments(told, record, atoms), 'logfile': None, **options})

    @classmethod
    def _arguments(cls, told: dict, record: dict, atoms: Atoms) -> dict:
        """Return the arguments of the constructor that a record holds."""
        found = {name: told.get(name) for name in ('model', 'steps', 'sampler', 'best_of', 'guidance', *cls.recorded)}
        found |= {'relax': record['relax'], 'validate': record['validate'], 'calculator': told.get('selected_by')}
        if found['calculator'] is not None and found['guidance'] is None:
            found['guidance'] = False
        unheld = [name for name, value in found.items() if isinstance(value, dict) and 'digest' in value]  # crystals of the user
        mine = inspect.signature(cls.__init__).parameters
        said = [name for name in cls.recorded if name in told and name in mine and mine[name].default is not None]  # None is one
        return {name: value for name, value in found.items() if (value is not None or name in said) and name not in unheld}

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

    def attach(self, function: Callable | TrajectoryWriter, interval: int = 1, *args: Any, **kwargs: Any) -> None:
        """Call ``function(*args, **kwargs)`` after every ``interval``-th accepted structure (``self.atoms``)."""
        if not callable(function) and hasattr(function, 'write'):
            writer = function
            function = lambda: writer.write(self.atoms)  # noqa: E731  an ase Trajectory is attached like this
        if not callable(function):
            raise TypeError(f'attach takes a function, or an ASE Trajectory open for writing; got {function!r}')
        self.observers.append((function, check_integer('interval', interval, 1), args, kwargs))

    def close(self) -> None:
        """Close the logfile, and end the process of a calculator, if there is one."""
        if self.guidance is not None:
            self.guidance.close()
        if self.selection is not None:
            self.selection.close()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        told = {**self.todict(), **self._identity(), 'device': str(self.device)}
        names = [name for name in ('model', 'stoich', 'molecules', 'sampler', 'steps', 'device') if told.get(name) is not None]
        shown = ', '.join(f'{name}={told[name]!r}' for name in names)
        return f'{type(self).__name__}({shown})'


@overload
def collect(structures: Iterable[Atoms], n: None) -> Atoms: ...
@overload
def collect(structures: Iterable[Atoms], n: int) -> list[Atoms]: ...
def collect(structures: Iterable[Atoms], n: int | None) -> Atoms | list[Atoms]:
    """Return the structures of an iterator as a list, or the only one where n is None; a failure and Ctrl-C carry the others."""
    images: list[Atoms] = []
    try:
        for atoms in structures:
            images.append(atoms)
    except (GenerationFailed, KeyboardInterrupt) as error:
        error.images = images
        raise
    return images[0] if n is None else images
