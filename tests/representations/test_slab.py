"""Slab: atoms to tensors and back, what it refuses, and the process that goes with it."""

import numpy as np
import pytest
import torch
from ase import Atom, Atoms
from ase.build import add_adsorbate, bcc111, bulk, fcc100, fcc110, fcc111, fcc211, molecule
from ase.constraints import FixAtoms, FixBondLength, FixedMode, FixSymmetry

from ase_diffusion import SurfaceDiffusion
from ase_diffusion.diffusion import SAMPLERS, NoisePerStructure
from ase_diffusion.representations import Slab
from ase_diffusion.representations.slab import (
    SlabTemplate,
    check_mobile_atoms,
    check_slab,
    frozen_mask,
    surface_height,
    top_contacts,
)
from ase_diffusion.search import RandomStructureSearch, random_start


def overlayer(size=(2, 2, 2), adatoms=3, seed=0, fixed_tags=(1, 2)):
    """An overlayer whose positions have no short decimal form, with tags, info and a velocity."""
    rng = np.random.default_rng(seed)
    atoms = fcc111('Ag', size, a=4.16 + np.pi / 1000, vacuum=9.0)
    atoms.pbc = (True, True, False)
    atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    atoms.info.pop('adsorbate_info', None)
    for k in range(adatoms):
        add_adsorbate(atoms, 'OAg'[k % 2 :: 2][:1].replace('A', 'Ag'), 1.0 + k, rng.uniform(0, 5, 2))
    atoms.set_tags([*atoms.get_tags()[: -adatoms or None], *[7] * adatoms])
    atoms.set_constraint(FixAtoms(mask=np.isin(atoms.get_tags(), fixed_tags)))
    atoms.info['name'] = f'slab {seed}'
    return atoms


IMAGES = {
    'one': [overlayer()],
    'three of different size': [overlayer(), overlayer((3, 2, 1), 1, 1), overlayer((1, 1, 3), 5, 2)],
    'mobile top layer': [overlayer(fixed_tags=(2,)), overlayer((2, 1, 3), 2, 3, fixed_tags=(2, 3))],
    'frozen atoms last': [overlayer()[::-1]],
}


