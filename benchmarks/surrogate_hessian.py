"""Relaxation with an expensive potential, with and without a first Hessian from the shipped force field.

    python benchmarks/surrogate_hessian.py run [-n 12] [--potential 7net-mf-0]
    python benchmarks/surrogate_hessian.py report

The same structures (Ag6O3 in p(3x3), as generated, and random starts relaxed to 0.5 eV/A with the force field first) go
through relax() twice: ase.optimize.BFGS as it is, and with hessian='ag-o'. Steps, seconds (the Hessian's included) and the
energies at the end are compared. ``--quick``: one random start, relaxed with the force field itself.
"""

from __future__ import annotations

from bench import Benchmark, frozen_slab, main, seeded

# isort: split
import time

import numpy as np

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.search import random_start

GENERATED, RANDOM = 'as generated', 'random, ag-o to 0.5 eV/A'


class SurrogateHessian(Benchmark):
    """An item is a list of structures."""

    name = 'surrogate_hessian'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('-n', type=int, default=12, help='structures of either kind (12)')
        parser.add_argument('--potential', default='7net-mf-0')
        parser.add_argument('--fmax', type=float, default=0.03, help='eV/A (0.03)')

    def settings(self) -> dict:
        potential = 'ag-o' if self.quick else self.args.potential
        return {'potential': potential, 'fmax': self.args.fmax, 'seeds': 'generated: 21; random start k: default_rng((22, k))'}

    def items(self):
        if not self.quick:
            yield GENERATED, GENERATED
        yield RANDOM, RANDOM

    def run(self, item: str) -> dict:
        n, settings = 1 if self.quick else self.args.n, self.settings()
        slab = frozen_slab((3, 3))
        if item == GENERATED:
            images = SurfaceDiffusion(slab, 'Ag6O3', rng=21, logfile=None).sample(n)
        else:
            images = relax([random_start(slab, 'Ag6O3', seeded(22, k)) for k in range(n)], 'ag-o', fmax=0.5)
        calculator = 'ag-o' if self.quick else get_calculator(settings['potential'])
        return compare(images, calculator, settings['fmax'])

    def report(self, results: dict) -> None:
        print(f'{self.file["settings"]["potential"]}, to {self.file["settings"]["fmax"]} eV/A')
        for name, r in results.items():
            plain, first = r['plain']['seconds_each'], r['ag-o']['seconds_each']
            print(
                f'{name}: {r["n"]} structures, steps {r["mean_steps"][0]} plain, {r["mean_steps"][1]} with the Hessian; '
                f'{plain} and {first} s each; same minimum {r["same_minimum_to_10_meV"]}, '
                f'mean change of the energy {1000 * r["mean_energy_change_eV"]:.0f} meV'
            )


def compare(images, calculator, fmax: float) -> dict:
    """Return steps, seconds and energies of both ways."""
    rows = {}
    for name, hessian in (('plain', None), ('ag-o', 'ag-o')):
        begun = time.perf_counter()
        done = relax(images, calculator, fmax=fmax, steps=300, hessian=hessian)
        seconds = (time.perf_counter() - begun) / len(images)
        pairs = [a.info['key_value_pairs'] for a in done]
        rows[name] = {
            'steps': [int(p['relax_steps']) for p in pairs],
            'converged': [bool(p['relax_converged']) for p in pairs],
            'energy': [round(a.get_potential_energy(), 4) for a in done],
            'seconds_each': round(seconds, 2),
        }
    gap = np.array(rows['ag-o']['energy']) - np.array(rows['plain']['energy'])
    steps = [np.mean(rows[name]['steps']) for name in ('plain', 'ag-o')]
    return rows | {
        'mean_steps': [round(float(s), 1) for s in steps],
        'mean_energy_change_eV': round(float(gap.mean()), 4),
        'same_minimum_to_10_meV': int((np.abs(gap) < 0.01).sum()),
        'n': len(images),
    }


if __name__ == '__main__':
    main(SurrogateHessian)
