"""Records of how a structure was made, from which it is made again."""

from __future__ import annotations

import json
from pathlib import Path

from ase import Atoms

from ..calculators.names import calculator_name
from ..relax.settings import optimizer_name
from .text import plain


def record_of(atoms: Atoms) -> tuple[dict, dict]:
    """Return what a structure says of its generator, and of the work that made it.

    Raises
    ------
    ValueError
        It says nothing, or less than is needed.
    """
    told = atoms.info.get('data', {}).get('diffusion')
    if not isinstance(told, dict) or 'again' not in told:
        raise ValueError(
            "a structure that can be made again carries info['data']['diffusion']['again'], which generators write; "
            f'{atoms.get_chemical_formula()} carries none. Files of .traj and .db keep it (and .json of the command line)'
        )
    return {name: value for name, value in told.items() if name != 'again'}, told['again']


def plain_options(relax: dict | None) -> dict | None:
    """Return keywords of a relaxation fit for JSON: calculators, optimizers and filters as names."""
    if relax is None:
        return None
    left_out = ('device', 'logfile', 'directory', 'frames')
    kept = {name: value for name, value in relax.items() if name not in left_out}
    for name in ('calculator', 'hessian'):
        if kept.get(name) is not None:
            kept[name] = str(kept[name]) if isinstance(kept[name], (str, Path)) else calculator_name(kept[name])
    for name in ('optimizer', 'filter'):
        if callable(kept.get(name)):
            kept[name] = optimizer_name(kept[name])
    return json.loads(json.dumps(kept, default=plain))
