"""Errors of the force field `metal-oxide`: held-out groups of its data, and oxygen on rhodium, which it never saw.

    python benchmarks/metal_forcefield.py run --frames metal_oxide_seed.extxyz.gz    # frames with Rh
    python benchmarks/metal_forcefield.py report

Reference: 7net-mf-0 (modal PBE). Held out are whole groups: a metal, facet, cell and composition. Energies per mobile atom, meV:
`absolute` relative to the bare frozen substrate, as the force field means them; `within` after the mean error of each substrate
and composition is taken off: what counts when structures of one composition are compared. Forces: components on mobile atoms,
meV/A. `constant`: the baseline that predicts the mean energy of each substrate and composition, and no forces. Frames with a
force above 40 eV/A are left out, as in training.
"""

from __future__ import annotations

from bench import Benchmark, digest, main, table

# isort: split
import gzip
import io
from pathlib import Path

import numpy as np
from ase.io import read

from ase_diffusion.calculators.batches import OverlayerBatches
from ase_diffusion.data.frames import read_frames
from ase_diffusion.relax import get_calculator
from ase_diffusion.utils.atoms import frozen_mask
from scripts.metal_oxide_round import METALS
from scripts.metal_oxide_train import relative

MAX_FORCE = 40.0  # eV/A
KINDS = ('metal, O', 'metal, O; other metals', 'metal, H C N S', 'H C N O S')
UNSEEN = 'Rh, O; never seen'


class MetalForceField(Benchmark):
    """An item is a kind of overlayers."""

    name = 'metal_forcefield'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('--frames', help='extxyz.gz with frames of oxygen on Rh')
        parser.add_argument('--model', default='metal-oxide', help='force field (metal-oxide)')

    def settings(self) -> dict:
        return {
            'judge': '7net-mf-0',
            'model': digest('metal-oxide-forcefield') if self.args.model == 'metal-oxide' else self.args.model,
        }

    def items(self):
        yield from ((kind, kind) for kind in (*KINDS, *([UNSEEN] if self.args.frames else ())))

    def run(self, kind) -> dict:
        if kind == UNSEEN:
            text = gzip.decompress(Path(self.args.frames).read_bytes()).decode()
            frames = [atoms for atoms in read(io.StringIO(text), ':', format='extxyz') if atoms.symbols[0] == 'Rh']
        else:
            held = [atoms for atoms in read_frames('metal-oxide') if atoms.info['key_value_pairs'].get('held')]
            frames = [atoms for atoms in held if kind_of(atoms) == kind]
        frames = [a for a in frames if np.abs(a.get_forces(apply_constraint=False)[~frozen_mask(a)]).max() <= MAX_FORCE]
        return errors(relative(frames), get_calculator(self.args.model))

    def report(self, results: dict) -> None:
        head = ('overlayer', 'frames', 'absolute', 'within', 'constant', 'forces', 'no forces')
        keys = ('frames', 'absolute_meV', 'within_meV', 'constant_meV', 'forces_meV_A', 'no_forces_meV_A')
        print(table(head, [(kind, *(r[key] for key in keys)) for kind, r in results.items()]))


def kind_of(atoms) -> str:
    """Return which of the kinds a structure is."""
    frozen = frozen_mask(atoms)
    mobile, [metal] = set(atoms.symbols[~frozen]), set(atoms.symbols[frozen])
    if metal not in mobile:
        return KINDS[3]
    return KINDS[2] if mobile - {metal, 'O'} or len(mobile) == 1 else KINDS[metal not in METALS]


def errors(frames: list, calculator) -> dict:
    """Return mean absolute errors, in meV per mobile atom and meV/A."""
    batches = OverlayerBatches(calculator.network, calculator.header)
    parts = [batches.evaluate(frames[k : k + 64]) for k in range(0, len(frames), 64)]
    energies, forces = np.concatenate([e for e, _ in parts]), [f for _, some in parts for f in some]
    mobile = [~frozen_mask(atoms) for atoms in frames]
    counts = np.array([m.sum() for m in mobile])
    true = np.array([atoms.get_potential_energy() for atoms in frames])
    keys = [f'{a.symbols}{a.cell[:2, :2].round(2)}' for a in frames]
    _, group = np.unique(keys, return_inverse=True)

    def centred(values):
        mean = np.bincount(group, values) / np.bincount(group)
        return values - mean[group]

    errors = [f[m] - a.get_forces(apply_constraint=False)[m] for f, m, a in zip(forces, mobile, frames, strict=True)]
    raw = [a.get_forces(apply_constraint=False)[m] for m, a in zip(mobile, frames, strict=True)]

    def mev(x):
        return round(1000 * float(np.abs(x).mean()), 1)

    return {
        'frames': len(frames),
        'absolute_meV': mev((energies - true) / counts),
        'within_meV': mev(centred(energies - true) / counts),
        'constant_meV': mev(centred(true) / counts),
        'forces_meV_A': mev(np.concatenate(errors)),
        'no_forces_meV_A': mev(np.concatenate(raw)),
    }


if __name__ == '__main__':
    main(MetalForceField)
