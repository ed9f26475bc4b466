"""Energies and forces of the force field."""

import builders
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from builders import encode, forcefield, overlayer

from ase_diffusion.calculators.forcefield import batch_forces
from ase_diffusion.diffusion import SAMPLERS, ForceGuidance, NoisePerStructure
from ase_diffusion.representations.slab import Slab

passive = pytest.mark.parametrize('passive_edges', [False, True], ids=['frozen body', 'all edges'])


def energy_of(network, *images):
    with torch.no_grad():
        return network(encode(*images))[0]


@passive
@pytest.mark.parametrize('basis', ['gaussian', 'bessel'])
def test_forces_are_minus_the_derivative_of_the_energy(passive_edges, basis):
    network, atoms = forcefield(passive_edges=passive_edges, basis=basis), overlayer(0)
    forces = builders.forces_of(network, encode(atoms))
    h, numeric = 1e-4, np.zeros((5, 3))
    for k in range(5):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[6 + k, axis] += sign * h
                energies.append(float(energy_of(network, moved)))
            numeric[k, axis] = -(energies[0] - energies[1]) / (2 * h)
    assert np.abs(forces.numpy() - numeric).max() < 1e-5 * np.abs(numeric).max()


@passive
def test_forces_agree_with_autograd_through_the_positions(passive_edges):
    network, batch = forcefield(passive_edges=passive_edges), encode(overlayer(1), overlayer(2, mobile=3))
    x = batch.fields['positions'].clone().requires_grad_()
    energy, forces = network(batch.with_fields(positions=x))
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert torch.allclose(forces, -gradient)


@passive
@pytest.mark.parametrize('repeat', [(2, 1, 1), (1, 2, 1), (2, 2, 1)], ids=str)
def test_repeats_have_as_much_more_energy(passive_edges, repeat):
    network, atoms = forcefield(passive_edges=passive_edges), overlayer(3)
    network.references.uniform_(-3, 0)
    count, batch, repeated = int(np.prod(repeat)), encode(atoms), encode(atoms.repeat(repeat))
    with torch.no_grad():
        one, many = network(batch)[0], network(repeated)[0]
    assert float(many) == pytest.approx(count * float(one), rel=1e-9)
    assert float(network.reference_energy(repeated)) == pytest.approx(count * float(network.reference_energy(batch)))


@passive
def test_energies_of_a_batch_are_those_of_its_structures(passive_edges):
    network = forcefield(passive_edges=passive_edges)
    images = [overlayer(4), overlayer(5, mobile=2), overlayer(6, frozen=10)]
    assert torch.allclose(energy_of(network, *images), torch.cat([energy_of(network, a) for a in images]))


@passive
def test_energies_do_not_change_with_shifts_and_rotations(passive_edges):
    network, atoms = forcefield(passive_edges=passive_edges), overlayer(7)
    turned = atoms.copy()
    turned.set_constraint()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.positions += [0.3, -4.0, 2.0]
    turned.set_constraint(atoms.constraints)
    assert float(energy_of(network, turned)) == pytest.approx(float(energy_of(network, atoms)), rel=1e-9)


def test_with_all_edges_what_is_frozen_does_not_matter():
    network, atoms = forcefield(passive_edges=True), overlayer(8)
    free = atoms.copy()
    free.constraints[0].index = free.constraints[0].index[:2]
    both = builders.forces_of(network, encode(atoms)), builders.forces_of(network, encode(free))
    assert torch.allclose(energy_of(network, atoms), energy_of(network, free))
    assert torch.allclose(both[0], both[1][4:])
    nothing = atoms.copy()
    nothing.set_constraint()
    forces = builders.forces_of(network, encode(nothing))
    assert torch.allclose(forces[6:], both[0])
    assert forces.sum(0).abs().max() < 1e-9  # action and reaction


def test_all_three_directions_may_be_periodic():
    """For a force field with all edges a bulk crystal is a structure like any other."""
    network = forcefield(passive_edges=True)
    bulk = overlayer(9)
    bulk.set_constraint()
    bulk.pbc = True
    bulk.set_cell(bulk.cell[:] * [[1], [1], [0.3]])
    shifted = bulk.copy()
    shifted.positions[3] += bulk.cell[2]
    assert float(energy_of(network, shifted)) == pytest.approx(float(energy_of(network, bulk)), rel=1e-9)
    double = bulk.repeat((1, 1, 2))
    assert float(energy_of(network, double)) == pytest.approx(2 * float(energy_of(network, bulk)), rel=1e-9)


def test_energies_without_interaction_are_those_of_the_atoms():
    network, atoms = forcefield(), overlayer(10, mobile=1, frozen=1, length=30.0)
    far = atoms.copy()
    far.positions[1, 2] += 20.0
    one, other = energy_of(network, far), energy_of(network, far)
    far.positions[1, :2] += 1.0
    assert torch.equal(one, other) and torch.allclose(energy_of(network, far), one)
    assert builders.forces_of(network, encode(far)).abs().max() == 0


def test_references_count_roles_and_elements():
    network = forcefield()
    network.references.zero_()
    network.references[0, 8], network.references[1, 47] = -2.0, -3.0
    atoms = overlayer(11)  # mobile: O Ag H O Ag; frozen: Ag Cu Ag Cu Ag Cu
    assert float(network.reference_energy(encode(atoms))) == pytest.approx(2 * -2.0 + 3 * -3.0)


def test_scale_scales_energies_and_forces_of_the_network():
    network, batch = forcefield(core=0.0), encode(overlayer(12))
    with torch.no_grad():
        energy, forces = network(batch)
        network.scale.fill_(2.5)
        assert all(torch.allclose(a, 2.5 * b) for a, b in zip(network(batch), (energy, forces), strict=True))


def test_forces_guide_inside_a_sampler():
    """Samplers run in inference mode, forces are derivatives: the two must go together."""
    network, batch = forcefield(torch.float32), encode(overlayer(13), dtype=torch.float32)
    guide = ForceGuidance(batch_forces(network), strength=0.01)
    out = SAMPLERS['ancestral'](
        builders.denoiser(torch.float32), Slab().process(), batch, steps=4, generator=NoisePerStructure([1]), guidance=[guide]
    )
    assert torch.isfinite(out.fields['positions']).all()
    assert (guide.calls, guide.failures) == (2, 0)  # neither at t = 1 nor in the last step, to clean data


def test_the_core_repels_what_no_data_has_and_leaves_the_rest_alone():
    atoms = fcc111('Ag', (2, 2, 1), a=4.16, vacuum=8.0)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    atoms += Atoms('Ag2', [[1.0, 1.0, 12.0], [1.0, 1.0, 12.0 + 2.5]])
    atoms.set_constraint(FixAtoms(indices=range(4)))
    with_core, without = forcefield(core=40.0), forcefield(core=0.0)
    without.load_state_dict(with_core.state_dict())
    assert torch.equal(energy_of(with_core, atoms), energy_of(without, atoms))
    d0 = 0.7 * 2 * covalent_radii[47]
    atoms.positions[5, 2] = 12.0 + d0 / 2
    assert float(energy_of(with_core, atoms) - energy_of(without, atoms)) == pytest.approx(40.0, rel=1e-3)
