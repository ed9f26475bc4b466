"""What verbs share: reading and writing structures, ranges, tables."""

from pathlib import Path


def read_images(path, keep_unread=False):
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
        raise FileNotFoundError(f'Structures are read from a file; there is none at {path.absolute()}.')
    try:
        images = readable(read_places(path), path, logging.getLogger(__name__), keep=keep_unread)
    except Exception as err:  # every format has errors of its own
        text = reason_of(err)
        raise ValueError(text if str(path) in text else f'{path} cannot be read: {text}') from err
    if not images:
        raise ValueError(f'{path} holds no structure.')
    return images


def add_slab(parser):
    """Add the argument that `read_slab` takes."""
    parser.add_argument('slab', help='file with the slab (its last structure); FixAtoms marks the substrate')
    parser.add_argument(
        '--as-slab',
        action='store_true',
        help='hold all atoms of the file and make it periodic in the plane only (for POSCAR, cif, ...)',
    )


def read_slab(args):
    """Return the slab of the arguments: the last structure of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        The file cannot be read; or it lacks what marks a slab, and the option that adds it was not given.
    """
    slab = read_images(args.slab)[-1]
    slab.calc = None
    if args.as_slab:
        from ase.constraints import FixAtoms

        from ase_diffusion.utils.atoms import join_slab

        slab.set_constraint(FixAtoms(indices=range(len(slab))))
        join_slab(slab)  # files of plane-wave codes wrap the slab across the cell
        slab.pbc = (True, True, False)
    if slab.pbc[2] or not slab.constraints:
        lacks = 'is periodic along z' if slab.pbc[2] else 'has no FixAtoms, which marks the substrate'
        raise ValueError(
            f'{args.slab} {lacks}. Give --as-slab to hold all its atoms and to make it periodic in the '
            'plane only, or change it with ASE.'
        )
    return slab


def add_height(parser, above='fixed'):
    """Add ``--height LOW HIGH``, measured from the topmost fixed atom, or from the topmost slab atom."""
    parser.add_argument(
        '--height',
        nargs=2,
        type=float,
        metavar=('LOW', 'HIGH'),
        help=f'window of the new atoms above the topmost {above} atom, A',
    )


def given(args, *names):
    """Return the named options that were given (not None) as keywords."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def check_picture(path):
    """Raise where matplotlib could not write a picture: no such folder, a folder itself, or an ending that it does not know."""
    from matplotlib.backend_bases import FigureCanvasBase

    check_path(path)
    known = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise ValueError(f'A picture is a file .{", .".join(sorted(known))}; got {path}.')


def check_path(path):
    """Raise where no file of this name can be written: its folder does not exist, or it is a folder."""
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f'The folder of {path} does not exist: mkdir -p {Path(path).parent}')
    if Path(path).is_dir():
        raise IsADirectoryError(f'A file is written; {path} is a folder. Name a file in it.')


class Output:
    """Write structures to a file as they come; what was written stays after Ctrl-C.

    Parameters
    ----------
    path : str
        ``.traj`` grows with every structure and replaces an older file; rows are added to a ``.db``; other formats
        of ASE, and ``.npz``, are written by `close`.

    Raises
    ------
    OSError, ValueError
        The folder does not exist, or the path is one; ASE does not know how to write the format.
    """

    def __init__(self, path):
        self.path, self.count, self._file, self._waiting = Path(path), 0, None, []
        check_path(path)
        if self.path.suffix != '.npz':
            self._check_format()

    def _check_format(self):
        from ase.io.formats import UnknownFileTypeError, filetype, ioformats

        try:
            known = ioformats[filetype(str(self.path), read=False)].can_write
        except (UnknownFileTypeError, KeyError):  # of an ending that it does not know, it makes a name
            known = False
        if not known:
            raise ValueError(f'ASE does not write files like {self.path.name}; take .traj, .db, .extxyz or .npz.')

    def expect(self, count, *, crystals=False):
        """Return this, ready for so many structures.

        Raises
        ------
        ValueError
            The format holds one structure only, or overlayers only where crystals will come.
        """
        from ase.io.formats import filetype, ioformats

        npz = self.path.suffix == '.npz'
        if npz and crystals:
            raise ValueError(
                f'A .npz file written here holds overlayers on fixed slabs, not crystals; got {self.path.name}. '
                'Take .traj, .db, .extxyz or .cif.'
            )
        if not npz and count > 1 and ioformats[filetype(str(self.path), read=False)].single:
            raise ValueError(
                f'A file like {self.path.name} holds one structure; {count} are to be written. Take .traj, .db, '
                '.extxyz or .cif, which hold many.'
            )
        return self

    def write(self, atoms):
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
            if self._file is None:
                from ase.db import connect

                self._file = connect(self.path)
            self._file.write(atoms, data=atoms.info.get('data', {}), **atoms.info.get('key_value_pairs', {}))
        else:
            self._waiting.append(atoms)

    def close(self):
        """Finish the file."""
        if self._waiting and self.path.suffix == '.npz':
            from ase_diffusion.data import write_frames

            write_frames(self._waiting, self.path)
        elif self._waiting:
            import ase.io

            ase.io.write(self.path, self._waiting)
        if self._file is not None and hasattr(self._file, 'close'):
            self._file.close()
        self._waiting, self._file = [], None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def table(header, rows):
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


def pairs_of(atoms):
    """Return the key value pairs of a structure."""
    return atoms.info.get('key_value_pairs', {})


def energy_of(atoms):
    """Return the energy (eV) that a structure carries, nan without one."""
    energy = getattr(atoms.calc, 'results', {}).get('energy')
    return float('nan') if energy is None else float(energy)
