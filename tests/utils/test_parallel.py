"""Several processes give what one gives."""

import os

import pytest

from ase_diffusion.utils.parallel import count_processes, parallel_map


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
