"""Train overlayer models on parts of the data, for the claims (b) and (c) of Ronne et al. (surface_paper.py measures them).

    python benchmarks/surface_subsets.py low ox red --minutes 8

all: structures within 2 eV of the best of their composition and cell, as the paper's D; low: within 0.5 eV, as its D_lowE; ox and
red: the part of D with more, and with less, oxygen per silver than 1 : 2, so that Ag6O3 and Ag12O6 are in neither. Every model is
trained from nothing with the same settings for the same time; they end in runs/den_NAME/best.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

from ase_diffusion.data import read_frames
from ase_diffusion.training import Overlayers
from ase_diffusion.training.surface import train_surface

RUNS = Path(__file__).parents[1] / 'runs'


def oxygen_per_silver(item) -> float:
    """Return the ratio of O to Ag among the mobile atoms."""
    return float((item.numbers == 8).sum() / max(1, (item.numbers == 47).sum()))


def above(item) -> float:
    """Return the energy above the best of the composition, eV per cell."""
    return item.relative * len(item.numbers)


SUBSETS = {
    'all': lambda item: above(item) <= 2,
    'low': lambda item: above(item) <= 0.5,
    'ox': lambda item: above(item) <= 2 and oxygen_per_silver(item) > 0.5,
    'red': lambda item: above(item) <= 2 and oxygen_per_silver(item) < 0.5,
}


def main() -> None:
    """Train the models asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='+', choices=SUBSETS)
    parser.add_argument('--data', default='ag-o-rss')
    parser.add_argument('--minutes', type=float, default=8)
    parser.add_argument('--steps', type=int, default=100_000)
    args = parser.parse_args()
    logging.basicConfig(format='%(message)s', level=logging.INFO)
    data = Overlayers.from_atoms(read_frames(args.data))
    for name in args.names:
        part = data.select(SUBSETS[name])
        print(f'{name}: {len(part.items)} structures of {len({i.run for i in part.items})} relaxations', flush=True)
        train_surface(
            part,
            RUNS / f'den_{name}',
            steps=args.steps,
            minutes=args.minutes,
            height=(0.4, 5.0),
            compile_network=True,
            progress=False,
        )


if __name__ == '__main__':
    main()
