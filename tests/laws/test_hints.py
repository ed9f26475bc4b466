"""Every public function, method and class attribute has type hints, and the marker `py.typed` ships with the package."""

import ast
import configparser
from pathlib import Path

import pytest

import ase_diffusion

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'ase_diffusion'
NOT_YET: tuple[str, ...] = ()
OF_ASE = {'implemented_properties', 'default_parameters'}  # class attributes whose form ASE prescribes


def is_public(name):
    """Tell whether a name is public; special methods are."""
    return not name.startswith('_') or (name.startswith('__') and name.endswith('__'))


def without_hints(body, prefix=''):
    """Yield the public functions, methods and class attributes of a module or class that lack hints."""
    for node in body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            for each in node.body:
                targets = each.targets if isinstance(each, ast.Assign) else []
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                yield from (f'{node.name}.{name}' for name in names if is_public(name) and name not in OF_ASE | {'__slots__'})
            yield from without_hints(node.body, f'{node.name}.')
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_public(node.name):
            a = node.args
            args = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
            bare = [arg.arg for arg in args if arg.annotation is None and arg.arg not in ('self', 'cls')]
            if bare or node.returns is None:
                yield f'{prefix}{node.name}({", ".join(bare)}){"" if node.returns else " ->"}'


def test_the_reader_of_hints_reads_them():
    text = (
        'def f(a: int, b=1, *c, d: str = "") -> None: ...\n'
        'def g(): ...\n'
        'def _h(x): ...\n'
        'class C:\n'
        '    x = 1\n'
        '    y: int = 1\n'
        '    _z = 2\n'
        '    def __init__(self, a): ...\n'
        '    def m(self) -> int: ...\n'
        'class _D:\n'
        '    def n(self, a): ...\n'
    )
    assert list(without_hints(ast.parse(text).body)) == ['f(b, c)', 'g() ->', 'C.x', 'C.__init__(a) ->']


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_public_names_have_hints(path):
    if path.relative_to(PACKAGE).parts[0] in NOT_YET:
        pytest.skip('not yet')
    assert not list(without_hints(ast.parse(path.read_text(encoding='utf-8')).body))


@pytest.mark.parametrize('room', NOT_YET)
def test_rooms_that_are_done_leave_the_list(room):
    found = [each for path in (PACKAGE / room).rglob('*.py') for each in without_hints(ast.parse(path.read_text()).body)]
    assert found, f'all public names of {room}/ have hints: take it off NOT_YET'


def test_type_checkers_find_the_public_names():
    """The names that are imported lazily are there for type checkers, which would take them for objects that nobody can call."""
    tree = ast.parse((PACKAGE / '__init__.py').read_text(encoding='utf-8'))
    lines = [line for block in tree.body if isinstance(block, ast.If) for line in block.body if isinstance(line, ast.ImportFrom)]
    found = {alias.asname: '.'.join(['ase_diffusion', line.module or alias.name]) for line in lines for alias in line.names}
    assert found == ase_diffusion._PUBLIC


def test_the_marker_ships():
    assert (PACKAGE / 'py.typed').is_file()
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    assert 'py.typed' in config['options.package_data']['ase_diffusion'].split()
