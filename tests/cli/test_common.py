"""Reading, writing, tables."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian
from ase.db import connect
from ase.io import read, write

from ase_diffusion.cli import sample, search
from ase_diffusion.cli.common import Output, check_picture, given, read_images, read_slab, table
from ase_diffusion.cli.conditions import name_and_text, parse_conditions
from ase_diffusion.cli.methods import METHODS


@pytest.mark.parametrize('name', ['out.traj', 'out.extxyz', 'out.db', 'out.npz', 'out.json', 'out.xyz'])
def test_output_is_read_back(name, starts, tmp_path):
    with Output(tmp_path / name) as out:
        for atoms in starts:
            out.write(atoms)
    images = read_images(tmp_path / name)
    assert len(images) == out.count == 3
    assert np.allclose(images[-1].positions, starts[-1].positions, atol=1e-5)


def test_a_trajectory_grows_as_structures_come(starts, tmp_path):
    out = Output(tmp_path / 'out.traj')
    out.write(starts[0])
    assert len(read(tmp_path / 'out.traj', ':')) == 1
    out.write(starts[1])
    assert len(read(tmp_path / 'out.traj', ':')) == 2
    out.close()


def test_nothing_written_leaves_the_old_file(starts, tmp_path):
    write(tmp_path / 'out.traj', starts)
    with Output(tmp_path / 'out.traj', force=True):
        pass
    assert len(read(tmp_path / 'out.traj', ':')) == 3


def test_a_database_gets_the_columns(starts, tmp_path):
    starts[0].info['key_value_pairs'] = {'seed': 's1', 'steps': 7}
    starts[0].info['data'] = {'diffusion': {'a': 1}}
    with Output(tmp_path / 'out.db') as out:
        out.write(starts[0])
    row = connect(tmp_path / 'out.db').get(seed='s1')
    assert row.steps == 7 and row.data['diffusion'] == {'a': 1}


@pytest.mark.parametrize('name', ['out.traj', 'out.db', 'out.json', 'out.extxyz'])
def test_notes_and_data_are_kept(name, starts, tmp_path):
    for seed, atoms in enumerate(starts):
        atoms.info['key_value_pairs'], atoms.info['data'] = {'seed': f's{seed}'}, {'diffusion': {'a': [1.5]}}
    with Output(tmp_path / name) as out:
        for atoms in starts:
            out.write(atoms)
    for old, new in zip(starts, read_images(tmp_path / name), strict=True):
        assert {key: new.info[key] for key in old.info if key in ('key_value_pairs', 'data')} == {
            key: old.info[key] for key in ('key_value_pairs', 'data')
        }


@pytest.mark.parametrize(('name', 'error'), [('no/where.traj', FileNotFoundError), ('out.tra', ValueError), ('out', ValueError)])
def test_output_that_cannot_be_written_is_an_error_at_once(name, error, tmp_path):
    with pytest.raises(error):
        Output(tmp_path / name)


def test_formats_that_would_lose_structures_are_refused(tmp_path):
    for name in ('out.vasp', 'POSCAR'):
        assert Output(tmp_path / name).expect(1).count == 0
        with pytest.raises(ValueError, match='holds one structure; 2 are to be written; take .traj'):
            Output(tmp_path / name).expect(2)
    for name in ('out.cif', 'out.traj', 'out.db', 'out.extxyz', 'out.json', 'out.npz'):
        Output(tmp_path / name).expect(2)
    with pytest.raises(ValueError, match='not crystals'):
        Output(tmp_path / 'out.npz').expect(1, crystals=True)
    with pytest.raises(IsADirectoryError, match='is a folder'):
        Output(tmp_path)


def test_pictures_that_cannot_be_written(tmp_path):
    check_picture(tmp_path / 'a.PNG')
    for path, error in (
        (tmp_path / 'a.xyz', ValueError),
        (tmp_path / 'a', ValueError),
        (tmp_path, IsADirectoryError),
        (tmp_path / 'no/a.png', FileNotFoundError),
    ):
        with pytest.raises(error):
            check_picture(path)


def test_reading_what_is_not_there_or_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is none'):
        read_images(tmp_path / 'nothing.traj')
    for name in ('bad.traj', 'bad.npz', 'bad.db', 'bad.foo', 'bad.extxyz'):
        (tmp_path / name).write_text('not a structure')
        with pytest.raises(ValueError, match=name):
            read_images(tmp_path / name)


def test_as_slab_holds_all_atoms(slab, tmp_path):
    slab.set_constraint()
    write(tmp_path / 'POSCAR', slab)
    atoms = read_slab(Namespace(slab=tmp_path / 'POSCAR', as_slab=True))
    assert atoms.pbc.tolist() == [True, True, False] and len(atoms.constraints[0].index) == len(slab)
    with pytest.raises(ValueError, match='--as-slab'):
        read_slab(Namespace(slab=tmp_path / 'POSCAR', as_slab=False))


@pytest.mark.parametrize('held', [FixCartesian(range(18)), FixAtoms([])])
def test_other_constraints_do_not_mark_the_substrate(held, slab, tmp_path):
    slab.set_constraint(held)
    write(tmp_path / 'slab.traj', slab)
    with pytest.raises(ValueError, match='has no FixAtoms.*--as-slab'):
        read_slab(Namespace(slab=tmp_path / 'slab.traj', as_slab=False))


HEADER = {
    'conditions': {
        'energy': [0.0, 2.0],
        'gap': {'classes': ['metal', 'semiconductor']},
        'elements': {'elements': [8, 12, 25]},
        'strain': {'low': [-1.0, -1.0], 'high': [1.0, 1.0]},
    }
}


@pytest.mark.parametrize(
    ('words', 'value'),
    [
        (['energy=0.5'], {'energy': 0.5}),
        (['energy=None'], {'energy': None}),
        (['energy=-3:-2.5'], {'energy': [-3.0, -2.5]}),
        (['gap=metal'], {'gap': 'metal'}),
        (['elements=Mg, Mn,O', 'strain=0.1,-0.2'], {'elements': ['Mg', 'Mn', 'O'], 'strain': [0.1, -0.2]}),
        (['unknown=3'], {'unknown': None}),  # refused by the generator, which lists what it knows
    ],
)
def test_conditions_are_read_as_the_model_says(words, value):
    args = Namespace(condition=[name_and_text(word) for word in words], guidance_scale=None)
    assert parse_conditions(Namespace(header=HEADER), args) == value


@pytest.mark.parametrize('text', ['energy', 'energy=', '=3'])
def test_a_condition_has_a_name_and_a_value(text):
    with pytest.raises(ArgumentTypeError, match='NAME=VALUE'):
        name_and_text(text)


@pytest.mark.parametrize(
    'pairs', [[('energy', 'low')], [('energy', '1:')], [('strain', '1,x')], [('energy', '1'), ('energy', '2')]]
)
def test_conditions_without_a_meaning_are_named(pairs):
    with pytest.raises(ValueError, match=f'--condition.*{pairs[0][0]}'):
        parse_conditions(Namespace(header=HEADER), Namespace(condition=pairs, guidance_scale=None))


def test_table():
    assert table(('a', 'bb', 'c'), [('x', 1, 'y'), ('xx', 22, '')]).splitlines() == [
        'a   bb  c',
        '--  --  -',
        'x    1  y',
        'xx  22',
    ]


@pytest.mark.parametrize(('verb', 'words'), [(sample, ['surface']), (search, [])])
@pytest.mark.parametrize(
    ('more', 'options', 'conditions'),
    [
        ('', {'logfile': None}, {}),
        ('--energy none', {'logfile': None}, {'energy': None}),
        ('--energy 0:0.2', {'logfile': None}, {'energy': [0.0, 0.2]}),
        ('--energy -0.1:0.2', {'logfile': None}, {'energy': [-0.1, 0.2]}),
        ('--energy -1e-2', {'logfile': None}, {'energy': -0.01}),
        ('--energy 0.2 --guidance-scale 3', {'logfile': None}, {'energy': 0.2, 'guidance_scale': 3.0}),
        (
            '--model m --sampler heun --height 1 4 --device cpu --force-guidance',
            {'logfile': None, 'model': 'm', 'sampler': 'heun', 'height': [1.0, 4.0], 'device': 'cpu', 'guidance': True},
            {},
        ),
    ],
)
def test_options_of_overlayers_are_those_of_all_verbs(slab_file, tmp_path, monkeypatch, verb, words, more, options, conditions):
    came = []
    made = Namespace(header=HEADER)
    keep = lambda slab, stoich, **kw: came.append((slab, stoich, kw)) or made  # noqa: E731
    monkeypatch.setattr('ase_diffusion.generators.surface.SurfaceDiffusion', keep)
    monkeypatch.chdir(tmp_path)
    parser = ArgumentParser()
    verb.add_arguments(parser, ArgumentParser(add_help=False))
    args = parser.parse_args([*words, slab_file, '--stoich', 'Ag3O', *more.split()])
    generator = METHODS['surface'].make(args, logfile=None, **given(args, 'model', 'sampler', 'device'))
    assert generator is made and parse_conditions(generator, args) == conditions
    [(slab, stoich, keywords)] = came
    assert (len(slab), stoich, keywords) == (18, 'Ag3O', options)
