"""Campaigns on several processes, and on a PostgreSQL server; what can happen to either."""

import glob
import io
import logging
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.db import connect

from ase_diffusion.metrics import Distinct
from ase_diffusion.search.campaign import Campaign
from ase_diffusion.search.store import StoreError

CALCULATORS = '''
import os, signal, time
from ase.calculators.emt import EMT

class Bad(EMT):
    """EMT that kills its process for gold, hangs for silver and raises for nickel."""
    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        if 79 in atoms.numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        if 47 in atoms.numbers:
            time.sleep(1000)
        if 28 in atoms.numbers:
            raise RuntimeError('no convergence')
        super().calculate(atoms, properties, system_changes)
'''


def generate(block, count, symbols=('Cu', 'Cu', 'Cu', 'Cu')):
    """Return adatoms on Cu(111) at random places."""
    slab = fcc111('Cu', (1, 1, 2), vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    images = []
    for k in range(count):
        atoms, rng = slab.copy(), np.random.default_rng((block, k))
        atoms.extend(Atoms(symbols[k], [[*rng.uniform(0, 2.5, 2), slab.positions[1, 2] + 2.2]]))
        images.append(atoms)
    return images


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """A calculator class in a module that other processes can import."""
    (tmp_path / 'bad_campaign_calculators.py').write_text(CALCULATORS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, [str(tmp_path), os.environ.get('PYTHONPATH', '')])))
    monkeypatch.delitem(__import__('sys').modules, 'bad_campaign_calculators', raising=False)
    import bad_campaign_calculators

    return bad_campaign_calculators.Bad


def rows(database):
    return {row.number: row for row in connect(database, use_lock_file=False).select()}


def test_a_worker_that_dies_costs_one_structure(tmp_path, bad):
    pytest.importorskip('distributed', reason="dask is not installed; pip install '.[search]'")
    log = io.StringIO()
    search = Campaign(
        tmp_path / 'a.db',
        lambda block, count: generate(block, count, ('Cu', 'Au', 'Ni', 'Cu')),
        bad,
        steps=3,
        workers=1,
        block=4,
        logfile=log,
    )
    images = search.run(4)
    kept = rows(tmp_path / 'a.db')
    assert [kept[k].failed for k in range(4)] == [False, True, True, False] and len(images) == 2
    assert 'worker process died' in kept[1].data['relax_error'] and 'no convergence' in kept[2].data['relax_error']
    assert '1 local process' in log.getvalue()


def test_a_client_of_the_user_works_and_stays_open(tmp_path, bad):
    """Threads of one process stand in for a cluster; silver hangs and meets its time limit."""
    distributed = pytest.importorskip('distributed', reason="dask is not installed; pip install '.[search]'")
    level = logging.getLogger('ase_diffusion').level
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        source = lambda block, count: generate(block, count, ('Cu', 'Ag', 'Cu', 'Cu'))  # noqa: E731
        Campaign(tmp_path / 'a.db', source, bad, steps=2, client=client, block=4, timeout=20.0, logfile=None).run(4)
        assert client.status == 'running'
    assert logging.getLogger('ase_diffusion').level == level  # in a process of the user's, logging is not ours to change
    kept = rows(tmp_path / 'a.db')
    assert [kept[k].failed for k in range(4)] == [False, True, False, False]
    assert 'time limit of 20 s' in kept[1].data['relax_error']


def test_what_cannot_be_sent_to_processes_is_refused_at_once(tmp_path):
    import threading

    from ase.calculators.emt import EMT

    calc = EMT()
    calc.lock = threading.Lock()
    with pytest.raises(ValueError, match='cannot be pickled'):
        Campaign(tmp_path / 'a.db', generate, calc, workers=2)


# ------------------------------------------------------------------------------------------------ PostgreSQL


def find_postgres():
    """Return the folder with initdb and pg_ctl, None without."""
    found = shutil.which('initdb')
    folders = [str(Path(found).parent)] if found else sorted(glob.glob('/usr/lib/postgresql/*/bin'))
    return next((folder for folder in reversed(folders) if Path(folder, 'initdb').exists()), None)


