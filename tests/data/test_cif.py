"""The reader of CIF: all settings of space groups, and files that define no crystal or not the one that they say."""

import gzip
import io
import logging
import warnings

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_diffusion.data.cif import read_cif
from ase_diffusion.data.cif_settings import find_hall, find_settings, operations_of, parse_operation
from ase_diffusion.utils.unread import is_unread

STANDARD = {3: 3, 81: 14, 90: 15, 212: 43, 292: 62, 304: 64, 430: 143, 432: 145, 439: 150, 441: 152, 463: 169, 465: 171, 471: 177}
CELL = ('length_a', 'length_b', 'length_c', 'angle_alpha', 'angle_beta', 'angle_gamma')
SITES = 'loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n'


def spglib():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import spglib
    return spglib


def cif(cell, rows, *more, head=SITES, name='x'):
    lines = [f'data_{name}', *(f'_cell_{key} {value}' for key, value in zip(CELL, cell, strict=True)), *more]
    return '\n'.join(lines) + '\n' + head + rows + '\n'


def group(symbol, number=None):
    return f"_symmetry_space_group_name_H-M '{symbol}'" + (f'\n_symmetry_Int_Tables_number {number}' if number else '')


def written(atoms):
    file = io.BytesIO()
    ase.io.write(file, atoms, format='cif')
    return file.getvalue().decode()


def only(text):
    [atoms] = read_cif(text, 'x.cif')
    return atoms


def reason(text):
    atoms = only(text)
    assert is_unread(atoms) and not len(atoms)
    return atoms.info['unread']


def same(one, other, tolerance=0.02):
    """Return whether two crystals of one cell have the same atoms."""
    if sorted(one.numbers) != sorted(other.numbers):
        return False
    apart = one.get_scaled_positions()[:, None] - other.get_scaled_positions()
    apart = np.linalg.norm((apart - np.round(apart)) @ one.cell.array, axis=-1)
    apart[one.numbers[:, None] != other.numbers] = np.inf
    return (apart.min(1) < tolerance).all() and len(set(apart.argmin(1))) == len(one)


def cell_of(number):
    """Return a cell with the symmetry of a group number, b unique."""
    if number < 3:
        return (5, 6, 7, 80, 85, 95)
    if number < 16:
        return (5, 6, 7, 90, 90, 90)  # fits every unique axis
    if number < 75:
        return (5, 6, 7, 90, 90, 90)
    if number < 143:
        return (5, 5, 7, 90, 90, 90)
    return (5, 5, 7, 90, 90, 120) if number < 195 else (6, 6, 6, 90, 90, 90)


