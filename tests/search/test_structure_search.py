"""A search with a generator: resumable, with the symmetry of the substrate, from Python and from the command line."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.db import connect

from ase_diffusion import CrystalDiffusion, PointCloudDiffusion, SurfaceDiffusion
from ase_diffusion.cli.main import main
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.metrics import Distinct, substrate_symmetries
from ase_diffusion.search import StructureSearch, random_start


@pytest.fixture
def slab():
    """Ag(111) p(2x2), two layers, all fixed."""
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    return slab


@pytest.fixture
def generator(slab):
    return SurfaceDiffusion(slab, 'AgO', steps=8, logfile=None)


def rows(path):
    return {row.number: row for row in connect(path, use_lock_file=False).select()}


def search(generator, path, **options):
    options = {'workers': 0, 'logfile': None, 'steps': 2, 'block': 3, **options}
    return StructureSearch(generator, path, 'ag-o', **options)


def test_a_search_goes_on_with_the_same_structures(generator, slab, tmp_path):
    first = search(generator, tmp_path / 'a.db', rng=3)
    first.run(2)
    search(SurfaceDiffusion(slab, 'AgO', steps=8, logfile=None), tmp_path / 'a.db').run(5)  # takes the seed of the database
    search(generator, tmp_path / 'whole.db', rng=3).run(5)
    halves, whole = rows(tmp_path / 'a.db'), rows(tmp_path / 'whole.db')
    assert sorted(halves) == sorted(whole) == list(range(5))
    assert [halves[k].seed for k in range(5)] == [whole[k].seed for k in range(5)]
    for k in range(5):
        assert halves[k].energy_generated == pytest.approx(whole[k].energy_generated, abs=1e-3)
        assert halves[k].stoich == 'AgO' and halves[k].generator == 'SurfaceDiffusion'
        assert halves[k].data['diffusion']['steps'] == 8
        assert np.array_equal(halves[k].toatoms().positions[:8], slab.positions)
    assert len({row.seed for row in whole.values()}) == 5


def test_what_must_not_change(generator, slab, tmp_path):
    path = tmp_path / 'a.db'
    search(generator, path, rng=3).run(1)
    with pytest.raises(ValueError, match='generator.steps 8, now 9'):
        search(SurfaceDiffusion(slab, 'AgO', steps=9, logfile=None), path).run(1)
    with pytest.raises(ValueError, match='seed 3, now 4'):
        search(generator, path, rng=4).run(1)
    with pytest.raises(ValueError, match='conditions.energy None, now 0.1'):
        search(generator, path, conditions={'energy': 0.1}).run(1)
    other = fcc111('Ag', (2, 2, 2), a=4.17, vacuum=10.0)
    other.set_constraint(FixAtoms(indices=range(8)))
    with pytest.raises(ValueError, match='another slab'):
        search(SurfaceDiffusion(other, 'AgO', steps=8, logfile=None), path).run(1)
    with pytest.raises(TypeError, match='unknown conditions'):
        search(generator, path, conditions={'colour': 1})


def test_a_generator_may_relax_first_and_choose(slab, tmp_path):
    def make(steps):
        relax = {'calculator': 'ag-o', 'steps': steps}
        return SurfaceDiffusion(slab, 'AgO', steps=8, logfile=None, best_of=2, relax=relax)

    path = tmp_path / 'a.db'
    search(make(3), path, rng=3).run(2)
    plain = SurfaceDiffusion(slab, 'AgO', steps=8, logfile=None, rng=np.random.default_rng([3, 0]), relax=make(3).relax)
    reject, plain._reason_to_reject = plain._reason_to_reject, lambda atoms: None
    candidates = [np.inf if reject(atoms) else atoms.get_potential_energy() for atoms in plain.sample(4)]
    for k, row in rows(path).items():
        assert row.best_of == 2 and row.data['diffusion']['best_of'] == 2
        assert row.energy_generated == pytest.approx(min(candidates[2 * k : 2 * k + 2]), abs=1e-3)
    with pytest.raises(ValueError, match='prerelax.steps 3, now 4'):
        search(make(4), path).run(2)
    with pytest.raises(ValueError, match='generator.best_of 2, now None'):
        search(plain, path).run(2)


def test_images_by_all_symmetries_of_the_substrate_are_one_structure(slab):
    """Translations, rotations and mirrors; the atoms in another order, too. A shift that is none of them is another structure."""
    start = random_start(slab, 'Ag2O', 5)
    seen = Distinct()
    assert seen.add('first', start) == 'first'
    operations = substrate_symmetries(start)
    assert len(operations) == 4 * 6, '4 translations, 6 rotations and mirrors of fcc(111) with two layers'
    for number, (rotation, shift) in enumerate(operations):
        image = start.copy()
        moved = start.positions[8:] @ rotation.T + shift
        image.set_positions(np.vstack([start.positions[:8], moved]), apply_constraint=False)
        order = [*range(8), 9, 8, 10]
        image = image[order]
        image.wrap(pbc=[True, True, False])
        assert seen.add(number, image) == 'first'
    shifted = start.copy()
    shifted.positions[8:, :2] += [0.9, 0.3]
    assert seen.add('shifted', shifted) == 'shifted'


def test_symmetric_images_in_a_search(slab, tmp_path):
    """A generator that gives images of one structure by operations of the substrate: one kind in the database."""

    class Images:
        relax = None
        rng = None

        def __init__(self):
            self.start = random_start(slab, 'AgO', 1)
            self.operations = substrate_symmetries(self.start)
            self.template = self.start

        def check_conditions(self, conditions):
            return conditions

        def todict(self):
            return {'type': 'images'}

        def sample(self, n):
            images = []
            for rotation, shift in self.operations[:n]:
                atoms = self.start.copy()
                moved = self.start.positions[8:] @ rotation.T + shift
                atoms.set_positions(np.vstack([self.start.positions[:8], moved]), apply_constraint=False)
                images.append(atoms)
            return images

    images = search(Images(), tmp_path / 'a.db', block=24, steps=0).run(24)
    assert len(images) == 1 and {row.duplicate_of for row in rows(tmp_path / 'a.db').values()} == {0}
    assert sum(row.unique for row in rows(tmp_path / 'a.db').values()) == 1


LINE = 'search slab.traj --stoich AgO --calculator emt --workers 0 --denoising-steps 8 --steps 2 --db s.db'


@pytest.fixture
def call(tmp_path, monkeypatch, capsys, slab):
    """Run a line in a folder with the slab; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    slab.write('slab.traj')

    def run(line):
        status = main(line.split())
        return (status, *capsys.readouterr())

    return run


