"""A campaign that is killed: nothing is lost, doubled or damaged."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.db import connect

SCRIPT = '''
import sys, time
import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase_diffusion.search.campaign import Campaign

class Slow(EMT):
    """EMT that thinks for a while about each structure."""
    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        time.sleep(0.1)
        super().calculate(atoms, properties, system_changes)

def generate(block, count):
    images = []
    for k in range(count):
        atoms = fcc111('Cu', (1, 1, 2), vacuum=6.0)
        x, y = np.random.default_rng((block, k)).uniform(0, 2.5, 2)
        atoms.extend(Atoms('Cu', [[x, y, atoms.positions[1, 2] + 2.1]]))
        images.append(atoms)
    return images

if __name__ == '__main__':
    Campaign('a.db', generate, Slow, steps=3, workers=int(sys.argv[1]), block=4, logfile=None).run(12)
'''


def start(folder, environment, workers):
    """Start the campaign in a process of its own."""
    (folder / 'script.py').write_text(SCRIPT)
    return subprocess.Popen([sys.executable, 'script.py', str(workers)], env=environment, cwd=folder)


def children(pid):
    """Return the processes that a process has started, and theirs."""
    found = []
    for thread in Path(f'/proc/{pid}/task').glob('*/children'):
        for child in thread.read_text().split():
            found += [int(child), *children(child)]
    return found


def wait(condition, process=None, seconds=300):
    """Wait until something is so."""
    for _ in range(10 * seconds):
        if condition():
            return
        assert process is None or process.poll() is None, 'it ended by itself'
        time.sleep(0.1)
    raise AssertionError('it took too long')


def alive(pid):
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='processes are looked up in /proc')
@pytest.mark.parametrize('workers', [0, 2])
def test_kill_minus_nine(tmp_path, environment, workers):
    """Also the processes that worked for it are gone, and the same call goes on."""
    if workers:
        pytest.importorskip('distributed', reason="dask is not installed; pip install '.[search]'")
    path = tmp_path / 'a.db'
    rows = lambda: list(connect(path, use_lock_file=False).select()) if path.exists() else []  # noqa: E731
    process = start(tmp_path, environment, workers)
    try:
        wait(lambda: len(rows()) >= 3, process)
        others = children(process.pid)
        assert len(others) >= workers
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait(lambda: not any(alive(pid) for pid in others))
    check = sqlite3.connect(path)
    assert check.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    check.close()
    before = {row.number: row.unique_id for row in rows()}
    assert 3 <= len(before) == len(rows()) < 12
    assert start(tmp_path, environment, 0).wait(timeout=300) == 0
    assert sorted(row.number for row in rows()) == list(range(12))
    assert before.items() <= {row.number: row.unique_id for row in rows()}.items()
    assert all(np.isfinite(row.energy) and len(row.forces) == 3 for row in rows())
