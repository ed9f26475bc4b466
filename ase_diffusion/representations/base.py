"""The contract of a representation: how structures become tensors and come back, without any learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from ase import Atoms

from ..diffusion import Batch, JointProcess


@dataclass(frozen=True)
class Failure:
    """A sample that is no structure: a normal outcome, counted and logged by its reason.

    Parameters
    ----------
    reason : str
        A short fixed phrase without numbers, so that equal failures are counted together: ``'no atom is present'``.
    """

    reason: str


@runtime_checkable
class Representation(Protocol):
    """Translate between ``ase.Atoms`` and a :class:`~ase_diffusion.diffusion.Batch`.

    A representation is a dataclass of few numbers that are stored in the header of a checkpoint. A new one is entered in
    :data:`ase_diffusion.representations.REPRESENTATIONS`.

    Attributes
    ----------
    kinds : tuple of str
        The kinds of checkpoints that may use it, such as ``('surface',)``.
    fields : frozenset of str
        Names of the fields of its batches; the process and the predictions of the network have the same.
    """

    kinds: ClassVar[tuple[str, ...]]
    fields: ClassVar[frozenset[str]]

    def check(self, atoms: Atoms) -> None:
        """Raise a ValueError for a structure that cannot be trained on."""
        ...

    def encode(self, images: list[Atoms], conditions: dict | None = None) -> Batch:
        """Return a batch of structures; ``conditions`` maps names to tensors or sequences of length B."""
        ...

    def decode(self, batch: Batch) -> list[Atoms | Failure]:
        """Return one structure or failure for each of the B structures of a batch."""
        ...

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return an equivalent batch for training, such as one that is shifted or rotated; by default the same."""
        ...

    def process(self, *args: Any, **options: Any) -> JointProcess:
        """Return the noise process of its fields."""
        ...

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        ...

    @classmethod
    def fromdict(cls, values: dict) -> Representation:
        """Rebuild from :meth:`todict`."""
        ...

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Raise a ValueError where the header of a checkpoint lacks what a generator of this representation reads."""
        ...


class PlainRepresentation:
    """Defaults of the contract: what can be encoded can be trained on, nothing to augment, nothing more to check."""

    def check(self, atoms: Atoms) -> None:
        """Raise a ValueError for a structure without atoms or with positions that are not finite, or that cannot be encoded."""
        require(len(atoms) and np.isfinite(atoms.positions).all(), 'atoms with finite positions', str(atoms.symbols))
        self.encode([atoms])

    def augment(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch as it is."""
        return batch

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Accept every header."""


def require(holds: object, law: str, came: object) -> None:
    """Raise a ValueError that says the law and what came, unless ``holds``."""
    if not holds:
        raise ValueError(f'expected: {law}, got {came!r}')


def is_number(value: object) -> bool:
    """Tell whether a value of a header is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)
