"""Generate pure-silica zeolites by the diffusion of energy and density grids (Park et al., J. Mater. Chem. A 12, 6507, 2024)."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
import torch
from ase import Atoms

from ..data.framework_nets import describe_net
from ..data.zeolite_cells import IDENTITY, ZeoliteCells, shipped_cells
from ..data.zeolites import read_zeolites
from ..diffusion import Batch, ClassifierFree
from ..porous import adsorption_properties, check_framework, energy_grid
from ..representations import Failure
from ..representations.cells import common_operations, space_group_of
from ..representations.voxels import GridSymmetry, symmetric_shape
from ..training.zeolite import SAMPLING, new_voxels, train_zeolite
from ..utils.checks import check_integer
from ..utils.provenance import forget_notes, note
from .base import Generator, collect
from .compiling import copy_network
from .grids import Draw, Interpolation, SymmetricNoise, averaged, with_multiplicity
from .model import Outcome
from .random_sites import GOOD, RandomSites
from .relaxation import relax_keywords
from .tasks import FromNoise
from .trajectory import DenoisingTrajectory
from .zeolite_arguments import (
    PROPERTIES,
    TOLERANCE,
    check_cost,
    check_edges,
    check_given,
    check_groups,
    check_points,
    check_targets,
    check_tolerance,
    is_compatible,
    numbers_together,
    space_group_text,
    targets_of,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DEFAULT_MODEL = 'zeolite-silica'
SOURCES = ('random', 'network')
TRIES = {'random': 20, 'network': 60}  # each some 400 cells, 1 s; a grid: cheap, and most give no framework
LEAST_VOLUME = 0.9  # share of the drawn cell that a framework with a target keeps: what shrinks loses void fraction
STRAIN, DRAWS = 0.02, 50  # relative change of a cell that is drawn; draws until one fits grids of a fixed shape
SYMPREC = 0.05  # A
NEAR_CELL = 0.1  # of the logarithm of an edge: how far the cell of a framework is from the one asked for, at most
MOST_COST = 0.03  # A^2 per T: valid; IZA frameworks have 3e-4 (median)


class ZeoliteDiffusion(Generator):
    """Generate SiO2 frameworks.

    Cell, space group and number of T sites are drawn together from known frameworks, near the target where there is one. With
    ``source='random'`` random symmetric T sites are relaxed there to a framework (:mod:`ase_diffusion.porous.growth`); with
    ``source='network'`` the network denoises the grids, and a framework is restored from them
    (:mod:`ase_diffusion.porous.silica`). Only frameworks with four O at every Si, two Si at every O and little strain come back.

    Parameters
    ----------
    model : str or Path
        A shipped model, a checkpoint, or ``'untrained'`` (then :meth:`fit` comes first).
    source : 'random', 'network' or None
        Where candidates come from. None: 'random', which gives more good frameworks per second, where nothing is asked for that
        only a network has: another model, ``symmetry=False``, ``steps``, ``sampler`` or ``denoising_trajectory``.
    symmetry : bool
        Of the network: average the noise and the predictions over the space group. False: no symmetry, as in the paper; few
        grids give a framework. The sampler is then 'renoised_ancestral', unless it is given.
    cell : array_like, optional
        Edges (3,) or an orthogonal cell (3, 3), A; it is fitted with the atoms, random sites keep each edge within 10 %.
        Default: drawn.
    space_group : int or list of int, optional
        Numbers to draw from; frameworks have less symmetry where this one strains them too much, or the cell changes its shape.
    max_cost : float
        Largest cost of the distance least squares, A^2 per T: 0.03 is valid, 0.01 good, 0.003 like real zeolites.
    tolerance : dict, optional
        Largest deviation of a framework from a target; by default 0.03 in ``void_fraction``, 1.5 kJ/mol in
        ``heat_of_adsorption`` and a factor of 1.5 in ``henry_coefficient``; a dict changes some of them, None or {} hands
        out everything.
    probe_shape : sequence of three int
        Points of the energy grid from which the properties of a result are computed.
    relax : dict, optional
        Keywords of :func:`ase_diffusion.relax.relax`; positions and cell are relaxed before a framework is returned, and its
        properties computed again.
    rng, steps, sampler, batch_size, device, logfile, trajectory, denoising_trajectory, maxtries, validate
        See :class:`ase_diffusion.generators.base.Generator`. There is no ``best_of``: energies of different compositions cannot
        be compared.

    Raises
    ------
    ValueError
        A cell that is not orthogonal; a space group that no known framework has; ``best_of``; random sites with what only a
        network has.
    CheckpointError
        The model cannot be loaded.

    Notes
    -----
    ``info['key_value_pairs']`` of a result has ``space_group`` (of spglib, 0.05 A), ``void_fraction``, ``henry_coefficient``
    and ``heat_of_adsorption`` (methane, 298 K; beside ``condition_void_fraction``, ... where they were asked for), ``cost`` (A^2
    per T), ``source``, ``novelty`` ('iza', 'known' or 'new') and, of an IZA net, ``topology``, such as 'SOD'; from the network
    also ``moved`` (A, distance of the T sites from the peaks of the grid) and ``restored_by``, the step of the restoration that
    succeeded.

    Examples
    --------
    >>> gen = ZeoliteDiffusion()                                                            # doctest: +SKIP
    >>> images = gen.sample(8, void_fraction=0.2)                                           # doctest: +SKIP
    """

    kind: ClassVar[str] = 'zeolite'
    default_sampling: ClassVar[dict] = SAMPLING
    default_guidance_scale: ClassVar[float] = 2.0
    recorded: ClassVar[tuple[str, ...]] = ('source', 'symmetry', 'cell', 'space_group', 'max_cost', 'tolerance', 'probe_shape')

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        source: Literal['random', 'network'] | None = None,
        symmetry: bool = True,
        cell: ArrayLike | None = None,
        space_group: int | Sequence[int] | None = None,
        max_cost: float = MOST_COST,
        tolerance: dict[str, float] | None = TOLERANCE,
        probe_shape: Sequence[int] = (32, 32, 32),
        relax: dict | None = None,
        **options: Any,
    ) -> None:
        if options.get('best_of', 1) != 1:
            raise ValueError(
                f'best_of={options["best_of"]!r} compares energies, so that all candidates need one composition; frameworks have '
                'different ones: leave best_of out'
            )
        tries = options.pop('maxtries', None)
        super().__init__(**options)
        self.symmetry, self.cell, self.max_cost = bool(symmetry), check_edges(cell), check_cost(max_cost)
        self.source = self._source_of(source, model)
        self.maxtries = check_integer('maxtries', TRIES[self.source] if tries is None else tries, 1)
        self.tolerance = check_tolerance(tolerance)
        self.probe_shape = check_points(probe_shape)
        self.cells: ZeoliteCells = shipped_cells()
        self.space_group = check_groups(space_group, self.cells)
        if self.space_group is not None and not self.symmetry:
            raise ValueError('space_group needs symmetry=True; leave it out to generate without symmetry')
        self.rows = self._rows()
        self.relax = relax_keywords(relax, self.device, numbers=(14, 8), filter='FrechetCellFilter')
        self._load(model)

    def _sampling_here(self) -> dict:  # without symmetry twice as many valid frameworks as with 'ancestral'
        return {} if self.symmetry else {'sampler': 'renoised_ancestral'}

    def _source_of(self, source: str | None, model: str | Path) -> str:
        """Return where candidates come from; raise a ValueError where that does not fit the other arguments."""
        if source not in (None, *SOURCES):
            raise ValueError(f'source is one of {", ".join(SOURCES)}, or None; got {source!r}')
        needs = [name for name, value in self._asked.items() if value is not None]
        needs += ['symmetry=False'] * (not self.symmetry) + ['denoising_trajectory'] * (self.denoising_trajectory is not None)
        if source == 'random' and needs:
            raise ValueError(f"random sites are symmetric and are not denoised; leave out {', '.join(needs)}, or source='random'")
        return source or ('network' if needs or str(model) != DEFAULT_MODEL else 'random')

    def _rows(self) -> np.ndarray:
        """Return which known cells may be drawn, bool (n,)."""
        rows = np.ones(len(self.cells), bool)
        if self.space_group is not None:
            rows &= np.isin(self.cells.group, self.space_group)
        if self.cell is not None and self.symmetry:
            fits = [is_compatible(self.cell, rotations) for rotations, _ in self.cells.sets]
            rows &= np.array(fits)[self.cells.which]
            near = np.abs(np.log(self.cells.lengths / self.cell)).max(1)
            rows &= near <= max(0.15, np.sort(near[rows])[:20].max(initial=0.0))
        if not rows.any():
            raise ValueError(f'no known framework has the space group {space_group_text(self.space_group)} in such a cell')
        return rows

    def check_conditions(self, conditions: dict) -> dict:
        """Return all conditions of a call with their defaults, checked.

        Raises
        ------
        ValueError
            A value has no meaning, or no framework can have it.
        TypeError
            A keyword is no condition of this model.
        """
        if self.source == 'random' and conditions.get('guidance_scale') is not None:
            raise ValueError("guidance_scale is that of a network; pass source='network', or leave it out")
        merged = super().check_conditions(conditions)
        if self.source == 'random' or not targets_of(merged):
            merged['guidance_scale'] = None
        check_targets(merged)
        self._weights(0, merged)  # an error where no framework has such targets
        return merged

    def _asked_of(self, conditions: dict, seed: int) -> dict:
        asked = super()._asked_of(conditions, seed)
        if len(targets_of(asked)) > 1 and asked != conditions:  # ranges, of which only some numbers go together
            asked = numbers_together(conditions, seed, lambda targets: self.cells.weights(targets, self.rows))
        return asked

    # draws

    def _draw_cell(self, weights: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int, tuple[np.ndarray, np.ndarray]]:
        """Return edges (3,) in A, number of T sites and operations of a known cell, drawn with these weights."""
        row = int(rng.choice(len(weights), p=weights))
        strain = 1 + STRAIN * rng.standard_normal()
        edges, silicon = self.cells.lengths[row].astype(float) * strain, int(self.cells.silicon[row])
        if self.cell is not None:
            edges = self.cell
            silicon = max(1, round(silicon * edges.prod() / self.cells.lengths[row].astype(float).prod()))
        return edges, silicon, self.cells.operations(row) if self.symmetry else IDENTITY

    def _weights(self, seed: int, conditions: dict) -> np.ndarray:
        """Return with which weights a known cell is drawn for the framework with this seed, (n,)."""
        return self.cells.weights(targets_of(self._asked_of(conditions, seed)), self.rows)

    def _draw(self, seed: int, conditions: dict) -> Draw:
        """Return cell, space group, T number and grid of the structure with this seed."""
        rng = np.random.default_rng([seed % 2**32, seed >> 32])
        weights, voxels = self._weights(seed, conditions), self.representation
        for _ in range(DRAWS):
            edges, silicon, operations = self._draw_cell(weights, rng)
            shape = voxels.shape or symmetric_shape(edges, operations, voxels.pitch, voxels.multiple)
            if not self.symmetry:
                return Draw(edges, tuple(shape), silicon, None)
            try:
                return Draw(edges, tuple(shape), silicon, GridSymmetry.of(*operations, shape), operations)
            except ValueError:  # the grid of a model with a fixed shape has not this symmetry
                continue
        return Draw(edges, tuple(shape), silicon, None)

    def _draws(self, seeds: list[int], conditions: dict, task: FromNoise) -> list[Draw]:
        if isinstance(task, Interpolation):
            return [task.draw] * len(seeds)
        return [self._draw(seed, conditions) for seed in seeds]

    def _groups_of(self, seeds: list[int], conditions: dict, task: FromNoise) -> list[list[int]]:
        """Return the places of seeds whose grids have one shape; on a CPU one by one, which costs the same there."""
        if self.device.type == 'cpu':
            return [[k] for k in range(len(seeds))]
        groups = defaultdict(list)
        for k, draw in enumerate(self._draws(seeds, conditions, task)):
            groups[draw.shape].append(k)
        return list(groups.values())

    # batches

    def _is_random(self, task: FromNoise) -> bool:
        return self.source == 'random' and not isinstance(task, Interpolation)

    def _candidates(self, seeds: list[int], conditions: dict, task: FromNoise) -> list[Outcome]:
        if self._is_random(task):
            found = [self._search(seed, conditions) for seed in seeds]
            return self._labelled(found, seeds, conditions, {'model': 'none', 'source': 'random'})
        outcomes: list = [None] * len(seeds)
        for places in self._groups_of(seeds, conditions, task):
            for k, outcome in zip(places, super()._candidates([seeds[k] for k in places], conditions, task), strict=True):
                outcomes[k] = outcome
        return outcomes

    def _search(self, seed: int, conditions: dict) -> Atoms | Failure:
        """Return a framework from random sites, or why there is none."""
        draw_cell = partial(self._draw_cell, self._weights(seed, conditions))
        search = RandomSites(draw_cell, min(self.max_cost, GOOD), symmetric=self.space_group is not None)
        return search(seed, partial(self._is_near, targets_of(self._asked_of(conditions, seed))))

    def sample_batches(self, n: int, **conditions: Any) -> Iterator[Batch]:
        """Yield finished batches, of n samples in all, each of grids of one shape."""
        n, conditions, task = check_integer('n', n, 1), self.check_conditions(conditions), self._task()
        return (
            self._sample_batch([seeds[k] for k in places], conditions, task)
            for seeds in self._seeds(n)
            for places in self._groups_of(seeds, conditions, task)
        )

    def sample_grids(self, n: int, **conditions: Any) -> list[dict[str, np.ndarray]]:
        """Return grids before a framework is restored from them.

        Returns
        -------
        list of dict
            ``energy`` (X, Y, Z), E / kB of methane in K inside [-4000, 5000]; ``Si`` and ``O``, sums of Gaussians of height 1;
            ``cell`` (3, 3) in A. Shapes differ from grid to grid.
        """
        out = []
        for batch in self.sample_batches(n, **conditions):
            grids = {name: grid.cpu().numpy() for name, grid in self.representation.to_grids(batch.fields['grids']).items()}
            cells = batch.extras['cells'].double().cpu().numpy()
            out += [{**{name: grid[k] for name, grid in grids.items()}, 'cell': cells[k]} for k in range(batch.size)]
        return out

    def _sample_batch(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        draws, voxels = self._draws(seeds, conditions, task), self.representation
        known = {**self.network.settings.get('conditions', {}), **self.network.settings.get('tiled', {})}
        each = [self._asked_of(conditions, seed) for seed in seeds]
        asked = {name: [float(one[name]) for one in each] for name in known if conditions.get(name) is not None}
        if 'volume_per_t' in known and 'volume_per_t' not in asked:
            asked['volume_per_t'] = [draw.edges.prod() / draw.silicon for draw in draws]
        batch = voxels.empty(np.stack([np.diag(draw.edges) for draw in draws]), draws[0].shape, asked)
        if 'multiplicity' in known:
            values = [1.0 if draw.symmetry is None else draw.symmetry.multiplicity for draw in draws]
            batch.extras['multiplicity'] = torch.tensor(values, dtype=voxels.dtype)
        batch = batch.to(self.device)
        symmetries = [draw.symmetry for draw in draws]
        scale = conditions.get('guidance_scale')
        if scale is None:
            scale = self.default_guidance_scale if targets_of(conditions) else 1.0
        network = ClassifierFree(with_multiplicity(self.network), scale)
        noise = SymmetricNoise(seeds, symmetries)
        process, begin = task.begin(self.process, batch, noise, network)
        with DenoisingTrajectory(self, begin['steps']) as movie, _half(self.device):
            final = self._sampler()(averaged(network, symmetries), process, batch, generator=noise, callback=movie, **begin)
        final.extras['operations'] = [draw.operations for draw in draws]  # for the restoration
        final.extras['labels'] = {'source': 'network'}
        if targets_of(conditions) and self.tolerance:
            final.extras['least_volume'] = LEAST_VOLUME
        return final

    def _finish(self, atoms: Atoms) -> Atoms | Failure:
        """Return a framework with its notes, or why it is none."""
        info = {name: atoms.info.pop(name) for name in ('step', 'moved', 'cost') if name in atoms.info}
        if self.validate:
            if (fault := check_framework(atoms)) is not None:
                return Failure(fault)
            if not info.get('cost', 0.0) < self.max_cost:
                return Failure('strained')
        notes = {name: round(float(info[name]), 6) for name in ('moved', 'cost') if name in info}
        notes |= {'restored_by': str(info['step'])} if info.get('step') else {}
        note(atoms, **notes, **self._properties(atoms))
        return atoms

    def _properties(self, atoms: Atoms) -> dict:
        """Return space group, adsorption properties and what is known of the net of a framework."""
        found = adsorption_properties(energy_grid(atoms, shape=self.probe_shape))
        notes = {name: round(float(found[name]), 6) for name in PROPERTIES if math.isfinite(found[name])}
        net = describe_net(atoms) if check_framework(atoms) is None else {}
        return {'space_group': space_group_of(atoms, SYMPREC), **notes, **net}

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        return check_framework(atoms) or self._off_target(atoms.info.get('key_value_pairs', {}))

    def _off_target(self, pairs: dict) -> str | None:
        """Return which property of a framework is too far from what was asked for, or None."""
        for name, most in self.tolerance.items():
            target, value = pairs.get(f'condition_{name}'), pairs.get(name, math.nan)
            if target is None:
                continue
            if name == 'henry_coefficient':
                near = value > 0 and abs(math.log(value / max(target, 1e-9))) <= math.log(most)
            else:
                near = abs(value - target) <= most
            if not near:
                return f'{name} off target'
        return None

    def _is_near(self, targets: dict[str, float], atoms: Atoms) -> bool:
        """Tell whether a framework is as near to the cell asked for, and to the targets, as the tolerance asks for."""
        if self.cell is not None and np.abs(np.log(atoms.cell.lengths() / self.cell)).max() > NEAR_CELL:
            return False
        if not targets or not self.tolerance:
            return True
        known = adsorption_properties(energy_grid(atoms, shape=self.probe_shape))
        return self._off_target({f'condition_{name}': value for name, value in targets.items()} | known) is None

    def _after_relaxation(self, atoms: Atoms) -> Atoms:
        atoms = super()._after_relaxation(atoms)
        forget_notes(atoms, (*PROPERTIES, 'net_key', 'novelty', 'topology'))
        if check_framework(atoms) is None:
            note(atoms, **self._properties(atoms))
        return atoms

    # interpolation

    @overload
    def interpolate(
        self, a: Atoms, b: Atoms, weight: float = 0.5, *, n: None = None, noise: float = 2.0, **conditions: Any
    ) -> Atoms: ...
    @overload
    def interpolate(
        self, a: Atoms, b: Atoms, weight: float = 0.5, *, n: int, noise: float = 2.0, **conditions: Any
    ) -> list[Atoms]: ...
    def interpolate(
        self, a: Atoms, b: Atoms, weight: float = 0.5, *, n: int | None = None, noise: float = 2.0, **conditions: Any
    ) -> Atoms | list[Atoms]:
        """Return a framework, or a list of n, between two: both noised, mixed, and denoised.

        What is common to the symmetry of both, in their cells as given, is kept (unless ``symmetry=False``).

        Parameters
        ----------
        a, b : Atoms
            SiO2 frameworks in orthogonal cells whose grids have one shape (cells that differ by less than about 10 %). Never
            changed.
        weight : float
            0 (a) to 1 (b).
        n : int, optional
        noise : float
            Noise over signal from which to denoise; more noise forgets more of both.
        conditions
            As for :meth:`sample`.

        Raises
        ------
        ValueError
            A structure is no such framework, grids differ in shape, or weight or noise is out of range.
        GenerationFailed
            See :meth:`sample`.
        """
        count, conditions = check_integer('n', 1 if n is None else n, 1), self.check_conditions(conditions)
        if not 0 <= weight <= 1:
            raise ValueError(f'weight is the share of the second framework, 0 to 1; got {weight!r}')
        schedule = self.process.processes['grids'].schedule
        low, high = schedule.sigma_min, schedule.sigma_max
        if not low < noise <= high:
            raise ValueError(f'noise lies above {low:g} and at most at {high:g}, those of the model; got {noise!r}')
        for name, atoms in (('first', a), ('second', b)):
            check_given(name, atoms)
        shapes = [self.representation.shape_of(atoms) for atoms in (a, b)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f'frameworks to interpolate have grids of one shape; got {shapes[0]} and {shapes[1]}: take two with similar '
                'cells, or swap the axes of one'
            )
        x = self.representation.encode([a, b]).fields['grids']  # (2, C, X, Y, Z)
        edges = (1 - weight) * a.cell.lengths() + weight * b.cell.lengths()
        silicon = round((1 - weight) * (a.numbers == 14).sum() + weight * (b.numbers == 14).sum())
        start = math.log(noise / low) / math.log(high / low)
        draw = Draw(edges, shapes[0], silicon, None)
        if self.symmetry:
            operations = common_operations([a, b], SYMPREC)
            with contextlib.suppress(ValueError):  # the grid has not this symmetry
                draw = Draw(edges, shapes[0], silicon, GridSymmetry.of(*operations, shapes[0]), operations)
        task = Interpolation(x, weight, draw, self.steps, start)
        return collect(self._iterate(count, conditions, task), n)

    # training

    def _read(self, path) -> list[Atoms]:
        return read_zeolites(path)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        if self.networks:
            options = {
                'network': copy_network(self.network).requires_grad_(True),
                'representation': self.representation,
                'sampling': self.sampling,
                **options,
            }
        return train_zeolite(images, out, **options)

    def _untrained(self, images):
        return new_voxels(images)

    def _identity(self) -> dict:
        return {'symmetry': self.symmetry}

    def _advice(self) -> str:
        asked = 'ask for what known frameworks have, or pass a larger max_cost or tolerance (tolerance=None hands out all)'
        return asked if self.source == 'random' else f"{asked}, or source='random'"

    def _how(self, task: FromNoise) -> list[str]:
        return ['random symmetric sites, no network'] if self._is_random(task) else super()._how(task)

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        told = super().todict()
        if self.source == 'random':
            told = {name: value for name, value in told.items() if name not in ('sampler', 'steps')}
        return {
            **told,
            'source': self.source,
            'cell': None if self.cell is None else self.cell.tolist(),
            'space_group': self.space_group,
            'max_cost': self.max_cost,
            'tolerance': self.tolerance,
            'probe_shape': list(self.probe_shape),
        }


def _half(device: torch.device):
    """Return bfloat16 autocast where the device has it."""
    return torch.autocast(device.type, torch.bfloat16) if device.type in ('cpu', 'cuda') else contextlib.nullcontext()
