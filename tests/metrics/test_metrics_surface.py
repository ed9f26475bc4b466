"""Laws of the overlayer measures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import covalent_radii

from ase_diffusion import metrics
from ase_diffusion.metrics.surface.overlayers import FINGERPRINT_TOL

EXACT = 1e-9


def overlayer(size=(2, 2, 2), symbols='Ag2O', seed=0, a=4.16):
    """Return a frozen slab with atoms at random lateral places and spread heights."""
    rng = np.random.default_rng(seed)
    slab = fcc111('Ag', size, a=a, vacuum=8.0)
    slab.set_constraint(FixAtoms(range(len(slab))))
    new = Atoms(symbols)
    new.positions = rng.random((len(new), 3)) @ slab.cell.array
    new.positions[:, 2] = slab.positions[:, 2].max() + 2.0 + 0.7 * np.arange(len(new))
    return slab + new


def with_energy(atoms, energy):
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def moved(atoms, rotation, shift):
    """Apply an operation to the mobile atoms only."""
    atoms = atoms.copy()
    mobile = metrics.mobile_mask(atoms)
    atoms.positions[mobile] = atoms.positions[mobile] @ rotation.T + shift
    return atoms


def test_names_are_lazy():
    assert set(metrics.__all__) <= set(dir(metrics))
    with pytest.raises(AttributeError, match='it has'):
        metrics.nothing  # noqa: B018


def test_mobile_mask():
    atoms = overlayer()
    assert metrics.mobile_mask(atoms).tolist() == [False] * 8 + [True] * 3
    assert metrics.mobile_mask(molecule('H2O')).all()


class TestRatio:
    def test_pair(self):
        atoms = Atoms('AgO', [[0, 0, 0], [0, 0, 2.0]])
        assert metrics.min_distance_ratio(atoms) == pytest.approx(2.0 / (covalent_radii[47] + covalent_radii[8]))

    def test_images_of_one_atom_count(self):
        atoms = Atoms('Ag', cell=[2.0, 9.0, 9.0], pbc=[True, True, False])
        assert metrics.min_distance_ratio(atoms) == pytest.approx(1.0 / covalent_radii[47])
        atoms.pbc = False
        assert metrics.min_distance_ratio(atoms) == np.inf

    def test_frozen_pairs_do_not_count(self):
        atoms = Atoms('Ag3', [[0, 0, 0], [0, 0, 0.5], [0, 0, 3.5]], constraint=FixAtoms([0, 1]))
        assert metrics.min_distance_ratio(atoms) == pytest.approx(1.5 / covalent_radii[47])
        atoms.set_constraint(FixAtoms([0, 1, 2]))
        assert metrics.min_distance_ratio(atoms) == np.inf

    def test_small_atom_far_from_big_ones(self):
        """The closest pair is not the one with the smallest ratio."""
        atoms = Atoms('HHCsCs', [[0, 0, 0], [0, 0, 1.0], [0, 0, 20.0], [0, 0, 24.0]])
        assert metrics.min_distance_ratio(atoms) == pytest.approx(4.0 / (2 * covalent_radii[55]))

    @pytest.mark.parametrize('shift', [0.0, -40.0])
    def test_slab_without_vacuum(self, shift):
        atoms = fcc111('Ag', (1, 1, 2), a=4.16)
        atoms.positions[:, 2] += shift
        assert metrics.min_distance_ratio(atoms) == pytest.approx(4.16 / np.sqrt(2) / (2 * covalent_radii[47]))

    def test_validity(self):
        good, bad, broken = bulk('Ag'), bulk('Ag', a=2.0), bulk('Ag')
        broken.positions[0, 0] = np.nan
        overlap = Atoms('O2', [[0, 0, 0], [0, 0, 0]])
        assert [metrics.is_valid(atoms) for atoms in (good, bad, broken, overlap)] == [True, False, False, False]
        assert metrics.validity([good, bad, broken, overlap]) == 0.25
        assert np.isnan(metrics.validity([]))


class TestSymmetries:
    @pytest.mark.parametrize(
        'size, layers, count', [((1, 1), 1, 12), ((1, 1), 2, 6), ((2, 2), 2, 24), ((2, 4), 2, 16), ((4, 4), 3, 96)]
    )
    def test_counts(self, size, layers, count):
        slab = fcc111('Ag', (*size, layers), a=4.16, vacuum=5.0)
        assert len(metrics.substrate_symmetries(slab)) == count

    def test_operations_keep_the_substrate(self):
        slab = overlayer()
        frozen = slab[~metrics.mobile_mask(slab)]
        operations = metrics.substrate_symmetries(slab)
        np.testing.assert_allclose(operations[0][0], np.eye(3), atol=EXACT)
        np.testing.assert_allclose(operations[0][1], 0, atol=EXACT)
        for rotation, shift in operations:
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=EXACT)
            image = frozen.copy()
            image.set_constraint()
            image.positions = image.positions @ rotation.T + shift
            gaps = np.linalg.norm((frozen + image).get_all_distances(mic=True, vector=True)[:8, 8:], axis=-1)
            assert sorted(gaps.argmin(1)) == list(range(8))
            assert gaps.min(1).max() < 1e-6

    def test_skewed_cell(self):
        """The same lattice by other vectors has the same operations."""
        slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=5.0)
        slab.set_cell([slab.cell[0], slab.cell[1] + 3 * slab.cell[0], slab.cell[2]])
        assert len(metrics.substrate_symmetries(slab)) == 24


class TestFingerprint:
    def test_invariance(self):
        atoms = overlayer()
        reference = metrics.fingerprint(atoms)
        assert np.linalg.norm(reference) == pytest.approx(1.0)
        order = np.r_[:8, [10, 8, 9]]
        alike = [moved(atoms, *operation) for operation in metrics.substrate_symmetries(atoms)]
        alike += [atoms[order], atoms.repeat((2, 1, 1))]
        for other in alike:
            np.testing.assert_allclose(metrics.fingerprint(other), reference, atol=EXACT)

    def test_whole_structure_may_turn(self):
        atoms = overlayer()
        reference = metrics.fingerprint(atoms)
        atoms.rotate(33, 'z', rotate_cell=True)
        np.testing.assert_allclose(metrics.fingerprint(atoms), reference, atol=EXACT)

    def test_continuous(self):
        atoms, other = overlayer(), overlayer()
        other.positions[-1] += 1e-6
        assert np.linalg.norm(metrics.fingerprint(atoms) - metrics.fingerprint(other)) < 1e-4

    def test_tells_fcc_from_hcp(self):
        images = []
        for site in (1 / 3, 2 / 3):
            slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8.0)
            slab.set_constraint(FixAtoms(range(8)))
            place = np.array([site, site, 0]) @ slab.cell.array / 2 + [0, 0, slab.positions[:, 2].max() + 1.2]
            images.append(slab + Atoms('O', [place]))
        first, second = map(metrics.fingerprint, images)
        assert np.linalg.norm(first - second) > FINGERPRINT_TOL

    def test_one_oxygen_on_another_site(self):
        model = metrics.ag6_model()
        other = model.copy()
        other.positions[44] = model.positions[0] + np.array([0, 0, 5.5])
        assert len(set(metrics.duplicates([model, other]))) == 2

    def test_without_mobile_atoms(self):
        slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=5.0)
        slab.set_constraint(FixAtoms(range(8)))
        assert metrics.fingerprint(slab).size == 0


class TestDuplicates:
    def test_first_of_its_kind(self):
        a, b = overlayer(seed=1), overlayer(seed=2)
        operation = metrics.substrate_symmetries(a)[7]
        oxidised = overlayer(symbols='Ag2O2')
        assert metrics.duplicates([a, b, moved(a, *operation), oxidised, b]) == [0, 1, 0, 3, 1]
        assert metrics.duplicates([]) == []

    def test_relaxation_noise(self):
        a, rng = overlayer((4, 4, 2), 'Ag4O2'), np.random.default_rng(0)
        images = [a]
        for _ in range(10):
            images.append(moved(a, np.eye(3), rng.normal(0, 0.01, (6, 3))))
        assert metrics.duplicates(images) == [0] * 11

    def test_energy(self):
        a = overlayer()
        images = [with_energy(a, -1.0), with_energy(a, -1.01), with_energy(a, -1.5), a]
        assert metrics.duplicates(images) == [0, 0, 2, 0]
        assert metrics.duplicates(images, 1.0) == [0, 0, 0, 0]

    def test_substrate_counts(self):
        """The same atoms with another substrate are another structure."""
        a, b = overlayer(), overlayer()
        b.set_constraint(FixAtoms(range(7)))
        assert metrics.duplicates([a, b]) == [0, 1]


class TestEnergies:
    images = (
        with_energy(molecule('H2O'), -2.0),
        molecule('H2O'),
        with_energy(molecule('H2O'), -2.5),
        with_energy(molecule('O2'), 4.0),
    )

    def test_lowest_of_each_composition(self):
        np.testing.assert_allclose(metrics.relative_energies(self.images), [0.5, np.nan, 0.0, 0.0])

    def test_reference(self):
        np.testing.assert_allclose(metrics.relative_energies(self.images[:1], -3), [1.0])
        np.testing.assert_allclose(metrics.relative_energies(self.images[:3], self.images[0]), [0.0, np.nan, -0.5])
        assert metrics.relative_energies([]).shape == (0,)

    def test_errors_help(self):
        with pytest.raises(ValueError, match='O2 and the reference H2O'):
            metrics.relative_energies(self.images, self.images[0])
        with pytest.raises(ValueError, match='pass a number'):
            metrics.relative_energies(self.images, self.images[1])


class TestSuccess:
    def test_curve(self):
        counts, p, (low, high) = metrics.success_curve([True, False, False, False])
        assert counts.tolist() == [1, 2, 3, 4]
        np.testing.assert_allclose(p, 1 - 0.75 ** np.arange(1, 5))
        assert (low < p).all() and (p < high).all() and (np.diff(p) > 0).all()

    def test_limits(self):
        _, p, (low, high) = metrics.success_curve([False] * 10, [1, 100])
        assert p.tolist() == low.tolist() == [0, 0] and high[0] == pytest.approx(0.3085, abs=1e-3)
        assert metrics.success_curve([True] * 3)[1].tolist() == [1, 1, 1]
        with pytest.raises(ValueError, match='at least one'):
            metrics.success_curve([])
