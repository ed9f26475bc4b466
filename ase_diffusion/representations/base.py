"""What representations have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A sample that is no structure, and why.

    Parameters
    ----------
    reason : str
        In lower case, without a full stop.
    """

    reason: str