@pytest.mark.parametrize('name', IMAGES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_decode_undoes_encode(name, dtype):
    images = IMAGES[name]
    if name == 'frozen atoms last':
        images[0].set_constraint(FixAtoms(mask=images[0].get_tags() != 7))
    before = [atoms.copy() for atoms in images]
    decoded = Slab(dtype=dtype).decode(Slab(dtype=dtype).encode(images))
    for old, atoms, template in zip(before, decoded, images, strict=True):
        frozen = frozen_mask(old)
        assert atoms is not template and template == old
        assert np.array_equal(atoms.positions[frozen], old.positions[frozen])  # bit by bit, in float64
        tolerance = 1e-5 if dtype == torch.float32 else 0
        assert np.abs(atoms.positions - old.positions).max() <= tolerance
        assert np.array_equal(atoms.numbers, old.numbers) and np.array_equal(atoms.get_tags(), old.get_tags())
        assert np.array_equal(atoms.cell[:], old.cell[:]) and np.array_equal(atoms.pbc, old.pbc)
        assert np.array_equal(frozen_mask(atoms), frozen)
        assert atoms.info == old.info


def test_batches_hold_mobile_atoms_first():
    images = IMAGES['three of different size']
    batch = Slab().encode(images, {'energy': [0.1, np.nan, 2]})
    mobile = [(~frozen_mask(a)).sum() for a in images]
    frozen = [frozen_mask(a).sum() for a in images]
    n = sum(mobile)
    assert batch.size == 3 and batch.fields['positions'].shape == (n, 3)
    assert torch.equal(batch.rows['positions'], torch.repeat_interleave(torch.arange(3), torch.tensor(mobile)))
    assert torch.equal(batch.extras['rows'][:n], batch.rows['positions'])
    assert batch.extras['rows'][n:].bincount().tolist() == frozen
    assert batch.extras['roles'].tolist() == [0] * n + [1] * sum(frozen)
    assert batch.extras['numbers'].tolist() == [z for a in images for z in a.numbers[~frozen_mask(a)]] + [
        z for a in images for z in a.numbers[frozen_mask(a)]
    ]
    assert batch.extras['pbc'] == (True, True, False)
    assert torch.allclose(batch.conditions['energy'], torch.tensor([0.1, np.nan, 2.0]), equal_nan=True)
    copied = batch.to('cpu')
    assert torch.equal(copied.extras['frozen'], batch.extras['frozen']) and copied.size == 3


def test_frozen_atoms_keep_their_bits_through_sampling():
    images = IMAGES['mobile top layer']
    representation = Slab((-1.0, 4.0))
    batch = representation.encode(images)

    def network(state, level, conditions):
        return {'positions': torch.zeros_like(state.fields['positions'])}

    out = SAMPLERS['ancestral'](network, Slab().process(), batch, steps=5, generator=NoisePerStructure([1, 2]))
    for old, atoms in zip(images, representation.decode(out), strict=True):
        frozen, top = frozen_mask(old), surface_height(old)
        assert np.array_equal(atoms.positions[frozen], old.positions[frozen])
        z = atoms.positions[~frozen, 2]
        assert (z > top - 1.0 - 1e-5).all() and (z < top + 4.0 + 1e-5).all()
        scaled = np.linalg.solve(old.cell[:].T, atoms.positions[~frozen].T).T[:, :2]
        assert scaled.min() > -1e-5 and scaled.max() < 1 + 1e-5
        assert not np.array_equal(atoms.positions[~frozen], old.positions[~frozen])


def test_the_window_starts_at_the_topmost_frozen_atom():
    atoms = overlayer(fixed_tags=(2,))  # the layer below the top one
    assert surface_height(atoms) == atoms.positions[atoms.get_tags() == 2, 2].max()
    window = Slab((0.5, 3.0), torch.float64).encode([atoms]).domains['positions'][1]
    assert window.low.unique().tolist() == pytest.approx([surface_height(atoms) + 0.5])
    assert window.high.unique().tolist() == pytest.approx([surface_height(atoms) + 3.0])


def test_a_direction_that_is_not_periodic_ends_in_mirrors():
    atoms = overlayer()
    atoms.pbc = (True, False, False)
    with pytest.raises(ValueError, match=r'periodic in the plane, got pbc=.*slab\.pbc = \(True, True, False\)'):
        check_slab(atoms)  # no structure to train on or to generate; encoding knows it all the same
    batch = Slab().encode([atoms])
    plane = batch.domains['positions'][0]
    assert plane.periodic == (True, False) and batch.extras['pbc'] == (True, False, False)
    process = Slab().process()
    for t in (0.3, 0.7, 1.0):
        xt, _ = process.add_noise(batch, torch.tensor([t]), NoisePerStructure([3]))
        fractional = plane._fractional(xt.fields['positions'][:, :2])
        assert fractional.min() > -1e-5 and fractional.max() < 1 + 1e-5
    # a little noise at the far side comes back, instead of going through to the other side
    edge = plane._cartesian(torch.full((3, 2), 0.999))
    moved = plane.confine(edge + plane._cartesian(torch.tensor([0.0, 0.01]).expand(3, 2)))
    assert plane._fractional(moved)[:, 1].tolist() == pytest.approx([0.991] * 3, abs=1e-4)


def test_structures_of_a_batch_share_pbc():
    other = overlayer(seed=1)
    other.pbc = (True, False, False)
    with pytest.raises(ValueError, match=r'same pbc; structure 1 has \[True, False, False\]'):
        Slab().encode([overlayer(), other])


def with_change(change):
    atoms = overlayer()
    change(atoms)
    return atoms


def nan_atom(atoms):
    atoms.positions[3] = np.nan


def set_pbc(atoms):
    atoms.pbc = True


def flat_cell(atoms):
    atoms.cell[2] = 0


def infinite_cell(atoms):
    atoms.cell[2, 2] = np.inf


def on_its_side(atoms):
    atoms.rotate(90, 'x', rotate_cell=True)


REFUSED = {
    'empty': (Atoms(cell=[4, 4, 20]), 'no atoms; build one'),
    'nothing fixed': (with_change(lambda a: a.set_constraint()), 'has no FixAtoms(.|\n)*set_constraint'),
    'other constraint': (with_change(lambda a: a.set_constraint(FixBondLength(0, 1))), 'has no FixAtoms'),
    'nan': (with_change(nan_atom), r'finite; atoms \[3\]'),
    'periodic along z': (with_change(set_pbc), r'not be periodic along z, got pbc=.*slab\.pbc = \(True, True, False\)'),
    'no third vector': (with_change(flat_cell), r'three independent vectors, got.*slab\.center\(vacuum=10, axis=2\)'),
    'infinite cell': (with_change(infinite_cell), 'three independent vectors'),
    'on its side': (with_change(on_its_side), r'lie in the xy plane.*, got \[\[.*rotate'),
    'molecule': (molecule('H2O'), 'three independent vectors'),
    'bulk': (bulk('Ag', cubic=True), 'not be periodic along z'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_slab_is_refused_with_the_law_and_the_way_out(name):
    atoms, text = REFUSED[name]
    with pytest.raises(ValueError, match=text):
        check_slab(atoms)


def test_the_hint_for_a_missing_third_vector_works():
    atoms = overlayer()
    atoms.cell[2] = 0
    with pytest.raises(ValueError, match='slab.center') as caught:
        check_slab(atoms)
    text = str(caught.value)
    exec(text[text.index('slab.center') : text.index(' makes one')], {'slab': atoms})
    check_slab(atoms)


@pytest.mark.parametrize('pbc', ['plane', (True, True, False), True])
@pytest.mark.parametrize('axis', [0, 1])
def test_vacuum_along_another_cell_vector_is_named_with_what_turns_it(axis, pbc):
    """Set pbc alone, as the law of pbc says, would put the overlayer beside the slab."""
    atoms, order = fcc111('Ag', (3, 3, 2), a=4.16, vacuum=9.0), [(2 - axis + k) % 3 for k in range(3)]
    atoms.set_constraint(FixAtoms(range(18)))
    fits = atoms.copy()
    atoms = Atoms(atoms.numbers, atoms.positions[:, order], cell=atoms.cell[:][order][:, order], constraint=atoms.constraints)
    atoms.pbc = [k != axis for k in range(3)] if pbc == 'plane' else pbc
    for use in (check_slab, lambda slab: random_start(slab, 'O', 0)):
        with pytest.raises(
            ValueError, match=f'third cell vector, here it is along the {("first", "second")[axis]} one'
        ) as caught:
            use(atoms)
    text = str(caught.value)
    exec(text[text.index('slab.set_cell') : text.index(' turn it')], {'slab': atoms, 'numpy': np})
    check_slab(atoms)
    assert np.allclose(atoms.cell.cellpar(), fits.cell.cellpar()) and np.allclose(np.ptp(atoms.positions[:, 2]), 4.16 / 3**0.5)


@pytest.mark.parametrize('make', [FixSymmetry, lambda slab: FixedMode(np.ones((len(slab), 3)))])
def test_constraints_of_all_atoms_cannot_take_more(make):
    slab = fcc111('Ag', (2, 2, 2), a=4.16, vacuum=8)
    slab.set_constraint([FixAtoms(range(8)), make(slab)])
    uses = (lambda: SurfaceDiffusion(slab, 'O', logfile=None), lambda: random_start(slab, 'O', 0))
    for use in (*uses, lambda: RandomStructureSearch(slab, 'O', 'emt', logfile=None)):
        with pytest.raises(ValueError, match=r'Fix.* is one of all its atoms; take it off: slab\.set_constraint') as caught:
            use()
    exec(str(caught.value).partition('take it off: ')[2], {'slab': slab})
    for use in uses:
        use()


def test_free_atoms_below_the_window_are_refused():
    slab = fcc111('Ag', (2, 2, 3), a=4.16, vacuum=8)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == 2))  # the middle layer
    with pytest.raises(ValueError, match=r'atoms \[0, 1, 2, 3\] of the slab lie below'):
        check_mobile_atoms(slab, 0.0)
    check_mobile_atoms(slab, -3.0)
    for model in (None, 'untrained'):
        with pytest.raises(ValueError, match='lie below'):
            SurfaceDiffusion(slab, 'O', model=model, generate_slab=True, logfile=None)
    SurfaceDiffusion(slab, 'O', height=(-3.0, 5.0), generate_slab=True, logfile=None)
    SurfaceDiffusion(slab, 'O', logfile=None)  # all slab atoms are held
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == 1))  # the upper layer
    for generate_slab in (False, True):
        with pytest.raises(ValueError, match='turn the slab over'):
            SurfaceDiffusion(slab, 'O', generate_slab=generate_slab, logfile=None)


