"""What this package notes of how a structure was made: written by one function that also records which keys are notes.

The names of the notes are kept beside them, in the key ``provenance`` of ``info['key_value_pairs']``. So a note never becomes
a property to learn, and the notes of an input never pass for those of a result. Files of earlier versions have no such key;
there the names below are notes where something else says that this package wrote them.
"""

from __future__ import annotations

from collections.abc import Collection

from ase import Atoms

from .atoms import copy_atoms

MARKER = 'provenance'
OF_RELAXATION = frozenset(
    {'relax_steps', 'relax_converged', 'relax_calculator', 'energy_generated', 'relax_failed'}
    | {'failed', 'converged', 'step', 'last', 'unique', 'duplicate_of', 'number'}
)
OF_GENERATION = frozenset(
    {'generator', 'model', 'stoich', 'sampler', 'sampling_steps', 'seed', 'min_distance_ratio', 'guidance_scale'}
    | {'guidance_calls', 'operation', 'noise', 'regenerated', 'repeats', 'best_of', 'selected_by'}
)
OF_GA = frozenset({'raw_score', 'extinct', 'relaxed', 'generation', 'origin', 'gaid'})  # what ase-ga notes of a candidate
OF_DATA = ('diffusion', 'relax_error')  # keys of ``info['data']``


def noted(pairs: dict, **notes: str | float) -> dict:
    """Return key-value pairs with notes (values fit for ``ase.db``), and their names in the key ``provenance``."""
    names = {*str(pairs.get(MARKER, '')).split(), *notes}
    return {**pairs, **notes, **({MARKER: ' '.join(sorted(names))} if names else {})}


def note(atoms: Atoms, **notes: str | float) -> None:
    """Write notes into ``info['key_value_pairs']`` of a structure, see :func:`noted`."""
    atoms.info['key_value_pairs'] = noted(atoms.info.get('key_value_pairs', {}), **notes)


def notes_of(atoms: Atoms) -> set[str]:
    """Return the names of the notes that a structure carries, without ``provenance`` itself."""
    return set(str(atoms.info.get('key_value_pairs', {}).get(MARKER, '')).split())


def _notes_without_names(pairs: dict) -> set[str]:
    """Return the names of notes that ``provenance`` does not list: those of earlier versions, and some that are always ours."""
    ours = {name for name in pairs if name == 'energy_generated' or (name.startswith('relax_') and name in OF_RELAXATION)}
    if MARKER in pairs:
        return ours
    if str(pairs.get('generator', '')).endswith('Diffusion'):
        ours |= {name for name in pairs if name in OF_GENERATION or name.startswith('condition_')}
    if ours & {'relax_steps', 'relax_failed'} or {'run', 'step', 'last', 'converged'} <= set(pairs):
        ours |= (OF_RELAXATION | {'run'}) & set(pairs)
    return ours


def keep_own(source: Atoms, atoms: Atoms) -> None:
    """Give a structure the own arrays and info of another one of as many atoms; what it has stays."""
    own = copy_atoms(source)
    forget_notes(own)
    pairs = own.info.get('key_value_pairs', {}) | atoms.info.get('key_value_pairs', {})
    data = own.info.get('data', {}) | atoms.info.get('data', {})
    atoms.info = {**own.info, **atoms.info, **({'key_value_pairs': pairs} if pairs else {}), **({'data': data} if data else {})}
    for name in set(own.arrays) - set(atoms.arrays):
        atoms.set_array(name, own.arrays[name])


def forget_notes(atoms: Atoms, names: Collection[str] | None = None) -> None:
    """Remove notes, all or those of ``names``, from a structure; what its owner wrote stays.

    Without ``names`` the entries of ``info['data']`` that this package writes are removed as well, and the score of ase-ga.
    """
    pairs = atoms.info.get('key_value_pairs', {})
    noted_names = notes_of(atoms)
    gone = noted_names | _notes_without_names(pairs)
    if names is None and {'raw_score', 'extinct'} & set(pairs):
        gone |= OF_GA & set(pairs)
    gone = gone if names is None else gone & set(names)
    if gone or (names is None and MARKER in pairs):
        left = noted_names - gone
        kept = {k: v for k, v in pairs.items() if k not in gone and k != MARKER}
        atoms.info['key_value_pairs'] = {**kept, **({MARKER: ' '.join(sorted(left))} if left else {})}
    if names is None and isinstance(data := atoms.info.get('data'), dict):
        atoms.info['data'] = {k: v for k, v in data.items() if k not in OF_DATA}
