"""Stability: CHGNet energies, formation energies, energies above the hull, and S.U.N. (stable, unique, novel).

Energies are from CHGNet (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)), not DFT, and the hull has the given phases, usually
those of the data set. Report both with the numbers: with fewer phases than the Materials Project, crystals look more stable.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from ...errors import MissingDependency
from ...utils.parallel import parallel_map
from ...utils.unread import named
from .structures import check_crystals, structural_validity, to_structure

if TYPE_CHECKING:
    from ase import Atoms


logger = logging.getLogger(__name__)

STABLE = 0.1  # eV/atom above the hull
BLOCK = 100  # compositions per block of the search for phases
NOISE = 1e-6  # eV/atom; rounding errors of members of the hull
EDGES = (0.0, 0.08, 0.1)  # eV/atom; limits of the reported shares


def chgnet_energies(
    images: Iterable[Atoms], *, batch_size: int = 16, device: str | None = None, progress: bool = False
) -> np.ndarray:
    """Return CHGNet energies of crystals.

    Parameters
    ----------
    images : list of Atoms
    batch_size : int
    device : str, optional
        Torch device; 'cpu' by default.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    numpy.ndarray
        In eV per atom, shape (n,); nan for invalid crystals and those outside the range of CHGNet (isolated atoms, unknown
        elements).

    Raises
    ------
    MissingDependency
        chgnet is not installed.
    """
    model_class = chgnet_class()
    images = check_crystals(images)
    sound = np.flatnonzero(structural_validity(images))
    with contextlib.redirect_stdout(io.StringIO()):  # prints of CHGNet
        model = model_class.load(use_device=device or 'cpu', verbose=False)
    energies = np.full(len(images), np.nan)
    blocks = [sound[k : k + batch_size] for k in range(0, len(sound), batch_size)]
    if progress:
        from tqdm import tqdm

        blocks = tqdm(blocks, desc='CHGNet', leave=False)
    for block in blocks:
        graphs = {int(index): _graph(model, images[index]) for index in block}
        graphs = {index: graph for index, graph in graphs.items() if graph is not None}
        if graphs:
            for index, energy in _predict(model, graphs, batch_size).items():
                energies[index] = energy
    lost = np.flatnonzero(np.isnan(energies))
    if len(lost):
        names = [f'number {k} ({images[k].get_chemical_formula() or "no atoms"})' for k in lost.tolist()]
        logger.warning('%d of %d structures have no energy by CHGNet: %s', len(lost), len(images), named(names))
    return energies


def _predict(model, graphs, batch_size):
    """Return {index: energy in eV/atom} of graphs; where a batch fails, of those that do not fail alone."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # tensor construction in CHGNet
        try:
            found = model.predict_graph(list(graphs.values()), task='e', batch_size=batch_size)
        except Exception:  # one element beyond its table, one isolated atom
            if len(graphs) == 1:
                return {}
            return {k: e for index, graph in graphs.items() for k, e in _predict(model, {index: graph}, 1).items()}
    found = [found] if isinstance(found, dict) else found  # for a single graph
    return {index: float(each['e']) for index, each in zip(graphs, found, strict=True)}


def chgnet_class() -> type:
    """Return the model class of CHGNet, or raise a MissingDependency."""
    try:
        from chgnet.model.model import CHGNet
    except ModuleNotFoundError as err:
        if (err.name or '').split('.')[0] != 'chgnet':
            raise
        raise MissingDependency('chgnet', 'chgnet') from err
    return CHGNet


