"""Clusters of noisy numbers on a line or a circle, many structures at once."""

from __future__ import annotations

import numpy as np

WIDEST = 3.0  # a cluster wider than this many tolerances is a chain, not a value


def merge_close(values: np.ndarray, groups: np.ndarray, tolerance: np.ndarray, period: float | None = None) -> np.ndarray:
    """Replace numbers that lie close together by their mean, group by group.

    Neighbors closer than the tolerance belong to one cluster (single linkage), so that the number of clusters need not be
    known. Clusters wider than three tolerances are left as they are: no gap says where one value ends.

    Parameters
    ----------
    values : (n,) array
    groups : (n,) int array
        Group of each value, 0 to G - 1.
    tolerance : (G,) array
    period : float, optional
        Length of the circle; on a line by default.

    Returns
    -------
    (n,) array, in [0, period) on a circle.
    """
    values, groups = np.asarray(values, float), np.asarray(groups, int)
    tolerance = np.asarray(tolerance, float)
    if not len(values):
        return values.copy()
    start = np.zeros(len(tolerance)) if period is None else _origins(values, groups, len(tolerance), period)
    u = values - start[groups] if period is None else (values - start[groups]) % period
    order = np.lexsort((u, groups))
    u, g = u[order], groups[order]
    first = np.r_[True, (np.diff(g) != 0) | (np.diff(u) > tolerance[g[1:]])]
    cluster = np.cumsum(first) - 1
    low = u[first]
    mean = low + np.bincount(cluster, u - low[cluster]) / np.bincount(cluster)  # exact where all are equal
    width = u[np.r_[np.nonzero(first)[0][1:], len(u)] - 1] - low
    narrow = (width <= WIDEST * tolerance[g[first]])[cluster]
    merged = np.where(narrow, mean[cluster], u) + start[g]
    out = np.empty(len(values))
    out[order] = merged if period is None else merged % period
    return out


def _origins(values, groups, count, period) -> np.ndarray:
    """Return the number of each group that follows its widest gap on the circle, (G,)."""
    order = np.lexsort((values % period, groups))
    v, g = (values % period)[order], groups[order]
    first = np.r_[True, np.diff(g) != 0]
    last = np.r_[np.nonzero(first)[0][1:], len(v)] - 1
    gap = np.r_[0.0, np.diff(v)]
    gap[first] = v[first] + period - v[last]
    best = np.lexsort((gap, g))  # the widest gap of each group comes last in it
    origin = np.zeros(count)
    origin[g[best]] = v[best]
    return origin


def k_means(values: np.ndarray, groups: np.ndarray, count: int, clusters: int, rounds: int = 50) -> np.ndarray:
    """Replace numbers by the means of at most ``clusters`` clusters on a line, group by group (Lloyd's algorithm).

    Centers start at quantiles of the different values of a group, so that the result depends on the values alone.

    Parameters
    ----------
    values, groups : (n,) arrays
    count : int
        Number of groups.
    clusters : int
        K; fewer where a group has fewer different values.
    rounds : int
        Lloyd iterations.
    """
    values, groups = np.asarray(values, float), np.asarray(groups, int)
    out = values.copy()
    order = np.argsort(groups, kind='stable')
    for part in np.split(order, np.cumsum(np.bincount(groups, minlength=count))[:-1]):
        different = np.unique(values[part])
        if len(different) <= clusters:
            continue
        x = values[part]
        centers = different[np.round((np.arange(clusters) + 0.5) / clusters * len(different) - 0.5).astype(int)]
        for _ in range(rounds):
            mine = np.searchsorted((centers[1:] + centers[:-1]) / 2, x)
            full = np.bincount(mine, minlength=clusters)
            new = np.where(full > 0, np.bincount(mine, x, clusters) / np.maximum(full, 1), centers)
            if np.array_equal(new, centers):
                break
            centers = np.sort(new)
        out[part] = centers[np.searchsorted((centers[1:] + centers[:-1]) / 2, x)]
    return out
