"""Log of a run in the style of ASE optimizers."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Self

from .checks import check_parent
from .progress import above_bars

__all__ = ['Log', 'Logfile']

Logfile = str | os.PathLike | IO[str] | None  # argument of `Log`


class Log:
    """Write lines to the screen, a file, a stream or nowhere.

    Lines are flushed immediately, so that ``tail -f`` works.

    Parameters
    ----------
    logfile : str, Path, stream or None
        ``'-'`` is stdout, None is silent. A path is opened for appending at the first line, so that a resumed run extends its
        log. A stream (any object with ``write``) is not closed.

    Raises
    ------
    TypeError
        `logfile` is of another type.
    FileNotFoundError
        Its folder does not exist.

    Examples
    --------
    >>> with Log('-') as log:
    ...     log.write('step  energy')
    step  energy
    """

    def __init__(self, logfile: Logfile = '-') -> None:
        binary = isinstance(logfile, (io.RawIOBase, io.BufferedIOBase))
        if binary or not (logfile is None or isinstance(logfile, str | os.PathLike) or hasattr(logfile, 'write')):
            raise TypeError(
                "a logfile is '-' (the screen), None (silence), a path or an open stream of text; "
                f'got {logfile!r} ({type(logfile).__name__})'
            )
        if isinstance(logfile, str | os.PathLike) and logfile != '-':
            check_parent('logfile', logfile)  # the file itself is not tried: other processes may write into it
        self.logfile = logfile
        self._file = None  # opened by this object

    def write(self, line: str = '') -> None:
        """Write one line and a newline."""
        stream = self._stream()
        if stream is not None:
            with above_bars(stream):
                stream.write(f'{line}\n')
                if hasattr(stream, 'flush'):
                    stream.flush()

    def close(self) -> None:
        """Close a file opened by this object; the next line reopens it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        """Return the state without the open file, which cannot be pickled; the copy opens it again."""
        return {**self.__dict__, '_file': None}

    def _stream(self):
        """Return the stream of the next line; stdout is looked up each time, since it may be replaced."""
        if self.logfile == '-':
            return sys.stdout
        if not isinstance(self.logfile, str | os.PathLike):
            return self.logfile
        if self._file is None:
            self._file = open(self.logfile, 'a', encoding='utf-8')  # noqa: SIM115  closed by close()
        return self._file
