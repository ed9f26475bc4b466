"""Embeddings of conditions: numbers, classes, element sets, vectors; what is not asked for is a learned vector."""

import math

import pytest
import torch

from ase_diffusion.diffusion import Batch
from ase_diffusion.diffusion.guidance import ClassifierFree
from ase_diffusion.networks.conditions import ConditionEmbedding
from ase_diffusion.representations.conditions import ClassCondition, ElementsCondition, NumberCondition, VectorCondition

SPECS = {
    'gap': [0.5, 2.0],
    'phase': {'classes': 3},
    'elements': {'elements': True},
    'cell': {'vector': 3, 'shift': [4.0, 4.0, 6.0], 'scale': [1.0, 1.0, 2.0]},
}
FORMS = {
    'gap': NumberCondition(0.0, 3.0),
    'phase': ClassCondition(('fcc', 'hcp', 'bcc')),
    'elements': ElementsCondition((8, 12, 25)),
    'cell': VectorCondition((3.0,) * 3, (9.0,) * 3),
}
VALUES = {
    'gap': (0.3, 1.7),
    'phase': ('fcc', 'bcc'),
    'elements': (('O', 'Mg'), ('O', 'Mn')),
    'cell': ((4.0, 4.5, 6.0), (4.0, 4.5, 6.1)),
}


def embedding(width=16):
    """An embedding whose absent vectors are not zero."""
    torch.manual_seed(0)
    net = ConditionEmbedding(SPECS, width)
    for vector in net.absent.values():
        vector.data.normal_()
    return net


@pytest.mark.parametrize('name', SPECS)
def test_values_are_told_apart_and_what_is_not_asked_for_is_the_absent_vector(name):
    net, like = embedding(), torch.zeros(3, 16)
    out = net({name: FORMS[name].tensor([*VALUES[name], None])}, like)
    nothing = net({}, like)
    assert torch.allclose(nothing[0], sum(net.absent[key] for key in SPECS)) and torch.equal(nothing[0], nothing[2])
    assert torch.allclose(out[2], nothing[2]) and torch.isfinite(out).all()
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in ((out[0], out[1]), (out[0], nothing[0])))


def test_conditions_are_summed():
    net, like = embedding(), torch.zeros(2, 16)
    values = {name: FORMS[name].tensor(VALUES[name]) for name in SPECS}
    nothing = net({}, like)
    alone = sum(net({name: value}, like) - nothing for name, value in values.items())
    assert torch.allclose(net(values, like) - nothing, alone, atol=1e-5)


def test_gradients_reach_every_parameter_and_no_nan():
    net = embedding()
    values = {name: FORMS[name].tensor([*VALUES[name], None]) for name in SPECS}
    net(values, torch.zeros(3, 16)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_a_set_of_elements_has_no_order_and_a_count():
    net, like = embedding(), torch.zeros(1, 16)
    form = FORMS['elements']
    assert torch.equal(form.tensor([('O', 'Mg')]), form.tensor([('Mg', 'O')]))
    one, two = (net({'elements': form.tensor([symbols])}, like) for symbols in (('O',), ('O', 'Mg')))
    assert not torch.allclose(one, two, atol=1e-3)


def test_a_vector_that_is_partly_unknown_is_not_asked_for():
    net, like = embedding(), torch.zeros(1, 16)
    assert torch.allclose(net({'cell': torch.tensor([[4.0, math.nan, 6.0]])}, like), net({}, like))


def test_forms_that_are_none_are_refused():
    for spec in ({'colour': 3}, {'elements': False}):
        with pytest.raises(ValueError, match='expected: a condition is'):
            ConditionEmbedding({'x': spec}, 8)
    for spec in ({'vector': 2, 'shift': [0.0], 'scale': [1.0]}, [0.0, 0.0]):
        with pytest.raises(ValueError, match='positive scale'):
            ConditionEmbedding({'x': spec}, 8)


@pytest.mark.parametrize('name', SPECS)
def test_classifier_free_guidance_takes_rows(name):
    net, form = embedding(4), FORMS[name]

    def network(batch, c_noise, conditions):
        return {'x': net(conditions, torch.zeros(batch.size, 4))}

    asked, nobody = form.tensor([VALUES[name][0], None]), form.tensor([None, None])
    batch = Batch({'x': torch.zeros(2, 4)}, {'x': torch.arange(2)}, 2)
    conditional, absent = (network(batch, None, {name: value})['x'] for value in (asked, nobody))
    for scale in (0.0, 1.0, 3.0):
        out = ClassifierFree(network, scale)(batch, torch.zeros(2), {name: asked})['x']
        assert torch.allclose(out, absent + scale * (conditional - absent), atol=1e-5)
    assert torch.equal(ClassifierFree(network, 3.0)(batch, torch.zeros(2), {name: nobody})['x'], absent)
