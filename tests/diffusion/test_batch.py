"""The batch: dense fields, and masks by row and by element."""

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.diffusion.batch import as_mask


def test_a_dense_batch_has_one_row_per_structure():
    images = torch.rand(3, *exact.DENSE)
    batch = Batch.dense('image', images, {'gap': torch.ones(3)}, {'note': 1})
    assert batch.size == 3 and batch.rows['image'].tolist() == [0, 1, 2] and batch.fields['image'] is images
    assert batch.conditions['gap'].tolist() == [1, 1, 1] and batch.extras == {'note': 1} and batch.domains == {}
    assert Batch.dense('image', images).conditions == {}
    assert batch.mean_over_rows('image', torch.arange(3.0)).tolist() == [0, 1, 2]


@pytest.mark.parametrize('shape', [(3,), (3, 1, 1, 1), (1, 2, 1, 1), (2, 1, 1), (3, 2, 4, 4), (4, 4), (4,), (1,), ()], ids=str)
def test_masks_are_rows_or_broadcast(shape):
    field = torch.zeros(3, *exact.DENSE)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    full = as_mask(mask, field).expand(field.shape)
    expected = mask.reshape(3, 1, 1, 1) if shape == (3,) else mask
    assert torch.equal(full, expected.expand(field.shape))


def test_a_mask_as_long_as_the_field_is_one_of_rows():
    square = torch.zeros(4, 4)
    mask = torch.tensor([True, False, False, False])
    assert as_mask(mask, square).expand(4, 4)[0].all() and as_mask(mask[None], square).expand(4, 4)[:, 0].all()


def test_values_of_another_batch_come_where_the_mask_is_true():
    one, two = Batch.dense('x', torch.zeros(2, 3)), Batch.dense('x', torch.ones(2, 3))
    mask = torch.tensor([[True, False, False], [False, True, True]])
    assert torch.equal(one.merged(two, {'x': mask}).fields['x'], mask.float())
    assert one.merged(two, None) is one and (one.fields['x'] == 0).all()


def test_masks_that_do_not_fit_are_refused():
    field = torch.zeros(3, *exact.DENSE)
    for shape in ((5,), (3, 3, 4, 4), (1, 3, 2, 4, 4), (2,)):
        with pytest.raises(ValueError, match=r'a mask of image .*\(3,\), or broadcasts .*\(3, 2, 4, 4\)'):
            as_mask(torch.zeros(shape, dtype=torch.bool), field, 'image')
    with pytest.raises(ValueError, match='a mask is bool'):
        as_mask(torch.ones(3), field)
