"""The generator of CrysTens images: trained for seconds, saved, sampled; arguments that make no sense."""

import logging

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_diffusion.diffusion import Batch
from ase_diffusion.errors import GenerationFailed
from ase_diffusion.generators.crystal.site_bank import SiteBank
from ase_diffusion.generators.crystens import MERGED, CrysTensDiffusion
from ase_diffusion.representations import Failure
from ase_diffusion.representations.cells import space_group_of
from ase_diffusion.training.checkpoint import load_checkpoint

TINY = dict(
    features=16, blocks=1, settings=dict(heads=2, pair_hidden=8, pair_width=8, waves=1, shells=4), steps=3, progress=False
)


def crystals():
    """Rock salt and cesium chloride structures with an energy each."""
    images = []
    for k, (a, b) in enumerate([('Na', 'Cl'), ('K', 'Cl'), ('Li', 'F'), ('Mg', 'O'), ('Cs', 'Cl'), ('Cs', 'Br')]):
        lattice = 'rocksalt' if k < 4 else 'cesiumchloride'
        atoms = bulk(a + b, lattice, a=5.0 + 0.1 * k if k < 4 else 4.2)
        atoms.info['key_value_pairs'] = {'formation_energy': -2.0 + 0.1 * k}
        images.append(atoms)
    return images


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """The path of a model that was trained for three steps."""
    gen = CrysTensDiffusion('untrained', logfile=None)
    gen.fit(crystals(), batch_size=4, **TINY)
    return gen.save(tmp_path_factory.mktemp('crystens') / 'tiny.safetensors')


def generator(model, **options):
    return CrysTensDiffusion(model, **dict(rng=0, steps=3, logfile=None, validate=False, batch_size=4) | options)


def test_the_header_says_what_the_model_knows(model):
    networks, header = load_checkpoint(model)
    assert header['kind'] == 'crystens' and set(header['conditions']) == {'formation_energy', 'space_group', 'elements'}
    assert set(header['sizes']) == {'2', '8'} and sum(header['sizes'].values()) == header['data']['structures'] == 5
    assert list(networks['denoiser'].settings['shift']) == header['representation']['shift']


def test_images_become_crystals_with_labels(model):
    images = generator(model).sample(3, natoms=5, space_group=225, elements=['Na', 'Cl'], formation_energy=-1.8)
    for atoms in images:
        notes = atoms.info['key_value_pairs']
        assert atoms.pbc.all() and 1 <= len(atoms) <= 5 and 1 <= notes['space_group'] <= 230
        assert notes['condition_elements'] == 'Na-Cl' and notes['condition_natoms'] == 5
        assert atoms.info['data']['diffusion']['type'] == 'crystens-diffusion'


def test_no_other_elements_than_asked_for(model):
    """A network of three steps knows no chemistry; guidance leaves the set as it is."""
    for scale in (0.0, 1.0, 2.0):
        images = generator(model, steps=12).sample(4, elements=['Na', 'Cl', 'Br'], guidance_scale=scale)
        assert all(set(atoms.get_chemical_symbols()) <= {'Na', 'Cl', 'Br'} for atoms in images)


def test_all_elements_occur_where_it_is_asked_for(model):
    """In natoms=3 too, where every atom has to be another one; one set for all of a call, at any batch size."""
    asked = dict(elements=['Na', 'Cl', 'Br'], natoms=3)
    free = generator(model, steps=12).sample(6, **asked)
    assert not all(len(set(atoms.numbers)) == 3 for atoms in free)
    for size in (2, 6):
        gen = generator(model, steps=12, batch_size=size, all_elements=True)
        images = gen.sample(6, **asked)
        assert all(len(set(atoms.numbers)) == 3 for atoms in images)
        assert sum(gen.failures.values()) <= 3  # few are rejected: their chances are those given that all occur
        assert images[0].info['data']['diffusion']['all_elements'] is True
    assert gen.sample()  # nothing is asked for


