"""Parts that all representations share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Stand in for a structure that could not be decoded.

    Parameters
    ----------
    reason : str
        Lower case, without full stop.
    """

    reason: str
