"""Which elements calculators know, told before a calculation."""

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.calculators.elements import check_elements, known_elements


def test_tables_of_calculators_are_read():
    class Sevenn:
        type_map = {8: 0, 47: 1}  # noqa: RUF012

    class Table:
        zs = np.array([1, 8])

    class Mace:
        z_table = Table()

    assert known_elements('emt') == known_elements(EMT) == known_elements(EMT()) == {1, 6, 7, 8, 13, 28, 29, 46, 47, 78, 79}
    assert known_elements(Sevenn()) == {8, 47} and known_elements(Mace()) == {1, 8}
    assert known_elements('gpaw') is known_elements(LennardJones()) is known_elements(lambda: EMT()) is None


@pytest.mark.parametrize('name', ['7net-mf-0', 'chgnet', 'CHGNet'])
def test_potentials_of_mptrj_know_89_elements(name):
    assert len(known_elements(name)) == 89
    with pytest.raises(ValueError, match='does not know Cm, only 89 others; pass another one$'):
        CrystalDiffusion('CmO2', relax={'calculator': name}, logfile=None)
    check_elements(name, [94], 'relax')


def test_an_unknown_element_is_named_with_those_known():
    check_elements('emt', [47, 8], 'guidance')
    check_elements(LennardJones(), [92], 'guidance')
    with pytest.raises(ValueError, match='relax needs a calculator that knows all elements; emt does not know Rh, only H, C, N'):
        check_elements('EMT', [45, 8], 'relax')


@pytest.mark.parametrize(
    'options', [{'guidance': EMT()}, {'calculator': 'emt'}, {'relax': {'calculator': EMT}}, {'best_of': 2, 'calculator': EMT}]
)
def test_overlayers_with_a_calculator_that_does_not_know_rhodium_are_refused_at_once(options):
    slab = fcc111('Rh', (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    with pytest.raises(ValueError, match='does not know Rh'):
        SurfaceDiffusion(slab, 'Rh2O', model='untrained', logfile=None, **options)