def test_an_element_that_is_missing_is_a_counted_reason(model):
    gen = generator(model, all_elements=True)
    atoms = bulk('NaCl', 'rocksalt', a=5.64)
    atoms.info['key_value_pairs'] = {'condition_elements': 'Na-Cl'}
    assert gen._reason_to_reject(atoms) is None
    atoms.info['key_value_pairs'] = {'condition_elements': 'Na-Cl-O'}
    assert gen._reason_to_reject(atoms) == 'no O'


def test_where_no_elements_are_asked_for_none_is_missing(model):
    gen = generator(model, all_elements=True)
    assert gen._reason_to_reject(bulk('NaCl', 'rocksalt', a=5.64)) is None


def test_an_untrained_one_says_so():
    with pytest.raises(ValueError, match='this generator is untrained; call gen.fit'):
        CrysTensDiffusion('untrained', logfile=None).sample(elements=['Na'], space_group=225)
    with pytest.raises(ValueError, match="no model with network='wgan' ships"):
        CrysTensDiffusion(network='wgan', logfile=None).sample()


def test_all_elements_have_a_sampler_of_their_own(model):
    gen = CrysTensDiffusion(model, all_elements=True, logfile=None)
    assert (gen.sampler, gen.steps) == ('renoised_ancestral', 25)
    assert CrysTensDiffusion(model, all_elements=True, steps=3, sampler='ancestral', logfile=None).sampling['steps'] == 3
    assert CrysTensDiffusion(model, all_elements=True, sampler='ancestral', logfile=None).sampler == 'ancestral'
    assert CrysTensDiffusion(model, logfile=None).steps == 15
    gen._reason_to_reject = lambda atoms: 'never'
    gen.steps, gen.maxtries = 3, 1
    with pytest.raises(GenerationFailed, match='take CrystalDiffusion'):
        gen.sample(elements=['Na', 'Cl'])


def test_sizes_that_are_drawn_hold_all_elements(model):
    """With sites and without: 2 or 8 atoms in the data, and three elements."""
    for sites in (True, False):
        gen = generator(model, all_elements=True, sites=sites)
        assert {gen._drawn_for(seed, None, None, 3)[0] for seed in range(20)} == {8}
    gen = CrysTensDiffusion(rng=0, logfile=None, all_elements=True)
    bank = gen._known_sites()
    assert all(bank.holds(4, int(gen._drawn_for(seed, 4, None, 3)[1]), 3) for seed in range(20))
    for elements in (6, 7):  # of few known crystals
        assert all(
            bank.holds(n, int(group), elements) for n, group in (gen._drawn_for(k, None, None, elements) for k in range(20))
        )
    drawn = {gen._drawn_for(seed, None, None, 8) for seed in range(20)}  # one crystal alone has eight
    assert len(drawn) > 10 and all(bank.most_orbits(n, int(group)) >= 8 for n, group in drawn)
    for seed in range(20):  # sites can have seven elements where no crystal of the size has
        n, group = gen._drawn_for(seed, 8, None, 7)
        assert not bank.holds(n, int(group), 7) and bank.most_orbits(n, int(group)) >= 7


@pytest.mark.parametrize('asked', [{'natoms': 8, 'space_group': 227}, {'natoms': 2, 'space_group': 194}])
def test_sites_that_cannot_have_all_elements_are_named_before_the_work(asked):
    gen = CrysTensDiffusion(rng=0, logfile=None, all_elements=True)
    with pytest.raises(ValueError, match='sites=False'):
        gen.check_conditions({'elements': ['Si', 'C', 'O'], **asked})


@pytest.mark.parametrize(
    'asked', [{'elements': ['Na', 'Cl'], 'natoms': 1}, {'elements': ['Li', 'O', 'F', 'Na', 'Mg', 'Cl', 'K', 'Br', 'Cs']}]
)
def test_no_more_elements_than_can_all_occur(model, asked):
    with pytest.raises(ValueError, match='with all_elements at most'):
        generator(model, all_elements=True).sample(**asked)


def test_the_same_seed_gives_the_same_crystals_at_any_batch_size(model):
    one, two = (generator(model, batch_size=size).sample(3) for size in (1, 3))
    for a, b in zip(one, two, strict=True):
        assert a.get_chemical_formula() == b.get_chemical_formula()
        assert a.cell.cellpar() == pytest.approx(b.cell.cellpar(), abs=1e-2)


