"""Reports of metrics: plain numbers for JSON, and texts for tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def plain(value: object) -> Any:
    """Return a nested report with Python numbers, and None for numbers that are not finite, so that it is JSON."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def percent(share: float | None) -> str:
    """Return a share as text, such as '12.5 %'; '-' for None."""
    return '-' if share is None else f'{100 * share:.1f} %'


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text; '-' for None."""
    return '-' if value is None else f'{value:.{digits}f}'
