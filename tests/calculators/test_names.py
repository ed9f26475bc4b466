"""Calculators by name, path, factory and instance."""

import sys
import types

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from ase_diffusion.errors import MissingDependency
from ase_diffusion.relax import calculator_name, get_calculator, relax


def test_names_give_the_calculators_of_ase():
    assert isinstance(get_calculator('emt'), EMT)
    assert isinstance(get_calculator('EMT'), EMT)
    lj = get_calculator('lj', sigma=2.5)
    assert isinstance(lj, LennardJones)
    assert lj.parameters['sigma'] == 2.5


def test_instance_passes_and_class_or_function_is_a_factory():
    calc = EMT()
    assert get_calculator(calc) is calc
    assert isinstance(get_calculator(EMT), EMT)
    assert isinstance(get_calculator(lambda: calc), EMT)
    assert get_calculator(EMT, asap_cutoff=True).parameters['asap_cutoff']


def test_energy_is_that_of_the_calculator():
    atoms, other = bulk('Cu'), bulk('Cu')
    atoms.calc, other.calc = get_calculator('emt'), EMT()
    assert atoms.get_potential_energy() == other.get_potential_energy()


@pytest.mark.parametrize('name', ['ag-o', 'metal-oxide', 'emt', 'lj', '7net-mf-0', '7net-0', 'chgnet', 'gpaw', 'vasp'])
def test_unknown_name_lists_the_names(name):
    with pytest.raises(ValueError, match=f"'{name}'"):
        get_calculator('emtt')


def test_unknown_name_says_what_came():
    with pytest.raises(ValueError, match="'emtt'.*pass the object itself"):
        get_calculator('emtt')


def test_force_field_path_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match='none at .*nowhere.safetensors'):
        get_calculator(tmp_path / 'nowhere.safetensors')


def test_force_field_by_path_and_name(tmp_path, monkeypatch):
    """Both go to ForceFieldCalculator, which is imported only then."""
    fake = types.ModuleType('forcefield')

    class ForceFieldCalculator(EMT):
        def __init__(self, path_or_name, **kwargs):
            super().__init__()
            self.came = (path_or_name, kwargs)

    fake.ForceFieldCalculator = ForceFieldCalculator
    monkeypatch.setitem(sys.modules, 'ase_diffusion.calculators.forcefield', fake)
    path = tmp_path / 'ff.safetensors'
    path.write_bytes(b'')
    assert get_calculator(path).came == (str(path), {})
    assert get_calculator('ag-o', device='cpu').came == ('ag-o', {'device': 'cpu'})


@pytest.mark.parametrize(
    ('name', 'module'),
    [('7net-mf-0', 'sevenn'), ('7net-0', 'sevenn'), ('chgnet', 'chgnet'), ('gpaw', 'gpaw')],
)
def test_missing_package_says_so(name, module, monkeypatch):
    class Absent:
        def find_spec(self, fullname, path=None, target=None):
            if fullname.split('.')[0] == module:
                raise ModuleNotFoundError(f'No module named {module!r}', name=module)

    for loaded in [key for key in sys.modules if key.split('.')[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, 'meta_path', [Absent(), *sys.meta_path])
    with pytest.raises(MissingDependency, match=module):
        get_calculator(name)


def test_sevennet_gets_its_fidelity_and_gpaw_its_defaults(monkeypatch):
    came = []

    def record(*args, **kwargs):
        came.append((args, kwargs))
        return EMT()

    package, calculator, gpaw = (types.ModuleType(name) for name in ('sevenn', 'sevenn.calculator', 'gpaw'))
    calculator.SevenNetCalculator = gpaw.GPAW = record
    for name, module in [('sevenn', package), ('sevenn.calculator', calculator), ('gpaw', gpaw)]:
        monkeypatch.setitem(sys.modules, name, module)
    get_calculator('7net-mf-0', device='cpu')
    get_calculator('7net-0')
    get_calculator('gpaw', xc='RPBE')
    get_calculator('gpaw', mode='pw')
    assert came[0] == (('7net-mf-0',), {'modal': 'PBE', 'device': 'cpu'})
    assert came[1] == (('7net-0',), {})
    assert came[2][1] == {'mode': 'lcao', 'basis': 'dzp', 'xc': 'RPBE', 'txt': None}
    assert 'basis' not in came[3][1]


@pytest.mark.parametrize('thing', [None, 3, np.zeros(3), Atoms('Cu')])
def test_what_is_no_calculator(thing):
    with pytest.raises(TypeError, match='a name, a path, a factory'):
        get_calculator(thing)


def test_factory_must_return_a_calculator():
    with pytest.raises(TypeError, match='returned int'):
        get_calculator(lambda: 3)
    with pytest.raises(TypeError, match='a factory returns'):
        get_calculator(lambda: EMT)


def test_keywords_with_an_instance():
    with pytest.raises(ValueError, match='finished EMT'):
        get_calculator(EMT(), asap_cutoff=True)


def test_calculator_name():
    assert calculator_name('EMT') == 'emt'
    assert calculator_name(EMT()) == calculator_name(EMT) == 'EMT'
    assert calculator_name('/some/where/1.safetensors') == '1.safetensors'


@pytest.mark.parametrize('name', ['ag-o', 'emt', 'lj', 'chgnet', '7net-0'])
def test_unknown_keywords_are_refused(name):
    if name in ('chgnet', '7net-0'):
        pytest.importorskip({'chgnet': 'chgnet', '7net-0': 'sevenn'}[name])
    with pytest.raises(TypeError, match='typo'):
        get_calculator(name, typo=2)


def test_a_device_is_for_those_that_have_the_choice():
    atoms = bulk('Cu')
    assert 'relax_failed' not in relax(atoms, 'emt', device='cpu', steps=0).info['key_value_pairs']
    pytest.importorskip('chgnet')
    assert str(get_calculator('chgnet', device='cpu').device) == 'cpu'
