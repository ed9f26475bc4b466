"""Database of a campaign: sqlite file or PostgreSQL server, with one writer and one row per structure."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import MissingDependency
from ..utils.checks import check_folder
from ..utils.interrupts import held_interrupts
from ..utils.provenance import noted

if TYPE_CHECKING:
    from ase import Atoms


logger = logging.getLogger(__name__)

SAME_SLAB = 1e-4  # A; tolerance for rounding of the slab of a resumed campaign
ADVISORY_LOCK = 0x617365_646966  # PostgreSQL: one writer of campaigns per database


class StoreError(OSError):
    """Error for a database that cannot be written; the text names the file with the structures."""


class Store:
    """Write numbered structures in transactions, one row per number.

    Parameters
    ----------
    database : str or Path
        ``*.db`` (sqlite), or the URL of a PostgreSQL database, ``postgresql://user:password@host:port/name``.
    settings : dict
        Settings that made the structures, JSON-serializable; stored in the metadata under 'campaign'. A database with other
        settings is refused. An entry 'slab' may differ by rounding.
    patience : float
        Seconds of retries if the database is locked, full, read-only or unreachable.

    Raises
    ------
    ValueError
        The database has other contents or was made with other settings.
    StoreError
        The database cannot be written, or has another writer.
    """

    def __init__(self, database: str | Path, settings: dict[str, Any], *, patience: float = 600.0) -> None:
        self.url = str(database)
        self.remote = self.url.startswith(('postgresql://', 'postgres://'))
        if not self.remote and Path(self.url).suffix != '.db':
            raise ValueError(f'the database of a campaign is an ASE sqlite file, *.db, or postgresql://...; got {self.url!r}')
        if self.remote and find_spec('ase_db_backends') is None:
            raise MissingDependency('ase-db-backends', 'postgresql')
        if not self.remote:
            check_folder('database', self.url)
        self.settings = json.loads(json.dumps(settings))
        self.patience, self._lock = patience, None

    # ------------------------------------------------------------------------------------------------ open and close

    def open(self) -> Self:
        """Become the writer, create the database if needed, and import structures that an earlier run could not write."""
        if not self.remote:
            self.path = Path(self.url).absolute()
            check_folder('database', self.path)
        try:
            self._become_writer()
            if not self.remote and not (self.path.exists() and self.path.stat().st_size):
                self._create()
            self._check(self._connect().metadata)
            self._probe()
            self._recover()
        except BaseException as err:
            self.close()
            if self._is_fault(err) and not isinstance(err, StoreError):
                text = ' '.join(str(err).split())
                raise StoreError(f'{self.name} must be a database that can be written; it cannot ({text})') from err
            raise
        return self

    @property
    def name(self) -> str:
        """File or URL, without password."""
        if not self.remote or '@' not in self.url:
            return self.url
        head, _, tail = self.url.rpartition('@')
        scheme, _, user = head.partition('://')
        return f'{scheme}://{user.partition(":")[0]}@{tail}'

    def _connect(self):
        """Return a new ASE database object; old ones are unusable after an error."""
        from ase.db import connect

        try:
            # sqlite has its own locks; the lock file of a killed process would block all later calls
            return connect(self.url if self.remote else self.path, use_lock_file=False)
        except ModuleNotFoundError as err:
            raise MissingDependency(err.name.replace('_', '-'), 'postgresql') from err

    def _create(self):
        """Create the file with its metadata under another name and move it: an interruption leaves no partial file."""
        from ase.db import connect

        part = self.path.with_name(f'.{self.path.stem}.{uuid.uuid4().hex[:8]}.db')
        try:
            connect(part, use_lock_file=False).metadata = {'campaign': self.settings, 'campaign_id': uuid.uuid4().hex}
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)

    def _check(self, metadata):
        theirs = metadata.get('campaign')
        if theirs is None:
            db = self._connect()
            if len(db):
                raise ValueError(
                    f'a campaign writes to a database of its own; {self.name} has {len(db)} other rows; take another database'
                )
            metadata = {**metadata, 'campaign': self.settings, 'campaign_id': uuid.uuid4().hex}
            db.metadata = metadata
        elif differ := differences(theirs, self.settings):
            raise ValueError(
                f'a database belongs to one campaign; {self.name} was made with {"; ".join(differ)}; '
                'take the same settings or another database'
            )
        self.id = metadata['campaign_id'][:12]

    def _probe(self):
        """Raise an error if the database is not writable."""
        if self.remote:
            return
        connection = sqlite3.connect(self.path, timeout=20)
        try:
            connection.execute('BEGIN IMMEDIATE')
            connection.execute('UPDATE information SET value = value')
            connection.rollback()
        finally:
            connection.close()

    def _become_writer(self):
        """Take a lock that the system releases at the end of this process."""
        busy = (
            f'one process writes the database of a campaign; another one has {self.name} in use; '
            'wait for it, stop it, or take another database'
        )
        if self.remote:
            try:
                import psycopg2
            except ModuleNotFoundError as err:
                raise MissingDependency('ase-db-backends', 'postgresql') from err
            self._lock = psycopg2.connect(self.url)
            self._lock.autocommit = True
            cursor = self._lock.cursor()
            cursor.execute('SELECT pg_try_advisory_lock(%s)', (ADVISORY_LOCK,))
            if not cursor.fetchone()[0]:
                raise StoreError(busy)
            return
        try:
            import fcntl
        except ModuleNotFoundError:  # Windows
            logger.warning('this system has no file locks: make sure that only one process writes %s', self.name)
            self._lock = open(os.devnull)  # noqa: SIM115
            return
        path = self.path.with_name(self.path.name + '.writer')
        while True:
            self._lock = open(path, 'a')  # noqa: SIM115  closed by close()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                self._lock = None
                raise StoreError(busy) from None
            if path.exists() and path.stat().st_ino == os.fstat(self._lock.fileno()).st_ino:
                return
            self._lock.close()  # removed by its former owner in the meantime

    def close(self) -> None:
        """Release the lock."""
        if self._lock is None:
            return
        if not self.remote:
            self.path.with_name(self.path.name + '.writer').unlink(missing_ok=True)
        try:
            self._lock.close()
        except Exception as err:  # the server is gone
            logger.debug('the lock of %s: %s', self.name, err)
        self._lock = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ read and write

    def outcomes(self) -> dict[int, bool]:
        """Return whether each structure failed, by number."""
        return {row.number: bool(row.get('failed')) for row in self._connect().select(include_data=False)}

    def relaxed(self) -> dict[int, tuple[int, Atoms]]:
        """Return (number of the first duplicate, Atoms with energy) of the structures that did not fail, by number."""
        from ..data.frames import row_atoms

        rows = self._connect().select(failed=False)
        return {row.number: (row.get('duplicate_of', row.number), row_atoms(row)) for row in sorted(rows, key=lambda r: r.number)}

    def write(self, items: Sequence[tuple[int, Atoms]]) -> None:
        """Write structures in one transaction; rows of the same numbers are replaced.

        Parameters
        ----------
        items : list of (int, Atoms)
            Numbers, and structures with ``info['key_value_pairs']`` and ``info['data']``.

        Raises
        ------
        StoreError
            Writing failed for `patience` seconds; the structures are in a file beside the database or in the folder for temporary
            files, and the next campaign with this database imports them.
        """
        end, pause, warned = time.monotonic() + self.patience, 1.0, False
        while True:
            try:
                with held_interrupts():
                    if self._lock is None:
                        self._become_writer()
                    self._write(items)
                return
            except Exception as err:
                if not self._is_fault(err):
                    raise
                if self.remote:  # the lock is lost with the connection
                    self.close()
                left = end - time.monotonic()
                if left <= 0:
                    where = self._rescue(items)
                    text = ' '.join(str(err).split())
                    raise StoreError(
                        f'{self.name} cannot be written ({text}); nothing is lost: {len(items)} structures are in '
                        f'{where}, and the same call imports them'
                    ) from err
                if not warned:
                    logger.warning('%s cannot be written (%s); trying for another %.0f s', self.name, str(err).strip(), left)
                    warned = True
                time.sleep(min(pause, left))
                pause = min(2 * pause, 30.0)

    def _write(self, items):
        db = self._connect()
        try:
            with db:
                old = [row.id for number, _ in items for row in db.select(number=number, include_data=False)]
                if old:
                    db.delete(old)
                for number, atoms in items:
                    pairs, data = split_pairs(atoms)
                    db.write(atoms, data=data, **noted(pairs, number=number))
        finally:
            if db.connection is not None:  # left open by an error in the clean-up of ASE
                db.connection.close()

    @staticmethod
    def _is_fault(err):
        """Return whether an error comes from the disk or the server, so that a retry may succeed."""
        kinds = {kind.__module__.partition('.')[0] for kind in type(err).__mro__}
        wrapper = isinstance(err, AttributeError) and err.name == 'rollback'  # ase-db-backends cannot roll back
        return isinstance(err, (sqlite3.Error, OSError)) or 'psycopg2' in kinds or wrapper

    # ------------------------------------------------------------------------------------------------ rescue

    def _rescue_files(self):
        beside = Path.cwd() if self.remote else self.path.parent
        return [folder / f'campaign-{self.id}.rescued.traj' for folder in (beside, Path(tempfile.gettempdir()))]

    def _rescue(self, items):
        """Append structures to the first writable rescue file, and return its path."""
        from ase.io.trajectory import Trajectory

        problems = []
        for path in self._rescue_files():
            try:
                with Trajectory(path, 'a') as file:
                    for number, atoms in items:
                        pairs, data = split_pairs(atoms)
                        kept = atoms.copy()
                        kept.calc = atoms.calc
                        kept.info = {'key_value_pairs': noted(pairs, number=number), 'data': data}
                        file.write(kept)
                return path
            except OSError as err:
                problems.append(f'{path}: {err}')
        raise StoreError(f'the structures could not be written anywhere: {"; ".join(problems)}')

    def _recover(self):
        from ase.io import read

        for path in self._rescue_files():
            if not path.is_file():
                continue
            known = self.outcomes()
            images = [atoms for atoms in read(path, ':') if known.get(atoms.info['key_value_pairs']['number'], True)]
            self._write([(atoms.info['key_value_pairs']['number'], atoms) for atoms in images])
            path.unlink()
            logger.warning('%d structures of %s are now in %s', len(images), path, self.name)


def stored_campaign(database: str | Path) -> dict[str, Any]:
    """Return the settings of the campaign in a database; empty without a campaign or database."""
    from ase.db import connect

    remote = str(database).startswith(('postgresql://', 'postgres://'))
    if not remote and not (Path(database).is_file() and Path(database).stat().st_size):
        return {}
    try:
        return connect(database, use_lock_file=False).metadata.get('campaign', {})
    except Exception as err:  # reported when the campaign opens the database
        logger.debug('%s: %s', database, err)
        return {}


def split_pairs(atoms: Atoms) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (key-value pairs allowed as columns of a database, data with the others)."""
    from ase.db.core import check

    data = atoms.info.get('data', {})
    pairs, data = {}, dict(data) if isinstance(data, dict) else {'data': data}
    for key, value in atoms.info.get('key_value_pairs', {}).items():
        value = value.item() if isinstance(value, np.generic) else value
        try:
            check({key: value})
            pairs[key] = value
        except ValueError:
            data.setdefault('other_pairs', {})[key] = value
    return pairs, data


