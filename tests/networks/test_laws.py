"""Laws that every network of overlayers keeps, each written once: symmetry, locality, smoothness."""

import builders
import numpy as np
import pytest
import torch
from builders import denoiser, encode, forcefield, forces_of, noise_of, overlayer
from scipy.spatial.transform import Rotation

# name -> (network of a dtype, vectors per mobile atom)
NETWORKS = {
    'denoiser': (denoiser, noise_of),
    'denoiser, 1 block': (lambda dtype: denoiser(dtype, blocks=1), noise_of),
    'force field': (forcefield, forces_of),
    'force field, passive edges': (lambda dtype: forcefield(dtype, passive_edges=True), forces_of),
    'force field, bessel': (lambda dtype: forcefield(dtype, basis='bessel'), forces_of),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}  # of the largest component

every_network = pytest.mark.parametrize('network', NETWORKS)
both_precisions = pytest.mark.parametrize('dtype', TOLERANCE, ids=str)


def close(a, b, dtype=torch.float64):
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-3)
    return float((a - b).abs().max()) < TOLERANCE[dtype] * scale


def make(network, dtype=torch.float64):
    build, evaluate = NETWORKS[network]
    model = build(dtype)
    return lambda *images, **options: evaluate(model, encode(*images, dtype=dtype), **options)


@every_network
@both_precisions
@pytest.mark.parametrize('seed', range(3))
def test_rotation_about_any_axis_turns_the_vectors(network, dtype, seed):
    vectors, atoms = make(network, dtype), overlayer(seed)
    matrix = Rotation.random(random_state=seed).as_matrix()
    turned = atoms.copy()
    turned.set_constraint()
    turned.set_cell(atoms.cell[:] @ matrix.T)
    turned.positions = atoms.positions @ matrix.T
    turned.set_constraint(atoms.constraints)
    assert close(vectors(turned), vectors(atoms) @ torch.tensor(matrix.T, dtype=dtype), dtype)


@every_network
@both_precisions
def test_a_mirror_mirrors_the_vectors(network, dtype):
    vectors, atoms = make(network, dtype), overlayer(1)
    sign = np.array([-1.0, 1.0, 1.0])
    mirrored = atoms.copy()
    mirrored.set_constraint()
    mirrored.set_cell(atoms.cell[:] * sign)
    mirrored.positions = atoms.positions * sign
    mirrored.set_constraint(atoms.constraints)
    assert close(vectors(mirrored), vectors(atoms) * torch.tensor(sign, dtype=dtype), dtype)


@every_network
@both_precisions
def test_a_shift_of_all_atoms_changes_nothing(network, dtype):
    vectors, atoms = make(network, dtype), overlayer(2)
    moved = atoms.copy()
    moved.set_constraint()
    moved.positions += [1.234, -2.5, 0.7]
    moved.set_constraint(atoms.constraints)
    assert close(vectors(moved), vectors(atoms), dtype)


@every_network
@both_precisions
def test_lattice_vectors_added_to_single_atoms_change_nothing(network, dtype):
    vectors, atoms = make(network, dtype), overlayer(3)
    moved = atoms.copy()
    moved.set_constraint()
    moved.positions += np.random.default_rng(0).integers(-2, 3, (len(atoms), 2)) @ atoms.cell[:2]
    moved.set_constraint(atoms.constraints)
    assert close(vectors(moved), vectors(atoms), dtype)


@every_network
@both_precisions
def test_permuted_atoms_permute_the_vectors(network, dtype):
    vectors, atoms = make(network, dtype), overlayer(4)
    frozen, mobile = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(5)
    permuted = atoms[[*frozen, *(6 + mobile)]]
    permuted.set_constraint(atoms.constraints)
    assert close(vectors(permuted), vectors(atoms)[mobile], dtype)


@every_network
@both_precisions
def test_a_structure_does_not_depend_on_the_others_of_its_batch(network, dtype):
    vectors = make(network, dtype)
    images = [overlayer(5), overlayer(6, mobile=2, frozen=9, length=8.0), overlayer(7, mobile=9, frozen=1)]
    together = vectors(*images)
    level = {'level': -0.3} if 'denoiser' in network else {}
    for k, (atoms, part) in enumerate(zip(images, together.split([5, 2, 9]), strict=True)):
        alone = vectors(atoms, **{name: value + 0.1 * k for name, value in level.items()})
        assert close(part, alone, dtype)