class TestSettings:
    def test_all_hall_symbols_and_names(self):
        for hall in range(1, 531):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                kind = spglib().get_spacegroup_type(hall)
            assert hall in find_hall(kind.hall_symbol)
            assert hall in find_hall(kind.hall_symbol.replace(' ', '_'))
            found = find_settings(kind.international_full, kind.number, kind.choice or None)
            assert hall in found or kind.international_full.split()[-1].endswith('e')  # C 2/m 2/m 2/e is two settings

    @pytest.mark.parametrize('hall', range(3, 531, 24))
    def test_a_general_position_has_as_many_atoms_as_operations(self, hall):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            kind = spglib().get_spacegroup_type(hall)
            count = len(spglib().get_symmetry_from_database(hall)['rotations'])
        cell = (5, 5, 5, 80, 80, 80) if kind.choice == 'R' else cell_of(kind.number)
        atoms = only(cif(cell, 'C1 C .1234 .2718 .3713', f"_space_group_name_Hall '{kind.hall_symbol}'"))
        assert len(atoms) == count
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            data = spglib().get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=1e-3)
        assert len(data.rotations) % count == 0 and data.number >= kind.number

    @pytest.mark.parametrize(
        ('cell', 'symbol', 'number', 'rows', 'count', 'formula'),
        [
            ((3.567,) * 3 + (90,) * 3, 'F d -3 m :2', 227, 'C1 C .125 .125 .125', 8, 'C8'),
            ((3.567,) * 3 + (90,) * 3, 'F d -3 m Z', 227, 'C1 C .125 .125 .125', 8, 'C8'),
            ((3.567,) * 3 + (90,) * 3, 'Fd-3m:1', 227, 'C1 C 0 0 0', 8, 'C8'),
            ((4.0718,) * 3 + (89.459,) * 3, 'R 3 2 :R', 155, 'S1 S .2521 .2521 .2521\nNi1 Ni .5 .2449 -.2449', 5, 'Ni3S2'),
            ((4.0718,) * 3 + (89.459,) * 3, 'R 3 2', 155, 'S1 S .2521 .2521 .2521\nNi1 Ni .5 .2449 -.2449', 5, 'Ni3S2'),
            (
                (4.775, 4.929, 6.897, 90, 90, 90),
                'P b n m',
                62,
                'Mg1 Mg .5141 .556 .25\nSi1 Si .5 0 .5\nO1 O .1028 .466 .25\nO2 O .1961 .2014 .5531',
                20,
                'Mg4O12Si4',
            ),
            ((3.189, 3.189, 5.185, 90, 90, 120), 'P 63 m c', 186, 'Ga1 Ga .3333 .6667 0\nN1 N .3333 .6667 .376', 4, 'Ga2N2'),
            ((4.98, 4.98, 17.06, 90, 90, 120), 'R -3 c H', 167, 'Ca Ca 0 0 0\nC C 0 0 .25\nO O .2573 0 .25', 30, 'C6Ca6O18'),
            ((5.1, 5.2, 5.3, 90, 99.2, 90), 'P 21/c', 14, 'Zr Zr .2758 .0411 .2082\nO O .0703 .3359 .3406', 8, 'O4Zr4'),
            ((5.1, 5.3, 5.2, 90, 90, 99.2), 'P 1 1 21/b', 14, 'Zr Zr .2758 .2082 .0411', 4, 'Zr4'),
            ((5.1, 5.2, 5.3, 90, 99.2, 90), 'P 21/n', 14, 'Zr Zr .2758 .0411 .2082', 4, 'Zr4'),
        ],
    )
    def test_known_crystals(self, cell, symbol, number, rows, count, formula):
        atoms = only(cif(cell, rows, group(symbol, number)))
        assert len(atoms) == count and atoms.get_chemical_formula() == formula and atoms.pbc.all()

    def test_special_positions_of_four_digits_are_single_atoms(self):
        atoms = only(cif((4.98, 4.98, 17.06, 90, 90, 120), 'O O .6667 .3333 .3333', group('R -3 c :H', 167)))
        assert len(atoms) == 6 and np.allclose(atoms.get_scaled_positions() * 12 % 1 * 0, 0)

    def test_against_ase_for_operations_of_standard_settings(self):
        for number, cell in ((62, (5, 6, 7, 90, 90, 90)), (136, (4.6, 4.6, 2.96, 90, 90, 90)), (194, (3, 3, 5, 90, 90, 120))):
            atoms = crystal('Ti', [(0.1, 0.28, 0.37)], spacegroup=number, cellpar=cell)
            assert same(atoms, only(cif(cell, 'Ti1 Ti .1 .28 .37', f'_symmetry_Int_Tables_number {number}')))

    def test_a_setting_that_is_not_named_is_refused_unless_the_formula_decides(self):
        cell = (3.567,) * 3 + (90,) * 3
        assert 'F d -3 m :1 and F d -3 m :2' in reason(cif(cell, 'C1 C 0 0 0', group('F d -3 m', 227)))
        atoms = only(cif(cell, 'C1 C 0 0 0', group('F d -3 m'), "_chemical_formula_sum 'C'", '_cell_formula_units_Z 8'))
        assert len(atoms) == 8 and same(atoms, bulk('C', 'diamond', a=3.567, cubic=True))

    def test_short_names_mean_one_group(self):
        for hall, number in STANDARD.items():
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                short = spglib().get_spacegroup_type(hall).international_short
                for text in (short, short.replace('_', '')):
                    numbers = {spglib().get_spacegroup_type(found).number for found in find_settings(text, None)}
                    assert numbers == {number}, text

    def test_names_that_are_none(self):
        cell = (3,) * 3 + (90,) * 3
        assert "no space group has the name 'P q'" in reason(cif(cell, 'C C 0 0 0', group('P q')))
        assert 'the file says 225' in reason(cif(cell, 'C C 0 0 0', group('P m -3 m', 225)))
        assert '1 to 230' in reason(cif(cell, 'C C 0 0 0', '_space_group_IT_number 231'))
        assert 'do not fit the cell' in reason(cif((3, 4, 5, 90, 90, 90), 'C C 0 0 0', group('P m -3 m', 221)))
        assert 'has the settings' in reason(cif(cell, 'C C 0 0 0', group('F d -3 m :3')))


