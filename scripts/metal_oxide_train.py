"""Train `metal-oxide-overlayer` and `metal-oxide-forcefield`: overlayers of many metals, from the weights of `ag-o-*`.

    python scripts/metal_oxide_train.py --out runs/metal-oxide --minutes 30
    python scripts/metal_oxide_train.py --out runs/metal-oxide-ff --minutes 30 --forcefield
    python scripts/metal_oxide_train.py --out renamed-silver.safetensors --renamed

Data: the shipped set `metal-oxide`, and a share of ag-o-rss, so that silver is not forgotten. The same command resumes.
Energies for the force field are relative to the bare substrates, which 7net-mf-0 computes first.
``--renamed`` trains nothing: it writes the model in which all metals are silver, `renamed-silver`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_diffusion.data.frames import read_frames
from ase_diffusion.relax import get_calculator
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


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--renamed', action='store_true', help='write the model without training')
    parser.add_argument('--data', default='metal-oxide', help='frames (the shipped set metal-oxide)')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--forcefield', action='store_true', help='train the force field')
    parser.add_argument('--init', help='model to start from (ag-o-overlayer, ag-o-forcefield)')
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--steps', type=int, default=6000)
    parser.add_argument('--lr', type=float, default=6e-4)
    parser.add_argument('--silver', type=int, default=15, help='every n-th relaxation of ag-o-rss')
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.renamed:
        write_renamed(args.out)
        return
    metals = read_frames(args.data)
    print(len(metals), 'frames of many metals', flush=True)
    silver = silver_frames(args.silver)
    options = {'steps': args.steps, 'minutes': args.minutes, 'lr': args.lr, 'compile_network': True}
    if args.forcefield:
        network, _ = load_model(args.init or 'ag-o-forcefield')
        data = Overlayers.from_atoms(relative(metals + silver))
        train_forcefield(data, args.out, network=network.requires_grad_(True), many_metals=True, **options)
        return
    network, _ = load_model(args.init or 'ag-o-overlayer')
    train_surface(
        Overlayers.from_atoms(metals + silver),
        args.out,
        network=network.requires_grad_(True),
        spacing=SPACING,
        height=(-0.3, 5.0),
        max_relative=0.6,
        **options,
    )


if __name__ == '__main__':
    main()
