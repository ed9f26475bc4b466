"""Overlayers as training data: repeats from the originals, splits by runs, batches that depend on their number only."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc100, fcc110, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import covalent_radii

from ase_diffusion.networks import ForceField
from ase_diffusion.representations import Slab
from ase_diffusion.representations.slab import neighbor_distance
from ase_diffusion.training import OverlayerData, Overlayers
from ase_diffusion.training.data import fixed_batches
from ase_diffusion.training.surface import described, fit_references
from ase_diffusion.weights.zoo import load_model


def frame(run, step=0, seed=0, size=(2, 2, 1), top='AgO', energy=None, pbc=(True, True, False)):
    """One labelled overlayer on Ag(111)."""
    rng = np.random.default_rng((seed, run, step))
    atoms = fcc111('Ag', size, a=4.16, vacuum=8.0)
    atoms.pbc = pbc
    atoms.set_constraint(FixAtoms(indices=range(len(atoms))))
    height = atoms.positions[:, 2].max()
    adatoms = Atoms(top)
    adatoms.positions = rng.uniform(0, 5, (len(adatoms), 3)) * [1, 1, 0.4] + [0, 0, height + 1]
    atoms += adatoms
    energy = rng.uniform(-10, -5) if energy is None else energy
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=rng.normal(size=(len(atoms), 3)))
    atoms.info['key_value_pairs'] = {'run': run, 'step': step}
    return atoms


@pytest.fixture
def data():
    """Eight relaxations of three frames, in two cells."""
    return Overlayers.from_atoms(
        [frame(run, step, size=(2, 2, 1) if run % 2 else (3, 2, 1)) for run in range(8) for step in range(3)]
    )


def test_items_hold_mobile_and_frozen_atoms_apart(data):
    atoms, item = frame(0, size=(3, 2, 1)), data.items[0]
    assert np.array_equal(item.positions, atoms.positions[6:]) and np.array_equal(item.substrate, atoms.positions[:6])
    assert item.numbers.tolist() == [47, 8] and item.substrate_numbers.tolist() == [47] * 6
    assert item.energy == atoms.get_potential_energy()
    assert np.array_equal(item.forces, atoms.get_forces(apply_constraint=False)[6:])
    assert item.surface_z == atoms.positions[:6, 2].max() and item.run == 0
    assert data.elements() == ([8, 47], [47])


def test_relative_energies_count_from_the_best_of_the_same_composition_and_cell():
    images = [
        frame(0, energy=-5.0),
        frame(1, energy=-6.0),
        frame(2, top='Ag', energy=-9.0),
        frame(3, energy=-5.5),
        frame(4, size=(3, 2, 1), energy=-3.0),
    ]
    relative = [item.energy_above_best for item in Overlayers.from_atoms(images).items]
    assert relative == pytest.approx([0.5, 0.0, 0.0, 0.25, 0.0])  # per mobile atom
    bare = frame(5)
    bare.calc = None
    assert np.isnan(Overlayers.from_atoms([bare]).items[0].energy_above_best)


def test_repeats_tile_everything_and_scale_the_energy(data):
    for item in (data.items[0], data.items[4]):
        for m, n in ((2, 1), (1, 2), (2, 2)):
            big, k = item.repeat(m, n), m * n
            assert np.allclose(big.cell, item.cell * [[m], [n], [1]])
            assert big.energy == pytest.approx(k * item.energy) and big.energy_above_best == item.energy_above_best
            assert np.array_equal(big.forces, np.tile(item.forces, (k, 1)))
            assert (big.surface_z, big.run, big.group) == (item.surface_z, item.run, item.group)
            # the same as ASE's repeat
            atoms = Atoms(item.numbers, item.positions, cell=item.cell, pbc=(1, 1, 0)).repeat((m, n, 1))
            assert np.allclose(big.positions, atoms.positions) and np.array_equal(big.numbers, atoms.numbers)
            atoms = Atoms(item.substrate_numbers, item.substrate, cell=item.cell).repeat((m, n, 1))
            assert np.allclose(big.substrate, atoms.positions)


def test_repeats_start_from_the_originals_and_never_compound(data):
    before = [(len(i.numbers), i.cell.copy(), i.positions.copy()) for i in data.items]
    source = OverlayerData(data, Slab(), batch_size=16, repeat=1.0, max_atoms=1000)
    lengths = {round(float(np.linalg.norm(i.cell[0])), 6) for i in data.items}
    for k in range(20):
        batch = source.draw(k)
        found = {round(float(x), 3) for x in batch.extras['cell'][:, 0].norm(dim=-1)}
        assert found <= {round(f * length, 3) for f in (1, 2) for length in lengths}
        counts = torch.bincount(batch.rows['positions'])
        assert set(counts.tolist()) <= {4, 8}  # 2 atoms, repeated two or four times
    for (n, cell, positions), item in zip(before, data.items, strict=True):
        assert (len(item.numbers), True, True) == (n, np.array_equal(cell, item.cell), np.array_equal(positions, item.positions))


def test_the_share_and_the_size_of_repeats(data):
    source = OverlayerData(data, Slab(), batch_size=50, repeat=0.25, max_atoms=1000)
    repeated = [int((source.draw(k).rows['positions'].bincount() > 2).sum()) for k in range(20)]
    assert 0.2 < sum(repeated) / 1000 < 0.3
    small = OverlayerData(data, Slab(), batch_size=50, repeat=1.0, max_atoms=16)
    for k in range(5):
        assert small.draw(k).extras['rows'].bincount().max() <= 16


@pytest.mark.parametrize('pbc', [(True, False, False), False])
def test_slabs_are_periodic_in_the_plane(pbc):
    with pytest.raises(ValueError, match=r'structure 0 \(Ag5O\), .*: a slab is periodic in the plane'):
        Overlayers.from_atoms([frame(k, pbc=pbc) for k in range(3)])


@pytest.mark.parametrize('fraction', [0.05, 0.3, 0.6])
def test_splits_keep_relaxations_whole(data, fraction):
    training, held = data.split(fraction, seed=3)
    runs = [{item.run for item in part.items} for part in (training, held)]
    assert not runs[0] & runs[1] and runs[0] | runs[1] == set(range(8))
    assert len(training.items) + len(held.items) == 24
    assert len(runs[1]) == max(1, round(fraction * 8))
    again, _ = data.split(fraction, seed=3)
    assert [item.run for item in again.items] == [item.run for item in training.items]


def test_a_single_relaxation_is_training_and_validation():
    data = Overlayers.from_atoms([frame(0, step) for step in range(3)])
    assert [len(part.items) for part in data.split()] == [3, 3]


def test_frames_without_a_run_are_runs_of_their_own():
    images = [frame(0, step) for step in range(4)]
    for atoms in images:
        atoms.info = {}
    assert len({item.run for item in Overlayers.from_atoms(images).items}) == 4


def test_relaxations_may_have_names():
    images = [frame(run, step) for run in range(3) for step in range(2)]
    for k, atoms in enumerate(images):
        atoms.info = {'run': 'abc'[k // 2]} if k < 4 else {}
    runs = [item.run for item in Overlayers.from_atoms(images).items]
    assert runs[0] == runs[1] != runs[2] == runs[3] and len(set(runs)) == 4


def same(a, b):
    return (
        all(torch.equal(x, b.fields[k]) for k, x in a.fields.items())
        and torch.allclose(a.conditions['energy'], b.conditions['energy'], equal_nan=True)
        and all(torch.equal(x, b.extras[k]) for k, x in a.extras.items() if torch.is_tensor(x))
    )


def test_batch_k_depends_on_seed_and_k_only(data):
    source = OverlayerData(data, Slab(), batch_size=4, seed=1)
    first = [source.draw(k) for k in range(4)]
    late = OverlayerData(data, Slab(), batch_size=4, seed=1, start=2)
    resumed = iter(late)
    assert same(first[2], next(resumed)) and same(first[3], next(resumed))
    assert not same(first[0], first[1])
    assert not same(first[0], OverlayerData(data, Slab(), batch_size=4, seed=2).draw(0))


def test_conditions_are_dropped_at_their_share(data):
    source = OverlayerData(data, Slab(), batch_size=100, dropout=0.15)
    dropped = torch.cat([source.draw(k).conditions['energy'] for k in range(20)]).isnan().float().mean()
    assert 0.12 < float(dropped) < 0.18
    kept = OverlayerData(data, Slab(), batch_size=100, dropout=0.0).draw(0)
    assert not kept.conditions['energy'].isnan().any()
    assert not any(batch.conditions['energy'].isnan().any() for batch in fixed_batches(OverlayerData(data, Slab()), size=5))
    assert not any(np.isnan(item.energy_above_best) for item in data.items)  # the data keeps its values


def test_batches_carry_energies_and_forces_of_the_repeated_structures(data):
    batch = OverlayerData(data, Slab(dtype=torch.float64), batch_size=30, repeat=0.5).draw(0)
    assert batch.extras['forces'].shape == batch.fields['positions'].shape
    mobile = batch.rows['positions'].bincount()
    energies = {round(item.energy, 8) for item in data.items}
    assert all(round(float(e / (n / 2)), 8) in energies for e, n in zip(batch.extras['energy'], mobile, strict=True))


def test_the_window_holds_all_atoms(data):
    low, high = data.window(0.25)
    z = np.concatenate([item.positions[:, 2] - item.surface_z for item in data.items])
    assert (low, high) == pytest.approx((z.min() - 0.25, z.max() + 0.25))


def test_references_explain_energies_that_are_sums_over_atoms():
    energies = {'Ag': -2.5, 'O': -4.0}
    images = [
        frame(k, top=top, size=(n, 2, 1), energy=sum(energies[a.symbol] for a in Atoms(top)) - 1.5 * 2 * n)
        for k, (top, n) in enumerate([('AgO', 2), ('Ag2O', 3), ('AgO2', 2), ('Ag3O', 1), ('O', 3)])
    ]
    data = Overlayers.from_atoms(images)
    network = ForceField(features=8, blocks=1)
    fit_references(network, data)
    batch = data.batch(data.items, Slab())
    assert network.reference_energy(batch).tolist() == pytest.approx([item.energy for item in data.items])
    assert float(network.references[0, 47]) == pytest.approx(-2.5)


def test_what_is_no_data_is_refused():
    with pytest.raises(ValueError, match='empty: no structures'):
        Overlayers.from_atoms([])
    free = frame(1)
    free.set_constraint()
    with pytest.raises(ValueError, match=r'structure 0 \(Ag5O\): the slab has no FixAtoms'):
        Overlayers.from_atoms([free])
    fixed = frame(1)
    fixed.set_constraint(FixAtoms(indices=range(len(fixed))))
    with pytest.raises(ValueError, match=r'structure 0 \(Ag5O\): the slab has no mobile atoms'):
        Overlayers.from_atoms([fixed])
    with pytest.raises(ValueError, match='empty after selection'):
        OverlayerData(Overlayers.from_atoms([frame(0)]).select(lambda item: False), Slab())
    with pytest.raises(ValueError, match='batch_size is'):
        OverlayerData(Overlayers.from_atoms([frame(0)]), Slab(), batch_size=0)


def test_fingerprints_tell_data_apart(data):
    assert data.fingerprint() == data.select(lambda item: True).fingerprint()
    assert data.fingerprint() != data.select(lambda item: item.run > 0).fingerprint()


def test_frames_that_are_marked_decide_what_is_held_out():
    images = [frame(run, step) for run in range(6) for step in range(2)]
    for atoms in images:
        atoms.info['key_value_pairs']['held'] = atoms.info['key_value_pairs']['run'] in (1, 4)
    training, held = Overlayers.from_atoms(images).split(0.5, seed=1)
    assert {item.run for item in held.items} == {1, 4} and {item.run for item in training.items} == {0, 2, 3, 5}


def test_the_best_of_a_composition_is_that_on_the_same_metal():
    """O on two metals in equal cells: two groups, 50 eV apart."""
    images = []
    for metal, energy in (('Ag', -50.0), ('Au', -100.0)):
        slab = fcc111(metal, (2, 2, 2), a=4.17, vacuum=10.0)
        slab.set_constraint(FixAtoms(indices=range(len(slab))))
        for extra in (0.0, 0.5):
            atoms = slab.copy()
            atoms.append('O')
            atoms.positions[-1] = slab.positions[-1] + [0, 0, 1.5]
            atoms.calc = SinglePointCalculator(atoms, energy=energy + extra, forces=np.zeros((len(atoms), 3)))
            images.append(atoms)
    assert [item.energy_above_best for item in Overlayers.from_atoms(images).items] == [0.0, 0.5, 0.0, 0.5]


def test_spacing_is_the_distance_of_neighbors_in_the_substrate():
    for build, size in ((fcc111, (1, 1, 1)), (fcc111, (3, 2, 2)), (fcc100, (2, 2, 2)), (fcc110, (1, 1, 3))):
        slab = build('Cu', size, a=3.6, vacuum=8.0)
        slab.set_constraint(FixAtoms(indices=range(len(slab))))
        slab.append('O')
        slab.positions[-1] = slab.positions[-2] + [0, 0, 1.2]
        slab.calc = SinglePointCalculator(slab, energy=0.0, forces=np.zeros((len(slab), 3)))
        [item] = Overlayers.from_atoms([slab]).items
        assert item.spacing == pytest.approx(3.6 / 2**0.5)
        assert item.span(2.9) == pytest.approx((1.2 * 2.9 / item.spacing,) * 2)
    chain = Atoms('CuO', [[0, 0, 0], [0, 0, 2]], cell=[9, 9, 20], pbc=(True, True, False), constraint=FixAtoms([0]))
    assert neighbor_distance(chain) == pytest.approx(2 * covalent_radii[29])


def test_a_network_that_is_given_descriptors_begins_as_it_was_and_takes_all_metals_for_silver():
    network, _ = load_model('ag-o-overlayer')
    new = described(network).eval()
    batches = []
    for metal in ('Ag', 'Ni'):
        slab = fcc111(metal, (2, 2, 2), a=4.16, vacuum=10.0)
        slab.set_constraint(FixAtoms(indices=range(len(slab))))
        slab.extend(Atoms(f'{metal}O', slab.positions[-2:] + [0, 0, 2.2]))
        batches.append(Slab((0.4, 5.0)).encode([slab], {'energy': [0.0]}))
    with torch.no_grad():
        old, same, renamed = (
            one(batch, torch.zeros(1), batch.conditions)['positions']
            for one, batch in ((network, batches[0]), (new, batches[0]), (new, batches[1]))
        )
    assert torch.allclose(old, same, atol=1e-5) and torch.allclose(old, renamed, atol=1e-5)
    assert described(new) is new
    rows = new.representation.embedding.train()
    with torch.no_grad():
        rows.rows += 1.0
    found = torch.stack([rows(torch.tensor([8, 28, 47])) for _ in range(200)])  # (200, 3, F)
    kept = (found - found.amin(0)).amax(-1) > 0.5
    assert not kept[:, 0].any() and 0.55 < kept[:, 1:].float().mean() < 0.85  # rows of metals are left out at times