def test_the_command_line(call, tmp_path):
    status, out, _ = call(f'{LINE} -n 2 --seed 1')
    assert status == 0 and '0 of 2 structures are there' in out and 'ase db s.db unique=1' in out
    status, out, _ = call(f'{LINE} -n 3')
    assert status == 0 and '2 of 3 structures are there' in out and len(rows('s.db')) == 3
    status, out, err = call(f'{LINE} -n 3 --fmax 0.2')
    assert status == 2 and 'fmax 0.05, now 0.2' in err and err.count('\n') == 1
    status, out, err = call(f'{LINE} -n 3 --timeout -1')
    assert status == 2 and 'timeout' in err
    status, out, err = call(f'{LINE} -n 3 --best-of 2 --prerelax ag-o')
    assert status == 2 and 'best_of None, now 2' in err and 'prerelax None, now' in err
    status, out, err = call(f'{LINE.replace("s.db", "t.db")} -n 1 --best-of 2 --prerelax ag-o')
    assert status == 0 and rows('t.db')[0].best_of == 2
    status, out, err = call(f'{LINE} -n 3 --prerelax nonsense')
    assert status == 2 and 'nonsense' in err
    with connect('s.db', use_lock_file=False) as db:
        assert json.loads(json.dumps(db.metadata))['campaign']['calculator'] == 'emt'


