"""Symmetry operations of a CIF: those of the file, or of the 530 settings of space groups that spglib lists."""

from __future__ import annotations

import re
import warnings
from fractions import Fraction
from functools import lru_cache

import numpy as np

OLD_NAMES = {64: ('cmce', 'cmca'), 39: ('aem2', 'abm2'), 41: ('aea2', 'aba2'), 67: ('cmme', 'cmma'), 68: ('ccce', 'ccca')}
LETTERS = {'s': '1', 'z': '2', 'h': 'h', 'r': 'r', 'hr': 'h'}  # endings of ICSD: origin choice 1 and 2, axes
Operations = tuple[np.ndarray, np.ndarray]  # rotations (n, 3, 3), translations (n, 3), on fractional coordinates


def parse_operation(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation (3, 3) and translation (3,) of an operation such as ``-y,x-y,z+1/3``.

    Raises
    ------
    ValueError
        The text is not an operation on fractional coordinates.
    """
    parts = text.lower().replace(' ', '').replace('_', '').split(',')
    rotation, shift = np.zeros((3, 3)), np.zeros(3)
    good = len(parts) in (3, 4)  # a fourth one is the time reversal of magnetic files
    for row, part in enumerate(parts[:3] if good else ()):
        terms = re.findall(r'[+-]?(?:\d*\.?\d*(?:/\d+)?\*?[xyz]|\d*\.?\d+(?:/\d+)?|\d+\.)', part)
        good &= bool(terms) and ''.join(terms) == part
        for term in terms:
            if term[-1] in 'xyz':
                factor = term[:-1].rstrip('*')
                rotation[row, 'xyz'.index(term[-1])] += float(Fraction(factor + '1' if factor in ('', '+', '-') else factor))
            else:
                shift[row] += float(Fraction(term.rstrip('.')))
    if not good or abs(abs(np.linalg.det(rotation)) - 1) > 1e-6:
        raise ValueError(f'a symmetry operation is a text such as -y,x-y,z+1/3; got {text!r}')
    return rotation, shift % 1.0


def parse_operations(texts: list[str]) -> Operations:
    """Return the operations of a file, each once."""
    found = {}
    for text in texts:
        rotation, shift = parse_operation(text)
        found.setdefault((tuple(rotation.ravel()), tuple(np.round(shift, 3) % 1.0)), (rotation, shift))
    rotations, shifts = zip(*found.values(), strict=True)
    return np.array(rotations), np.array(shifts)


def _plain(text):
    """Return a symbol in lower case without blanks, underscores, brackets and marks of subscripts."""
    return re.sub(r'[\s_()~]|</?su[bp]>', '', text).lower()


def _of_spglib(function, hall):
    """Return what a function of spglib has for a Hall number, without its warning about its own error handling."""
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        return getattr(spglib, function)(hall)


def _words(hall):
    """Return a Hall symbol in lower case with single blanks, which count: P 62 is not P 6 2."""
    return ' '.join(hall.replace('_', ' ').lower().split())


@lru_cache(maxsize=1)
def _settings():
    """Return rows (Hall number, group, names, Hall symbol, choice) of all settings."""
    rows = []
    for hall in range(1, 531):
        kind = _of_spglib('get_spacegroup_type', hall)
        full = kind.international_full
        names = {_plain(full)}
        if 3 <= kind.number <= 15:  # a short symbol belongs to the setting that its full symbol means
            names |= {_plain(' '.join(word for word in full.split() if word != '1'))}
        else:
            names |= {_plain(kind.international_short), *(_plain(word) for word in kind.international.split('='))}
        new, old = OLD_NAMES.get(kind.number, ('', ''))
        if names & {new, old}:
            names |= {new, old}
        rows.append((hall, kind.number, names - {''}, _words(kind.hall_symbol), kind.choice.lower()))
    return rows


@lru_cache(maxsize=64)
def operations_of(hall: int) -> Operations:
    """Return the operations of a Hall number, 1 to 530."""
    data = _of_spglib('get_symmetry_from_database', hall)
    return data['rotations'].astype(float), data['translations'].astype(float)


def describe(hall: int) -> str:
    """Return the name of a setting, such as ``F d -3 m :2``."""
    kind = _of_spglib('get_spacegroup_type', hall)
    name = kind.international_full if 3 <= kind.number <= 15 else kind.international.split('=')[0].strip()
    return f'{name} :{kind.choice}' if kind.choice in ('1', '2', 'H', 'R') else name


def find_hall(symbol: str) -> list[int]:
    """Return the Hall number of a Hall symbol, none where it is not in the table."""
    return [hall for hall, _, _, known, _ in _settings() if known == _words(symbol)]


def find_settings(name: str | None, number: int | None, code: str | None = None) -> list[int]:
    """Return the Hall numbers of all settings that a Hermann-Mauguin symbol, or else a group number, may mean.

    Parameters
    ----------
    name : str or None
        ``P b n m``, ``F d -3 m :2``, ``R -3 m H``, ...
    number : int or None
        1 to 230; standard axes where the name says nothing.
    code : str or None
        ``_space_group_IT_coordinate_system_code``.

    Raises
    ------
    ValueError
        No group has this name, it belongs to another number, or the group has no such setting.
    """
    choice = (code or '').lower()
    rows = []
    if name:
        text, _, suffix = name.partition(':')
        choice = suffix.strip().lower() or choice
        rows = [row for row in _settings() if _plain(text) in row[2]]
        head, _, letter = text.strip().rpartition(' ')
        if not rows and letter.lower() in LETTERS:
            choice = choice or LETTERS[letter.lower()]
            rows = [row for row in _settings() if _plain(head) in row[2]]
        if not rows and number is None:
            raise ValueError(f'no space group has the name {name!r}')
        if rows and number is not None and all(row[1] != number for row in rows):
            raise ValueError(f'the space group {name!r} has the number {rows[0][1]}; the file says {number}')
        if number is not None:
            rows = [row for row in rows if row[1] == number]
    if not rows and number is not None:
        rows = [row for row in _settings() if row[1] == number]
        if not rows:
            raise ValueError(f'space groups have the numbers 1 to 230; got {number}')
        if choice in ('', '1', '2', 'h', 'r'):  # standard axes
            rows = [row for row in rows if row[4] in ('', '1', '2', 'h', 'r', 'b', 'b1')]
    if choice and choice != 'abc' and any(row[4] for row in rows):
        kept = [row for row in rows if row[4] == choice or (choice in ('1', '2') and row[4].startswith(choice))]
        if not kept:
            known = ', '.join(row[4] for row in rows if row[4])
            raise ValueError(f'the space group {name or number} has the settings {known}; the file says {choice!r}')
        rows = kept
    plain = [row for row in rows if row[4] in ('', '1', '2')]  # C m c e names two settings, of which one has standard axes
    if not choice and 15 < rows[0][1] < 75 and plain:
        rows = plain
    return [row[0] for row in rows]


def is_standard_axis(hall: int) -> bool:
    """Return whether a monoclinic setting has the unique axis b, which a short symbol means."""
    row = _settings()[hall - 1]
    return not 3 <= row[1] <= 15 or row[4].startswith('b')