def test_raw_images_have_the_layout_of_the_paper(model):
    images = generator(model).sample_images(5, natoms=3)
    assert images.shape == (5, 4, 64, 64) and np.isfinite(images).all()
    assert (images[:, :, 0, 12:15] >= 1).all() and not images[:, :, :, 15:].any() and not images[:, :, :12, :12].any()
    assert images[:, :, :12, 12:] == pytest.approx(images[:, :, 12:, :12].transpose(0, 1, 3, 2))
    assert images[:, 1:, 12:, 12:] == pytest.approx(-images[:, 1:, 12:, 12:].transpose(0, 1, 3, 2), abs=1e-5)


def test_numbers_of_atoms_come_from_the_data(model):
    gen = generator(model)
    sizes = {int(n) for n in gen.header['sizes']}
    assert {gen._drawn(seed, None, None) for seed in range(50)} == {(2, '221'), (8, '225')}
    assert sizes == {2, 8} and {gen._drawn(seed, None, '221') for seed in range(9)} == {(2, '221')}
    assert gen._drawn(0, 8, None) == (8, '225') and gen._drawn(0, 5, None) == (5, None) and gen._drawn(0, 5, '225') == (5, '225')
    del gen.header['groups']
    assert {gen._drawn(seed, None, None) for seed in range(50)} == {(2, None), (8, None)}


@pytest.mark.parametrize('network', ['cascade', 'wgan', 'gan'])
def test_the_networks_of_the_paper_train_save_and_sample(network, tmp_path):
    gen = CrysTensDiffusion(network=network, logfile=None, rng=0)
    gen.fit(crystals(), tmp_path / 'run', batch_size=4, features=8, steps=2, progress=False)
    path = gen.save(tmp_path / 'tiny.safetensors')
    assert load_checkpoint(path)[1]['variant'] == network == gen.network_kind
    steps = {'steps': 2} if network == 'cascade' else {}
    one, two = (
        CrysTensDiffusion(path, rng=3, logfile=None, batch_size=size, denoising_trajectory=film, **steps).sample_images(3)
        for size, film in ((1, None), (3, tmp_path / 'film.traj'))
    )
    assert one.shape == (3, 4, 64, 64) and np.isfinite(one).all() and one == pytest.approx(two, rel=1e-3, abs=1e-2)
    assert not np.allclose(one[0], one[1])
    made = CrysTensDiffusion(path, rng=3, logfile=None, batch_size=2, validate=False, **steps).sample(3)
    again = CrysTensDiffusion(path, rng=8, logfile=None, validate=False, **steps).again(made[1])
    assert np.array_equal(again.positions, made[1].positions)
    with pytest.raises(ValueError, match=f"network='{network}', not 'diffusion'"):
        CrysTensDiffusion(path, network='diffusion')
    for asked in (dict(natoms=8), dict(space_group=225), dict(elements=['Na', 'Cl']), dict(guidance_scale=2.0)):
        with pytest.raises(TypeError, match='knows no conditions'):
            gen.sample(1, **asked)


def test_a_cascade_learns_numbers_and_no_classes(tmp_path):
    gen = CrysTensDiffusion(network='cascade', logfile=None, rng=0, steps=2, validate=False)
    with pytest.raises(ValueError, match='conditions of U-Nets are numbers'):
        gen.fit(crystals(), batch_size=4, features=8, steps=1, conditions=['space_group'], progress=False)
    gen.fit(crystals(), batch_size=4, features=8, steps=1, conditions=['formation_energy'], progress=False)
    assert 'formation_energy' in gen.check_conditions({'formation_energy': -1.8, 'guidance_scale': 2.0})
    with pytest.raises(TypeError, match='knows formation_energy, not space_group'):
        gen.sample(1, space_group=225)


