"""Training recipe of CrysTens images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch.nn.functional import cross_entropy

from ..diffusion import Batch, JointProcess, NoiseStream, TimeDensity
from ..networks import RowTransformer
from ..networks.image_layout import ATOMS, HEADER, is_present
from ..representations import CrysTens
from ..representations.cells import conventional, equivalent_origins
from ..representations.conditions import ClassCondition, Condition, or_unknown
from ..representations.crystal import check_crystal
from ..representations.crystens import sites_of, table_of
from .data import (
    EndlessBatches,
    Structures,
    as_names,
    known_values,
    numbers_of,
    pairs_of,
    pick_alike,
    split_images,
    usable_structures,
)
from .objectives import DenoisingLoss
from .recipe import check_new, check_options, condition_forms, condition_scales, header_of, network_to_train, run

SAMPLING = {'sampler': 'renoised_ancestral', 'steps': 15}
SIGMA = (0.01, 80.0)
DENSITY = TimeDensity(0.6, 0.167)  # ln sigma = 0.8 +- 1.5 between these
GIVEN = ('shift', 'scale', 'absent', 'log_lengths', 'deviation', 'conditions')  # settings that come from the data
UNITS = {'image': '1', 'formation_energy': 'eV/atom', 'space_group': 'number', 'elements': 'symbols'}
EARLY = {0: 4.0, 10: 4.0}  # fields in units of a quarter of their deviation, so that they are seen earlier: Z and space group
GROUPS = ClassCondition(tuple(str(k) for k in range(1, 231)))


class ImageLoss(DenoisingLoss):
    """Squared error of F with every field of an image weighed alike, and cross-entropies of Z and of the space group.

    Parameters
    ----------
    process, density
        See :class:`~ase_diffusion.training.objectives.DenoisingLoss`.
    representation : CrysTens
    entropy : float
        Weight of the cross-entropy of Z in nats, a mean over atoms; that of the space group has 0.3 of it.
    """

    def __init__(
        self, process: JointProcess, representation: CrysTens, density: TimeDensity | None = DENSITY, entropy: float = 0.3
    ) -> None:
        super().__init__(process, density=density)
        self.representation, self.entropy = representation, float(entropy)

    def __call__(self, network: torch.nn.Module, batch: Batch, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        """Return ``{'loss': ...}`` averaged over the batch, and in training the ``nats`` of a tied network."""
        image, counts = batch.fields['image'], batch.extras['counts']
        order = torch.randperm(batch.size, generator=generator) + torch.rand((), generator=generator)
        t = self.times(order / batch.size).to(image.device, image.dtype)
        noisy, target = self.process.add_noise(batch, t, NoiseStream(generator))
        level = self.process.c_noise(t)
        out = network(noisy, level, batch.conditions)
        weights = network.loss_weights(counts, level, batch.extras)  # (B, 4, 64, 64)
        loss = ((out['image'] - target['image']).square() * weights).mean()
        if 'elements' not in out or not self.entropy:
            return {'loss': loss}
        nats = self.nats(image, counts, out)
        return {'loss': loss + self.entropy * nats, 'nats': nats.detach()}

    def nats(self, image: torch.Tensor, counts: torch.Tensor, out: dict) -> torch.Tensor:
        """Return the cross-entropy of Z, a mean over atoms, plus 0.3 of that of the space group, a mean over crystals."""
        width = out['elements'].shape[1]
        z = self.whole(image[:, 0, 0, HEADER : HEADER + width], 0)  # (B, N)
        group = self.whole(image[:, 0, 10, HEADER], 10)  # (B,)
        here = is_present(counts, width).to(image.dtype)
        each = cross_entropy(out['elements'].transpose(1, 2), (z - 1).clamp(min=0), reduction='none') * here
        return (each.sum(1) / counts).mean() + 0.3 * cross_entropy(out['groups'], group - 1)

    def whole(self, pixels: torch.Tensor, field: int) -> torch.Tensor:
        """Return the whole numbers of a field."""
        return (pixels * self.representation.scale[field] + self.representation.shift[field]).round().long()


class ImageBatches(EndlessBatches):
    """Draw crystals and build their images batch by batch; options of :class:`~ase_diffusion.training.data.EndlessBatches`.

    Parameters
    ----------
    data : Structures
    representation : CrysTens
    forms : dict of str to Condition
    alike : bool
        Whether the crystals of a batch have similar numbers of atoms, so that a :class:`RowTransformer` has few absent slots.
    sites : float
        Share of the crystals whose sites are told, see :func:`ase_diffusion.representations.crystens.sites_of`.
    """

    def __init__(
        self,
        data: Structures,
        representation: CrysTens,
        forms: dict[str, Condition],
        *,
        alike: bool = False,
        sites: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(representation, len(data), **options)
        self.table, self.alike, self.sites = table_of(data.images), alike, float(sites)
        self.sizes = self.table[2]
        known = {name: or_unknown(form, known_values(data.conditions[name])) for name, form in forms.items()}
        self.conditions = {name: form.tensor(known[name]) for name, form in forms.items()}

    def pick(self, k: int, rng: np.random.Generator) -> np.ndarray:
        """Return the crystals of batch k, of similar sizes where that is wanted."""
        return pick_alike(self, k) if self.alike else super().pick(k, rng)

    def batch_of(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Return a batch of some crystals with all their conditions; with ``rng`` each from one of its equivalent origins."""
        index = np.asarray(index)
        conditions = {name: values[torch.from_numpy(index)] for name, values in self.conditions.items()}
        atoms, cell, counts = (values[index] for values in self.table)
        if rng is not None:
            atoms = moved_origins(atoms, cell[:, 6].astype(int), counts, rng)
        batch = self.representation.assemble(atoms, cell, counts, conditions)
        if self.sites:
            told = np.ones(len(index), bool) if rng is None else rng.random(len(index)) < self.sites
            batch.extras |= sites_of(atoms, np.where(told, cell[:, 6], 0), counts)
        return batch


