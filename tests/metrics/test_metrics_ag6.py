"""The Ag6 model is found wherever the substrate's symmetry may put it, and nowhere else."""

import numpy as np
import pytest
from ase.build import fcc100, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from ase.optimize import BFGS

from ase_diffusion.metrics import ag6_model, fingerprint, is_ag6, min_distance_ratio, substrate_symmetries
from ase_diffusion.metrics.surface.overlayers import FINGERPRINT_TOL

# Overlayer of the model, relaxed with 7net-mf-0 (modal PBE, BFGS, fmax 0.05 eV/A), in A, slab of ag6_model()
RELAXED = [
    [2.979, 1.722, 14.817],
    [4.462, 4.215, 14.814],
    [5.885, 6.749, 14.817],
    [5.885, 1.756, 14.814],
    [7.302, 4.219, 14.814],
    [8.786, 1.719, 14.817],
    [14.672, 8.469, 14.812],
    [13.188, 5.975, 14.808],
    [11.765, 3.439, 14.812],
    [11.764, 8.434, 14.808],
    [10.346, 5.971, 14.808],
    [8.862, 8.472, 14.812],
    [4.158, 0.001, 14.872],
    [7.608, -0.001, 14.872],
    [2.078, 3.601, 14.872],
    [3.805, 6.588, 14.872],
    [7.963, 6.589, 14.872],
    [9.686, 3.600, 14.872],
]


def relaxed_model():
    atoms = ag6_model()
    atoms.positions[32:] = RELAXED
    return atoms


def shuffled(atoms, rng):
    """Permute the mobile atoms."""
    return atoms[np.r_[:32, 32 + rng.permutation(len(atoms) - 32)]]


@pytest.fixture(params=['ideal', 'relaxed'])
def model(request):
    return ag6_model() if request.param == 'ideal' else relaxed_model()


class TestModel:
    def test_contents(self):
        atoms = ag6_model()
        assert atoms.get_chemical_formula() == 'Ag44O6'
        assert atoms.symbols[32:].get_chemical_formula() == 'Ag12O6'
        assert atoms.constraints[0].get_indices().tolist() == list(range(32))
        assert atoms.get_tags().tolist() == [2] * 16 + [1] * 16 + [0] * 18
        assert atoms.info == {} and atoms.pbc.tolist() == [True, True, False]
        np.testing.assert_array_equal(atoms.cell, fcc111('Ag', (4, 4, 2), a=4.16, vacuum=10.0).cell)

    def test_graph(self):
        """18 contacts at the bulk distance, six O bonded to four Ag each, one exposed top atom."""
        distances = ag6_model().get_all_distances(mic=True)
        silver = distances[32:44, 32:44]
        assert (np.abs(silver - 4.16 / np.sqrt(2)) < 1e-9).sum() == 2 * 18
        bonds = distances[44:, 32:44]
        assert ((bonds > 2.05) & (bonds < 2.5)).sum(1).tolist() == [4] * 6
        exposed = distances[16:32, 32:].min(1) > 4.0
        assert exposed.sum() == 1

    def test_near_the_relaxed_one(self):
        assert np.linalg.norm(ag6_model().positions - relaxed_model().positions, axis=1).max() < 0.3

    @pytest.mark.parametrize('options', [{'layers': 3}, {'a': 4.05, 'layers': 4}, {'vacuum': 7.0}])
    def test_options(self, options):
        assert is_ag6(ag6_model(**options))


class TestAccepts:
    def test_model(self, model):
        assert is_ag6(model)
        assert min_distance_ratio(model) > 0.95

    def test_symmetries(self, model):
        rng = np.random.default_rng(0)
        operations = substrate_symmetries(model)
        assert len(operations) == 16 * 6
        for rotation, shift in operations:
            atoms = model.copy()
            atoms.positions[32:] = atoms.positions[32:] @ rotation.T + shift
            atoms = shuffled(atoms, rng)
            assert is_ag6(atoms)
            np.testing.assert_allclose(fingerprint(atoms), fingerprint(model), atol=1e-9)
            atoms.set_constraint()
            atoms.wrap()
            atoms.set_constraint(FixAtoms(range(32)))
            assert is_ag6(atoms)

    def test_rattled(self, model):
        rng = np.random.default_rng(1)
        for _ in range(50):
            atoms = model.copy()
            atoms.positions[32:] += rng.normal(0, 0.1, (18, 3))
            assert is_ag6(atoms)

    @pytest.mark.parametrize('repeat', [(2, 1, 1), (1, 3, 1), (2, 2, 1)])
    def test_repeated(self, model, repeat):
        assert is_ag6(model.repeat(repeat))

    def test_turned_cell_and_shifted_origin(self, model):
        model.set_constraint()
        model.translate([1.1, -0.7, 3.0])
        model.rotate(41, 'z', rotate_cell=True)
        model.set_constraint(FixAtoms(range(32)))
        assert is_ag6(model)

    def test_skewed_cell(self, model):
        model.set_cell([model.cell[0], model.cell[1] - model.cell[0], model.cell[2]])
        assert is_ag6(model)


