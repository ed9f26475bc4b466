import io
import pickle

import pytest

from ase_diffusion.utils import Log


def test_dash_is_stdout(capsys):
    with Log('-') as log:
        log.write('one')
        log.write()
    assert capsys.readouterr().out == 'one\n\n'


def test_none_is_silent(capsys):
    with Log(None) as log:
        log.write('one')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('kind', [str, lambda path: path])
def test_a_path_is_appended_to_and_readable_at_once(tmp_path, kind):
    path = tmp_path / 'run.log'
    path.write_text('before\n')
    with Log(kind(path)) as log:
        log.write('Å 1')
        assert path.read_text(encoding='utf-8') == 'before\nÅ 1\n'
    log.write('after')
    log.close()
    assert path.read_text(encoding='utf-8').splitlines() == ['before', 'Å 1', 'after']


def test_no_line_no_file(tmp_path):
    with Log(tmp_path / 'run.log'):
        pass
    assert not list(tmp_path.iterdir())


def test_a_stream_stays_open():
    stream = io.StringIO()
    with Log(stream) as log:
        log.write('one')
    assert stream.getvalue() == 'one\n'


def test_others_are_refused():
    with pytest.raises(TypeError, match='logfile'):
        Log(3)


def test_a_log_that_is_open_can_be_pickled(tmp_path):
    with Log(tmp_path / 'run.log') as log:
        log.write('one')
        other = pickle.loads(pickle.dumps(log))
        other.write('two')
        other.close()
    assert (tmp_path / 'run.log').read_text() == 'one\ntwo\n'


def test_a_folder_that_is_not_there_is_noticed_before_the_first_line(tmp_path):
    with pytest.raises(FileNotFoundError, match='mkdir -p'):
        Log(tmp_path / 'no' / 'run.log')


def test_a_binary_stream_is_refused_before_the_first_line(tmp_path):
    with open(tmp_path / 'log', 'wb') as file:
        for stream in (io.BytesIO(), file):
            with pytest.raises(TypeError, match='a path or an open stream of text'):
                Log(stream)
