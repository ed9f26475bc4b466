"""What this package notes of how a structure was made: written by one function that also records which keys are notes.

The names of the notes are kept beside them, in the key ``provenance`` of ``info['key_value_pairs']``. So a note never becomes
a property to learn, and the notes of an input never pass for those of a result.
"""

from __future__ import annotations

from ase import Atoms

MARKER = 'provenance'


def note(atoms: Atoms, **notes) -> None:
    """Write notes (values fit for ``ase.db``) into ``info['key_value_pairs']`` and their names into its key ``provenance``."""
    names = {*notes_of(atoms), *notes}
    pairs = {**atoms.info.get('key_value_pairs', {}), **notes}
    if names:
        pairs[MARKER] = ' '.join(sorted(names))
    atoms.info['key_value_pairs'] = pairs


def notes_of(atoms: Atoms) -> set[str]:
    """Return the names of the notes that a structure carries, without ``provenance`` itself."""
    return set(str(atoms.info.get('key_value_pairs', {}).get(MARKER, '')).split())


def forget_notes(atoms: Atoms, names: set[str] | None = None) -> None:
    """Remove notes, all or those of ``names``, from a structure; what its owner wrote stays."""
    gone = notes_of(atoms) if names is None else notes_of(atoms) & names
    if not gone:
        return
    left = notes_of(atoms) - gone
    pairs = {k: v for k, v in atoms.info['key_value_pairs'].items() if k not in gone and k != MARKER}
    atoms.info['key_value_pairs'] = {**pairs, **({MARKER: ' '.join(sorted(left))} if left else {})}
