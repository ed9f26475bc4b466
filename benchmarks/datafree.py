"""Training without data against random search, with the same number of calculator calls: Pt7 on Pt(111), EMT.

    python benchmarks/datafree.py run
    python benchmarks/datafree.py report

The shipped model has never seen platinum. Every seed of ``fit_with_calculator`` starts from nothing. Both relax with BFGS to
0.05 eV/A: random search with at most 100 steps; the training with at most ``relax_steps``, after which it goes on to the next
structure (the lowest of each round are relaxed to the end, and these calls count too). A call is one evaluation of energy and
forces.
"""

from __future__ import annotations

from bench import StructureBenchmark, frozen_slab, main, number, rounded, seeded, table

# isort: split
import time

import numpy as np
from ase.io import read

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import duplicates
from ase_diffusion.relax import relax
from ase_diffusion.search import random_start

STOICH = 'Pt7'
OPTIONS = {'features': 32, 'blocks': 3, 'batch_size': 8}
FINAL = 5  # structures of each round that are relaxed to the end, the lowest ones


class DataFree(StructureBenchmark):
    """An item is a chunk of random search, or one training."""

    name = 'datafree'

    def __init__(self, args):
        super().__init__(args)
        self.random, self.chunk, self.seeds = 200, 10, 4
        self.plan = {'rounds': 8, 'samples': 16, 'relax_steps': 30, 'steps': 150, 'explore': 0.2}
        if self.quick:
            self.random, self.chunk, self.seeds = 4, 4, 1
            self.plan |= {'rounds': 2, 'samples': 2, 'relax_steps': 3, 'steps': 5}

    def settings(self) -> dict:
        system = f'{STOICH} on p(4x4) Pt(111), two frozen layers, EMT'
        return {'system': system, **self.plan, **OPTIONS, 'final': FINAL}

    def items(self):
        yield 'seed_0', 0
        for chunk in range(self.random // self.chunk):
            yield f'random/{chunk:03d}', range(chunk * self.chunk, (chunk + 1) * self.chunk)
        for seed in range(1, self.seeds):
            yield f'seed_{seed}', seed

    def run(self, item) -> list:
        return self.train(item) if isinstance(item, int) else self.search(item)

    def search(self, numbers: range) -> list:
        """Relax random starts."""
        begun, chunk = time.process_time(), numbers.start // self.chunk
        starts = [random_start(substrate(), STOICH, seeded(5, chunk, k)) for k in range(self.chunk)]
        ends = relax(starts, 'emt', fmax=0.05, steps=100)
        seconds = (time.process_time() - begun) / self.chunk
        for atoms in ends:
            atoms.info['key_value_pairs'] |= {'calls': atoms.info['key_value_pairs']['relax_steps'] + 1, 'cpu': seconds}
        return ends

    def train(self, seed: int) -> list:
        """Train from nothing, and relax the lowest structures of every round to the end."""
        begun, out = time.process_time(), self.store / f'seed_{seed}'
        out.parent.mkdir(parents=True, exist_ok=True)
        gen = SurfaceDiffusion(substrate(), STOICH, model='untrained', steps=40, rng=seed, compile=False, logfile=None)
        gen.fit_with_calculator('emt', out, seed=seed, options=OPTIONS, **self.plan)
        history, calls = [], 0
        for round_ in range(self.plan['rounds']):
            ends = [read(file, -1) for file in sorted((out / f'round_{round_:03d}').glob('*.traj'))]
            calls += sum(atoms.info['key_value_pairs']['relax_steps'] + 1 for atoms in ends)
            ends.sort(key=lambda atoms: atoms.get_potential_energy())
            for atoms in relax(ends[:FINAL], 'emt', fmax=0.05, steps=100):
                calls += atoms.info['key_value_pairs']['relax_steps']
                atoms.info['key_value_pairs'] |= {'calls': calls, 'round': round_, 'cpu': time.process_time() - begun}
                history.append(atoms)
        return history

    def summarize(self) -> dict:
        random = self.images('random/*')
        runs = {path.stem: self.images(path.stem) for path in sorted(self.store.glob('seed_*.traj'))}
        if not random or not runs:
            return {}
        best = min([*random, *(a for images in runs.values() for a in images)], key=lambda a: a.get_potential_energy())
        trained = {name: of_training(images, best) for name, images in runs.items()}
        calls = np.mean([r['calls'] for r in trained.values()])
        return rounded({'random': {'best_known_eV': best.get_potential_energy(), **of_random(random, best, calls)}, **trained})

    def report(self, results: dict) -> None:
        random = results['random']
        equal, trained = random['at_equal_calls'], {name: r for name, r in results.items() if name != 'random'}
        print(self.file['settings']['system'])
        print(
            f'random search: {random["n"]} relaxations of {random["calls_each"]} calls, {random["hits"]} found the best '
            f'({random["best_known_eV"]:.4f} eV), mean {random["mean_eV"]} +- {random["error_eV"]} eV above it; the lowest of '
            f'{equal["relaxations"]}, as many calls as a training: {number(equal["best_eV"], 3)} eV above it, probability of the '
            f'best {equal["probability"]}\n'
        )
        head = ('training', 'calls', 'calls to the best', 'lowest, eV', 'CPU s', 'mean of the rounds, eV above the best')
        rows = []
        for name, r in trained.items():
            rounds = ' '.join(number(x, 3) for x in r['by_round_eV'])
            rows.append((name, r['calls'], number(r['calls_to_best'], 0), f'{r["best_eV"]:.4f}', f'{r["cpu_s"]:.0f}', rounds))
        print(table(head, rows))
        if 'energies_eV' in random:
            draw(random, trained).savefig(self.picture, dpi=130)
        else:
            print('\nno picture: these results are without the energies of single structures')


def substrate():
    """Return two frozen layers of p(4x4) Pt(111)."""
    return frozen_slab((4, 4), 'Pt', a=None, vacuum=8.0)


def found(images, best) -> list[bool]:
    """Tell which images are the best structure, up to the symmetry of the substrate."""
    return [first == 0 for first in duplicates([best, *images])[1:]]


def of_random(images, best, calls: float) -> dict:
    """Return the record of random search, and what it finds with so many calls; energies in eV above the best."""
    each = np.mean([a.info['key_value_pairs']['calls'] for a in images])
    hits, k, rng = found(images, best), int(calls / each), np.random.default_rng(0)
    energies = np.array([a.get_potential_energy() for a in images]) - best.get_potential_energy()
    lowest = [energies[rng.integers(len(energies), size=k)].min() for _ in range(1000)] if k else []
    return {
        'n': len(images),
        'calls_each': round(each, 1),
        'hits': int(sum(hits)),
        'mean_eV': round(energies.mean(), 3),
        'error_eV': round(energies.std() / len(energies) ** 0.5, 3),
        'at_equal_calls': {
            'relaxations': k,
            'probability': round(1 - (1 - np.mean(hits)) ** k, 3),
            'best_eV': round(np.mean(lowest), 3) if k else None,
        },
        'energies_eV': energies,
    }


def of_training(images, best) -> dict:
    """Return the record of one training; energies in eV above the best."""
    pairs, zero = [a.info['key_value_pairs'] for a in images], best.get_potential_energy()
    energies = np.array([a.get_potential_energy() - zero for a in images])
    rounds = np.array([x['round'] for x in pairs])
    return {
        'calls': pairs[-1]['calls'],
        'calls_to_best': next((x['calls'] for x, hit in zip(pairs, found(images, best), strict=True) if hit), None),
        'best_eV': energies.min(),
        'by_round_eV': [round(energies[rounds == r].mean(), 3) for r in sorted(set(rounds))],
        'cpu_s': round(pairs[-1]['cpu']),
        'calls_so_far': [x['calls'] for x in pairs],
        'energies_eV': energies,
    }


def draw(random: dict, trained: dict):
    """Return the figure: energies over calls, and the probability that random search has found the best."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout='constrained')
    left.hist(random['energies_eV'], bins=30, color='0.7', label='random search')
    left.set(xlabel='eV above the best', ylabel='relaxations')
    for name, r in trained.items():
        right.plot(r['calls_so_far'], np.minimum.accumulate(r['energies_eV']), label=name)
    right.set(xlabel='calculator calls', ylabel='best so far (eV above the best)')
    calls, q = np.linspace(0, right.get_xlim()[1], 100), random['hits'] / random['n']
    twin = right.twinx()
    twin.plot(calls, 1 - (1 - q) ** (calls / random['calls_each']), 'k--')
    twin.set(ylabel='probability of random search (dashed)', ylim=(0, 1))
    right.legend(fontsize=8)
    return figure


if __name__ == '__main__':
    main(DataFree)
