"""One checkpoint format: a safetensors file whose JSON header says how to rebuild the network. Nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import CheckpointError
from ..networks import NETWORKS

FORMAT = 1
_KEY = 'ase_diffusion'


def save_checkpoint(path, network: torch.nn.Module, header: dict, dtype: torch.dtype | None = None) -> Path:
    """Write ``network`` and ``header`` to ``path`` (atomically: the old file stays until the new one is whole).

    Parameters
    ----------
    network : one of ``ase_diffusion.networks.NETWORKS``; its ``settings`` are stored.
    header : dict fit for JSON: process, representation, units, data fingerprint, metrics, ...
    dtype : e.g. torch.float16 to halve the file; None keeps the precision.
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if dtype is not None:
        tensors = {n: v.to(dtype) if v.dtype == torch.float32 else v for n, v in tensors.items()}
    full = {'format': FORMAT, 'network': {'name': type(network).__name__, 'settings': network.settings}, **header}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    save_file(tensors, str(partial), metadata={_KEY: json.dumps(full)})
    os.replace(partial, path)
    return path


def read_header(path) -> dict:
    """Return the header of a checkpoint.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or was not written by this package.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'no checkpoint at {path}')
    try:
        with safe_open(str(path), framework='pt') as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f'{path} is not a readable safetensors file ({error}); it may be truncated') from error
    if text is None:
        raise CheckpointError(f'{path} is a safetensors file, but not an ase_diffusion checkpoint (no header)')
    try:
        header = json.loads(text)
        if header['format'] > FORMAT:
            raise CheckpointError(f'{path} has format {header["format"]}, this version reads up to {FORMAT}; '
                                  'upgrade ase_diffusion')  # fmt: skip
        name, settings = header['network']['name'], header['network']['settings']
        if not isinstance(name, str) or not isinstance(settings, dict):
            raise TypeError('the name of a network is a text, its settings are a table')
    except (json.JSONDecodeError, LookupError, TypeError) as error:
        raise CheckpointError(f'{path} has a damaged header ({error!r})') from error
    if name not in NETWORKS:
        raise CheckpointError(f'{path} asks for the network {name!r}; known: {sorted(NETWORKS)}')
    return header


def load_checkpoint(path, device='cpu') -> tuple[torch.nn.Module, dict]:
    """Return the network in evaluation mode (float32) and the header.

    Raises
    ------
    CheckpointError
        See :func:`read_header`; also where weights and header do not fit together.
    """
    header = read_header(path)
    try:
        network = NETWORKS[header['network']['name']](**header['network']['settings'])
        with safe_open(str(path), framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, LookupError, ArithmeticError,
            AttributeError, MemoryError) as error:  # fmt: skip
        raise CheckpointError(f'{path}: the weights do not fit the header ({error})') from error
    return network.to(device).eval(), header
