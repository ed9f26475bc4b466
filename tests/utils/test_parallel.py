"""Several processes give what one gives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ase_diffusion
from ase_diffusion.utils.parallel import ProcessDied, Workers, count_processes, parallel_map


def square(x):
    return x * x


def own_process(x):
    return os.getpid()


def fail(x):
    raise KeyError(x)


@pytest.mark.parametrize('processes', [1, 2, 3])
def test_the_order_is_kept(processes):
    assert parallel_map(square, range(50), processes=processes) == [x * x for x in range(50)]


def test_work_is_done_elsewhere_unless_there_is_little_or_one_process():
    assert os.getpid() not in parallel_map(own_process, range(40), processes=2)
    assert set(parallel_map(own_process, range(40), processes=1)) == {os.getpid()}
    assert set(parallel_map(own_process, range(3), processes=2)) == {os.getpid()}


@pytest.mark.parametrize('processes', [1, 2])
def test_errors_come_out(processes):
    with pytest.raises(KeyError):
        parallel_map(fail, range(20), processes=processes)


def test_a_bar_is_on_stderr(capsys):
    assert parallel_map(square, range(20), processes=2, progress=True, label='squares') == parallel_map(square, range(20))
    out, err = capsys.readouterr()
    assert 'squares' in err and not out


@pytest.mark.parametrize(('processes', 'error'), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ('two', TypeError)])
def test_numbers_of_processes_that_are_none(processes, error):
    with pytest.raises(error, match='processes'):
        count_processes(processes)


def test_all_cores_by_default():
    assert count_processes() >= 1


def kill_some(x):
    """Die at 7 always."""
    if x == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def once(task):
    """Die at the first try of an item only."""
    path, x = task
    if x == 3 and not os.path.exists(path):
        open(path, 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_process_that_dies_loses_its_item_only(method):
    with Workers(2, method) as workers:
        found = dict(workers.run(kill_some, range(16), lost='died'))
        assert found == {k: 'died' if k == 7 else k for k in range(16)}
        assert dict(workers.run(square, range(16))) == {k: k * k for k in range(16)}


def test_an_item_that_killed_its_process_once_is_tried_again(tmp_path):
    tasks = [(str(tmp_path / 'died'), k) for k in range(16)]
    assert parallel_map(once, tasks, processes=2) == list(range(16))


def test_a_lost_item_is_an_error_unless_it_has_a_value():
    assert parallel_map(kill_some, range(16), processes=2, lost=None).count(None) == 1
    with pytest.raises(ProcessDied, match='item 7'):
        parallel_map(kill_some, range(16), processes=2)


def test_files_of_the_working_folder_hide_no_module(tmp_path):
    for name in ('random', 'numpy', 'queue', 'socket'):
        (tmp_path / f'{name}.py').write_text("raise RuntimeError('a file of the user')\n")
    (tmp_path / 'bin').mkdir()
    script = tmp_path / 'bin' / 'script.py'  # without a guard: it is not run again in the children
    script.write_text(
        'from ase_diffusion.utils.parallel import Workers, count_processes\n'
        "with Workers(2, 'spawn') as workers:\n"
        '    print(sorted(workers.run(count_processes, [1] * 8)))\n'
    )
    root = Path(ase_diffusion.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == str([(k, 1) for k in range(8)]), done.stderr[-500:]
