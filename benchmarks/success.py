"""How many relaxations, and how much CPU time, until the best known minimum is found?

    python benchmarks/success.py run              # up to the targets below
    python benchmarks/success.py run ag6o3 random diffusion -n 512
    python benchmarks/success.py run ag6o3-7net   # an expensive potential: 7net-mf-0
    python benchmarks/success.py report

All methods relax with BFGS, fmax 0.05 eV/A, at most 400 steps, with the shipped force field ``ag-o``, or with 7net-mf-0 where the
system says so; only relaxations with that potential count. ``screened`` is made for the latter: of 4 guided samples, relaxed with
``ag-o``, the lowest is relaxed with 7net-mf-0; its CPU time counts everything. Generators have their default sampler; ``long``
takes four times its steps. The store is keyed by the sha256 of the weights and by the sampler: with others the same command
computes anew what depends on them (random search depends on the force field only). Found
means: same composition, energy within 0.02 eV and fingerprint (invariant under the symmetry of the substrate) within the
tolerance of ``metrics.duplicates`` of the best structure that any method has seen.
"""

from __future__ import annotations

from bench import StructureBenchmark, digest, frozen_slab, grouped, main, rounded, seeded, table

# isort: split
import time

import numpy as np
from scipy.stats import binomtest
from success_ga import RELAX, RUNS, genetic_runs

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import duplicates
from ase_diffusion.relax import relax, relax_batched
from ase_diffusion.search import random_start

SYSTEMS = {  # cell, what is on it, potential
    'ag6o3': ((3, 3), 'Ag6O3', 'ag-o'),
    'ag12o6': ((4, 4), 'Ag12O6', 'ag-o'),
    'ag6o3-7net': ((3, 3), 'Ag6O3', '7net-mf-0'),
    'ag12o6-7net': ((4, 4), 'Ag12O6', '7net-mf-0'),
}
SAMPLER = '{sampler}-{steps}'.format(**SurfaceDiffusion.default_sampling)
CHUNK = {'ag-o': 32, '7net-mf-0': 4}  # independent attempts per file
OPTIONS = {
    'diffusion': {},
    'guided': {'guidance': True},
    'long': {'steps': 4 * SurfaceDiffusion.default_sampling['steps']},
    'screened': {'guidance': True, 'best_of': 4, 'relax': {'calculator': 'ag-o', **RELAX}},
}
NAMES = {
    'random': 'random search',
    'diffusion': 'diffusion',
    'guided': 'guided diffusion',
    'long': 'diffusion, 4 x the steps',
    'screened': 'guided, best of 4 with ag-o',
    'ga': 'ase-ga',
    'ga-diffusion': 'ase-ga with our operators',
}
SIZE = {'ag6o3': 40, 'ag12o6': 60}  # relaxations of each run of the genetic algorithm
TARGETS = {  # attempts; for the genetic algorithm 32 runs times SIZE
    'ag6o3': {'random': 1024, 'diffusion': 512, 'guided': 512, 'ga': 1280, 'ga-diffusion': 1280},
    'ag12o6': {'random': 2048, 'diffusion': 512, 'guided': 256, 'long': 128, 'ga': 1920, 'ga-diffusion': 1920},
    'ag6o3-7net': {'random': 64, 'screened': 32},
    'ag12o6-7net': {'random': 64, 'screened': 32},
}
QUICK = {'ag6o3': {'random': 4, 'diffusion': 4}}
ROUNDS = 4  # the store grows evenly: in round r every method is brought to r / ROUNDS of its target
REPEATS = 1000  # searches drawn from the pool of independent attempts
COUNTS = np.unique(np.round(np.geomspace(1, 2048, 60)).astype(int))  # relaxations at which the curves are stored


