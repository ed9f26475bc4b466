"""The log of a run, as ASE's optimizers keep it."""

import os
import sys

__all__ = ['Log']


class Log:
    """Write lines to the screen, a file, a stream or nowhere.

    Every line is there at once for whoever follows the file.

    Parameters
    ----------
    logfile : str, Path, stream or None
        ``'-'`` is stdout, None is silent. A path is opened for appending at the first line, so that a run that goes on
        keeps its log. A stream (anything with ``write``) is written to and stays open.

    Raises
    ------
    TypeError
        It is nothing of these.

    Examples
    --------
    >>> with Log('-') as log:
    ...     log.write('step  energy')
    step  energy
    """

    def __init__(self, logfile='-'):
        if logfile is not None and not isinstance(logfile, str | os.PathLike) and not hasattr(logfile, 'write'):
            raise TypeError(
                "a logfile is '-' (the screen), None (silence), a path or an open stream; "
                f'got {logfile!r} ({type(logfile).__name__})'
            )
        self.logfile = logfile
        self._file = None  # the file that this object has opened

    def write(self, line=''):
        """Write one line; the line end is added."""
        stream = self._stream()
        if stream is not None:
            stream.write(f'{line}\n')
            if hasattr(stream, 'flush'):
                stream.flush()

    def close(self):
        """Close the file, where this object has opened one; the next line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _stream(self):
        """Return where a line goes now; stdout may have been replaced since the last one."""
        if self.logfile == '-':
            return sys.stdout
        if not isinstance(self.logfile, str | os.PathLike):
            return self.logfile
        if self._file is None:
            self._file = open(self.logfile, 'a', encoding='utf-8')  # noqa: SIM115  closed by close()
        return self._file
