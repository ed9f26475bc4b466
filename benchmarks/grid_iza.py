"""Energy grids of the IZA frameworks: how long they take, and void fraction, Henry coefficient and heat against labels.

    python benchmarks/grid_iza.py run iza_zeolites.extxyz.gz [--backend numba] [--device cuda] [--batch]
    python benchmarks/grid_iza.py report

The file holds P1 SiO2 frameworks with void_fraction, KH_unitless and Qst_kJ_mol in info (methane, 298 K, 32^3, 12 A); it
is not part of the package. Nothing here is random. ``--batch`` measures one call for all structures. ``--quick``, without a file:
LTA, whose labels are those of the torch back end.
"""

from __future__ import annotations

from bench import ROOT, Benchmark, main, table

# isort: split
import importlib.util
import time

import numpy as np
from ase.io import read

from ase_diffusion.porous import adsorption_properties, energy_grid

LABELS = {'void_fraction': 'void_fraction', 'henry_coefficient': 'KH_unitless', 'heat_of_adsorption': 'Qst_kJ_mol'}


class GridIza(Benchmark):
    """The only item is the file, with a back end and a device."""

    name = 'grid_iza'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('file', nargs='?')
        parser.add_argument('--backend', choices=['numba', 'torch', 'triton'])
        parser.add_argument('--device', default='cpu')
        parser.add_argument('--batch', action='store_true', help='one call for all structures')

    def items(self):
        args = self.args
        if not args.file and not self.quick:
            raise SystemExit('name the file with the frameworks and their labels; --quick needs none')
        key = f'{args.backend or "default"}, {args.device}' + (', batch' if args.batch else '')
        yield key, {'backend': args.backend, 'device': args.device, 'batch': args.batch}

    def run(self, item: dict) -> dict:
        images = read(self.args.file, ':') if self.args.file else labelled()
        options = {name: item[name] for name in ('backend', 'device')}
        energy_grid(images[0], **options)  # compilation
        wall, cpu, grids, each = time.perf_counter(), time.process_time(), [], []
        if item['batch']:
            grids = list(energy_grid(images, **options))
        else:
            for atoms in images:
                begun = time.process_time()
                grids.append(energy_grid(atoms, **options))
                each.append(time.process_time() - begun)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        record = {**item, 'structures': len(images), 'wall_s': round(wall, 3), 'process_s': round(cpu, 3)}
        if each:
            record['process_ms'] = {'median': round(1e3 * float(np.median(each)), 2), 'most': round(1e3 * max(each), 2)}
        rows = [adsorption_properties(grid) for grid in grids]
        return {**record, 'labels': {name: compared(images, rows, name) for name in LABELS}}

    def report(self, results: dict) -> None:
        for key, r in results.items():
            each = ' {median} ms each (median), {most} at most;'.format(**r['process_ms']) if 'process_ms' in r else ''
            print(f'\n{key}: {r["structures"]} structures, {r["process_s"]} s of CPU,{each} {r["wall_s"]} s in all')
            rows = [(name, x['compared'], x['within 1e-3'], f'{x["median"]:.3g}') for name, x in r['labels'].items()]
            print(table(('', 'compared', 'within 1e-3', 'median relative error'), rows))
            for name, x in r['labels'].items():
                worst = [(code, *(f'{value:.7g}' for value in row)) for code, row in x['worst'].items()]
                print(f'\nlargest relative errors of {name}\n{table(("", "computed", "label", "error"), worst)}')


def compared(images: list, rows: list[dict], name: str) -> dict:
    """Return how far a property is from its labels."""
    mine, theirs = np.array([row[name] for row in rows]), np.array([atoms.info[LABELS[name]] for atoms in images])
    known = np.isfinite(theirs)
    relative = np.abs(mine - theirs)[known] / np.maximum(np.abs(theirs[known]), 1e-12)
    codes = np.array([atoms.info['framework'] for atoms in images])[known]
    worst = np.argsort(-relative)[:8]
    return {
        'compared': int(known.sum()),
        'within 1e-3': int((relative < 1e-3).sum()),
        'median': float(np.median(relative)),
        'worst': {codes[k]: [float(mine[known][k]), float(theirs[known][k]), float(relative[k])] for k in worst},
    }


def lta_and_mfi() -> dict:
    """Return LTA and MFI, from the coordinates that the tests have."""
    spec = importlib.util.spec_from_file_location('frameworks', ROOT / 'tests' / 'porous' / 'conftest.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        'LTA': module.framework(module.LTA_SITES, 221, (11.919,) * 3),
        'MFI': module.framework(module.MFI_SITES, 62, (20.090, 19.738, 13.142)),
    }


def labelled() -> list:
    """Return LTA with the properties by the torch back end."""
    atoms = lta_and_mfi()['LTA']
    found = adsorption_properties(energy_grid(atoms, backend='torch'))
    atoms.info |= {'framework': 'LTA', **{label: found[name] for name, label in LABELS.items()}}
    return [atoms]


if __name__ == '__main__':
    main(GridIza)
