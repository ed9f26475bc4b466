"""The README is executed: its Python blocks as one program, its ``ase-diffusion`` lines one after the other."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / 'README.md'
BLOCK = re.compile(r'(?P<skip><!-- no-test -->\s*)?^```(?P<language>bash|python)\n(?P<code>.*?)^```', re.M | re.S)
COMMAND = 'ase-diffusion'
TIMEOUT = 900  # s


def blocks(text, language):
    """Return the code of the blocks in a language, but those after the comment that takes them out."""
    return [m['code'] for m in BLOCK.finditer(text) if m['language'] == language and not m['skip']]


def commands(text):
    """Return the lines that call our command line; a line that ends in a backslash goes on."""
    lines = '\n'.join(blocks(text, 'bash')).replace('\\\n', ' ').splitlines()
    lines = [line.strip().removeprefix('$ ') for line in lines]
    return [line for line in lines if line.split()[:1] == [COMMAND]]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One folder for the whole README: a command may read what a block before it wrote."""
    return tmp_path_factory.mktemp('readme')


@pytest.fixture
def path_with_command(tmp_path, environment):
    """Environment in which ``ase-diffusion`` is the one under test, installed or not."""
    script = tmp_path / COMMAND
    script.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c '
        f'\'import sys; from ase_diffusion.cli.main import main; sys.argv[0] = "{COMMAND}"; sys.exit(main())\' "$@"\n'
    )
    script.chmod(0o755)
    return {**environment, 'PATH': f'{tmp_path}:{environment["PATH"]}'}


def run(command, folder, environment):
    """Run a command; a failure shows all that it said."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'


def test_the_blocks_are_found():
    text = textwrap.dedent("""\
        ```python
        a = 1
        ```
        <!-- no-test -->
        ```python
        b = 2
        ```
        ```bash
        $ ase-diffusion sample \\
            slab.traj   # a comment
        pip install .
        ase-diffusion-x
        ```
        """)
    assert blocks(text, 'python') == ['a = 1\n']
    assert [' '.join(line.split()) for line in commands(text)] == ['ase-diffusion sample slab.traj # a comment']


def test_python_blocks(folder, environment):
    code = blocks(README.read_text(encoding='utf-8'), 'python')
    assert code, 'a README shows how to use the package'
    script = folder / 'readme.py'
    script.write_text('\n'.join(code), encoding='utf-8')
    run([sys.executable, script.name], folder, environment)


def test_commands(folder, path_with_command):
    lines = commands(README.read_text(encoding='utf-8'))
    assert lines, 'a README shows how to use the command line'
    for line in lines:
        run(['bash', '-c', line], folder, path_with_command)


def test_the_two_commands_that_ci_runs_are_there():
    text = README.read_text(encoding='utf-8')
    assert re.search(r'^python3 -m venv \.venv && .*/ase-diffusion demo$', text, re.M)
    assert re.search(r'^python3 -m venv \.venv-test && .* -m pytest$', text, re.M)
