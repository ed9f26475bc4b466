"""README.md and the pages of docs/ are executed: the Python blocks of a page as one program, then its commands.

Two comments before a block change that. ``<!-- no-test: REASON -->``: the block is not run (a GPU, GPAW or VASP, a download).
``<!-- from: PATH -->``: the block is a verbatim part of a file of the repository, which has tests of its own. Blocks of the
language ``text`` are output: what a page shows must have been printed, seeds and other numbers aside.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
BLOCK = re.compile(
    r'^(?:<!-- (?P<mark>no-test|from): (?P<why>[^\n]+?) -->\n)?```(?P<language>bash|python|text)\n(?P<code>.*?)^```', re.M | re.S
)
COMMAND = 'ase-diffusion'
TIMEOUT = 900  # s
CALL = """\
import shlex, sys
from ase_diffusion.cli.main import main
for line in LINES:
    print('$', line, flush=True)
    if status := main(shlex.split(line, comments=True)[1:]):
        sys.exit(f'{line}: exit status {status}')
"""


def blocks(text, language, mark=None):
    """Return the code of the blocks in a language that have no mark, or this one."""
    return [m['code'] for m in BLOCK.finditer(text) if m['language'] == language and m['mark'] == mark]


def commands(text):
    """Return the lines that call the command line of the package; a line that ends in a backslash goes on."""
    lines = '\n'.join(blocks(text, 'bash')).replace('\\\n', ' ').splitlines()
    lines = [line.strip().removeprefix('$ ') for line in lines]
    return [line for line in lines if line.split()[:1] == [COMMAND]]


def masked(text):
    """Return output without what differs from run to run: seeds, numbers, times and white space."""
    text = re.sub(r'\bs[0-9a-f]{6,}\b', '#', text)
    return ' '.join(re.sub(r'-?\d+(?:[.:]\d+)*(?:e[+-]?\d+)?', '#', text).split())


def missing(shown, printed):
    """Return the parts of blocks of output that were not printed; a line of three dots stands for whatever."""
    parts = [part for block in shown for part in re.split(r'^\.\.\.$', block, flags=re.M)]
    return [part for part in parts if masked(part) not in masked(printed)]


def program(text):
    """Return the program of a page: its Python blocks, then its command lines, in one process, which saves imports."""
    return '\n'.join([*blocks(text, 'python'), f'LINES = {commands(text)!r}', CALL])


def run(script, environment):
    """Run a script in its folder and return what it printed; a failure shows all that it said."""
    command = [sys.executable, script.name]
    environment = {**environment, 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr}'
    return done.stdout


def test_the_blocks_are_found():
    text = textwrap.dedent("""\
        ```python
        a = 1
        ```
        <!-- no-test: needs a GPU -->
        ```python
        b = 2
        ```
        <!-- from: setup.cfg -->
        ```python
        c = 3
        ```
        ```bash
        $ ase-diffusion sample \\
            slab.traj   # a comment
        pip install .
        ase-diffusion-x
        ```
        """)
    assert blocks(text, 'python') == ['a = 1\n']
    assert blocks(text, 'python', 'no-test') == ['b = 2\n'] and blocks(text, 'python', 'from') == ['c = 3\n']
    assert [' '.join(line.split()) for line in commands(text)] == ['ase-diffusion sample slab.traj # a comment']


def test_output_is_compared_without_numbers():
    printed = 'closest  s41835ef9bc  0.938 -1e-3\n  2 of 3   00:41:12\nthe end'
    assert missing(['closest s0000000 1.0 5\n...\nthe end\n'], printed) == []
    assert missing(['closest s0000000 one\n'], printed) == ['closest s0000000 one\n']


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page(page, tmp_path, environment):
    text = page.read_text(encoding='utf-8')
    assert len(BLOCK.findall(text)) == len(re.findall(r'^```(?:bash|python|text)$', text, re.M)), 'a block is not closed'
    assert '<!-- no-test -->' not in text, 'say why: <!-- no-test: REASON -->'
    if not blocks(text, 'python') and not commands(text):
        pytest.skip('nothing to run')
    script = tmp_path / 'page.py'
    script.write_text(program(text), encoding='utf-8')
    assert not missing(blocks(text, 'text'), run(script, environment))


def test_the_readme_shows_how_to_use_the_package():
    text = PAGES[0].read_text(encoding='utf-8')
    assert blocks(text, 'python') and commands(text)
    assert len(text.encode()) < 10_500, 'details belong into docs/'


def test_the_two_commands_that_ci_runs_are_there():
    text = PAGES[0].read_text(encoding='utf-8')
    assert re.search(r'^python3 -m venv \.venv && .*/ase-diffusion demo$', text, re.M)
    assert re.search(r'^python3 -m venv \.venv-test && .* -m pytest$', text, re.M)
