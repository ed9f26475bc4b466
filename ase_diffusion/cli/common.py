"""What verbs share: reading and writing structures, ranges, tables."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ase import Atoms


def read_images(path: str | Path, keep_unread: bool = False) -> list[Atoms]:
    """Return all structures of a file; what cannot be read is named in a warning, and keeps its place where asked for.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; ASE cannot read it, or it is empty.
    """
    import logging

    from ase_diffusion.data.frames import SHIPPED, read_places
    from ase_diffusion.utils.unread import readable, reason_of

    if str(path) not in SHIPPED and not Path(path).is_file():
        path = Path(path)
        raise FileNotFoundError(f'structures are read from a file; there is none at {path.absolute()}')
    try:
        images = readable(read_places(path), path, logging.getLogger(__name__), keep=keep_unread)
    except Exception as err:  # every format has errors of its own
        text = reason_of(err)
        raise ValueError(text if str(path) in text else f'{path} cannot be read: {text}') from err
    if not images:
        raise ValueError(f'{path} holds no structure')
    return images


def add_slab(parser: ArgumentParser) -> None:
    """Add the argument that `read_slab` takes."""
    parser.add_argument('slab', help='file with the slab (its last structure); FixAtoms marks the substrate')
    parser.add_argument(
        '--as-slab',
        action='store_true',
        help='hold all atoms of the file and make it periodic in the plane only (for POSCAR, cif, ...)',
    )


def read_slab(args: Namespace) -> Atoms:
    """Return the slab of the arguments: the last structure of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        The file cannot be read; or it lacks what marks a slab, and the option that adds it was not given.
    """
    from ase_diffusion.utils.atoms import frozen_mask, join_slab

    slab = read_images(args.slab)[-1]
    slab.calc = None
    if args.as_slab:
        from ase.constraints import FixAtoms

        slab.set_constraint(FixAtoms(indices=range(len(slab))))
        join_slab(slab)  # files of plane-wave codes wrap the slab across the cell
        slab.pbc = (True, True, False)
    if slab.pbc[2] or not frozen_mask(slab).any():
        lacks = 'is periodic along z' if slab.pbc[2] else 'has no FixAtoms, which marks the substrate'
        raise ValueError(
            f'{args.slab} {lacks}; give --as-slab to hold all its atoms and to make it periodic in the '
            'plane only, or change it with ASE'
        )
    return slab


def add_height(parser: ArgumentParser, above: str = 'fixed') -> None:
    """Add ``--height LOW HIGH``, measured from the topmost fixed atom, or from the topmost slab atom."""
    parser.add_argument(
        '--height',
        nargs=2,
        type=float,
        metavar=('LOW', 'HIGH'),
        help=f'window of the new atoms above the topmost {above} atom, A',
    )


def given(args: Namespace, *names: str) -> dict:
    """Return the named options that were given (not None) as keywords."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def command(*words: object) -> str:
    """Return a command as it is typed: words that a shell would split are quoted."""
    import shlex

    return ' '.join(shlex.quote(str(word)) for word in words)


def say(line: str) -> None:
    """Print a line at once, above the progress bars of the terminal."""
    from ase_diffusion.utils.log import Log

    Log('-').write(line)


def add_force(parser: ArgumentParser) -> None:
    """Add ``--force``."""
    parser.add_argument('--force', action='store_true', help='replace files that exist')


def add_substitute(parser: ArgumentParser) -> None:
    """Add the share of crystals whose elements are exchanged in training."""
    parser.add_argument(
        '--substitute', type=float, metavar='SHARE', help='share of crystals whose elements are exchanged for similar ones (0)'
    )


def add_templates(parser: ArgumentParser, which: str) -> None:
    """Add whether known crystals come first, and which; ``which`` begins the help."""
    parser.add_argument(
        '--templates',
        metavar='WHICH',
        help=f'{which} come first: yes, no, at most N, or a file of more (yes, unless a model is named)',
    )


def templates_of(args: Namespace) -> dict[str, bool | int | str]:
    """Return the option of a generator that :func:`add_templates` read, nothing where it was left out."""
    word = args.templates
    if word is None:
        return {}
    return {'templates': {'yes': True, 'no': False}.get(word, int(word) if word.isdigit() else word)}


