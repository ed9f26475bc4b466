"""Energy grids of the IZA frameworks: how long they take, and void fraction, Henry coefficient and heat against labels.

    python benchmarks/grid_iza.py iza_zeolites.extxyz.gz [--backend numba] [--device cuda] [--batch]

The file holds P1 SiO2 frameworks with void_fraction, KH_unitless and Qst_kJ_mol in info (methane, 298 K, 32^3, 12 A); it
is not part of the package. Nothing here is random. `--batch` measures one call for all structures.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from ase.io import read

LABELS = {'void_fraction': 'void_fraction', 'henry_coefficient': 'KH_unitless', 'heat_of_adsorption': 'Qst_kJ_mol'}


def machine() -> dict:
    """Describe the machine, the versions and the threads."""
    from importlib.metadata import version

    text = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    models = [line.split(':')[1].strip() for line in text.splitlines() if line.startswith('model name')]
    found = {
        'cpu': models[0] if models else platform.processor(),
        'cores': os.cpu_count(),
        'load': os.getloadavg(),
        'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS'),
        'python': platform.python_version(),
        **{name: version(name) for name in ('numpy', 'numba', 'torch', 'ase')},
    }
    import torch

    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.get_device_name()
    return found


def main() -> None:
    """Measure, compare, and write results/grid_iza.json."""
    from ase_diffusion.porous import adsorption_properties, energy_grid

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file')
    parser.add_argument('--backend')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch', action='store_true')
    parser.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'grid_iza.json'))
    args = parser.parse_args()
    opener = gzip.open if args.file.endswith('.gz') else open
    with opener(args.file, 'rt') as file:
        images = read(io.StringIO(file.read()), ':', format='extxyz')
    options = {'backend': args.backend, 'device': args.device}
    energy_grid(images[0], **options)  # compilation
    wall, cpu, grids, each = time.perf_counter(), time.process_time(), [], []
    if args.batch:
        grids = list(energy_grid(images, **options))
    else:
        for atoms in images:
            begun = time.process_time()
            grids.append(energy_grid(atoms, **options))
            each.append(time.process_time() - begun)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows = [adsorption_properties(grid) for grid in grids]
    record = {
        'machine': machine(),
        'options': options,
        'batch': args.batch,
        'structures': len(images),
        'wall_s': round(wall, 3),
        'process_s': round(cpu, 3),
        'results': {},
    }
    if each:
        record['process_ms'] = {'median': round(1e3 * float(np.median(each)), 2), 'most': round(1e3 * max(each), 2)}
    for name, label in LABELS.items():
        mine, theirs = np.array([row[name] for row in rows]), np.array([atoms.info[label] for atoms in images])
        known = np.isfinite(theirs)
        relative = np.abs(mine - theirs)[known] / np.maximum(np.abs(theirs[known]), 1e-12)
        codes = np.array([atoms.info['framework'] for atoms in images])[known]
        record['results'][name] = {
            'compared': int(known.sum()),
            'within 1e-3': int((relative < 1e-3).sum()),
            'median': float(np.median(relative)),
            'worst': {
                codes[k]: [float(mine[known][k]), float(theirs[known][k]), float(relative[k])] for k in np.argsort(-relative)[:8]
            },
        }
    text = json.dumps(record, indent=1)
    Path(args.out).write_text(text + '\n', encoding='utf-8')
    print(text)


if __name__ == '__main__':
    main()
