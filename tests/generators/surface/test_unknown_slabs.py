"""Slabs unlike the data of a model: what the warning tells, the window, and the depth that the networks see."""

import re

import pytest
from ase.build import fcc100, fcc111, hcp0001
from ase.constraints import FixAtoms

from ase_diffusion import SurfaceDiffusion

QUICK = {'steps': 12, 'logfile': None}


@pytest.mark.parametrize(
    ('build', 'metal', 'nearest'),
    [(fcc111, 'Ni', r'Ni4O2 on Ni\(111\)'), (fcc100, 'Rh', r'Rh4O2 on Rh\(100\)'), (hcp0001, 'Ru', r'Rh\d+O\d+ on Rh\(111\)')],
)
def test_the_warning_tells_what_was_measured_nearest_to_it(build, metal, nearest, caplog):
    slab = build(metal, (2, 2, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    SurfaceDiffusion(slab, 'O', **QUICK)
    [line] = caplog.messages
    number, per_cell = r'\d+\.\d\d', 'eV per cell above the lowest known as generated'
    assert re.fullmatch(
        f'metal-oxide-overlayer never saw {metal} .*; measured nearest to it: {nearest}, {number} {per_cell}, '
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


@pytest.mark.parametrize(('metal', 'atoms'), [('Cu', 27), ('Ag', 27)])
def test_the_window_grows_with_the_number_of_atoms(metal, atoms):
    slab = fcc111(metal, (3, 3, 2), vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    low, high = SurfaceDiffusion(slab, f'{metal}6O3', **QUICK).todict()['height']
    gen = SurfaceDiffusion(slab, f'{metal}{atoms}', **QUICK)
    more = gen.overlayer.measures['coverage'] / gen.header['data']['coverage'][1]
    assert more > 1.5 and gen.todict()['height'] == pytest.approx([low, high * more])
    assert SurfaceDiffusion(slab, f'{metal}{atoms}', height=(0, 9), **QUICK).todict()['height'] == pytest.approx([0, 9])