def add_crystal_data(parser: ArgumentParser) -> None:
    """Add the data of a training on crystals, and their splits."""
    parser.add_argument(
        'data',
        metavar='DATA',
        help='.npz, .csv with a column cif, a folder of such, .db, or what ASE reads; their splits are kept',
    )
    parser.add_argument(
        '--split',
        nargs='+',
        default=['train'],
        metavar='NAME',
        help='splits to train on; with val among them 5 %% of the compositions are held out instead (train)',
    )


def chosen_path(path: str | None, default: str, force: bool = False) -> str:
    """Return the file that was named; where none was, the default, or a free name like it (relaxed-1.traj)."""
    if path is not None:
        return path
    path, number = Path(default), 0
    while not force and path.exists() and path.suffix != '.db':
        number += 1
        path = Path(default).with_stem(f'{Path(default).stem}-{number}')
    return str(path)


def check_picture(path: str | Path, force: bool = True) -> None:
    """Raise where matplotlib could not write a picture: an ending that it does not know, or what `check_path` says."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if not Path(path).is_dir() and Path(path).suffix[1:].lower() not in known:
        raise ValueError(f'a picture is a file .{", .".join(sorted(known))}; got {path}')
    check_path(path, force)


def check_path(path: str | Path, force: bool = True) -> None:
    """Raise where no file can be written, or where there is one that must not be replaced; nothing is changed.

    Raises
    ------
    FileExistsError, OSError
        The file exists (without `force`); there is no such folder, the path is one, or it cannot be opened for writing.
    """
    from ase_diffusion.utils.checks import check_writable

    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f'the folder of {path} does not exist: mkdir -p {Path(path).parent}')
    check_writable(path)
    if not force and Path(path).is_file() and Path(path).stat().st_size:
        raise FileExistsError(f'{path} exists and would be replaced; name another file, or replace it with --force')


class Output:
    """Write structures to a file as they come; what was written stays after Ctrl-C.

    Parameters
    ----------
    path : str
        ``.traj`` grows with every structure; rows are added to a ``.db``; other formats of ASE, and ``.npz``, are written by
        `close`.
    force : bool
        Replace an older file (rows are added to a ``.db`` in any case). False refuses one.

    Raises
    ------
    OSError, ValueError
        The file exists, or cannot be written; ASE does not know how to write the format; a ``.db`` is no database of ASE.
    """

    def __init__(self, path: str | Path, force: bool = False) -> None:
        self.path, self.count, self._file, self._waiting = Path(path), 0, None, []
        check_path(path, force or self.path.suffix == '.db')
        if self.path.suffix != '.npz':
            self._check_format()
        if self.path.suffix == '.db' and self.path.is_file():
            self._check_database()

    def _check_format(self):
        from ase.io.formats import ioformats

        try:
            known = ioformats[self._format()].can_write
        except KeyError:  # of an ending that it does not know, it makes a name
            known = False
        if not known:
            raise ValueError(f'files like {self.path.name} are not written by ASE; take .traj, .db, .extxyz or .npz')

    def _format(self):
        """Return the name that ASE has for the format, None where it has none."""
        from ase.io.formats import UnknownFileTypeError, filetype

        try:
            return filetype(str(self.path), read=False)
        except UnknownFileTypeError:
            return None

    def _check_database(self):
        """Raise an OSError where rows cannot be added to the file: it is no database of ASE, or somebody has locked it."""
        import sqlite3

        try:
            if self.path.stat().st_size:
                self._database().count()
                connection = sqlite3.connect(self.path, timeout=5)
                try:
                    connection.execute('BEGIN IMMEDIATE')
                    connection.rollback()
                finally:
                    connection.close()
        except Exception as err:  # ase.db raises any error on what it did not write
            raise OSError(f'rows are added to a database of ASE, but {self.path} takes none ({err}); name another file') from err

    def _database(self):
        from ase.db import connect

        return connect(self.path, use_lock_file=False)  # sqlite has its own locks; the file of a killed process would stay

    def expect(self, count: int, *, crystals: bool = False, source: str | Path | None = None) -> Self:
        """Return this, ready for so many structures.

        Parameters
        ----------
        source : str, optional
            File that the structures come from.

        Raises
        ------
        ValueError
            The format holds one structure only, or overlayers only where crystals will come; the rows of a database would be
            added to itself.
        """
        from ase.io.formats import ioformats

        npz = self.path.suffix == '.npz'
        if npz and crystals:
            raise ValueError(
                f'a .npz file written here holds overlayers on fixed slabs, not crystals; got {self.path.name}; '
                'take .traj, .db, .extxyz or .cif'
            )
        if not npz and count > 1 and ioformats[self._format()].single:
            raise ValueError(
                f'a file like {self.path.name} holds one structure; {count} are to be written; take .traj, .db, '
                '.extxyz or .cif, which hold many'
            )
        here = self.path.suffix == '.db' and self.path.is_file()
        if here and source is not None and Path(source).is_file() and self.path.samefile(source):
            raise ValueError(f'rows are added to a database, but {self.path} is read as well; name another file')
        return self

    def write(self, atoms: Atoms) -> None:
        """Add a structure; Ctrl-C waits until it is complete."""
        from ase_diffusion.utils.interrupts import held_interrupts

        with held_interrupts():
            self._write(atoms)
            self.count += 1

    def _write(self, atoms):
        if self.path.suffix == '.traj':
            if self._file is None:
                from ase.io import Trajectory

                self._file = Trajectory(self.path, 'w')
            self._file.write(atoms)
        elif self.path.suffix == '.db':
            from ase_diffusion.search.store import split_pairs

            if self._file is None:
                self._file = self._database()
            pairs, data = split_pairs(atoms)
            self._file.write(atoms, data=data, **pairs)
        else:
            self._waiting.append(atoms)

    def close(self) -> None:
        """Finish the file.

        Raises
        ------
        OSError
            The format does not take the structures; the message names a .traj file that has them.
        """
        waiting, self._waiting = self._waiting, []
        if self._file is not None and hasattr(self._file, 'close'):
            self._file.close()
        self._file = None
        if waiting:
            try:
                self._write_all(waiting)
            except Exception as err:  # every format has errors of its own
                reason = ' '.join(str(err).split()) or type(err).__name__
                raise OSError(f'{self.path} could not be written ({reason}); the structures are in {_rescued(waiting)}') from err

    def _write_all(self, images):
        """Write a file in one go; an older one stays until the new one is complete."""
        from ase.db import connect

        from ase_diffusion.search.store import split_pairs

        part = self.path.with_name(f'.{self.path.stem}.part{self.path.suffix}')
        try:
            if self.path.suffix == '.npz':
                from ase_diffusion.data import write_frames

                write_frames(images, part)
            elif self.path.suffix == '.json':  # a database, of which ase.io.write leaves keys and data out
                with connect(part) as database:
                    for atoms in images:
                        pairs, data = split_pairs(atoms)
                        database.write(atoms, data=data, **pairs)
            else:
                import ase.io

                ase.io.write(part, [_fit_for_columns(atoms) for atoms in images], format=self._format())
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _fit_for_columns(atoms):
    """Return a structure whose key value pairs every format of ASE takes; the others are in its data."""
    from ase_diffusion.search.store import split_pairs

    if 'key_value_pairs' not in atoms.info:
        return atoms
    pairs, data = split_pairs(atoms)
    calc, atoms = atoms.calc, atoms.copy()
    atoms.calc = calc
    atoms.info |= {'key_value_pairs': pairs, **({'data': data} if data else {})}
    return atoms


def _rescued(images):
    """Write structures that would be lost as a trajectory in the folder for temporary files; return its path."""
    import tempfile

    import ase.io

    path = Path(tempfile.mkdtemp(prefix='ase-diffusion-')) / 'structures.traj'
    ase.io.write(path, images)
    return path


def table(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return a table as text: the first column to the left, the last one to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    left = (0, len(header) - 1)
    lines = [
        '  '.join(
            cell.ljust(w) if k in left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return '\n'.join([lines[0], '  '.join('-' * w for w in widths), *lines[1:]])


def pairs_of(atoms: Atoms) -> dict:
    """Return the key value pairs of a structure."""
    return atoms.info.get('key_value_pairs', {})


def energy_of(atoms: Atoms) -> float:
    """Return the energy (eV) that a structure carries, nan without one."""
    energy = getattr(atoms.calc, 'results', {}).get('energy')
    return float('nan') if energy is None else float(energy)
