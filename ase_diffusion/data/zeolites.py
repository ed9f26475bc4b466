"""Pure-silica frameworks: growth of hypothetical ones, and files of them.

Random T nets with the symmetry of a space group (`ase_diffusion.porous.random_nets`) that are four-connected, in one piece and
distinct by their coordination sequences get their oxygen and a fit by distance least squares; what fits is kept. The file is
an npz, written under another name and then renamed, so that it can be read at any time:

    seed, starts                     of the random numbers; starts made so far
    natoms (n,)                      atoms per framework; a third of them are Si, which come first
    scaled_positions (sum, 3)        uint16, fractional * 65536
    cell_lengths (n, 3)              float32, A; cells are orthogonal
    space_group, cost, net           of the net; DLS cost per T site in A^2; hash of the coordination sequences
    void_fraction, henry_coefficient, heat_of_adsorption    of methane at 298 K on a grid of 32^3
    density                          kg/m^3
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
from ase import Atoms

from ..porous.growth import LABELS, OUTCOMES, SEEN, SIZES, build, try_starts
from ..utils.parallel import count_processes
from ..utils.rng import RandomSource, spawn_seeds
from ..utils.unread import readable
from .files import read_each

log = logging.getLogger(__name__)

__all__ = ['Growth', 'grow_frameworks', 'read_zeolites']

SHIPPED = {'silica-frameworks': Path(__file__).with_name('silica_frameworks.npz')}
PART = 100  # starts that a process makes at a time
COLUMNS = {
    'cell_lengths': np.float32,
    'space_group': np.int16,
    'cost': np.float32,
    'net': np.uint64,
    'density': np.float32,
    **dict.fromkeys(LABELS, np.float32),
}
OTHER_NAMES = {
    'KH_unitless': 'henry_coefficient',
    'Qst_kJ_mol': 'heat_of_adsorption',
    'dls_cost_per_T': 'cost',
    'framework': 'framework',
    'void_fraction': 'void_fraction',
    'space_group': 'space_group',
    'unique_T': 'unique_sites',
}


class Growth:
    """Frameworks grown so far.

    Every start has random numbers of its own, from the seed and its number, and of two equal nets the first is kept: the result
    depends neither on interruptions nor on the number of processes.

    Parameters
    ----------
    seed : int
    sizes : (int, int)
        Range of T sites asked for in a cell; half of the smaller number is still accepted.
    labels : bool
        Compute adsorption properties of every framework found (about 5 ms each).
    """

    def __init__(self, seed: int, *, sizes: Sequence[int] | np.ndarray = SIZES, labels: bool = True) -> None:
        self.seed, self.sizes, self.labels = int(seed), tuple(int(n) for n in sizes), labels
        self.starts = 0
        self.positions, self.columns = [], {name: [] for name in COLUMNS}
        self.seen = set()  # hashes of the nets
        self.counts = dict.fromkeys(OUTCOMES, 0)

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, last: int, counts: dict[str, int], found: list[tuple[int, np.ndarray, dict]], count: int | None = None) -> None:
        """Take over the starts before `last`, as `try_starts` returned them; end where there are `count` frameworks."""
        for name, number in counts.items():
            self.counts[name] += number
        self.starts = last
        for start, coded, values in found:
            if values['net'] in self.seen:
                self.counts['met before'] += 1
                continue
            self.counts['found'] += 1
            self.seen.add(values['net'])
            self.positions.append(coded)
            for name in COLUMNS:
                self.columns[name].append(values[name])
            if len(self) == count:
                self.starts = start  # it is made again when the growth goes on: it may give more
                return

    def save(self, path: str | Path) -> None:
        """Write the file at once: another name, then renamed."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {name: np.array(self.columns[name], kind) for name, kind in COLUMNS.items()}
        data['cell_lengths'] = data['cell_lengths'].reshape(-1, 3)
        data |= {
            'seed': np.uint64(self.seed),
            'starts': np.int64(self.starts),
            'sizes': np.array(self.sizes, np.int64),
            'natoms': np.array([len(x) for x in self.positions], np.int64),
            'scaled_positions': np.concatenate([*self.positions, np.empty((0, 3), np.uint16)]),
            'counts': np.array(list(self.counts.values()), np.int64),
        }
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        try:
            with open(temporary, 'wb') as file:
                np.savez_compressed(file, **data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, *, labels: bool = True) -> Self:
        """Return the growth that a file holds, ready to go on."""
        with np.load(path) as file:
            data = {name: file[name] for name in file.files}
        missing = {'seed', 'starts', 'sizes', 'natoms', 'scaled_positions', *COLUMNS} - data.keys()
        if missing:
            raise ValueError(f'a file of growth has seed, starts and frameworks; {path} lacks {", ".join(sorted(missing))}')
        growth = cls(int(data['seed']), sizes=data['sizes'], labels=labels)
        growth.starts = int(data['starts'])
        growth.positions = np.split(data['scaled_positions'], np.cumsum(data['natoms']))[:-1]
        growth.columns = {name: list(data[name]) for name in COLUMNS}
        growth.seen = {int(net) for net in data['net']}
        growth.counts = dict(zip(growth.counts, data['counts'].tolist(), strict=True))
        return growth


