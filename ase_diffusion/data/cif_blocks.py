"""Text of CIF files: blocks with their items and loops, numbers with uncertainties."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

TOKEN = re.compile(
    r"""^;(?P<text>.*?)\n;(?=\s|\Z)
    |'(?P<single>(?:[^'\n]|'(?=\S))*)'(?=\s|\Z)
    |"(?P<double>(?:[^"\n]|"(?=\S))*)"(?=\s|\Z)
    |(?P<comment>\#[^\n]*)
    |(?P<word>\S+)""",
    re.S | re.M | re.X,
)
ABOUT_CRYSTALS = ('_cell', '_atom_site', '_symmetry', '_space_group')


@dataclass
class Block:
    """One ``data_`` block: items and columns of loops by tag, in lower case with ``_`` in place of ``.``."""

    name: str
    items: dict[str, str] = field(default_factory=dict)
    loops: list[tuple[list[str], list[str]]] = field(default_factory=list)

    def get(self, *tags: str) -> str | None:
        """Return the first known value of the tags; None for ``?`` and ``.``, too."""
        for tag in tags:
            value = self.items.get(tag)
            if value is None:
                value = next(iter(self.column(tag) or ()), None)
            if value is not None and value.strip() not in ('', '?', '.'):
                return value.strip()
        return None

    def column(self, tag: str) -> list[str] | None:
        """Return a column of a loop, or a single item as a list; None without.

        Raises
        ------
        ValueError
            The loop has values left over.
        """
        for tags, values in self.loops:
            if tag in tags:
                if len(values) % len(tags):
                    raise ValueError(f'the loop of {tags[0]} has {len(tags)} columns and {len(values)} values')
                return values[tags.index(tag) :: len(tags)]
        return [self.items[tag]] if tag in self.items else None

    def is_text(self) -> bool:
        """Return whether the block has items, none of them about a crystal (title, authors, ...)."""
        tags = [*self.items, *(tag for tags, _ in self.loops for tag in tags)]
        return bool(tags) and not any(tag.startswith(ABOUT_CRYSTALS) for tag in tags)


def decode(data: bytes) -> str:
    """Return the text of a CIF: UTF-8 with or without a byte order mark, UTF-16 with one, or Latin-1."""
    if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
        return data.decode('utf-16', errors='replace')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError:
        return data.decode('latin-1')


def parse(text: str, name: str = 'CIF') -> list[Block]:
    """Return the blocks of a text.

    Raises
    ------
    ValueError
        It has no ``data_`` line.
    """
    text = text.replace('\r\n', '\n').replace('\r', '\n')
    blocks, tag, loop = [], None, None
    for match in TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == 'comment':
            continue
        value = match[kind]
        lower = value.lower() if kind == 'word' else ''
        if lower.startswith('data_'):
            blocks.append(Block(value[5:]))
            tag = loop = None
        elif not blocks:
            continue
        elif lower == 'loop_':
            loop, tag = ([], []), None
            blocks[-1].loops.append(loop)
        elif lower.startswith('_'):
            known = lower.replace('.', '_')
            if loop is not None and not loop[1]:
                loop[0].append(known)
            else:
                tag, loop = known, None
        elif loop is not None and loop[0]:
            loop[1].append(value)
        elif tag is not None:
            blocks[-1].items.setdefault(tag, value)
            tag = None
    if not blocks:
        first = text.strip().split('\n', 1)[0][:60]
        page = '; it is a web page, download the file itself' if first.lower().startswith(('<!doctype', '<html')) else ''
        raise ValueError(f'{name} is no CIF: it begins with no data_ line, its first line is {first!r}{page}')
    return blocks


def number(text: str | None, what: str) -> float:
    """Return a number of a CIF without its uncertainty, ``5.64(1)`` -> 5.64.

    Raises
    ------
    ValueError
        It is not a finite number.
    """
    try:
        value = float(re.sub(r'\(\d*\)?$', '', (text or '').strip()))
    except ValueError:
        value = float('nan')
    if not np.isfinite(value):
        raise ValueError(f'{what} is a number; the file has {text!r}')
    return value