class Success(StructureBenchmark):
    """An item is a chunk of attempts, or of runs of the genetic algorithm, of one method on one system."""

    name = 'success'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('system', nargs='?', choices=SYSTEMS)
        parser.add_argument('methods', nargs='*', choices=[*NAMES, []])
        parser.add_argument('-n', type=int, help='attempts per method instead of the targets')

    def settings(self) -> dict:
        return {**RELAX, 'sampler': SAMPLER, 'ga_runs_side_by_side': RUNS}

    def targets(self) -> dict:
        """Return the attempts of every method on every system."""
        return QUICK if self.quick else TARGETS

    def items(self):
        system, methods, n = self.args.system, self.args.methods, self.args.n
        chosen = [(s, m, n or k) for s, each in self.targets().items() for m, k in each.items() if system in (None, s)]
        for share in range(1, ROUNDS + 1):
            for system, method, target in chosen:
                if not methods or method in methods:
                    size = self.size(system, method)
                    for chunk in range(-(-(target * share // ROUNDS) // size)):
                        yield f'{folder(system, method)}/{chunk:04d}', (system, method, chunk, size)

    def size(self, system: str, method: str) -> int:
        """Return the relaxations of one item."""
        return RUNS * SIZE[system] if method.startswith('ga') else 4 if self.quick else CHUNK[SYSTEMS[system][2]]

    def run(self, item) -> list:
        system, method, chunk, size = item
        if method.startswith('ga'):
            cell, stoich, _ = SYSTEMS[system]
            images = genetic_runs(frozen_slab(cell), stoich, method == 'ga-diffusion', chunk, SIZE[system])
        else:
            images = attempts(system, method, chunk, size)
        for atoms in images:
            atoms.info.pop('data', None)  # the same for all; would make up most of the file
        return images

    def summarize(self) -> dict:
        results = {}
        for system, (_, _, potential) in SYSTEMS.items():
            pool = {m: images for m in self.targets().get(system, ()) if (images := self.images(f'{folder(system, m)}/*'))}
            everything = [a for images in pool.values() for a in images if a.calc is not None]
            best = min(everything, key=lambda a: a.get_potential_energy(), default=None)
            for method, images in pool.items():
                of = {'system': system, 'method': method, 'potential': potential, 'best_eV': best.get_potential_energy()}
                summary = sequential if method.startswith('ga') else independent
                row = summary(images, hits_of(images, best))
                results[f'{system} {method}'] = rounded({**of, 'weights': folder(system, method).split('/')[0], **row})
        return results

    def report(self, results: dict) -> None:
        head = ('method', 'n', 'found', 'for 50 %', '95 %', 'CPU s each', 'steps')
        for (system,), rows in grouped(results, 'system'):
            print(f'\n{system}\n{table(head, [cells(r) for r in rows])}')
        draw(results).savefig(self.picture, dpi=130)


def folder(system: str, method: str) -> str:
    """Return where the structures of a method with the present weights are kept, in the store."""
    if method in ('random', 'ga'):
        return f'{digest("ag-o-forcefield")}/{system}.{method}'
    return f'{digest("ag-o-forcefield", "ag-o-overlayer")}-{SAMPLER}/{system}.{method}'


def attempts(system: str, method: str, chunk: int, size: int) -> list:
    """Return relaxed structures, with CPU seconds of generation and relaxation, and calculator calls of guidance."""
    cell, stoich, potential = SYSTEMS[system]
    begun, calls, slab = time.process_time(), 0, frozen_slab(cell)
    if method == 'random':
        images = [random_start(slab, stoich, seeded(7, chunk, k)) for k in range(size)]
    else:
        gen = SurfaceDiffusion(slab, stoich, rng=seeded(11, chunk), logfile=None, compile=False, **OPTIONS[method])
        images = gen.sample(size)
        calls = gen.guidance.calls if gen.guidance else 0
    middle = time.process_time()
    final = relax_batched(images, 'ag-o', **RELAX) if potential == 'ag-o' else relax(images, potential, **RELAX)
    end = time.process_time()
    for number, atoms in enumerate(final):
        atoms.info['key_value_pairs'] |= {
            'cpu_generate': (middle - begun) / size,
            'cpu_relax': (end - middle) / size,
            'guidance_calls': calls / size,
            'number': number,
        }
    return final


def hits_of(images, best) -> np.ndarray:
    """Tell which images are the best known structure, up to the symmetry of the substrate, bool (n,)."""
    limit = best.get_potential_energy() + 0.05
    near = [k for k, a in enumerate(images) if a.calc is not None and a.get_potential_energy() < limit]
    hits = np.zeros(len(images), bool)
    if near:
        hits[near] = np.array(duplicates([best, *(images[k] for k in near)])[1:]) == 0
    return hits


def independent(images, hits) -> dict:
    """Return the success of searches of k independent attempts, drawn with replacement from all (REPEATS searches).

    The mean of such searches is 1 - (1 - q)^k with q the share of hits, and the band carries the Clopper-Pearson interval of q.
    """
    q, n = hits.mean(), len(hits)
    low, high = binomtest(int(hits.sum()), n).proportion_ci(0.95)
    pairs = [a.info['key_value_pairs'] for a in images]
    rng = np.random.default_rng(0)
    first = rng.geometric(q, REPEATS) if q else np.full(REPEATS, np.inf)
    energies = np.array([a.get_potential_energy() for a in images if a.calc is not None])
    return {
        'n': n,
        'hits': int(hits.sum()),
        'q': q,
        'q_95': [low, high],
        'p': 1 - (1 - q) ** COUNTS,
        'band': [1 - (1 - x) ** COUNTS for x in (low, high)],
        'cpu_each': np.mean([x['cpu_generate'] + x['cpu_relax'] for x in pairs]),
        'relaxations_50': half(q),
        'relaxations_50_95': [half(high), half(low)],
        'median_of_repeats': float(np.median(first)),
        'relax_steps': np.mean([x.get('relax_steps', 0) for x in pairs]),
        'guidance_calls': np.mean([x['guidance_calls'] for x in pairs]),
        'mean_eV': energies.mean(),
        'error_eV': energies.std() / len(energies) ** 0.5,
    }


def half(q: float) -> float:
    """Return the number of independent attempts for a probability of one half."""
    return float(np.log(0.5) / np.log1p(-q)) if 0 < q < 1 else (1.0 if q else np.inf)


def sequential(images, hits) -> dict:
    """Return the success of whole runs: the share of runs that had it after k relaxations, Clopper-Pearson band."""
    runs: dict = {}
    for atoms, hit in zip(images, hits, strict=True):
        pairs = atoms.info['key_value_pairs']
        first, cpu = runs.get(pairs['run'], (np.inf, 0.0))
        runs[pairs['run']] = (min(first, pairs['number'] + 1 if hit else np.inf), max(cpu, pairs['cpu']))
    first, cpu = (np.array(x) for x in zip(*runs.values(), strict=True))
    length = len(images) // len(runs)
    counts = COUNTS[: np.searchsorted(COUNTS, length, side='right')]
    p = (first[:, None] <= counts).mean(0)
    bands = [binomtest(int(round(x * len(first))), len(first)).proportion_ci(0.95) for x in p]
    return {
        'n': len(images),
        'runs': len(first),
        'hits': int(np.isfinite(first).sum()),
        'p': p,
        'band': [[b.low for b in bands], [b.high for b in bands]],
        'cpu_each': cpu.mean() / length,
        'relaxations_50': float(np.median(first)),
        'relax_steps': np.mean([a.info['key_value_pairs'].get('relax_steps', 0) for a in images]),
    }


def cells(r: dict) -> tuple:
    """Return a row of the table; n are relaxations, of the genetic algorithm in all its runs."""

    def count(x):
        return 'inf' if x is None else f'{x:.1f}'

    band = ' to '.join(map(count, r['relaxations_50_95'])) if 'relaxations_50_95' in r else f'{r["runs"]} runs'
    name = NAMES[r['method']]
    return name, r['n'], r['hits'], count(r['relaxations_50']), band, f'{r["cpu_each"]:.2f}', f'{r["relax_steps"]:.0f}'


def draw(results: dict):
    """Return the figure: probability of success over relaxations, and over CPU time, of every system."""
    import matplotlib.pyplot as plt

    from ase_diffusion.plot import plot_success_curve

    systems = list(grouped(results, 'system'))
    figure, axes = plt.subplots(len(systems), 2, figsize=(10, 3.6 * len(systems)), layout='constrained', squeeze=False)
    for row, ((system,), records) in zip(axes, systems, strict=True):
        for r in records:
            for ax, scale in zip(row, (1.0, r['cpu_each']), strict=True):
                x = COUNTS[: len(r['p'])] * scale
                plot_success_curve(x, np.array(r['p']), np.array(r['band']), ax=ax, label=NAMES[r['method']], logx=True)
        row[0].set_title('{1} in p({0[0]}x{0[1]}), {2}'.format(*SYSTEMS[system]))
        row[1].set_xlabel('CPU time (s)')
    return figure


if __name__ == '__main__':
    main(Success)
