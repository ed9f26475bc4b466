"""The layout of CrysTens images in torch."""

import torch

from ase_diffusion.networks.image_layout import FIELDS, HEADER, build_image, is_pair, is_present, pair_block, strips


def example(width=5):
    g = torch.Generator().manual_seed(0)
    counts = torch.tensor([1, 3, width])
    atoms = torch.rand(3, width, 4, generator=g, dtype=torch.float64)
    cell = torch.rand(3, 7, generator=g, dtype=torch.float64)
    shift = torch.rand(16, generator=g, dtype=torch.float64)
    shift[13:] = 0.0
    scale = 0.5 + torch.rand(16, generator=g, dtype=torch.float64)
    return atoms, cell, counts, shift, scale


def test_rows_are_columns_and_channels_agree():
    atoms, cell, counts, shift, scale = example()
    image = build_image(atoms, cell, counts, shift, scale, absent=-1.0)
    assert image.shape == (3, 4, HEADER + 5, HEADER + 5) and len(FIELDS) == 16
    copies = strips(image)
    assert torch.equal(copies, copies[:, :1, :1].expand_as(copies))
    for k, n in enumerate(counts.tolist()):
        assert torch.allclose(copies[k, 0, 0, :4, :n].T * scale[:4] + shift[:4], atoms[k, :n])
        assert torch.allclose(copies[k, 0, 0, 4:11, :n].T * scale[4:11] + shift[4:11], cell[k].expand(n, -1))
        assert (copies[k, 0, 0, 11, :n] == 1).all() and (copies[k, :, :, :, n:] == -1).all()


def test_pair_block_is_symmetric_and_antisymmetric():
    atoms, cell, counts, shift, scale = example()
    image = build_image(atoms, cell, counts, shift, scale, absent=-1.0)
    length, directions = pair_block(image)
    assert torch.equal(length, image[:, 0, HEADER:, HEADER:]) and torch.equal(directions, image[:, 1:, HEADER:, HEADER:])
    d = directions * scale[13:, None, None]
    assert torch.allclose(d[1, :, 0, 2], atoms[1, 0, 1:] - atoms[1, 2, 1:])
    pair = is_pair(is_present(counts, 5))
    assert torch.allclose((length * scale[12] + shift[12])[pair], d.square().sum(1).sqrt()[pair])
    assert (length[~pair] == -1).all() and not directions.permute(0, 2, 3, 1)[~pair].any()