def test_ctrl_c(call, tmp_path, environment):
    """What was done is kept, the message says so, and the same line goes on."""
    command = [sys.executable, '-m', 'ase_diffusion.cli.main', *f'{LINE} -n 2000 --seed 1'.split()]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  background jobs of a shell ignore it
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        for _ in range(3000):
            if (tmp_path / 's.db').exists() and len(rows(tmp_path / 's.db')) >= 2:
                break
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130 and 'the same line goes on' in out
    done = len(rows(tmp_path / 's.db'))
    assert 2 <= done < 2000
    status, out, _ = call(f'{LINE} -n {done + 1}')
    assert status == 0 and f'{done} of {done + 1} structures are there' in out and len(rows('s.db')) == done + 1


def test_conditions_may_be_numbers_of_numpy(slab, tmp_path):
    gen = SurfaceDiffusion(slab, 'AgO', steps=8, logfile=None)
    for value in (np.float32(0.25), np.float64(0.25), 0.25):  # the same search
        search = StructureSearch(
            gen, tmp_path / 'a.db', 'ag-o', conditions={'energy': value}, rng=0, steps=0, workers=0, logfile=None
        )
        assert len(search.run(1)) == 1


def test_conditions_are_a_dict(slab, tmp_path):
    with pytest.raises(TypeError, match="conditions is a dict of keywords of generator.sample, .*; got 'energy'"):
        StructureSearch(SurfaceDiffusion(slab, 'AgO', logfile=None), tmp_path / 'a.db', 'ag-o', conditions='energy')


def test_templates_do_not_begin_anew_where_a_search_goes_on(tmp_path):
    """The structure of a number depends on the seed alone: in one go and in two, the same templates and samples."""
    found = []
    for name, numbers in (('a.db', [10]), ('b.db', [3, 6, 10])):
        for n in numbers:
            gen = PointCloudDiffusion(['Cu', 'Au'], templates=6, steps=10, logfile=None)
            StructureSearch(gen, tmp_path / name, 'emt', rng=1, block=4, steps=1, workers=0, logfile=None).run(n)
        found.append([(row.formula, row.get('template'), row.seed) for row in connect(tmp_path / name).select()])
    assert found[0] == found[1] and len({template for _, template, _ in found[0]}) == 7


def test_what_came_before_a_failure_is_kept(tmp_path):
    gen = PointCloudDiffusion(['Xe', 'Au'], templates=5, logfile=None)  # without network
    search = StructureSearch(gen, tmp_path / 'a.db', 'lj', rng=1, block=3, steps=1, workers=0, logfile=None)
    for _ in range(2):
        with pytest.raises(GenerationFailed, match='no template is left'):
            search.run(9)
        assert [row.number for row in connect(tmp_path / 'a.db').select()] == [0, 1, 2, 3, 4]
    assert search.run(5)


@pytest.mark.parametrize('best_of', [1, 2])
def test_each_template_is_offered_once_though_some_are_rejected(best_of, tmp_path):
    options = {'relax': {'calculator': 'emt', 'steps': 1}, 'best_of': best_of} if best_of > 1 else {}
    gen = CrystalDiffusion('Cu3Au', templates=6, steps=10, maxtries=500, logfile=None, **options)
    offered, made = [], gen._label
    gen._label = lambda atoms, seed, conditions, notes: (
        offered.append(notes.get('template')),
        made(atoms, seed, conditions, notes),
    )
    gen._reason_to_reject = lambda atoms: 'no' if atoms.info['key_value_pairs'].get('template') in offered[1:2] else None
    StructureSearch(gen, tmp_path / 'a.db', 'emt', rng=1, block=2, steps=1, workers=0, logfile=None).run(6)
    templates = [template for template in offered if template]
    assert len(templates) == len(set(templates)) == 6
