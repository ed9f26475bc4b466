"""The laws of the house that can be read off the source: who imports whom, what an import costs, size, and silence."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ase_diffusion

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'ase_diffusion'
MAX_LINES = 500

# from left to right; a room imports itself, what stands left of its group, and the first group
GROUPS = [
    ('errors', 'utils'),
    ('diffusion', 'networks', 'porous'),
    ('data',),
    ('representations',),
    ('training',),
    ('weights',),
    ('calculators',),
    ('relax',),
    ('generators', 'metrics'),
    ('search',),
    ('plot',),
    ('cli',),
    ('__main__',),
]
PLACE = {room: place for place, group in enumerate(GROUPS) for room in group}
CIRCLES = ()  # rooms with a circle that is still to be opened
SLOW = ('torch', 'schnetpack', 'lightning', 'matplotlib', 'pymatgen', 'scipy', 'numpy', 'ase')


def sources(*folders):
    """Return the Python files below folders of the checkout."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob('*.py'))


def name(path):
    """Return a path as it reads from the root of the checkout."""
    return path.relative_to(ROOT).as_posix()


def room_of(path):
    """Return the room of a file of the package; None is the package's own __init__."""
    room = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    return None if room == '__init__' else room


def imports(tree, package):
    """Yield (line, dotted name) of whatever a module imports, at the top, in functions and by `import_module`.

    `package` is the dotted name of the package the module is in; relative names are resolved against it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')[: 1 - node.level or None] if node.level else []
            base = '.'.join([*parts, *filter(None, [node.module])])
            yield from ((node.lineno, f'{base}.{alias.name}') for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, 'attr', getattr(node.func, 'id', '')) == 'import_module':
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def imports_of(path):
    """Yield (line, dotted name) of whatever a file of the package imports."""
    package = '.'.join(path.relative_to(ROOT).parent.parts)
    return imports(ast.parse(path.read_text(encoding='utf-8')), package)


def rooms_imported(path):
    """Yield (line, room) for what a file imports from the package; a public name counts for the room that has it."""
    for line, target in imports_of(path):
        package, _, inside = target.partition('.')
        if package == 'ase_diffusion' and inside != '__version__':
            target = ase_diffusion._PUBLIC.get(inside, target)
            yield line, target.split('.')[1] if '.' in target else None


def allowed(room, other):
    """Tell whether a room may import from another."""
    return room == other or (other in PLACE and (PLACE[other] == 0 or PLACE[other] < PLACE[room]))


def test_the_reader_of_imports_reads_them():
    text = (
        'import os.path, torch\n'
        'from . import a\n'
        'from .b import c\n'
        'from .. import metrics\n'
        'from ..errors import E\n'
        'from ase_diffusion import plot\n'
        'def f():\n'
        '    from ...x import y\n'
        "    import_module('schnetpack.nn')\n"
    )
    found = dict.fromkeys(target for _, target in imports(ast.parse(text), 'ase_diffusion.relax'))
    assert set(found) == {
        'os.path',
        'torch',
        'ase_diffusion.relax.a',
        'ase_diffusion.relax.b.c',
        'ase_diffusion.metrics',
        'ase_diffusion.errors.E',
        'ase_diffusion.plot',
        'x.y',
        'schnetpack.nn',
    }


@pytest.mark.parametrize(
    ('room', 'other', 'answer'),
    [
        ('plot', 'metrics', True),
        ('plot', 'plot', True),
        ('utils', 'errors', True),
        ('diffusion', 'data', False),
        ('diffusion', 'networks', False),
        ('relax', 'generators', False),
        ('relax', None, False),
        ('relax', 'unknown', False),
    ],
)
def test_the_law_of_the_rooms(room, other, answer):
    assert allowed(room, other) is answer


def test_every_room_has_its_place():
    rooms = {room_of(path) for path in sources('ase_diffusion')} - {None}
    assert rooms <= set(PLACE), f'no place in GROUPS for {sorted(rooms - set(PLACE))}'


@pytest.mark.parametrize('path', sources('ase_diffusion'), ids=name)
def test_a_room_imports_only_from_its_left(path):
    room = room_of(path)
    if room is None:
        pytest.skip('the package itself names every room, and imports them lazily')
    wrong = [f'{name(path)}:{line} {room} -> {other}' for line, other in rooms_imported(path) if not allowed(room, other)]
    assert not wrong, '\n'.join(wrong)


def module_of(target, modules):
    """Return the module that an import of a dotted name runs: the name itself or the module that holds it."""
    while target and target not in modules:
        target = target.rpartition('.')[0]
    return target


def circle(graph):
    """Return a circle of the graph (dict node -> set of nodes) as a list of nodes, empty where there is none."""
    done, way = set(), []

    def walk(node):
        if node in way:
            return way[way.index(node) :]
        if node in done:
            return []
        way.append(node)
        for other in sorted(graph.get(node, ())):
            if found := walk(other):
                return found
        done.add(way.pop())
        return []

    for node in sorted(graph):
        if found := walk(node):
            return found
    return []


def imports_inside(room):
    """Return which modules of a room import which others of it, at the top or in a function."""
    paths = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path for path in room}
    graph = {}
    for module, path in paths.items():
        found = {module_of(target, paths) for _, target in imports_of(path)} - {''}
        graph[module] = found - {module}  # an __init__ that imports from its own modules names itself
    return graph


def test_the_finder_of_circles_finds_them():
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c']
    assert circle({'a': {'b', 'c'}, 'b': {'c'}}) == []
    assert module_of('p.q.f', {'p', 'p.q'}) == 'p.q' and module_of('x.y', {'p'}) == ''


@pytest.mark.parametrize('room', sorted({room_of(path) for path in sources('ase_diffusion')} - {None}))
def test_no_circle_inside_a_room(room, request):
    if room in CIRCLES:
        request.applymarker(pytest.mark.xfail(strict=True, reason='has a circle still'))
    found = circle(imports_inside([path for path in sources('ase_diffusion') if room_of(path) == room]))
    assert not found, ' -> '.join([*found, found[0]])


@pytest.mark.parametrize('path', sources('ase_diffusion'), ids=name)
def test_only_painn_touches_schnetpack(path):
    if path.parent.name == 'networks' and (path.name == 'painn.py' or path.name.startswith('schnetpack_')):
        pytest.skip('the place for it')
    assert not [f'{name(path)}:{line}' for line, target in imports_of(path) if target.split('.')[0] == 'schnetpack']


@pytest.mark.parametrize('path', sources('ase_diffusion'), ids=name)
def test_no_print_outside_the_command_line(path):
    if room_of(path) == 'cli':
        pytest.skip('the command line prints')
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if isinstance(node, ast.Call)]
    assert not [f'{name(path)}:{call.lineno}' for call in calls if getattr(call.func, 'id', None) == 'print']


@pytest.mark.parametrize('path', sources('ase_diffusion', 'tests', 'examples', 'benchmarks', 'scripts'), ids=name)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding='utf-8').splitlines()) <= MAX_LINES


def test_importing_the_package_imports_nothing_slow(environment, tmp_path):
    code = 'import json, sys, ase_diffusion; dir(ase_diffusion); print(json.dumps(sorted(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], env=environment, cwd=tmp_path, capture_output=True, check=True)
    modules = {module.split('.')[0] for module in json.loads(done.stdout)}
    assert 'ase_diffusion' in modules
    assert not modules & set(SLOW)


def test_the_public_names_are_listed_and_others_refused():
    assert set(ase_diffusion.__all__) <= set(dir(ase_diffusion))
    assert 'SurfaceDiffusion' in ase_diffusion.__all__
    with pytest.raises(AttributeError, match='SurfaceDiffusion'):
        ase_diffusion.Surface  # noqa: B018


@pytest.mark.parametrize('public', ase_diffusion._PUBLIC)
def test_a_public_name_leads_somewhere(public):
    assert getattr(ase_diffusion, public) is not None


def test_one_word_for_a_method_everywhere():
    """The word of the command line is the kind of the class, of its shipped checkpoints, and a file or folder of each room."""
    from ase_diffusion.cli.methods import METHODS
    from ase_diffusion.representations import REPRESENTATIONS
    from ase_diffusion.weights.zoo import list_models

    kinds = {kind for cls in REPRESENTATIONS.values() for kind in cls.kinds} - {'forcefield'}
    assert {model['kind'] for model in list_models()} - {'forcefield'} <= set(METHODS) <= kinds
    for word, method in METHODS.items():
        assert method.load().kind == word
        for room in ('generators', 'training'):
            assert (PACKAGE / room / word).is_dir() or (PACKAGE / room / f'{word}.py').is_file(), (room, word)