def test_a_generator_in_one_pass_takes_no_steps_and_trains_from_scratch(tmp_path):
    gen = CrysTensDiffusion(network='wgan', logfile=None)
    gen.fit(crystals(), batch_size=4, features=8, steps=1, progress=False)
    path = gen.save(tmp_path / 'wgan.safetensors')
    with pytest.raises(ValueError, match='leave out steps'):
        CrysTensDiffusion(path, steps=20, logfile=None)
    with pytest.raises(ValueError, match='from scratch'):
        CrysTensDiffusion(path, logfile=None).fit(crystals(), steps=1)
    with pytest.raises(ValueError, match='no conditions'):
        CrysTensDiffusion(network='gan', logfile=None).fit(crystals(), steps=1, conditions=['space_group'])


def test_an_image_without_atoms_is_a_counted_failure(model, monkeypatch):
    gen = generator(model, maxtries=1)
    empty = torch.full((4, 4, 64, 64), -1.0)
    monkeypatch.setattr(gen, '_denoise', lambda batch, *args, **options: Batch.dense('image', empty[: batch.size]))
    with pytest.raises(GenerationFailed):
        gen.sample(1)
    assert gen.failures == {'no atom is present': 2}
    assert isinstance(gen.candidates([1])[0], Failure)


def test_fewer_atoms_than_asked_for_are_rejected(model):
    gen = generator(model, validate=True)
    atoms = bulk('Cu', cubic=True)
    atoms.info['key_value_pairs'] = {'condition_natoms': 4.0}
    assert gen._reason_to_reject(atoms) is None
    assert gen._reason_to_reject(atoms[:3]) == MERGED
    atoms.set_scaled_positions(np.zeros((4, 3)))
    assert 'closer' in gen._reason_to_reject(atoms)


@pytest.mark.parametrize(
    ('conditions', 'error', 'match'),
    [
        (dict(space_group=0), ValueError, '1 to 230; got 0'),
        (dict(space_group='Fm-3m'), ValueError, "space_group is a number of the International Tables, 1 to 230; got 'Fm-3m'"),
        (dict(natoms=53), ValueError, 'at most 52'),
        (dict(natoms=0), ValueError, 'natoms'),
        (dict(elements=['Na', 'Xx']), ValueError, 'Xx'),
        (dict(band_gap=1.0), TypeError, 'natoms is the number of atoms'),
    ],
)
def test_conditions_without_meaning_are_refused(model, conditions, error, match):
    with pytest.raises(error, match=match):
        generator(model).sample(**conditions)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(network='unet'), 'network is one of'),
        (dict(network=['gan']), 'network is one of'),
        (dict(natoms=60), 'at most 52'),
        (dict(symmetrize=-0.1), 'tolerance'),
        (dict(min_distance_ratio=2.0), '0 to 1.2'),
        (dict(best_of=2), 'stoich'),
        (dict(network='gan', all_elements=True), "network='diffusion'"),
    ],
)
def test_options_without_meaning_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        CrysTensDiffusion('untrained', logfile=None, **options)


def test_without_a_model_it_says_so():
    for network in ('cascade', 'gan'):
        with pytest.raises(ValueError, match=f"network='{network}' ships: train one"):
            CrysTensDiffusion(network=network, logfile=None).sample()


def test_a_fitted_model_trains_on(model):
    gen = generator(model)
    gen.fit(crystals(), batch_size=4, steps=2, progress=False)
    assert gen.model == 'fitted' and len(gen.sample(1)) == 1


def test_too_large_crystals_are_left_out_and_named():
    gen = CrysTensDiffusion('untrained', logfile=None)
    large = bulk('Cu', cubic=True).repeat((3, 3, 2))
    large.rattle(0.1, seed=0)
    with pytest.raises(
        ValueError, match=r'structure 0 \(Cu72\): an image holds at most 52 atoms, those of the conventional cell'
    ):
        gen.fit([large], **TINY)


def test_crystals_have_the_space_group_of_given_sites(model):
    """A network of three steps knows nothing, yet all symmetry is there; without given sites there is none."""
    gen = generator(model, steps=12)
    assert gen.header['sites'] and gen.sites and gen.todict()['sites']
    for number, natoms in ((221, 5), (62, 20), (166, 12), (14, 12)):
        for atoms in gen.sample(2, natoms=natoms, space_group=number):
            assert len(atoms) <= natoms and space_group_of(atoms, 0.01) >= number or len(atoms) < natoms
    free = generator(model, sites=False).sample(2, natoms=5, space_group=221)
    assert all(space_group_of(atoms, 0.01) < 16 for atoms in free)


