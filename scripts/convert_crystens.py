"""Make a checkpoint of images from the weights of a plain training loop.

    python scripts/convert_crystens.py WEIGHTS SETTINGS DATA OUT ...

WEIGHTS: safetensors with the state of a RowTransformer. SETTINGS: JSON with network, representation, process, sizes, conditions
and arguments of the training. DATA: npz with counts, numbers, fractional, cell (lengths, angles, space group) and split (0 train,
1 val, 2 test) of the crystals; those of train, and those of val but the first arguments['held'] of a fixed permutation, were
trained on.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ase_diffusion.networks import RowTransformer
from ase_diffusion.representations import CrysTens
from ase_diffusion.representations.cells import cells_of_parameters
from ase_diffusion.training.checkpoint import load_checkpoint, save_checkpoint
from ase_diffusion.training.crystal_data import Crystals
from ase_diffusion.training.crystens import SAMPLING, UNITS


def trained_on(path, held: int) -> tuple[dict, dict]:
    """Return what a checkpoint says about its data, and how many crystals of how many atoms are in which space group."""
    with np.load(path) as data:
        counts, split, number = data['counts'].astype(int), data['split'], data['cell'][:, 6].astype(int)
        lengths, angles = data['cell'][:, :3].astype(float), data['cell'][:, 3:6].astype(float)
        every = Crystals(data['fractional'], data['numbers'].astype(int), cells_of_parameters(lengths, angles), counts)
    order = np.random.default_rng(0).permutation(np.nonzero(split == 1)[0])
    rows, groups = np.r_[np.nonzero(split == 0)[0], order[held:]], {}
    for n, group in zip(counts[rows].tolist(), number[rows].tolist(), strict=True):
        found = groups.setdefault(str(n), {})
        found[str(group)] = found.get(str(group), 0) + 1
    return every.select(rows).describe(), groups


def main():
    """Write the checkpoint, load it, and print its entry of index.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights')
    parser.add_argument('settings')
    parser.add_argument('data')
    parser.add_argument('out')
    parser.add_argument('--steps', type=int, required=True, help='steps of the training')
    parser.add_argument('--seconds', type=float, required=True)
    parser.add_argument('--val-loss', type=float, required=True)
    parser.add_argument('--train-loss', type=float, required=True, help='at the same noise levels')
    args = parser.parse_args()
    settings = json.loads(Path(args.settings).read_text())
    network = RowTransformer(**settings['network'])
    network.load_state_dict({name: value.float() for name, value in load_file(args.weights).items()})
    data, groups = trained_on(args.data, settings['arguments']['held'])
    header = {
        'kind': 'crystens',
        'process': settings['process'],
        'representation': CrysTens.fromdict(settings['representation']).todict(),
        'units': UNITS,
        'sampling': SAMPLING,
        'conditions': settings['conditions'],
        'sizes': settings['sizes'],
        'groups': groups,
        'sites': settings['network']['tied'] and settings['arguments'].get('given', 0) > 0,
        'data': data,
        'steps': args.steps,
        'metrics': {'step': args.steps, 'seconds': args.seconds, 'train_loss': args.train_loss, 'val_loss': args.val_loss},
    }
    path = save_checkpoint(args.out, network, header, torch.float16)
    load_checkpoint(path)
    size = round(path.stat().st_size / 1e6, 2)
    entry = {'file': path.name, 'size_mb': size, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}
    print(json.dumps(entry | {name: header[name] for name in ('data', 'steps', 'metrics')}, indent=1))


if __name__ == '__main__':
    main()
