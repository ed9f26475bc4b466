"""The frame of the command line: help, errors, exit status."""

import json
import subprocess
import sys

import pytest

from ase_diffusion.cli import main as module
from ase_diffusion.cli import models
from ase_diffusion.cli.main import main, make_parser
from ase_diffusion.errors import CheckpointError, GenerationFailed, MissingDependency

LINES = [
    '',
    'demo',
    'models',
    'info',
    'sample',
    'sample surface',
    'relax',
    'search',
    'train',
    'train surface',
    'train forcefield',
    'data',
    'data rss',
    'data convert',
    'data zeolites',
    'plot',
    'grid',
]


@pytest.mark.parametrize('line', LINES)
def test_help(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*line.split(), '--help'])
    assert stop.value.code == 0
    assert f'usage: ase-diffusion {line}'.strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ('line', 'above'), [('sample surface', 'fixed'), ('search', 'fixed'), ('train surface', 'fixed'), ('data rss', 'slab')]
)
def test_help_says_where_heights_begin(line, above, capsys):
    with pytest.raises(SystemExit):
        main([*line.split(), '--help'])
    assert f'above the topmost {above} atom' in ' '.join(capsys.readouterr().out.split())


def test_help_imports_nothing_slow(environment):
    code = (
        'import sys, json\nfrom ase_diffusion.cli.main import main\ntry: main(["--help"])\n'
        'except SystemExit: print("\\n" + json.dumps(list(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    roots = {name.split('.')[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert 'ase_diffusion' in roots
    assert not roots & {'torch', 'numpy', 'ase', 'scipy', 'matplotlib', 'lightning', 'pymatgen'}


def test_python_m_is_the_same(environment):
    done = subprocess.run(
        [sys.executable, '-m', 'ase_diffusion', 'models', '--nonsense'],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and 'unrecognized arguments: --nonsense' in done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith('ase-diffusion ')


@pytest.mark.parametrize(
    'line',
    ['', 'fly', 'sample', 'sample liquid', 'demo --color', 'demo -n many', 'sample surface s.traj --stoich Ag --energy low'],
)
def test_a_line_that_is_none(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert 'ase-diffusion' in capsys.readouterr().err


ERRORS = [
    ValueError('the law,\n what came'),
    FileNotFoundError('no file'),
    CheckpointError('damaged'),
    MissingDependency('sevenn', '7net'),
    GenerationFailed('none passed', {'too close': 3}),
    TypeError('unknown conditions'),
]


@pytest.mark.parametrize('error', ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_user_did_wrong_is_one_line(error, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr(models, 'run', fail)
    assert main(['models']) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.count('\n') == 1
    assert err == f'ase-diffusion: {" ".join(str(error).split())}\n'
    for line in (['models', '--traceback'], ['--traceback', 'models']):
        with pytest.raises(type(error)):
            main(line)


def test_our_own_mistakes_are_not_hidden(monkeypatch):
    monkeypatch.setattr(models, 'run', lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(['models'])


def test_interrupted(capsys, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, 'run', interrupt)
    assert main(['models']) == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_every_verb_has_a_file_and_a_line_of_help():
    text = make_parser().format_help()
    for verb in module.VERBS:
        assert verb.__name__.rpartition('.')[2] in text and verb.HELP in text