class TestOperations:
    @pytest.mark.parametrize(
        ('text', 'shift'), [('x,y,z', 0), ('X+1/2, -Y, z', 0.5), ('1/2+x,-y,z', 0.5), ('x+.5,-y,z', 0.5), ('-x-1/4,y,z', 0.75)]
    )
    def test_texts(self, text, shift):
        assert parse_operation(text)[1][0] == pytest.approx(shift)

    @pytest.mark.parametrize('text', ['x,y', 'x,y,w', 'x,x,z', '', 'x y z', 'import os,y,z'])
    def test_texts_that_are_none(self, text):
        with pytest.raises(ValueError, match='symmetry operation'):
            parse_operation(text)

    def test_operations_without_a_name(self):
        rotations, shifts = operations_of(523)  # F m -3 m
        texts = []
        for rotation, shift in zip(rotations.astype(int), shifts, strict=True):
            parts = [''.join(f'{n:+d}{x}' for n, x in zip(row, 'xyz', strict=True) if n) for row in rotation]
            texts.append(','.join(f'{part}+{4 * s:.0f}/4' for part, s in zip(parts, shift, strict=True)).replace('1', '1', 1))
        texts = [text.replace('+1x', '+x').replace('-1x', '-x') for text in texts]
        texts = [text.replace('+1y', '+y').replace('-1y', '-y').replace('+1z', '+z').replace('-1z', '-z') for text in texts]
        loop = 'loop_\n_space_group_symop_operation_xyz\n' + '\n'.join(f"'{text}'" for text in texts)
        atoms = only(cif((5.64,) * 3 + (90,) * 3, 'Na1 Na+ 0 0 0\nCl1 Cl- .5 .5 .5', loop))
        assert same(atoms, bulk('NaCl', 'rocksalt', a=5.64, cubic=True))

    def test_only_the_identity_beside_a_group(self, caplog):
        cell, loop = (5.64,) * 3 + (90,) * 3, "_symmetry_equiv_pos_as_xyz 'x,y,z'"
        rows, more = 'Na1 Na 0 0 0\nCl1 Cl .5 .5 .5', ("_chemical_formula_sum 'Na1 Cl1'", '_cell_formula_units_Z 4')
        assert len(only(cif(cell, rows, group('F m -3 m'), loop, *more))) == 8  # the formula tells that they are missing
        with caplog.at_level(logging.WARNING):
            assert len(only(cif(cell, rows, group('F m -3 m'), loop))) == 2
        assert 'only the identity is listed' in caplog.text

    def test_magnetic_operations(self):
        loop = 'loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,-1\n'
        loop += 'loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\nx+1/2,y+1/2,z+1/2,-1'
        assert len(only(cif((4, 5, 6, 90, 90, 90), 'Fe Fe .1 .2 .3', loop))) == 4


