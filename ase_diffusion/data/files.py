"""Files of structures in the formats of ASE, item by item: one that cannot be read keeps its place."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from ase import Atoms

from ..utils.unread import reason_of, unread
from .cif import read_cif
from .cif_blocks import decode

CIF = ('.cif', '.mcif')


def read_each(path: str | Path) -> list[Atoms]:
    """Read all structures of a file through ASE, of a CIF through `ase_diffusion.data.cif`.

    Parameters
    ----------
    path : str or Path
        Gzipped or not.

    Returns
    -------
    list of Atoms
        In the order of the file. A frame, row or block that cannot be read keeps its place.

    Raises
    ------
    ValueError
        Nothing can be read; the message has the file and the reason.
    """
    import ase.io

    path = Path(path)
    kind = _kind(path)
    if kind == 'empty':
        raise ValueError(f'{path} is empty')
    if kind == 'cif':
        return read_cif(decode(_bytes(path)), str(path))
    try:
        if kind == 'extxyz':  # from memory: ten times faster where compressed
            text = _bytes(path).decode('utf-8-sig')
            try:
                return ase.io.read(io.StringIO(text), ':', format='extxyz')
            except Exception:  # of any kind: frame by frame
                return _frames(text)
        return ase.io.read(path, ':')
    except Exception as error:
        images = _one_by_one(path) if kind != 'extxyz' else []
        if images:
            return images
        raise ValueError(f'{path} cannot be read: {reason_of(error)}') from error


def _bytes(path):
    """Return the content of a file, decompressed."""
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b'\x1f\x8b' else data


def _kind(path):
    """Return 'cif', 'extxyz', 'empty' or the name of another format of ASE; None where ASE knows none."""
    from ase.io.formats import filetype

    name = path.name.lower().removesuffix('.gz')
    if not path.stat().st_size:
        return 'empty'
    if name.endswith(CIF):
        return 'cif'
    if name.endswith(('.extxyz', '.xyz')):
        return 'extxyz'
    try:
        return filetype(str(path))
    except Exception:  # ASE has errors of many kinds here
        return None


def _frames(text):
    """Return the frames of an extended xyz text, each read alone; the rest after a line that is no number of atoms is lost."""
    import ase.io

    lines, images, start = text.splitlines(), [], 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        name = f'frame {len(images)}'
        try:
            count = int(lines[start])
        except ValueError:
            images.append(unread(f'line {start + 1} is the number of atoms; it is {lines[start][:40]!r}', name))
            start = next(
                (k for k in range(start + 1, len(lines) - 1) if lines[k].strip().isdigit() and '=' in lines[k + 1]), len(lines)
            )
            continue
        part = lines[start : start + count + 2]
        try:
            if len(part) < count + 2:
                raise ValueError(f'it is cut: {len(part) - 2} of {count} atoms')
            images.append(ase.io.read(io.StringIO('\n'.join(part) + '\n'), format='extxyz'))
        except Exception as error:
            images.append(unread(reason_of(error), name))
        start += count + 2
    return images


def _one_by_one(path):
    """Return the structures up to the first one that fails, which keeps its place; of a trajectory each one by itself."""
    import ase.io

    images = []
    if path.suffix == '.traj':
        try:
            with ase.io.Trajectory(path) as file:
                for k in range(len(file)):
                    try:
                        images.append(file[k])
                    except Exception as error:
                        images.append(unread(reason_of(error), f'frame {k}'))
        except Exception:  # no trajectory at all
            return []
    else:
        try:
            for atoms in ase.io.iread(path, ':'):
                images.append(atoms)
        except Exception as error:
            images += [unread(reason_of(error), f'structure {len(images)}')] if images else []
    return images if any(len(atoms) for atoms in images) else []
