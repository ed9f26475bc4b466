"""Overlayers on a frozen substrate: FixAtoms is the mask, everything else is mobile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from ..diffusion import Batch, GeometricVE, Interval, JointProcess, ProductProcess, Torus, TruncatedNormal, WrappedNormal
from ..utils.atoms import VALID_RATIO, check_one_piece, check_vacuum, copy_atoms, frozen_mask, neighbors, rotation_hint
from .base import PlainRepresentation, require
from .descriptors import crystal_neighbor_distance, metal_descriptors

BELOW = 1.0  # A; mobile atoms of a slab may lie that far below the window
FIX_HINT = (
    'mark the substrate with a constraint, e.g. '
    'from ase.constraints import FixAtoms; slab.set_constraint(FixAtoms(indices=[atom.index for atom in slab if atom.tag >= 1]))'
)


def check_slab(slab: Atoms) -> None:
    """Raise a ValueError if ``slab`` cannot carry an overlayer.

    Needed: at least one atom, finite positions, a cell whose a and b lie in the xy plane and whose c rises out of it, with
    the vacuum, periodic in the plane only, at least one atom held by FixAtoms, and those in one piece along z.
    """
    if not isinstance(slab, Atoms):
        raise TypeError(f'slab must be an ase.Atoms, got {type(slab).__name__}')
    if len(slab) == 0:
        raise ValueError('the slab has no atoms; build one, e.g. with ase.build.fcc111')
    if not np.isfinite(slab.positions).all():
        bad = np.nonzero(~np.isfinite(slab.positions).all(1))[0].tolist()
        raise ValueError(f'positions must be finite; atoms {bad[:10]} of the slab are NaN or infinite')
    cell = np.asarray(slab.cell)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
        raise ValueError(
            f'the slab needs a cell with three independent vectors, got {cell.tolist()}; '
            'slab.center(vacuum=10, axis=2) makes one along z'
        )
    check_vacuum(slab)
    if slab.pbc[2]:
        raise ValueError(f'a slab must not be periodic along z, got pbc={slab.pbc.tolist()}; set slab.pbc = (True, True, False)')
    if not slab.pbc[:2].all():
        raise ValueError(f'a slab is periodic in the plane, got pbc={slab.pbc.tolist()}; set slab.pbc = (True, True, False)')
    if np.abs(cell[:2, 2]).max() > 1e-6:
        raise ValueError(
            f'the first two cell vectors must lie in the xy plane (the surface normal is z), got '
            f'{cell[:2].tolist()}; {rotation_hint(slab)}'
        )
    frozen = frozen_mask(slab)
    if not frozen.any():
        raise ValueError(f'the slab has no FixAtoms, so nothing says which atoms are the substrate; {FIX_HINT}')
    check_one_piece(slab, frozen)


def check_mobile_atoms(slab: Atoms, low: float) -> None:
    """Raise a ValueError if atoms of the slab that no FixAtoms holds lie below the window, so that they would come on top.

    Parameters
    ----------
    slab : Atoms
    low : float
        Lower end of the window, A above the topmost frozen atom.
    """
    bottom = surface_height(slab) + low - BELOW
    below = np.flatnonzero(~frozen_mask(slab) & (slab.positions[:, 2] < bottom))
    if len(below):
        raise ValueError(
            f'atoms that FixAtoms does not hold are generated, in the window that begins {low:g} A above the topmost fixed atom; '
            f'atoms {below[:10].tolist()} of the slab lie below it and would be moved on top: hold them as well, e.g. '
            'slab.set_constraint(FixAtoms(indices=range(len(slab)))), lower the window with height=(low, high), or turn the slab '
            'over where its surface is the lower side: slab.rotate(180, "x", rotate_cell=True)'
        )


def check_right_way_up(slab: Atoms) -> None:
    """Raise a ValueError if all atoms that no FixAtoms holds lie below those it holds: the surface is the lower side."""
    frozen = frozen_mask(slab)
    z = slab.positions[:, 2]
    if not frozen.all() and z[~frozen].max() < z[frozen].min():
        raise ValueError(
            'an overlayer is generated above the slab, on the side of the atoms that FixAtoms does not hold; here they lie below '
            'the fixed ones: turn the slab over with slab.rotate(180, "x", rotate_cell=True), or hold all atoms'
        )


def check_same_pbc(images: list[Atoms]) -> None:
    """Raise a ValueError if the images differ in pbc: a batch has one."""
    for k, atoms in enumerate(images):
        if (atoms.pbc != images[0].pbc).any():
            raise ValueError(
                f'structures that share a batch need the same pbc; structure {k} has '
                f'{atoms.pbc.tolist()}, structure 0 has {images[0].pbc.tolist()}. Treat them apart, or '
                'set atoms.pbc = (True, True, False) on all slabs'
            )


def surface_height(slab: Atoms) -> float:
    """Return the z of the topmost frozen atom, A; windows are measured from it (from 0 where no atom is frozen)."""
    frozen = frozen_mask(slab)
    return float(slab.positions[frozen, 2].max()) if frozen.any() else 0.0


def mobile_layer_height(slab: Atoms) -> float:
    """Return how far atoms of the slab that no FixAtoms holds reach above the topmost frozen one, A."""
    return max(0.0, float(slab.positions[:, 2].max()) - surface_height(slab))


def neighbor_distance(slab: Atoms, frozen: np.ndarray | None = None) -> float:
    """Return the mean distance of a frozen atom to its nearest neighbor, A; of the most frequent frozen element.

    The unit of length of models for many metals. Without frozen atoms all count. An atom without a neighbor within 5 A does not
    count; where none has one, twice the covalent radius is returned.
    """
    frozen = frozen_mask(slab) if frozen is None else frozen
    frozen = frozen if frozen.any() else np.ones(len(slab), bool)
    number = np.bincount(slab.numbers[frozen]).argmax()
    metal = slab[np.flatnonzero(frozen & (slab.numbers == number))]
    i, _, d = neighbors(metal, 5.0)
    if not len(i):
        return 2.0 * float(covalent_radii[number])
    nearest = np.full(len(metal), np.inf)
    np.minimum.at(nearest, i, d)
    return float(nearest[np.isfinite(nearest)].mean())


def top_layer(slab: Atoms, frozen: np.ndarray | None = None) -> Atoms:
    """Return the atoms of the topmost frozen layer: down to a fifth of the neighbor distance below the topmost one."""
    frozen = frozen_mask(slab) if frozen is None else frozen
    z = slab.positions[:, 2]
    return slab[np.flatnonzero(frozen & (z > z[frozen].max() - 0.2 * neighbor_distance(slab, frozen)))]


def top_contacts(slab: Atoms, frozen: np.ndarray | None = None) -> int:
    """Return how many neighbors an atom of the topmost frozen layer has in that layer: 6 on fcc(111), 4 on (100), 2 on (110)."""
    top = top_layer(slab, frozen)
    return round(len(neighbors(top, 1.15 * neighbor_distance(slab, frozen))[0]) / len(top))


def adatoms(slab: Atoms, frozen: np.ndarray) -> list[int]:
    """Return the topmost frozen atoms where the layer below has more than twice as many: they lie on the slab."""
    z, depth = slab.positions[:, 2], 0.2 * neighbor_distance(slab, frozen)
    top = frozen & (z > z[frozen].max() - depth)
    rest = frozen & ~top
    below = rest & (z > z[rest].max(initial=-np.inf) - depth)
    return np.flatnonzero(top).tolist() if 2 * top.sum() < below.sum() else []


def measures(cell: np.ndarray, mobile: int, substrate: np.ndarray, numbers: np.ndarray, spacing: float) -> dict[str, float]:
    """Return ``coverage``, ``thickness`` and ``stretch`` of a system.

    Mobile atoms per ``spacing`` squared of the surface (a (111) layer of the substrate has 1.15, (100) 1); extent of the
    substrate (m, 3) along z over ``spacing``; ``spacing`` over the neighbor distance in the crystal of the most frequent element.
    """
    return {
        'coverage': float(mobile * spacing**2 / np.linalg.norm(np.cross(*np.asarray(cell)[:2]))),
        'thickness': float(np.ptp(substrate[:, 2]) / spacing),
        'stretch': spacing / crystal_neighbor_distance(int(np.bincount(numbers).argmax())),
    }


def system_text(substrate: Iterable[int], mobile: Iterable[int], contacts: int) -> str:
    """Return what stands on what, such as ``'Cu+O on Cu, 6'``; the number is that of :func:`top_contacts`."""
    names = ['+'.join(sorted(chemical_symbols[z] for z in set(some))) for some in (mobile, substrate)]
    return f'{names[0]} on {names[1]}, {contacts}'


@cache
def _metals() -> frozenset[int]:
    return frozenset(np.flatnonzero(metal_descriptors()[:, 0]).tolist())


class SlabTemplate:
    """A slab with its mobile atoms, and what is read off it once: frozen mask, surface height, elements.

    Parameters
    ----------
    atoms : Atoms
        See :func:`check_slab`; not copied, not changed.
    held : bool array (n,), optional
        More atoms that stay where they are, beside those in FixAtoms.

    Attributes
    ----------
    fixed, frozen : bool array (n,)
        Atoms in FixAtoms; these and the held ones, which is all that is not generated.
    surface_z : float
        z of the topmost frozen atom, A; windows are measured from it (0 where no atom is frozen).
    """

    def __init__(self, atoms: Atoms, held: np.ndarray | None = None) -> None:
        self.atoms, self.fixed = atoms, frozen_mask(atoms)
        self.frozen = self.fixed if held is None else self.fixed | held
        self.surface_z = float(atoms.positions[self.frozen, 2].max()) if self.frozen.any() else 0.0

    @classmethod
    def of(cls, atoms: Atoms | SlabTemplate) -> SlabTemplate:
        """Return the template of a structure; a template passes through."""
        return atoms if isinstance(atoms, cls) else cls(atoms)

    @cached_property
    def spacing(self) -> float:
        """Distance of neighbors in the substrate, A; see :func:`neighbor_distance`."""
        return neighbor_distance(self.atoms, self.frozen)

    @cached_property
    def measures(self) -> dict[str, float]:
        """See :func:`measures`."""
        held = self.atoms[self.frozen]
        return measures(held.cell, int((~self.frozen).sum()), held.positions, held.numbers, self.spacing)

    @cached_property
    def elements(self) -> dict[str, set[int]]:
        """Atomic numbers by role, ``'mobile'`` and ``'substrate'``."""
        numbers = self.atoms.numbers
        return {'mobile': set(numbers[~self.frozen].tolist()), 'substrate': set(numbers[self.frozen].tolist())}

    @property
    def of_metal(self) -> bool:
        """Whether all frozen atoms are metals."""
        return self.elements['substrate'] <= _metals()

    def check_known(self, data: dict, who: str, hint: str = '') -> None:
        """Raise a ValueError where a model never saw an element in its role.

        Parameters
        ----------
        data : dict
            The entry ``data`` of a header: ``mobile_elements`` and ``substrate_elements``, atomic numbers; no entry, no check.
            Where it is ``described``, elements are known by descriptors, and any metal may be asked for.
        who, hint : str
            Beginning and end of the message.
        """
        for role, numbers in self.elements.items():
            known = set(data.get(f'{role}_elements', []))
            new = numbers - known - (_metals() if data.get('described') else set())
            if known and (unknown := sorted(chemical_symbols[z] for z in new)):
                names = ', '.join(chemical_symbols[z] for z in sorted(known))
                if role == 'substrate' and (on_top := self._on_top(new)):
                    hint = (
                        f'; atoms {on_top[:10]} lie on the slab: take them off and add them to stoich, so that they are '
                        'generated as well, or kept by gen.complete(atoms, indices)'
                    )
                raise ValueError(f'{who} never saw {", ".join(unknown)} as {role} atoms; it knows {names}{hint}')

    def _on_top(self, unknown: set[int]) -> list[int]:
        """Return the frozen atoms of these elements if they lie above all other frozen ones, as adsorbates do."""
        z, odd = self.atoms.positions[:, 2], np.isin(self.atoms.numbers, list(unknown))
        on_top, below = self.frozen & odd, self.frozen & ~odd
        return np.flatnonzero(on_top).tolist() if below.any() and z[on_top].min() > z[below].max() else []

    def news(self, data: dict) -> str:
        """Return what the data of a model (:meth:`check_known`) do not have, or ''.

        Elements, what is on what, facet, coverage, strain and fewer layers; more of these do not matter to networks that look
        three layers deep.
        """
        if not data.get('systems'):
            return ''
        known: dict[str, set[int]] = {}
        for what, contacts in (key.rsplit(', ', 1) for key in data['systems']):
            known.setdefault(what, set()).add(int(contacts))
        mobile, substrate = self.elements['mobile'], self.elements['substrate']
        contacts = top_contacts(self.atoms, self.frozen)
        what, seen, news = system_text(substrate, mobile, contacts).rsplit(', ', 1)[0], set(), []
        seen.update(data['mobile_elements'], data['substrate_elements'])
        if new := sorted(chemical_symbols[z] for z in (mobile | substrate) - seen):
            news.append(f'{", ".join(new)} (only {", ".join(sorted(chemical_symbols[z] for z in seen))})')
        elif what not in known:
            near = [kind for kind in sorted(known) if set(kind.split(' on ')) & set(what.split(' on '))] or sorted(known)
            news.append(f'{what} (only {"; ".join(near)})')
        if on_top := adatoms(self.atoms, self.frozen):
            news.append(
                f'a substrate with single atoms on it ({on_top[:10]}, and the window is above these: take them off and add them '
                'to stoich)'
            )
        elif contacts not in (facets := known.get(what) or set().union(*known.values())):
            only = ', '.join(map(str, sorted(facets)))
            here = f'{what} with ' if contacts in set().union(*known.values()) else ''  # else new for all that it knows
            facet = f'{here}a top layer whose atoms have {contacts} neighbors in it'
            news.append(f'{facet} (only {only}; (111), (0001): 6; (100), bcc (110): 4; (110): 2; bcc (100): 0)')
        return ', nor '.join(news + self._out_of_range(data))

    def _out_of_range(self, data: dict) -> list[str]:
        """Return which of :func:`measures` lie outside those of the data of a model, with the units of a user."""
        here, per_layer = self.measures, len(top_layer(self.atoms, self.frozen))
        per_atom, out = int((~self.frozen).sum()) / per_layer / here['coverage'], []
        for name, margin, unit, text in (
            ('coverage', 0.1, per_atom, '{:.2f} mobile atoms for each atom of the top layer'),
            ('thickness', 0.1, self.spacing, 'a substrate {:.1f} A thick'),
            ('stretch', 0.05, self.spacing / here['stretch'], 'neighbors in the substrate {:.2f} A apart'),
        ):
            low, high = data.get(name, (-np.inf, np.inf))
            value, high = here[name], np.inf if name == 'thickness' else high
            if not (1 - margin) * low <= value <= (1 + margin) * high:
                reach = f'{low * unit:.2f} or more' if high == np.inf else f'{low * unit:.2f} to {high * unit:.2f}'
                out.append(f'{text.format(value * unit)} (only {reach})')
        return out

    def with_mobile(self, positions: np.ndarray) -> Atoms:
        """Return a copy with new positions (n_mobile, 3) of the mobile atoms; frozen atoms keep their bits."""
        atoms, new = copy_atoms(self.atoms), self.atoms.positions.copy()
        new[~self.frozen] = positions
        atoms.set_positions(new, apply_constraint=False)
        return atoms


def check_window(height: Sequence[float], overlayer: SlabTemplate) -> tuple[float, float]:
    """Return the window as two floats; raise a ValueError if it is none or cannot hold the mobile atoms at their closest."""
    try:
        low, high = (float(x) for x in height)
    except (TypeError, ValueError):
        raise ValueError(f'height is (low, high) in A above the topmost fixed atom, got {height!r}') from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f'height is (low, high) in A with low < high, got {height!r}')
    if high <= 0:
        raise ValueError(
            f'height=({low:g}, {high:g}) ends at or below the topmost fixed atom, where there is no room; both are '
            'counted from that atom upwards'
        )
    radii = VALID_RATIO * covalent_radii[overlayer.atoms.numbers[~overlayer.frozen]]
    area = float(np.linalg.norm(np.cross(*np.asarray(overlayer.atoms.cell)[:2])))
    room = 0.74 * area * (high - max(low, 0.0) + 2 * float(radii.mean()))
    if (4 / 3 * np.pi * radii**3).sum() > room:
        raise ValueError(
            f'{len(radii)} mobile atoms do not fit into the window {low:g} to {high:g} A over {area:.1f} A^2; '
            'widen height=(low, high), enlarge the cell, or use fewer atoms'
        )
    return low, high


@dataclass
class Slab(PlainRepresentation):
    """Encode overlayers as the field ``positions`` (n_mobile, 3) on a frozen substrate.

    Parameters
    ----------
    height : (low, high)
        Window of the mobile atoms in A above the topmost frozen atom.
    dtype : torch.dtype
        Precision of networks and sampling; the frozen atoms stay float64 in the template and come back bit-identical.
    spacing : float, optional
        All lengths are scaled so that neighbors in the substrate are this far apart, A: one network for many metals. ``height``
        and the process are meant after scaling. Default: lengths as they are.
    """

    kinds: ClassVar[tuple[str, ...]] = ('surface', 'forcefield')
    fields: ClassVar[frozenset[str]] = frozenset({'positions'})

    height: tuple[float, float] = (0.0, 4.5)
    dtype: torch.dtype = torch.float32
    spacing: float | None = None

    def encode(self, images: list[Atoms | SlabTemplate], conditions: dict | None = None) -> Batch:
        """Return a batch of structures or templates; ``conditions``: name -> B numbers.

        Raises
        ------
        ValueError
            No structures, or they differ in pbc.
        """
        templates = [SlabTemplate.of(each) for each in ([images] if isinstance(images, Atoms) else images)]
        if not templates:
            raise ValueError('a batch holds one or more structures; got none')
        check_same_pbc([each.atoms for each in templates])
        batch = self.assemble(
            np.concatenate([each.atoms.positions[~each.frozen] for each in templates]),
            np.concatenate([each.atoms.positions[each.frozen] for each in templates]),
            np.concatenate(
                [each.atoms.numbers[~each.frozen] for each in templates] + [each.atoms.numbers[each.frozen] for each in templates]
            ),
            np.stack([each.atoms.cell.complete()[:] for each in templates]),
            np.array([each.surface_z for each in templates]),
            [int((~each.frozen).sum()) for each in templates],
            [int(each.frozen.sum()) for each in templates],
            tuple(bool(p) for p in templates[0].atoms.pbc),
            conditions,
            [self.scale(each) for each in templates],
        )
        batch.extras['templates'] = templates
        return batch

    def assemble(
        self,
        positions: np.ndarray,
        substrate: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        top: Sequence[float] | np.ndarray,
        mobile_counts: Sequence[int] | np.ndarray,
        frozen_counts: Sequence[int] | np.ndarray,
        pbc: Sequence[bool],
        conditions: dict | None = None,
        scale: Sequence[float] | np.ndarray | None = None,
    ) -> Batch:
        """Build a batch from flat arrays (positions (n, 3), substrate (m, 3), numbers (n + m,), cell (B, 3, 3)), in A.

        ``scale`` (B,), see :meth:`scale`, multiplies all lengths.
        """
        size = len(mobile_counts)
        rows = torch.repeat_interleave(torch.arange(size), torch.tensor(mobile_counts))
        frozen_rows = torch.repeat_interleave(torch.arange(size), torch.tensor(frozen_counts))
        scale = np.ones(size) if scale is None else np.asarray(scale, float)
        positions, substrate = positions * scale[rows, None], substrate * scale[frozen_rows, None]
        top = np.asarray(top) * scale
        cell_t = torch.as_tensor(cell * scale[:, None, None], dtype=self.dtype)
        low = torch.as_tensor(top + self.height[0], dtype=self.dtype)[rows, None]
        high = torch.as_tensor(top + self.height[1], dtype=self.dtype)[rows, None]
        plane = Torus(cell_t[rows][:, :2, :2], (bool(pbc[0]), bool(pbc[1])))
        roles = torch.cat([torch.zeros(len(rows), dtype=torch.long), torch.ones(len(frozen_rows), dtype=torch.long)])
        extras = {
            'numbers': torch.as_tensor(numbers, dtype=torch.long),
            'roles': roles,
            'rows': torch.cat([rows, frozen_rows]),
            'frozen': torch.as_tensor(substrate, dtype=self.dtype),
            'cell': cell_t,
            'scale': torch.as_tensor(scale, dtype=self.dtype),
            'pbc': tuple(bool(p) for p in pbc),
        }
        given = {k: torch.as_tensor(v, dtype=self.dtype) for k, v in (conditions or {}).items()}  # (B, ...)
        return Batch(
            fields={'positions': torch.as_tensor(positions, dtype=self.dtype)},
            rows={'positions': rows},
            size=size,
            domains={'positions': (plane, Interval(low, high))},
            conditions=given,
            extras=extras,
        )

    def decode(self, batch: Batch) -> list[Atoms]:
        """Return copies of the encoded structures with the mobile positions of ``batch``; frozen atoms keep their bits.

        Raises
        ------
        ValueError
            The batch was assembled from arrays: there are no structures to copy.
        """
        if 'templates' not in batch.extras:
            raise ValueError('a batch of Slab.encode can be decoded; this one was assembled from arrays, without templates')
        x = batch.fields['positions'].detach().double().cpu().numpy()
        rows = batch.rows['positions'].cpu().numpy()
        x = x / np.array([self.scale(each) for each in batch.extras['templates']])[rows, None]
        return [each.with_mobile(x[rows == k]) for k, each in enumerate(batch.extras['templates'])]

    def scale(self, template: Any) -> float:
        """Return by what lengths of a structure are multiplied: a template, or whatever has a ``spacing`` in A."""
        return 1.0 if self.spacing is None else self.spacing / template.spacing

    def process(self, sigma_min: float = 0.02, sigma_max: float = 8.0) -> JointProcess:
        """Return wrapped normal noise in the plane and truncated normal noise along z, one schedule, A."""
        schedule = GeometricVE(sigma_min, sigma_max)
        parts = [((0, 2), WrappedNormal(schedule)), ((2, 3), TruncatedNormal(schedule))]
        return JointProcess({'positions': ProductProcess(parts)})

    def check_header(self, header: dict, networks: dict[str, torch.nn.Module]) -> None:
        """Raise a ValueError where the window has no lower and upper end, or a diffusion model no process."""
        low, high = self.height
        require(low < high, 'the window has a lower and an upper end', self.height)
        require(self.spacing is None or self.spacing > 0, 'the distance of neighbors is positive', self.spacing)
        require('process' in header or header['kind'] == 'forcefield', 'a surface model has a process', None)

    def todict(self) -> dict:
        """Return class name and parameters, JSON-serialisable."""
        return {'name': 'Slab', 'height': list(self.height)} | ({} if self.spacing is None else {'spacing': self.spacing})

    @classmethod
    def fromdict(cls, values: dict) -> Slab:
        """Rebuild from :meth:`todict`."""
        low, high = (float(x) for x in values['height'])
        spacing = values.get('spacing')
        return cls(height=(low, high), spacing=None if spacing is None else float(spacing))
