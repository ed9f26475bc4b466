"""Clusters on lines and circles."""

import numpy as np

from ase_diffusion.representations.clustering import k_means, merge_close


def test_merge_close_on_a_circle():
    values = [0.999, 0.001, 0.5, 0.499, 0.2, 0.3]
    found = merge_close(values, [0, 0, 0, 0, 1, 1], [0.01, 0.01], 1.0)
    assert np.allclose(found[:2] % 1.0 * (1 - 2 * (found[:2] > 0.5)), 0, atol=1e-12) or np.allclose(found[:2], 1.0)
    assert np.allclose(found[2:], [0.4995, 0.4995, 0.2, 0.3])


def test_merge_close_leaves_chains():
    values = np.linspace(0, 0.9, 91)
    assert np.allclose(merge_close(values, np.zeros(91, int), [0.011], 1.0), values)
    assert np.allclose(merge_close([1.0, 1.2, 5.0], [0, 0, 0], [0.5]), [1.1, 1.1, 5.0])
    assert merge_close([], [], []).shape == (0,)


def test_k_means_of_two_groups():
    values = [0.0, 0.1, 1.0, 1.1, 7.0, 7.0]
    found = k_means(values, [0, 0, 0, 0, 1, 1], 2, 2)
    assert np.allclose(found, [0.05, 0.05, 1.05, 1.05, 7.0, 7.0])
