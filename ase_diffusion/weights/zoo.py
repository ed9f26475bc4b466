"""Names of shipped models and where their files are."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent


@lru_cache(maxsize=1)
def _index() -> dict:
    return json.loads((FOLDER / 'index.json').read_text())


def list_models(kind: str | None = None) -> list[dict]:
    """Return what ships with the package: dictionaries with name, kind, file, size_mb, licence, data, metrics.

    Parameters
    ----------
    kind : str, optional
        Only those of this kind, such as 'surface', 'crystal' or 'forcefield'.
    """
    return [{'name': name, **entry} for name, entry in _index().items() if kind in (None, entry['kind'])]


def find_model(name_or_path: str | Path) -> Path:
    """Return the file of a shipped model, or the path itself where a file is meant.

    Raises
    ------
    CheckpointError
        Neither a known name nor a file; the message lists the names.
    """
    index = _index()
    if str(name_or_path) in index:
        return FOLDER / index[str(name_or_path)]['file']
    path = Path(name_or_path)
    if path.is_file():
        return path
    if (path / 'best.safetensors').is_file():
        raise CheckpointError(f'a model is a file, and {path} a folder: give {path / "best.safetensors"}')
    raise CheckpointError(f'no model {str(name_or_path)!r}: give a file or one of {sorted(index)}')


def load_networks(name_or_path: str | Path, device: str | torch.device = 'cpu') -> tuple[dict[str, torch.nn.Module], dict]:
    """Return the networks (evaluation mode) by name, and the header, of a shipped model or of a checkpoint file.

    Raises
    ------
    CheckpointError
        Unknown name, damaged file, or a shipped file that is not the one the index describes.
    """
    from ..training.checkpoint import load_checkpoint

    path = find_model(name_or_path)
    entry = _index().get(str(name_or_path))
    if entry is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != entry['sha256']:
            raise CheckpointError(
                f'{path} is not the file that index.json describes (sha256 {digest[:12]}...); install the package again'
            )
    return load_checkpoint(path, device)


def load_model(
    name_or_path: str | Path, device: str | torch.device = 'cpu'
) -> tuple[torch.nn.Module | dict[str, torch.nn.Module], dict]:
    """Return network and header of a shipped model or of a checkpoint file; a dict of networks where it has several.

    Raises
    ------
    CheckpointError
        See :func:`load_networks`.
    """
    networks, header = load_networks(name_or_path, device)
    return (networks if len(networks) > 1 else next(iter(networks.values()))), header
