"""The network of cells: an exact inverse, translations, learning."""

import pytest
import torch

from ase_diffusion.networks.lattice import LatticeNet


def random_cells(n, seed=0):
    return 10 * torch.eye(3, dtype=torch.float64) + torch.randn(
        n, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def test_the_metric_undoes_the_numbers():
    net, cells = LatticeNet(), random_cells(5)
    assert torch.allclose(net.metric(net.numbers(cells)), cells @ cells.transpose(1, 2), rtol=1e-9, atol=1e-9)


def test_orthogonal_cells_have_three_numbers():
    net, lengths = LatticeNet(orthogonal=True), torch.tensor([[9.0, 10.0, 12.0]], dtype=torch.float64)
    numbers = net.numbers(torch.diag_embed(lengths))
    assert numbers.shape == (1, 3)
    assert torch.allclose(net.metric(numbers), torch.diag_embed(lengths**2), rtol=1e-9, atol=1e-9)
    assert torch.allclose(net.cells(torch.randn(1, 3, 8, 8, 8)).triu(1), torch.zeros(3, 3, dtype=torch.float64))


@pytest.mark.parametrize('shape', [(8, 8, 8), (4, 8, 12)])
def test_translations_change_nothing(shape):
    net = LatticeNet().double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    assert (net(x) - net(torch.roll(x, (4, -4, 8), (2, 3, 4)))).abs().max() < 1e-9


def test_it_learns_the_pitch_of_gaussians():
    torch.manual_seed(0)
    net = LatticeNet(channels=1, width=8, orthogonal=True)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    points = torch.arange(8) / 8 - 0.5
    d = points - torch.round(points)
    for _ in range(60):
        lengths = 6 + 6 * torch.rand(12, 3)
        parts = [torch.exp(-((d * lengths[:, a, None]) ** 2)) for a in range(3)]
        grids = torch.einsum('bx,by,bz->bxyz', *parts)[:, None]
        loss = (net(grids) - net.numbers(torch.diag_embed(lengths))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    error = (net.cells(grids).diagonal(dim1=1, dim2=2) / lengths - 1).abs().mean()
    assert error < 0.2
