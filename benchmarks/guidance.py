"""What force guidance by different calculators gives and costs, at equal seeds: Ag6O3 in p(3x3), judged by one potential.

    python benchmarks/guidance.py run [-n 8]   # fills runs/guidance, goes on where it stopped
    python benchmarks/guidance.py report       # results/guidance.json from what is there

Samples of the unconditional model (guidance by forces has the most to do there) are guided by nothing, by the shipped force
field, by CHGNet and by 7net-mf-0, on every second step below t = 0.5. All are then relaxed with 7net-mf-0 (BFGS, 0.05 eV/A, at
most 200 steps), and the energies are those of 7net-mf-0. Calls in all: guidance and relaxation, each per structure.
"""

from __future__ import annotations

import argparse
import hashlib
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
from ase.io import read, write

import ase_diffusion
from ase_diffusion import SurfaceDiffusion
from ase_diffusion.metrics import validity
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.weights.zoo import find_model

HERE = Path(__file__).parent
JUDGE = '7net-mf-0'
GUIDES = (None, 'ag-o', 'chgnet', '7net-mf-0')
OPTIONS = {'every': 2, 'finish_steps': 10}
STEPS = 50


def store() -> Path:
    """Return the folder of the present weights."""
    parts = [hashlib.sha256(find_model(name).read_bytes()).hexdigest()[:10] for name in ('ag-o-forcefield', 'ag-o-overlayer')]
    return HERE.parent / 'runs' / 'guidance' / '-'.join(parts)


def run(n: int) -> None:
    """Generate and relax structure after structure, all guides in turn."""
    torch.set_num_threads(1)
    slab = fcc111('Ag', (3, 3, 2), a=4.16, vacuum=10.0)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    calculators = {name: get_calculator(name) for name in GUIDES[1:]}
    for number in range(n):
        for guide in GUIDES:
            path = store() / f'{guide}.{number:03d}.traj'
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            guidance = None if guide is None else {'calculator': 'ag-o' if guide == 'ag-o' else calculators[guide], **OPTIONS}
            gen = SurfaceDiffusion(slab, 'Ag6O3', rng=number, steps=STEPS, guidance=guidance, logfile=None, compile=False)
            gen._reason_to_reject = lambda atoms: None  # validity is measured
            begun = time.process_time()
            start = gen.sample(energy=None, guidance_scale=0.0)
            middle = time.process_time()
            end = relax(start, calculators[JUDGE], fmax=0.05, steps=200)
            for atoms in (start, end):
                atoms.info['key_value_pairs'] |= {'cpu_generate': middle - begun, 'cpu_relax': time.process_time() - middle}
            write(path.with_suffix('.partial'), [start, end], format='traj')
            path.with_suffix('.partial').replace(path)
            print(time.strftime('%H:%M:%S'), guide, number, flush=True)


def mean(values) -> list:
    """Return mean and standard error, rounded."""
    values = np.asarray(values, float)
    return [round(float(values.mean()), 3), round(float(values.std(ddof=1) / len(values) ** 0.5), 3) if len(values) > 1 else None]


def report() -> None:
    """Write results/guidance.json and print the table, over the seeds that all guides have."""
    have = [{int(path.name.split('.')[1]) for path in store().glob(f'{guide}.*.traj')} for guide in GUIDES]
    seeds = sorted(set.intersection(*have))
    if not seeds:
        raise SystemExit(f'{store()} has no seed that all guides have; python benchmarks/guidance.py run')
    pairs = {guide: [read(store() / f'{guide}.{k:03d}.traj', ':') for k in seeds] for guide in GUIDES}
    done = [end for rows in pairs.values() for _, end in rows if not end.info['key_value_pairs'].get('relax_failed')]
    zero = min(end.get_potential_energy() for end in done)
    table = {}
    for guide, rows in pairs.items():
        told = [end.info['key_value_pairs'] for _, end in rows]
        good = [k for k, x in enumerate(told) if not x.get('relax_failed')]
        calls = [told[k].get('guidance_calls', 0) + told[k]['relax_steps'] + 1 for k in good]
        table[str(guide)] = {
            'n': len(rows),
            'failed': len(rows) - len(good),
            'valid': validity([start for start, _ in rows]),
            'generated_eV': mean([told[k]['energy_generated'] - zero for k in good]),
            'relaxed_eV': mean([rows[k][1].get_potential_energy() - zero for k in good]),
            'relax_steps': mean([told[k]['relax_steps'] for k in good]),
            'guidance_calls': mean([told[k].get('guidance_calls', 0) for k in good]),
            'calls_in_all': mean(calls),
            'cpu_generate_s': mean([x['cpu_generate'] for x in told]),
            'cpu_relax_s': mean([x['cpu_relax'] for x in told]),
        }
        print(guide, json.dumps(table[str(guide)]))
    record = {
        'system': 'Ag6O3 in p(3x3) Ag(111), unconditional samples, 50 steps; eV per cell above the lowest',
        'numbers': 'mean and standard error',
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread, beside other programs',
        'versions': {'ase_diffusion': ase_diffusion.__version__, 'ase': ase.__version__, 'torch': torch.__version__},
        'guidance': OPTIONS,
        'judge': JUDGE,
        'weights': store().name,
        'seeds': len(seeds),
        'results': table,
    }
    (HERE / 'results' / 'guidance.json').write_text(json.dumps(record, indent=1) + '\n')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('command', choices=('run', 'report'))
    parser.add_argument('-n', type=int, default=8, help='seeds')
    args = parser.parse_args()
    run(args.n) if args.command == 'run' else report()


if __name__ == '__main__':
    main()
