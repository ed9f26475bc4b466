"""The calculator where none is named, and packages that are missing: said before any work."""

import pytest
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write

from ase_diffusion import CrystalDiffusion, SurfaceDiffusion
from ase_diffusion.calculators import default, elements, get_calculator
from ase_diffusion.calculators.default import check_installed, default_calculator, default_for_slab
from ase_diffusion.errors import MissingDependency
from ase_diffusion.metrics import ag6_model
from ase_diffusion.relax import relax
from ase_diffusion.search import RandomStructureSearch, StructureSearch
from ase_diffusion.search.campaign import Campaign


@pytest.fixture
def only(monkeypatch):
    """Make all packages but the named ones look missing."""

    def install(*names):
        monkeypatch.setattr(default, '_installed', lambda package: package in names)

    return install


@pytest.fixture
def copper():
    slab = fcc111('Cu', (2, 2, 2), vacuum=8.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(range(8)))
    return slab


def test_the_shipped_force_field_where_it_knows_the_structures(only, copper):
    only('sevenn', 'chgnet')
    assert default_calculator([ag6_model()]) == 'ag-o'
    assert default_calculator([ag6_model(), bulk('Cu')]) == '7net-mf-0'
    assert default_calculator([copper]) == '7net-mf-0'
    assert default_calculator() == '7net-mf-0'
    only('chgnet')
    assert default_calculator([copper]) == 'chgnet'


@pytest.mark.parametrize(
    ('metal', 'adsorbate', 'wrong'), [('Ni', 'O', True), ('Fe', 'F', True), ('Ni', 'S', False), ('Pd', 'O', False)]
)
def test_oxygen_on_metals_of_which_oxides_have_a_hubbard_u_is_for_chgnet(metal, adsorbate, wrong, only, monkeypatch, caplog):
    """SevenNet learned PBE+U for oxides and PBE for metals; benchmarks/oxygen_labels.py."""
    from ase.build import add_adsorbate

    slab = fcc111(metal, (2, 2, 2), a=3.6, vacuum=8.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(range(8)))
    add_adsorbate(slab, adsorbate, 1.2, 'fcc')
    only('sevenn', 'chgnet')
    assert default_calculator([slab]) == ('chgnet' if wrong else '7net-mf-0')
    monkeypatch.setattr(elements, '_told', set())
    for calculator in ('chgnet', '7net-mf-0', '7net-mf-0'):
        elements.warn_of_mixed_functionals(calculator, [slab])
    assert caplog.text.count('several eV too weakly') == wrong
    only('sevenn')
    assert default_calculator([slab]) == '7net-mf-0'
    slab.set_constraint()  # a crystal or an oxide throughout: one functional
    assert not elements.mixes_functionals(slab)


@pytest.fixture
def nickel():
    slab = fcc111('Ni', (2, 2, 2), vacuum=8.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(range(8)))
    return slab


class SevenNetCalculator(EMT):
    name = '7net-mf-0'


@pytest.mark.parametrize(
    'use',
    [
        lambda slab, calc, _: SurfaceDiffusion(slab, 'O', guidance=calc, logfile=None),
        lambda slab, calc, folder: RandomStructureSearch(slab, 'O', calc, database=folder / 'r.db', logfile=None),
        lambda slab, calc, folder: StructureSearch(
            SurfaceDiffusion(slab, 'O', logfile=None), folder / 's.db', calc, workers=0, logfile=None
        ),
    ],
)
def test_sevennet_for_oxygen_on_nickel_is_warned_of_where_it_is_named(use, nickel, monkeypatch, caplog, tmp_path):
    """Also as an instance; in the workers of a search nobody would see it."""
    monkeypatch.setattr(elements, '_told', set())
    use(nickel, SevenNetCalculator(), tmp_path)
    assert caplog.text.count('several eV too weakly') == 1


def test_a_relaxation_by_a_force_field_that_never_saw_such_overlayers_is_warned_of(nickel, copper, caplog):
    """It ranks the candidates of best_of."""
    for slab, count in ((copper, 0), (nickel, 1)):
        SurfaceDiffusion(slab, 'O2', relax={'calculator': 'metal-oxide'}, logfile=None)
        assert caplog.text.count('the data of metal-oxide have no O on Ni') == count


def test_guidance_that_has_no_force_field_does_not_advise_a_wrong_one(nickel, copper):
    with pytest.raises(ValueError, match="pass calculator='chgnet'"):
        SurfaceDiffusion(nickel, 'O', guidance=True, logfile=None)
    with pytest.raises(ValueError, match="pass calculator='7net-mf-0'"):
        SurfaceDiffusion(copper, 'CuON', guidance=True, logfile=None)


def test_the_force_field_of_many_metals_where_nothing_better_is_installed(only, copper):
    from ase.build import add_adsorbate

    only()
    oxide = copper.copy()
    add_adsorbate(oxide, 'O', 1.2, 'fcc')
    with pytest.raises(ValueError, match='metal-oxide: its data have no Cu on Cu'):
        add_adsorbate(copper, 'Cu', 2.0, 'fcc')
        default_calculator([copper])
    assert default_calculator([oxide]) == 'metal-oxide'
    only('sevenn')
    assert default_calculator([oxide]) == '7net-mf-0'
    oxide.symbols[:] = 'Mn'
    oxide.symbols[-1] = 'O'
    with pytest.raises(ValueError, match='never saw Mn'):
        get_calculator('metal-oxide').get_potential_energy(oxide)


