"""Weights go to schnetpack and back: equal outputs of the real schnetpack. Skipped where it is not installed."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from builders import overlayer

from ase_diffusion.errors import CheckpointError, MissingDependency
from ase_diffusion.networks import ForceField, OverlayerDenoiser, PaiNN
from ase_diffusion.networks.neighbors import build_graph
from ase_diffusion.networks.schnetpack_io import forcefield_from_schnetpack, from_schnetpack, to_schnetpack
from ase_diffusion.representations import Slab

TOL = 1e-5
KCAL = 0.0433641153087705  # kcal/mol in eV
FEATURES, BLOCKS, CUTOFF, BASIS = 24, 3, 4.5, 12
try:
    import schnetpack as spk
    from schnetpack.interfaces.ase_interface import SpkCalculator
except ImportError:
    spk = None
needs_schnetpack = pytest.mark.skipif(spk is None, reason='schnetpack is not installed')
every_basis = pytest.mark.parametrize('basis', ['gaussian', 'bessel'])


@pytest.fixture(autouse=True)
def seed():
    """The first weights of a network come from torch's own generator: the same ones whatever ran before."""
    torch.manual_seed(0)


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return module.eval()


def ours(basis='gaussian', **options):
    return randomise(PaiNN(FEATURES, BLOCKS, CUTOFF, BASIS, basis, **options))


def theirs(basis='gaussian', cutoff=CUTOFF, **options):
    rbf = {'gaussian': spk.nn.GaussianRBF, 'bessel': spk.nn.BesselRBF}[basis](BASIS, cutoff)
    options = {'cutoff_fn': spk.nn.CosineCutoff(cutoff), 'radial_basis': rbf, **options}
    return randomise(spk.representation.PaiNN(FEATURES, BLOCKS, **options))


def graph(atoms, dtype):
    x = torch.tensor(atoms.positions, dtype=dtype)
    cell = torch.tensor(atoms.cell[:], dtype=dtype)[None]
    return build_graph(x, torch.zeros(len(x), dtype=torch.long), cell, atoms.pbc.tolist(), CUTOFF, len(x), passive_edges=True)


def outputs(module, atoms, length=1.0):
    """Scalars and vectors of either kind of module; positions in units of `length` A for schnetpack's."""
    g, numbers = graph(atoms, next(module.parameters()).dtype), torch.tensor(atoms.numbers)
    with torch.no_grad():
        if isinstance(module, PaiNN):
            return module(numbers, g.receivers, g.senders, g.vectors)
        p = spk.properties
        out = module({p.Z: numbers, p.Rij: g.vectors / length, p.idx_i: g.receivers, p.idx_j: g.senders})
    return out['scalar_representation'], out['vector_representation']


def agree(a, b):
    return all(float((x - y).abs().max()) < TOL * max(1.0, float(y.abs().max())) for x, y in zip(a, b, strict=True))


@needs_schnetpack
@every_basis
def test_from_schnetpack_gives_equal_outputs(basis):
    module, atoms = theirs(basis), overlayer(0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    painn = from_schnetpack(module)
    assert agree(outputs(painn, atoms), outputs(module, atoms))
    randomise(painn)  # the weights are copies
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@needs_schnetpack
@every_basis
def test_to_schnetpack_gives_equal_outputs_and_comes_back(basis):
    painn, atoms = ours(basis), overlayer(1)
    module = to_schnetpack(painn)
    assert agree(outputs(module, atoms), outputs(painn, atoms))
    again = from_schnetpack(module).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in painn.state_dict().items())


@needs_schnetpack
@every_basis
@pytest.mark.parametrize('sharing', ['shared_interactions', 'shared_filters'])
def test_shared_weights_are_written_out(basis, sharing):
    module, atoms = theirs(basis, **{sharing: True}), overlayer(2)
    assert agree(outputs(from_schnetpack(module), atoms), outputs(module, atoms))


@needs_schnetpack
@every_basis
def test_other_units_of_length(basis):
    module, atoms = theirs(basis, cutoff=CUTOFF / 10).double(), overlayer(3)
    painn = from_schnetpack(module, distance_unit='nm')
    assert painn.cutoff == pytest.approx(CUTOFF)
    assert agree(outputs(painn, atoms), outputs(module, atoms, length=10.0))


@needs_schnetpack
def test_smaller_embeddings_are_taken_over():
    module, atoms = theirs(nuclear_embedding=torch.nn.Embedding(60, FEATURES)), overlayer(4)
    assert agree(outputs(from_schnetpack(module), atoms), outputs(module, atoms))


@needs_schnetpack
def test_what_ours_cannot_do_is_refused():
    with pytest.raises(ValueError, match='MollifierCutoff'):
        from_schnetpack(theirs(cutoff_fn=spk.nn.MollifierCutoff(CUTOFF)))
    with pytest.raises(ValueError, match='activation'):
        from_schnetpack(theirs(activation=spk.nn.shifted_softplus))
    with pytest.raises(ValueError, match='epsilon'):
        from_schnetpack(theirs(epsilon=1e-3))
    with pytest.raises(ValueError, match='takes a schnetpack.representation.PaiNN, got Linear'):
        from_schnetpack(torch.nn.Linear(2, 2))


@needs_schnetpack
@pytest.mark.parametrize('options', [{'modulation': 4}, {'roles': 2}, {'normalize': True}], ids=str)
def test_what_schnetpack_cannot_do_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        to_schnetpack(ours(**options))
    with pytest.raises(ValueError, match='modulation and no roles and no normalize'):
        to_schnetpack(OverlayerDenoiser(features=8, blocks=1).representation)


