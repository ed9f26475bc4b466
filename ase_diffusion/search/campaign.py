"""Long runs of relaxations that can be interrupted and resumed, on many processes, with one database."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import math
import queue
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ..calculators.default import check_installed, default_calculator
from ..calculators.factory import check_shared, freeze
from ..calculators.names import CalculatorLike, calculator_name, check_calculator, is_own_force_field
from ..errors import GenerationFailed
from ..relax.relaxer import Relaxer
from ..relax.settings import Settings, optimizer_name
from ..relax.single import failed
from ..utils.atoms import energy_of, mobile_formula
from ..utils.checks import check_integer, check_limits
from ..utils.log import Log, Logfile
from ..utils.progress import Progress
from ..utils.provenance import note
from .executors import DaskExecutor, SerialExecutor, check_workers
from .store import Store, StoreError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

HEADER = (
    f'{"number":>6s} {"formula":<16s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s} {"best/eV":>12s} {"per hour":>8s}  outcome'
)


class Campaign:
    """Relax structures until the database holds n of them; the same call resumes after any interruption.

    Structure k is number ``k % block`` of block ``k // block``, which `generate` makes from the number of the block alone, so
    that the database is the only state. One process writes; each structure is written when it is finished, completely or not
    at all. If everything is killed, only the relaxations in progress are lost.

    Parameters
    ----------
    database : str or Path
        ASE database: ``*.db`` (sqlite), or ``postgresql://...`` (needs ase-db-backends). Columns: number, failed, unique,
        duplicate_of (number of the first such structure), those of :func:`ase_diffusion.relax.relax`, and those of the
        generator. ``ase db search.db unique=1 -s energy`` lists the distinct structures.
    generate : callable
        ``generate(block, count)`` returns the first `count` Atoms of a block, the same ones at each call.
    calculator : str, Path, callable, Calculator or None
        As `get_calculator` takes it; None: the first installed one of ``'7net-mf-0'`` and
        ``'chgnet'``. Picklable for other processes. An instance of GPAW, VASP or another calculator with files
        has one folder and so allows one process; a name or a factory gives one calculator per structure.
    first_of_kind : callable, optional
        ``first_of_kind(number, atoms)`` returns the number of the first identical structure, or `number` for a new one
        (`ase_diffusion.metrics.Distinct().add`). It is called for the structures in the database first.
    made_by : dict
        Origin of the structures (generator, seed, slab), JSON-serializable; a database of another origin is refused.
    block : int
        Structures per block.
    optimizer, fmax, steps, filter, min_distance, max_energy, pbc, timeout, directory
        As in :func:`ase_diffusion.relax.relax`.
    workers : int
        Number of local processes (dask); 0 uses this process. Above 0 a script needs ``if __name__ == '__main__':``.
    client : distributed.Client, optional
        Replaces the local processes, for example the client of a dask-jobqueue cluster. It is not closed.
    retry_failed : bool
        Retry structures that failed before.
    patience : float
        Seconds of retries if the database is locked, full or unreachable.
    logfile : str, Path, stream or None
        One line per structure; ``'-'`` is stdout.

    Raises
    ------
    ValueError
        A number is not valid, a calculator for other processes cannot be pickled, or several processes would share the folder
        of an instance. :meth:`run` raises it for a database of another campaign.
    """

    def __init__(
        self,
        database: str | Path,
        generate: Callable[[int, int], Iterable[Atoms]],
        calculator: CalculatorLike | None = None,
        *,
        first_of_kind: Callable[[int, Atoms], int] | None = None,
        made_by: dict[str, Any] | None = None,
        block: int = 16,
        timeout: float | None = None,
        directory: str | Path | None = None,
        workers: int = 1,
        client: Client | None = None,
        retry_failed: bool = False,
        patience: float = 600.0,
        logfile: Logfile = '-',
        **relaxation: Any,
    ) -> None:
        calculator = default_calculator() if calculator is None else calculator
        check_calculator(calculator)
        self.settings = Settings(**relaxation)
        check_limits(timeout=timeout)
        check_integer('block', block, 1, 'the number of structures generated at once')
        check_integer('workers', workers, 0, 'the number of local processes (0 is this process)')
        check_shared(calculator, None if client is not None else workers)
        if client is None:
            check_installed(calculator)
            check_workers(workers)
        self.generate, self.calculator, self.first_of_kind, self.block = generate, calculator, first_of_kind, int(block)
        self.options = {'timeout': timeout, 'directory': directory}
        self.workers, self.client, self.retry_failed, self.logfile = int(workers), client, retry_failed, logfile
        self.frozen = None if self._is_serial() else freeze(calculator, self.settings, self.options)
        self.chunk = min(self.block, 16) if is_own_force_field(calculator) and timeout is None else 1
        self.store = Store(database, self._what(made_by or {}), patience=patience)
        self.log = Log(logfile)

    def _is_serial(self):
        return self.workers == 0 and self.client is None

    def _what(self, made_by):
        """Return the settings that determine the structures and their relaxation."""
        how = {field.name: plain(getattr(self.settings, field.name)) for field in dataclasses.fields(self.settings)}
        return {**made_by, 'block': self.block, 'calculator': describe(self.calculator), **how}

    def run(self, n: int) -> list[Atoms]:
        """Relax structures until the database holds `n` of them.

        Parameters
        ----------
        n : int
            Total number, including structures of earlier calls and failed ones.

        Returns
        -------
        list of Atoms
            The distinct relaxed structures, sorted by energy; of duplicates the one of lowest energy.

        Raises
        ------
        ValueError
            The database belongs to another campaign or slab; the differences are listed.
        StoreError
            The database cannot be written; finished structures are in a file that the next call imports.
        GenerationFailed
            The generator failed; what it made before is in the database.
        """
        check_integer('n', n, 1, 'the number of structures in all')
        with self.store, self.log:
            state = _State(self, n)
            if state.todo:
                pool = self._pool()
                try:
                    state.work(pool)
                finally:
                    state.finish()
                    pool.close()
            images = self._images(n)
            self.log.write(state.summary(images))
        return images

    def _pool(self):
        if self._is_serial():
            return SerialExecutor(Relaxer(self.calculator, self.settings, **self.options))
        return DaskExecutor(uuid.uuid4().hex, self.frozen, self.workers, self.client)

    def _images(self, n):
        """Return the distinct structures among the first n, each with its lowest energy, sorted by energy."""
        best = {}
        for number, (first, atoms) in self.store.relaxed().items():
            if number < n and (first not in best or energy_of(atoms) < energy_of(best[first])):
                best[first] = atoms
        return sorted(best.values(), key=energy_of)


class _State:
    """State of one run: structures to generate, waiting, in progress, done."""

    def __init__(self, campaign, n):
        self.campaign, self.log, self.store, self.n = campaign, campaign.log, campaign.store, n
        outcomes = self.store.outcomes()
        again = {number for number, bad in outcomes.items() if bad} if campaign.retry_failed else set()
        self.todo = [number for number in range(n) if number not in outcomes or number in again]
        self.failed = sum(bad for number, bad in outcomes.items() if number < n and number not in again)
        self.best, self.done, self.events, self.running = {}, 0, queue.SimpleQueue(), {}
        self.waiting, self.making, self.stop, self.failure = collections.deque(), None, None, None
        self.blocks = collections.deque(sorted({number // campaign.block for number in self.todo}))
        self.wanted = set(self.todo)
        if self.todo:
            self._remember()
        there = n - len(self.todo)
        self.log.write(
            f'campaign: {self.store.name}, {calculator_name(campaign.calculator)}; {there} of {n} structures are '
            f'there ({self.failed} failed), {len(self.todo)} to do'
        )

    def _remember(self):
        """Register the structures of earlier runs for duplicates and best energies."""
        for number, (first, atoms) in self.store.relaxed().items():
            self._note_energy(atoms)
            if self.campaign.first_of_kind is not None and first == number:
                self.campaign.first_of_kind(number, atoms)

    def _note_energy(self, atoms):
        formula, energy = atoms.get_chemical_formula(), energy_of(atoms)
        self.best[formula] = min(self.best.get(formula, math.inf), energy)
        return self.best[formula]

    def work(self, pool):
        """Generate, relax and write all structures; after an error finish and write what is in progress, then raise it."""
        self.log.write(f'working in {pool.description}')
        self.log.write(HEADER)
        self.begun = time.monotonic()
        with Progress(self.n, 'relaxed', done=self.n - len(self.todo)) as self.progress:
            self._loop(pool)
        if (error := self.stop or self.failure) is not None:
            raise error

    def _loop(self, pool):
        while self.running or self.making is not None or (self.stop is None and (self.waiting or self.blocks)):
            if self.stop is None:
                self._feed(pool)
            kind, future = self.events.get()
            if kind == 'block':
                self._take_block(future)
            else:
                self._take_result(pool, kind)

    def _feed(self, pool):
        """Submit work: generate a block while few structures wait, and relax waiting structures."""
        slots = pool.slots()
        if self.making is None and self.blocks and len(self.waiting) < slots * self.campaign.chunk:
            block = self.making = self.blocks.popleft()
            numbers = [k for k in range(block * self.campaign.block, (block + 1) * self.campaign.block) if k in self.wanted]
            future = pool.call(self._make, block, numbers)
            future.add_done_callback(lambda f: self.events.put(('block', f)))
        while self.waiting and len(self.running) < slots:
            size = min(self.campaign.chunk, len(self.waiting))
            self._hand_out(pool, [self.waiting.popleft() for _ in range(size)])

    def _hand_out(self, pool, chunk):
        token, future = chunk[0][0], pool.submit(chunk)
        self.running[token] = (chunk, future)
        future.add_done_callback(lambda f: self.events.put((token, f)))

    def _make(self, block, numbers):
        size = self.campaign.block
        try:
            images = list(self.campaign.generate(block, numbers[-1] - block * size + 1))
        except GenerationFailed as failure:
            images = getattr(failure, 'images', [])
            return [(number, images[number - block * size]) for number in numbers if number - block * size < len(images)], failure
        if len(images) <= numbers[-1] - block * size or not all(isinstance(atoms, Atoms) for atoms in images):
            raise ValueError(
                f'generate(block, count) returns at least count Atoms; for block {block} and count '
                f'{numbers[-1] - block * size + 1} came {len(images)} objects'
            )
        return [(number, images[number - block * size]) for number in numbers], None

    def _take_block(self, future):
        self.making = None
        try:
            made, failure = future.result()
            self.waiting.extend(made)
            if failure is not None:  # raised after the structures that came have been relaxed
                self.failure = failure
                self.blocks.clear()
        except Exception as err:  # raised after structures in progress have been written
            self.stop = self.stop or err

    def _take_result(self, pool, token):
        chunk, future = self.running[token]  # kept until it is written, see finish
        again = []
        try:
            self._store(list(zip([number for number, _ in chunk], future.result(), strict=True)))
        except Exception as err:
            if not pool.died(err):
                self.stop = self.stop or err
                self.store.patience = 0.0 if isinstance(err, StoreError) else self.store.patience  # no more retries
            elif len(chunk) > 1:  # retry one by one
                again = [[item] for item in chunk]
            else:
                text = 'the worker process died each time that it relaxed this structure'
                self._store([(number, failed(atoms, text, number)) for number, atoms in chunk])
        del self.running[token]
        for part in again:
            self._hand_out(pool, part)

    def _store(self, items):
        """Label the structures, write them, and log them."""
        lines = []
        for number, atoms in items:
            failed = bool(atoms.info['key_value_pairs'].get('relax_failed'))
            note(atoms, failed=failed, relax_calculator=calculator_name(self.campaign.calculator))
            first = number
            if not failed:
                self._note_energy(atoms)
                if self.campaign.first_of_kind is not None:
                    first = self.campaign.first_of_kind(number, atoms)
                note(atoms, duplicate_of=int(first), unique=first == number)
            lines.append((number, atoms, first))
        self.store.write(items)
        for number, atoms, first in lines:
            self.done += 1
            self.log.write(self._line(number, atoms, first))
            self.progress.add()

    def finish(self):
        """Write results that arrived but were not handled yet, for example at Ctrl-C."""
        items = []
        for chunk, future in self.running.values():
            if future.done():
                try:
                    items += zip([number for number, _ in chunk], future.result(), strict=True)
                except Exception as err:
                    logger.debug('given up: %s', err)
        self.running.clear()
        if items:
            self._store(items)

    def _line(self, number, atoms, first):
        pairs = atoms.info['key_value_pairs']
        rate = 3600 * self.done / max(time.monotonic() - self.begun, 1e-3)
        start = f'{number:6d} {mobile_formula(atoms):<16s}'
        if pairs['failed']:
            self.failed += 1
            return f'{start} {"-":>5s} {"-":>12s} {"-":>12s} {"-":>12s} {rate:8.0f}  failed: {atoms.info["data"]["relax_error"]}'
        best = self.best[atoms.get_chemical_formula()]
        outcome = ('' if pairs['relax_converged'] else 'not converged, ') + ('new' if first == number else f'same as {first}')
        return (
            f'{start} {pairs["relax_steps"]:5d} {pairs["energy_generated"]:12.4f} {energy_of(atoms):12.4f} '
            f'{best:12.4f} {rate:8.0f}  {outcome}'
        )

    def summary(self, images):
        """Return the last line of the log."""
        text = f'{self.n} structures, {self.failed} failed, {len(images)} different'
        if images:
            number = images[0].info['key_value_pairs']['number']
            text += f'; the best has {energy_of(images[0]):.4f} eV (number {number})'
        return text


def describe(calculator: CalculatorLike) -> str | dict[str, Any]:
    """Return the description of a calculator in settings: its name and known parameters, JSON-serializable."""
    keywords = getattr(calculator, 'keywords', None)  # functools.partial
    parameters = getattr(calculator, 'parameters', None) if not isinstance(calculator, (str, type)) else None
    known = keywords or (dict(parameters) if isinstance(parameters, dict) else None)
    if not known:
        return calculator_name(calculator)
    return {'name': calculator_name(calculator), **json.loads(json.dumps(known, default=str, sort_keys=True))}


def plain(value: object) -> Any:
    """Return a JSON-serializable setting: classes and functions as names."""
    if callable(value):
        return optimizer_name(value)
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.loads(json.dumps(value, default=str))
