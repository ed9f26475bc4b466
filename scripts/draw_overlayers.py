"""Draw overlayers M4O2 on nine metals and three facets from the top, docs/overlayers.png.

    python scripts/draw_overlayers.py [--out FILE] [--of 4]

Each is the lowest of four default samples by the force field `metal-oxide`, and not relaxed; on Rh and Ni, which it never saw,
the first sample.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from metals import SMALL, substrate

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.plot import plot_structure

COLUMNS, UNSEEN = ('Cu', 'Ag', 'Au', 'Pd', 'Pt', 'Ir', 'Al', 'Rh', 'Ni'), ('Rh', 'Ni')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path(__file__).resolve().parents[1] / 'docs' / 'overlayers.png')
    parser.add_argument('--of', type=int, default=4, help='samples of which the lowest is shown (4)')
    args = parser.parse_args()
    logging.getLogger('ase_diffusion').setLevel(logging.ERROR)
    *cell, metals, oxygens = SMALL
    figure, axes = plt.subplots(3, len(COLUMNS), figsize=(1.25 * len(COLUMNS), 4.6), layout='constrained')
    for row, facet in zip(axes, ('111', '100', '110'), strict=True):
        for ax, metal in zip(row, COLUMNS, strict=True):
            pick = {} if metal in UNSEEN else {'best_of': args.of, 'calculator': 'metal-oxide', 'guidance': False}
            slab = substrate(metal, facet, cell)
            gen = SurfaceDiffusion(slab, f'{metal}{metals}O{oxygens}', rng=1, logfile=None, compile=False, **pick)
            plot_structure(gen.sample(), ax=ax, repeat=(1, 2), margin=1.0)
            ax.set_title(f'{metal}({facet})', fontsize=8)
    figure.savefig(args.out, dpi=90)
    print(args.out)


if __name__ == '__main__':
    main()