def _graph(model, atoms):
    """Return the CHGNet graph of a crystal, None if it cannot be built."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return model.graph_converter(to_structure(atoms))
        except Exception:  # isolated atoms, elements above 94
            return None


def elemental_references() -> dict[int, float]:
    """Return elemental reference energies (eV/atom) fitted for CHGNet, {atomic number: energy}.

    With these references CHGNet reproduces the formation energies of the Materials Project (DFT with corrections) to 0.021
    eV/atom on average. Values of elements with few crystals in the fit (noble gases) are unreliable.
    """
    lines = Path(__file__).with_name('chgnet_references.txt').read_text(encoding='utf-8').splitlines()
    rows = [line.split() for line in lines if not line.startswith('#')]
    return {chemical_symbols.index(symbol): float(energy) for symbol, energy, _ in rows}


def formation_energies(
    images: Iterable[Atoms], energies: ArrayLike | None = None, *, references: Mapping[int, float] | None = None, **options: Any
) -> np.ndarray:
    """Return formation energies.

    Parameters
    ----------
    images : list of Atoms
    energies : sequence of float, optional
        In eV per atom, on the scale of the references; from CHGNet by default.
    references : dict of int to float, optional
        In eV per atom by atomic number; those for CHGNet by default.
    **options
        Keywords of `chgnet_energies`.

    Returns
    -------
    numpy.ndarray
        In eV per atom, shape (n,); nan for crystals with an element without reference (named in a warning).
    """
    images = check_crystals(images)
    references = elemental_references() if references is None else references
    energies = chgnet_energies(images, **options) if energies is None else np.asarray(energies, float)
    _check_lengths(images, energies, 'energies')
    unknown = sorted({z for atoms in images for z in atoms.numbers.tolist()} - {0, *references})
    if unknown:
        names = ', '.join(chemical_symbols[z] for z in unknown)
        logger.warning('no elemental reference for %s: crystals with it have no formation energy', names)
    zero = [np.mean([references.get(z, np.nan) for z in atoms.numbers.tolist()]) if len(atoms) else np.nan for atoms in images]
    return energies - zero


def _check_lengths(images, energies, name):
    if np.shape(energies) != (len(images),):
        raise ValueError(f'{name} has one number (eV/atom) for each crystal, shape ({len(images)},); got {np.shape(energies)}')


def energies_above_hull(
    images: Iterable[Atoms],
    energies: ArrayLike,
    phases: Iterable[Atoms],
    phase_energies: ArrayLike,
    *,
    processes: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the energies of crystals above the convex hull of competing phases.

    The hull energy of a composition is the lowest energy of a mixture of phases with this composition (a linear program). It
    equals that of ``PhaseDiagram`` of pymatgen, without a phase diagram of all elements. Elements at 0 are always among the
    phases.

    Parameters
    ----------
    images : list of Atoms
    energies : sequence of float
        Formation energies in eV per atom, shape (n,).
    phases : list of Atoms
        Competing phases, for example the training set.
    phase_energies : sequence of float
        Formation energies of the phases by the same method in eV per atom, shape (m,); phases with nan are ignored.
    processes : int, optional
    progress : bool

    Returns
    -------
    numpy.ndarray
        In eV per atom, shape (n,): below 0 for crystals more stable than every mixture of the phases, nan without an energy.
    """
    images, phases = check_crystals(images), check_crystals(phases, 'phases')
    energies, phase_energies = np.asarray(energies, float), np.asarray(phase_energies, float)
    _check_lengths(images, energies, 'energies')
    _check_lengths(phases, phase_energies, 'phase_energies')
    hull = _lowest(phases, phase_energies)
    targets = np.array([_fractions(atoms) for atoms in images])
    distinct, place = np.unique(targets, axis=0, return_inverse=True)
    tasks = [task for begin in range(0, len(distinct), BLOCK) for task in _mixtures(distinct[begin : begin + BLOCK], *hull)]
    zero = parallel_map(_hull_energy, tasks, processes=processes, progress=progress, lost=float('nan'), label='hull')
    return energies - np.array(zero)[place.ravel()]


def _fractions(atoms):
    """Return the atomic fractions by atomic number, (119,)."""
    return np.bincount(atoms.numbers, minlength=119) / max(len(atoms), 1)


def _lowest(phases, energies):
    """Return fractions (m, 119) and energies (m,) of the lowest phase of each composition, with the elements at 0."""
    best = {}
    for atoms, energy in zip(phases, energies, strict=True):
        if np.isfinite(energy):
            key = tuple(_fractions(atoms).round(9))
            best[key] = min(energy, best.get(key, np.inf))
    for key in np.eye(119)[1:]:
        best[tuple(key)] = min(0.0, best.get(tuple(key), np.inf))
    return np.array(list(best)), np.array(list(best.values()))


def _mixtures(targets, points, energies):
    """Yield for each composition its fractions, and fractions and energies of the phases without other elements."""
    foreign = (targets == 0).astype(np.float32) @ (points > 0).T.astype(np.float32)  # (targets, m), number of foreign elements
    for fractions, count in zip(targets, foreign, strict=True):
        elements, inside = fractions > 0, count == 0
        yield fractions[elements], points[inside][:, elements], energies[inside]


def _hull_energy(task):
    """Return the energy (eV/atom) of the best mixture of a composition: fractions (k,), of phases (m, k), energies (m,)."""
    from scipy.optimize import linprog

    fractions, points, energies = task
    if not len(fractions):  # a structure without atoms
        return float('nan')
    if len(fractions) == 1:
        return float(energies.min())
    found = linprog(energies, A_eq=points.T, b_eq=fractions, method='highs')
    return float(found.fun) if found.success else float('nan')


def sun(above_hull: ArrayLike, is_unique: ArrayLike, is_novel: ArrayLike, *, stable: float = STABLE) -> dict[str, Any]:
    """Return the shares of crystals that are stable, and stable, unique and novel.

    Parameters
    ----------
    above_hull : sequence of float
        In eV per atom, shape (n,); nan counts as not stable.
    is_unique, is_novel : sequence of bool
        Results of `unique` and `novel`, shape (n,).
    stable : float
        Largest energy above the hull of stable crystals, in eV per atom; 0.1 includes metastable ones.

    Returns
    -------
    dict
        'stable', 'sun', 'limit' (the argument), 'shares' ({'0': share at or below 0 eV/atom, ...}), 'median' (eV/atom), and 'n'.
    """
    above_hull = np.asarray(above_hull, float)
    flags = [np.asarray(each, bool) for each in (is_unique, is_novel)]
    if above_hull.ndim != 1 or not len(above_hull) or any(each.shape != above_hull.shape for each in flags):
        shapes = [above_hull.shape, *(each.shape for each in flags)]
        raise ValueError(f'S.U.N. needs an energy, unique and novel for each crystal, at least one; got the shapes {shapes}')
    good = above_hull <= stable + NOISE  # nan is not
    known = above_hull[np.isfinite(above_hull)]
    return {
        'stable': float(good.mean()),
        'sun': float((good & flags[0] & flags[1]).mean()),
        'limit': float(stable),
        'shares': {f'{edge:g}': float((above_hull <= edge + NOISE).mean()) for edge in EDGES},
        'median': float(np.median(known)) if len(known) else float('nan'),
        'n': len(above_hull),
    }
