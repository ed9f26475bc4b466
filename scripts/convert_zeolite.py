"""Turn weights of scripts like train_voxels into a checkpoint, and list it among the shipped models.

    python scripts/convert_zeolite.py model.safetensors log.jsonl [--out FILE] [--ship]

The log has one JSON line per validation; the last one gives steps and losses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from safetensors import safe_open
from ship import ship

from ase_diffusion.data.zeolite_cells import WIDTHS, shipped_cells
from ase_diffusion.networks.voxelnet import VoxelNet
from ase_diffusion.representations.conditions import NumberCondition
from ase_diffusion.representations.voxels import Voxels
from ase_diffusion.training import save_checkpoint
from ase_diffusion.training.recipe import header_of
from ase_diffusion.training.zeolite import SAMPLING, UNITS

ROOT = Path(__file__).resolve().parents[1]
NAME, MAX_BYTES = 'zeolite-silica', 10_000_000
STRUCTURES = 5582
DESCRIPTION = 'SiO2 frameworks as grids, conditioned on void fraction, heat of adsorption and Henry coefficient of methane'
DATA = f'{STRUCTURES:,} frameworks: grown hypothetical ones (DLS cost below 0.01 A^2 per T) and orthogonal IZA frameworks'


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('weights')
    parser.add_argument('log', nargs='?')
    parser.add_argument('--out', default=str(ROOT / 'ase_diffusion' / 'weights' / f'{NAME}.safetensors'))
    parser.add_argument('--ship', action='store_true', help='enter it in index.json')
    args = parser.parse_args()
    with safe_open(args.weights, 'pt') as file:
        meta = file.metadata()
        network = VoxelNet(**json.loads(meta['network']))
        network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    voxels = Voxels(**json.loads(meta['voxels']), sigma=(0.08, 40.0))
    last = json.loads(Path(args.log).read_text().splitlines()[-1]) if args.log else {}
    metrics = {'step': int(meta['step']), 'seconds': round(60 * float(meta['minutes']), 1)}
    metrics |= {f'{name}_loss': round(last[name], 6) for name in ('val', 'val_unconditional') if name in last}
    table, ranges = shipped_cells(), {}
    for name in WIDTHS:
        known = table.labels[name][np.isfinite(table.labels[name])]
        ranges[name] = NumberCondition(round(float(known.min()), 4), round(float(known.max()), 4))
    header = header_of(
        'zeolite',
        voxels,
        voxels.process(),
        units=UNITS,
        conditions=ranges,
        sampling=SAMPLING,
        data={
            'description': DATA,
            'structures': STRUCTURES,
            'fingerprint': hashlib.sha256(table.lengths.tobytes()).hexdigest()[:16],
        },
        steps=int(meta['step']),
        samples=int(meta['samples']),
        minutes=float(meta['minutes']),
        metrics=metrics,
    )
    path = save_checkpoint(args.out, network, header, dtype=torch.float16)
    size = path.stat().st_size
    print(f'{path}: {size / 1e6:.2f} MB, {sum(p.numel() for p in network.parameters())} parameters')
    if size > MAX_BYTES:
        raise SystemExit(f'shipped files have up to {MAX_BYTES} bytes')
    if args.ship:
        ship(path, DESCRIPTION, DATA)


if __name__ == '__main__':
    main()
