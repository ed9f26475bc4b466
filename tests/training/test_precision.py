"""Mixed precision: matrix products of the network in bfloat16, geometry, norms, losses and weights in float32."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from ase_diffusion.networks import CrystalTransformer, OverlayerDenoiser
from ase_diffusion.networks.precision import LayerNorm, full_precision
from ase_diffusion.representations import Slab
from ase_diffusion.representations.crystal import Crystal, LogLatticeCrystal
from ase_diffusion.training import CrystalData, Crystals
from ase_diffusion.training.crystal import train_crystal
from ase_diffusion.training.objectives import DenoisingLoss
from ase_diffusion.training.trainer import Mixed
from ase_diffusion.weights.zoo import load_model


def crystals():
    return [bulk(f'{metal}Cl', 'rocksalt', a=5 + 0.2 * k) * (1 + k % 2, 1, 1) for k, metal in enumerate(('Na', 'K', 'Li'))]


def crystal_case(scheme):
    torch.manual_seed(0)
    data = Crystals.from_atoms(crystals())
    if scheme == 'edm':
        representation = LogLatticeCrystal.of(data.elements(), data.cells, data.counts)
        points = dict(
            points=representation.table.shape[1], cell_mean=representation.mean, cell_std=representation.std, distances=8
        )
    else:
        representation, points = Crystal(data.elements()), {}
    network = CrystalTransformer(4, 32, 3, conditions={'gap': [0.0, 1.0]}, coupled=True, **points)
    return network, representation, representation.encode(crystals(), {'gap': [0.1, float('nan'), 1.0]})


def overlayer_case():
    torch.manual_seed(0)
    atoms = Atoms('Ag4OH', [[0, 0, 0], [2.5, 0, 0.1], [0, 2.6, 0], [2.4, 2.5, 0], [1.2, 1, 1.5], [3, 3, 1.4]], cell=[5, 5, 15])
    atoms.pbc = (True, True, False)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    representation = Slab()
    return OverlayerDenoiser(32, 3, 4.0, conditions={'energy': [0.0, 1.0]}), representation, representation.encode([atoms] * 2)


CASES = {'edm': lambda: crystal_case('edm'), 'd3pm': lambda: crystal_case('d3pm'), 'surface': overlayer_case}


@pytest.mark.parametrize('case', CASES)
def test_predictions_and_losses_differ_by_rounding(case):
    network, representation, batch = CASES[case]()
    objective = DenoisingLoss(representation.process())
    level = torch.linspace(-0.5, 0.5, batch.size)
    full, mixed = (call(batch, level, batch.conditions) for call in (network, Mixed(network)))
    for name, value in full.items():
        assert mixed[name].dtype == torch.float32 and torch.isfinite(mixed[name]).all()
        assert float((mixed[name] - value).norm() / value.norm().clamp(min=1e-3)) < 0.03, name
    assert any(not torch.equal(mixed[name], full[name]) for name in full)
    losses = [objective(call, batch, torch.Generator().manual_seed(1))['loss'] for call in (network, Mixed(network))]
    assert float(losses[1]) == pytest.approx(float(losses[0]), rel=5e-3) and losses[1].dtype == torch.float32
    losses[1].backward()
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_geometry_norms_and_embeddings_keep_their_digits():
    network, _, batch = crystal_case('edm')
    lattice, counts = batch.fields['lattice'], batch.extras['counts'].to(torch.float32)
    norm, x, level = LayerNorm(16), torch.randn(4, 16), torch.randn(3)
    with torch.no_grad():
        expected = network.metric(lattice, counts), network.level(level), norm(x.bfloat16().float())
        with torch.autocast('cpu', torch.bfloat16):
            found = network.metric(lattice, counts), network.level(level), norm(x.bfloat16())
            assert (x @ x.T).dtype == torch.bfloat16
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(found, expected, strict=True))


def test_full_precision_leaves_other_precisions_alone():
    double = torch.randn(3, 3, dtype=torch.float64)
    product = full_precision(lambda a, b: a @ b)
    assert product(double, double).dtype == torch.float64
    with torch.autocast('cpu', torch.bfloat16):
        assert product(double, double).dtype == torch.float64
        assert product(double.bfloat16(), b=double.float()).dtype == torch.float32


@pytest.mark.parametrize('precision', ['bf16-mixed', '32-true'])
def test_a_training_in_any_precision_keeps_float32_weights(tmp_path, precision):
    pytest.importorskip('lightning')
    data = Crystals.from_atoms(crystals() * 4)
    options = dict(features=16, blocks=1, batch_size=4, progress=False, accelerator='cpu', warmup=2)
    best = train_crystal(data, tmp_path, validation=data, steps=4, precision=precision, **options)
    network, header = load_model(best)
    assert all(p.dtype == torch.float32 for p in network.parameters()) and header['metrics']['val_loss'] > 0


def test_batches_do_not_depend_on_the_precision():
    source = CrystalData(Crystals.from_atoms(crystals()), Crystal([3, 11, 17, 19]), batch_size=2)
    with torch.autocast('cpu', torch.bfloat16):
        inside = source.draw(3)
    assert torch.equal(inside.fields['lattice'], source.draw(3).fields['lattice'])
