"""Results of success.py: probabilities with bands, table, JSON and picture."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import ase
import numpy as np
import torch
from scipy.stats import binomtest
from success import RELAX, RUNS, SAMPLER, STORE, SYSTEMS, TARGETS, folder, load

import ase_diffusion
from ase_diffusion.metrics import duplicates

HERE = Path(__file__).parent
REPEATS = 1000  # searches drawn from the pool of independent attempts
NAMES = {
    'random': 'random search',
    'diffusion': 'diffusion',
    'guided': 'guided diffusion',
    'long': 'diffusion, 4 x the steps',
    'screened': 'guided, best of 4 with ag-o',
    'ga': 'ase-ga',
    'ga-diffusion': 'ase-ga with our operators',
}


def hits_of(images, best) -> np.ndarray:
    """Tell which images are the best known structure, up to the symmetry of the substrate, bool (n,)."""
    limit = best.get_potential_energy() + 0.05
    near = [k for k, a in enumerate(images) if a.calc is not None and a.get_potential_energy() < limit]
    hits = np.zeros(len(images), bool)
    if near:
        hits[near] = np.array(duplicates([best, *(images[k] for k in near)])[1:]) == 0
    return hits


def independent(images, hits, counts) -> dict:
    """Return the success of searches of k independent attempts, drawn with replacement from all (REPEATS searches).

    The mean of such searches is 1 - (1 - q)^k with q the share of hits, and the band carries the Clopper-Pearson interval of q.
    """
    q, n = hits.mean(), len(hits)
    low, high = binomtest(int(hits.sum()), n).proportion_ci(0.95)
    p, band = 1 - (1 - q) ** counts, [1 - (1 - x) ** counts for x in (low, high)]
    pairs = [a.info['key_value_pairs'] for a in images]
    cpu = np.mean([x['cpu_generate'] + x['cpu_relax'] for x in pairs])
    rng = np.random.default_rng(0)
    first = rng.geometric(q, REPEATS) if q else np.full(REPEATS, np.inf)
    energies = np.array([a.get_potential_energy() for a in images if a.calc is not None])
    steps = np.mean([x.get('relax_steps', 0) for x in pairs])
    return {
        'n': n,
        'hits': int(hits.sum()),
        'q': q,
        'q_95': [low, high],
        'p': p,
        'band': band,
        'cpu_each': cpu,
        'relaxations_50': half(q),
        'relaxations_50_95': [half(high), half(low)],
        'median_of_repeats': float(np.median(first)),
        'relax_steps': steps,
        'guidance_calls': np.mean([x['guidance_calls'] for x in pairs]),
        'mean_eV': energies.mean(),
        'error_eV': energies.std() / len(energies) ** 0.5,
    }


def half(q: float) -> float:
    """Return the number of independent attempts for a probability of one half."""
    return float(np.log(0.5) / np.log1p(-q)) if 0 < q < 1 else (1.0 if q else np.inf)


def sequential(images, hits, counts) -> dict:
    """Return the success of whole runs: the share of runs that had it after k relaxations, Clopper-Pearson band."""
    runs: dict = {}
    for atoms, hit in zip(images, hits, strict=True):
        pairs = atoms.info['key_value_pairs']
        first, cpu = runs.get(pairs['run'], (np.inf, 0.0))
        runs[pairs['run']] = (min(first, pairs['number'] + 1 if hit else np.inf), max(cpu, pairs['cpu']))
    first, cpu = (np.array(x) for x in zip(*runs.values(), strict=True))
    length = len(images) // len(runs)
    counts = counts[counts <= length]
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


def report() -> None:
    """Write results/success.json and .png from the store."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from ase_diffusion.plot import plot_success_curve

    pools = {system: {m: images for m in TARGETS[system] if (images := load(system, m))} for system in SYSTEMS}
    pools = {system: pool for system, pool in pools.items() if pool}
    if not pools:
        raise SystemExit(f'nothing in {STORE} with the present weights; first: python benchmarks/success.py run')
    figure, axes = plt.subplots(len(pools), 2, figsize=(10, 3.6 * len(pools)), layout='constrained', squeeze=False)
    table = {}
    for row, (system, pool) in zip(axes, pools.items(), strict=True):
        everything = [a for images in pool.values() for a in images if a.calc is not None]
        best = min(everything, key=lambda a: a.get_potential_energy())
        counts = np.unique(np.round(np.geomspace(1, 2048, 60)).astype(int))
        rows = {}
        for method, images in pool.items():
            hits = hits_of(images, best)
            rows[method] = (sequential if method.startswith('ga') else independent)(images, hits, counts)
            x = counts[: len(rows[method]['p'])]
            for ax, scale in zip(row, (1.0, rows[method]['cpu_each']), strict=True):
                plot_success_curve(x * scale, rows[method]['p'], rows[method]['band'], ax=ax, label=NAMES[method], logx=True)
        row[0].set_title('{1} in p({0[0]}x{0[1]}), {2}'.format(*SYSTEMS[system]))
        row[1].set_xlabel('CPU time (s)')
        table[system] = {
            'potential': SYSTEMS[system][2],
            'best_eV': best.get_potential_energy(),
            'weights': {m: folder(system, m).parent.name for m in rows},
            'methods': rows,
        }
        show(system, rows)
    out = HERE / 'results' / 'success.json'
    record = {
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread, beside other programs',
        'versions': {'ase_diffusion': ase_diffusion.__version__, 'ase': ase.__version__, 'torch': torch.__version__},
        'settings': {**RELAX, 'sampler': SAMPLER, 'ga_runs_side_by_side': RUNS},
        'results': table,
    }
    out.write_text(json.dumps(plain(record), indent=1) + '\n')
    figure.savefig(out.with_suffix('.png'), dpi=130)


def plain(value):
    """Return a value as JSON knows it: numpy as lists, numbers rounded, what is infinite as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def show(system: str, rows: dict) -> None:
    """Print one table; n are relaxations, of the genetic algorithm in all its runs."""
    print(f'\n{system}')
    print(f'{"method":<28s} {"n":>5s} {"found":>5s} {"for 50 %":>9s} {"95 %":>16s} {"CPU s each":>10s} {"steps":>6s}')
    for method, r in rows.items():
        band = '{:.1f} to {:.1f}'.format(*r['relaxations_50_95']) if 'relaxations_50_95' in r else f'{r["runs"]} runs'
        print(
            f'{NAMES[method]:<28s} {r["n"]:5d} {r["hits"]:5d} {r["relaxations_50"]:9.1f} {band:>16s} {r["cpu_each"]:10.2f} '
            f'{r["relax_steps"]:6.0f}'
        )