def slab_settings(slab: Atoms) -> dict[str, Any]:
    """Return the description of a slab in settings."""
    from ..utils.atoms import frozen_mask

    return {
        'numbers': slab.numbers.tolist(),
        'positions': slab.positions.tolist(),
        'cell': slab.cell.tolist(),
        'pbc': slab.pbc.tolist(),
        'fixed': frozen_mask(slab).tolist(),
    }


def differences(theirs: dict[str, Any], mine: dict[str, Any], prefix: str = '') -> list[str]:
    """Return texts such as 'fmax 0.05, now 0.1' for all entries that differ between two settings."""
    found = []
    for key in [*theirs, *(key for key in mine if key not in theirs)]:
        old, new, name = theirs.get(key), mine.get(key), f'{prefix}{key}'
        if key == 'slab' and isinstance(old, dict) and isinstance(new, dict):
            found += [] if same_slab(old, new) else ['another slab']
        elif isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f'{name}.')
        elif old != new:
            found.append(f'{name} {old!r}, now {new!r}')
    return found


def same_slab(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two slabs from `slab_settings` are equal up to rounding."""
    if any(one[key] != other[key] for key in ('numbers', 'pbc', 'fixed')):
        return False
    return all(np.allclose(one[key], other[key], rtol=0, atol=SAME_SLAB) for key in ('positions', 'cell'))
