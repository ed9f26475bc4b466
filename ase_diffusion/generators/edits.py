"""Generation that begins with given overlayers: partial noising, and regeneration of some atoms."""

from __future__ import annotations

import math
import operator
from collections import Counter
from itertools import cycle, islice

import numpy as np
import torch
from ase import Atoms

from ..diffusion import Batch, JointProcess
from ..diffusion.inpainting import Inpainting
from ..diffusion.joint import times
from ..utils.atoms import copy_atoms, frozen_mask

SAME_SUBSTRATE = 1e-3  # A; files that are text round positions
FEWEST_STEPS = 10  # of a denoising that begins late


class Fresh:
    """Begin with noise: what ``sample`` does.

    Parameters
    ----------
    template : Atoms
        Substrate and composition.
    start : float
        Time at which the noise is uniform.
    steps : int
        Sampling steps.
    """

    name, kept, relaxes = 'sample', None, True

    def __init__(self, template: Atoms, start: float, steps: int):
        self.templates, self.start, self.steps = cycle([template]), start, steps

    def take(self, count: int) -> list[Atoms]:
        """Return the next templates, one for each structure of a batch."""
        return list(islice(self.templates, count))

    def begin(self, process: JointProcess, batch: Batch, noise, network) -> tuple[JointProcess, dict]:
        """Return the process and the keywords of the sampler with which a batch begins."""
        return process, {'start': self.start, 'steps': self.steps}

    def restore(self, images: list[Atoms], templates: list[Atoms]) -> list[Atoms]:
        """Return the finished structures with what must not have changed."""
        return images

    def labels(self) -> dict:
        """Return what the provenance of a structure says in addition."""
        return {}


class Perturbation(Fresh):
    """Noise given structures to ``sigma`` and denoise them.

    Parameters
    ----------
    parents : list of Atoms
        Taken in turn, see :func:`as_template`.
    sigma : float
        Standard deviation of the noise, A.
    start, steps : float and int
        Of a generation from noise; what begins later takes as many steps less, but no fewer than 10.
    """

    name = 'perturb'

    def __init__(self, parents: list[Atoms], sigma: float, schedule, start: float, steps: int):
        self.sigma, self.templates = sigma, cycle(parents)
        self.start = min(schedule.time(sigma), start)
        self.steps = min(steps, max(FEWEST_STEPS, math.ceil(steps * self.start / start)))

    def begin(self, process, batch, noise, network):
        """Return the process and the keywords of the sampler; the batch is noised first."""
        noised, _ = process.noise(batch, times(batch, self.start), noise)
        return process, {'start': self.start, 'steps': self.steps, 'initial': noised}

    def labels(self):
        return {'operation': self.name, 'noise': self.sigma}


class Completion(Fresh):
    """Generate some mobile atoms anew and keep the others.

    Parameters
    ----------
    parent : Atoms
        See :func:`as_template`.
    indices : list of int
        Atoms that are generated; all mobile.
    repeats : int
        How often every step is taken.
    """

    name, relaxes = 'complete', False

    def __init__(self, parent: Atoms, indices: list[int], repeats: int, start: float, steps: int):
        super().__init__(parent, start, steps)
        chosen = np.zeros(len(parent), bool)
        chosen[indices] = True
        self.kept = ~chosen[~frozen_mask(parent)]  # (n_mobile,)
        self.count, self.repeats = len(indices), repeats

    def begin(self, process, batch, noise, network):
        """Return a process in which the kept atoms are given."""
        rows = self.rows(batch)
        return Inpainting(process, batch, {'positions': rows}, network, self.repeats), {'start': self.start, 'steps': self.steps}

    def rows(self, batch: Batch) -> torch.Tensor:
        """Return which rows of a batch are kept, bool (n,)."""
        return torch.as_tensor(self.kept).repeat(batch.size).to(batch.fields['positions'].device)

    def restore(self, images, templates):
        """Return the structures with the kept atoms as they were given: the network computes in float32."""
        kept = np.flatnonzero(~frozen_mask(templates[0]))[self.kept]
        for atoms, template in zip(images, templates, strict=True):
            positions = atoms.positions.copy()
            positions[kept] = template.positions[kept]
            atoms.set_positions(positions, apply_constraint=False)
        return images

    def labels(self):
        return {'operation': self.name, 'regenerated': self.count, 'repeats': self.repeats}


