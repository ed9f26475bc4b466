"""Structure search with a generator: sample, relax, mark duplicates, store everything in one database.

The loop is in `ase_diffusion.search.campaign`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calculators.default import default_calculator
from ..calculators.elements import warn_of_mixed_functionals
from ..calculators.names import CalculatorLike
from ..metrics.surface import Distinct
from ..utils.rng import RandomSource, coerce_rng
from .campaign import Campaign, describe, plain
from .store import slab_settings, stored_campaign

if TYPE_CHECKING:
    from ase import Atoms

    from ..generators.base import Generator


BLOCK = 16  # structures sampled at once


class StructureSearch(Campaign):
    """Sample structures, relax them, and store them in a database; the same call resumes.

    The sample of structure k depends on (seed, k) only. Duplicates are kept and marked; structures that differ by a symmetry of
    the substrate (a translation, rotation or mirror that maps the fixed atoms onto themselves) are duplicates.

    Parameters
    ----------
    generator : SurfaceDiffusion or another generator
        Object with ``rng``, ``sample(n, **conditions)`` and ``todict()``. Its rng is set for each block. Its own relaxation
        (``relax={'calculator': 'ag-o'}``) is a first stage, best with a cheap potential; with ``best_of`` only the lowest of
        several candidates are relaxed further.
    database : str or Path
        ``*.db`` or ``postgresql://...``, see :class:`ase_diffusion.search.campaign.Campaign`.
    calculator : str, Path, callable, Calculator or None
        As `ase_diffusion.relax.get_calculator` takes it. None:
        :func:`ase_diffusion.calculators.default.default_calculator`; the log says which.
    conditions : dict, optional
        Keywords of ``generator.sample``.
    rng : None, int, Generator, RandomState or numpy.random
        Source of the seed. None takes the seed of the database, or a fresh one for a new database.
    options
        Those of :class:`ase_diffusion.search.campaign.Campaign`: optimizer, fmax, steps, timeout, workers, client, logfile, ...

    Raises
    ------
    ValueError
        An option is not valid.

    Examples
    --------
    >>> gen = SurfaceDiffusion(slab, 'Ag12O6', logfile=None)                              # doctest: +SKIP
    >>> best = StructureSearch(gen, 'search.db', '7net-mf-0', workers=4).run(500)[0]      # doctest: +SKIP
    """

    def __init__(
        self,
        generator: Generator,
        database: str | Path = 'search.db',
        calculator: CalculatorLike | None = None,
        *,
        conditions: dict[str, Any] | None = None,
        rng: RandomSource = None,
        block: int = BLOCK,
        **options: Any,
    ) -> None:
        if not isinstance(conditions, (Mapping, type(None))):
            raise TypeError(
                f"conditions is a dict of keywords of generator.sample, such as {{'energy': 0.0}}; got {conditions!r}"
            )
        self.generator, self.conditions = generator, dict(conditions or {})
        checked = generator.check_conditions(self.conditions)
        template = getattr(generator, 'template', None)
        images = [] if template is None else [template]
        calculator = default_calculator(images) if calculator is None else calculator
        warn_of_mixed_functionals(calculator, images)
        self.seed = _find_seed(rng, database)
        self.seen = Distinct()
        asked = {name: plain(checked[name]) for name in self.conditions}
        made_by = {'seed': self.seed, 'generator': generator.todict(), 'conditions': asked}
        if first := getattr(generator, 'relax', None):
            made_by['prerelax'] = {k: describe(v) if k == 'calculator' else plain(v) for k, v in first.items()}
        slab = getattr(generator, 'slab', None) if hasattr(generator, 'slab') else _slab_of(generator)
        if slab is not None:
            made_by['slab'] = slab_settings(slab)
        super().__init__(database, self.sample, calculator, first_of_kind=self.seen.add, made_by=made_by, block=block, **options)

    def sample(self, block: int, count: int) -> list[Atoms]:
        """Return the first `count` structures of a block."""
        self.generator.rng = np.random.default_rng([self.seed, block])
        if hasattr(self.generator, 'templates_begin'):
            size = self.block * self.generator.best_of
            self.generator.templates_begin = self.seed, block * size, (block + 1) * size
        return self.generator.sample(count, **self.conditions)


def _find_seed(rng, database):
    """Return the seed from `rng`, the database, or fresh entropy, in this order."""
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return int(rng)
    if rng is None and 'seed' in (stored := stored_campaign(database)):
        return stored['seed']
    return int.from_bytes(coerce_rng(rng).bytes(8), 'little') >> 1


def _slab_of(generator):
    """Return the slab of a generator without the atoms that it adds; None without a slab."""
    template = getattr(generator, 'template', None)
    if template is None:
        return None
    tags = template.get_tags()
    return template[tags != tags.max()]
