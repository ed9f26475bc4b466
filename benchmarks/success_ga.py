"""The genetic algorithm of ase-ga for success.py: with its own operators, or with those of ase_diffusion among them.

Several runs go side by side, so that the offspring of all of them relax in one batch. Each has a database, a population of 20
and selection as ase-ga has them; its offspring come five at a time, as on a parallel machine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from ase_ga.cutandsplicepairing import CutAndSplicePairing
from ase_ga.data import DataConnection, PrepareDB
from ase_ga.offspring_creator import OperationSelector
from ase_ga.population import Population
from ase_ga.standard_comparators import InteratomicDistanceComparator
from ase_ga.standardmutations import RattleMutation
from ase_ga.startgenerator import StartGenerator
from ase_ga.utilities import closest_distances_generator, get_all_atom_types

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import relax_batched
from ase_diffusion.search import DiffusionMutation, DiffusionStartGenerator
from ase_diffusion.utils.atoms import parse_formula

POPULATION, OFFSPRING = 20, 5
RUNS = 8  # side by side, in one file
RELAX = {'fmax': 0.05, 'steps': 400}  # of all methods
NOISE = 0.7  # A


class Run:
    """One run: proposes candidates, takes them back relaxed."""

    def __init__(self, slab, stoich: str, ours: bool, seed, path: Path):
        self.slab, numbers = slab, parse_formula(stoich)
        self.rng = np.random.RandomState(np.random.default_rng(seed).integers(2**31))
        prepared = PrepareDB(path, simulation_cell=self.slab, stoichiometry=numbers, population_size=POPULATION)
        blmin = closest_distances_generator(get_all_atom_types(self.slab, numbers), 0.7)
        cell, top = np.asarray(self.slab.cell), self.slab.positions[:, 2].max()
        box = [np.array([0, 0, top + 1.0]), [cell[0], cell[1], np.array([0, 0, 3.5])]]
        pairing = CutAndSplicePairing(self.slab, len(numbers), blmin, rng=self.rng)
        rattle = RattleMutation(blmin, len(numbers), rng=self.rng)
        if ours:
            gen = SurfaceDiffusion(self.slab, stoich, rng=self.rng, logfile=None, compile=False)
            start = DiffusionStartGenerator(gen, batch=POPULATION)
            self.selector = OperationSelector([2, 2, 1], [pairing, DiffusionMutation(gen, NOISE), rattle], rng=self.rng)
        else:
            start = StartGenerator(self.slab, numbers, blmin, box_to_place_in=box, rng=self.rng, test_too_far=False)
            self.selector = OperationSelector([4, 1], [pairing, rattle], rng=self.rng)
        for _ in range(POPULATION):
            prepared.add_unrelaxed_candidate(start.get_new_candidate())
        self.db, self.population, self.count = DataConnection(path), None, len(numbers)

    def propose(self) -> list:
        """Return candidates that are in the database and not relaxed."""
        if self.population is None:
            return self.db.get_all_unrelaxed_candidates()
        children = []
        while len(children) < OFFSPRING:
            child, description = self.selector.get_new_individual(self.population.get_two_candidates())
            if child is not None:
                self.db.add_unrelaxed_candidate(child, description)
                children.append(child)
        return children

    def take(self, candidates, relaxed) -> None:
        """Store relaxed candidates and update the population."""
        for before, atoms in zip(candidates, relaxed, strict=True):
            pairs = {k: v for k, v in before.info['key_value_pairs'].items() if k in ('origin', 'extinct')}
            failed = atoms.info['key_value_pairs'].get('relax_failed')
            pairs['raw_score'] = -1e3 if failed else -atoms.get_potential_energy()
            atoms = atoms.copy() if failed else atoms
            atoms.info.update(confid=before.info['confid'], key_value_pairs=pairs, data=before.info.get('data', {}))
            self.db.add_relaxed_step(atoms)
        if self.population is None:
            comparator = InteratomicDistanceComparator(self.count, pair_cor_cum_diff=0.015, pair_cor_max=0.7, dE=0.02, mic=True)
            self.population = Population(self.db, POPULATION, comparator, rng=self.rng)
        else:
            self.population.update()


def genetic_runs(slab, stoich: str, ours: bool, chunk: int, size: int) -> list:
    """Return the relaxed structures of RUNS runs of ``size`` relaxations each, with run, number and CPU seconds so far."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        alive = [Run(slab, stoich, ours, (13, chunk, k), Path(folder) / f'{k}.db') for k in range(RUNS)]
        done = [[] for _ in alive]
        while len(done[0]) < size:
            proposed = [run.propose() for run in alive]
            relaxed = relax_batched([atoms for images in proposed for atoms in images], 'ag-o', **RELAX)
            seconds = (time.process_time() - begun) / RUNS
            for k, (run, images) in enumerate(zip(alive, proposed, strict=True)):
                mine, relaxed = relaxed[: len(images)], relaxed[len(images) :]
                for atoms in mine:
                    kept = atoms.copy()
                    kept.calc = atoms.calc
                    pairs = {x: v for x, v in atoms.info['key_value_pairs'].items() if x.startswith('relax')}
                    kept.info = {'key_value_pairs': {**pairs, 'run': chunk * RUNS + k, 'number': len(done[k]), 'cpu': seconds}}
                    done[k].append(kept)
                run.take(images, mine)
    return [atoms for images in done for atoms in images]