def test_only_atoms_are_slabs():
    with pytest.raises(TypeError, match=r'must be an ase\.Atoms, got str'):
        check_slab('POSCAR')


@pytest.mark.parametrize('name', [name for name in IMAGES if name != 'frozen atoms last'])
def test_slabs_pass(name):
    for atoms in IMAGES[name]:
        check_slab(atoms)


def test_several_fixatoms_count_together():
    atoms = overlayer()
    atoms.set_constraint([FixAtoms([0, 1]), FixAtoms(mask=[False] * 4 + [True] * 2 + [False] * 5), FixBondLength(8, 9)])
    assert np.nonzero(frozen_mask(atoms))[0].tolist() == [0, 1, 4, 5]


def test_todict_tells_the_window():
    assert Slab((0.5, 3.0)).todict() == {'name': 'Slab', 'height': [0.5, 3.0]}


def frozen(build, metal, size, **options):
    """A frozen slab with one adatom of its own and one oxygen."""
    slab = build(metal, size, vacuum=8.0, **options)
    slab.pbc = (True, True, False)
    n = len(slab)
    top = slab.positions[-1]
    slab.extend(Atoms([metal, 'O'], [top + [0, 0, 2.2], top + [0, 0, 4.0]]))
    slab.set_constraint(FixAtoms(indices=range(n)))
    return slab


