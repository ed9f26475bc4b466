"""Train a network of images whose pixels have outputs of their own, for tables 1 and 2 of the paper; trunk: that of crystens-mp.

    python scripts/crystens_pixels.py ../shared/data/mp_le52.npz --minutes 60 --out runs/pixels

The same line goes on with an interrupted training. No site is told: the space group is part of the image, as in the paper.
"""

from __future__ import annotations

import argparse

import torch

from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.networks import RowTransformer
from ase_diffusion.representations import representation_from_dict
from ase_diffusion.training.crystens import train_crystens
from ase_diffusion.weights.zoo import load_model

HELD = 512


def begun(network: RowTransformer) -> RowTransformer:
    """Return a network of one output per pixel that has all weights of another one but for the shares of copies."""
    torch.manual_seed(0)
    free = RowTransformer(**{**network.settings, 'tied': False})
    mine = free.state_dict()
    found = {name: value for name, value in network.state_dict().items() if name in mine and not name.startswith('share')}
    free.load_state_dict(mine | found)
    return free


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('data', help='mp_le52.npz')
    parser.add_argument('--init', default='crystens-mp', help='checkpoint that it begins with (crystens-mp: its trunk)')
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--out', default='runs/pixels')
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    network, header = load_model(args.init)
    held = read_crystals(args.data, 'val')
    images = read_crystals(args.data, 'train') + held[HELD:]
    train_crystens(
        images,
        args.out,
        validation=held[:HELD],
        conditions=list(header['conditions']),
        network=begun(network),
        representation=representation_from_dict(header['representation']),
        steps=10**6,
        minutes=args.minutes,
        batch_size=128,
        lr=6e-4,
        ema=0.998,
        every=500,
        sites=0.0,
        precision='bf16-mixed',
    )


if __name__ == '__main__':
    main()