def moved_origins(atoms: np.ndarray, groups: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return Z and coordinates (B, 52, 4) of conventional cells seen from equivalent origins, mirror images among them, sorted.

    See :func:`ase_diffusion.representations.cells.equivalent_origins`.
    """
    drawn = []
    for number in groups:
        signs, shifts = equivalent_origins(int(number))
        k = rng.integers(len(signs))
        drawn.append([signs[k], *shifts[k]])
    maps = np.array(drawn)  # (B, 4)
    f = (atoms[..., 1:] * maps[:, :1, None] + maps[:, None, 1:]) % 1.0
    absent = np.arange(ATOMS) >= counts[:, None]
    f[(f > 1 - 1e-6) | absent[..., None]] = 0.0
    keys = np.where(absent[..., None], np.inf, np.concatenate([atoms[..., :1], np.round(f, 5)], -1))
    order = np.lexsort(keys.transpose(2, 0, 1)[::-1])  # by Z, x, y, z
    return np.take_along_axis(np.concatenate([atoms[..., :1], f], -1), order[..., None], 1)


class ImageData:
    """Training and validation batches of images, their representation and their conditions, for every network of images.

    Parameters
    ----------
    images, validation, conditions
        See :func:`train_crystens`.
    representation : CrysTens, optional
        Default: with the scales of the training data.
    batch_size, dropout, seed, alike, sites
        See :class:`ImageBatches`.
    early : bool
        Whether a measured representation has Z and space group in smaller units.
    scales
        Options of :meth:`CrysTens.of_table`.
    """

    def __init__(
        self,
        images: list[Atoms],
        validation: list[Atoms] | None,
        conditions: list[str] | None,
        representation: CrysTens | None,
        batch_size: int,
        dropout: float,
        seed: int,
        alike: bool = False,
        sites: float = 0.0,
        early: bool = False,
        **scales: Any,
    ) -> None:
        self.training, held = _split(images, validation, conditions, seed)
        known = self.training.conditions
        self.forms = condition_forms({name: values for name, values in known.items() if name != 'space_group'})
        if 'space_group' in known:
            self.forms['space_group'] = GROUPS
        self.scales = condition_scales(self.forms, known)
        common = dict(dropout=dropout, seed=seed, sites=sites)
        self.source = ImageBatches(
            self.training, representation or CrysTens(), self.forms, alike=alike, batch_size=batch_size, **common
        )
        if representation is None:
            self.source.representation = CrysTens.of_table(*self.source.table, **scales)
            if early:
                mine = self.source.representation
                mine.scale = tuple(x / EARLY.get(field, 1.0) for field, x in enumerate(mine.scale))
        self.representation = self.source.representation
        self.held = ImageBatches(held, self.representation, self.forms, **common)

    def groups(self) -> dict[str, dict[str, int]]:
        """Return how many training crystals of how many atoms are in which space group: {'8': {'225': 12, ...}, ...}."""
        found: dict[str, dict[str, int]] = {}
        pairs = np.stack([self.source.sizes, self.source.table[1][:, 6].astype(int)], 1)
        for (n, group), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
            found.setdefault(str(n), {})[str(group)] = int(count)
        return found

    def header(self, process: JointProcess | None, **more: Any) -> dict:
        """Return the header of a checkpoint."""
        data = self.training.describe()
        return header_of('crystens', self.representation, process, units=UNITS, conditions=self.forms, data=data, **more)


def train_crystens(
    images: list[Atoms],
    out: str | Path,
    *,
    validation: list[Atoms] | None = None,
    conditions: list[str] | None = None,
    network: RowTransformer | None = None,
    representation: CrysTens | None = None,
    steps: int = 20_000,
    features: int | None = None,
    blocks: int | None = None,
    batch_size: int = 64,
    dropout: float = 0.33,
    entropy: float = 0.3,
    sites: float = 0.75,
    seed: int = 0,
    settings: dict | None = None,
    **options: Any,
) -> Path:
    """Train a :class:`RowTransformer` on crystals; returns the path of the best checkpoint.

    Parameters
    ----------
    images, validation : list of Atoms
        Made conventional and seen from equivalent origins; those of more than 52 atoms are left out. Without ``validation`` the
        splits 'train' and 'val' that they carry, else 5 % of the compositions are held out.
    conditions : list of str, optional
        Numbers of the key-value pairs, 'space_group' and 'elements'; default: all of them.
    network : RowTransformer, optional
        To start from, with its ``representation``.
    features, blocks : int, optional
        Of a new network (192 and 6); the hidden layers have 4 features.
    dropout : float
        See :func:`ase_diffusion.training.data.drop_conditions`.
    entropy : float
        See :class:`ImageLoss`.
    sites : float
        See :class:`ImageBatches`; the network then samples crystals of given sites, too.
    settings : dict, optional
        More settings of a new network.
    options : passed to :func:`ase_diffusion.training.train`.

    Raises
    ------
    ValueError
        No crystal is small enough; a condition that the data or ``network`` do not have; an image is no crystal;
        ``compile_network`` is asked for.
    """
    check_options(options, train_crystens)
    settings = check_new(settings, RowTransformer, but=GIVEN, own=('features', 'blocks'))
    if options.get('compile_network'):
        raise ValueError(
            'this network is trained without compile_network: torch 2.11 compiled wrong gradients of it for a GPU (norm 715 '
            'where it is 0.5), and the training diverged'
        )
    data = ImageData(
        images, validation, conditions, representation, batch_size, dropout, seed, alike=True, sites=sites, early=True
    )

    def build(features: int = 192, blocks: int = 6, **asked: Any) -> RowTransformer:
        mine = {name: data.representation.todict()[name] for name in ('shift', 'scale', 'absent', 'log_lengths')}
        measured = CrysTens.of_table(*data.source.table, log_lengths=data.representation.log_lengths).scale
        deviation = [x / y for x, y in zip(measured, data.representation.scale, strict=True)]
        return RowTransformer(
            **mine,
            deviation=deviation,
            features=features,
            blocks=blocks,
            conditions=data.scales,
            **{'hidden': 4 * features, **asked},
        )

    process = data.representation.process(*SIGMA)
    groups = data.groups()
    sizes = {n: sum(counts.values()) for n, counts in groups.items()}
    return run(
        network_to_train(network, build, list(data.forms), seed, features=features, blocks=blocks, **settings),
        process,
        data.source,
        data.held,
        out,
        header=data.header(process, sampling=SAMPLING, sizes=sizes, groups=groups, sites=bool(sites)),
        steps=steps,
        objective=ImageLoss(process, data.representation, entropy=entropy),
        seed=seed,
        **options,
    )


def _split(images, validation, conditions, seed) -> tuple[Structures, Structures]:
    """Return training and validation crystals with the same conditions."""
    if validation is None:
        images, validation = split_images(images)
    images = small_crystals(images)
    names = [*numbers_of(images)[0], 'space_group', 'elements'] if conditions is None else as_names(conditions)
    data = Structures.from_atoms(images, _values(images, sorted(set(names))))
    missing = [name for name, values in data.conditions.items() if all(v is None for v in known_values(values))]
    if missing:
        raise ValueError(f'no crystal has a key-value pair {missing}; leave it out of conditions, or write it')
    if validation is None:
        return data.split(seed=seed)
    held = small_crystals(validation)
    return data, Structures(held, _values(held, list(data.conditions)))


def _values(images: list[Atoms], names: list[str]) -> dict[str, list]:
    """Return the values of conditions: words of space groups, sets of symbols, else key-value pairs."""
    made = {
        'space_group': lambda atoms: str(pairs_of(atoms)['space_group']),
        'elements': lambda atoms: sorted(set(atoms.get_chemical_symbols())),
    }
    return {name: [made.get(name, lambda a, name=name: pairs_of(a).get(name))(atoms) for atoms in images] for name in names}


def small_crystals(images: Iterable[Atoms]) -> list[Atoms]:
    """Return crystals in their conventional cells, but for those of more than 52 atoms; a warning counts and names others.

    Raises
    ------
    ValueError
        None is left.
    """
    return list(usable_structures(images, _small).values())


def _small(atoms: Atoms) -> Atoms:
    check_crystal(atoms)
    new = conventional(atoms)
    if len(new) > ATOMS:
        raise ValueError(f'an image holds at most {ATOMS} atoms, those of the conventional cell')
    return new
