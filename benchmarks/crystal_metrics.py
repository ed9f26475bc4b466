"""Metrics of crystals on real data: their ceilings, the thresholds of the success rates, and what they cost.

    python benchmarks/crystal_metrics.py /work/shared/data           # writes benchmarks/results/crystal_metrics.json
    python benchmarks/crystal_metrics.py /work/shared/data --scale   # writes ase_diffusion/metrics/magpie_scale.txt anew

What real crystals reach: validity over all of a set; uniqueness and novelty of the test split against the training split;
coverage and distances of one half of a sample of the test split against the other, which is what finite samples allow. Times
are wall-clock seconds beside whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from ase_diffusion import metrics
from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.metrics.fingerprints import composition_fingerprints

HERE = Path(__file__).parent
SETS = {  # cutoffs of the coverage, property
    'perov_5': ('perovskite', 'heat_of_formation'),
    'carbon_24': ('carbon', 'energy_per_atom'),
    'mp_le20': ('mp', 'formation_energy'),
}


def timed(function, *args, **kwargs):
    """Return the result and the seconds."""
    begun = time.perf_counter()
    return function(*args, **kwargs), round(time.perf_counter() - begun, 1)


def ceilings(name: str, folder: Path, n: int, rng) -> dict:
    """Measure one data set."""
    cutoffs, prop = SETS[name]
    images = read_crystals(folder / f'{name}.npz')
    splits = np.array([atoms.info['key_value_pairs']['split'] for atoms in images])
    parts = {split: [images[k] for k in np.flatnonzero(splits == split)] for split in ('train', 'test')}
    structural, structural_s = timed(metrics.structural_validity, images)
    compositional, compositional_s = timed(metrics.compositional_validity, images)
    sample = [parts['test'][k] for k in rng.permutation(len(parts['test']))[: 2 * n]]
    half, other = sample[:n], sample[n:]
    is_unique, unique_s = timed(metrics.unique, half)
    is_novel, novel_s = timed(metrics.novel, half, parts['train'])
    prints, prints_s = timed(lambda: [metrics.crystal_fingerprints(each) for each in (half, other)])
    thresholds = {split: metrics.success_rates([0.0], metrics.property_values(each, prop))['thresholds']
                  for split, each in {**parts, 'all': images}.items()}  # fmt: skip
    return {
        'n': len(images), 'n_train': len(parts['train']), 'sample': n,
        'structural_validity': float(structural.mean()), 'compositional_validity': float(compositional.mean()),
        'uniqueness': float(is_unique.mean()), 'novelty': float(is_novel.mean()),
        'coverage': metrics.coverage(*prints, cutoffs=cutoffs),
        'wasserstein': metrics.wasserstein_distances(half, other), 'ks': metrics.ks_statistics(half, other),
        'thresholds': {'property': prop, **thresholds},
        'seconds': {'structural': structural_s, 'compositional': compositional_s, 'unique': unique_s, 'novel': novel_s,
                    'fingerprints of two halves': prints_s},
    }  # fmt: skip


def stability(folder: Path, n: int, rng) -> dict:
    """Measure how many real crystals are stable, by the CHGNet energies that the data carry, on a hull without and with them."""
    images = read_crystals(folder / 'mp_le20.npz')
    energies = metrics.formation_energies(images, metrics.property_values(images, 'chgnet_energy_per_atom'))
    dft = metrics.property_values(images, 'formation_energy')
    test = np.flatnonzero([atoms.info['key_value_pairs']['split'] == 'test' for atoms in images])
    some = rng.permutation(test)[:n]
    rest = np.setdiff1d(np.arange(len(images)), test)
    chosen, answers = [images[k] for k in some], {}
    for name, kept in (('hull of train and val', rest), ('hull of all', np.arange(len(images)))):
        above, seconds = timed(metrics.energies_above_hull, chosen, energies[some], [images[k] for k in kept], energies[kept])
        answers[name] = metrics.sun(above, metrics.unique(chosen), np.ones(n, bool)) | {'seconds': seconds}
    return {'n': n, 'mae_formation_energy': float(np.nanmean(np.abs(energies - dft))), **answers}


def write_scale(folder: Path) -> None:
    """Write mean and standard deviation of the Magpie features over the training split of mp_le20."""
    vectors = composition_fingerprints(read_crystals(folder / 'mp_le20.npz', 'train'), scale=False)
    header = 'Mean and standard deviation of the 132 Magpie features over the compositions of the training split of mp_le20.'
    path = HERE.parent / 'ase_diffusion' / 'metrics' / 'magpie_scale.txt'
    np.savetxt(path, np.stack([vectors.mean(0), vectors.std(0)], axis=1), fmt='%.8g', header=header)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', type=Path, help='folder with perov_5.npz, carbon_24.npz, mp_le20.npz')
    parser.add_argument('-n', type=int, default=200, help='crystals in either half of the sample (200)')
    parser.add_argument('--scale', action='store_true')
    args = parser.parse_args()
    if args.scale:
        write_scale(args.data)
        return
    results = {name: ceilings(name, args.data, args.n, np.random.default_rng(0)) for name in SETS}
    results['mp_le20']['stability'] = stability(args.data, args.n, np.random.default_rng(0))
    path = HERE / 'results' / 'crystal_metrics.json'
    path.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    print(path.read_text())


if __name__ == '__main__':
    main()
