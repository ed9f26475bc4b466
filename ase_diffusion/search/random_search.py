"""Random structure search: relax random overlayers on a fixed slab; all frames go to one database."""

from __future__ import annotations

import logging
import os
import pickle
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers

from ..calculators.default import check_installed, default_for_slab, example_structure
from ..calculators.elements import check_elements, warn_of_mixed_functionals
from ..calculators.factory import check_shared
from ..calculators.names import CalculatorLike, calculator_name, is_own_force_field
from ..data.frames import row_atoms
from ..data.starts import Composition, check_composition, check_start, draw_composition, random_start
from ..errors import GenerationFailed
from ..relax.relaxer import Relaxer
from ..relax.settings import Settings, optimizer_name
from ..utils.atoms import check_extendable, copy_atoms, parse_formula
from ..utils.checks import check_count, check_folder
from ..utils.children import unshadowed
from ..utils.log import Log, Logfile
from ..utils.progress import Progress
from ..utils.provenance import forget_notes, note, noted
from ..utils.rng import RandomSource, coerce_rng
from .store import same_slab, slab_settings, split_pairs

if TYPE_CHECKING:
    from ase import Atoms
    from ase.optimize.optimize import Optimizer


__all__ = ['RandomStructureSearch', 'random_start']

logger = logging.getLogger(__name__)

HEADER = f'{"run":>6s} {"formula":<16s} {"steps":>5s} {"start/eV":>12s} {"end/eV":>12s} {"time/s":>7s}  outcome'
_worker = None  # in a worker process: (search, Relaxer), or the error of its start