def rutile():
    return crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90])


def test_sites_come_from_given_crystals_alone():
    """Size and space group, too, where nothing is asked for; a structure is made again where they are given again."""
    gen = CrysTensDiffusion(sites=[rutile(), bulk('NaCl', 'rocksalt', a=5.6)], rng=0, steps=10, logfile=None, validate=False)
    assert {gen._drawn_for(seed, None, None, 1) for seed in range(20)} == {(6, '136'), (8, '225')}
    assert len(gen._known_sites().bank) == 2
    made = gen.sample(2, natoms=6)
    for atoms in made:
        f = atoms.get_scaled_positions()
        assert np.allclose(f[np.abs(f - [0.5, 0.5, 0.5]).max(1).argmin()], 0.5, atol=1e-3)
    again = CrysTensDiffusion.from_record(made[1], sites=[rutile(), bulk('NaCl', 'rocksalt', a=5.6)]).again(made[1])
    assert np.array_equal(again.positions, made[1].positions)
    with pytest.raises(ValueError, match='it had sites .*given'):
        CrysTensDiffusion.from_record(made[1]).again(made[1])


def test_sites_of_a_file_and_bad_crystals_among_them(model, caplog, tmp_path):
    gen = generator(model, sites=[Atoms('Ti'), rutile()])
    assert len(gen._known_sites().bank) == 1 and '1 of 2 structures of the sites' in caplog.text
    rutile().write(tmp_path / 'mine.traj')
    for path in (tmp_path / 'mine.traj', str(tmp_path / 'mine.traj')):
        gen = generator(model, sites=path)
        assert len(gen._known_sites().bank) == 1 and gen.todict()['sites'] == str(path)


def test_sites_that_are_none_are_refused(model):
    with pytest.raises(TypeError, match='sites is True'):
        generator(model, sites=3)
    with pytest.raises(ValueError, match='crystals, one or more'):
        generator(model, sites=[])
    networks, header = load_checkpoint(model)
    assert header['sites'] is True and networks['denoiser'].settings['deviation'][0] == pytest.approx(4.0)


def test_the_shipped_model_makes_crystals_of_the_asked_space_group():
    gen = CrysTensDiffusion(rng=0, steps=10, logfile=None)
    assert gen.model == 'crystens-mp' and gen.sites
    for atoms in gen.sample(2, space_group=225):  # a supergroup where equal elements came to lie on several orbits
        assert space_group_of(atoms, 0.1) >= atoms.info['key_value_pairs']['space_group'] == 225
        assert atoms.info['key_value_pairs']['min_distance_ratio'] >= gen.min_distance_ratio == 0.7 and len(atoms) <= 52


def test_sites_have_as_many_elements_as_asked_for():
    """Where there are some: in 221, one atom cannot have three elements, and five can."""
    bank = SiteBank.coerce(True)
    assert bank.holds(5, 221, 3) and not bank.holds(1, 221, 2)
    gen = CrysTensDiffusion(rng=1, logfile=None)
    sizes = {gen._drawn_for(seed, None, '221', 3)[0] for seed in range(20)}
    assert 5 in sizes and all(bank.holds(natoms, 221, 3) for natoms in sizes)
    found = bank.draw(5, 221, np.random.default_rng(0), 3)
    assert len(found) == 5 and len(set(found.numbers)) == 3
    assert len(bank.draw(5, 221, np.random.default_rng(0), 40)) == 5  # fewer elements where there are none with so many


def test_a_size_that_no_crystal_of_the_group_has_is_said(caplog):
    gen = CrysTensDiffusion(logfile=None)
    with caplog.at_level(logging.WARNING):
        gen.check_conditions({'space_group': 225, 'natoms': 8})
        assert 'no known crystal' not in caplog.text
        gen.check_conditions({'space_group': 225, 'natoms': 3})
    assert 'no known crystal of 3 atoms is in space group 225' in caplog.text
