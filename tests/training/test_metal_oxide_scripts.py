"""The scripts that make the data and models of many metals: what groups hold, what is kept, how elements and energies begin."""

import importlib
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from ase_diffusion.representations import Slab
from ase_diffusion.representations.descriptors import crystal_neighbor_distance
from ase_diffusion.representations.slab import SlabTemplate, top_contacts
from ase_diffusion.search import random_start
from ase_diffusion.training import Overlayers
from ase_diffusion.utils.atoms import copy_atoms
from ase_diffusion.weights.zoo import load_model

SCRIPTS = Path(__file__).parents[2] / 'scripts'


@pytest.fixture(scope='module')
def scripts():
    """The two scripts as modules."""
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module('metal_oxide_round'), importlib.import_module('metal_oxide_train')
    sys.path.remove(str(SCRIPTS))


def test_some_metals_never_meet_oxygen(scripts):
    rounds, _ = scripts
    for kind, draw in rounds.KINDS.items():
        for number in range(200):
            metal, facet, size, formula = draw(number, np.random.default_rng(number))
            structure, _, _, sizes = rounds.FACETS[facet]
            assert metal in rounds.LATTICES[structure] and size in sizes
            assert not rounds.without_oxygen(metal) or (kind not in ('oxides', 'others') and 'O' not in formula)
    known = {rounds.oxide(number, np.random.default_rng(0))[:2] for number in range(21)}
    assert known == {(metal, facet) for metal in rounds.METALS for facet in ('111', '100', '110')}
    known = {rounds.other(number, np.random.default_rng(0))[:2] for number in range(32)}
    assert known == {
        (metal, facet)
        for facet, metals in {
            '111': 'Ru Os Re',
            '100': 'Ru Os Re',
            '0001': 'Ru Os Re Tc Ti Zr Mg Zn',
            'bcc110': 'Ta Nb',
            'bcc100': 'Ta Nb',
        }.items()
        for metal in metals.split()
    }


@pytest.mark.parametrize(('metal', 'facet', 'neighbors'), [('Ru', '0001', 6), ('Fe', 'bcc110', 4), ('W', 'bcc100', 0)])
def test_substrates_have_the_distances_of_their_crystal(scripts, metal, facet, neighbors):
    rounds, _ = scripts
    slab = rounds.substrate(metal, facet, (3, 3, 3))
    template = SlabTemplate(slab + Atoms('O', positions=[slab.positions.max(axis=0) + [0, 0, 1]]), np.arange(28) < 27)
    assert template.spacing == pytest.approx(crystal_neighbor_distance(slab.numbers[0]), rel=0.02)
    assert top_contacts(slab, np.ones(27, bool)) == neighbors


@pytest.mark.parametrize('name', ['CO', 'OH', 'H2O', 'NH3'])
def test_molecules_stay_whole(scripts, name):
    rounds, _ = scripts
    slab = rounds.substrate('Pt', '111', (3, 3, 2))
    atoms = rounds.with_molecules(slab, [name, name], np.random.default_rng(0))
    whole = molecule(name)
    for k in (0, 1):
        one = atoms[len(slab) + k * len(whole) :][: len(whole)]
        assert np.allclose(one.get_all_distances(), whole.get_all_distances())
        assert (one.positions[:, 2] > slab.positions[:, 2].max()).all()


def test_what_is_not_finished_is_kept(scripts, tmp_path):
    """When the time is over, what relaxations have is stored as not converged; the first, which is done, as it is."""
    rounds, _ = scripts
    slab = rounds.substrate('Cu', '111', (2, 2, 2))
    images = [random_start(slab, 'Cu2O', seed) for seed in range(4)]
    for k, atoms in enumerate(images):
        atoms.info['key_value_pairs'] = {'run': k, 'metal': 'Cu', 'facet': '111', 'start': 'random'}
    rounds.refine(tmp_path, {0: images[:2], 1: images[2:]}, 'metal-oxide', None, 4, until=time.monotonic())
    frames = [atoms for path in sorted(tmp_path.glob('*.traj')) for atoms in read(path, ':', format='traj')]
    ends = [atoms.info['key_value_pairs'] for atoms in frames if atoms.info['key_value_pairs']['last']]
    assert {pairs['run'] for pairs in ends} == {0, 1, 2, 3}
    assert sum(pairs['converged'] for pairs in ends) <= 1 and all(pairs['step'] >= rounds.UNFINISHED - 1 for pairs in ends)


def test_best_of_few_is_no_low_energy(scripts):
    """Ends of small groups are raised by what the best of so many lies above the best in the large group; that one stays."""
    rounds, train = scripts
    slab = rounds.substrate('Cu', '111', (2, 2, 2))

    frames = []
    for formula, count, first in (('O2', 12, 0), ('Cu2O', 2, 100), ('O', 1, 200)):
        for k in range(count):
            atoms = random_start(slab, formula, k)
            atoms.calc = SinglePointCalculator(atoms, energy=0.2 * k, forces=np.zeros((len(atoms), 3)))
            atoms.info['key_value_pairs'] = {'run': first + k}
            frames.append(atoms)
    data = Overlayers.from_atoms(frames)
    rise = train.raise_small_groups(data)
    assert len(rise) == 9 and sorted(rise, reverse=True) == rise
    assert rise[0] == pytest.approx(0.55, abs=0.12)  # mean of 0, 0.1, ... 1.1
    found = {item.run: item.energy_above_best for item in data.items}
    assert found[0] == 0 and found[11] == pytest.approx(1.1)
    assert found[100] == pytest.approx(rise[1]) and found[101] == pytest.approx(0.2 / 3 + rise[1])
    assert found[200] == pytest.approx(rise[0])


def test_unseen_elements_begin_as_oxygen(scripts):
    rounds, train = scripts
    network, header = load_model('metal-oxide-overlayer')
    slab = rounds.substrate('Pt', '111', (2, 2, 2))
    images = [random_start(slab, 'Pt2O2', 1)]
    images.append(copy_atoms(images[0]))
    images[1].symbols[images[1].symbols == 'O'] = 'Cl'
    assert train.unseen(Overlayers.from_atoms(images), header) == [17]
    train.begin_as_oxygen(network, [17])
    batches = [Slab(height=(-0.3, 5.0), spacing=train.SPACING).encode([atoms]) for atoms in images]
    with torch.no_grad():
        oxide, chloride = (network(batch, torch.zeros(1), {})['positions'] for batch in batches)
    assert torch.allclose(oxide, chloride, atol=1e-4) and oxide.abs().max() > 0.01
