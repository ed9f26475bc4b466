"""Frames go through files and come back; thinning keeps what it promises."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write

from ase_diffusion.cli.surface_options import read_frames_of
from ase_diffusion.data import frames_to_npz, read_frames, write_frames
from ase_diffusion.data.frames import thin

PUBLISHED = Path('/work/shared/data/ag_o_rss_7net_mf0.npz')


def make_slab(size=(2, 2, 2), a=4.0 + np.pi / 100):
    slab = fcc111('Ag', size, a=a, vacuum=8.0)
    slab.info.clear()  # adsorbate_info
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def make_frame(slab, symbols, rng, **pairs):
    atoms = slab.copy()
    n = len(Atoms(symbols))
    atoms.extend(Atoms(symbols, slab.positions.max(axis=0, initial=1.0) + rng.random((n, 3)), tags=[3] * n))
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=forces)
    atoms.info['key_value_pairs'] = pairs
    return atoms


@pytest.fixture
def images():
    """Seven frames of two relaxations on one slab."""
    rng, slab = np.random.default_rng(0), make_slab()
    rows = [('Ag2O', 0, s, s == 3) for s in range(4)] + [('AgO3', 1, s, s == 2) for s in range(3)]
    return [make_frame(slab, f, rng, run=r, step=s, last=last, converged=last) for f, r, s, last in rows]


def assert_same(before, after):
    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        nslab = len(one.constraints[0].index) if one.constraints else 0
        assert (one.numbers == two.numbers).all()
        assert one.positions[:nslab].tobytes() == two.positions[:nslab].tobytes()
        assert np.array_equal(one.positions[nslab:].astype(np.float32), two.positions[nslab:].astype(np.float32))
        assert one.cell[:].tobytes() == two.cell[:].tobytes()
        assert (one.pbc == two.pbc).all()
        assert (one.get_tags() == two.get_tags()).all()
        assert one.get_potential_energy() == two.get_potential_energy()
        raw = [atoms.get_forces(apply_constraint=False).astype(np.float32) for atoms in (one, two)]
        assert np.array_equal(*raw)
        if nslab:
            assert two.constraints[0].index.tolist() == list(range(nslab))
        else:
            assert not two.constraints
        assert two.info['key_value_pairs'] == one.info['key_value_pairs']


def test_one_slab(images, tmp_path):
    path = tmp_path / 'a.npz'
    write_frames(images, path)
    assert_same(images, read_frames(path))
    with np.load(path) as data:
        assert data['cell'].shape == (3, 3)
        assert data['pbc'].shape == (3,)
        assert data['positions'].dtype == np.float32
        assert data['slab_positions'].dtype == np.float64
        assert 'slab_id' not in data.files


def test_several_slabs(images, tmp_path):
    rng = np.random.default_rng(1)
    pairs = {'run': 2, 'step': 0, 'last': True, 'converged': True}
    strained = make_slab(a=np.nextafter(4.0 + np.pi / 100, 5))  # one bit away
    bare = Atoms(cell=[5, 6, 7], pbc=True)
    more = [make_frame(slab, 'AgO', rng, **pairs) for slab in (make_slab((3, 2, 3)), strained, bare)]
    images = [images[0], more[0], images[5], more[1], more[2], images[1]]
    path = tmp_path / 'a.npz'
    write_frames(images, path)
    assert_same(images, read_frames(path))
    with np.load(path) as data:
        assert data['slab_id'].tolist() == [0, 1, 0, 2, 3, 0]
        assert data['cell'].shape == (4, 3, 3)
        assert data['slab_natoms'].tolist() == [8, 18, 8, 0]


def test_mobile_top_layer_counts_as_overlayer(tmp_path):
    rng, slab = np.random.default_rng(2), make_slab()
    slab.set_constraint(FixAtoms(indices=range(4)))
    images = [make_frame(slab, 'O', rng, run=0, step=s, last=s == 1, converged=False) for s in range(2)]
    images[1].positions[6] += 0.1
    write_frames(images, tmp_path / 'a.npz')
    again = read_frames(tmp_path / 'a.npz')
    assert again[1].positions[6] == pytest.approx(images[1].positions[6], abs=1e-6)
    assert (again[1].get_tags() == images[1].get_tags()).all()
    assert again[1].constraints[0].index.tolist() == [0, 1, 2, 3]


def test_frames_without_labels(images, tmp_path):
    for atoms in images:
        atoms.calc, atoms.info = None, {}
    images[1].calc = SinglePointCalculator(images[1], energy=-1.5)
    write_frames(images, tmp_path / 'a.npz')
    again = read_frames(tmp_path / 'a.npz')
    assert again[0].calc is None
    assert again[1].get_potential_energy() == -1.5
    assert 'forces' not in again[1].calc.results
    assert again[2].info['key_value_pairs'] == {'run': 2, 'step': 0, 'last': True, 'converged': False}


def test_input_is_not_changed_and_results_are_independent(images, tmp_path):
    kept = [atoms.copy() for atoms in images]
    write_frames(images, tmp_path / 'a.npz')
    assert kept == images
    again = read_frames(tmp_path / 'a.npz')
    again[0].positions += 1
    again[0].set_constraint()
    assert again[1].positions[0] == pytest.approx(images[1].positions[0])
    assert again[1].constraints


@pytest.mark.parametrize('suffix', ['.db', '.traj', '.extxyz', '.extxyz.gz'])
def test_what_ase_reads(images, suffix, tmp_path):
    path = tmp_path / f'a{suffix}'
    if suffix == '.db':
        with connect(path) as db:
            for atoms in images[::-1]:  # rows come back by run and step
                db.write(atoms, **atoms.info['key_value_pairs'])
    elif suffix == '.traj':
        write(path, images)
    else:
        plain = tmp_path / 'a.extxyz'
        for atoms in images:
            atoms.info.update(atoms.info.pop('key_value_pairs'))
        write(plain, images)
        if suffix.endswith('.gz'):
            path.write_bytes(gzip.compress(plain.read_bytes()))
        for atoms in images:
            atoms.info['key_value_pairs'] = dict(atoms.info)
    again = read_frames(path)
    assert len(again) == len(images)
    for one, two in zip(images, again, strict=True):
        assert two.positions == pytest.approx(one.positions, abs=1e-7)
        assert two.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-7)
        forces = one.get_forces(apply_constraint=False)
        assert two.get_forces(apply_constraint=False) == pytest.approx(forces, abs=1e-7)
        assert two.info['key_value_pairs'] == one.info['key_value_pairs']


def test_relaxations_with_names_are_read_and_kept_apart(images, tmp_path):
    for atoms in images:
        run = atoms.info.pop('key_value_pairs')['run']
        atoms.info.update(run=f'run-{"ab"[run]}', step='first', last=True)
    write(tmp_path / 'a.extxyz', images)
    again = read_frames(tmp_path / 'a.extxyz')
    assert [atoms.info['run'] for atoms in again] == [atoms.info['run'] for atoms in images]
    write_frames(again, tmp_path / 'a.npz')
    runs = [atoms.info['key_value_pairs']['run'] for atoms in read_frames(tmp_path / 'a.npz')]
    assert len(set(runs[:4])) == len(set(runs[4:])) == 1 and runs[0] != runs[4]
    with connect(tmp_path / 'a.db') as db:
        for atoms, run in zip(images, ['run-a', 0, 'run-b', 1, 1, 1, 1], strict=True):
            db.write(atoms, run=run)
    assert len(read_frames(tmp_path / 'a.db')) == 7
    assert len(read_frames_of([tmp_path / 'a.db', tmp_path / 'a.extxyz'])) == 14


@pytest.mark.skipif(not PUBLISHED.exists(), reason='the published frames are not here')
def test_published_file():
    images = read_frames(PUBLISHED)
    assert len(images) == 8618
    assert sum(atoms.info['key_value_pairs']['last'] for atoms in images) == 473
    with np.load(PUBLISHED) as data:
        slab, natoms = data['slab_positions'], data['natoms']
        forces, energy = data['forces'][: natoms[0] + 16], data['energy']
    first = images[0]
    assert first.positions[:16].tobytes() == slab.tobytes()
    assert first.get_tags()[[0, 15, 16]].tolist() == [2, 1, 3]
    assert np.array_equal(first.get_forces(apply_constraint=False), forces)
    assert np.abs(first.get_forces()[:16]).max() == 0
    assert [atoms.get_potential_energy() for atoms in images[-3:]] == energy[-3:].tolist()
    assert images[-1].get_distances(16, range(17, len(images[-1])), mic=True).min() > 1.0


def test_thinning_is_geometric():
    kept = thin(list(range(200)))
    assert kept == [0, 1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 199]
    assert thin([0]) == [0]
    assert thin([0, 1, 2]) == [0, 1, 2]
    assert thin(list(range(7))) == [0, 1, 2, 3, 5, 6]


def test_thinning_by_a_number_goes_by_steps():
    assert thin(list(range(8)), 3) == [0, 3, 6, 7]
    assert thin(list(range(8)), 1) == list(range(8))
    assert thin([0, 4, 8, 11], 4) == [0, 1, 2, 3]


def test_frames_to_npz(tmp_path):
    rng, slab = np.random.default_rng(3), make_slab()
    db = connect(tmp_path / 'a.db')
    lengths = {1: 7, 0: 1, 5: 30}
    with db:
        for run, length in lengths.items():
            for step in range(length):
                last = step == length - 1
                atoms = make_frame(slab, 'AgO', rng)
                db.write(atoms, run=run, step=step, last=last, converged=last)
        failed = make_frame(slab, 'AgO', rng)
        failed.calc = None
        db.write(failed, run=3, step=0, last=True, converged=False, failed=True)
    n = frames_to_npz(tmp_path / 'a.db', tmp_path / 'a.npz')
    pairs = [atoms.info['key_value_pairs'] for atoms in read_frames(tmp_path / 'a.npz')]
    assert n == len(pairs)
    steps = {run: [p['step'] for p in pairs if p['run'] == run] for run in (0, 1, 3, 5)}
    assert steps == {0: [0], 1: [0, 1, 2, 3, 5, 6], 3: [], 5: [0, 1, 2, 3, 5, 8, 12, 18, 27, 29]}
    assert [p['run'] for p in pairs if p['last']] == [0, 1, 5]
    assert frames_to_npz(db, tmp_path / 'b.npz', every=1) == 38
    assert_same([db.get(run=5, step=29).toatoms(add_additional_information=True)], read_frames(tmp_path / 'b.npz')[-1:])


def test_rows_marked_as_failed_are_left_out(images, tmp_path, caplog):
    with connect(tmp_path / 'a.db') as db:
        for atoms in images:
            db.write(atoms, failed=False, **atoms.info['key_value_pairs'])
        db.write(images[0].copy(), run=9, step=0, last=True, converged=False, failed=True)
    again = read_frames(tmp_path / 'a.db')
    assert len(again) == len(images) and all(atoms.calc for atoms in again)
    assert '1 of 8 rows are marked as failed and skipped' in caplog.text


def test_bad_input(images, tmp_path):
    with pytest.raises(FileNotFoundError, match='none at .*nowhere.npz'):
        read_frames(tmp_path / 'nowhere.npz')
    with pytest.raises(FileNotFoundError, match='none at .*nowhere.db'):
        frames_to_npz(tmp_path / 'nowhere.db', tmp_path / 'a.npz')
    assert not (tmp_path / 'nowhere.db').exists()
    np.savez(tmp_path / 'other.npz', x=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz lacks .*'slab_numbers'"):
        read_frames(tmp_path / 'other.npz')
    with pytest.raises(ValueError, match='at least one frame'):
        write_frames([], tmp_path / 'a.npz')
    with pytest.raises(ValueError, match=r'\.npz file'):
        write_frames(images, tmp_path / 'a.txt')
    connect(tmp_path / 'empty.db').write(Atoms('H'))
    with pytest.raises(ValueError, match='keys run and step'):
        frames_to_npz(tmp_path / 'empty.db', tmp_path / 'a.npz')
    for every in (0, 1.5, 'all', True):
        with pytest.raises(ValueError, match='every is'):
            frames_to_npz(tmp_path / 'empty.db', tmp_path / 'a.npz', every=every)


def test_fixed_atoms_among_mobile_ones_come_first(images, tmp_path, caplog):
    """With their forces, tags and notes; the other frames are as they were."""
    mixed, raw = images[2][[9, *range(9), 10]], np.arange(33.0).reshape(11, 3)
    mixed.calc = SinglePointCalculator(mixed, energy=-3.0, forces=raw)
    write_frames([*images[:2], mixed, *images[3:]], tmp_path / 'a.npz')
    expected = images[2][[*range(8), 9, 8, 10]]
    expected.calc = SinglePointCalculator(expected, energy=-3.0, forces=raw[[*range(1, 9), 0, 9, 10]])
    assert_same([*images[:2], expected, *images[3:]], read_frames(tmp_path / 'a.npz'))
    assert '1 of 7 frames have fixed atoms among mobile ones' in caplog.text


def test_damaged_file(images, tmp_path):
    write_frames(images, tmp_path / 'a.npz')
    with np.load(tmp_path / 'a.npz') as data:
        arrays = dict(data)
    arrays['forces'] = arrays['forces'][:-1]
    np.savez(tmp_path / 'b.npz', **arrays)
    with pytest.raises(ValueError, match='damaged'):
        read_frames(tmp_path / 'b.npz')


def test_marks_of_what_is_held_out_are_kept_where_there_are_any(images, tmp_path):
    write_frames(images, tmp_path / 'a.npz')
    assert all('held' not in atoms.info['key_value_pairs'] for atoms in read_frames(tmp_path / 'a.npz'))
    images[1].info.setdefault('key_value_pairs', {})['held'] = True
    write_frames(images, tmp_path / 'b.npz')
    held = [atoms.info['key_value_pairs']['held'] for atoms in read_frames(tmp_path / 'b.npz')]
    assert held == [k == 1 for k in range(len(images))]
