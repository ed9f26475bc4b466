"""Random numbers: one argument ``rng`` for all, and seeds that are drawn from it."""

import operator

import numpy as np

__all__ = ['coerce_rng', 'spawn_seeds']


def coerce_rng(rng=None):
    """Return a source of random numbers.

    Parameters
    ----------
    rng : None, int, numpy.random.Generator, numpy.random.RandomState or numpy.random
        None is fresh entropy, an integer the seed of a new Generator. Everything else with a method ``bytes`` is
        returned as it is, so that drawing from it advances the caller's own source.

    Returns
    -------
    Generator, RandomState or numpy.random
        An object with ``bytes(n)``, ``random(shape)`` and ``permutation(n)``.

    Raises
    ------
    TypeError
        It is nothing of these.
    ValueError
        The seed is negative.
    """
    if rng is None:
        return np.random.default_rng()
    if callable(getattr(rng, 'bytes', None)):
        return rng
    try:
        if isinstance(rng, bool | np.bool_):
            raise TypeError
        seed = operator.index(rng)
    except TypeError:
        raise TypeError(
            'rng is None, an integer, a numpy Generator or RandomState, or the module numpy.random; '
            f'got {rng!r} ({type(rng).__name__}); pass for example rng=42'
        ) from None
    if seed < 0:
        raise ValueError(f'a seed is not negative; got rng={seed}; pass for example rng={-seed}')
    return np.random.default_rng(seed)


def spawn_seeds(rng, n):
    """Draw seeds, one for each structure.

    They are drawn one after the other: the first k of n seeds do not depend on n, and so neither do the structures on
    the size of a batch.

    Parameters
    ----------
    rng : anything `coerce_rng` takes
        Advanced by n draws of 8 bytes, unless it is an integer or None.
    n : int
        Number of seeds.

    Returns
    -------
    list of int
        In [0, 2**63), which torch, numpy and sqlite all take.
    """
    rng = coerce_rng(rng)
    return [int.from_bytes(rng.bytes(8), 'little') >> 1 for _ in range(n)]
