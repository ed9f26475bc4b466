"""Train `metal-oxide-overlayer`: one denoiser of overlayers for many metals, from the weights of `ag-o-overlayer`.

    python scripts/metal_oxide_train.py --seeds metal_oxide_seed.extxyz.gz --out runs/metal-oxide --minutes 30

Data: relaxations of metals and oxygen on their own facets (the file of `--seeds`, and rounds of scripts/metal_oxide_round.py),
without Ni and Rh, which are the test; and a share of ag-o-rss, so that silver is not forgotten. The same command resumes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from ase_diffusion.data.frames import read_frames
from ase_diffusion.training import Overlayers
from ase_diffusion.training.surface import train_surface
from ase_diffusion.weights.zoo import load_model

ROUNDS = Path(__file__).parent.parent / 'runs' / 'metal-oxide-rounds'
TEST = {'Ni', 'Rh'}
SPACING = 4.16 / 2**0.5  # A, of the data of ag-o-overlayer
OXYGEN = 2.6  # A; oxygen higher than this above all other mobile atoms has left


def has_left(atoms: Atoms) -> bool:
    """Return whether a molecule left the surface: an atom with no other within 2.6 A."""
    mobile = np.setdiff1d(np.arange(len(atoms)), atoms.constraints[0].index)
    distances = atoms.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    parts = {int(i) for i in atoms.constraints[0].index}
    while True:  # what is connected with the substrate
        more = {int(i) for i in mobile if i not in parts and distances[i, list(parts)].min() < OXYGEN}
        if not more:
            return len(parts) < len(atoms)
        parts |= more


def metal_frames(seeds: Path | None) -> list[Atoms]:
    """Return the frames of all metals, without those of the test and without runs whose end lost a molecule."""
    frames = []
    if seeds is not None:
        data = seeds.read_bytes()
        text = (gzip.decompress(data) if seeds.suffix == '.gz' else data).decode()
        frames += read(io.StringIO(text), ':', format='extxyz')
    for path in sorted(ROUNDS.glob('*/*.traj')):
        frames += read(path, ':')
    for atoms in frames:
        about = atoms.info.get('key_value_pairs') or {k: v for k, v in atoms.info.items() if np.isscalar(v)}
        atoms.info['key_value_pairs'] = about
    frames = [atoms for atoms in frames if atoms.info['key_value_pairs']['metal'] not in TEST]
    ends = {a.info['key_value_pairs']['run']: a for a in frames if a.info['key_value_pairs']['last']}
    left = {run for run, atoms in ends.items() if has_left(atoms)}
    return [atoms for atoms in frames if atoms.info['key_value_pairs']['run'] not in left]


def silver_frames(share: int) -> list[Atoms]:
    """Return every ``share``-th relaxation of ag-o-rss, numbered after all others."""
    frames = read_frames('ag-o-rss')
    for atoms in frames:
        atoms.info['key_value_pairs']['run'] += 10**9
        atoms.info['key_value_pairs'].pop('held', None)
    return [atoms for atoms in frames if atoms.info['key_value_pairs']['run'] % share == 0]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--init', default='ag-o-overlayer', help='model to start from (ag-o-overlayer)')
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--steps', type=int, default=6000)
    parser.add_argument('--lr', type=float, default=6e-4)
    parser.add_argument('--silver', type=int, default=15, help='every n-th relaxation of ag-o-rss')
    args = parser.parse_args()
    torch.set_num_threads(1)
    metals = metal_frames(args.seeds)
    print(len(metals), 'frames of many metals', flush=True)
    data = Overlayers.from_atoms(metals + silver_frames(args.silver))
    network, _ = load_model(args.init)
    train_surface(
        data,
        args.out,
        network=network.requires_grad_(True),
        spacing=SPACING,
        height=(-0.3, 5.0),
        max_relative=0.6,
        steps=args.steps,
        minutes=args.minutes,
        lr=args.lr,
        compile_network=True,
    )


if __name__ == '__main__':
    main()
