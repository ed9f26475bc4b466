"""best_of: what comes back is the lowest in energy of that many candidates, and nothing else about them changes."""

import logging

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.selection import BestOf
from ase_diffusion.relax import get_calculator

QUICK = {'steps': 12, 'logfile': None}


def make_slab(symbol='Ag', a=4.16):
    slab = fcc111(symbol, (2, 2, 2), a=a, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def make(best_of=1, *, accept=lambda atoms: None, **options):
    gen = SurfaceDiffusion(make_slab(), 'Ag3O2', rng=5, best_of=best_of, **{**QUICK, **options})
    gen._reason_to_reject = accept
    return gen


def energies(images):
    calc = get_calculator('ag-o')
    return np.array([calc.get_potential_energy(atoms) for atoms in images])


def test_the_lowest_of_each_three_candidates_comes_back():
    candidates = make().sample(9)
    wanted = energies(candidates).reshape(3, 3)
    images = make(3).sample(3)
    assert [a.get_potential_energy() for a in images] == pytest.approx(wanted.min(axis=1), abs=1e-3)
    for k, atoms in enumerate(images):
        assert np.allclose(atoms.positions, candidates[3 * k + wanted[k].argmin()].positions, atol=1e-4)
        assert atoms.info['key_value_pairs']['best_of'] == 3
        assert atoms.info['key_value_pairs']['selected_by'] == 'ag-o'
        assert np.isfinite(atoms.get_forces()).all()


def test_the_log_says_what_choosing_cost(tmp_path):
    gen = make(3, logfile=tmp_path / 'log')
    gen.sample(2)
    gen.sample(1)
    lines = [line for line in (tmp_path / 'log').read_text().splitlines() if line.startswith('best_of')]
    assert lines == ['best_of: 6 single points by ag-o', 'best_of: 3 single points by ag-o']
    gen.perturb(gen.sample(), 0.2)
    assert (tmp_path / 'log').read_text().count('best_of:') == 3  # neighbors are not chosen


@pytest.mark.parametrize('batch_size', [1, 2, 7])
def test_the_size_of_a_batch_does_not_matter(batch_size):
    one, other = (gen.sample(3, guidance_scale=1.0) for gen in (make(3), make(3, batch_size=batch_size)))  # rounding
    for a, b in zip(one, other, strict=True):
        assert np.allclose(a.positions, b.positions, atol=1e-4)


def test_what_is_to_be_rejected_is_out_of_the_race():
    candidates = make().sample(4)
    lowest = energies(candidates).min()
    calc = get_calculator('ag-o')
    gen = make(4, accept=lambda atoms: 'too good' if calc.get_potential_energy(atoms) < lowest + 1e-3 else None)
    assert gen.sample().get_potential_energy() == pytest.approx(np.sort(energies(candidates))[1], abs=1e-3)
    assert gen.statistics == {'generated': 4, 'accepted': 1, 'rejected': 0}


def test_candidates_that_are_all_unfit_count_as_one_rejection():
    bad = [atoms.positions for atoms in make().sample(3, guidance_scale=1.0)]  # a larger scale amplifies rounding
    gen = make(3, accept=lambda atoms: 'bad' if any(np.allclose(atoms.positions, p, atol=1e-4) for p in bad) else None)
    assert len(gen.sample(2, guidance_scale=1.0)) == 2
    assert gen.statistics == {'generated': 9, 'accepted': 2, 'rejected': 1}


def test_relaxed_candidates_are_judged_by_their_relaxed_energies():
    relax = {'calculator': 'ag-o', 'steps': 3}
    candidates = make(relax=relax).sample(4)
    gen = make(4, relax=relax)
    atoms = gen.sample()
    assert atoms.get_potential_energy() == pytest.approx(min(a.get_potential_energy() for a in candidates), abs=1e-3)
    assert gen.selection.calls == 0
    assert 'selected_by' not in atoms.info['key_value_pairs']


class Failing(Calculator):
    """Refuses structures, all or every second."""

    implemented_properties = ('energy', 'forces')

    def __init__(self, every):
        super().__init__()
        self.every, self.count = every, 0

    def calculate(self, atoms=None, properties=('energy',), system_changes=()):
        self.count += 1
        if self.count % self.every == 0:
            raise RuntimeError('no energy today')
        super().calculate(atoms, properties, system_changes)
        self.results = {'energy': -float(self.count), 'forces': np.zeros((len(atoms), 3))}


def test_candidates_without_energy_are_not_chosen(caplog):
    one = make(2, calculator=Failing(2), guidance=False).sample()
    assert one.get_potential_energy() == -1.0
    with caplog.at_level(logging.WARNING, 'ase_diffusion'), pytest.raises(GenerationFailed, match='no energy to choose by'):
        make(2, calculator=Failing(1), guidance=False, maxtries=1).sample()
    assert '2 of 2 candidates have no energy' in caplog.text


def test_perturb_and_complete_do_not_choose():
    gen = make(3)
    parent = gen.sample()
    before = gen.selection.calls
    assert len(gen.perturb(parent, noise=0.2, n=2)) == 2
    assert gen.selection.calls == before


def test_of_a_crystal_the_composition_must_be_given_and_a_calculator():
    with pytest.raises(ValueError, match='stoich'):
        CrystalDiffusion(natoms=4, best_of=2, calculator=EMT(), guidance=False, **QUICK)
    with pytest.raises(ValueError, match='needs energies'):
        CrystalDiffusion('Cu4', best_of=2, **QUICK)


def test_crystals_of_lowest_energy():
    options = {'rng': 1, 'steps': 6, 'logfile': None}
    candidates = CrystalDiffusion('Cu2', **options).sample(3)
    atoms = CrystalDiffusion('Cu2', best_of=3, calculator=EMT(), guidance=False, **options).sample()
    calc = EMT()
    assert atoms.get_potential_energy() == pytest.approx(min(calc.get_potential_energy(a) for a in candidates), abs=1e-3)


def test_relaxed_crystals_carry_their_energy_and_are_judged_by_it():
    options = {'rng': 1, 'steps': 6, 'logfile': None, 'relax': {'calculator': EMT(), 'steps': 3}}
    candidates = CrystalDiffusion('Cu2', **options).sample(3)
    energies = [atoms.get_potential_energy() for atoms in candidates]
    calc = EMT()
    assert energies == pytest.approx([calc.get_potential_energy(atoms) for atoms in candidates], abs=1e-6)
    assert CrystalDiffusion('Cu2', best_of=3, **options).sample().get_potential_energy() == pytest.approx(min(energies), abs=1e-6)


def test_bad_input_is_refused_at_once():
    with pytest.raises(ValueError, match='best_of'):
        make(0)
    with pytest.raises(ValueError, match='(?s)Pt.*calculator='):
        BestOf(2, 'ag-o').check(make_slab('Pt', 3.92))