def as_template(atoms: Atoms, template: Atoms) -> Atoms:
    """Return ``template`` with the positions, tags and order of the mobile atoms of ``atoms``.

    Raises
    ------
    TypeError
        It is no Atoms.
    ValueError
        Cell, substrate or composition are not those of the template, or positions are not finite.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f'a structure to begin with is an ase.Atoms, got {type(atoms).__name__}; read files with ase.io.read')
    frozen = frozen_mask(template)
    wanted, came = template.get_chemical_formula(), atoms.get_chemical_formula()
    if wanted != came:
        raise ValueError(f'the structure has the composition of the generator, slab and overlayer together: {wanted}; '
                         f'got {came}. Make a generator for that composition')  # fmt: skip
    if np.abs(np.asarray(atoms.cell) - np.asarray(template.cell)).max() > SAME_SUBSTRATE:
        raise ValueError('the structure stands on the slab of the generator, but its cell is another: '
                         f'{np.round(np.asarray(atoms.cell), 3).tolist()} instead of '
                         f'{np.round(np.asarray(template.cell), 3).tolist()}; make a generator with that slab')  # fmt: skip
    if not np.isfinite(atoms.positions).all():
        raise ValueError(f'positions must be finite; atoms {np.nonzero(~np.isfinite(atoms.positions).all(1))[0][:10].tolist()} '
                         'are NaN or infinite')  # fmt: skip
    if Counter(atoms.numbers[~frozen].tolist()) != Counter(template.numbers[~frozen].tolist()) or (
            (atoms.numbers != template.numbers)[frozen].any()):  # fmt: skip
        raise ValueError('slab atoms come first, in the order of the slab, and the overlayer last; in this structure the fixed '
                         f'atoms of the slab, {np.nonzero(frozen)[0][:4].tolist()} ..., are others. Sort it like '
                         'gen.template')  # fmt: skip
    gap = (atoms.positions - template.positions)[frozen] @ np.linalg.inv(np.asarray(template.cell))  # (m, 3)
    gap -= np.where(template.pbc, np.round(gap), 0.0)
    worst = np.linalg.norm(gap @ np.asarray(template.cell), axis=1).max()
    if worst > SAME_SUBSTRATE:
        raise ValueError('the structure stands on the slab of the generator, but its fixed atoms are up to '
                         f'{worst:.3g} A away from there ({SAME_SUBSTRATE:g} A are allowed for rounding); make a generator '
                         'with that slab')  # fmt: skip
    new = copy_atoms(template)
    new.numbers[:] = atoms.numbers
    new.set_tags(atoms.get_tags())
    new.set_positions(atoms.positions, apply_constraint=False)
    return new


def check_noise(noise, least: float) -> float:
    """Return ``noise`` as a float; raise a ValueError where it is no length above ``least`` (A)."""
    try:
        sigma = float(noise)
    except (TypeError, ValueError):
        sigma = math.nan
    if isinstance(noise, bool) or not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f'noise is a positive length in A, the standard deviation of the displacements; got {noise!r}')
    if sigma <= least:
        raise ValueError(f'noise must exceed the least noise that the model knows, {least:g} A; got {sigma:g}. '
                         'For smaller displacements there is atoms.rattle()')  # fmt: skip
    return sigma


def check_indices(indices, template: Atoms) -> list[int]:
    """Return indices of mobile atoms, without sign and order; raise a ValueError for others."""
    try:
        numbers = [operator.index(i) for i in ([indices] if np.ndim(indices) == 0 else indices)]
    except TypeError:
        raise ValueError(f'indices are whole numbers, one for each atom to generate anew; got {indices!r}') from None
    total = len(template)
    if any(isinstance(i, (bool, np.bool_)) for i in np.ravel(np.asarray(indices, object))) or not numbers:
        raise ValueError(f'indices are whole numbers, one or more; got {indices!r} (numpy.flatnonzero(mask) makes them)')
    if outside := [i for i in numbers if not -total <= i < total]:
        raise ValueError(f'indices lie in 0 to {total - 1}, the atoms of the structure; got {outside}')
    numbers = sorted({i % total for i in numbers})
    if held := np.nonzero(frozen_mask(template))[0][np.isin(np.nonzero(frozen_mask(template))[0], numbers)].tolist():
        raise ValueError(f'only mobile atoms can be generated anew; {held} are in FixAtoms, the substrate')
    return numbers