def test_guidance_takes_the_force_field_that_knows_the_slab(ag_slab, copper):
    names = [
        SurfaceDiffusion(slab, f'{m}2O', guidance=True, logfile=None).guidance.calculator
        for m, slab in (('Ag', ag_slab), ('Cu', copper))
    ]
    assert names == ['ag-o', 'metal-oxide']


def test_energies_of_the_force_field_are_relative_to_the_bare_substrate(copper):
    """So the same overlayer on two or three frozen layers has nearly the same energy, and a bare substrate none."""
    from ase.build import add_adsorbate

    calc, energies = get_calculator('metal-oxide'), []
    for layers in (2, 3):
        slab = fcc111('Cu', (2, 2, layers), a=3.6137, vacuum=8.0)
        slab.pbc = (True, True, False)
        slab.set_constraint(FixAtoms(range(len(slab))))
        assert calc.get_potential_energy(slab) == 0
        add_adsorbate(slab, 'O', 1.2, 'fcc')
        energies.append(calc.get_potential_energy(slab))
    assert -9 < energies[0] < -4  # half an O2 (4.5 eV an atom) and some eV of adsorption
    assert energies[1] == pytest.approx(energies[0], abs=0.1)


def test_without_any_that_fits_the_choices_are_named(only):
    only()
    with pytest.raises(ValueError, match="no calculator was named.*'7net-mf-0' after pip install sevenn or 'chgnet'.*emt"):
        default_calculator([bulk('Cu')])


def test_slabs_and_elements(only, copper):
    only('sevenn')
    ag = ag6_model()
    slab = ag[[atom.index for atom in ag if atom.index in set(ag.constraints[0].index)]]
    slab.set_constraint(FixAtoms(range(len(slab))))
    assert default_for_slab(slab, [47, 8]) == 'ag-o'
    assert default_for_slab(slab, [29]) == '7net-mf-0'
    assert default_for_slab(copper, [29]) == '7net-mf-0'


def test_relax_says_what_it_chose(only, tmp_path):
    only()
    log = tmp_path / 'log'
    result = relax(ag6_model(), steps=1, logfile=log)
    assert result.info['key_value_pairs']['relax_calculator'] == 'ag-o'
    assert log.read_text().startswith('relax: ag-o, BFGS')
    assert relax([]) == []
    with pytest.raises(ValueError, match='no calculator was named'):
        relax(bulk('Cu'))


def test_generators_and_searches_choose_when_they_are_made(only, ag_slab, copper, tmp_path):
    only()
    gen = SurfaceDiffusion(ag_slab, 'Ag2O', relax={'steps': 1}, logfile=None)
    assert gen.relax['calculator'] == 'ag-o'
    assert StructureSearch(gen, tmp_path / 's.db', workers=0, logfile=None).calculator == 'ag-o'
    assert RandomStructureSearch(ag_slab, {'Ag': (1, 2), 'O': 1}, database=tmp_path / 'r.db').calculator == 'ag-o'
    with pytest.raises(ValueError, match='no calculator was named'):
        RandomStructureSearch(copper, 'Cu2', database=tmp_path / 'r.db')
    with pytest.raises(ValueError, match='no calculator was named'):
        CrystalDiffusion(model='untrained', relax={'steps': 1})


@pytest.mark.parametrize('name', ['7net-mf-0', '7net-0', 'CHGNet', 'gpaw'])
def test_missing_packages_are_said_first(only, name, ag_slab, tmp_path):
    only()
    with pytest.raises(MissingDependency, match='pip install'):
        check_installed(name)
    for timeout in (None, 10.0):
        with pytest.raises(MissingDependency):
            relax(ag6_model(), name, timeout=timeout)
    with pytest.raises(MissingDependency):
        SurfaceDiffusion(ag_slab, 'Ag2O', relax={'calculator': name}, logfile=None)
    with pytest.raises(MissingDependency):
        RandomStructureSearch(ag_slab, 'Ag2O', name, database=tmp_path / 'r.db')
    with pytest.raises(MissingDependency):
        Campaign(tmp_path / 'c.db', list, name, workers=0)
    assert not list(tmp_path.iterdir())


def test_others_need_no_package(only):
    only()
    for calculator in ('emt', 'lj', 'ag-o', 'vasp', object()):
        check_installed(calculator)


def test_dask_and_lightning_are_looked_for_first(monkeypatch, hide, ag_slab, tmp_path):
    hide('distributed')
    hide('lightning')
    with pytest.raises(MissingDependency, match='dask'):
        Campaign(tmp_path / 'c.db', list, 'emt', workers=2)
    Campaign(tmp_path / 'c.db', list, 'emt', workers=0)
    gen = SurfaceDiffusion(ag_slab, 'Ag2O', logfile=None)
    monkeypatch.setattr(gen, '_read', lambda path: pytest.fail('read'))
    with pytest.raises(MissingDependency, match='lightning'):
        gen.fit('data.npz', tmp_path / 'model')
    assert not list(tmp_path.iterdir())


def test_the_command_line_chooses_and_says_so(tmp_path, monkeypatch, capsys, only):
    from ase_diffusion.cli.main import main

    only()
    monkeypatch.chdir(tmp_path)
    write('a.traj', ag6_model())
    write('c.traj', bulk('Cu'))
    assert main(['relax', 'a.traj', '--steps', '1']) == 0
    assert 'ag-o (by default)' in capsys.readouterr().out
    assert read('relaxed.traj').info['key_value_pairs']['relax_calculator'] == 'ag-o'
    assert main(['relax', 'c.traj']) == 2
    assert 'no calculator was named' in capsys.readouterr().err
