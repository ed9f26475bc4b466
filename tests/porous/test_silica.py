"""Grids to silica frameworks: nets against published coordination sequences, the fit against finite differences, round trips."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from ase.neighborlist import neighbor_list
from ase.spacegroup import Spacegroup, crystal

from ase_diffusion.porous import density_grid
from ase_diffusion.porous.dls import cost_and_gradient, fit_distances, framework_terms, insert_oxygen, repulsive_terms
from ase_diffusion.porous.grid_symmetry import GridSymmetry
from ase_diffusion.porous.nets import (
    angle_cycles,
    coordination_sequences,
    four_connected_net,
    framework_net,
    is_connected,
    neighbor_pairs,
    net_hash,
    net_key,
)
from ase_diffusion.porous.orbits import SiteOrbits
from ase_diffusion.porous.peaks import find_peaks, fit_peaks
from ase_diffusion.porous.silica import REASONS, check_framework, framework_from_grid, match_bonds, relax_framework
from ase_diffusion.representations.cells import space_group_of

# Baerlocher, McCusker, Database of Zeolite Structures: space group, cell lengths, T sites, coordination sequence
NETS = {
    'SOD': (229, 8.965, [(0.25, 0.5, 0.0)], [4, 10, 20, 34, 52, 74, 100, 130, 164, 202]),
    'LTA': (221, 11.919, [(0.0, 0.1823, 0.3684)], [4, 9, 17, 28, 42, 60, 81, 105, 132, 162]),
    'RHO': (229, 14.919, [(0.25, 0.1014, 0.3986)], [4, 9, 17, 28, 42, 60, 81, 105, 132, 162]),
    'FAU': (227, 24.345, [(0.9456, 0.1250, 0.0365)], [4, 9, 16, 25, 37, 53, 73, 96, 120, 145]),
}


def t_sites(name):
    """Return the fractional T sites and the cell lengths of a net."""
    group, length, sites, _ = NETS[name]
    setting = 2 if group == 227 else 1
    atoms = crystal(['Si'] * len(sites), sites, spacegroup=group, setting=setting, cellpar=[length] * 3 + [90] * 3)
    return atoms.get_scaled_positions(), np.full(3, length)


def framework_of(name):
    """Return a fitted framework on a net."""
    sites, lengths = t_sites(name)
    net = four_connected_net(sites, lengths)
    n, cell = len(sites), np.diag(lengths)
    scaled, bonds = np.empty((3 * n, 3)), np.empty((2 * n, 5), np.int32)
    assert insert_oxygen(np.ascontiguousarray(sites), cell, np.linalg.inv(cell), *net, scaled, bonds) == 2 * n
    fit_distances(n, scaled, cell, bonds, np.eye(3), np.array([100, 500]), np.full(2, np.inf), 1e-5)
    return Atoms(np.repeat([14, 8], [n, 2 * n]), cell=cell, scaled_positions=scaled, pbc=True)


@pytest.fixture(scope='module')
def sodalite():
    return framework_of('SOD')


@pytest.mark.parametrize('name', ['SOD', 'LTA', 'FAU'])
def test_coordination_sequences_are_the_published_ones(name):
    net = four_connected_net(*t_sites(name))
    assert is_connected(*net)
    sequences = coordination_sequences(net)
    assert (sequences == NETS[name][3]).all()


def test_the_hash_of_a_net_does_not_depend_on_cell_and_order():
    rng = np.random.default_rng(0)
    sites, lengths = t_sites('LTA')
    small = coordination_sequences(four_connected_net(sites, lengths))
    doubled = np.concatenate([sites, sites + [1, 0, 0]]) / [2, 1, 1]
    shuffled = (doubled + rng.random(3))[rng.permutation(len(doubled))]
    large = coordination_sequences(four_connected_net(shuffled, lengths * [2, 1, 1]))
    assert net_hash(small) == net_hash(large) != net_hash(coordination_sequences(four_connected_net(*t_sites('SOD'))))
    assert net_hash(small[:1], [24]) == net_hash(small)


def test_layers_and_interpenetrating_nets_are_not_connected():
    square = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], np.int32)[None]
    assert not is_connected(np.zeros((1, 4), np.int32), square)
    diamond = np.array([[0, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], np.int32)
    one = np.stack([diamond, -diamond])
    neighbors = np.array([[1] * 4, [0] * 4], np.int32)
    assert is_connected(neighbors, one)
    assert not is_connected(neighbors, one * 2)  # every second cell: eight nets
    two = np.concatenate([neighbors, neighbors + 2]), np.concatenate([one, one])
    assert not is_connected(*two)


def test_the_gradient_of_the_fit_is_that_of_its_cost():
    sites, lengths = t_sites('SOD')
    net = four_connected_net(sites, lengths)
    n, cell = len(sites), np.diag(lengths) + 0.3 * np.eye(3, k=1)
    scaled, bonds = np.empty((3 * n, 3)), np.empty((2 * n, 5), np.int32)
    insert_oxygen(np.ascontiguousarray(sites), cell, np.linalg.inv(cell), *net, scaled, bonds)
    rng = np.random.default_rng(1)
    scaled += 0.04 * rng.normal(size=scaled.shape)  # far enough for repulsion
    terms, targets, weights = np.empty((12 * n, 5), np.int32), np.empty(12 * n), np.empty(12 * n)
    count = framework_terms(n, bonds, terms, targets, weights)
    pairs, floors = np.empty((9000, 5), np.int32), np.empty(9000)
    found = repulsive_terms(n, scaled, cell, terms, count, pairs, floors)
    x = np.concatenate([scaled @ cell, np.zeros((3, 3))])
    strain = rng.normal(size=(3, 3)) * 0.05
    x[-3:] = strain + strain.T
    arguments = cell, 5.0, terms, targets, weights, pairs[:found], floors[:found], np.ones((3, 3))
    gradient = np.empty_like(x)
    cost = cost_and_gradient(x, *arguments, gradient)
    assert count == 12 * n and found > 10 and cost > 1
    for _ in range(20):
        step = rng.normal(size=x.shape)
        step[-3:] += step[-3:].T.copy()
        up, down = (cost_and_gradient(x + s * step, *arguments, np.empty_like(x)) for s in (1e-5, -1e-5))
        assert (up - down) / 2e-5 == pytest.approx((gradient * step).sum(), rel=1e-5, abs=1e-5)


def test_the_fit_has_ideal_distances(sodalite):
    i, j, d = neighbor_list('ijd', sodalite, 1.8)
    silicon = sodalite.numbers == 14
    assert (silicon[i] != silicon[j]).all() and len(d) == 8 * silicon.sum()
    np.testing.assert_allclose(d, 1.61, atol=0.02)
    assert check_framework(sodalite) is None


def test_a_triclinic_cell_comes_back():
    atoms = framework_of('SOD')
    skewed = make_supercell(atoms, [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    assert check_framework(skewed) is None
    strained = skewed.copy()
    strained.set_cell(skewed.cell.array @ (np.eye(3) + [[0.02, 0.01, 0], [0, -0.02, 0], [0, 0.01, 0.01]]), scale_atoms=True)
    fitted = relax_framework(strained)
    assert fitted.info['key_value_pairs']['cost'] < 1e-3
    assert fitted.get_volume() == pytest.approx(atoms.get_volume(), rel=0.02)


def test_relaxing_keeps_order_and_input(sodalite):
    rng = np.random.default_rng(3)
    atoms = sodalite[rng.permutation(len(sodalite))]
    atoms.rattle(0.03, rng=rng)
    before = atoms.copy()
    fitted = relax_framework(atoms, cell=False)
    assert atoms == before and (fitted.numbers == atoms.numbers).all() and np.allclose(fitted.cell, atoms.cell)
    moved = fitted.get_scaled_positions() - atoms.get_scaled_positions()
    assert np.abs(moved - np.round(moved)).max() < 0.05
    with pytest.raises(ValueError, match='four O'):
        relax_framework(atoms[1:])


def test_the_check_names_what_is_broken(sodalite):
    assert check_framework(sodalite) is None
    silicon, oxygen = np.flatnonzero(sodalite.numbers == 14), np.flatnonzero(sodalite.numbers == 8)

    def broken(change):
        atoms = sodalite.copy()
        return check_framework(change(atoms) or atoms)

    assert broken(lambda a: a.__delitem__(oxygen[0])) == 'Si:O is not 1:2'
    assert broken(lambda a: a.numbers.__setitem__(0, 32)) == 'not of Si and O'
    assert broken(lambda a: a.set_pbc([True, True, False])) == 'not periodic in three dimensions'
    assert broken(lambda a: a.positions.__setitem__(oxygen[0], a.positions[oxygen[1]] + [0.9, 0, 0])) == 'two atoms too near'
    assert broken(lambda a: a.set_cell(a.cell * 1.2, scale_atoms=True)) in REASONS
    assert broken(lambda a: a.positions.__setitem__(silicon[0], a.positions[silicon[0]] + [0.15, 0.1, 0])) in REASONS
    assert check_framework(Atoms()) == 'not of Si and O'


def test_peaks_are_exact_on_coarse_grids():
    rng = np.random.default_rng(0)
    sites, lengths = t_sites('LTA')
    atoms = Atoms('Si24', cell=np.diag(lengths), scaled_positions=(sites + rng.random(3)) % 1, pbc=True)
    for shape, atol in (((32, 32, 32), 0.02), ((10, 11, 12), 0.02)):
        grid = density_grid(atoms, 'Si', shape=shape, device='cpu')
        found, heights, _ = find_peaks(grid, lengths)
        found, heights = fit_peaks(grid, found, heights, np.diag(lengths))
        apart = found[:, None] - atoms.get_scaled_positions()
        apart = np.linalg.norm((apart - np.round(apart)) * lengths, axis=-1)
        assert len(found) == 24 and apart.min(0).max() < atol
        np.testing.assert_allclose(heights, 1.0, atol=0.05)


@pytest.mark.parametrize('name', ['lta', 'mfi'])
@pytest.mark.parametrize('grid', [32, 16, 0.95])
def test_frameworks_come_back_from_their_grids(name, grid, request):
    atoms = request.getfixturevalue(name)
    lengths, rng = atoms.cell.lengths(), np.random.default_rng(2)
    atoms = atoms.copy()
    atoms.positions += rng.random(3) * lengths
    shape = (grid,) * 3 if isinstance(grid, int) else tuple(int(x) for x in np.round(lengths / grid))
    grids = [density_grid(atoms, symbol, shape=shape, device='cpu') for symbol in ('Si', 'O')]
    made = framework_from_grid(*grids, atoms.cell.array, variants=(), relax=False)
    assert made and made.step == 'direct' and made.moved < 0.5 and check_framework(made.atoms) is None
    silicon = atoms[atoms.numbers == 14].get_scaled_positions()
    new = made.atoms[made.atoms.numbers == 14].get_scaled_positions()
    assert len(new) == len(silicon)
    one, other = (coordination_sequences(four_connected_net(x, c)) for x, c in ((silicon, lengths), (new, made.atoms.cell.array)))
    assert sorted(map(tuple, one)) == sorted(map(tuple, other))


def test_false_and_weak_peaks_are_dropped(lta):
    sites = lta[lta.numbers == 14].get_scaled_positions()
    rng = np.random.default_rng(5)
    extra = rng.random((4, 3))
    heights = np.r_[np.ones(24), np.full(4, 0.35)]
    kept, net = match_bonds(np.concatenate([sites, extra]), heights, None, lta.cell.array)
    assert kept.tolist() == list(range(24)) and (coordination_sequences(net)[:, :3] == [4, 9, 17]).all()


def test_displaced_peaks_are_relaxed(sodalite):
    rng = np.random.default_rng(1)
    rough = sodalite.copy()
    silicon = rough.numbers == 14
    rough.positions[silicon] += 0.45 * rng.normal(size=(silicon.sum(), 3))
    grids = [density_grid(rough, symbol, shape=(24, 24, 24), device='cpu') for symbol in ('Si', 'O')]
    made = framework_from_grid(grids[0], 0 * grids[1], rough.cell.array)
    assert made.atoms is None or check_framework(made.atoms) is None
    assert made.peaks > 0 and (made.reason is None) == bool(made)


def operations_of(number):
    """Return rotations and translations of a space group."""
    return tuple(np.array(x) for x in zip(*Spacegroup(number).get_symop(), strict=True))


def test_bonds_of_an_orbit_are_those_of_one_oxygen_site(lta):
    lengths, silicon = lta.cell.lengths(), lta[lta.numbers == 14].get_scaled_positions()
    rough = silicon + 0.01 * np.random.default_rng(0).normal(size=(24, 3)) / lengths
    orbits, chosen = SiteOrbits.of(rough, lengths, operations_of(221))
    assert len(orbits.sites) == 24 and (orbits.owner == 0).all() and chosen.tolist() == [0]
    for g in (0, 17, 40):
        image = orbits.sites @ orbits.rotations[g].T + operations_of(221)[1][g]
        assert np.allclose(image, orbits.sites[orbits.images[g]] + orbits.shifts[g], atol=1e-6)
    pairs, distances = neighbor_pairs(orbits.sites, np.diag(lengths), 3.4, 2000)
    assert len(pairs) == 48
    assert sorted(np.bincount(orbits.bonds(pairs)).tolist()) == [12, 12, 24]  # O1, O2 and O3 of LTA


def test_symmetric_grids_give_symmetric_frameworks(lta):
    rng, shape = np.random.default_rng(1), (24, 24, 24)
    group = GridSymmetry.of(*operations_of(221), shape)
    noise = [group.average(torch.from_numpy(rng.normal(size=shape)), noise=True).numpy() for _ in range(2)]
    grids = [density_grid(lta, s, shape=shape, device='cpu') + 0.15 * x for s, x in zip(('Si', 'O'), noise, strict=True)]
    made = framework_from_grid(*grids, lta.cell.array, operations=operations_of(221))
    assert made.step == 'symmetric' and made.cost < 0.01
    assert space_group_of(made.atoms, 0.05) == 221
    assert net_key(net_of(made.atoms)) == net_key(net_of(lta))
    other = framework_from_grid(*grids, lta.cell.array, operations=operations_of(62))  # a group that the grids have not
    assert other or other.reason in REASONS


def net_of(atoms):
    """Return the net of a framework."""
    return framework_net(atoms.numbers, atoms.get_scaled_positions(), atoms.cell.array)


def test_frameworks_that_shrink_are_refused(sodalite):
    wide = sodalite.copy()
    wide.set_cell(sodalite.cell * 1.06, scale_atoms=True)  # 19 % more volume, which the fit takes back
    si, o = (density_grid(wide, symbol, shape=(16, 16, 16)) for symbol in ('Si', 'O'))
    found = framework_from_grid(si, o, wide.cell)
    kept = found.atoms.get_volume() / wide.get_volume()
    assert 0.8 < kept < 0.9
    assert framework_from_grid(si, o, wide.cell, least_volume=kept - 0.01)
    assert framework_from_grid(si, o, wide.cell, least_volume=0.95).reason == 'shrunk'


def test_the_best_solutions_come_one_after_the_other(lta):
    sites, excluded = lta[lta.numbers == 14].get_scaled_positions(), []
    orbits, _ = SiteOrbits.of(sites, lta.cell.lengths(), operations_of(221))
    found = [match_bonds(orbits.sites, np.ones(24), None, lta.cell.array, orbits=orbits, excluded=excluded) for _ in range(3)]
    assert (coordination_sequences(found[0][1])[:, :3] == [4, 9, 17]).all() and 2 <= len(excluded) <= 3
    assert len({x.tobytes() for x in excluded}) == len(excluded)


def test_shortest_cycles_are_the_published_vertex_symbols():
    quartz = crystal(['Si'], [(0.4697, 0, 2 / 3)], spacegroup=154, cellpar=[4.913, 4.913, 5.405, 90, 90, 120])
    symbols = angle_cycles(four_connected_net(quartz.get_scaled_positions(), quartz.cell.array, (2.9, 3.3)))
    assert (symbols[..., 0] == [6, 6, 6, 6, 8, 8]).all()  # 6.6.6_2.6_2.8_7.8_7, of the rings among the cycles
    assert (symbols[:, :4, 1] == [1, 1, 2, 2]).all() and (symbols[:, 4:, 1] >= 7).all()
    diamond = crystal(['Si'], [(0, 0, 0)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)
    net = four_connected_net(diamond.get_scaled_positions(), diamond.cell.array)
    assert (angle_cycles(net) == [6, 2]).all()  # cristobalite, 6_2 six times
    assert (angle_cycles(four_connected_net(*t_sites('SOD')))[0, :, 0] == [4, 4, 6, 6, 6, 6]).all()


def test_keys_tell_nets_of_equal_coordination_sequences_and_not_cells():
    lta, rho = (four_connected_net(*t_sites(name)) for name in ('LTA', 'RHO'))
    assert net_hash(coordination_sequences(lta)) == net_hash(coordination_sequences(rho)) and net_key(lta) != net_key(rho)
    double = framework_of('SOD').repeat((2, 1, 1))
    silicon = double[double.numbers == 14]
    assert net_key(four_connected_net(silicon.get_scaled_positions(), silicon.cell.array)) == net_key(
        four_connected_net(*t_sites('SOD'))
    )


def test_noise_alone_gives_a_reason():
    rng = np.random.default_rng(0)
    empty = framework_from_grid(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), [9.0, 9.0, 9.0])
    assert not empty and empty.reason == 'no peaks' and empty.peaks == 0
    noise = framework_from_grid(*rng.random((2, 12, 12, 12)), [9.0, 9.0, 9.0])
    assert noise or noise.reason in REASONS
    with pytest.raises(ValueError, match='one shape'):
        framework_from_grid(np.zeros((8, 8, 8)), np.zeros((8, 8, 9)), [9.0, 9.0, 9.0])
    with pytest.raises(ValueError, match='finite'):
        framework_from_grid(np.full((8, 8, 8), np.nan), np.zeros((8, 8, 8)), [9.0, 9.0, 9.0])


@pytest.mark.parametrize('net', [Atoms('Si'), None, 'a phrase', (np.zeros((2, 3), int), np.zeros((2, 3, 3), int)), 3])
def test_what_is_no_net_is_named(net):
    with pytest.raises(TypeError, match='a net is a pair of integer arrays .*framework_net'):
        coordination_sequences(net)
    with pytest.raises(TypeError, match='a net is a pair'):
        net_key(net)


@pytest.mark.parametrize('sequences', [Atoms('Si'), None, [4, 10], [[4.5]]])
def test_what_are_no_sequences_is_named(sequences):
    with pytest.raises(TypeError, match=r'integer array \(n, shells\), of coordination_sequences'):
        net_hash(sequences)
