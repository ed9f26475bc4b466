"""Slabs unlike the data of a model: what the warning tells, the window, and the depth that the networks see."""

import re

import numpy as np
import pytest
from ase.build import fcc100, fcc110, fcc111, hcp0001
from ase.constraints import FixAtoms

from ase_diffusion import SurfaceDiffusion

QUICK = {'steps': 12, 'logfile': None}


@pytest.mark.parametrize(
    ('build', 'metal', 'nearest'),
    [
        (fcc111, 'Ni', r'Ni4O2 on Ni\(111\)'),
        (fcc100, 'Rh', r'Rh4O2 on Rh\(100\)'),
        (hcp0001, 'Sc', r'\w+4O2 on \w+\((111|0001)\)'),
    ],
)
@pytest.mark.parametrize('new', ['O', 'K'])
def test_the_warning_tells_what_was_measured_nearest_to_it(build, metal, nearest, new, caplog):
    slab = build(metal, (2, 2, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    SurfaceDiffusion(slab, new, **QUICK)
    [line] = caplog.messages
    number, per_cell = r'\d+\.\d\d', 'eV per cell above the lowest known as generated'
    assert re.fullmatch(
        f'metal-oxide-overlayer never saw .*({metal}|K) .*; measured nearest to it: {nearest}, {number} {per_cell}, '
        f'{number} relaxed, random starts {number}, {number}',
        line,
    )


def test_layers_below_the_third_change_nothing():
    overlayers = []
    for layers in (3, 5):
        slab = fcc100('Pt', (2, 2, layers), vacuum=10.0)
        slab.positions -= slab.positions[-1]
        slab.set_constraint(FixAtoms(indices=range(len(slab))))
        overlayers.append(SurfaceDiffusion(slab, 'Pt2O', rng=1, **QUICK).sample()[len(slab) :].positions)
    assert overlayers[0] == pytest.approx(overlayers[1], abs=1e-3)


def test_a_window_that_leaves_the_cell_is_named(caplog):
    slab = fcc111('Pt', (2, 2, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    SurfaceDiffusion(slab, 'H2', **QUICK)
    assert not caplog.messages
    SurfaceDiffusion(slab, 'H20', **QUICK)
    assert 'above the slab, the cell 10.0 A: add vacuum' in caplog.messages[-1]


@pytest.mark.parametrize(('metal', 'atoms'), [('Cu', 27), ('Ag', 27)])
def test_the_window_grows_with_the_number_of_atoms(metal, atoms):
    slab = fcc111(metal, (3, 3, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    low, high = SurfaceDiffusion(slab, f'{metal}6O3', **QUICK).todict()['height']
    gen = SurfaceDiffusion(slab, f'{metal}{atoms}', **QUICK)
    more = gen.overlayer.measures['coverage'] / gen.header['data']['coverage'][1]
    assert more > 1.5 and gen.todict()['height'] == pytest.approx([low, high * more])
    assert SurfaceDiffusion(slab, f'{metal}{atoms}', height=(0, 9), **QUICK).todict()['height'] == pytest.approx([0, 9])


@pytest.mark.parametrize(
    ('build', 'metal', 'what', 'low', 'high'),
    [
        (fcc111, 'Pt', 'S2', 1.9, 2.6),
        (fcc100, 'Cu', 'S2', 1.9, 2.6),
        (fcc110, 'Pd', 'H2', 1.4, 2.1),
        (fcc100, 'Ni', 'N', 1.6, 2.2),
        (fcc111, 'Ag', 'H2', 1.5, 2.2),
    ],
)
def test_other_adsorbates_than_oxygen_have_their_distances(build, metal, what, low, high):
    """H, C, N and S take the model of many metals on every facet, on silver as well, and bind to the metal."""
    slab = build(metal, (2, 2, 2 if build is not fcc110 else 3), vacuum=10.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    gen = SurfaceDiffusion(slab, what, rng=1, steps=20, logfile=None)
    distances = [one.get_all_distances(mic=True)[len(slab) :, : len(slab)].min(1) for one in gen.sample(4)]
    assert gen.model == 'metal-oxide-overlayer' and low < np.median(distances) < high


def test_what_was_measured_nearest_is_the_same_adsorbate(caplog):
    slab = fcc111('Pt', (2, 2, 2), a=4.3, vacuum=10.0)  # strained
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    for what in ('S', 'H', 'PtO'):
        SurfaceDiffusion(slab, what, **QUICK)
    nearest = [re.search(r'nearest to it: (\w+) on', line).group(1) for line in caplog.messages]
    assert nearest == ['S2', 'H2', 'Pt4O2']


def test_structures_of_earlier_weights_load_and_are_not_made_again():
    """What the former `metal-oxide-overlayer` made is read, can be gone on with, and tells that other weights made it."""
    slab = fcc111('Cu', (2, 2, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    gen = SurfaceDiffusion(slab, 'Cu2O', rng=1, **QUICK)
    stored = gen.sample()
    stored.info['data']['diffusion'] |= {'fingerprint': '1e9e5fd1bef0fba5', 'height': [-0.26, 4.34]}
    mine = SurfaceDiffusion.from_record(stored)
    assert mine.model == 'metal-oxide-overlayer' and mine.todict()['height'] == pytest.approx([-0.26, 4.34])
    assert str(mine.perturb(stored, 0.1, n=None).symbols) == str(stored.symbols)
    with pytest.raises(ValueError, match="it had fingerprint '1e9e5fd1bef0fba5'"):
        mine.again(stored)
