"""One crystal is learned by heart: training, sampling, structure prediction and generation hang together."""

import pytest
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from ase_diffusion import CrystalDiffusion

SETTINGS = dict(
    features=48,
    blocks=2,
    batch_size=32,
    lr=2e-3,
    every=300,
    progress=False,
    accelerator='cpu',
    warmup=50,
    ema=0.99,
    settings=dict(heads=2, head_width=24, hidden=96, pair_hidden=48, pair_width=32, frequencies=6),
)


def crystal():
    """Return a monoclinic cell of two elements."""
    return Atoms('CsCl', scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.42]], cell=[4.1, 4.6, 5.2, 90, 97, 90], pbc=True)


@pytest.fixture(scope='module', params=['d3pm', 'edm'])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp('memory') / f'{request.param}.safetensors'
    gen = CrystalDiffusion(model='untrained', logfile=None)
    return gen.fit([crystal()] * 8, steps=900, scheme=request.param, **SETTINGS).save(path)


@pytest.mark.slow
@pytest.mark.parametrize('options', [{'stoich': 'CsCl'}, {}], ids=['predicted', 'free'])
def test_one_crystal_is_remembered(model, options):
    matcher, wanted = StructureMatcher(scale=False), AseAtomsAdaptor.get_structure(crystal())
    images = CrystalDiffusion(model=model, steps=150, sampler='predictor_corrector', rng=1, logfile=None, **options).sample(8)
    found = [matcher.get_rms_dist(wanted, AseAtomsAdaptor.get_structure(atoms)) for atoms in images]
    close = [rms for rms in found if rms is not None and rms[0] * (crystal().cell.volume / 2) ** (1 / 3) < 0.1]
    assert len(close) >= 6  # of 8, RMSD below 0.1 A