@every_network
@both_precisions
def test_repeated_structures_give_repeated_vectors(network, dtype):
    vectors, atoms = make(network, dtype), overlayer(8)
    double = atoms.repeat((2, 1, 1))  # all of the first copy, then all of the second
    assert close(vectors(double), vectors(atoms).repeat(2, 1), dtype)


@every_network
def test_an_atom_that_crosses_the_cutoff_makes_no_jump(network):
    """Two atoms alone: the response to the second one vanishes smoothly at the cutoff."""
    vectors = make(network)
    atoms = overlayer(9, mobile=2, frozen=1, length=30.0)
    cutoff, first = builders.SIZE['cutoff'], atoms.positions[1].copy()

    def at(distance):
        moved = atoms.copy()
        moved.positions[2] = first + np.array([0.6, 0.8, 0.0]) * distance
        return vectors(moved)

    inside, edge, outside = at(cutoff - 0.4), at(cutoff - 1e-4), at(cutoff + 1e-4)
    scale = float((inside - outside).abs().max())
    assert scale > 1e-6  # it does respond
    assert float((edge - outside).abs().max()) < 1e-2 * scale
    assert torch.equal(outside, at(cutoff + 3.0))


@every_network
def test_atoms_on_top_of_each_other_give_finite_vectors(network):
    vectors, atoms = make(network, torch.float32), overlayer(10)
    atoms.positions[7] = atoms.positions[6]
    atoms.positions[8] = atoms.positions[0]
    assert torch.isfinite(vectors(atoms)).all()


@every_network
def test_no_denormal_numbers_in_the_radial_basis(network):
    model = NETWORKS[network][0](torch.float32)
    values = model.representation.radial_basis(torch.linspace(0.1, 4.0, 500))
    assert (values[values != 0].abs() > 1e-30).all()


# the denoiser alone


def test_a_condition_of_nan_is_an_absent_condition():
    network, batch = denoiser(), encode(overlayer(11), overlayer(12))
    nan = torch.full((2,), float('nan'), dtype=torch.float64)
    absent = noise_of(network, batch)
    assert torch.equal(noise_of(network, batch, nan), absent)
    mixed = noise_of(network, batch, torch.tensor([0.3, float('nan')], dtype=torch.float64))
    assert torch.equal(mixed[5:], absent[5:])
    assert not torch.allclose(mixed[:5], absent[:5])


def test_absent_conditions_have_finite_gradients():
    network, batch = denoiser(), encode(overlayer(11), overlayer(12))
    out = network(batch, torch.zeros(2, dtype=torch.float64), {'energy': torch.tensor([float('nan'), 0.2])})
    out['positions'].square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    assert gradients['conditions.absent.energy'].abs().max() > 0


def test_level_and_condition_matter():
    network, batch = denoiser(), encode(overlayer(13))
    zero = torch.zeros(1, dtype=torch.float64)
    assert not torch.allclose(noise_of(network, batch, level=-0.3), noise_of(network, batch, level=0.3))
    assert not torch.allclose(noise_of(network, batch, zero), noise_of(network, batch, zero + 0.5))


def test_the_kept_graph_is_that_of_the_state():
    """A graph is kept for a second call with the same state, and not for another one with the same positions."""
    network, batch = denoiser(), encode(overlayer(14))
    first = noise_of(network, batch)
    assert torch.equal(noise_of(network, batch), first)
    lowered = {**batch.extras, 'frozen': batch.extras['frozen'] - torch.tensor([0.0, 0.0, 0.4])}
    other = type(batch)(batch.fields, batch.rows, 1, batch.domains, {}, lowered)
    assert torch.equal(noise_of(network, other), noise_of(denoiser(), other))
    assert not torch.allclose(noise_of(network, other), first)
    moved = batch.with_fields(positions=batch.fields['positions'] + 0.1)
    assert torch.equal(noise_of(network, moved), noise_of(denoiser(), moved))


def test_only_mobile_atoms_are_updated_in_the_last_block():
    """Which changes nothing: the whole graph in the last block gives the same vectors."""
    network, batch = denoiser(), encode(overlayer(15))
    x, extras = batch.fields['positions'], batch.extras
    graph = network._neighbors(x, extras)
    c = torch.randn(1, 16, dtype=torch.float64)
    args = (extras['numbers'], graph.receivers, graph.senders, graph.vectors, extras['rows'], c, extras['roles'])
    s, v = network.representation(*args)
    s_out, v_out = network.representation(*args, len(x), graph.n_active_edges)
    assert torch.allclose(s[: len(x)], s_out) and torch.allclose(v[: len(x)], v_out)