def grow_frameworks(
    path: str | Path,
    *,
    minutes: float | None = None,
    count: int | None = None,
    rng: RandomSource = None,
    sizes: Sequence[int] = SIZES,
    labels: bool = True,
    processes: int | None = 1,
    save_every: float = 60.0,
    progress: Callable[[dict[str, int]], object] | None = None,
) -> dict[str, int]:
    """Grow silica frameworks into a file until a time is up or a number is reached.

    Parameters
    ----------
    path : str or Path
        npz file. Where it exists the growth goes on from it, with its own seed.
    minutes : float, optional
        Wall time.
    count : int, optional
        Number of frameworks in the file.
    rng : int, Generator, RandomState or None
        Of a new file.
    sizes : (int, int)
        Range of T sites asked for in a cell, of a new file; half of the smaller number is still accepted.
    labels : bool
        Compute the adsorption properties of methane.
    processes : int or None
        None takes all cores. The frameworks do not depend on it.
    save_every : float
        Seconds between two saves; longer where saving takes more than a fiftieth of the time.
    progress : callable, optional
        Called after every save with the dict of counts.

    Returns
    -------
    dict
        How many starts ended in which way, `found` among them.

    Raises
    ------
    ValueError
        Neither minutes nor count, or a file that is none of a growth.
    """
    if minutes is None and count is None:
        raise ValueError('a growth ends after a time or at a number of frameworks; pass minutes=..., count=... or both')
    path = Path(path)
    if path.exists():
        growth = Growth.load(path, labels=labels)
    else:
        growth = Growth(spawn_seeds(rng, 1)[0], sizes=sizes, labels=labels)
    begun = saved = time.monotonic()
    pause = save_every
    try:
        if count is None or len(growth) < count:
            for part in _parts(growth, count_processes(processes)):
                growth.add(*part, count)
                now = time.monotonic()
                if (minutes is not None and now - begun > 60.0 * minutes) or (count is not None and len(growth) >= count):
                    break
                if now - saved > pause:
                    growth.save(path)
                    saved = time.monotonic()
                    pause = max(save_every, 50.0 * (saved - now))
                    if progress is not None:
                        progress(dict(growth.counts))
    finally:
        growth.save(path)
    return dict(growth.counts)


def _parts(growth, processes):
    """Yield the results of `try_starts`, in order and without end."""
    settings = growth.seed, growth.sizes, growth.labels
    edges = itertools.count(growth.starts, PART)
    SEEN[growth.seed, growth.sizes] = set(growth.seen)  # processes that are forked begin with it
    if processes == 1:
        for first in edges:
            yield try_starts(*settings, first, first + PART)
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context(method), _one_thread)
    waiting = deque()
    try:
        while True:
            while len(waiting) < 3 * processes:
                first = next(edges)
                waiting.append(pool.submit(try_starts, *settings, first, first + PART))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread():
    """Leave the other cores to the other processes; an interrupt is the parent's."""
    os.environ['OMP_NUM_THREADS'] = '1'
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def read_zeolites(path: str | Path) -> list[Atoms]:
    """Read silica frameworks with their labels.

    Parameters
    ----------
    path : str or Path
        'silica-frameworks' (3,672 grown ones, shipped), a file of `grow_frameworks`, an npz with cells (3, 3) and columns
        ``info_*``, or what ASE reads, gzipped or not.

    Returns
    -------
    list of Atoms
        Periodic. ``info['key_value_pairs']`` has void_fraction, henry_coefficient (methane, 298 K, unitless), heat_of_adsorption
        (kJ/mol), and what else is known: cost (A^2 per T), space_group, density (kg/m^3), framework.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The npz holds no frameworks.
    """
    path = SHIPPED.get(str(path), Path(path))
    if not path.exists():
        raise FileNotFoundError(f'zeolites are read from a file or by name ({", ".join(SHIPPED)}); there is no {path}')
    if path.suffix == '.npz':
        with np.load(path) as file:
            data = {name: file[name] for name in file.files}
        if 'cell_lengths' in data:
            return _read_grown(data)
        if {'natoms', 'numbers', 'scaled_positions', 'cell'} <= data.keys():
            return _read_cells(data)
        raise ValueError(f'an npz of zeolites has natoms, scaled_positions and cells; {path} has {", ".join(data)}')
    images = readable(read_each(path), path, log)
    for atoms in images:
        pairs = atoms.info.setdefault('key_value_pairs', {})
        pairs |= {OTHER_NAMES[name]: value for name, value in atoms.info.items() if name in OTHER_NAMES}
    return images


def _read_grown(data):
    """Return the Atoms of a file of growth."""
    images = []
    names = [name for name in COLUMNS if name not in ('cell_lengths', 'net')]
    parts = np.split(data['scaled_positions'], np.cumsum(data['natoms']))[:-1]
    for k, coded in enumerate(parts):
        atoms = build(data['cell_lengths'][k], coded)
        pairs = {name: data[name][k].item() for name in names}
        atoms.info['key_value_pairs'] = {**pairs, 'net': f'n{int(data["net"][k]):016x}'}
        images.append(atoms)
    return images


def _read_cells(data):
    """Return the Atoms of an npz with cells and columns ``info_*``."""
    images = []
    columns = {name[5:]: data[name] for name in data if name.startswith('info_')}
    bounds = np.cumsum(data['natoms'])[:-1]
    parts = zip(np.split(data['numbers'], bounds), np.split(data['scaled_positions'], bounds), data['cell'], strict=True)
    for k, (numbers, scaled, cell) in enumerate(parts):
        atoms = Atoms(numbers, cell=cell, scaled_positions=scaled.astype(float), pbc=True)
        atoms.info['key_value_pairs'] = {OTHER_NAMES.get(name, name): column[k].item() for name, column in columns.items()}
        images.append(atoms)
    return images
