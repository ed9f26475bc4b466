"""Generation that begins with given overlayers: which structures fit, and regeneration of some atoms."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from ...diffusion import Batch, JointProcess
from ...diffusion.batch import Network
from ...diffusion.inpainting import Inpainting
from ...representations import Failure
from ...representations.slab import SlabTemplate
from ...utils.atoms import copy_atoms
from ...utils.provenance import forget_notes
from ..tasks import FromNoise, geometry

SAME_SUBSTRATE = 1e-3  # A; files that are text round positions


class Inpaint(FromNoise):
    """Generate some mobile atoms anew and keep the others.

    Parameters
    ----------
    parent : SlabTemplate
        See :func:`as_template`.
    indices : list of int
        Atoms that are generated; all mobile.
    repeats : int
        How often every step is taken.
    """

    name, relaxes, chooses = 'complete', False, False

    def __init__(self, parent: SlabTemplate, indices: list[int], repeats: int, start: float, steps: int) -> None:
        super().__init__(lambda seed: parent, steps, start)
        chosen = np.zeros(len(parent.atoms), bool)
        chosen[indices] = True
        self.kept = ~chosen[~parent.frozen]  # (n_mobile,)
        self.parent, self.indices, self.count, self.repeats = parent, list(indices), len(indices), repeats

    def begin(self, process: JointProcess, batch: Batch, noise: object, network: Network) -> tuple[JointProcess, dict]:
        """Return a process in which the kept atoms are given."""
        rows = self.rows(batch)
        return Inpainting(process, batch, {'positions': rows}, network, self.repeats), {'start': self.start, 'steps': self.steps}

    def rows(self, batch: Batch) -> torch.Tensor:
        """Return which rows of a batch are kept, bool (n,)."""
        return torch.as_tensor(self.kept).repeat(batch.size).to(batch.fields['positions'].device)

    def restore(self, outcomes: list[Atoms | Failure], batch: Batch) -> list[Atoms | Failure]:
        """Return the structures with the kept atoms as they were given: the network computes in float32."""
        for atoms, template in zip(outcomes, batch.extras['templates'], strict=True):
            kept = np.flatnonzero(~template.frozen)[self.kept]
            positions = atoms.positions.copy()
            positions[kept] = template.atoms.positions[kept]
            atoms.set_positions(positions, apply_constraint=False)
        return outcomes

    def labels(self) -> dict:
        return {'operation': self.name, 'regenerated': self.count, 'repeats': self.repeats}

    def todict(self) -> dict:
        own = {'indices': self.indices, 'repeats': self.repeats, 'parents': [geometry(self.parent.atoms)]}
        return {'name': self.name, **own}


def as_template(atoms: Atoms, slab: SlabTemplate, ordered: int = 0) -> SlabTemplate:
    """Return ``atoms`` as a template: own arrays and info stay, cell, constraints and what it lacks are those of the generator.

    Notes of how ``atoms`` was made are dropped; they are no notes of what is made from it. The last ``ordered`` atoms, those of
    molecules, stand in the order of the template.

    Raises
    ------
    TypeError
        It is no Atoms.
    ValueError
        Cell, substrate or composition are not those of the template, or positions are not finite.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f'a structure to begin with is an ase.Atoms, got {type(atoms).__name__}; read files with ase.io.read')
    template, frozen, held = slab.atoms, slab.fixed, slab.frozen
    wanted, came = template.get_chemical_formula(), atoms.get_chemical_formula()
    if wanted != came:
        raise ValueError(
            f'the structure has the composition of the generator, slab and overlayer together: {wanted}; '
            f'got {came}. Make a generator for that composition'
        )
    if np.abs(np.asarray(atoms.cell) - np.asarray(template.cell)).max() > SAME_SUBSTRATE:
        raise ValueError(
            'the structure stands on the slab of the generator, but its cell is another: '
            f'{np.round(np.asarray(atoms.cell), 3).tolist()} instead of '
            f'{np.round(np.asarray(template.cell), 3).tolist()}; make a generator with that slab'
        )
    if not np.isfinite(atoms.positions).all():
        raise ValueError(
            f'positions must be finite; atoms {np.nonzero(~np.isfinite(atoms.positions).all(1))[0][:10].tolist()} '
            'are NaN or infinite'
        )
    if Counter(atoms.numbers[~held].tolist()) != Counter(template.numbers[~held].tolist()) or (
        (atoms.numbers != template.numbers)[held].any()
    ):
        raise ValueError(
            'slab atoms come first, in the order of the slab, and the overlayer last; in this structure the fixed '
            f'atoms of the slab, {np.nonzero(frozen)[0][:4].tolist()} ..., are others. Sort it like '
            'gen.template'
        )
    last = slice(len(template) - ordered, None)
    if (atoms.numbers != template.numbers)[last].any():
        raise ValueError(
            f'atoms of molecules come last, in the order of the generator, {template.symbols[last]}; here these are '
            f'{atoms.symbols[last]}. Sort them like gen.template'
        )
    gap = (atoms.positions - template.positions)[frozen] @ np.linalg.inv(np.asarray(template.cell))  # (m, 3)
    gap -= np.where(template.pbc, np.round(gap), 0.0)
    worst = np.linalg.norm(gap @ np.asarray(template.cell), axis=1).max()
    if worst > SAME_SUBSTRATE:
        raise ValueError(
            'the structure stands on the slab of the generator, but its fixed atoms are up to '
            f'{worst:.3g} A away from there ({SAME_SUBSTRATE:g} A are allowed for rounding); make a generator '
            'with that slab'
        )
    new, slab = copy_atoms(atoms), copy_atoms(template)
    new.calc = None
    forget_notes(new)
    new.info = {**slab.info, **new.info}
    for name in set(slab.arrays) - set(new.arrays):
        new.set_array(name, slab.arrays[name])
    new.set_constraint(slab.constraints)
    new.set_cell(template.cell)
    new.pbc = template.pbc
    return SlabTemplate(new, held)


def check_indices(indices: int | Sequence[int] | np.ndarray, slab: SlabTemplate) -> list[int]:
    """Return indices of mobile atoms, without sign and order; raise a ValueError for others."""
    try:
        numbers = [operator.index(i) for i in ([indices] if np.ndim(indices) == 0 else indices)]
    except TypeError:
        raise ValueError(f'indices are whole numbers, one for each atom to generate anew; got {indices!r}') from None
    total = len(slab.atoms)
    if any(isinstance(i, (bool, np.bool_)) for i in np.ravel(np.asarray(indices, object))) or not numbers:
        raise ValueError(f'indices are whole numbers, one or more; got {indices!r} (numpy.flatnonzero(mask) makes them)')
    if outside := [i for i in numbers if not -total <= i < total]:
        raise ValueError(f'indices lie in 0 to {total - 1}, the atoms of the structure; got {outside}')
    numbers = sorted({i % total for i in numbers})
    if held := [i for i in numbers if slab.frozen[i]]:
        raise ValueError(f'only mobile atoms can be generated anew; {held} are in FixAtoms, or of the slab, which is held')
    return numbers
