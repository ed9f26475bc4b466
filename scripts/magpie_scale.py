"""Write ase_diffusion/metrics/crystal/magpie_scale.txt: mean and standard deviation of the Magpie features over mp_le20.

    python scripts/magpie_scale.py mp_le20.npz

Takes a minute; the training split alone is used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.metrics.crystal.fingerprints import composition_fingerprints

OUT = Path(__file__).resolve().parents[1] / 'ase_diffusion' / 'metrics' / 'crystal' / 'magpie_scale.txt'


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='mp_le20.npz')
    parser.add_argument('--out', type=Path, default=OUT)
    args = parser.parse_args()
    vectors = composition_fingerprints(read_crystals(args.data, 'train'), scale=False)
    header = 'Mean and standard deviation of the 132 Magpie features over the compositions of the training split of mp_le20.'
    np.savetxt(args.out, np.stack([vectors.mean(0), vectors.std(0)], axis=1), fmt='%.8g', header=header)


if __name__ == '__main__':
    main()
