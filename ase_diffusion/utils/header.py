"""Headers of checkpoints, read without torch."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import CheckpointError

FORMAT = 2
KEY = 'ase_diffusion'  # of the metadata of a safetensors file
SINGLE = 'denoiser'  # name of a network that is alone
_NEW_NAMES = {  # values of format 1 -> of today
    'Components': 'ProductProcess',
    'Embedded': 'EmbeddedCategorical',
    'SmoothCrystal': 'LogLatticeCrystal',
    'resampling': 'renoised_ancestral',
}


def read_header(path: str | Path) -> dict:
    """Return the header of a checkpoint, with the names of today.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or was not written by this package.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'no checkpoint at {path}')
    try:
        with safe_open(str(path), framework='numpy') as file:
            text = (file.metadata() or {}).get(KEY)
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
            header = _upgraded(header)
        names = {name: (entry['name'], entry['settings']) for name, entry in header['networks'].items()}
        if not names or not all(isinstance(cls, str) and isinstance(settings, dict) for cls, settings in names.values()):
            raise TypeError('expected: networks, each with a name (text) and settings (table)')
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{path} has a damaged header ({error!r})') from error
    return header


def _renamed(value):
    """Return a value of format 1 with the class names of today."""
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return _NEW_NAMES.get(value, value) if isinstance(value, str) else value


def _upgraded(header: dict) -> dict:
    """Return a header of format 1 as one of today: of one network, properties, known and scheme 'paper' renamed."""
    header = _renamed(header)
    network = header.pop('network')
    if 'properties' in network['settings']:
        network['settings']['conditions'] = network['settings'].pop('properties')
    if 'known' in header:
        header['csp_fraction'] = header.pop('known')
    if header.get('scheme') == 'paper':
        header['scheme'] = 'd3pm'
    return {**header, 'networks': {SINGLE: network}}
