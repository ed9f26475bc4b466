"""A keyword that no recipe has is named before any work, with those that exist."""

import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms

from ase_diffusion import CrystalDiffusion, CrysTensDiffusion, PointCloudDiffusion, SurfaceDiffusion, ZeoliteDiffusion
from ase_diffusion.representations import Crystal
from ase_diffusion.training.recipe import train_method
from ase_diffusion.training.surface import train_forcefield
from ase_diffusion.training.surface_data import Overlayers


def overlayer():
    atoms = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8)
    add_adsorbate(atoms, 'O', 1.2, 'fcc')
    atoms.set_constraint(FixAtoms(indices=range(8)))
    return atoms


def surface():
    return SurfaceDiffusion(overlayer()[:8], 'O', model='untrained', logfile=None)


METHODS = {
    'surface': surface,
    'crystal': lambda: CrystalDiffusion(model='untrained', logfile=None),
    'pointcloud': lambda: PointCloudDiffusion(['Na', 'Cl'], model='untrained', logfile=None),
    'crystens': lambda: CrysTensDiffusion(model='untrained', logfile=None),
    'cascade': lambda: CrysTensDiffusion(network='cascade', logfile=None),
    'gan': lambda: CrysTensDiffusion(network='gan', logfile=None),
    'zeolite': lambda: ZeoliteDiffusion(model='untrained', source='network', logfile=None),
}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', ['epochs', 'header'])
def test_fit_names_what_exists(method, name, tmp_path):
    images = [overlayer() if method == 'surface' else bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)]
    with pytest.raises(TypeError, match=rf"train_\w+ has no option '{name}'; it has batch_size, .*lr, minutes, .*settings|steps"):
        METHODS[method]().fit(images, tmp_path / 'out', steps=1, **{name: 2})
    assert not (tmp_path / 'out').exists()


SETTINGS = {  # one that exists, one of the recipe
    'crystal': ('heads', 'features'),
    'pointcloud': ('pair_width', 'blocks'),
    'crystens': ('waves', 'features'),
    'cascade': ('multipliers', 'blocks'),
    'gan': ('latent', 'width'),
    'zeolite': ('attention', 'conditions'),
}


@pytest.mark.parametrize('method', SETTINGS)
def test_settings_of_a_network_are_named_before_any_work(method, tmp_path):
    images, (known, own) = [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)], SETTINGS[method]
    for settings in ({'headz': 2}, {'headz': 2, known: 2}, {own: 8}):
        with pytest.raises(TypeError, match=rf"settings of a new network are .*\b{known}\b.*; got '(headz|{own})'"):
            METHODS[method]().fit(images, tmp_path / 'out', steps=1, settings=settings)
    with pytest.raises(TypeError, match='settings is a dict'):
        METHODS[method]().fit(images, tmp_path / 'out', steps=1, settings=['heads'])
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('method', 'wrong'), [('crystal', {'heads': 0}), ('crystal', {'hidden': 2.5}), ('crystens', {'waves': -1})]
)
def test_settings_that_count_are_whole_numbers(method, wrong, tmp_path):
    images = [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)]
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} is an integer, [01] or more'):
        METHODS[method]().fit(images, tmp_path / 'out', steps=1, settings=wrong)


def test_settings_of_the_other_network_are_refused(tmp_path):
    images = [bulk('NaCl', 'rocksalt', a=5.0 + 0.1 * k) for k in range(4)]
    for method, options in (
        ('pointcloud', {'network': 'unet', 'settings': {'heads': 2}}),
        ('zeolite', {'settings': {'network': 'unet', 'features': 8}}),
    ):
        with pytest.raises(TypeError, match='settings of a new network are'):
            METHODS[method]().fit(images, tmp_path / 'out', steps=1, **options)
    for method in ('surface', 'crystal', 'crystens', 'zeolite'):
        data = [overlayer()] if method == 'surface' else images
        with pytest.raises(TypeError, match='network is one to train further'):
            METHODS[method]().fit(data, tmp_path / 'out', steps=1, network='unet')


def test_recipes_name_what_exists(tmp_path):
    with pytest.raises(TypeError, match="train_forcefield has no option 'epochs'; it has .*max_force"):
        train_forcefield(Overlayers.from_atoms([overlayer()]), tmp_path, steps=1, epochs=3)
    with pytest.raises(TypeError, match="train_method has no option 'epochs'; it has .*density"):
        train_method(Crystal([1]), lambda conditions: None, [], tmp_path, steps=1, epochs=3)


def test_training_without_data_names_what_exists_before_any_relaxation(tmp_path):
    with pytest.raises(TypeError, match="train_surface has no option 'epochs'; it has .*features"):
        surface().fit_with_calculator('emt', tmp_path / 'out', options={'epochs': 3})
    with pytest.raises(TypeError, match="train_surface has no option 'steps'"):
        surface().fit_with_calculator('emt', tmp_path / 'out', options={'steps': 3})
    with pytest.raises(TypeError, match="fit_with_calculator has no option 'features'; it has buffer, .*temperature"):
        surface().fit_with_calculator('emt', tmp_path / 'out', features=8)
    assert not (tmp_path / 'out').exists()