class TestChecks:
    CUBE = (4,) * 3 + (90,) * 3
    OCCUPANCY = SITES.replace('_atom_site_fract_x', '_atom_site_occupancy\n_atom_site_fract_x')

    def test_partial_occupancies_are_refused_by_name(self):
        text = cif(self.CUBE, 'Si1 Si 1 0 0 0\nOW O 0.05 .5 .5 .5', head=self.OCCUPANCY)
        assert 'partial occupancies (OW 0.05)' in reason(text)

    def test_full_and_unknown_occupancies_are_atoms_and_empty_sites_are_none(self, caplog):
        rows = 'Si1 Si 1.000(2) 0 0 0\nO1 O . .5 .5 .5\nO2 O ? .5 0 0\nO3 O 0 .7 .1 .2'
        with caplog.at_level(logging.WARNING):
            assert only(cif(self.CUBE, rows, head=self.OCCUPANCY)).get_chemical_formula() == 'O2Si'
        assert 'O3 has the occupancy 0' in caplog.text

    def test_disorder_and_mixed_sites(self):
        head = SITES.replace('_atom_site_fract_x', '_atom_site_disorder_group\n_atom_site_fract_x')
        assert 'disordered' in reason(cif(self.CUBE, 'C1 C 1 0 0 0\nC2 C 2 .2 0 0', head=head))
        assert len(only(cif(self.CUBE, 'C1 C . 0 0 0\nC2 C 1 .5 0 0', head=head))) == 2
        assert 'different elements in one place' in reason(cif(self.CUBE, 'Si1 Si 0 0 0\nAl1 Al 0 0 0'))

    def test_sites_that_are_listed_twice(self, caplog):
        cell = (5.64,) * 3 + (90,) * 3
        rows = '\n'.join(f'Na{k} Na {x} {y} {z}' for k, (x, y, z) in enumerate([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5)]))
        with caplog.at_level(logging.WARNING):
            assert len(only(cif(cell, rows, group('F m -3 m', 225)))) == 4
        assert 'count once' in caplog.text
        # in P 1 it is told, and both are kept: the crystal is invalid
        assert len(only(cif(cell, 'H1 H 0 0 0\nH2 H 0 0 0.001'))) == 2 and 'both are kept' in caplog.text

    def test_the_formula_is_compared(self, caplog):
        cell, loop = (5.64,) * 3 + (90,) * 3, "_symmetry_equiv_pos_as_xyz 'x,y,z'"
        rows = 'Na1 Na 0 0 0\nCl1 Cl .5 .5 .5'
        assert 'the formula of the file is' in reason(cif(cell, rows, group('F m -3 m'), "_chemical_formula_sum 'Na Cl3'"))
        with caplog.at_level(logging.WARNING):
            assert len(only(cif(cell, rows, group('P 1'), loop, "_chemical_formula_sum 'Na Cl3'"))) == 2
        assert 'ClNa was read' in caplog.text

    def test_the_volume_is_compared(self, caplog):
        with caplog.at_level(logging.WARNING):
            only(cif(self.CUBE, 'C C 0 0 0', '_cell_volume 65.2(3)'))
            assert not caplog.text
            only(cif(self.CUBE, 'C C 0 0 0', '_cell_volume 32'))
        assert 'the volume of the cell is 64.0 A^3, the file says 32' in caplog.text

    def test_multiplicities_are_compared(self):
        head = SITES.replace('_atom_site_fract_x', '_atom_site_symmetry_multiplicity\n_atom_site_fract_x')
        text = cif((3.567,) * 3 + (90,) * 3, 'C1 C 8 0 0 0', group('F d -3 m', 227), head=head)
        assert len(only(text)) == 8  # of two origins the one in which the site has 8 images
        assert 'has 8 images; the file says 4' in reason(text.replace('C1 C 8', 'C1 C 4').replace('-3 m', '-3 m :1'))

    @pytest.mark.parametrize(
        ('rows', 'word'), [('C1 C ? ? ?', 'coordinate x of C1'), ('Wat Wat 0 0 0', 'no element'), ('X1 X 0 0 0', 'no element')]
    )
    def test_sites_that_are_none(self, rows, word):
        assert word in reason(cif(self.CUBE, rows))

    @pytest.mark.parametrize(
        'cell', [(0, 4, 4, 90, 90, 90), (4, 4, 4, 10, 90, 170), ('oops', 4, 4, 90, 90, 90), (4, 4, 4, 0, 0, 0)]
    )
    def test_cells_that_are_none(self, cell):
        assert 'cell' in reason(cif(cell, 'C C 0 0 0'))

    @pytest.mark.parametrize(
        ('label', 'symbol', 'element'),
        [('O1', '?', 'O'), ('OW', '?', 'O'), ('CA1', '?', 'Ca'), ('x', 'Si4+', 'Si'), ('D1', 'D', 'H'), ('x', 'o2-', 'O')],
    )
    def test_elements(self, label, symbol, element):
        assert only(cif(self.CUBE, f'{label} {symbol} 0 0 0')).get_chemical_symbols() == [element]


