"""The folder of a training: which one it belongs to, resuming, log, best and last checkpoint."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path

import torch

from ..utils.checks import check_integer, check_number
from ..utils.unread import reason_of
from .checkpoint import SINGLE, plain_number, save_checkpoint

log = logging.getLogger(__name__)
NOT_THE_RUN = (
    'metrics',
    'units',
    'sampling',
    'format',
    'networks',
    'steps',
)  # entries of a header that training does not depend on


class RunFolder:
    """Keep ``best.safetensors``, ``last.safetensors``, ``log.csv`` and ``resume.ckpt`` of one training.

    Parameters
    ----------
    path : path
        Made where it does not exist.
    networks : module, or dict of str to module
        What is trained.
    header : dict
        Of the checkpoints; with the settings of the networks it tells one training from another.
    """

    def __init__(self, path: str | Path, networks: torch.nn.Module | dict[str, torch.nn.Module], header: dict) -> None:
        self.path, self.header = Path(path), header
        self.path.mkdir(parents=True, exist_ok=True)
        self.best, self.last = self.path / 'best.safetensors', self.path / 'last.safetensors'
        self.table, self.resume = self.path / 'log.csv', self.path / 'resume.ckpt'
        self.identity = identity(networks, header)
        self.best_score = math.inf

    def begun(self, steps: int) -> int:
        """Return the steps that are done of those asked for, 0 in a new folder.

        Raises
        ------
        ValueError
            The folder belongs to another training, or what it holds is damaged.
        """
        if not self.resume.exists():
            return 0
        try:
            state = torch.load(self.resume, map_location='cpu', weights_only=True)
            done = state['global_step']
        except Exception as error:  # of many kinds
            raise ValueError(
                f'{self.resume} is damaged ({reason_of(error)}); take another folder (out), or delete this one to begin anew'
            ) from error
        if differ := differences(state.get('run', self.identity), self.identity):  # older files do not say what they are of
            more = f'; and {len(differ) - 6} more' if len(differ) > 6 else ''
            raise ValueError(
                f'a folder belongs to one training; {self.path} was begun with {"; ".join(differ[:6])}{more}. '
                'Take another folder (out), or delete this one to begin anew'
            )
        if done >= steps:
            text = '%s has its %d steps already and is not trained again: ask for more, or take another folder'
            log.warning(text, self.path, done)
        else:
            log.info('resuming %s at step %d', self.path, done)
        return done

    def append(self, row: dict) -> None:
        """Append a row to ``log.csv``."""
        new = not self.table.exists()
        with self.table.open('a', newline='') as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def keep(self, networks: torch.nn.Module | dict[str, torch.nn.Module], row: dict, score: float) -> None:
        """Write the last checkpoint, and the best one where ``score`` is not above the lowest so far.

        Parameters
        ----------
        row : dict
            Metrics with the key ``step``, stored in the header.
        """
        full = {**self.header, 'steps': row['step'], 'metrics': {**self.header.get('metrics', {}), **row}}
        save_checkpoint(self.last, networks, full)
        if score <= self.best_score or not self.best.exists():
            self.best_score = score
            save_checkpoint(self.best, networks, full)


def check_run(steps: int, minutes: float | None, lr: float, *, every: int, seed: int, warmup: int = 0, ema: float = 0.0) -> None:
    """Raise a ValueError where a number of a training has no meaning."""
    for name, value, low in (('steps', steps, 1), ('every', every, 1), ('seed', seed, 0), ('warmup', warmup, 0)):
        check_integer(name, value, low)
    if check_number('ema', ema, 'the decay of averaged weights, from 0 to below 1', strict=False) >= 1:
        raise ValueError(f'ema is the decay of averaged weights, from 0 to below 1; got {ema!r}')
    check_number('lr', lr, 'the learning rate, 0 or more, such as 0.001', strict=False)
    if minutes is not None:
        check_number('minutes', minutes, 'a time in minutes above 0, or None for no limit')


def identity(networks: torch.nn.Module | dict[str, torch.nn.Module], header: dict) -> dict:
    """Return the settings that must match on resume, JSON-serialisable."""
    networks = networks if isinstance(networks, dict) else {SINGLE: networks}
    described = {name: {'name': type(each).__name__, 'settings': each.settings} for name, each in networks.items()}
    rest = {key: value for key, value in header.items() if key not in NOT_THE_RUN}
    return json.loads(json.dumps({'data': rest.pop('data', {}), **rest, 'networks': described}, default=plain_number))


def differences(old: object, new: object, name: str = '') -> list[str]:
    """Return texts such as "scheme 'edm', now 'd3pm'" for all entries in which two settings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            text for key in {**old, **new} for text in differences(old.get(key), new.get(key), f'{name}.{key}' if name else key)
        ]
    if _same(old, new):
        return []
    texts = [text if len(text := repr(value)) <= 60 else f'{text[:57]}...' for value in (old, new)]
    return [f'{name} {texts[0]}, now {texts[1]}']


def _same(a, b) -> bool:
    """Tell whether two settings are the same up to rounding."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    return a == b