# whole potentials


def potential(basis='gaussian', offsets=True, **head):
    """A schnetpack potential with forces, and constants per atom in the postprocessing."""
    post = [spk.transform.CastTo64()]
    if offsets:
        refs = -torch.arange(100, dtype=torch.float64) * 1.7
        post.append(
            spk.transform.AddOffsets(
                'energy', add_mean=True, add_atomrefs=True, atomrefs=refs, property_mean=torch.tensor([-2.5])
            )
        )
    model = spk.model.NeuralNetworkPotential(
        theirs(basis),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[randomise(spk.atomistic.Atomwise(FEATURES, output_key='energy', **head)), spk.atomistic.Forces()],
        postprocessors=post,
    )
    return model.eval()


def reference(model, atoms, unit='eV'):
    """Energy (eV) and forces (eV/A) by schnetpack's own calculator and neighbour list."""
    dtype = next(model.parameters()).dtype
    calculator = SpkCalculator(model, spk.transform.ASENeighborList(CUTOFF), energy_unit=unit, dtype=dtype)
    copy = atoms.copy()
    copy.set_constraint()
    copy.calc = calculator
    return copy.get_potential_energy(), copy.get_forces()


def check_potential(network, atoms, energy, forces):
    """Energies and forces agree, to 1e-7 in float64; single precision leaves 2e-5 of forces at short distances."""
    dtype = network.scale.dtype
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-7}[dtype]
    batch = Slab(dtype=dtype).encode([atoms])
    with torch.no_grad():
        value, mine = network(batch)
        total = float(value.double() + network.reference_energy(batch))
    assert total == pytest.approx(energy, rel=1e-6, abs=tolerance)
    mobile = np.ones(len(atoms), bool)
    if atoms.constraints:
        mobile[atoms.constraints[0].index] = False
    assert np.abs(mine.numpy() - forces[mobile]).max() < tolerance * max(1.0, np.abs(forces).max())


@needs_schnetpack
@every_basis
@pytest.mark.parametrize('unit', ['eV', 'kcal/mol'])
@pytest.mark.parametrize('offsets', [True, False], ids=['offsets', 'no offsets'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_a_potential_becomes_a_force_field_of_equal_energies_and_forces(basis, unit, offsets, dtype):
    model, atoms = potential(basis, offsets).to(dtype), overlayer(5)
    network = forcefield_from_schnetpack(model, energy_unit=unit)
    check_potential(network, atoms, *reference(model, atoms, unit))
    assert isinstance(network, ForceField) and network.passive_edges
    assert float(network.scale) == pytest.approx(1.0 if unit == 'eV' else KCAL)


@needs_schnetpack
def test_bulk_and_free_atoms_too():
    model = potential()
    atoms = overlayer(6)
    atoms.set_constraint()
    atoms.pbc = True
    atoms.set_cell(atoms.cell[:] * [[1], [1], [0.4]])
    check_potential(forcefield_from_schnetpack(model), atoms, *reference(model, atoms))


@needs_schnetpack
def test_the_settings_rebuild_a_network_for_the_weights():
    network = forcefield_from_schnetpack(potential('bessel'))
    again = ForceField(**network.settings)
    again.load_state_dict(network.state_dict())
    assert again.representation.settings == network.representation.settings


@needs_schnetpack
def test_a_saved_model_is_read_without_running_code(tmp_path):
    model, atoms = potential(), overlayer(7)
    torch.save(model, tmp_path / 'best_model')
    network = forcefield_from_schnetpack(tmp_path / 'best_model')
    check_potential(network, atoms, *reference(model, atoms))


class Hostile:
    """Pickles as a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@needs_schnetpack
def test_a_hostile_file_is_refused(tmp_path):
    torch.save(Hostile(str(tmp_path / 'made')), tmp_path / 'best_model')
    with pytest.raises(CheckpointError, match='without running code'):
        forcefield_from_schnetpack(tmp_path / 'best_model')
    assert not (tmp_path / 'made').exists()
    (tmp_path / 'text').write_text('nothing')
    with pytest.raises(CheckpointError):
        forcefield_from_schnetpack(tmp_path / 'text')
    with pytest.raises(CheckpointError, match='no schnetpack model at'):
        forcefield_from_schnetpack(tmp_path / 'nothing')


@needs_schnetpack
def test_other_heads_are_refused():
    with pytest.raises(ValueError, match='layers'):
        forcefield_from_schnetpack(potential(n_layers=3))
    with pytest.raises(ValueError, match="'avg'"):
        forcefield_from_schnetpack(potential(aggregation_mode='avg'))
    with pytest.raises(ValueError, match="output_key 'e'.*energy_key"):
        forcefield_from_schnetpack(potential(), energy_key='e')
    scaled = potential()
    scaled.postprocessors.append(spk.transform.ScaleProperty('energy'))
    with pytest.raises(ValueError, match='ScaleProperty'):
        forcefield_from_schnetpack(scaled)


# without schnetpack


def test_networks_do_not_import_schnetpack(environment):
    code = "import sys, ase_diffusion.networks, ase_diffusion.networks.schnetpack_io; sys.exit('schnetpack' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], env=environment).returncode == 0


def test_where_schnetpack_is_missing_the_error_says_what_to_install(hide):
    hide('schnetpack')
    for call in (lambda: to_schnetpack(ours()), lambda: from_schnetpack(None), lambda: forcefield_from_schnetpack('x')):
        with pytest.raises(MissingDependency, match='pip install schnetpack'):
            call()
