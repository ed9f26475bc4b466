"""Hours of relaxations that survive: made as they are needed, relaxed on many processes, kept in one database."""

import collections
import dataclasses
import json
import logging
import math
import queue
import time
import uuid

import numpy as np
from ase import Atoms

from ..calculators.factory import check_shared, freeze
from ..calculators.names import calculator_name, check_calculator, is_own_force_field
from ..relax.relaxer import Relaxer
from ..relax.settings import Settings, optimizer_name
from ..relax.single import failed
from ..utils.checks import check_integer, check_limits
from ..utils.log import Log
from .executors import DaskExecutor, SerialExecutor
from .store import Store, StoreError

logger = logging.getLogger(__name__)

HEADER = (
    f'{"number":>6s} {"formula":<16s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s} {"best/eV":>12s} {"per hour":>8s}  outcome'
)


class Campaign:
    """Bring a database to n relaxed structures; the same call goes on where it was stopped, by whatever.

    Structure k is number ``k % block`` of block ``k // block``, which `generate` makes from its number alone; so nothing but the
    database has to be remembered. One process writes; each structure is written as it is done, all of it or nothing. What is
    lost when everything is killed are the structures that are being relaxed at that moment.

    Parameters
    ----------
    database : str or Path
        ASE database: ``*.db`` (sqlite), or ``postgresql://...`` (needs ase-db-backends). Columns: number, failed, unique,
        duplicate_of (number of the first of its kind), those of :func:`ase_diffusion.relax.relax`, and what the generator
        noted. ``ase db search.db unique=1 -s energy`` shows the different structures.
    generate : callable
        ``generate(block, count)`` returns the first `count` Atoms of a block, the same ones at each call.
    calculator : str, Path, callable or Calculator
        Anything `get_calculator` takes; more than this process needs one that can be pickled. A finished GPAW, VASP or other
        one with files has a single folder, and so a single process; a name or a factory gives one for each structure.
    first_of_kind : callable, optional
        ``first_of_kind(number, atoms)`` returns the number of the first structure that is the same, `number` itself where it
        is new (`ase_diffusion.metrics.Distinct().add`). It is told of all structures in the database first.
    made_by : dict
        What makes the structures, fit for JSON (generator, seed, slab): a database made by something else is refused.
    block : int
        Structures in a block.
    optimizer, fmax, steps, filter, min_distance, max_energy, pbc, timeout, directory
        As in :func:`ase_diffusion.relax.relax`.
    workers : int
        Local processes (dask); 0 does everything in this one. A script needs ``if __name__ == '__main__':`` otherwise.
    client : distributed.Client, optional
        Works instead of local processes, for example that of a dask-jobqueue cluster. It stays open.
    retry_failed : bool
        Whether structures that failed before are tried again.
    patience : float
        Seconds for which a database that is locked, full or away is tried.
    logfile : str, Path, stream or None
        One line for each structure; ``'-'`` is stdout.

    Raises
    ------
    ValueError
        A number is not one, a calculator for other processes cannot be pickled, or several of them would share the folder of a
        finished one. :meth:`run` raises where the database belongs to something else.
    """

    def __init__(
        self,
        database,
        generate,
        calculator='7net-mf-0',
        *,
        first_of_kind=None,
        made_by=None,
        block=16,
        timeout=None,
        directory=None,
        workers=1,
        client=None,
        retry_failed=False,
        patience=600.0,
        logfile='-',
        **relaxation,
    ):
        check_calculator(calculator)
        self.settings = Settings(**relaxation)
        check_limits(timeout=timeout)
        check_integer('block', block, 1, 'the number of structures generated at once')
        check_integer('workers', workers, 0, 'the number of local processes (0 is this process)')
        check_shared(calculator, None if client is not None else workers)
        self.generate, self.calculator, self.first_of_kind, self.block = generate, calculator, first_of_kind, int(block)
        self.options = {'timeout': timeout, 'directory': directory}
        self.workers, self.client, self.retry_failed, self.logfile = workers, client, retry_failed, logfile
        self.frozen = None if self._is_serial() else freeze(calculator, self.settings, self.options)
        self.chunk = min(self.block, 16) if is_own_force_field(calculator) and timeout is None else 1
        self.store = Store(database, self._what(made_by or {}), patience=patience)
        self.log = Log(logfile)

    def _is_serial(self):
        return self.workers == 0 and self.client is None

    def _what(self, made_by):
        """Return all that decides what a structure is and what it relaxes to."""
        how = {field.name: plain(getattr(self.settings, field.name)) for field in dataclasses.fields(self.settings)}
        return {**made_by, 'block': self.block, 'calculator': describe(self.calculator), **how}

    def run(self, n):
        """Bring the database to `n` structures.

        Parameters
        ----------
        n : int
            In all, with those that are there and those that failed.

        Returns
        -------
        list of Atoms
            The different relaxed structures, of each kind that with the lowest energy; the lowest of all first.

        Raises
        ------
        ValueError
            The database belongs to another campaign or slab; the differences are listed.
        StoreError
            It cannot be written; what was computed is in a file that the next call takes in.
        GenerationFailed
            The generator gave up; what was made before is in the database.
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
        """Return the best of each kind among the first n, the lowest energy first."""
        best = {}
        for number, (first, atoms) in self.store.relaxed().items():
            if number < n and (first not in best or atoms.get_potential_energy() < best[first].get_potential_energy()):
                best[first] = atoms
        return sorted(best.values(), key=lambda atoms: atoms.get_potential_energy())


class _State:
    """What one run does: which structures are waiting, under way and done."""

    def __init__(self, campaign, n):
        self.campaign, self.log, self.store, self.n = campaign, campaign.log, campaign.store, n
        outcomes = self.store.outcomes()
        again = {number for number, bad in outcomes.items() if bad} if campaign.retry_failed else set()
        self.todo = [number for number in range(n) if number not in outcomes or number in again]
        self.failed = sum(bad for number, bad in outcomes.items() if number < n and number not in again)
        self.best, self.done, self.events, self.running = {}, 0, queue.SimpleQueue(), {}
        self.waiting, self.making, self.stop = collections.deque(), None, None
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
        """Tell the sieve and the log about the structures of earlier runs."""
        for number, (first, atoms) in self.store.relaxed().items():
            self._note_energy(atoms)
            if self.campaign.first_of_kind is not None and first == number:
                self.campaign.first_of_kind(number, atoms)

    def _note_energy(self, atoms):
        formula, energy = atoms.get_chemical_formula(), atoms.get_potential_energy()
        self.best[formula] = min(self.best.get(formula, math.inf), energy)
        return self.best[formula]

    def work(self, pool):
        """Make, relax and write until nothing is left; an error stops it after what is under way has been written."""
        self.log.write(f'working in {pool.description}')
        self.log.write(HEADER)
        self.begun = time.monotonic()
        while self.running or self.making is not None or (self.stop is None and (self.waiting or self.blocks)):
            if self.stop is None:
                self._feed(pool)
            kind, future = self.events.get()
            if kind == 'block':
                self._take_block(future)
            else:
                self._take_result(pool, kind)
        if self.stop is not None:
            raise self.stop

    def _feed(self, pool):
        """Hand out work: blocks to be made while few structures wait, and structures to be relaxed."""
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
        images = list(self.campaign.generate(block, numbers[-1] - block * size + 1))
        if len(images) <= numbers[-1] - block * size or not all(isinstance(atoms, Atoms) for atoms in images):
            raise ValueError(
                f'generate(block, count) returns at least count Atoms; for block {block} and count '
                f'{numbers[-1] - block * size + 1} came {len(images)} objects'
            )
        return [(number, images[number - block * size]) for number in numbers]

    def _take_block(self, future):
        self.making = None
        try:
            self.waiting.extend(future.result())
        except Exception as err:  # raised after what is under way has been written
            self.stop = self.stop or err

    def _take_result(self, pool, token):
        chunk, future = self.running[token]  # stays there until it is written: see finish
        again = []
        try:
            self._store(list(zip([number for number, _ in chunk], future.result(), strict=True)))
        except Exception as err:
            if not pool.died(err):
                self.stop = self.stop or err
                self.store.patience = 0.0 if isinstance(err, StoreError) else self.store.patience  # waited long enough
            elif len(chunk) > 1:  # find the one that does it
                again = [[item] for item in chunk]
            else:
                text = 'the worker process died each time that it relaxed this structure'
                self._store([(number, failed(atoms, text, number)) for number, atoms in chunk])
        del self.running[token]
        for part in again:
            self._hand_out(pool, part)

    def _store(self, items):
        """Note what each structure is, write them all, then say so."""
        lines = []
        for number, atoms in items:
            pairs = atoms.info['key_value_pairs']
            pairs.update(failed=bool(pairs.get('relax_failed')), relax_calculator=calculator_name(self.campaign.calculator))
            first = number
            if not pairs['failed']:
                self._note_energy(atoms)
                if self.campaign.first_of_kind is not None:
                    first = self.campaign.first_of_kind(number, atoms)
                pairs.update(duplicate_of=int(first), unique=first == number)
            lines.append((number, atoms, first))
        self.store.write(items)
        for number, atoms, first in lines:
            self.done += 1
            self.log.write(self._line(number, atoms, first))

    def finish(self):
        """Write what was done after the last look, for example at Ctrl-C."""
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
        start = f'{number:6d} {atoms.get_chemical_formula():<16s}'
        if pairs['failed']:
            self.failed += 1
            return f'{start} {"-":>5s} {"-":>12s} {"-":>12s} {"-":>12s} {rate:8.0f}  failed: {atoms.info["data"]["relax_error"]}'
        best = self.best[atoms.get_chemical_formula()]
        outcome = ('' if pairs['relax_converged'] else 'not converged, ') + ('new' if first == number else f'same as {first}')
        return (
            f'{start} {pairs["relax_steps"]:5d} {pairs["energy_generated"]:12.4f} {atoms.get_potential_energy():12.4f} '
            f'{best:12.4f} {rate:8.0f}  {outcome}'
        )

    def summary(self, images):
        """Return the last line of the log."""
        text = f'{self.n} structures, {self.failed} failed, {len(images)} different'
        if images:
            number = images[0].info['key_value_pairs']['number']
            text += f'; the best has {images[0].get_potential_energy():.4f} eV (number {number})'
        return text


def describe(calculator):
    """Return a calculator as settings know it: its name, and the parameters that it tells, fit for JSON."""
    keywords = getattr(calculator, 'keywords', None)  # of functools.partial
    parameters = getattr(calculator, 'parameters', None) if not isinstance(calculator, (str, type)) else None
    known = keywords or (dict(parameters) if isinstance(parameters, dict) else None)
    if not known:
        return calculator_name(calculator)
    return {'name': calculator_name(calculator), **json.loads(json.dumps(known, default=str, sort_keys=True))}


def plain(value):
    """Return a setting fit for JSON: classes and functions by their names."""
    if callable(value):
        return optimizer_name(value)
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.loads(json.dumps(value, default=str))