class Server:
    """A private PostgreSQL cluster on a loopback port; as root it runs as the user postgres, since it refuses root."""

    def __init__(self, binaries):
        self.binaries, self.folder = binaries, Path(tempfile.mkdtemp(prefix='ase-diffusion-pg-', dir='/tmp'))
        self.become = ['runuser', '-u', 'postgres', '--'] if os.geteuid() == 0 else []
        if self.become:
            shutil.chown(self.folder, 'postgres')
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self.call('initdb', '-D', self.folder / 'data', '-U', 'tester', '--auth=trust', '-E', 'UTF8', '--no-sync')
        self.start()

    @property
    def url(self):
        return f'postgresql://tester:secret@127.0.0.1:{self.port}/postgres'

    def call(self, name, *args):
        command = [*self.become, str(Path(self.binaries, name)), *map(str, args)]
        done = subprocess.run(command, cwd='/tmp', capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        options = f'-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off'
        self.call('pg_ctl', '-D', self.folder / 'data', '-l', self.folder / 'log', '-w', '-o', options, 'start')

    def stop(self):
        self.call('pg_ctl', '-D', self.folder / 'data', '-m', 'immediate', '-w', 'stop')


@pytest.fixture(scope='module')
def server():
    pytest.importorskip('ase_db_backends', reason='ase-db-backends is not installed')
    binaries = find_postgres()
    if binaries is None:
        pytest.skip('no PostgreSQL server on this machine: apt-get install postgresql')
    if os.geteuid() == 0 and (shutil.which('runuser') is None or 'postgres' not in [user.pw_name for user in pwd.getpwall()]):
        pytest.skip('PostgreSQL refuses to run as root, and there is no runuser or no user postgres')
    server = Server(binaries)
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def test_a_campaign_in_postgresql(server, tmp_path, monkeypatch):
    """Resume, refusal, one writer, and a server that goes down while structures are relaxed."""
    monkeypatch.chdir(tmp_path)

    def search(n, source=generate, **options):
        options = {'workers': 0, 'block': 4, 'steps': 3, 'logfile': None, 'patience': 0.0, **options}
        return Campaign(server.url, source, 'emt', first_of_kind=Distinct().add, **options).run(n)

    search(3)
    first = {number: row.unique_id for number, row in rows(server.url).items()}
    assert sorted(first) == [0, 1, 2]
    images = search(6)
    kept = rows(server.url)
    assert sorted(kept) == list(range(6)) and first.items() <= {k: row.unique_id for k, row in kept.items()}.items()
    assert len(images) == len({row.duplicate_of for row in kept.values()})
    assert all(row.energy < row.energy_generated and row.toatoms().constraints for row in kept.values())
    with pytest.raises(ValueError, match='fmax 0.05, now 0.1') as error:
        search(6, fmax=0.1)
    assert 'secret' not in str(error.value)
    other = Campaign(server.url, generate, 'emt', block=4, steps=3, workers=0, logfile=None)
    with other.store, pytest.raises(StoreError, match='another one'):
        search(6)

    def restart(block, count):
        server.stop()
        server.start()
        return generate(block, count)

    search(7, restart, patience=60.0)  # the connection with the lock is gone; it is taken anew
    assert sorted(rows(server.url)) == list(range(7))

    def go_down(block, count):
        server.stop()
        return generate(block, count)

    with pytest.raises(StoreError, match='nothing is lost: 1 structures are in .*rescued') as error:
        search(8, go_down)
    assert 'secret' not in str(error.value)
    with pytest.raises(StoreError, match='must be a database that can be written'):
        search(8)
    server.start()
    calls = []
    search(8, lambda block, count: calls.append((block, count)) or generate(block, count))
    assert sorted(rows(server.url)) == list(range(8)) and calls == [], 'the last one was rescued'
    assert not list(tmp_path.iterdir())
