"""AGeDi trained on the data of our models, for the same time, in the table of surface_paper.py.

    python benchmarks/surface_peer.py 'COMMAND' agedi --minutes 9 -n 64
    python benchmarks/surface_peer.py 'COMMAND' agedi-lr --minutes 9 -n 64 --lr 0.001 --batch-size 16

COMMAND is a Python with AGeDi 1.4 (3.12 or newer), wherever it lives: 'chroot /trixie /root/venv/bin/python'; it gets the script
surface_peer_agedi.py and the data through a pipe. The data are those of ``D-all`` (surface_subsets.py all, the same time on one
core): all frames of the shipped relaxations within 2 eV of the best of their composition and cell, none in p(4x4). AGeDi has a
PaiNN of the same size and its defaults (Euler-Maruyama, 500 steps; malloc tuned, which makes it faster) but for --lr and
--batch-size. Its samples of Ag12O6 are relaxed with ag-o as all others and join them under the NAME given.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import subprocess
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.io.trajectory import Trajectory
from surface_paper import STORE, relaxed, slab_of
from surface_speed import ENVIRONMENT, TUNED
from surface_subsets import SUBSETS

from ase_diffusion.data import read_frames
from ase_diffusion.metrics import is_valid
from ase_diffusion.relax import get_calculator
from ase_diffusion.training import Overlayers

HERE = Path(__file__).parent
WINDOW = (0.4, 5.0)


def training_set() -> list:
    """Return the frames of ``D-all`` whose mobile atoms lie in the window, all substrates at the height of the test's."""
    frames = [a for a in read_frames('ag-o-rss') if not a.info['key_value_pairs'].get('held')]
    data = Overlayers.from_atoms(frames)
    top = slab_of('ag12o6').positions[:, 2].max()
    chosen = []
    for atoms, item in zip(frames, data.items, strict=True):
        mobile = np.setdiff1d(np.arange(len(atoms)), atoms.constraints[0].index)
        high = atoms.positions[:, 2] - np.delete(atoms.positions, mobile, 0)[:, 2].max()
        if SUBSETS['all'](item) and WINDOW[0] < high[mobile].min() and high[mobile].max() < WINDOW[1]:
            one = atoms.copy()
            one.info = {}
            one.positions[:, 2] = high + top
            one.pbc = (True, True, False)
            one.calc = SinglePointCalculator(one, energy=atoms.get_potential_energy())
            chosen.append(one)
    return chosen


def peer(args) -> list:
    """Return the samples of the peer, each with the CPU seconds of its generation in ``info``."""
    text = io.StringIO()
    write(text, [slab_of('ag12o6'), *training_set()], format='extxyz')
    line = [*shlex.split(args.command), '-c', (HERE / 'surface_peer_agedi.py').read_text(),
            *map(str, (args.minutes, args.n, args.steps, args.lr, args.batch_size))]  # fmt: skip
    environment = {**ENVIRONMENT, **TUNED}
    done = subprocess.run(line, input=text.getvalue(), stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return read(io.StringIO(done.stdout), ':', format='extxyz')


def main() -> None:
    """Train and sample there, relax and store here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('command')
    parser.add_argument('name')
    parser.add_argument('--minutes', type=float, default=9)
    parser.add_argument('-n', type=int, default=64)
    parser.add_argument('--steps', type=int, default=500)
    parser.add_argument('--lr', type=float, default=1e-4)
    parser.add_argument('--batch-size', type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = peer(args)
    write(STORE.parent / f'surface_peer_{args.name}.extxyz', images)
    judge = get_calculator('ag-o')
    for atoms in images:
        seconds = atoms.info.pop('seconds')
        atoms.set_constraint(FixAtoms(indices=range(32)))
        atoms.info['key_value_pairs'] = {'valid_as_generated': is_valid(atoms), 'cpu_generate': seconds, 'cpu_relax': 0.0}
        atoms.calc = judge
    with Trajectory(STORE / f'ag12o6.{args.name}.ag-o.traj', 'w') as file:
        for start, end in zip(images, relaxed([a.copy() for a in images], 'ag-o'), strict=True):
            end.info['key_value_pairs'] = {**start.info['key_value_pairs'], **end.info['key_value_pairs']}
            file.write(end)


if __name__ == '__main__':
    main()
