"""The Ag6 model of p(4x4)-O/Ag(111): construction and recognition.

Schnadt et al., Phys. Rev. Lett. 96, 146101 (2006); Schmid et al., Phys. Rev. Lett. 96, 146102 (2006): Ag12O6 per
p(4x4) cell; two triangles of six Ag atoms, one on hcp and one on fcc hollows of Ag(111); six O atoms in the trenches,
each bonded to two Ag of either triangle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from scipy.sparse.csgraph import connected_components

from ...utils.atoms import check_one, mobile_mask

SITES_PER_CELL = 16  # hollows of one kind in p(4x4)
LAYER_GAP = 0.8  # A; smallest gap between frozen layers
SITE_TOL = 0.3  # A; largest displacement of a substrate atom from its ideal site
BOND = (1.6, 3.1)  # A; Ag-O, 2.1 and 2.5 after relaxation
CONTACT = (2.2, 3.5)  # A; Ag-Ag inside a triangle, 2.84 to 2.91 after relaxation
TRIANGLE = [2, 2, 2, 4, 4, 4]  # neighbors of the three corners and of the three edge centers


def ag6_model(a: float = 4.16, layers: int = 2, vacuum: float = 10.0) -> Atoms:
    """Build the ideal Ag6 model: Ag12O6 on a frozen p(4x4) Ag(111) slab.

    Silver continues the lattice of the slab, oxygen bridges the trenches at 2.25 A from four Ag; all positions are within
    0.3 A of the relaxed model.

    Parameters
    ----------
    a : float
        Lattice constant of silver, in A.
    layers : int
        Number of layers of the slab, all frozen.
    vacuum : float
        Empty space below and above the slab (as in `ase.build.fcc111`; the overlayer stands in it), in A.

    Returns
    -------
    Atoms
        16 * layers slab atoms (tags from ASE: 1 is the top layer), then 12 Ag and 6 O (tag 0). The cell is that of
        ``fcc111('Ag', (4, 4, layers), a, vacuum)``.
    """
    from ase.build import fcc111

    atoms = fcc111('Ag', (4, 4, layers), a=a, vacuum=vacuum)
    del atoms.info['adsorbate_info']
    atoms.set_constraint(FixAtoms(np.arange(len(atoms))))
    corners = [(i, j) for i in range(3) for j in range(3 - i)]
    silver = [(2 / 3 + i, 2 / 3 + j) for i, j in corners] + [(10 / 3 - i, 10 / 3 - j) for i, j in corners]
    oxygen = [(1.5, 0), (2.5, 0), (0, 1.5), (0, 2.5), (1.5, 2.5), (2.5, 1.5)]
    positions = np.zeros((18, 3))
    positions[:, :2] = np.array(silver + oxygen) @ (atoms.cell.array[:2, :2] / 4)
    positions[:, :2] += atoms.positions[-SITES_PER_CELL, :2]  # the units above count from a top atom
    spacing = a / np.sqrt(3)
    positions[:, 2] = atoms.positions[:, 2].max() + np.repeat([spacing, 1.03 * spacing], [12, 6])
    atoms.extend(Atoms('Ag12O6', positions=positions, tags=[0] * 18))
    return atoms


class _Registry(NamedTuple):
    """Sites of the topmost layer of a close-packed substrate."""

    cell: np.ndarray  # (3, 3) A, third vector along the normal
    spacing: float  # A, between neighbors of the top layer
    sites: np.ndarray  # (3 n, 3) A, in the plane through the origin
    kinds: np.ndarray  # (3 n,) 0 top, 1 hcp, 2 fcc
    top: int  # n, atoms of the top layer

    def gaps(self, p, q):
        """Return shortest periodic in-plane vectors (len(p), len(q), 3) from p to q, in A."""
        return _mic(self.flat(q)[None] - self.flat(p)[:, None], self.cell)

    def flat(self, p):
        """Drop the height of points (n, 3)."""
        normal = self.cell[2] / np.linalg.norm(self.cell[2])
        return p - (p @ normal)[..., None] * normal


def _mic(vectors, cell):
    """Return the shortest images of vectors (..., 3) that repeat along the first two cell vectors."""
    return find_mic(vectors.reshape(-1, 3), cell, pbc=[True, True, False])[0].reshape(vectors.shape)


def _registry(atoms, frozen):
    """Find top, hcp and fcc sites from the two highest frozen layers; None unless they are stacked like fcc(111)."""
    cell = atoms.cell.complete().array.copy()
    normal = np.cross(cell[0], cell[1])
    area = np.linalg.norm(normal)
    cell[2] = normal / area * 100.0
    heights = frozen @ (normal / area)
    order = np.argsort(-heights)
    layers = np.split(order, np.flatnonzero(np.diff(heights[order]) < -LAYER_GAP) + 1)
    if len(layers) < 2:
        raise ValueError('fcc and hcp hollows differ in the second layer only; got one frozen layer; freeze two or more')
    if len(layers[0]) != len(layers[1]):
        return None
    first, second = frozen[layers[0]], frozen[layers[1]]
    n = len(first)
    spacing = np.sqrt(2 * area / (np.sqrt(3) * n))
    frame = _Registry(cell, spacing, np.zeros((0, 3)), np.zeros(0, int), n)
    first, second = frame.flat(first), frame.flat(second)
    around = np.linalg.norm(frame.gaps(first, first), axis=-1)
    if n > 1 and (np.sort(around, axis=1)[:, 1] < spacing - SITE_TOL).any():
        return None  # not a triangular layer: distances below the spacing
    to_second = frame.gaps(first[:1], second)[0]
    shift = to_second[np.argmin(np.linalg.norm(to_second, axis=-1))]
    hcp, fcc = first + shift, first - shift
    missed = np.linalg.norm(frame.gaps(hcp, second), axis=-1)  # (n, n)
    misfit = max(abs(np.linalg.norm(shift) - spacing / np.sqrt(3)), missed.min(0).max(), missed.min(1).max())
    if misfit > SITE_TOL:
        return None
    return frame._replace(sites=np.vstack([first, hcp, fcc]), kinds=np.repeat([0, 1, 2], n))


def _triangles(registry, silver):
    """Arrange silver (n, 3) into triangles on hollows.

    Returns
    -------
    links, degree, kinds
        Neighbours inside triangles (n, n), their number (n,), the hollow of every atom (n,): 1 hcp, 2 fcc. None if the
        atoms do not form as many hcp as fcc triangles of six, each centered on a hollow of the other kind.
    """
    site = np.linalg.norm(registry.gaps(silver, registry.sites), axis=-1).argmin(1)
    kinds, places = registry.kinds[site], registry.sites[site]
    if (kinds == 0).any() or len(set(site)) < len(site):
        return None
    steps = np.linalg.norm(registry.gaps(places, places), axis=-1)
    links = (np.abs(steps - registry.spacing) < SITE_TOL) & (kinds[:, None] == kinds)
    degree = links.sum(1)
    count, label = connected_components(links, directed=False)
    on = []
    for k in range(count):
        members = np.flatnonzero(label == k)
        if sorted(degree[members]) != TRIANGLE:
            return None
        middle = places[members[degree[members] == 4]]  # neighbors of each other, so that their images are unique
        center = middle[0] + registry.gaps(middle[:1], middle)[0].mean(0)
        below = registry.kinds[np.linalg.norm(registry.gaps(center[None], registry.sites)[0], axis=-1).argmin()]
        on.append(kinds[members[0]])
        if below != 3 - on[-1]:
            return None
    return (links, degree, kinds) if on.count(1) == on.count(2) else None


def is_ag6(atoms: Atoms) -> bool:
    """Return whether an overlayer is the Ag6 model, from its graph and its registry with the substrate.

    Conditions per p(4x4) cell: the mobile atoms are Ag12O6; the Ag sit near hollows as one hcp and one fcc triangle of
    six, each centered on a hollow of the other kind, with 18 Ag-Ag contacts inside them; and each O bridges one edge of
    either triangle, bonded to two Ag of both, no two O at the same edge. Translations, symmetries of the substrate, the
    order of the atoms, repeated cells and displacements of one or two tenths of an A make no difference.

    Parameters
    ----------
    atoms : Atoms
        Its frozen atoms are an fcc(111) substrate of two or more layers, the mobile ones lie above.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        No atom or only one layer is frozen.
    """
    check_one(atoms, 'ask for each of several: [is_ag6(atoms) for atoms in images]')
    mobile = mobile_mask(atoms)
    if mobile.all():
        raise ValueError('is_ag6 takes the frozen atoms as substrate; got none; set a FixAtoms constraint')
    numbers = atoms.numbers[mobile]
    cells, rest = divmod(int((numbers == 8).sum()), 6)
    if rest or not cells or (numbers == 47).sum() != 12 * cells or len(numbers) != 18 * cells:
        return False
    if not np.isfinite(atoms.positions).all():
        return False
    registry = _registry(atoms, atoms.positions[~mobile])
    if registry is None or registry.top != SITES_PER_CELL * cells:
        return False
    silver, oxygen = atoms.positions[mobile][numbers == 47], atoms.positions[mobile][numbers == 8]
    triangles = _triangles(registry, silver)
    if triangles is None:
        return False
    links, degree, kinds = triangles
    contacts = np.linalg.norm(_mic(silver[None] - silver[:, None], registry.cell), axis=-1)[links]
    if contacts.min() < CONTACT[0] or contacts.max() > CONTACT[1]:
        return False
    bonds = np.linalg.norm(_mic(silver[None] - oxygen[:, None], registry.cell), axis=-1)  # (O, Ag)
    for kind in (1, 2):
        lengths = np.where(kinds == kind, bonds, np.inf)
        pairs = np.sort(np.argsort(lengths, axis=1)[:, :2], axis=1)  # (O, 2), the closest two Ag of this kind
        nearest = np.take_along_axis(lengths, pairs, axis=1)
        at_edge = links[pairs[:, 0], pairs[:, 1]] & (degree[pairs].sum(1) == 6)  # a corner and an edge center
        if not at_edge.all() or nearest.min() < BOND[0] or nearest.max() > BOND[1]:
            return False
        if len(set(map(tuple, pairs))) < len(oxygen):
            return False
    return True
