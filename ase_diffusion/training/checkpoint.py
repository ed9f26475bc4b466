"""One checkpoint format: a safetensors file whose JSON header says how to rebuild the networks. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..diffusion import SAMPLERS, JointProcess
from ..errors import CheckpointError
from ..networks import NETWORKS
from ..representations import REPRESENTATIONS, representation_from_dict
from ..representations.base import is_number, require
from ..representations.conditions import conditions_of
from ..utils.header import FORMAT, KEY, SINGLE
from ..utils.header import read_header as read_any_header

_DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)
_TABLES = ('data', 'conditions', 'defaults', 'sampling', 'metrics', 'units')
_SAMPLING = ('sampler', 'steps', 'focus', *{name: None for sampler in SAMPLERS.values() for name in sampler.options})
_NEW_KEYS = {'properties.': 'conditions.', 'known': 'given'}  # beginnings of keys of weights of format 1 -> of today


def save_checkpoint(
    path: str | Path, networks: torch.nn.Module | dict[str, torch.nn.Module], header: dict, dtype: torch.dtype | None = None
) -> Path:
    """Write networks and ``header`` to ``path`` (atomically: the old file stays until the new one is whole).

    Parameters
    ----------
    networks : module, or dict of str to module
        Of ``ase_diffusion.networks.NETWORKS``; their ``settings`` are stored. A single one is named 'denoiser'.
    header : dict
        JSON-serialisable: kind, process, representation, units, conditions, data, sampling, metrics, ...
    dtype : torch.dtype, optional
        E.g. torch.float16 to halve the file; None keeps the precision.

    Raises
    ------
    ValueError
        A name of a network has a dot, or there is none.
    """
    path = Path(path)
    networks = dict(networks) if isinstance(networks, dict) else {SINGLE: networks}
    require(networks and all(name and '.' not in name for name in networks), 'names of networks without dots', list(networks))
    tensors = {f'{name}.{key}': value for name, each in networks.items() for key, value in each.state_dict().items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if dtype is not None:
        tensors = {n: v.to(dtype) if v.dtype == torch.float32 else v for n, v in tensors.items()}
    described = {name: {'name': type(each).__name__, 'settings': each.settings} for name, each in networks.items()}
    full = {**header, 'format': FORMAT, 'networks': described}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    text = json.dumps(full, default=plain_number)
    save_file(tensors, str(partial), metadata={KEY: text, 'sha256': _digest(text, tensors)})
    os.replace(partial, path)
    return path


def _digest(text: str, tensors: dict[str, torch.Tensor]) -> str:
    """Return the sha256 of a header and of the names, shapes, types and bytes of tensors."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def plain_number(value: Any) -> Any:
    """Return a number of numpy as one of Python, for JSON; TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f'a header holds numbers, texts, lists and tables; got {value!r}')


def read_header(path: str | Path) -> dict:
    """Return the header of a checkpoint, with the names of today.

    Raises
    ------
    CheckpointError
        The file is missing, its header is damaged, it was not written by this package, or asks for a network that is not known.
    """
    header = read_any_header(path)
    if unknown := sorted({entry['name'] for entry in header['networks'].values()} - set(NETWORKS)):
        raise CheckpointError(f'{path} asks for the network {unknown[0]!r}; known: {sorted(NETWORKS)}')
    return header


def _tensors(path, header: dict) -> dict[str, torch.Tensor]:
    """Return the tensors of a file with the keys of today, ``network.key``; CheckpointError where bytes have changed."""
    with safe_open(str(path), framework='pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = file.metadata()
    if told.get('sha256') not in (None, _digest(told[KEY], tensors)):  # files written before have none
        raise CheckpointError(f'{path} is damaged: its content is not what was written; copy it anew, or train again')
    if header['format'] > 1:
        return tensors
    return {f'{SINGLE}.{_new_key(key)}': value for key, value in tensors.items()}


def _new_key(key: str) -> str:
    old = next((old for old in _NEW_KEYS if key.startswith(old)), '')
    return _NEW_KEYS.get(old, '') + key[len(old) :]


def _build(path, header: dict) -> dict[str, torch.nn.Module]:
    """Return the networks of a file; CheckpointError where the weights do not fit the header."""
    try:
        tensors = _tensors(path, header)
        networks = {name: NETWORKS[entry['name']](**entry['settings']) for name, entry in header['networks'].items()}
        parts = {name: {} for name in networks}
        for key, value in tensors.items():
            name, _, rest = key.partition('.')
            parts[name][rest] = value
        for name, network in networks.items():
            network.load_state_dict(parts[name])
    except CheckpointError:
        raise
    except (SafetensorError, OSError, MemoryError, *_DAMAGE) as error:
        raise CheckpointError(f'{path}: the weights do not fit the header ({error})') from error
    if broken := sorted(name for name, value in tensors.items() if not torch.isfinite(value).all()):
        raise CheckpointError(f'{path}: weights must be finite numbers; {len(broken)} tensors have others, such as {broken[0]}')
    return networks


def load_checkpoint(path: str | Path, device: str | torch.device = 'cpu') -> tuple[dict[str, torch.nn.Module], dict]:
    """Return the networks by name, in evaluation mode (float32), and the header.

    Raises
    ------
    CheckpointError
        See :func:`read_header`; also where bytes are not those that were written, weights and header do not fit together, weights
        are not finite, or what generators and calculators read in the header is unknown, missing or of another form.
    """
    header = read_header(path)
    networks = _build(path, header)
    try:
        _check_header(header, networks)
    except _DAMAGE as error:
        raise CheckpointError(f'{path} has a damaged header of a {header.get("kind")} model ({error!r})') from error
    return {name: network.to(device).eval() for name, network in networks.items()}, header


def _check_header(header: dict, networks: dict[str, torch.nn.Module]) -> None:
    """Raise where a header lacks what a user of a model reads; its representation checks what only it knows."""
    kinds = sorted({kind for cls in REPRESENTATIONS.values() for kind in cls.kinds})
    kind = header.get('kind')
    require(kind in kinds, f'the kind is one of {", ".join(kinds)}', kind)
    for name in _TABLES:
        require(isinstance(header.get(name, {}), dict), f'{name} is a table', header.get(name))
    representation = representation_from_dict(header['representation'])
    name = type(representation).__name__
    require(kind in representation.kinds, f'the representation {name} is of a {" or ".join(representation.kinds)} model', kind)
    for name, numbers in header.get('data', {}).items():
        if name.endswith('elements'):
            require(all(type(z) is int and 0 < z < 119 for z in numbers), f'{name} are atomic numbers', numbers)
    conditions = conditions_of(header)
    for name, value in header.get('defaults', {}).items():
        if value is not None and name in conditions:
            conditions[name].check(name, value)
        else:
            require(value is None or is_number(value), f'the default of {name} is a number', value)
    if 'process' in header:
        _check_process(header['process'], representation.fields)
    _check_sampling(header.get('sampling', {}))
    representation.check_header(header, networks)


def _check_process(values: dict, fields: frozenset[str]) -> None:
    process = JointProcess.fromdict(values)
    require(set(process.processes) == fields, f'the fields of the process are {sorted(fields)}', sorted(process.processes))
    for name, one in process.processes.items():
        c_noise = one.schedule.c_noise(torch.tensor(0.5))
        require(torch.isfinite(c_noise), f'noise levels of {name} are finite', c_noise)


def _check_sampling(sampling: dict) -> None:
    require(set(sampling) <= set(_SAMPLING), f'sampling has the entries {", ".join(_SAMPLING)}', sorted(sampling))
    require(sampling.get('sampler') in (None, *SAMPLERS), f'the sampler is one of {sorted(SAMPLERS)}', sampling.get('sampler'))
    steps = sampling.get('steps', 1)
    require(type(steps) is int and steps > 0, 'steps is a positive integer', steps)
    for sampler in SAMPLERS.values():
        sampler.options_in(sampling)
