"""Places of structures that could not be read: they keep the order of a file, and count as failures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from ase import Atoms

KEY = 'unread'  # of info: the reason
NAMED = 10  # items named in a warning


def unread(reason: str | BaseException, name: str = '') -> Atoms:
    """Return the place of a structure that could not be read: no atoms, and the reason in ``info['unread']``."""
    text = reason if isinstance(reason, str) else reason_of(reason)
    return Atoms(pbc=True, info={KEY: ' '.join(f'{name}: {text}'.split()) if name else ' '.join(text.split())})


def is_unread(atoms: Atoms) -> bool:
    """Return whether this is the place of a structure that could not be read."""
    return KEY in atoms.info and not len(atoms)


def reason_of(error: BaseException) -> str:
    """Return an error as text that is never empty: the message, or the kind of error and where it came from."""
    text = ' '.join(str(error).split())
    if isinstance(error, KeyError) and text:
        return f'unknown name {text}'
    if text:
        return text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = '' if trace is None else f' in {trace.tb_frame.f_code.co_name} of {trace.tb_frame.f_globals.get("__name__", "?")}'
    return f'{type(error).__name__}{where}, without a message; the text is not of this format'


def named(reasons: Sequence[str], separator: str = '; ') -> str:
    """Return reasons as one text, the first ten in full."""
    more = f' and {len(reasons) - NAMED} more' if len(reasons) > NAMED else ''
    return separator.join(reasons[:NAMED]) + more


def readable(
    images: Iterable[Atoms], source: object, log: logging.Logger, *, keep: bool = False, what: str = 'structures'
) -> list[Atoms]:
    """Name and count what could not be read in a warning, and return the others; all of them where `keep` is True.

    Raises
    ------
    ValueError
        None could be read; the message has the file and the first reasons.
    """
    images = list(images)
    reasons = [atoms.info[KEY] for atoms in images if is_unread(atoms)]
    if reasons and len(reasons) == len(images):
        raise ValueError(f'{source} holds no {what} that can be read: {named(reasons)}')
    if reasons:
        log.warning('%s: %d of %d %s cannot be read: %s', source, len(reasons), len(images), what, named(reasons))
    return images if keep else [atoms for atoms in images if not is_unread(atoms)]
