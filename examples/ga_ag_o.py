"""A genetic algorithm with ase-ga for Ag6O3 in p(3x3) on Ag(111): diffusion operators beside those of ase-ga."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
POPULATION, OFFSPRING, STEPS, RELAX_STEPS = (3, 2, 10, 5) if FAST else (20, 40, 100, 300)

# %% The slab, what is put on it, and how close atoms may come
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase_ga.utilities import closest_distances_generator, get_all_atom_types

slab = fcc111('Ag', (3, 3, 2), a=4.16, vacuum=10.0)
slab.set_constraint(FixAtoms(indices=range(len(slab))))
numbers = [47] * 6 + [8] * 3
blmin = closest_distances_generator(get_all_atom_types(slab, numbers), ratio_of_covalent_radii=0.7)

# %% The generator. ase-ga's Population wants a RandomState; the same one for all
import numpy as np

from ase_diffusion import SurfaceDiffusion

rng = np.random.RandomState(0)
gen = SurfaceDiffusion(slab, 'Ag6O3', rng=rng, steps=STEPS, logfile=None)

# %% The first generation: generated candidates (ase_ga.startgenerator.StartGenerator makes random ones)
from ase_ga.data import DataConnection, PrepareDB

from ase_diffusion.search import DiffusionMutation, DiffusionStartGenerator

start = DiffusionStartGenerator(gen, batch=POPULATION)
prepared = PrepareDB('ga.db', simulation_cell=slab, stoichiometry=numbers, population_size=POPULATION)
for _ in range(POPULATION):
    prepared.add_unrelaxed_candidate(start.get_new_candidate())

# %% Relax them; ase-ga maximizes raw_score
from ase_diffusion.relax import relax_batched

db = DataConnection('ga.db')


def relax_and_store(candidates):
    """Relax candidates with the shipped force field and return them to the database."""
    for candidate, atoms in zip(candidates, relax_batched(candidates, 'ag-o', steps=RELAX_STEPS), strict=True):
        atoms.info['confid'] = candidate.info['confid']
        atoms.info.setdefault('data', {})
        atoms.info['key_value_pairs']['raw_score'] = -atoms.get_potential_energy()
        db.add_relaxed_step(atoms)


relax_and_store(db.get_all_unrelaxed_candidates())

# %% Population and operators. noise = 0.7 A leads away from good minima, 0.3 A relaxes unlikely structures
from ase_ga.cutandsplicepairing import CutAndSplicePairing
from ase_ga.offspring_creator import OperationSelector
from ase_ga.population import Population
from ase_ga.standard_comparators import InteratomicDistanceComparator
from ase_ga.standardmutations import RattleMutation

comparator = InteratomicDistanceComparator(n_top=9, pair_cor_cum_diff=0.015, pair_cor_max=0.7, dE=0.02, mic=True)
population = Population(db, POPULATION, comparator, rng=rng)
pairing = CutAndSplicePairing(slab, 9, blmin, rng=rng)
rattle = RattleMutation(blmin, 9, rng=rng)
selector = OperationSelector([2, 2, 1], [pairing, DiffusionMutation(gen, noise=0.7), rattle], rng=rng)

# %% Offspring
for k in range(OFFSPRING):
    child, description = selector.get_new_individual(population.get_two_candidates())
    if child is None:  # the operator found no legal offspring
        continue
    db.add_unrelaxed_candidate(child, description)
    relax_and_store([child])
    population.update()
    best = max(atoms.info['key_value_pairs']['raw_score'] for atoms in population.pop)
    print(f'{k:3d} {description:<24s} best {-best:.3f} eV')

# %% The best, and where each came from
from ase.io import write

ranked = db.get_all_relaxed_candidates()
for atoms in ranked[:5]:
    pairs = atoms.info['key_value_pairs']
    print(f'{-pairs["raw_score"]:.3f} eV', pairs['origin'])
write('best.traj', ranked[:5])
