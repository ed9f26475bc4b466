"""A search with a generator: sample, relax, leave out what was found before, keep all in one database.

It stands here and not in relax/, because it needs a generator and metrics; the machine itself is `ase_diffusion.search.campaign`.
"""

import numpy as np

from ..metrics.surface import Distinct
from ..utils.rng import coerce_rng
from .campaign import Campaign, describe, plain
from .store import slab_settings, stored_campaign

BLOCK = 16  # structures that are sampled at once


class StructureSearch(Campaign):
    """Sample structures, relax them, and keep them in a database that the same call brings further.

    Structure k is sampled from (seed, k) alone. Duplicates are kept and marked: those that differ by a symmetry of the
    substrate (a translation, rotation or mirror that leaves the fixed atoms in place) count as duplicates.

    Parameters
    ----------
    generator : SurfaceDiffusion or another generator
        With ``rng``, ``sample(n, **conditions)`` and ``todict()``. Its rng is set for each block. Where it relaxes by itself
        (``relax={'calculator': 'ag-o'}``) that is a first stage, best with a cheap potential, and with ``best_of`` only the
        lowest of several go on to the calculator of the search.
    database : str or Path
        ``*.db`` or ``postgresql://...``, see :class:`ase_diffusion.search.campaign.Campaign`.
    calculator : str, Path, callable or Calculator
        Anything `ase_diffusion.relax.get_calculator` takes.
    conditions : dict, optional
        Keywords of ``generator.sample``.
    rng : None, int, Generator, RandomState or numpy.random
        Where the seed comes from. None takes the seed of the database, or a fresh one where that is new.
    options
        Those of :class:`ase_diffusion.search.campaign.Campaign`: optimizer, fmax, steps, timeout, workers, client, logfile, ...

    Raises
    ------
    ValueError
        An option is not one.

    Examples
    --------
    >>> gen = SurfaceDiffusion(slab, 'Ag12O6', logfile=None)                              # doctest: +SKIP
    >>> best = StructureSearch(gen, 'search.db', '7net-mf-0', workers=4).run(500)[0]      # doctest: +SKIP
    """

    def __init__(
        self, generator, database='search.db', calculator='7net-mf-0', *, conditions=None, rng=None, block=BLOCK, **options
    ):
        self.generator, self.conditions = generator, dict(conditions or {})
        generator.check_conditions(self.conditions)
        self.seed = _find_seed(rng, database)
        self.seen = Distinct()
        made_by = {'seed': self.seed, 'generator': generator.todict(), 'conditions': self.conditions}
        if first := getattr(generator, 'relax', None):
            made_by['prerelax'] = {k: describe(v) if k == 'calculator' else plain(v) for k, v in first.items()}
        slab = getattr(generator, 'slab', None) if hasattr(generator, 'slab') else _slab_of(generator)
        if slab is not None:
            made_by['slab'] = slab_settings(slab)
        super().__init__(database, self.sample, calculator, first_of_kind=self.seen.add, made_by=made_by, block=block, **options)

    def sample(self, block, count):
        """Return the first `count` structures of a block."""
        self.generator.rng = np.random.default_rng([self.seed, block])
        return self.generator.sample(count, **self.conditions)


def _find_seed(rng, database):
    """Return the seed: of `rng`, else of the database, else a fresh one."""
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return int(rng)
    if rng is None and 'seed' in (stored := stored_campaign(database)):
        return stored['seed']
    return int.from_bytes(coerce_rng(rng).bytes(8), 'little') >> 1


def _slab_of(generator):
    """Return the slab that a generator works on, without the atoms that it adds; None where it has none."""
    template = getattr(generator, 'template', None)
    if template is None:
        return None
    tags = template.get_tags()
    return template[tags != tags.max()]