class RandomStructureSearch:
    """Relax random overlayers on a slab and store every frame.

    The seed of run k is (seed, k): the same call resumes an interrupted search, and structures do not depend on the number of
    workers or the order of the runs. Only the parent process writes.

    Parameters
    ----------
    slab : Atoms
        Substrate, periodic in the plane only, with FixAtoms on frozen atoms. Not changed.
    stoich : str, dict or list of str
        Formula of the new atoms; or inclusive ranges, ``{'Ag': (4, 6), 'O': (2, 5)}``, drawn uniformly for each run; or a
        list of formulas to draw from (repeat one to give it more weight).
    calculator : str, Path, callable or Calculator
        As `ase_diffusion.relax.get_calculator` takes it; picklable for several workers: a name, a path, a class or a function at
        module level. Calculators that write files or keep wave functions (GPAW, VASP) and come from a name or a factory are
        made anew for each run, in a separate folder. None: ``'ag-o'`` if it knows the slab and the elements, else the first
        installed one of ``'7net-mf-0'`` and ``'chgnet'``; the log says which.
    height, ratio, maxiter
        As in `random_start`.
    rng : None, int, Generator, RandomState or numpy.random
        Source of the seed. None takes the seed of the database, or a fresh one for a new database.
    optimizer : str or class
        Name or class of `ase.optimize`.
    fmax : float
        Largest force on a mobile atom at convergence (eV/A).
    steps : int
        Largest number of steps of a relaxation.
    database : str or Path
        ASE database (``.db``). A row is a frame with energy and raw forces and the keys run, step, last and converged. A failed
        run is one row, its start, with the key failed; the next call retries it.
    directory : str or Path
        Parent of these folders, ``vasp-0000`` for run 0 and so on; existing folders are not reused. Default: the current folder.
    workers : int
        Number of processes. Above 1 a script needs ``if __name__ == '__main__':`` around the call of `run`.
    logfile : str, Path, stream or None
        One line per run; ``'-'`` is stdout.
    """

    def __init__(
        self,
        slab: Atoms,
        stoich: Composition,
        calculator: CalculatorLike | None = None,
        *,
        height: tuple[float, float] = (1.0, 4.5),
        ratio: float = 0.7,
        maxiter: int = 100,
        rng: RandomSource = None,
        optimizer: str | Callable[..., Optimizer] = 'BFGS',
        fmax: float = 0.05,
        steps: int = 300,
        database: str | Path = 'rss.db',
        directory: str | Path = '.',
        workers: int = 1,
        logfile: Logfile = '-',
    ) -> None:
        from ..representations.slab import check_slab  # the check of training and sampling; needs torch, unlike workers

        check_slab(slab)
        check_extendable(slab)
        if Path(database).suffix != '.db':
            raise ValueError(f'the database of a search is an ASE sqlite file, *.db; got {str(database)!r}')
        check_folder('database', database)
        check_count('workers', 'the number of processes', workers)
        if calculator is not None:
            check_shared(calculator, workers)
        self.settings = Settings(optimizer, fmax, steps)
        self.slab = copy_atoms(slab)
        self.slab.info.pop('adsorbate_info', None)  # set by ase.build; extxyz cannot write it
        forget_notes(self.slab)
        self.stoich = check_composition(stoich)
        self.height, self.ratio, self.maxiter = check_start(height, ratio, maxiter), float(ratio), int(maxiter)
        self.calculator = default_for_slab(self.slab, _elements(self.stoich)) if calculator is None else calculator
        check_installed(self.calculator)
        self._check_known()
        self.directory = directory
        self.database, self.workers, self.logfile = Path(database), int(workers), logfile
        self.seed = self._find_seed(rng)

    def _check_known(self) -> None:
        """Raise a ValueError where the calculator does not know an element, as far as that can be told."""
        example = example_structure(self.slab, _elements(self.stoich))
        check_elements(self.calculator, example.numbers, 'a search')
        warn_of_mixed_functionals(self.calculator, [example])
        if is_own_force_field(self.calculator):
            Relaxer(self.calculator, self.settings).check([example])

    def run(self, n: int) -> list[Atoms]:
        """Complete the runs 0 to `n` - 1 and return the relaxed structures.

        Parameters
        ----------
        n : int
            Total number of runs; runs in the database are not repeated.

        Returns
        -------
        list of Atoms
            Last frames of the successful runs 0 to n - 1, in order.

        Raises
        ------
        ValueError
            n is not a positive integer, or the database belongs to another search.
        GenerationFailed
            The atoms do not fit into the window (earlier runs stay in the database), or all runs failed.
        """
        check_count('n', 'the number of runs', n)
        with _named_faults(self.database):
            db = self._open()
        done = {row.run for row in db.select('last=True', include_data=False) if not row.get('failed')}
        todo = [run for run in range(n) if run not in done]
        with Log(self.logfile) as log, Progress(n, 'relaxed', done=n - len(todo)) as progress:
            log.write(f'{type(self).__name__}: {calculator_name(self.calculator)}, seed {self.seed}, {self.database}')
            log.write(f'{n} runs, {n - len(todo)} of them done, {self.workers} worker{"s" * (self.workers > 1)}')
            log.write(HEADER)
            failures = Counter()
            for run, frames, seconds in self._results(todo):
                with _named_faults(self.database):
                    self._store(db, run, frames)
                log.write(_line(run, frames[-1], seconds, len(self.slab)))
                progress.add()
                if frames[-1].info['key_value_pairs'].get('failed'):
                    failures[frames[-1].info['data']['relax_error']] += 1
        rows = [row for row in db.select('last=True') if row.run < n and not row.get('failed')]
        if todo and failures.total() == len(todo):
            self._all_failed(failures, rows)
        return [row_atoms(row) for row in sorted(rows, key=lambda row: row.run)]

    def _all_failed(self, failures, rows):
        """Raise a GenerationFailed if there is no result at all; warn if there are results of earlier calls."""
        text = (
            f'all {failures.total()} runs of this call failed; check that {calculator_name(self.calculator)} knows '
            'the elements and runs at all; the next call tries them again'
        )
        error = GenerationFailed(text, failures)
        if not rows:
            raise error
        logger.warning('%s', error)

    def start(self, run: int) -> Atoms:
        """Return the start structure of a run, the same in every call.

        Parameters
        ----------
        run : int
            Number of the run, from 0.
        """
        rng = np.random.default_rng([self.seed, run])
        numbers = draw_composition(self.stoich, rng)
        return random_start(self.slab, numbers, rng, height=self.height, ratio=self.ratio, maxiter=self.maxiter)

    def todict(self) -> dict[str, Any]:
        """Return the settings that identify this search, JSON-serializable."""
        return {
            'seed': self.seed,
            'stoich': self.stoich,
            'height': list(self.height),
            'ratio': self.ratio,
            'calculator': calculator_name(self.calculator),
            'optimizer': optimizer_name(self.settings.optimizer),
            'fmax': self.settings.fmax,
            'steps': int(self.settings.steps),
            'slab': slab_settings(self.slab),
        }

    def _relaxer(self):
        """Return the relaxer of this search."""
        return Relaxer(self.calculator, self.settings, directory=self.directory)

    def _find_seed(self, rng):
        """Return the seed from `rng`, the database, or fresh entropy, in this order."""
        if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
            return int(rng)
        if rng is None and self.database.is_file():
            from ase.db import connect

            with _named_faults(self.database):
                stored = connect(self.database, use_lock_file=False).metadata.get('random_search', {})
            if 'seed' in stored:
                return stored['seed']
        return int.from_bytes(coerce_rng(rng).bytes(8), 'little') >> 1

    def _open(self):
        """Return the database; raise a ValueError if it belongs to another search."""
        from ase.db import connect

        # sqlite has its own locks; the lock file of a killed process would block all later calls
        db = connect(self.database, use_lock_file=False)
        mine, metadata = self.todict(), db.metadata
        theirs = metadata.get('random_search')
        if theirs is None:
            if len(db):
                raise ValueError(
                    f'a search writes to a database of its own; {self.database} has {len(db)} other rows; take another database'
                )
            db.metadata = {**metadata, 'random_search': mine}
            return db
        keys = [key for key in mine if key != 'slab' and mine[key] != theirs.get(key)]
        differ = [f'{key} {theirs.get(key)!r}, now {mine[key]!r}' for key in keys]
        if not same_slab(mine['slab'], theirs['slab']):
            differ.append('another slab')
        if differ:
            raise ValueError(
                f'a database belongs to one search; {self.database} was made with {"; ".join(differ)}; '
                'take the same values (rng=None takes the seed of the database) or another database'
            )
        return db

    def _results(self, todo):
        """Yield (run, frames, seconds) in the order of completion."""
        if self.workers == 1 or len(todo) < 2:
            relaxer = self._relaxer() if todo else None
            for run in todo:
                yield _one_run(self, relaxer, run)
            return
        try:
            pickle.dumps(self)
        except Exception as err:
            raise ValueError(
                f'workers are processes and get the calculator by pickle; {calculator_name(self.calculator)} cannot be '
                f'pickled ({err}); pass a name, a class or a function at the top of a module, or workers=1'
            ) from err
        pool = ProcessPoolExecutor(
            min(self.workers, len(todo)), get_context('spawn'), initializer=_start_worker, initargs=(self,)
        )
        try:
            with unshadowed():
                futures = [pool.submit(_work, run) for run in todo]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _store(self, db, run, frames):
        """Write the frames of one run in one transaction; rows of earlier attempts are deleted."""
        with db:
            db.delete([row.id for row in db.select(run=run, include_data=False)])
            for index, atoms in enumerate(frames):
                own, data = split_pairs(atoms)  # keys that a database cannot hold go into the data
                pairs = noted({'step': 0, 'converged': False} | own, run=run, last=index == len(frames) - 1)
                db.write(atoms, data=data, **pairs)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for workers, without the log (streams cannot be pickled)."""
        return {**self.__dict__, 'logfile': None}


@contextmanager
def _named_faults(database):
    """Raise errors of sqlite as an OSError that names the database."""
    try:
        yield
    except sqlite3.Error as err:
        raise OSError(
            f'{database} must be an ASE database that can be written; it cannot ({err}); its runs stay, and the same call goes on'
        ) from err


def _elements(stoich):
    """Return the atomic numbers that may occur in a composition as returned by `check_composition`."""
    if isinstance(stoich, dict):
        return [atomic_numbers[symbol] for symbol in stoich]
    return sorted({number for text in ([stoich] if isinstance(stoich, str) else stoich) for number in parse_formula(text)})


def _one_run(search, relaxer, run):
    """Return (run, frames, seconds) of one relaxation; the last frame is the result."""
    start, begun, paths = search.start(run), time.time(), []
    [(_, result)] = relaxer.iterate([start], [run], frames=paths)
    note(result, relax_calculator=calculator_name(search.calculator))
    pairs = result.info['key_value_pairs']
    if pairs.get('relax_failed'):
        note(result, failed=True)
        return run, [result], time.time() - begun
    note(result, step=pairs['relax_steps'], converged=pairs['relax_converged'])
    return run, [*paths[0][:-1], result], time.time() - begun


def _start_worker(search):
    """Set up a worker process; an error is raised in the first run, so that the parent sees it."""
    global _worker
    try:
        relaxer = search._relaxer()
        if 'torch' in sys.modules:  # workers share the cores
            sys.modules['torch'].set_num_threads(max(1, (os.cpu_count() or 1) // search.workers))
        _worker = (search, relaxer)
    except Exception as err:
        _worker = err


def _work(run):
    """Execute one run in a worker process."""
    if isinstance(_worker, Exception):
        raise _worker
    return _one_run(*_worker, run)


def _line(run, atoms, seconds, nslab):
    """Return the line of the log for one run."""
    pairs = atoms.info['key_value_pairs']
    start = f'{run:6d} {atoms[nslab:].get_chemical_formula():<16s}'
    if pairs.get('failed'):
        return f'{start} {"-":>5s} {"-":>12s} {"-":>12s} {seconds:7.1f}  failed: {atoms.info["data"]["relax_error"]}'
    energies = f'{pairs["energy_generated"]:12.4f} {atoms.calc.results["energy"]:12.4f}'
    outcome = 'converged' if pairs['relax_converged'] else 'not converged'
    return f'{start} {pairs["relax_steps"]:5d} {energies} {seconds:7.1f}  {outcome}'
