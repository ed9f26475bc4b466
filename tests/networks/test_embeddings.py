"""Embeddings of classes and sets: what is not asked for has a vector of its own."""

import math

import torch

from ase_diffusion.networks.embeddings import ClassEmbedding, SetEmbedding


def test_class_that_is_not_asked_for():
    embed = ClassEmbedding(5, 4)
    found = embed(torch.tensor([0.0, 4.0, math.nan, 0.0]))
    assert found.shape == (4, 4) and torch.equal(found[0], found[3]) and torch.equal(found[2], embed.table.weight[5])
    assert torch.equal(found[1], embed.table.weight[4])


def test_set_that_is_not_asked_for():
    embed = SetEmbedding(6, 4)
    members = torch.zeros(3, 6)
    members[0, [1, 2]] = 1.0
    members[1] = math.nan
    found = embed(members)
    assert torch.equal(found[1], embed.absent) and torch.isfinite(found).all()
    assert not torch.equal(found[0], found[2])  # the empty set is a question, too
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in embed.parameters())
