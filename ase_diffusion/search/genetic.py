"""Operators for genetic algorithms of ase-ga that use a diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GenerationFailed, MissingDependency
from ..generators.tasks import check_noise
from ..utils.atoms import mobile_mask
from ..utils.checks import check_integer
from ..utils.provenance import MARKER, notes_of

if TYPE_CHECKING:
    from ase import Atoms

    from ..generators.surface import SurfaceDiffusion


try:
    from ase_ga.offspring_creator import OffspringCreator
except ModuleNotFoundError as error:
    if (error.name or '').split('.')[0] != 'ase_ga':
        raise
    raise MissingDependency('ase-ga', 'search') from error

__all__ = ['DiffusionMutation', 'DiffusionStartGenerator']


class DiffusionStartGenerator:
    """Generate start candidates of a genetic algorithm, with the interface of ``ase_ga.startgenerator.StartGenerator``.

    Candidates are generated in batches and returned one by one. Each new atom has its own tag, as in ase-ga, so that operators
    with ``use_tags`` do not treat the overlayer as one molecule.

    Parameters
    ----------
    gen : SurfaceDiffusion
        Candidates have its composition, in the order of its formula.
    batch : int
        Number of candidates generated at once.
    **conditions
        As for ``gen.sample``, such as ``energy=0.0, guidance_scale=2.0``.

    Examples
    --------
    >>> start = DiffusionStartGenerator(SurfaceDiffusion(slab, 'Ag6O3'))             # doctest: +SKIP
    >>> db = PrepareDB('ga.db', simulation_cell=slab, stoichiometry=[47] * 6 + [8] * 3)  # doctest: +SKIP
    >>> db.add_unrelaxed_candidate(start.get_new_candidate())                        # doctest: +SKIP
    """

    def __init__(self, gen: SurfaceDiffusion, *, batch: int = 10, **conditions: Any) -> None:
        check_integer('batch', batch, 1, 'the number of candidates generated at once')
        gen.irun(1, **conditions)  # checks the conditions without generating
        self.gen, self.batch, self.conditions, self._waiting = gen, int(batch), conditions, []

    def get_new_candidate(self, maxiter: int | None = None) -> Atoms | None:
        """Return a new candidate, or None if ``maxiter`` attempts failed (default: ``gen.maxtries`` per structure)."""
        if not self._waiting:
            before = self.gen.maxtries
            self.gen.maxtries = before if maxiter is None else max(1, int(maxiter))
            try:
                self._waiting = self.gen.sample(self.batch, **self.conditions)
            except GenerationFailed as failure:
                self._waiting = failure.images
            finally:
                self.gen.maxtries = before
        return _with_tags(self._waiting.pop(0)) if self._waiting else None


class DiffusionMutation(OffspringCreator):
    """Mutation of ase-ga (one parent, one child): add noise to a parent and denoise it.

    Parameters
    ----------
    gen : SurfaceDiffusion
        Generator with the composition and the slab of the population; see its method ``perturb``.
    noise : float
        Standard deviation in A. 0.3 repairs unlikely parts of a parent and keeps good minima; 0.7 to 1 leaves these, too.
    num_muts, verbose
        As for other operators of ase-ga.
    **conditions
        As for ``gen.sample``.

    Raises
    ------
    TypeError
        ``gen`` is another generator.
    MissingDependency
        ase-ga is not installed (when this class is imported).
    """

    def __init__(
        self, gen: SurfaceDiffusion, noise: float = 0.3, *, num_muts: int = 1, verbose: bool = False, **conditions: Any
    ) -> None:
        if getattr(gen, 'kind', None) != 'surface':
            raise TypeError(f'this operator noises overlayers, by a SurfaceDiffusion; got {type(gen).__name__}')
        super().__init__(verbose=verbose, num_muts=num_muts, rng=gen.rng)
        gen.irun(1, **conditions)  # checks the conditions without generating
        self.gen, self.noise, self.conditions = gen, check_noise(noise, gen.least_noise), conditions
        self.descriptor, self.min_inputs = 'DiffusionMutation', 1

    def get_new_individual(self, parents: Sequence[Atoms]) -> tuple[Atoms | None, str]:
        """Return (child, description); the child is None if every attempt had atoms too close to each other."""
        parent, description = parents[0], 'mutation: diffusion'
        child = self.mutate(parent)
        if child is None:
            return None, description
        new = self.initialize_individual(parent, child)
        pairs, names = child.info['key_value_pairs'], {*notes_of(child), MARKER}  # and not the score of the parent
        new.info['key_value_pairs'].update({name: pairs[name] for name in names if name in pairs})
        new.info['data'].update(diffusion=child.info['data']['diffusion'], parents=[parent.info['confid']])
        return self.finalize_individual(new), description

    def mutate(self, atoms: Atoms) -> Atoms | None:
        """Return a mutated copy of the atoms, or None."""
        try:
            child = self.gen.perturb(atoms, self.noise, None, **self.conditions)
        except GenerationFailed:
            return None
        child.set_tags(atoms.get_tags())
        return child


def _with_tags(atoms):
    """Return the atoms with one tag per mobile atom, continuing those of the substrate."""
    mobile = mobile_mask(atoms)
    tags = atoms.get_tags()
    tags[mobile] = tags[~mobile].max(initial=-1) + 1 + np.arange(mobile.sum())
    atoms.set_tags(tags)
    return atoms