class TestRejects:
    def lateral(self, atoms, rows, shift):
        """Shift mobile atoms by a vector in 1x1 units."""
        atoms.positions[rows, :2] += np.array(shift) @ atoms.cell.array[:2, :2] / 4

    @pytest.mark.parametrize('site', [(0, 0), (4 / 3, 4 / 3), (2, 2), (0.5, 0.5), (3.5, 0), (1, 1)])
    @pytest.mark.parametrize('height', [1.2, 2.5, 3.8])
    def test_one_oxygen_elsewhere(self, model, site, height):
        base, top = model.positions[16, :2], model.positions[31, 2]
        model.positions[44] = [*(base + np.array(site) @ model.cell.array[:2, :2] / 4), top + height]
        assert not is_ag6(model)

    def test_two_oxygen_at_one_edge(self, model):
        model.positions[45] = model.positions[44] + [0.3, 0, 0.5]
        assert not is_ag6(model)

    @pytest.mark.parametrize('rows, shift', [(range(38, 44), (1 / 3, 1 / 3)), (range(32, 38), (-1 / 3, -1 / 3))])
    def test_both_triangles_on_one_kind_of_site(self, model, rows, shift):
        self.lateral(model, list(rows), shift)
        assert not is_ag6(model)

    @pytest.mark.parametrize('shift', [(1 / 3, 1 / 3), (-1 / 3, -1 / 3), (0.5, 0), (0, 0.5)])
    def test_overlayer_out_of_registry(self, model, shift):
        self.lateral(model, list(range(32, 50)), shift)
        assert not is_ag6(model)

    def test_one_silver_in_the_trench(self, model):
        self.lateral(model, [32], (-2 / 3, -2 / 3))
        assert not is_ag6(model)

    def test_lifted_triangle(self, model):
        model.positions[[32, 33]] += [0, 0, 2.5]
        assert not is_ag6(model)

    def test_half_turn_needs_the_hollows_exchanged(self, model):
        """A half turn about a top site keeps the overlayer, a half turn about a hollow does not."""
        base = model.positions[16, :2]
        for centre, expected in (((2, 2), True), ((1 / 3, 1 / 3), False)):
            atoms = model.copy()
            middle = base + np.array(centre) @ model.cell.array[:2, :2] / 4
            atoms.positions[32:, :2] = 2 * middle - atoms.positions[32:, :2]
            assert is_ag6(atoms) is expected

    def test_composition(self, model):
        for drop in ([32], [44], [32, 33, 44], list(range(32, 50))):
            atoms = model.copy()
            del atoms[drop]
            assert not is_ag6(atoms)
        model.symbols[44] = 'S'
        assert not is_ag6(model)

    def test_other_cells_and_substrates(self, model):
        for slab in (fcc111('Ag', (4, 8, 2), a=4.16, vacuum=10.0), fcc100('Ag', (4, 4, 2), a=4.16, vacuum=10.0)):
            slab.set_constraint(FixAtoms(range(len(slab))))
            assert not is_ag6(slab + model[32:])

    def test_not_finite(self, model):
        model.positions[40, 1] = np.nan
        assert not is_ag6(model)

    def test_random_and_relaxed_otherwise(self):
        rng = np.random.default_rng(2)
        for k in range(60):
            atoms = random_overlayer(rng)
            assert not is_ag6(atoms)
            if k < 3:
                atoms.calc = EMT()
                BFGS(atoms, logfile=None).run(fmax=0.3, steps=25)
                assert not is_ag6(atoms)
                assert np.linalg.norm(fingerprint(atoms) - fingerprint(ag6_model())) > FINGERPRINT_TOL

    def test_needs_a_substrate(self, model):
        model.set_constraint()
        with pytest.raises(ValueError, match='FixAtoms'):
            is_ag6(model)
        one_layer = ag6_model(layers=2)
        one_layer.set_constraint()
        del one_layer[:16]
        one_layer.set_constraint(FixAtoms(range(16)))
        with pytest.raises(ValueError, match='two or more'):
            is_ag6(one_layer)


def random_overlayer(rng):
    """Place 12 Ag and 6 O at random above the slab, apart by 0.7 of the sum of their radii."""
    atoms = ag6_model()
    top = atoms.positions[31, 2]
    for row in range(32, 50):
        for _ in range(1000):
            atoms.positions[row] = rng.random(3) * [1, 1, 0] @ atoms.cell.array + [0, 0, top + rng.uniform(1.0, 4.5)]
            limits = 0.7 * (covalent_radii[atoms.numbers[row]] + covalent_radii[atoms.numbers[:row]])
            if (atoms.get_distances(row, range(row), mic=True) > limits).all():
                break
    return atoms
