"""Train `metal-oxide-overlayer` and `metal-oxide-forcefield`: overlayers of many metals, from the weights of `ag-o-*`.

    python scripts/metal_oxide_train.py --out runs/metal-oxide --minutes 30
    python scripts/metal_oxide_train.py --out runs/metal-oxide-ff --minutes 30 --forcefield
    python scripts/metal_oxide_train.py --out renamed-silver.safetensors --renamed

Data: the shipped set `metal-oxide` or other frames, and a share of ag-o-rss, so that silver is not forgotten. Elements that the
weights to start from have not seen begin as oxygen. The best of few relaxations is no low energy: in groups (substrate, cell,
composition) of fewer than ten, energies above the best are raised by what the best of so many lies above the best of all, on the
average over the larger groups. The same command resumes.
Energies for the force field are relative to the bare substrates, which 7net-mf-0 computes first.
``--renamed`` trains nothing: it writes the model in which all metals are silver, `renamed-silver`.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_diffusion.data.frames import read_frames
from ase_diffusion.relax import get_calculator
from ase_diffusion.representations.descriptors import metal_descriptors
from ase_diffusion.training import Overlayers
from ase_diffusion.training.checkpoint import save_checkpoint
from ase_diffusion.training.surface import described, train_forcefield, train_surface
from ase_diffusion.utils.atoms import frozen_mask
from ase_diffusion.weights.zoo import load_model

SPACING = 4.16 / 2**0.5  # A, of the data of ag-o-overlayer


def silver_frames(share: int) -> list[Atoms]:
    """Return every ``share``-th relaxation of ag-o-rss, numbered after all others."""
    frames = read_frames('ag-o-rss')
    for atoms in frames:
        atoms.info['key_value_pairs']['run'] += 10**9
        atoms.info['key_value_pairs'].pop('held', None)
    return [atoms for atoms in frames if atoms.info['key_value_pairs']['run'] % share == 0]


def write_renamed(path: Path) -> None:
    """Write ag-o-overlayer with all lengths in units of the substrate, and all metals taken for silver."""
    network, header = load_model('ag-o-overlayer')
    header['representation'] |= {'spacing': SPACING}
    data = Overlayers.from_atoms(read_frames('ag-o-rss'))
    header['data'] |= {'described': True, 'systems': data.systems(), **data.ranges()}
    save_checkpoint(path, described(network), header, torch.float16)


def begin_as_oxygen(network: torch.nn.Module, elements: Iterable[int]) -> None:
    """Give elements the embedding of oxygen, in a network that knows them by descriptors and rows."""
    embedding = network.representation.embedding
    with torch.no_grad():
        every = embedding.net(embedding.descriptors)  # (Z, F)
        for z in elements:
            embedding.rows[z] = every[8] + embedding.rows[8] - every[z]


def unseen(data: Overlayers, header: dict) -> list[int]:
    """Return the mobile elements of data that a model has not seen, but no metals: descriptors tell those."""
    metal = metal_descriptors()[:, 0] > 0
    return [z for z in data.elements()[0] if not metal[z] and z not in header['data']['mobile_elements']]


def raise_small_groups(data: Overlayers, enough: int = 10, draws: int = 100) -> list[float]:
    """Raise ``energy_above_best`` in groups of fewer than ``enough`` relaxations; return by how much, for 1, 2, ... of them.

    In the larger groups the best of n ends, drawn at random, lies that far above the best of all, eV per mobile atom.
    """
    ends = collections.defaultdict(dict)
    for item in data.items:
        if np.isfinite(item.energy_above_best):
            ends[item.group][item.run] = min(ends[item.group].get(item.run, np.inf), item.energy_above_best)
    large = [np.array(list(some.values())) for some in ends.values() if len(some) >= enough]
    if not large:
        return []
    rng = np.random.default_rng(0)
    drawn = [some[rng.permuted(np.tile(np.arange(len(some)), (draws, 1)), axis=1)] for some in large]  # (draws, runs)
    rise = [float(np.mean([(each[:, :n].min(1) - each.min(1)).mean() for each in drawn])) for n in range(1, enough)]
    for item in data.items:
        if item.group in ends and len(ends[item.group]) < enough:
            item.energy_above_best += rise[len(ends[item.group]) - 1]
    return rise


def relative(frames: list[Atoms]) -> list[Atoms]:
    """Return frames whose energies are relative to their bare frozen substrate (single points of 7net-mf-0)."""
    calculator, known = get_calculator('7net-mf-0'), {}
    for atoms in frames:
        bare = atoms[frozen_mask(atoms)]
        key = (bare.numbers.tobytes(), bare.positions.round(3).tobytes(), bare.cell[:].round(3).tobytes())
        if key not in known:
            bare.calc = calculator
            known[key] = bare.get_potential_energy()
        atoms.calc = SinglePointCalculator(
            atoms, energy=atoms.get_potential_energy() - known[key], forces=atoms.get_forces(apply_constraint=False)
        )
    print(len(known), 'substrates', flush=True)
    return frames


def fit(args: argparse.Namespace, data: Overlayers) -> None:
    """Train on data; for the force field their energies are relative to the bare substrates."""
    options = {'steps': args.steps, 'minutes': args.minutes, 'lr': args.lr, 'compile_network': not args.eager}
    options |= {'batch_size': args.batch_size, 'workers': args.workers}
    network = None
    if args.features is None:
        network, header = load_model(args.init or ('ag-o-forcefield' if args.forcefield else 'ag-o-overlayer'))
        network = described(network).requires_grad_(True)
        begin_as_oxygen(network, unseen(data, header))
    else:
        options |= {'features': args.features, 'cutoff': 5.0 if args.forcefield else 6.0}
    if args.forcefield:
        train_forcefield(data, args.out, network=network, many_metals=True, **options)
        return
    raise_small_groups(data)
    train_surface(data, args.out, network=network, spacing=SPACING, height=(-0.3, 5.0), max_relative=args.max_relative, **options)


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--renamed', action='store_true', help='write the model without training')
    parser.add_argument('--data', default='metal-oxide', help='frames (the shipped set metal-oxide)')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--forcefield', action='store_true', help='train the force field')
    parser.add_argument('--init', help='model to start from (ag-o-overlayer, ag-o-forcefield)')
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--steps', type=int, default=6000)
    parser.add_argument('--lr', type=float, default=6e-4)
    parser.add_argument('--max-relative', type=float, default=0.6, help='eV per mobile atom above the best, of the denoiser')
    parser.add_argument('--features', type=int, help='width of a new network (64, and the weights to start from)')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--workers', type=int, default=0, help='processes that draw batches, for a GPU')
    parser.add_argument('--eager', action='store_true', help='do not compile')
    parser.add_argument('--silver', type=int, default=15, help='every n-th relaxation of ag-o-rss')
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    args = arguments()
    torch.set_num_threads(1)
    if args.renamed:
        write_renamed(args.out)
        return
    frames = read_frames(args.data)
    print(len(frames), 'frames of many metals', flush=True)
    frames += silver_frames(args.silver)
    fit(args, Overlayers.from_atoms(relative(frames) if args.forcefield else frames))


if __name__ == '__main__':
    main()
