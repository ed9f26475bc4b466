"""Trajectories of accepted structures, and of the denoising of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from ase import Atoms
from ase.io.trajectory import Trajectory

from ..diffusion import Batch
from ..utils.checks import check_folder
from ..utils.interrupts import held_interrupts
from ..utils.unread import reason_of

FRAMES = 60


def check_trajectory(trajectory: Any, name: str = 'trajectory') -> None:
    """Raise an error where no frames can be written: neither a path nor an open trajectory, or a file of another kind.

    Raises
    ------
    TypeError, ValueError, OSError
    """
    if trajectory is None or hasattr(trajectory, 'write'):
        return
    if not isinstance(trajectory, (str, Path)):
        raise TypeError(f'{name} is a path, or an ASE Trajectory open for writing; got {trajectory!r}')
    check_folder(name, trajectory)
    if (kind := _format(trajectory)) not in (None, 'traj'):
        raise ValueError(
            f'a trajectory is a file .traj of ASE; {name}={str(trajectory)!r} is the name of a file of another format ({kind}); '
            'convert it afterwards with ase.io.read and ase.io.write'
        )
    if Path(trajectory).is_file() and Path(trajectory).stat().st_size:
        try:
            Trajectory(trajectory).close()
        except Exception as error:  # of any kind
            raise ValueError(
                f'frames are written to a trajectory of ASE; {name}={str(trajectory)!r} is none ({reason_of(error)}); '
                'name another file'
            ) from error


def _format(path: str | Path) -> str | None:
    """Return the format of ASE that the name of a file says; None where it says none."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        kind = filetype(str(path), read=False)
    except UnknownFileTypeError:
        return None
    return kind if kind in ioformats else None


def append(atoms: Atoms, trajectory: str | Path | Any) -> None:
    """Add a frame to a trajectory; Ctrl-C waits, since half a frame would make the whole file unreadable."""
    with held_interrupts():
        if hasattr(trajectory, 'write'):
            trajectory.write(atoms)
            return
        with Trajectory(trajectory, 'a') as file:  # closed again: another generator may write into it, too
            file.write(atoms)


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
