"""Metrics of crystals on real data: their ceilings, the thresholds of the success rates, and what they cost.

    python benchmarks/crystal_metrics.py /work/shared/data           # writes benchmarks/results/crystal_metrics.json
    python benchmarks/crystal_metrics.py /work/shared/data --scale   # writes ase_diffusion/metrics/crystal/magpie_scale.txt anew

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
from ase_diffusion.metrics.crystal.fingerprints import composition_fingerprints

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


def sample(name: str, images: list, n: int, rng) -> dict:
    """Measure what needs comparisons, on two halves of a sample of the test split."""
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


def stability(images: list, n: int, rng) -> dict:
    """Measure how many real crystals are stable, by the CHGNet energies that the data carry, on a hull without and with them."""
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
    path = HERE.parent / 'ase_diffusion' / 'metrics' / 'crystal' / 'magpie_scale.txt'
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
    sets = {name: read_crystals(args.data / f'{name}.npz') for name in SETS}
    results = {name: validity(name, images) for name, images in sets.items()}
    write(results)
    results['mp_le20']['stability'] = stability(sets['mp_le20'], args.n, np.random.default_rng(0))
    write(results)
    for name, images in sets.items():
        results[name]['sample'] = sample(name, images, args.n, np.random.default_rng(0))
        write(results)


def write(results: dict) -> None:
    """Write what is there so far."""
    path = HERE / 'results' / 'crystal_metrics.json'
    path.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    print('written', path, flush=True)


if __name__ == '__main__':
    main()
