"""Random numbers: one kind of argument ``rng``, and seeds drawn from it."""

from __future__ import annotations

import operator
from types import ModuleType

import numpy as np

__all__ = ['RandomSource', 'coerce_rng', 'spawn_seeds']

RandomSource = int | np.random.Generator | np.random.RandomState | ModuleType | None  # argument of `coerce_rng`


def coerce_rng(rng: RandomSource = None) -> np.random.Generator | np.random.RandomState | ModuleType:
    """Return a random number generator.

    Parameters
    ----------
    rng : None, int, numpy.random.Generator, numpy.random.RandomState or numpy.random
        None takes fresh entropy, an integer is the seed of a new Generator. Other objects with a method ``bytes`` are
        returned unchanged, so that drawing advances the generator of the caller.

    Returns
    -------
    Generator, RandomState or numpy.random
        An object with ``bytes(n)``, ``random(shape)`` and ``permutation(n)``.

    Raises
    ------
    TypeError
        `rng` is of another type.
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


def spawn_seeds(rng: RandomSource, n: int) -> list[int]:
    """Draw one seed per structure.

    Seeds are drawn one by one: the first k of n seeds do not depend on n, so structures do not depend on the batch size.

    Parameters
    ----------
    rng : anything `coerce_rng` takes
        Advanced by n draws of 8 bytes, unless it is an integer or None.
    n : int
        Number of seeds.

    Returns
    -------
    list of int
        In [0, 2**63), valid in torch, numpy and sqlite.
    """
    rng = coerce_rng(rng)
    return [int.from_bytes(rng.bytes(8), 'little') >> 1 for _ in range(n)]
