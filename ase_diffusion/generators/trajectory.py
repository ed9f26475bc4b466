"""The way from noise to a structure, as a trajectory."""

from __future__ import annotations

import torch
from ase.io.trajectory import Trajectory

from ..utils.interrupts import held_interrupts


class DenoisingTrajectory:
    """Write frames of the first structure of a batch while it is denoised, at most 60 and the last one.

    Parameters
    ----------
    gen : Generator
    steps : int
    frame : callable
        ``frame(batch) -> Atoms``, the first structure.
    """

    def __init__(self, gen, steps: int, frame):
        self.gen, self.steps, self.frame, self.file = gen, steps, frame, None
        self.path, gen.denoising_trajectory = gen.denoising_trajectory, None  # once
        self.every = max(1, steps // 60)

    def __enter__(self):
        if self.path is None:
            return None
        self.file = Trajectory(str(self.path), 'w')
        return self

    def __call__(self, k, t, batch, x0):
        if k % self.every and k != self.steps - 1:
            return
        atoms = self.frame(batch)
        atoms.info['sigma'] = float(self.gen.process.schedule.sigma(torch.tensor(t)))
        with held_interrupts():
            self.file.write(atoms)

    def __exit__(self, *error):
        if self.file is not None:
            self.file.close()
