"""Circular convolutions, attention and patches, against their definitions."""

import math

import pytest
import torch

from ase_diffusion.networks.convolution import (
    Attention,
    Convolution,
    ResBlock,
    circular_pad,
    depth_to_space,
    linear_attention,
    space_to_depth,
)


@pytest.mark.parametrize('dims', [1, 2, 3])
def test_circular_convolutions_are_those_of_the_repeated_grid(dims):
    conv, x = Convolution(dims, 2, 3).double(), torch.randn(1, 2, *[5] * dims, dtype=torch.float64)
    tiled = torch.nn.functional.pad(x, [1] * (2 * dims), mode='circular')
    assert torch.allclose(conv(x), conv.conv(tiled), atol=1e-12)
    assert torch.equal(circular_pad(x), tiled)


@pytest.mark.parametrize('dims', [1, 2, 3])
@pytest.mark.parametrize('patch', [1, 2, 3])
def test_depth_to_space_undoes_space_to_depth(dims, patch):
    x = torch.randn(2, 3, *[6] * dims)
    y = space_to_depth(x, patch)
    assert y.shape == (2, 3 * patch**dims, *[6 // patch] * dims)
    assert torch.equal(depth_to_space(y, patch), x)
    corner = (0,) * dims
    assert torch.equal(y[(0, slice(0, patch**dims), *corner)], x[(0, 0, *[slice(0, patch)] * dims)].flatten())


@pytest.mark.parametrize('linear', [False, True])
def test_attention_is_permutation_equivariant(linear):
    layer = Attention(1, 8, heads=2, head_width=4, linear=linear).double()
    torch.nn.init.normal_(layer.out.weight)
    x, order = torch.randn(2, 8, 10, dtype=torch.float64), torch.randperm(10)
    assert torch.allclose(layer(x)[:, :, order], layer(x[:, :, order]), atol=1e-12)


def test_linear_attention_is_its_definition():
    q, k, v = torch.randn(3, 1, 1, 5, 4, dtype=torch.float64)
    out = linear_attention(q, k, v)
    expected = torch.zeros(5, 4, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            weight = (torch.softmax(q[0, 0, i], 0) * torch.softmax(k[0, 0], 0)[j]).sum() / math.sqrt(4)
            expected[i] += weight * v[0, 0, j]
    assert torch.allclose(out[0, 0], expected, atol=1e-12)


def test_a_fresh_block_is_the_identity():
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(ResBlock(2, 8, 8, 4)(x, torch.randn(2, 4)), x)
