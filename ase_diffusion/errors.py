"""Errors of this package; builtin errors are raised where they say enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


class GenerationFailed(RuntimeError):
    """Error for a generation in which no structure passed the checks.

    Parameters
    ----------
    message : str
        What is expected, what came and the way out, in lower case and without full stop.
    reasons : dict of str to int, or None
        Number of failed attempts by reason; the text lists them, the most frequent first.

    Attributes
    ----------
    images : list of Atoms
        Structures accepted before, where a generator raised it.
    """

    images: list[Atoms]

    def __init__(self, message: str, reasons: Mapping[str, int] | None = None) -> None:
        self.reasons = dict(reasons or {})
        super().__init__(message, self.reasons)  # the arguments unchanged: errors of worker processes are pickled

    def __str__(self) -> str:
        message = str(self.args[0])
        if not self.reasons:
            return message
        ranked = sorted(self.reasons.items(), key=lambda item: -item[1])
        return f'{message}; failed attempts: {", ".join(f"{count} x {reason}" for reason, count in ranked)}'


class CheckpointError(ValueError):
    """Error for a file that is not a checkpoint, is damaged, or belongs to another kind of model."""


class MissingDependency(ImportError):
    """Error for an optional package that is not installed; the text has the command that installs it.

    Parameters
    ----------
    package : str
        Name of the package on PyPI.
    extra : str or None
        Extra of ase_diffusion that contains it.
    """

    def __init__(self, package: str, extra: str | None = None) -> None:
        self.package, self.extra = package, extra
        text = f'the package {package} is needed and not installed: pip install {package}'
        if extra:
            text += f"   (or, with the packages of this extra, in a checkout of ase_diffusion: pip install '.[{extra}]')"
        super().__init__(text, name=package)

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.package, self.extra)
