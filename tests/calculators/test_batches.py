"""Batches of SevenNet give the numbers of its calculator, and relaxations in batches those of ASE's BFGS."""

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.relax.batched import irelax_batched
from ase_diffusion.relax.settings import Settings
from ase_diffusion.representations.slab import SlabTemplate
from ase_diffusion.search import random_start

pytest.importorskip('sevenn')
from ase_diffusion.calculators.batches import SevenNetBatches  # noqa: E402


@pytest.fixture(scope='module')
def batches():
    return SevenNetBatches(get_calculator('7net-mf-0'))


@pytest.fixture(scope='module')
def overlayers():
    slab = fcc111('Cu', (2, 2, 2), a=3.61, vacuum=6.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(8)))
    return [random_start(slab, formula, seed) for seed, formula in enumerate(['O', 'CuO', 'Cu2O'])]


def test_batches_are_the_calculator(batches, overlayers):
    """Small and skewed cells, periodic and not, atoms outside of the cell, a molecule without a cell."""
    shifted = bulk('NaCl', 'rocksalt', a=5.6)
    shifted.positions += 20.0
    images = [*overlayers, bulk('Cu'), shifted, molecule('H2O')]
    energies, forces = batches.evaluate(images)
    calc = batches.calculator  # of single structures again
    for atoms, energy, force in zip(images, energies, forces, strict=True):
        atoms = atoms.copy()
        atoms.calc = calc
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert force == pytest.approx(atoms.get_forces(apply_constraint=False), abs=1e-4)


def test_relaxed_in_batches_as_by_ase(batches, overlayers):
    frames = [[] for _ in overlayers]
    ends = dict(irelax_batched(overlayers, batches, Settings(fmax=0.1, steps=40), batch_size=2, frames=frames))
    one = relax(overlayers, '7net-mf-0', fmax=0.1, steps=40, batch_size=1)
    for number, atoms in enumerate(one):
        end, pairs = ends[number], ends[number].info['key_value_pairs']
        assert end.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=0.02)
        assert pairs['energy_generated'] == pytest.approx(atoms.info['key_value_pairs']['energy_generated'], abs=1e-4)
        path = frames[number]
        assert [a.info['key_value_pairs']['step'] for a in path] == list(range(pairs['relax_steps'] + 1))
        assert path[-1].get_potential_energy() == end.get_potential_energy()
        assert np.array_equal(path[0].positions, overlayers[number].positions)
        assert np.abs(end.get_forces(apply_constraint=False)[:8]).max() > 0.05  # raw, on the frozen atoms too


def test_unknown_elements_are_refused(batches, overlayers):
    with pytest.raises(ValueError, match='does not know'):
        batches.check(bulk('Po', 'sc', a=3.35))
    batches.check(SlabTemplate.of(overlayers[0]))