@pytest.mark.parametrize(('build', 'size', 'contacts'), [(fcc111, (1, 1, 2), 6), (fcc100, (2, 2, 2), 4), (fcc110, (2, 3, 3), 2)])
def test_facets_are_told_by_the_neighbors_within_the_top_layer(build, size, contacts):
    for metal in ('Cu', 'Pt'):
        assert top_contacts(frozen(build, metal, size)) == contacts


def test_what_a_model_never_saw_is_named():
    data = {'mobile_elements': [8, 29, 78], 'substrate_elements': [29, 78], 'described': True}
    data['systems'] = {'Cu+O on Cu, 6': 5, 'Cu+O on Cu, 4': 1, 'O+Pt on Pt, 6': 3}
    copper, size = frozen(fcc111, 'Cu', (2, 2, 2)), (2, 2, 3)
    assert SlabTemplate(copper).news(data) == ''  # two atoms over four sites of (111), of 3 ** 0.5 / 2 squared distances each
    assert SlabTemplate(copper).news(data | {'coverage': [0.2, 0.6]}) == ''
    news = SlabTemplate(copper).news(data | {'coverage': [0.1, 0.4]})
    assert news == '0.50 mobile atoms for each atom of the top layer (only 0.09 to 0.35)'
    nickel = frozen(fcc110, 'Ni', size)
    facets = '(111), (0001): 6; (100), bcc (110): 4; (110): 2; bcc (100): 0'
    facet = f'a top layer whose atoms have 2 neighbors in it (only {{}}; {facets})'
    assert SlabTemplate(nickel).news(data) == 'Ni (only Cu, O, Pt), nor ' + facet.format('4, 6')
    assert SlabTemplate(frozen(fcc110, 'Cu', size)).news(data) == facet.format('4, 6')
    platinum = SlabTemplate(frozen(fcc100, 'Pt', (2, 2, 2)))  # a facet that it knows of copper
    assert platinum.news(data) == 'O+Pt on Pt with ' + facet.replace('2 neighbors', '4 neighbors').format('6')
    copper.symbols[-2] = 'Pt'
    assert SlabTemplate(copper).news(data) == 'O+Pt on Cu (only Cu+O on Cu; O+Pt on Pt)'
    assert SlabTemplate(copper).news({}) == ''
    SlabTemplate(frozen(fcc111, 'Ni', (2, 2, 2))).check_known(data, 'the model')  # a metal, known by its descriptors
    copper.symbols[-1] = 'N'
    with pytest.raises(ValueError, match='the model never saw N as mobile atoms; it knows O, Cu, Pt'):
        SlabTemplate(copper).check_known(data, 'the model')


