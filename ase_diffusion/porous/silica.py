"""From density grids of Si and O to silica frameworks.

The atoms of a generated grid are not read off the peaks, of which some are missing, false or displaced: the Si peaks are the
candidates of the T sites, the bonds come out of one optimization over all of them (four for every site), O goes onto the bonds,
and distance least squares do the rest. The post-processing of ZeoDiff (J. Mater. Chem. A 12, 6507, 2024) has the same
purpose; its code was not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from ..utils.quiet import quiet_libraries
from .dls import fit_distances, insert_oxygen
from .nets import FAULTS, Net, bonds_of, four_connected_net, framework_net, full_cell, is_connected, neighbor_pairs
from .orbits import SiteOrbits
from .peaks import COARSE, WIDTH, find_peaks, fit_peaks, smooth_grid

__all__ = ['Restoration', 'check_framework', 'framework_from_grid', 'match_bonds', 'relax_framework']

STRONG = 0.45  # height of a peak that pays as a site
NEAREST, CLASH = 2.2, 2.4  # A, shortest candidate bond; of two sites nearer than CLASH one at most is taken
DENSE = 26.0  # A^3 per candidate; silica has 36 and more per T site, and hopeless grids would take minutes
MOST_STRAIN = 0.03  # A^2 per T
ROUNDS, LIMITS = np.array([40, 110, 500]), np.array([1.0, 0.3, np.inf])
MOST_NODES = 60  # of one search for bonds


# what ends a restoration, the earlier step first
REASONS = (
    'no peaks',
    'no four bonds for every site',
    'not one net in three dimensions',
    'no room for O',
    'shrunk',
    'strained',
    *FAULTS[1:],
)


@dataclass(frozen=True)
class Matching:
    """Settings of one search for bonds.

    Parameters
    ----------
    longest : float
        A, longest candidate bond.
    width : float
        A; a bond of length d costs ((d - 3.1 A) / width)^2.
    oxygen : float
        A bond pays this times (O density near its middle - 0.6).
    site : float
        A site pays this times (height of its peak - 0.45).
    """

    longest: float = 4.3
    width: float = 0.3
    oxygen: float = 6.0
    site: float = 12.0


DIRECT = Matching()
VARIANTS = (
    Matching(longest=4.8, width=0.5),
    Matching(width=0.5),
    Matching(oxygen=0.0),
    Matching(site=2.0),
    Matching(site=15.0, width=0.5),
    Matching(longest=4.8, width=0.5, site=2.0),
    Matching(longest=4.8, width=0.5, oxygen=0.0),
    Matching(longest=4.8, width=0.4, oxygen=12.0),
)


ORBIT_VARIANTS = (DIRECT, VARIANTS[0])  # of a search orbit by orbit
SOLUTIONS, FITS = 12, 12  # of one such search; distance least squares on one set of sites
LITTLE_STRAIN = 0.01  # A^2 per T, ends it


@dataclass
class Restoration:
    """A framework that was made from grids, or why there is none.

    Parameters
    ----------
    atoms : Atoms or None
        Si first, then O.
    reason : str or None
        One of `REASONS`, of the attempt that came farthest.
    step : str
        What gave the framework: 'symmetric', 'symmetric, relaxed', 'direct', 'variant 1', ..., 'relaxed'; empty where nothing
        did.
    peaks : int
        Candidates of T sites.
    moved : float
        A, root mean square distance of the T sites from their peaks, in fractions of the final cell; nan without a framework.
    cost : float
        A^2 per T site, of the distance least squares; nan without a framework.
    """

    atoms: Atoms | None = None
    reason: str | None = None
    step: str = ''
    peaks: int = 0
    moved: float = np.nan
    cost: float = np.nan
    attempts: dict = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.atoms is not None


def framework_from_grid(
    si: ArrayLike,
    o: ArrayLike,
    cell: ArrayLike,
    *,
    width: float = WIDTH,
    variants: Sequence[Matching] = VARIANTS,
    relax: bool = True,
    most_strain: float = MOST_STRAIN,
    operations: tuple[np.ndarray, np.ndarray] | None = None,
    least_volume: float = 0.0,
) -> Restoration:
    """Make a silica framework from density grids.

    Parameters
    ----------
    si, o : array_like
        ``(nx, ny, nz)`` sums of Gaussians exp(-r^2 / width^2), as `density_grid` makes them; 1 on a lone atom.
    cell : array_like
        ``(3, 3)`` rows in A, or three lengths.
    width : float
        A.
    variants : sequence of Matching
        Tried one after the other where the first search for bonds leads to no framework.
    relax : bool
        Where these fail too, relax the sites on their distances (not on the grid) and search again; orthogonal cells only. With
        ``operations``, False takes the best solution alone.
    most_strain : float
        A^2 per T site, the largest cost that is accepted.
    operations : (rotations, translations), optional
        ``(G, 3, 3)`` and ``(G, 3)``, fractional, the space group that the grids have, in an orthogonal cell. Bonds are searched
        for orbit by orbit, in place of the variants; of the best solutions the first with a cost below 0.01 is taken, or that
        of the lowest cost. Where there is none the sites are relaxed, and at last the symmetry is given up.
    least_volume : float
        Share of the volume of ``cell`` that a framework keeps at least. Sites that are missing let the fit shrink the cell, and
        the void fraction with it.

    Returns
    -------
    Restoration
        True where there is a framework.

    Raises
    ------
    ValueError
        Grids of different shapes, not of three axes, or not finite; a cell without volume.
    """
    si, o, cell = _checked(si, o, cell)
    sites, heights, _ = find_peaks(si, cell, width=width)
    volume = abs(np.linalg.det(cell))
    most, limits = int(volume / DENSE) + 1, (most_strain, least_volume * volume)
    sites, heights = sites[:most], heights[:most]
    result = Restoration(peaks=len(sites))
    if len(sites) < 2:
        result.reason = 'no peaks'
        return result
    if (np.linalg.norm(cell, axis=1) / si.shape).max() > COARSE:
        sites, heights = fit_peaks(si, sites, heights, cell, width=width)
    density = smooth_grid(o, cell, width)
    depth = 0
    if operations is not None and not np.any(cell - np.diag(np.diag(cell))):
        outcome = _symmetric(sites, heights, density, cell, limits, operations, search=relax)
        if not isinstance(outcome, str):
            return _found(result, *outcome)
        result.attempts['symmetric'] = outcome
        depth, variants, relax = REASONS.index(outcome), (), False
    attempts = [('direct', DIRECT), *((f'variant {k + 1}', settings) for k, settings in enumerate(variants))]
    for name, settings in attempts:
        matched = match_bonds(sites, heights, density, cell, settings)
        outcome = 'no four bonds for every site' if matched is None else _finish(sites[matched[0]], matched[1], cell, limits)
        if not isinstance(outcome, str):
            return _found(result, name, *outcome, sites[matched[0]])
        result.attempts[name] = outcome
        depth = max(depth, REASONS.index(outcome))
    if relax and not np.any(cell - np.diag(np.diag(cell))):
        outcome = _relaxed(sites, heights, cell, limits)
        if not isinstance(outcome, str):
            return _found(result, 'relaxed', *outcome)
        result.attempts['relaxed'] = outcome
        depth = max(depth, REASONS.index(outcome))
    result.reason = REASONS[depth]
    return result


def _found(result, step, scaled, cell, cost, sites):
    """Fill a result with a framework."""
    n = len(scaled) // 3
    shift = scaled[:n] - sites
    shift -= np.round(shift)
    shift -= shift.mean(0)
    result.atoms = Atoms(np.repeat([14, 8], [n, 2 * n]), cell=cell, scaled_positions=scaled, pbc=True)
    result.atoms.wrap()
    result.step, result.cost = step, float(cost)
    result.moved = float(np.sqrt(((shift @ cell) ** 2).sum(1).mean()))
    return result


def _finish(sites, net, cell, limits):
    """Return (scaled, cell, cost) of the framework on a net, or a reason; limits: largest cost, smallest volume."""
    if not is_connected(*net):
        return 'not one net in three dimensions'
    n = len(sites)
    scaled, bonds, cell = np.empty((3 * n, 3)), np.empty((2 * n, 5), np.int32), cell.copy()
    if insert_oxygen(np.ascontiguousarray(sites), cell, np.linalg.inv(cell), *net, scaled, bonds) != 2 * n:
        return 'no room for O'
    free = np.eye(3) if not np.any(cell - np.diag(np.diag(cell))) else np.ones((3, 3))
    cost = fit_distances(n, scaled, cell, bonds, free, ROUNDS, LIMITS, 1e-4)
    if abs(np.linalg.det(cell)) < limits[1]:
        return 'shrunk'
    if not cost < limits[0]:
        return 'strained'
    fault = _fault(np.repeat([14, 8], [n, 2 * n]), scaled, cell)
    return fault or (scaled, cell, cost)


def _symmetric(peaks, heights, density, cell, limits, operations, search):
    """Search for bonds orbit by orbit; return (step, scaled, cell, cost, sites) of the first of little strain, or a reason."""
    best = 'no four bonds for every site'
    for step, sites, high, oxygen, box in _symmetric_sites(peaks, heights, density, cell, operations):
        fits, strained = [], 0
        for start, net in _orbit_nets(sites, high, oxygen, box, operations):
            outcome = _finish(start, net, box, limits)
            if isinstance(outcome, str):
                best = max(best, outcome, key=REASONS.index)
                strained += outcome in ('shrunk', 'strained')
            else:
                fits.append((step, *outcome, start))
                if outcome[2] < LITTLE_STRAIN:
                    return fits[-1]
            if not search or strained + len(fits) == FITS:
                break
        if fits:
            return min(fits, key=lambda fit: fit[3])
        if not search:
            break
    return best


def _orbit_nets(sites, heights, density, cell, operations):
    """Yield (sites, net) of the best solutions of the searches orbit by orbit, the best first."""
    found = SiteOrbits.of(sites, np.diag(cell), operations)
    if found is None:
        return
    orbits, chosen = found
    heights = heights[chosen][orbits.owner]
    for settings in ORBIT_VARIANTS:
        excluded = []
        for _ in range(SOLUTIONS):
            matched = match_bonds(orbits.sites, heights, density, cell, settings, orbits=orbits, excluded=excluded)
            if matched is None:
                break
            yield orbits.sites[matched[0]], matched[1]


def _symmetric_sites(peaks, heights, density, cell, operations):
    """Yield the peaks and, behind them, the strong ones relaxed on their distances: step, sites, heights, density, cell."""
    from .random_nets import relax_sites

    yield 'symmetric', peaks, heights, density, cell
    found = SiteOrbits.of(peaks[heights > STRONG], np.diag(cell), operations)
    if found is not None:
        moved, lengths = relax_sites(found[0].sites, np.diag(cell))
        yield 'symmetric, relaxed', moved, np.ones(len(moved)), None, np.diag(lengths)


def _relaxed(sites, heights, cell, limits):
    """Relax the strong peaks on T-T distances and look for a net of them; return (scaled, cell, cost, sites) or a reason."""
    from .random_nets import relax_sites

    sites = sites[heights > STRONG]
    if len(sites) < 2:
        return 'no peaks'
    moved, lengths = relax_sites(sites, np.diag(cell))
    new = np.diag(lengths)
    best = 'no four bonds for every site'
    net = four_connected_net(moved, new)
    for settings in (None, Matching(oxygen=0.0)):
        kept = np.arange(len(sites))
        if settings is not None:
            matched = match_bonds(moved, np.ones(len(moved)), None, new, settings)
            kept, net = (kept, None) if matched is None else matched
        if net is None:
            continue
        outcome = _finish(moved[kept], net, new, limits)
        if not isinstance(outcome, str):
            return *outcome, sites[kept]
        best = max(best, outcome, key=REASONS.index)
    return best


def _checked(si, o, cell):
    """Return float64 grids and a cell (3, 3), or raise a ValueError."""
    si, o, cell = np.asarray(si, float), np.asarray(o, float), full_cell(cell)
    if si.ndim != 3 or si.shape != o.shape:
        raise ValueError(f'the grids of Si and O have one shape (nx, ny, nz); got {si.shape} and {o.shape}')
    if not (np.isfinite(si).all() and np.isfinite(o).all()):
        raise ValueError('density grids are of finite numbers; there are others in them')
    if cell.shape != (3, 3) or not np.isfinite(cell).all() or not abs(np.linalg.det(cell)) > 1e-6:
        raise ValueError(f'a cell is (3, 3) or three lengths in A, with a volume; got {cell.tolist()}')
    return si, o, cell


def match_bonds(
    sites: np.ndarray,
    heights: np.ndarray,
    density: np.ndarray | None,
    cell: np.ndarray,
    settings: Matching = DIRECT,
    *,
    orbits: SiteOrbits | None = None,
    excluded: list[np.ndarray] | tuple[()] = (),
) -> tuple[np.ndarray, Net] | None:
    """Choose sites and bonds such that every site has four bonds, at the lowest cost (a mixed-integer linear program).

    Parameters
    ----------
    sites, heights : numpy.ndarray
        ``(n, 3)`` fractional and ``(n,)``, candidates.
    density : numpy.ndarray or None
        Density of O, of `smooth_grid`.
    cell : numpy.ndarray
        ``(3, 3)`` A.
    settings : Matching
    orbits : SiteOrbits, optional
        Of the sites: all sites and bonds of an orbit are taken, or none.
    excluded : list of numpy.ndarray
        Solutions that are not wanted again; the one found here is appended.

    Returns
    -------
    kept : numpy.ndarray
        Indices of the sites.
    (neighbors, shifts)
        Their net.

    None where there is none.
    """
    n = len(sites)
    pairs, distances = neighbor_pairs(np.ascontiguousarray(sites), cell, settings.longest, 60 * n + 200)
    bond = distances >= NEAREST
    clash = pairs[(distances < CLASH) & (pairs[:, 0] != pairs[:, 1])]
    pairs, distances = pairs[bond], distances[bond]
    if not len(pairs):
        return None
    cost = ((distances - 3.1) / settings.width) ** 2
    if density is not None and settings.oxygen:
        cost += settings.oxygen * (0.6 - _at_middles(density, sites, pairs))
    m = len(pairs)
    objective = np.r_[cost, settings.site * (STRONG - np.minimum(heights, 1.2))]
    columns = np.arange(m)
    ends = sparse.coo_matrix((np.ones(2 * m), (np.r_[pairs[:, 0], pairs[:, 1]], np.r_[columns, columns])), (n, m))
    rules = [LinearConstraint(sparse.hstack([ends, -4 * sparse.eye(n)], 'csr'), 0, 0)]
    if len(clash):
        rows = np.arange(len(clash))
        places = m + np.r_[clash[:, 0], clash[:, 1]]
        both = sparse.coo_matrix((np.ones(2 * len(clash)), (np.r_[rows, rows], places)), (len(clash), m + n))
        rules.append(LinearConstraint(both.tocsr(), -np.inf, 1))
    columns = sparse.eye(m + n, format='csr') if orbits is None else _merged(orbits, pairs)
    k = columns.shape[1]
    rules = [LinearConstraint(rule.A @ columns, rule.lb, rule.ub) for rule in rules]
    rules += [LinearConstraint((1 - 2 * x)[None], 1 - x.sum(), np.inf) for x in excluded]
    limits = {'node_limit': MOST_NODES}
    with quiet_libraries():
        solved = milp(columns.T @ objective, integrality=np.ones(k), bounds=Bounds(0, 1), constraints=rules, options=limits)
    if solved.x is None:
        return None
    if orbits is not None:
        excluded.append(np.round(solved.x))
    taken = columns @ solved.x > 0.5
    kept = np.flatnonzero(taken[m:])
    if not len(kept) or not np.array_equal(ends @ taken[:m], 4 * taken[m:]):  # HiGHS: at times "optimal" is not feasible
        return None
    return kept, _net_of(pairs[taken[:m]], kept, n)


def _merged(orbits, pairs):
    """Return which bonds and sites (rows) belong to which orbit (columns), sparse."""
    bonds = orbits.bonds(pairs)
    place = np.r_[bonds, bonds.max() + 1 + orbits.owner]
    return sparse.csr_matrix((np.ones(len(place)), (np.arange(len(place)), place)))


def _at_middles(density, sites, pairs):
    """Return the density in the middle of bonds, at the nearest voxel."""
    middle = 0.5 * (sites[pairs[:, 0]] + sites[pairs[:, 1]] + pairs[:, 2:])
    at = np.round(middle * density.shape).astype(int) % density.shape
    return np.clip(density[tuple(at.T)], 0.0, 1.2)


def _net_of(bonds, kept, n):
    """Return the net (neighbors, shifts) of bonds (m, 5) in which every kept site has four ends."""
    place = np.full(n, -1)
    place[kept] = np.arange(len(kept))
    here = np.r_[place[bonds[:, 0]], place[bonds[:, 1]]]
    there = np.r_[place[bonds[:, 1]], place[bonds[:, 0]]]
    shift = np.concatenate([bonds[:, 2:], -bonds[:, 2:]])
    order = np.argsort(here, kind='stable')
    neighbors, shifts = there[order].reshape(-1, 4), shift[order].reshape(-1, 4, 3)
    return np.ascontiguousarray(neighbors, np.int32), np.ascontiguousarray(shifts, np.int32)


def check_framework(atoms: Atoms) -> str | None:
    """Return the law that a silica framework breaks, or None.

    Si and O only, 1:2; every Si four O and every O two Si at 1.45 to 1.80 A; no other pair below 2.2 A; one net, periodic in
    three dimensions.

    Parameters
    ----------
    atoms : Atoms
        Periodic along all three cell vectors.
    """
    numbers = atoms.numbers
    if not np.isin(numbers, (14, 8)).all() or not (numbers == 14).any():
        return 'not of Si and O'
    if (numbers == 8).sum() != 2 * (numbers == 14).sum():
        return 'Si:O is not 1:2'
    if not atoms.pbc.all() or not np.isfinite(atoms.positions).all() or not abs(np.linalg.det(atoms.cell)) > 1e-6:
        return 'not periodic in three dimensions'
    return _fault(numbers, atoms.get_scaled_positions(wrap=False), atoms.cell.array)


def _fault(numbers, scaled, cell):
    """Return the broken law, or None."""
    net = framework_net(numbers, scaled, cell)
    if isinstance(net, str):
        return net
    return None if is_connected(*net) else 'not one net in three dimensions'


def relax_framework(atoms: Atoms, *, cell: bool = True, steps: int = 650) -> Atoms:
    """Fit a framework to its ideal distances (distance least squares).

    Parameters
    ----------
    atoms : Atoms
        Each Si with four O and each O with two Si at 1.2 to 2.1 A; not changed.
    cell : bool
        Fit the cell too; an orthogonal cell stays orthogonal.
    steps : int

    Returns
    -------
    Atoms
        ``info['key_value_pairs']['cost']`` is the cost in A^2 per T site.

    Raises
    ------
    ValueError
        The bonds are not those of a silica framework.
    """
    numbers, scaled, box = atoms.numbers, atoms.get_scaled_positions(wrap=False), atoms.cell.array.copy()
    silicon = numbers == 14
    code, ends, shifts = bonds_of(silicon, np.ascontiguousarray(scaled), box, 1.2, 2.1, 2.1)
    if code or not np.isin(numbers, (14, 8)).all():
        raise ValueError(
            'a framework to fit has Si with four O and O with two Si at 1.2 to 2.1 A; '
            f'got {atoms.get_chemical_formula()}: {FAULTS[code] or "other elements"}'
        )
    n, oxygen = int(silicon.sum()), np.flatnonzero(~silicon)
    order = np.r_[np.flatnonzero(silicon), oxygen]
    place = np.cumsum(silicon) - 1
    bonds = np.column_stack([place[ends[oxygen, 0]], place[ends[oxygen, 1]], shifts[oxygen, 1] - shifts[oxygen, 0]])
    x = scaled[order]
    x[n:] -= shifts[oxygen, 0]
    free = np.zeros((3, 3))
    if cell:
        free = np.ones((3, 3)) if np.any(box - np.diag(np.diag(box))) else np.eye(3)
    rounds = np.array([min(steps, 150), max(steps - 150, 1)])
    cost = fit_distances(n, x, box, np.ascontiguousarray(bonds, np.int32), free, rounds, np.full(2, np.inf), 1e-5)
    x[n:] += shifts[oxygen, 0]
    fitted = atoms.copy()
    fitted.set_cell(box)
    new = np.empty_like(x)
    new[order] = x
    fitted.set_scaled_positions(new)
    fitted.info['key_value_pairs'] = {**atoms.info.get('key_value_pairs', {}), 'cost': float(cost)}
    return fitted