class TestText:
    def test_what_ase_and_pymatgen_write(self):
        from pymatgen.io.ase import AseAtomsAdaptor
        from pymatgen.io.cif import CifWriter

        for atoms in (bulk('NaCl', 'rocksalt', a=5.64, cubic=True), bulk('ZnS', 'wurtzite', a=3.8, c=6.2)):
            assert same(only(written(atoms)), atoms)
            structure = AseAtomsAdaptor.get_structure(atoms)
            for symprec in (None, 0.01):  # formula of the cell beside Z
                assert sorted(only(str(CifWriter(structure, symprec=symprec))).numbers) == sorted(atoms.numbers)

    def test_byte_order_marks_and_encodings(self, tmp_path):
        text, path = written(bulk('Cu')), tmp_path / 'a.cif'
        for data in (b'\xef\xbb\xbf' + text.encode(), text.encode('utf-16'), text.replace('\n', '\r\n').encode()):
            path.write_bytes(data)
            assert len(read_cif(path)[0]) == 1
        path.write_bytes(('# Ångström\n' + text).encode('latin-1'))
        assert len(read_cif(path)[0]) == 1

    def test_gzip(self, tmp_path):
        from ase_diffusion.data.files import read_each

        with gzip.open(tmp_path / 'a.cif.gz', 'wt') as file:
            file.write(written(bulk('Cu')))
        assert len(read_each(tmp_path / 'a.cif.gz')[0]) == 1

    def test_what_is_no_cif_says_so(self):
        with pytest.raises(ValueError, match=r'x.cif is no CIF.*web page'):
            read_cif('<!DOCTYPE html><html></html>', 'x.cif')
        with pytest.raises(ValueError, match=r'no data_ line.*_cell'):
            read_cif('_cell_length_a 3\n', 'x.cif')

    def test_a_bad_block_keeps_its_place(self):
        one, other = written(bulk('Cu')), written(bulk('Ag'))
        images = read_cif(one + 'data_global\n_publ_author_name X\ndata_bad\n_cell_length_a 3\n' + other, 'x.cif')
        assert [is_unread(atoms) for atoms in images] == [False, True, False] and images[2].get_chemical_symbols() == ['Ag']
        assert 'block bad' in images[1].info['unread']

    def test_text_fields_quotes_and_comments(self):
        more = "_publ_text\n;\n data_none loop_ 'x\n;\n_exptl_note 'it''s a # note' # comment\n_other \"a 'b' c\""
        assert len(only(cif((4,) * 3 + (90,) * 3, 'C1* C 0 0 0 # comment', more))) == 1

    def test_warnings_as_errors_change_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            operations_of.cache_clear()
            assert len(only(cif((3.567,) * 3 + (90,) * 3, 'C1 C 0 0 0', group('F d -3 m :1')))) == 8


def test_cartesian_coordinates():
    head = SITES.replace('fract', 'Cartn')
    atoms = only(cif((4,) * 3 + (90,) * 3, 'C1 C 1 2 3', head=head))
    assert same(atoms, Atoms('C', [[1, 2, 3]], cell=[4] * 3, pbc=True))
