"""One checkpoint format: a safetensors file whose JSON header says how to rebuild the network. Nothing is unpickled."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..diffusion import SAMPLERS, JointProcess
from ..errors import CheckpointError
from ..networks import NETWORKS
from ..representations import representation_from_dict

FORMAT = 1
_KEY = 'ase_diffusion'
_DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)
_NEW_NAMES = {  # of format 1 -> of today
    'Components': 'ProductProcess',
    'Embedded': 'EmbeddedCategorical',
    'SmoothCrystal': 'LogLatticeCrystal',
    'resampling': 'renoised_ancestral',
}
FIELDS = {'surface': {'positions'}, 'crystal': {'fractional', 'lattice', 'species'}}  # of the process


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
            raise CheckpointError(
                f'{path} has format {header["format"]}, this version reads up to {FORMAT}; upgrade ase_diffusion'
            )
        if header['format'] == 1:
            header = _renamed(header)
        name, settings = header['network']['name'], header['network']['settings']
        if not isinstance(name, str) or not isinstance(settings, dict):
            raise TypeError('the name of a network is a text, its settings are a table')
    except (json.JSONDecodeError, LookupError, TypeError) as error:
        raise CheckpointError(f'{path} has a damaged header ({error!r})') from error
    if name not in NETWORKS:
        raise CheckpointError(f'{path} asks for the network {name!r}; known: {sorted(NETWORKS)}')
    return header


def _renamed(value):
    """Return a header of format 1 with the names of today."""
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return _NEW_NAMES.get(value, value) if isinstance(value, str) else value


def load_checkpoint(path, device='cpu') -> tuple[torch.nn.Module, dict]:
    """Return the network in evaluation mode (float32) and the header.

    Raises
    ------
    CheckpointError
        See :func:`read_header`; also where weights and header do not fit together, weights are not finite, or what generators
        and calculators read in the header is missing or of another form.
    """
    header = read_header(path)
    try:
        network = NETWORKS[header['network']['name']](**header['network']['settings'])
        with safe_open(str(path), framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network.load_state_dict(tensors)
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        AttributeError,
        MemoryError,
    ) as error:
        raise CheckpointError(f'{path}: the weights do not fit the header ({error})') from error
    if broken := sorted(name for name, value in tensors.items() if not torch.isfinite(value).all()):
        raise CheckpointError(f'{path}: weights must be finite numbers; {len(broken)} tensors have others, such as {broken[0]}')
    try:
        _check_header(header, network)
    except _DAMAGE as error:
        raise CheckpointError(f'{path} has a damaged header of a {header["kind"]} model ({error!r})') from error
    return network.to(device).eval(), header


def _check_header(header: dict, network: torch.nn.Module) -> None:
    """Raise where a header lacks what a user of this kind of model reads; who uses a model says which kind he needs."""
    kind = header.get('kind')
    if kind not in ('surface', 'crystal', 'forcefield'):
        return
    for name in ('data', 'conditions', 'defaults', 'sampling', 'metrics'):
        _demand(isinstance(header.get(name, {}), dict), f'{name} is a table')
    elements = [z for name, value in header.get('data', {}).items() if name.endswith('elements') for z in value]
    _demand(all(type(z) is int and 0 < z < 119 for z in elements), 'elements are atomic numbers')
    for name, ends in header.get('conditions', {}).items():
        _demand(len(ends) == 2 and all(map(_finite, ends)), f'the range of {name} is two numbers')
    _demand(all(v is None or _finite(v) for v in header.get('defaults', {}).values()), 'defaults are numbers')
    if kind in FIELDS:
        process = JointProcess.fromdict(header['process'])
        _demand(set(process.processes) == FIELDS[kind], f'the process is one of {sorted(FIELDS[kind])}')
        for one in process.processes.values():
            _demand(torch.isfinite(one.schedule.c_noise(torch.tensor(0.5))), 'noise levels are finite')
    if kind == 'surface':
        low, high = header['representation']['height']
        _demand(_finite(low) and _finite(high) and low < high, 'the window has a lower and an upper end')
    if kind == 'crystal':
        _check_crystal(header, network)


def _check_crystal(header: dict, network: torch.nn.Module) -> None:
    known = representation_from_dict(header['representation']).elements
    _demand(len(known) == network.settings['classes'] and all(0 < z < 119 for z in known), 'the network knows the elements')
    sizes = {int(n): count for n, count in header['sizes'].items()}
    _demand(sizes and min(sizes) > 0 and all(_finite(c) and c > 0 for c in sizes.values()), 'sizes are counts of cells')
    sampling = header.get('sampling', {})
    steps = sampling.get('steps', 1)
    _demand(sampling.get('sampler') in (None, *SAMPLERS), f'the sampler is one of {sorted(SAMPLERS)}')
    _demand(type(steps) is int and steps > 0, 'steps is a number')
    for sampler in SAMPLERS.values():
        sampler.options_in(sampling)
    _demand(_finite(header.get('known', 0)), 'known is a share')


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _demand(holds, law: str) -> None:
    if not holds:
        raise ValueError(f'{law}; here it is not so')
