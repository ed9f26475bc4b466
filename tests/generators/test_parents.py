"""What parents carry of their own survives perturb and complete; notes of how they were made do not."""

import numpy as np
import pytest

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.relax import relax

QUICK = {'steps': 6, 'rng': 1, 'logfile': None, 'validate': False}


def with_own(atoms):
    """Give a structure arrays and info of its user."""
    atoms.set_initial_magnetic_moments(np.arange(len(atoms), dtype=float))
    atoms.set_initial_charges(np.arange(len(atoms)) / 10)
    atoms.set_array('own', np.arange(2 * len(atoms)).reshape(-1, 2))
    atoms.info['mine'] = {'deep': [1]}
    atoms.info['key_value_pairs']['U'] = 4.0
    atoms.info['data']['mine'] = [1, 2]
    return atoms


def check_own(new, parent):
    for name in ('initial_magmoms', 'initial_charges', 'own', 'tags'):
        assert np.array_equal(new.arrays[name], parent.arrays[name])
    assert new.info['mine'] == {'deep': [1]} and new.info['data']['mine'] == [1, 2]
    assert new.info['key_value_pairs']['U'] == 4.0
    assert not {'relax_steps', 'relax_converged', 'relax_calculator'} & set(new.info['key_value_pairs'])
    new.info['mine']['deep'].append(2)
    assert parent.info['mine'] == {'deep': [1]}


def test_overlayers(ag_slab):
    ag_slab.set_array('depth', np.arange(8.0))
    gen = SurfaceDiffusion(ag_slab, {'Ag': 3, 'O': 1}, **QUICK)
    parent = with_own(relax(gen.sample(), 'ag-o', steps=1))
    parent.set_tags([*parent.get_tags()[:8], 4, 5, 6, 7])
    for new in [*gen.perturb(parent, 0.1, 2), gen.complete(parent, [-1], repeats=1)]:
        check_own(new, parent)
        assert np.array_equal(new.arrays['depth'], [*range(8), 0, 0, 0, 0])
        assert new.calc is None and new.info['key_value_pairs']['operation'] in ('perturb', 'complete')


@pytest.mark.parametrize('symmetrize', [None, 0.1])
def test_crystals(symmetrize):
    gen = CrystalDiffusion('NaCl', symmetrize=symmetrize, **QUICK)
    parents = [with_own(atoms) for atoms in gen.sample(2)]
    parents[0].set_tags([0, 3])
    parents[1].set_tags([5, 6])
    news = gen.perturb(parents, 0.1, 3)
    for new, parent in zip(news, [*parents, parents[0]], strict=True):
        check_own(new, parent)
