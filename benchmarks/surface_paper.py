"""The claims of Ronne et al. (Phys. Rev. B 110, 235427, 2024) on overlayers, measured with a stated potential.

    python benchmarks/surface_paper.py run ag12o6 random energy-2 -n 200 --potential ag-o
    python benchmarks/surface_paper.py run ag12o6 random energy-2 -n 40 --potential 7net-mf-0
    python benchmarks/surface_paper.py report

``run`` generates, relaxes (BFGS, fmax 0.05 eV/A, at most 200 steps) and appends to ``runs/surface_paper``; it goes on where it
stopped. ``report`` reads what is there and writes results/surface_paper.json and .png. Every structure of a variant has its own
seed, so that more can be added later. The test case Ag12O6 in p(4x4) is not in the training data.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import ase
import numpy as np
import torch
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read
from ase.io.trajectory import Trajectory

import ase_diffusion
from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import ag6_model, duplicates, is_ag6, is_valid
from ase_diffusion.relax import relax, relax_batched
from ase_diffusion.search import random_start

HERE = Path(__file__).parent
STORE = HERE.parent / 'runs' / 'surface_paper'
SYSTEMS = {'ag12o6': ((4, 4), 'Ag12O6'), 'ag6o3': ((3, 3), 'Ag6O3')}
SAMPLERS = ('renoised_ancestral', 'ancestral', 'euler_maruyama', 'ddim', 'heun', 'dpmpp_2m')
ANCESTRAL = {'sampler': 'ancestral', 'steps': 100}  # as many calls as 50 steps of renoised_ancestral, the default
UNCONDITIONED = {'energy': None, 'guidance_scale': 0.0}


def variants() -> dict:
    """Return name -> (constructor keywords, conditions); None stands for random starts."""
    table = {'random': None, 'all': ({}, UNCONDITIONED)}
    for scale in (1, 2, 4, 6, 8, 12):
        table[f'energy-{scale}'] = ({}, {'energy': 0.0, 'guidance_scale': float(scale)})
    table['guided'] = ({'guidance': True}, UNCONDITIONED)
    table['guided-early'] = ({'guidance': {'strength': 0.02, 'below': 1.0}}, UNCONDITIONED)
    relax = {'calculator': 'ag-o', 'fmax': 0.05, 'steps': 200}
    for scale in (2, 4, 6, 8, 12):
        asked = {'energy': 0.0, 'guidance_scale': float(scale)}
        table[f'energy-{scale}-guided'] = ({'guidance': True}, asked)
        table[f'energy-{scale}-guided-relaxed'] = ({'guidance': True, 'relax': relax}, asked)
        for count in (4, 8):  # the best of several, as generated, and relaxed with ag-o first
            table[f'energy-{scale}-guided-best-{count}'] = ({'guidance': True, 'best_of': count}, asked)
            table[f'energy-{scale}-guided-relaxed-best-{count}'] = ({'guidance': True, 'best_of': count, 'relax': relax}, asked)
    for name, (options, asked) in [item for item in table.items() if item[1] is not None]:
        table[f'{name}-ancestral'] = ({**options, **ANCESTRAL}, asked)
    table['energy-2-200'] = ({'steps': 200}, {'energy': 0.0, 'guidance_scale': 2.0})
    for sampler in SAMPLERS:
        for steps in (20, 50, 100, 200, 500, 1000):
            table[f'{sampler}-{steps}'] = ({'sampler': sampler, 'steps': steps}, UNCONDITIONED)
    for subset in ('all', 'low', 'ox', 'red'):  # checkpoints trained on parts of the data by surface_subsets.py
        model = HERE.parent / 'runs' / f'den_{subset}' / 'best.safetensors'
        table[f'D-{subset}'] = ({'model': str(model), **ANCESTRAL}, UNCONDITIONED)  # which shows what was learnt as it is
    return table


def slab_of(system: str):
    """Return two frozen layers of Ag(111), a = 4.16 A."""
    slab = fcc111('Ag', (*SYSTEMS[system][0], 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def generate(system: str, variant: str, first: int, count: int, steps: int):
    """Return ``count`` structures as generated, number ``first`` and up; invalid ones are kept and counted."""
    slab, stoich = slab_of(system), SYSTEMS[system][1]
    keywords = variants()[variant]
    if keywords is None:
        return [random_start(slab, stoich, np.random.default_rng((7, first + k))) for k in range(count)]
    options, conditions = keywords
    gen = SurfaceDiffusion(slab, stoich, rng=np.random.default_rng((11, first)), logfile=None, **{'steps': steps, **options})
    gen._reason_to_reject = lambda atoms: None  # validity is measured, so nothing may be rejected here
    return gen.sample(count, **conditions)


def relaxed(images, potential: str):
    """Relax with one of our own force fields in batches, or with any other calculator one by one."""
    if potential == 'ag-o':
        return relax_batched(images, 'ag-o', fmax=0.05, steps=200)
    return relax(images, potential, fmax=0.05, steps=200)


def run(args) -> None:
    """Fill the store up to n structures per variant."""
    STORE.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * args.minutes
    for variant in args.variants:
        path = STORE / f'{args.system}.{variant}.{args.potential}.traj'
        done = len(Trajectory(path)) if path.exists() else 0
        while done < args.n and time.monotonic() < end:
            count = min(args.chunk, args.n - done)
            begun = time.process_time()
            images = generate(args.system, variant, done, count, args.steps)
            middle = time.process_time()
            final = relaxed(images, args.potential)
            after = time.process_time()
            with Trajectory(path, 'a') as file:
                for start, end_ in zip(images, final, strict=True):
                    end_.info['key_value_pairs'] |= {
                        'valid_as_generated': is_valid(start),
                        'cpu_generate': (middle - begun) / count,
                        'cpu_relax': (after - middle) / count,
                    }
                    file.write(end_)
            done += count
            print(f'{path.stem}: {done} of {args.n}', flush=True)


def summary(images, reference: float, system: str) -> dict:
    """Return the row of the table for one distribution; energies in eV per cell above ``reference``."""
    pairs = [a.info['key_value_pairs'] for a in images]
    good = [k for k, p in enumerate(pairs) if not p.get('relax_failed')]
    start = np.array([pairs[k]['energy_generated'] for k in good]) - reference
    end = np.array([images[k].get_potential_energy() for k in good]) - reference
    steps = np.array([pairs[k]['relax_steps'] for k in good])
    n = len(good)
    row = {
        'n': n,
        'failed': len(images) - n,
        'valid': float(np.mean([p['valid_as_generated'] for p in pairs])),
        'generated_mean': start.mean(),
        'generated_median': np.median(start),
        'generated_error': start.std() / n**0.5,
        'relaxed_mean': end.mean(),
        'relaxed_error': end.std() / n**0.5,
        'relaxed_best': end.min(),
        'relax_steps_mean': steps.mean(),
        'relax_steps_median': np.median(steps),
        'converged': float(np.mean([pairs[k]['relax_converged'] for k in good])),
        'distinct_minima': len(set(duplicates([images[k] for k in good]))),
        'cpu_s_generate': np.mean([p['cpu_generate'] for p in pairs]),
        'cpu_s_relax': np.mean([p['cpu_relax'] for p in pairs]),
    }
    if system == 'ag12o6':
        row['ag6_found'] = sum(is_ag6(images[k]) for k in good)
    return {k: round(float(v), 4) if isinstance(v, (float, np.floating)) else v for k, v in row.items()}


def report(args) -> None:
    """Write results/surface_paper.json and .png from the store."""
    table: dict = {}
    pool: dict = {}
    for path in sorted(STORE.glob('*.traj')):
        system, variant, potential = path.stem.split('.')
        pool.setdefault((system, potential), {})[variant] = read(path, ':')
    for (system, potential), found in pool.items():
        energies = [a.get_potential_energy() for images in found.values() for a in images if a.calc is not None]
        reference = min(energies)
        if system == 'ag12o6':
            reference = relaxed([ag6_model()], potential)[0].get_potential_energy()
        rows = {name: summary(images, reference, system) for name, images in found.items()}
        table[f'{system} {potential}'] = {'reference_eV': reference, 'variants': rows}
        show(system, potential, rows)
    record = {
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread per process',
        'versions': {'ase_diffusion': ase_diffusion.__version__, 'ase': ase.__version__, 'torch': torch.__version__},
        'reference': 'ag12o6: the Ag6 model relaxed with the same potential; ag6o3: the lowest energy seen',
        'seeds': 'random start k: default_rng((7, k)); chunks of samples: default_rng((11, first))',
        'results': table,
    }
    out = HERE / 'results' / 'surface_paper.json'
    out.write_text(json.dumps(record, indent=1) + '\n')
    draw(pool, table, out.with_suffix('.png'))


def show(system, potential, rows) -> None:
    """Print one table."""
    print(f'\n{system}, {potential}; eV per cell')
    print(
        f'{"variant":<32s} {"n":>4s} {"valid":>6s} {"as generated":>16s} {"relaxed":>16s} {"best":>6s} {"steps":>6s} '
        f'{"minima":>6s} {"Ag6":>4s}'
    )
    for name, r in rows.items():
        print(
            f'{name:<32s} {r["n"]:4d} {100 * r["valid"]:5.1f}% {r["generated_mean"]:8.2f} +- {r["generated_error"]:4.2f} '
            f'{r["relaxed_mean"]:8.2f} +- {r["relaxed_error"]:4.2f} {r["relaxed_best"]:6.2f} {r["relax_steps_mean"]:6.0f} '
            f'{r["distinct_minima"]:6d} {r.get("ag6_found", "-"):>4}'
        )


def draw(pool, table, path) -> None:
    """Draw relaxed-energy histograms of every system and the curve over sampling steps."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from ase_diffusion.plot import plot_energy_histogram

    figure, axes = plt.subplots(len(pool), 2, figsize=(11, 3.6 * len(pool)), squeeze=False)
    for row, ((system, potential), found) in zip(axes, pool.items(), strict=True):
        entry = table[f'{system} {potential}']
        names = [n for n in ('random', 'all-ancestral', 'all', 'energy-8-ancestral', 'energy-2', 'energy-2-guided') if n in found]
        energies = {n: [a.get_potential_energy() - entry['reference_eV'] for a in found[n] if a.calc] for n in names}
        if energies:
            plot_energy_histogram(energies, ax=row[0], limits=(-0.3, 5), xlabel='Energy after relaxation (eV per cell)')
        row[0].set_title(f'{SYSTEMS[system][1]}, {potential}')
        for sampler in SAMPLERS:
            points = sorted((int(n.rsplit('-', 1)[1]), r) for n, r in entry['variants'].items() if n.startswith(sampler + '-'))
            if points:
                x = [p for p, _ in points]
                (line,) = row[1].semilogx(x, [r['generated_median'] for _, r in points], 'o-', label=sampler)
                row[1].semilogx(x, [r['relaxed_mean'] for _, r in points], 's--', color=line.get_color(), ms=4)
        row[1].set_xticks((20, 50, 100, 200, 500, 1000), ('20', '50', '100', '200', '500', '1000'), minor=False)
        row[1].minorticks_off()
        row[1].set(xlabel='sampling steps', ylabel='eV per cell (solid: as generated, dashed: relaxed)')
        if row[1].lines:
            row[1].legend(fontsize=8)
        else:
            row[1].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('run')
    one.add_argument('system', choices=SYSTEMS)
    one.add_argument('variants', nargs='+', choices=variants(), metavar='variant')
    one.add_argument('-n', type=int, default=200)
    one.add_argument('--potential', default='ag-o')
    one.add_argument('--steps', type=int, default=50)
    one.add_argument('--chunk', type=int, default=16)
    one.add_argument('--minutes', type=float, default=1e9, help='stop beginning new chunks after this time')
    commands.add_parser('report')
    args = parser.parse_args()
    run(args) if args.command == 'run' else report(args)


if __name__ == '__main__':
    main()
