"""Turn weights of point clouds that were trained on a GPU into a checkpoint, and list it among the shipped models.

    python scripts/convert_pointcloud.py WEIGHTS.safetensors mp_le20.npz [--json WEIGHTS.json] [--out FILE] [--minutes M] [--ship]

WEIGHTS.json has the settings of the network, the representation and the numbers of atoms. The data set tells which elements were
trained on, and the ranges of the conditions; training left out HELD_OUT and the test split.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from ase.formula import Formula
from safetensors.torch import load_file
from ship import ship

from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.networks import CloudTokens, CompositionNet
from ase_diffusion.representations.conditions import ClassCondition, NumberCondition
from ase_diffusion.representations.pointcloud import BAND_GAP_CLASSES, PointCloud
from ase_diffusion.training import Structures, save_checkpoint
from ase_diffusion.training.pointcloud import PROPERTY, SAMPLING, UNITS, labelled, suitable, train_composition
from ase_diffusion.training.recipe import header_of

ROOT = Path(__file__).resolve().parents[1]
NAME, MAX_BYTES = 'pointcloud-mp', 10_000_000
HELD_OUT = ('MgMnO3', 'Mg2Mn3O8', 'CaZn3O4', 'La2ZnO4', 'MgFe2O4')
CONDITIONS = {'formation_energy': NumberCondition(-np.inf, np.inf), 'band_gap': ClassCondition(BAND_GAP_CLASSES)}
DESCRIPTION = (
    'Crystals of one to three given elements, up to 16 atoms; conditioned on elements, band gap class and formation energy'
)


def training_data(path, split: str = 'train') -> Structures:
    """Return the crystals of a split, in their Niggli cells; those of 'train' are what the weights were trained on."""
    held = {Formula(text).reduce()[0].format('hill') for text in HELD_OUT}
    images = [atoms for atoms in read_crystals(path, split) if len(atoms) <= 16 and len(set(atoms.numbers)) <= 3]
    return Structures(suitable([a for a in images if a.symbols.formula.reduce()[0].format('hill') not in held]))


def property_network(path) -> CompositionNet:
    """Return the network that guides, trained on the same crystals as the weights."""
    parts = [training_data(path, split).images for split in ('train', 'val')]
    train, val = (labelled(Structures.from_atoms(images, list(CONDITIONS))) for images in parts)
    return train_composition(train, val, CONDITIONS, steps=2070)  # 30 epochs


def network_of(weights: Path, info: dict) -> CloudTokens:
    """Return the network of a weights file."""
    network = CloudTokens(**info['settings'])
    state = load_file(weights)
    network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    return network


def header_of_weights(info: dict, data: Structures, minutes: float | None) -> dict:
    """Return the whole header."""
    representation = PointCloud.fromdict({**info['representation'], 'elements': data.elements()})
    energies = [a.info['key_value_pairs'].get('formation_energy') for a in data.images]
    energies = [value for value in energies if value is not None]
    sizes = {
        str(k): {str(n): int(count) for n, count in enumerate(row) if count}
        for k, row in enumerate(info['natoms_table'])
        if any(row)
    }
    exact, *shares = info.get('shares') or [None] * 5
    metrics = {'step': info['step'], **dict(zip(('val_positions', 'val_species', 'val_lattice'), info['held_out'], strict=True))}
    if exact is not None:
        names = ('exact_elements', 'distances_0.5', 'distances_1.0', 'distances_1.5')
        metrics |= dict(zip(names, (exact, *shares[:3]), strict=True))
    return header_of(
        'pointcloud',
        representation,
        representation.process(),
        units=UNITS,
        conditions={**CONDITIONS, 'formation_energy': NumberCondition(round(min(energies), 4), round(max(energies), 4))},
        sampling=info.get('sampling', SAMPLING),
        data={**data.describe(), 'held_out': list(HELD_OUT)},
        sizes=sizes,
        steps=info['step'],
        metrics={name: value if name == 'step' else round(float(value), 6) for name, value in metrics.items()},
        **({} if minutes is None else {'minutes': minutes}),
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path)
    parser.add_argument('data', help='mp_le20.npz')
    parser.add_argument('--json', type=Path, help='settings of the weights (WEIGHTS.json)')
    parser.add_argument('--out', type=Path, default=ROOT / 'ase_diffusion' / 'weights' / f'{NAME}.safetensors')
    parser.add_argument('--minutes', type=float, help='time of training, for the header')
    parser.add_argument('--sampling', type=json.loads, help='sampler and steps by default, as JSON')
    parser.add_argument('--ship', action='store_true', help='enter the file in index.json')
    args = parser.parse_args()
    info = json.loads((args.json or args.weights.with_suffix('.json')).read_text())
    if args.sampling:
        info['sampling'] = args.sampling
    header = header_of_weights(info, training_data(args.data), args.minutes)
    networks = {'denoiser': network_of(args.weights, info), PROPERTY: property_network(args.data)}
    path = save_checkpoint(args.out, networks, header, torch.float16)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f'shipped weights have at most {MAX_BYTES / 1e6:g} MB; {path} has {size / 1e6:.2f}')
    if args.ship:
        data = f'mp_le20, {header["data"]["structures"]} crystals with at most 3 elements and 16 atoms (train split)'
        ship(path, DESCRIPTION, data)
    print(path, f'{size / 1e6:.2f} MB', header['metrics'])


if __name__ == '__main__':
    main()
