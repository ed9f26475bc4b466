"""Notes of the input are none of the result; what the user wrote stays."""

import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import relax
from ase_diffusion.search import random_start
from ase_diffusion.utils.provenance import forget_notes, note, notes_of

OLD = {  # as files of the first version have it, without names of notes
    'generator': 'SurfaceDiffusion',
    'model': 'ag-o-overlayer',
    'seed': 's1f',
    'sampling_steps': 50,
    'condition_energy': 0.0,
    'relax_steps': 4,
    'relax_converged': True,
    'relax_failed': True,
    'energy_generated': -1.0,
    'unique': True,
    'failed': True,
}
OWN = {'colour': 'red', 'U': 4.0}


def slab_with(pairs):
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=10)
    slab.set_constraint(FixAtoms(range(8)))
    slab.info['key_value_pairs'] = dict(pairs)
    slab.info['data'] = {'diffusion': {'type': 'old'}, 'relax_error': 'x', 'mine': [1]}
    slab.info['mine'] = {'deep': [1]}
    return slab


def test_notes_of_both_versions_are_forgotten():
    slab = slab_with(OWN)
    note(slab, relax_failed=True, anything=3)
    for other in (slab, slab_with({**OLD, **OWN})):
        forget_notes(other)
        assert other.info['key_value_pairs'] == OWN
        assert other.info['data'] == {'mine': [1]} and notes_of(other) == set()


def test_words_of_ours_without_our_signature_are_the_users():
    mine = {'model': 'x', 'seed': 3, 'noise': 0.1, 'step': 4, 'unique': 1, 'stoich': 'Ag', 'generator': 'VASP'}
    slab = slab_with(mine)
    forget_notes(slab)
    assert slab.info['key_value_pairs'] == mine


@pytest.mark.parametrize('old', [True, False])
def test_a_slab_hands_nothing_on_but_what_its_owner_wrote(old):
    slab = slab_with({**OLD, **OWN} if old else OWN)
    if not old:
        note(slab, **OLD)
    atoms = SurfaceDiffusion(slab, 'Ag2', rng=0, steps=5, validate=False, logfile=None).sample()
    start = random_start(slab, 'Ag2', 0)
    for one in (atoms, start):
        pairs = one.info['key_value_pairs']
        assert pairs.items() >= OWN.items() and not {'relax_failed', 'relax_converged', 'unique', 'failed'} & set(pairs)
        assert one.info['mine'] == {'deep': [1]} and one.info['data']['mine'] == [1]
    assert 'seed' not in start.info['key_value_pairs'] and 'diffusion' not in start.info['data']
    assert slab.info['data']['relax_error'] == 'x'  # the input is not changed


def test_a_relaxation_forgets_earlier_ones_and_keeps_the_origin():
    slab = slab_with({**OLD, **OWN})
    slab.set_constraint()
    frames = []
    new = relax(slab, 'emt', steps=1, frames=frames)
    for one in (new, *frames[0]):
        pairs = one.info['key_value_pairs']
        assert pairs['colour'] == 'red' and pairs['seed'] == 's1f'
        assert not {'failed', 'relax_failed', 'unique'} & set(pairs)
        assert 'relax_error' not in one.info['data']
    assert new.info['key_value_pairs']['relax_steps'] == 1
