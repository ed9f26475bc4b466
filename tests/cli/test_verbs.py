"""The verbs, in small."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.db import connect
from ase.io import read, write

from ase_diffusion import list_models
from ase_diffusion.cli.data import parse_stoich
from ase_diffusion.cli.surface_options import read_frames_of
from ase_diffusion.data import read_frames
from ase_diffusion.data.zeolites import read_zeolites
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.surface.generator import SurfaceDiffusion
from ase_diffusion.weights.zoo import load_model

SAMPLE = 'sample surface slab.traj --stoich Ag3O -n 2 --steps 8 --seed 1'


def test_models(call):
    status, out, _ = call('models')
    assert status == 0
    assert all(model['name'] in out for model in list_models())


def test_info_of_a_model(call):
    status, out, _ = call('info ag-o-overlayer')
    assert status == 0
    assert 'OverlayerDenoiser' in out and 'O Ag' in out


def test_info_of_structures(call, starts_file):
    status, out, _ = call(f'info {starts_file}')
    assert status == 0
    assert '3 x Ag3O on Ag18' in out and '-2.0000 to -0.0000' in out and '18, 4' in out


def test_info_of_files_without_an_ending(call, slab, tmp_path):
    write(tmp_path / 'CONTCAR', slab, format='vasp')
    status, out, err = call('info CONTCAR')
    assert status == 0 and 'Ag18' in out, err


def test_sample(call, slab, slab_file):
    status, out, _ = call(f'{SAMPLE} -o out.traj')
    assert status == 0 and '2 of 2 structures in out.traj' in out
    images = read('out.traj', ':')
    for atoms in images:
        assert atoms.get_chemical_formula() == 'Ag21O'
        assert np.array_equal(atoms.positions[: len(slab)], slab.positions)
    call(f'{SAMPLE} -o again.db --batch-size 1 --log log.txt')
    again = read('again.db', ':')
    assert np.allclose(again[1].positions, images[1].positions, atol=1e-4)
    assert connect('again.db').get(id=1).stoich == 'Ag3O'


def test_sample_with_all_options(call, slab_file):
    status, _, _ = call(
        f'{SAMPLE} -n 1 -o out.extxyz --model ag-o-overlayer --sampler ddim --energy none '
        '--guidance-scale 1 --height 0.5 4.5 --relax emt --relax-steps 3 --force-guidance --best-of 2 '
        '--device cpu --denoising-trajectory way.traj'
    )
    assert status == 0
    assert np.isfinite(read('out.extxyz').get_potential_energy())
    assert len(read('way.traj', ':')) > 2


@pytest.mark.parametrize('error', [KeyboardInterrupt(), GenerationFailed('no more', {'too close': 9})])
def test_sample_keeps_what_was_accepted(call, slab_file, starts, monkeypatch, error):
    def irun(self, n, **conditions):
        yield from starts[:2]
        raise error

    monkeypatch.setattr(SurfaceDiffusion, 'irun', irun)
    for name in ('out.traj', 'out.extxyz', 'out.db'):
        status, out, _ = call(f'{SAMPLE} -n 5 -o {name}')
        assert status == (130 if isinstance(error, KeyboardInterrupt) else 2)
        assert f'2 of 5 structures in {name}' in out
        assert len(read(name, ':')) == 2


def test_ctrl_c(slab_file, tmp_path, environment):
    line = f'{SAMPLE} -n 100000 --batch-size 1 --no-compile'
    command = [sys.executable, '-m', 'ase_diffusion.cli.main', *line.split()]
    # a shell's background jobs, and what they start, ignore SIGINT; a user's terminal does not
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=heed)
    lines = iter(process.stdout.readline, '')
    assert any(line.split()[:1] == ['2'] for line in lines)  # two are accepted
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert f'{len(read(tmp_path / "overlayers.traj", ":"))} of 100000 structures in overlayers.traj' in rest


@pytest.mark.parametrize(
    ('line', 'word'),
    [
        ('sample surface nowhere.traj --stoich Ag3O', 'nowhere.traj'),
        ('sample surface slab.traj --stoich Foo', 'Foo'),
        ('sample surface slab.traj --stoich AgCl', 'Cl'),
        ('sample surface slab.traj --stoich Ag3O -n 0', 'n is an integer'),
        ('sample surface slab.traj --stoich Ag3O --best-of 0', 'best_of is an integer'),
        ('sample surface slab.traj --stoich Ag3O --steps 1', 'steps'),
        ('sample surface slab.traj --stoich Ag3O --sampler fast', 'sampler'),
        ('sample surface slab.traj --stoich Ag3O --height 4 1', 'height'),
        ('sample surface slab.traj --stoich Ag3O --model nothing', 'nothing'),
        ('sample surface slab.traj --stoich Ag3O --model slab.traj', 'slab.traj'),
        ('sample surface slab.traj --stoich Ag3O -o out.tra', 'out.tra'),
        ('sample surface slab.traj --stoich Ag3O --relax magic', 'magic'),
        ('sample surface free.traj --stoich Ag3O', 'FixAtoms'),
        ('relax slab.traj --calculator magic', 'magic'),
        ('relax slab.traj --calculator emt --fmax -1', 'fmax'),
        ('relax free.traj --calculator ag-o', 'FixAtoms'),
        ('info nothing', 'nothing'),
        ('info nothing.traj', 'nothing.traj'),
        ('plot nothing.traj', 'nothing.traj'),
        ('plot slab.traj -n 0', '-n'),
        ('plot slab.traj slab.traj free.traj', 'one file'),
        ('plot slab.traj --kind ladder', 'energy'),
        ('train surface nothing.npz --out model', 'nothing.npz'),
        ('train surface slab.traj --out model', 'mobile'),
        ('data rss slab.traj --stoich Ag:a-6', 'Ag:a-6'),
        ('data zeolites grown.npz', 'minutes='),
        ('data zeolites grown.db -n 2', 'grown.db'),
        ('data zeolites nodir/grown.npz -n 2', 'nodir'),
        ('data rss slab.traj --stoich Ag3O --calculator emt -n 0', 'n is'),
        ('data rss slab.traj --stoich Ag3O --calculator emt --db rss.traj', 'rss.traj'),
        ('data convert nothing.db out.npz', 'nothing.db'),
        ('data convert slab.traj out.traj --every 2', '--every'),
        ('data convert slab.traj out.tra', 'out.tra'),
        ('demo -n 0', 'n is an integer'),
        ('sample surface slab.traj --stoich Ag3O -o out.vasp', 'one structure'),
        ('relax copper.traj -o out.npz --calculator emt', 'not crystals'),
        ('relax coppers.traj -o POSCAR --calculator emt', 'one structure'),
        ('data convert coppers.traj out.vasp', 'one structure'),
        ('data rss slab.traj --stoich Ag3O --calculator emt --db nodir/r.db', 'nodir, which does not exist: mkdir -p'),
        ('data rss slab.traj --stoich U --calculator emt --db r.db -n 2', 'emt does not know U'),
        ('plot slab.traj -o out.xyz', 'out.xyz'),
    ],
)
def test_wrong_input_is_one_line(call, slab, slab_file, line, word):
    slab.set_constraint()
    call('models')  # now in the temporary folder
    write('free.traj', slab)
    write('copper.traj', bulk('Cu'))
    write('coppers.traj', [bulk('Cu')] * 2)
    status, _, err = call(line)
    assert status == 2, err
    assert word in err and err.count('\n') == 1 and err.startswith('ase-diffusion: ')


@pytest.mark.parametrize('line', ['sample surface slab.traj --stoich Ag3O --relax', 'demo --calculator'])
@pytest.mark.parametrize(('name', 'word'), [('nope', 'nope'), ('chgnet', 'pip install chgnet')])
def test_calculators_are_looked_for_before_anything_is_sampled(call, slab_file, monkeypatch, hide, line, name, word):
    monkeypatch.setattr(SurfaceDiffusion, 'irun', lambda *args, **kwargs: pytest.fail('sampled'))
    hide('chgnet')
    status, _, err = call(f'{line} {name}')
    assert status == 2 and word in err and err.count('\n') == 1


@pytest.mark.parametrize('options', ['', '--optimizer FIRE', '--calculator emt'])
def test_relax(call, starts_file, options):
    status, out, _ = call(f'relax {starts_file} -o relaxed.traj --steps 3 {options}')
    assert status == 0 and '3 of 3 structures in relaxed.traj' in out
    before, after = read(starts_file, ':'), read('relaxed.traj', ':')
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one.positions[:18], other.positions[:18])
        pairs = other.info['key_value_pairs']
        assert pairs['relax_steps'] == 3 and other.get_potential_energy() < pairs['energy_generated']
        assert pairs['relax_calculator'] == ('emt' if 'emt' in options else 'ag-o')


def test_relax_leaves_out_what_fails(call, starts, starts_file):
    starts[1].positions[-1] = np.nan
    call('models')
    write(starts_file, starts)
    status, out, _ = call(f'relax {starts_file} -o relaxed.traj --steps 1 --calculator emt')
    assert status == 0 and '2 of 3 structures' in out and '1 failed' in out
    assert len(read('relaxed.traj', ':')) == 2


@pytest.mark.parametrize('kind', ['structures', 'ladder', 'histogram', 'denoising'])
def test_plot(call, starts_file, kind, tmp_path):
    status, out, _ = call(f'plot {starts_file} -o picture.png --kind {kind} -n 2')
    assert status == 0 and 'picture.png' in out
    assert (tmp_path / 'picture.png').read_bytes().startswith(b'\x89PNG')


def test_frameworks_are_grown_and_read(call, tmp_path):
    status, out, _ = call('data zeolites grown.npz -n 2 --seed 1 --sizes 8 40')
    assert status == 0 and '2 found' in out and 'next: ase-diffusion train zeolite grown.npz' in out
    assert call('data zeolites grown.npz -n 3')[0] == 0
    status, _, err = call('data zeolites grown.npz -n 0')
    assert status == 2 and 'n is an integer, 1 or more; got 0' in err
    assert len(read_zeolites('grown.npz')) == 3


def test_search_convert_and_train(call, slab_file, tmp_path):
    rss = 'data rss slab.traj --stoich Ag:2-3,O:1 --calculator emt --db rss.db --steps 6 --seed 3'
    status, out, _ = call(f'{rss} -n 3')
    assert status == 0 and 'next: ase-diffusion data convert rss.db' in out
    status, out, _ = call(f'{rss} -n 4')
    assert status == 0 and '4 runs, 3 of them done' in out
    assert call('data convert rss.db frames.npz --every 2')[0] == 0
    assert call('data convert rss.db frames.extxyz')[0] == 0
    assert len(read_frames('frames.extxyz')) == 4 * 7 > len(read_frames('frames.npz')) >= 8
    pytest.importorskip('lightning')
    tiny = '--steps 3 --features 8 --blocks 1 --batch-size 2 --cutoff 4 --every 3 --accelerator cpu --quiet'
    status, out, _ = call(f'train surface frames.npz --out model {tiny} --repeat 0')
    assert status == 0 and 'best model: model/best.safetensors' in out and '4 relaxations' in out
    assert 'substrate_elements' in call('info model/best.safetensors')[1]
    again = f'train surface frames.npz --out more {tiny} --init'
    assert call(f'{again} model/best.safetensors --lr 0')[0] == 0  # nothing is learnt, so the weights stay
    (first, _), (second, _) = (load_model(f'{name}/best.safetensors') for name in ('model', 'more'))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    status, _, err = call(f'{again} ag-o-forcefield')
    assert status == 2 and 'kind surface' in err
    assert call(f'train forcefield frames.npz --out field {tiny} --max-force 1000')[0] == 0
    assert call('relax frames.extxyz -o relaxed.traj --steps 1 --calculator field/best.safetensors')[0] == 0
    status, _, err = call('sample surface slab.traj --stoich Ag2O --model field/best.safetensors')
    assert status == 2 and 'forcefield' in err


def test_relaxations_of_several_files_stay_apart(starts, tmp_path):
    for name in ('a.traj', 'b.traj'):
        for run, atoms in enumerate(starts):
            atoms.info['key_value_pairs'] = {'run': run}
        write(tmp_path / name, starts)
    images = read_frames_of([tmp_path / 'a.traj', tmp_path / 'b.traj'])
    assert [atoms.info['key_value_pairs']['run'] for atoms in images] == [0, 1, 2, 3, 4, 5]


def test_parse_stoich():
    assert parse_stoich(['Ag6O3']) == 'Ag6O3'
    assert parse_stoich(['Ag6O3', 'Ag4O2']) == ['Ag6O3', 'Ag4O2']
    assert parse_stoich(['Ag:4-6,O:2']) == {'Ag': (4, 6), 'O': (2, 2)}
