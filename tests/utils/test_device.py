import pytest
import torch

from ase_diffusion.utils.device import pick_device


def test_none_is_the_best_there_is():
    assert pick_device().type == ('cuda' if torch.cuda.is_available() else 'cpu')


@pytest.mark.parametrize('device', ['cpu', torch.device('cpu')])
def test_a_device_that_is_there_is_taken(device):
    assert pick_device(device) == torch.device('cpu')


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 1.5])
def test_one_that_is_not_is_refused_with_those_that_are(device):
    with pytest.raises(ValueError, match=r'\(cpu.*got'):
        pick_device(device)
