"""Metrics of crystals on real data: their ceilings, the thresholds of the success rates, and what they cost.

    python benchmarks/crystal_metrics.py run DATA
    python benchmarks/crystal_metrics.py report

DATA is a folder with perov_5.npz, carbon_24.npz and mp_le20.npz. What real crystals reach: validity over all of a set; uniqueness
and novelty of the test split against the training split; coverage and distances of one half of a sample of the test split against
the other, which is what finite samples allow. Times are wall-clock seconds beside whatever else the machine does. ``--quick``,
without data: validity of a few rock salts.
"""

from __future__ import annotations

from bench import Benchmark, main, number, table

# isort: split
import time
from pathlib import Path

import numpy as np
from crystal_judges import rock_salts

from ase_diffusion import metrics
from ase_diffusion.data.crystals import read_crystals

SETS = {  # cutoffs of the coverage, property
    'perov_5': ('perovskite', 'heat_of_formation'),
    'carbon_24': ('carbon', 'energy_per_atom'),
    'mp_le20': ('mp', 'formation_energy'),
}


class CrystalMetrics(Benchmark):
    """An item is a measurement on a data set."""

    name = 'crystal_metrics'

    def __init__(self, args):
        super().__init__(args)
        self.sets = {}

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('data', nargs='?', type=Path)
        parser.add_argument('-n', type=int, default=100, help='crystals in either half of the sample (100)')

    def settings(self) -> dict:
        return {'n': self.args.n}

    def items(self):
        if self.quick:
            yield 'mp_le20: validity', ('mp_le20', 'validity')
            return
        if not self.args.data:
            raise SystemExit('name the folder with the data; --quick needs none')
        for name in SETS:
            yield f'{name}: validity', (name, 'validity')
        yield 'mp_le20: stability', ('mp_le20', 'stability')
        for name in SETS:
            yield f'{name}: sample', (name, 'sample')

    def images(self, name: str) -> list:
        """Return the crystals of a set, each read once."""
        if name not in self.sets:
            self.sets[name] = rock_salts() if self.quick else read_crystals(self.args.data / f'{name}.npz')
        return self.sets[name]

    def run(self, item) -> dict:
        name, what = item
        if what == 'validity':
            return validity(name, self.images(name))
        if what == 'stability':
            return stability(self.images(name), self.args.n)
        return sample(name, self.images(name), self.args.n)

    def report(self, results: dict) -> None:
        def of(what):
            return {key.split(': ')[0]: r for key, r in results.items() if key.endswith(f': {what}')}

        rows, limits = [], []
        for name, r in of('validity').items():
            shares = (f'{100 * r[key]:.2f}' for key in ('structural_validity', 'compositional_validity'))
            rows.append((name, r['n'], *shares, *(r['seconds'][key] for key in ('structural', 'compositional'))))
            limits += [(name, split, *(f'{x:.4f}' for x in r['thresholds'][split].values())) for split in ('train', 'all')]
        print(table(('set', 'n', 'struct. %', 'comp. %', 'struct., s', 'comp., s'), rows))
        print('\nthresholds of the success rates')
        print(table(('set', 'split', '5 %', '10 %', '15 %'), limits))
        rows, ks = [], []
        for name, r in of('sample').items():
            row = (r['uniqueness'], r['novelty'], r['coverage']['recall'], r['coverage']['precision'])
            distances = (number(r['wasserstein'][key], 3) for key in ('density', 'elements'))
            rows.append((name, r['n'], *(number(x) for x in row), *distances, *r['seconds'].values()))
            ks.append((name, *(number(x, 3) for x in r['ks'].values())))
        if rows:
            head = ('set', 'n', 'unique', 'novel', 'COV-R', 'COV-P', 'W density', 'W elements', '(s) unique', 'novel', 'prints')
            print(f'\ntest split against the training split, and one half against the other\n{table(head, rows)}')
            names = next(iter(of('sample').values()))['ks']
            print(f'\nKolmogorov-Smirnov statistics of the halves\n{table(("set", *names), ks)}')
        for name, r in of('stability').items():
            head = ('hull', 'stable', '<= 0', '<= 0.08', '<= 0.1', 'median, eV/atom', 's')
            rows = []
            for hull, x in ((k, x) for k, x in r.items() if k.startswith('hull')):
                shares = (number(y) for y in (x['stable'], *x['shares'].values()))
                rows.append((hull, *shares, number(x['median'], 4), x['seconds']))
            print(f'\n{name}: {r["n"]} real crystals by CHGNet (mean error {r["mae_formation_energy"]:.4f} eV/atom)')
            print(table(head, rows))


