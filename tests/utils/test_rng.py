import random

import numpy as np
import pytest
import torch

from ase_diffusion.utils import coerce_rng, spawn_seeds


@pytest.mark.parametrize('source', [np.random.default_rng(1), np.random.RandomState(1), np.random])
def test_a_source_passes_through(source):
    assert coerce_rng(source) is source


@pytest.mark.parametrize('seed', [0, 7, np.int64(7), 2**70])
def test_an_integer_is_a_seed(seed):
    assert coerce_rng(seed).bytes(8) == coerce_rng(seed).bytes(8)


def test_none_is_fresh():
    assert coerce_rng(None).bytes(8) != coerce_rng(None).bytes(8)


@pytest.mark.parametrize('source', [None, 3, np.random.RandomState(1), np.random])
def test_what_comes_back_draws(source):
    rng = coerce_rng(source)
    assert len(rng.bytes(8)) == 8
    assert rng.random(3).shape == (3,)
    assert sorted(rng.permutation(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize('wrong', ['7', 1.5, True, np.True_, random.Random(1), [1]])
def test_others_are_refused_with_a_way_out(wrong):
    with pytest.raises(TypeError, match='rng=42'):
        coerce_rng(wrong)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match='not negative'):
        coerce_rng(-1)


@pytest.mark.parametrize('make', [np.random.default_rng, np.random.RandomState])
def test_seeds_do_not_depend_on_how_many_are_drawn_at_once(make):
    rng = make(5)
    assert spawn_seeds(make(5), 5) == spawn_seeds(rng, 2) + spawn_seeds(rng, 3)


def test_seeds_differ_and_fit_torch():
    seeds = spawn_seeds(5, 100)
    assert len(set(seeds)) == 100
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() == max(seeds)


def test_no_seeds():
    assert spawn_seeds(5, 0) == []
