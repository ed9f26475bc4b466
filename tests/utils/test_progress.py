"""Progress bars: on terminals and notebooks only, above them the lines of the log; with the time left."""

import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from ase_diffusion.utils import progress
from ase_diffusion.utils.log import Log
from ase_diffusion.utils.progress import Progress, Steps, somebody_watches


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nobody_watches_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    monkeypatch.delitem(sys.modules, 'IPython', raising=False)
    assert not somebody_watches()
    with Progress(3, 'relaxed') as bar:
        bar.add()
    assert sys.stderr.getvalue() == ''


def test_a_terminal_and_a_notebook(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    shell = SimpleNamespace(config={'IPKernelApp': {}})
    monkeypatch.setitem(sys.modules, 'IPython', SimpleNamespace(get_ipython=lambda: shell))
    assert somebody_watches()
    shell.config = {'TerminalIPythonApp': {}}
    assert not somebody_watches()
    monkeypatch.setattr(sys, 'stderr', Terminal())
    assert somebody_watches()


def test_the_bar_counts_and_tells_the_time_left(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    monkeypatch.setattr(sys, 'stdout', Terminal())
    monkeypatch.setattr(progress, 'DELAY', 0.0)
    with Progress(4, 'relaxed', done=1) as bar, Log('-') as log:
        time.sleep(0.15)
        bar.add()
        log.write('a line')
    shown = sys.stderr.getvalue()
    assert re.search(r'relaxed:  50%.* 2/4 \[00:00<00:00', shown)
    assert sys.stdout.getvalue() == '\r          \ra line\n' or sys.stdout.getvalue().endswith('a line\n')


def test_work_that_ends_soon_shows_nothing(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    with Progress(3, 'relaxed') as bar:
        bar.add(3)
    assert sys.stderr.getvalue().strip() == ''


def test_steps_call_the_other_callback():
    came = []
    with Steps(2, lambda *args: came.append(args)) as steps:
        steps(0, 1.0)
    Steps(2)(0, 1.0)
    assert came == [(0, 1.0)]


LINES = {
    'sample': 'sample surface slab.traj --stoich Ag6O3 -n 40 --steps 400 --no-compile',
    'relax': 'relax many.traj --calculator emt --fmax 0.0001',
    'data': 'data rss slab.traj --stoich Ag6O3 --calculator emt -n 200 --fmax 0.001',
    'search': 'search slab.traj --stoich Ag3O --calculator emt -n 200 --workers 0 --denoising-steps 10',
}


@pytest.mark.slow  # four processes, each until its first bar
@pytest.mark.parametrize('verb', LINES)
def test_bars_of_the_command_line(verb, ag_slab, environment, tmp_path):
    """On a terminal there is a bar; stdout, a file here, holds lines only. Ctrl-C ends it with status 130 and keeps the files."""
    pty = pytest.importorskip('pty')
    from ase.io import write

    from ase_diffusion.search import random_start

    write(tmp_path / 'slab.traj', ag_slab)
    write(tmp_path / 'many.traj', [random_start(ag_slab, 'Ag3O', seed) for seed in range(40)])
    ours, theirs = pty.openpty()
    command = [sys.executable, '-m', 'ase_diffusion', *LINES[verb].split()]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with open(tmp_path / 'out', 'wb') as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=theirs, preexec_fn=heed)
    os.close(theirs)
    shown, wanted = b'', re.compile(rb'(denoising|accepted|relaxed): .*\d+/\d+ \[\d\d:\d\d<\d\d:\d\d')
    for part in parts(ours, 100):
        shown += part
        if wanted.search(shown):
            process.send_signal(signal.SIGINT)
            break
    for part in parts(ours, 60):
        shown += part
    os.close(ours)
    process.send_signal(signal.SIGINT)
    try:
        status = process.wait(timeout=20)
    finally:
        process.kill()
    assert wanted.search(shown), shown[-500:]
    assert status == 130, shown[-500:]
    assert b'\r' not in (tmp_path / 'out').read_bytes()


def parts(terminal, seconds):
    """Yield what a process writes on a terminal until it ends, or for so many seconds."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], min(left, 1.0))[0]:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                return
            if not part:
                return
            yield part
