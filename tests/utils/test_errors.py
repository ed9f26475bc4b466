import pickle

import pytest

from ase_diffusion.errors import CheckpointError, GenerationFailed, MissingDependency


def test_generation_failed_lists_its_reasons_most_frequent_first():
    error = GenerationFailed('nothing fits', {'too high': 2, 'too close': 5})
    assert str(error) == 'nothing fits; failed attempts: 5 x too close, 2 x too high'
    assert error.reasons == {'too high': 2, 'too close': 5}


def test_generation_failed_without_reasons_is_its_message():
    assert str(GenerationFailed('nothing fits')) == 'nothing fits'


def test_missing_dependency_has_the_command_that_helps():
    error = MissingDependency('sevenn', '7net')
    assert 'pip install sevenn' in str(error)
    assert "'.[7net]'" in str(error)
    assert error.name == 'sevenn'
    assert '[' not in str(MissingDependency('sevenn'))


@pytest.mark.parametrize(
    ('error', 'kind'),
    [
        (GenerationFailed('no', {'too close': 1}), RuntimeError),
        (CheckpointError('no'), ValueError),
        (MissingDependency('sevenn', '7net'), ImportError),
    ],
)
def test_errors_survive_the_way_back_from_a_worker_process(error, kind):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert isinstance(again, kind)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