def timed(function, *args, **kwargs):
    """Return the result and the seconds."""
    begun = time.perf_counter()
    return function(*args, **kwargs), round(time.perf_counter() - begun, 1)


def validity(name: str, images: list) -> dict:
    """Measure the ceilings of validity and the thresholds of the success rates on a whole data set."""
    structural, structural_s = timed(metrics.structural_validity, images)
    compositional, compositional_s = timed(metrics.compositional_validity, images)
    parts = {'train': of_split(images, 'train'), 'all': images}
    prop = SETS[name][1]
    thresholds = {
        split: metrics.success_rates([0.0], metrics.property_values(each, prop))['thresholds'] for split, each in parts.items()
    }
    return {
        'n': len(images),
        'structural_validity': float(structural.mean()),
        'compositional_validity': float(compositional.mean()),
        'thresholds': {'property': prop, **thresholds},
        'seconds': {'structural': structural_s, 'compositional': compositional_s},
    }


def of_split(images: list, split: str) -> list:
    """Return the crystals of a split."""
    return [atoms for atoms in images if atoms.info['key_value_pairs']['split'] == split]


def sample(name: str, images: list, n: int) -> dict:
    """Measure what needs comparisons, on two halves of a sample of the test split."""
    rng = np.random.default_rng(0)
    test, train = of_split(images, 'test'), of_split(images, 'train')
    chosen = [test[k] for k in rng.permutation(len(test))[: 2 * n]]
    half, other = chosen[:n], chosen[n:]
    is_unique, unique_s = timed(metrics.unique, half)
    is_novel, novel_s = timed(metrics.novel, half, train)
    prints, prints_s = timed(lambda: [metrics.crystal_fingerprints(each) for each in (half, other)])
    return {
        'n': n,
        'n_train': len(train),
        'uniqueness': float(is_unique.mean()),
        'novelty': float(is_novel.mean()),
        'coverage': metrics.coverage(*prints, cutoffs=SETS[name][0]),
        'wasserstein': metrics.wasserstein_distances(half, other),
        'ks': metrics.ks_statistics(half, other),
        'seconds': {'unique': unique_s, 'novel': novel_s, 'fingerprints of both': prints_s},
    }


def stability(images: list, n: int) -> dict:
    """Measure how many real crystals are stable, by the CHGNet energies that the data carry, on a hull without and with them."""
    energies = metrics.formation_energies(images, metrics.property_values(images, 'chgnet_energy_per_atom'))
    dft = metrics.property_values(images, 'formation_energy')
    test = np.flatnonzero([atoms.info['key_value_pairs']['split'] == 'test' for atoms in images])
    some = np.random.default_rng(0).permutation(test)[:n]
    rest = np.setdiff1d(np.arange(len(images)), test)
    chosen, answers = [images[k] for k in some], {}
    for name, kept in (('hull of train and val', rest), ('hull of all', np.arange(len(images)))):
        above, seconds = timed(metrics.energies_above_hull, chosen, energies[some], [images[k] for k in kept], energies[kept])
        answers[name] = metrics.sun(above, metrics.unique(chosen), np.ones(n, bool)) | {'seconds': seconds}
    return {'n': n, 'mae_formation_energy': float(np.nanmean(np.abs(energies - dft))), **answers}


if __name__ == '__main__':
    main(CrystalMetrics)
