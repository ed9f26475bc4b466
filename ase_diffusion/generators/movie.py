"""The way from noise to a structure, as a trajectory."""

from __future__ import annotations

import torch
from ase import Atoms
from ase.io.trajectory import Trajectory

from ..utils.atoms import copy_atoms, frozen_mask
from ..utils.interrupts import held_interrupts


class Movie:
    """Write frames of the first structure of a batch while it is denoised, at most 60 and the last one."""

    def __init__(self, gen, template: Atoms, steps: int):
        self.gen, self.template, self.steps, self.file = gen, template, steps, None
        self.path, gen.denoising_trajectory = gen.denoising_trajectory, None  # once
        self.every = max(1, steps // 60)

    def __enter__(self):
        if self.path is not None:
            self.file = Trajectory(str(self.path), 'w')
        return self if self.file is not None else None

    def __call__(self, k, t, batch, x0):
        if k % self.every and k != self.steps - 1:
            return
        template = self.template
        atoms = copy_atoms(template)
        moved = template.positions.copy()
        moved[~frozen_mask(template)] = batch.fields['positions'][batch.rows['positions'] == 0].double().cpu().numpy()
        atoms.set_positions(moved, apply_constraint=False)
        atoms.info['sigma'] = float(self.gen.process.schedule.sigma(torch.tensor(t)))
        with held_interrupts():
            self.file.write(atoms)

    def __exit__(self, *error):
        if self.file is not None:
            self.file.close()