def test_a_substrate_that_carries_single_atoms_is_named():
    data = {'mobile_elements': [8, 29], 'substrate_elements': [29], 'systems': {'Cu+O on Cu, 6': 5}}
    slab = fcc111('Cu', (3, 3, 2), vacuum=8.0)
    slab.append(Atom('Cu', slab.positions[-1] + [0, 0, 2.0]))
    slab.set_constraint(FixAtoms(indices=range(19)))
    slab.extend(Atoms('CuO', [[0, 0, 16.0], [2, 0, 16.0]]))
    assert r'single atoms on it ([18], and the window is above these' in SlabTemplate(slab).news(data)
    for build, metal, size in ((bcc111, 'Fe', (2, 2, 4)), (fcc110, 'Cu', (2, 3, 3)), (fcc211, 'Cu', (3, 3, 2))):
        assert 'single atoms' not in SlabTemplate(frozen(build, metal, size)).news(data)


def test_thin_and_strained_substrates_are_news_and_thick_ones_are_not():
    data = {'mobile_elements': [8, 29], 'substrate_elements': [29], 'systems': {'Cu+O on Cu, 6': 5}}
    data |= {'thickness': [0.816, 0.816], 'stretch': [1.0, 1.01]}

    def news(layers, **options):
        return SlabTemplate(frozen(fcc111, 'Cu', (2, 2, layers), **options)).news(data)

    assert news(2) == news(3) == news(6) == news(2, a=3.7) == ''
    assert news(1) == 'a substrate 0.0 A thick (only 2.08 or more)'
    assert news(2, a=4.0) == 'neighbors in the substrate 2.83 A apart (only 2.55 to 2.58)'


def test_adsorbates_of_the_slab_are_told_from_its_compounds():
    data = {'mobile_elements': [8, 29], 'substrate_elements': [29], 'described': True}
    copper = frozen(fcc111, 'Cu', (2, 2, 2))
    copper.set_constraint(FixAtoms(indices=[*range(8), 9]))
    with pytest.raises(ValueError, match=r'never saw O as substrate atoms.*atoms \[9\] lie on the slab: take them off'):
        SlabTemplate(copper).check_known(data, 'the model', '; or train')
    copper.symbols[0] = 'O'
    with pytest.raises(ValueError, match='never saw O as substrate atoms; it knows Cu; or train'):
        SlabTemplate(copper).check_known(data, 'the model', '; or train')
