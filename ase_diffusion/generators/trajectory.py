"""Denoising trajectories."""

from __future__ import annotations

from typing import Any, Self

import torch
from ase.io.trajectory import Trajectory

from ..diffusion import Batch
from ..utils.interrupts import held_interrupts

FRAMES = 60


class DenoisingTrajectory:
    """Write frames of the first structure of a batch while it is denoised, at most 60 and the last one.

    Parameters
    ----------
    gen : GenerativeModel
        Gives path and frames; only its first batch is written.
    steps : int
    """

    def __init__(self, gen: Any, steps: int) -> None:
        self.gen, self.steps, self.file = gen, steps, None
        self.path, gen.denoising_trajectory = gen.denoising_trajectory, None  # once
        self.every = max(1, steps // FRAMES)

    def __enter__(self) -> Self | None:
        if self.path is None:
            return None
        self.file = Trajectory(str(self.path), 'w')
        return self

    def __call__(self, k: int, t: float, batch: Batch, x0: dict[str, torch.Tensor]) -> None:
        if k % self.every and k != self.steps - 1:
            return
        atoms = self.gen._frame(batch)
        if atoms is None:  # noise that is no structure yet
            return
        atoms.info['sigma'] = float(self.gen.process.schedule.sigma(torch.tensor(t)))
        with held_interrupts():
            self.file.write(atoms)

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()
