"""Choices of which all of some classes occur."""

from itertools import product

import pytest
import torch

from ase_diffusion.networks.coverage import covering


def brute_force(p, required, orbits):
    """Return marginals (N, K) of independent choices of orbits given that all required classes occur."""
    n, k = p.shape
    kinds = sorted(set(orbits))
    found = torch.zeros(n, k, dtype=torch.double)
    for choice in product(range(k), repeat=len(kinds)):
        if not required <= set(choice):
            continue
        of = dict(zip(kinds, choice, strict=True))
        weight = torch.tensor(1.0, dtype=torch.double)
        for kind in kinds:
            weight = weight * p[orbits.index(kind), of[kind]]
        for i, orbit in enumerate(orbits):
            found[i, of[orbit]] += weight
    return found / found.sum(1, keepdim=True)


@pytest.mark.parametrize('orbits', [[0, 1, 2, 3], [0, 0, 1, 2, 2, 2]])
@pytest.mark.parametrize('required', [{0, 1}, {1, 2, 4}])
def test_marginals_are_those_of_all_choices(orbits, required):
    torch.manual_seed(0)
    kinds = 2 * torch.randn(1 + max(orbits), 5, dtype=torch.double)
    logits = kinds[orbits]
    share = torch.tensor([1 / orbits.count(orbit) for orbit in orbits], dtype=torch.double)
    mask = torch.zeros(1, 5, dtype=torch.bool)
    mask[0, sorted(required)] = True
    found = torch.softmax(covering(logits[None], mask, share[None])[0], -1)
    torch.testing.assert_close(found, brute_force(torch.softmax(logits, -1), required, orbits), rtol=1e-6, atol=1e-9)


def test_rows_have_classes_of_their_own():
    """Another row with more classes, and choices that do not count, change nothing."""
    torch.manual_seed(1)
    logits = torch.randn(2, 5, 6, dtype=torch.double)
    share = torch.tensor([[1.0, 1, 1, 0, 0], [1.0, 1, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 1]], dtype=torch.bool)
    both = covering(logits, mask, share)
    torch.testing.assert_close(both[:1, :3], covering(logits[:1, :3], mask[:1], share[:1, :3]))
    torch.testing.assert_close(both[0, 3:], logits[0, 3:])


def test_what_cannot_be_is_left_as_it_is():
    """Two choices cannot have three classes; nothing is required; one class alone."""
    logits = torch.randn(1, 2, 6)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(covering(logits, mask, torch.ones(1, 2)), logits)
    torch.testing.assert_close(covering(logits, mask & False, torch.ones(1, 2)), logits)


def test_certain_choices_stay_finite():
    logits = torch.zeros(1, 3, 4)
    logits[..., 0] = 200.0
    mask = torch.tensor([[1, 1, 0, 0]], dtype=torch.bool)
    found = covering(logits, mask, torch.ones(1, 3))
    assert found.isfinite().all()
