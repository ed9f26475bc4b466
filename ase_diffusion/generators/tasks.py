"""Where a generation begins: with noise, or with given structures that are noised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ase import Atoms

from ..diffusion import Batch, JointProcess, NoisePerStructure
from ..diffusion.batch import Network
from ..diffusion.joint import times
from ..representations import Failure
from ..utils.provenance import keep_own

if TYPE_CHECKING:
    from ..representations.slab import SlabTemplate

FEWEST_STEPS = 10  # of a denoising that begins late


class FromNoise:
    """Begin with noise: what ``sample`` does.

    Parameters
    ----------
    template : callable or None
        ``template(seed)``: what is given of the structure with this seed, as the representation encodes it.
    steps : int
        Sampling steps.
    start : float
        Time at which they begin.

    Attributes
    ----------
    ended : str or None
        Why no more structures can come.
    """

    name, relaxes, chooses, keeps_species = 'sample', True, True, False
    ended: str | None = None

    def __init__(self, template: Callable[[int], Any] | None, steps: int, start: float = 1.0) -> None:
        self.template, self.steps, self.start = template, steps, start

    def take(self, seeds: list[int]) -> list:
        """Return the templates of a batch, one for each seed."""
        return [self.template(seed) for seed in seeds]

    def begin(self, process: JointProcess, batch: Batch, noise: object, network: Network) -> tuple[JointProcess, dict]:
        """Return the process and the keywords of the sampler with which a batch begins."""
        return process, {'start': self.start, 'steps': self.steps}

    def restore(self, outcomes: list[Atoms | Failure], batch: Batch) -> list[Atoms | Failure]:
        """Return the decoded structures with what must not have changed."""
        return outcomes

    def counts(self, outcome: Atoms | Failure) -> bool:
        """Return whether a structure counts towards ``maxtries``; those of which there is an end do not."""
        return True

    def labels(self) -> dict:
        """Return what the provenance of a structure says in addition."""
        return {}

    def before(self) -> list[str]:
        """Return what the log says of structures that come before those of the sampler."""
        return []

    def todict(self) -> dict:
        """Return what :meth:`Generator.again` needs for the next batch of this task, fit for JSON."""
        return {'name': self.name}


class FromStructures(FromNoise):
    """Begin with given structures, noised.

    Parameters
    ----------
    parents : list of Atoms or SlabTemplate
        Taken in turn.
    noise : float
        Standard deviation of the displacements, A; for the provenance.
    steps : int
        Of a generation from noise; what begins later takes as many less, but no fewer than 10.
    start : float
        Time to which the parents are noised.
    whole : float
        Time at which a generation from noise begins.
    """

    name: ClassVar[str] = 'perturb'
    chooses: ClassVar[bool] = False

    def __init__(
        self, parents: list[Atoms] | list[SlabTemplate], noise: float, steps: int, start: float, whole: float = 1.0
    ) -> None:
        super().__init__(None, min(steps, max(FEWEST_STEPS, math.ceil(steps * start / whole))), start)
        self.noise, self.parents, self.whole, self.turn, self.taken = noise, parents, whole, 0, []

    def take(self, seeds: list[int]) -> list:
        """Return the parents whose turn it is."""
        numbers = [(self.turn + k) % len(self.parents) for k in range(len(seeds))]
        self.turn = (self.turn + len(seeds)) % len(self.parents)
        self.taken = [self.parents[number] for number in numbers]
        return self.taken

    def restore(self, outcomes: list[Atoms | Failure], batch: Batch) -> list[Atoms | Failure]:
        """Return the structures with the own arrays and info of their parents."""
        for atoms, parent in zip(outcomes, self.taken, strict=True):
            if isinstance(atoms, Atoms) and isinstance(parent, Atoms):  # templates of slabs are copied by the representation
                keep_own(parent, atoms)
        return outcomes

    def begin(self, process: JointProcess, batch: Batch, noise: NoisePerStructure, network: Network) -> tuple[JointProcess, dict]:
        """Return the process and the keywords of the sampler; the batch is noised first, and the sampler keeps what is given."""
        noised, _ = process.add_noise(batch, times(batch, self.start), noise)
        return process, {'start': self.start, 'steps': self.steps, 'initial': noised}

    def labels(self) -> dict:
        return {'operation': self.name, 'noise': self.noise}

    def todict(self) -> dict:
        parents = [geometry(getattr(parent, 'atoms', parent)) for parent in self.parents]
        own = {'noise': self.noise, 'start': self.start, 'whole': self.whole, 'turn': self.turn, 'parents': parents}
        return {'name': self.name, **own, 'keeps_species': self.keeps_species}


def geometry(atoms: Atoms) -> dict:
    """Return numbers, tags, positions, cell and pbc, fit for JSON and exact: ``Atoms(**geometry(atoms))``."""
    arrays = {name: getattr(atoms, name).tolist() for name in ('numbers', 'positions', 'cell', 'pbc')}
    return {**arrays, 'tags': atoms.get_tags().tolist()}


def given_structures(atoms: Atoms | Sequence[Atoms]) -> list[Atoms]:
    """Return one structure or several as a list; raise a ValueError where there is none."""
    parents = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    if not parents:
        raise ValueError('perturb needs at least one structure to begin with; got an empty list')
    return parents


def check_noise(noise: float, least: float = 0.0) -> float:
    """Return ``noise`` as a float; raise a ValueError where it is no length above ``least`` (A)."""
    try:
        sigma = float(noise)
    except (TypeError, ValueError):
        sigma = math.nan
    if isinstance(noise, (bool, str)) or not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f'noise is a positive length in A, the standard deviation of the displacements; got {noise!r}')
    if sigma <= least:
        raise ValueError(
            f'noise must exceed the least noise that the model knows, {least:g} A; got {sigma:g}. '
            'For smaller displacements there is atoms.rattle()'
        )
    return sigma
