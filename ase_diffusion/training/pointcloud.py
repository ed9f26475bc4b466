"""Training recipe of the model of point clouds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from ..diffusion import JointProcess, NoiseStream
from ..networks import CloudTokens, CloudUNet, CompositionNet
from ..representations.conditions import ClassCondition, NumberCondition
from ..representations.descriptors import element_descriptors
from ..representations.pointcloud import (
    BAND_GAP_CLASSES,
    MAX_ATOMS,
    MAX_ELEMENTS,
    POINTS,
    PointCloud,
    band_gap_class,
    fractions_of,
    multi_hot,
)
from ..representations.substitution import Substitution, check_share
from .checkpoint import load_checkpoint, save_checkpoint
from .crystal_data import reduced
from .data import NUMBERS, RandomBatches, Structures, as_names, split_images, unknown_where, usable_structures
from .recipe import check_names, check_new, check_options, condition_forms, condition_scales, header_of, network_to_train, run

if TYPE_CHECKING:
    from ..diffusion.batch import Batch

PROPERTY = 'property'  # name of the network that guides
SAMPLING = {'sampler': 'renoised_ancestral', 'steps': 30}
GIVEN = ('descriptors', 'conditions', 'lattice', 'scales')  # settings that come from the data
UNITS = {'cloud': '1', 'formation_energy': 'eV per atom', 'energies': 'eV or eV per atom, as in the data'}
LEVELS = (-0.7, 1.4)  # mean and standard deviation of ln(noise over signal of an atom)
WEIGHTS = (1.0, 0.5, 0.5)  # of positions, species, lattice


def train_pointcloud(
    images: list[Atoms],
    out: str | Path,
    *,
    validation: list[Atoms] | None = None,
    conditions: Sequence[str] | None = None,
    split: Sequence[str] = ('train',),
    steps: int = 20_000,
    features: int | None = None,
    blocks: int | None = None,
    batch_size: int = 64,
    dropout: float = 0.1,
    seed: int = 0,
    network: CloudTokens | CloudUNet | str = 'tokens',
    elements: Sequence[int] | None = None,
    warmup: int = 300,
    settings: dict | None = None,
    sampling: dict | None = None,
    substitute: float = 0.0,
    **options: Any,
) -> Path:
    """Train a network of point clouds; returns the path of the best checkpoint.

    Parameters
    ----------
    images : list of Atoms
        Crystals; see :func:`suitable` for what is left out. They are learned in their Niggli cells.
    validation : list of Atoms, optional
        Default: the split 'val' of the images, else 5 % of the compositions.
    conditions : list of str, optional
        Key-value pairs to learn, numbers or words such as a magnetic order; by default all numbers that are no bookkeeping.
        ``band_gap`` (eV) becomes the class 'metal', 'semiconductor' or 'insulator'. Elements are always a condition.
    split : sequence of str
        Splits to train on, where the images carry any.
    batch_size, dropout, seed
        See :class:`~ase_diffusion.training.data.EndlessBatches`; ``dropout`` is of the conditions, elements included.
    features, blocks : int, optional
        Width, and number of attention blocks or of residual blocks of each level: 192 and 6 for 'tokens', 64 and 1 for 'unet'.
    network : 'tokens', 'unet' or a network
        A new :class:`~ase_diffusion.networks.CloudTokens` or :class:`~ase_diffusion.networks.CloudUNet`, or the one to
        fine-tune.
    elements : sequence of int, optional
        Atomic numbers that ``network`` was trained with; the data may have fewer. Default: those of the data.
    settings : dict, optional
        More settings of a new network.
    sampling : dict, optional
        How to sample by default.
    substitute : float
        Share of the crystals whose elements are exchanged for similar ones whenever they are drawn, see
        :class:`~ase_diffusion.representations.substitution.Substitution`.
    options : passed to :func:`ase_diffusion.training.train`.

    Raises
    ------
    ValueError
        No crystal is suitable, a condition is not in the data, or ``network`` lacks a condition or an element.
    """
    check_options(options, train_pointcloud)
    kind = CloudUNet if network == 'unet' or isinstance(network, CloudUNet) else CloudTokens
    settings = check_new(settings, kind, but=GIVEN, own=('width' if kind is CloudUNet else 'features', 'blocks'))
    substitute = check_share(substitute)
    training, held = _data(images, validation, conditions, split, seed)
    found = {*training.elements(), *held.elements()}
    if elements is not None and (unknown := sorted(found - set(elements))):
        names = ', '.join(chemical_symbols[z] for z in unknown)
        raise ValueError(f'the network never saw {names}; leave out crystals with them, or train a new one')
    form, network = (network, None) if isinstance(network, str) else (None, network)
    representation = _representation(sorted(found) if elements is None else elements, network)
    process = representation.process()
    forms = {name: _form(name, values) for name, values in training.conditions.items()}

    def build(**asked: Any) -> CloudTokens | CloudUNet:
        return new_network(representation, condition_scales(forms, training.conditions), form, **asked)

    header = header_of(
        'pointcloud',
        representation,
        process,
        units=UNITS,
        conditions=forms,
        sampling=SAMPLING if sampling is None else sampling,
        data=training.describe(),
        sizes=sizes_of(training.images),
        **({'substitute': substitute} if substitute else {}),
    )
    common = dict(batch_size=batch_size, dropout=dropout, seed=seed)
    source = CloudData(training, representation, forms, substitute=substitute, **common)
    fixed = CloudData(held, representation, forms, **common)
    network = network_to_train(network, build, list(forms), seed, features=features, blocks=blocks, **settings)
    more = dict(header=header, steps=steps, objective=TokenLoss(process), seed=seed, warmup=warmup)
    best = run(network, process, source, fixed, out, **more, **options)
    return add_property(best, training, held, forms, seed)


def suitable(images: Iterable[Atoms]) -> list[Atoms]:
    """Return the crystals with at most 16 atoms and three elements, in their Niggli cells; a warning counts and names others.

    Raises
    ------
    ValueError
        None is left.
    """
    return list(usable_structures(images, _small).values())


def _small(atoms: Atoms) -> Atoms:
    if len(atoms) > MAX_ATOMS or len(set(atoms.numbers.tolist())) > MAX_ELEMENTS:
        raise ValueError(f'point clouds have at most {MAX_ATOMS} atoms and {MAX_ELEMENTS} elements')
    return reduced(atoms)


def new_network(
    representation: PointCloud, conditions: dict, form: Literal['tokens', 'unet'] = 'tokens', **settings: Any
) -> CloudTokens | CloudUNet:
    """Return a network for a representation, told the descriptors of the elements.

    Parameters
    ----------
    conditions : dict
        See :class:`~ase_diffusion.networks.conditions.ConditionEmbedding`.
    form : 'tokens' or 'unet'
    settings
        Of :class:`~ase_diffusion.networks.CloudTokens` or :class:`~ase_diffusion.networks.CloudUNet`; ``features`` is the width
        of either, and ``hidden`` is four times ``features`` by default.

    Raises
    ------
    ValueError
        Another form.
    """
    if form not in ('tokens', 'unet'):
        raise ValueError(f"network is 'tokens' or 'unet', or a network to fine-tune; got {form!r}")
    table = torch.as_tensor(element_descriptors(), dtype=torch.float32)  # (119, K)
    if 'features' in settings and form == 'unet':
        settings['width'] = settings.pop('features')
    elif 'features' in settings:
        settings = {'hidden': 4 * settings['features'], **settings}
    scales = {name: list(representation.scales[name]) for name in ('positions', 'angles', 'lengths')}
    common = {'descriptors': table.shape[1], 'conditions': conditions, 'lattice': representation.lattice, 'scales': scales}
    network = (CloudTokens if form == 'tokens' else CloudUNet)(**common, **settings)
    network.descriptors.copy_(table)
    return network


def add_property(path: Path, training: Structures, held: Structures, forms: dict, seed: int = 0) -> Path:
    """Add a network that predicts numbers and classes from compositions to a checkpoint; returns its path."""
    forms = {name: form for name, form in forms.items() if isinstance(form, (NumberCondition, ClassCondition))}
    if forms:
        networks, header = load_checkpoint(path)
        networks[PROPERTY] = train_composition(training, held, forms, seed=seed)
        save_checkpoint(path, networks, header)
    return path


def train_composition(training: Structures, held: Structures, forms: dict, *, steps: int = 400, seed: int = 0) -> CompositionNet:
    """Return a :class:`~ase_diffusion.networks.CompositionNet` of the epoch of the largest likelihood of held-out crystals."""
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps // -(-len(training) // 128))
    scales = condition_scales(forms, {name: training.conditions[name] for name in forms})
    table = torch.as_tensor(element_descriptors(), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CompositionNet(scales, descriptors=table.shape[1])
        network.descriptors.copy_(table)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
        data, fixed = (_compositions(part, forms) for part in (training, held))
        best, kept = -np.inf, None
        for _ in range(epochs):
            network.train()
            for rows in torch.randperm(len(data[0]), generator=generator).split(128):
                fractions, slots, values = data[0][rows], data[1][rows], {name: v[rows] for name, v in data[2].items()}
                optimizer.zero_grad()
                (-network.log_likelihood(fractions, slots, values).mean()).backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                found = float(network.log_likelihood(*fixed).mean())
            if kept is None or found > best:
                best, kept = found, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    return network


def _compositions(data: Structures, forms: dict) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return fractions (n, 3), elements (n, 3) and values (n,) of conditions."""
    fractions, slots = fractions_of([atoms.numbers for atoms in data.images])
    values = {name: form.tensor(list(data.conditions[name])) for name, form in forms.items()}
    return fractions, slots, values


def sizes_of(images: list[Atoms]) -> dict[str, dict[str, int]]:
    """Return how many crystals have how many atoms, by their number of elements."""
    table: dict = {}
    for atoms in images:
        row = table.setdefault(str(len(set(atoms.numbers.tolist()))), {})
        row[str(len(atoms))] = row.get(str(len(atoms)), 0) + 1
    return {k: dict(sorted(row.items(), key=lambda pair: int(pair[0]))) for k, row in sorted(table.items())}


def _data(images, validation, conditions, split, seed: int) -> tuple[Structures, Structures]:
    """Return training and validation structures with the same conditions."""
    if conditions is not None:
        conditions = as_names(conditions)
        check_names(conditions)
    held = validation
    if validation is None:
        images, held = split_images(images, split)
    data = labelled(Structures.from_atoms(suitable(images), conditions))
    if held is None:
        return data.split(seed=seed)
    held = suitable(held)
    values = {name: [atoms.info.get('key_value_pairs', {}).get(name) for atoms in held] for name in data.conditions}
    return data, labelled(Structures(held, values))


def labelled(data: Structures) -> Structures:
    """Return the structures with classes in place of band gaps in eV."""
    gaps = data.conditions.get('band_gap')
    if gaps is None:
        return data
    words = [_gap_word(gap) for gap in gaps]
    return Structures(data.images, {**data.conditions, 'band_gap': words})


def _gap_word(gap) -> str | None:
    if not isinstance(gap, NUMBERS):
        return gap
    index = band_gap_class([gap])[0]
    return BAND_GAP_CLASSES[int(index)] if np.isfinite(index) else None


def _form(name: str, values: Iterable):
    return ClassCondition(BAND_GAP_CLASSES) if name == 'band_gap' else condition_forms({name: values})[name]


def _representation(elements, network: CloudTokens | CloudUNet | None) -> PointCloud:
    """Return the representation of some elements; its lattice and scales are those of a network to start from."""
    if network is None:
        return PointCloud(elements=tuple(elements))
    settings = network.settings
    return PointCloud(
        elements=tuple(elements), lattice=settings['lattice'], scales={n: tuple(v) for n, v in settings['scales'].items()}
    )


class CloudData(RandomBatches):
    """Draw crystals as clouds, with their elements among the conditions; see :class:`RandomBatches`.

    With ``substitute`` a share of the crystals has other elements, and conditions that are not known.
    """

    def __init__(
        self, data: Structures, representation: PointCloud, forms: dict, *, substitute: float = 0.0, **options: Any
    ) -> None:
        super().__init__(data, representation, forms, **options)
        self.substitution = Substitution(representation.elements, substitute) if substitute else None

    def batch_of(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Return a batch of some crystals with all their conditions."""
        batch = super().batch_of(index, rng)
        if self.substitution is not None and rng is not None:
            batch = self._substituted(batch, [self.data.images[k].numbers for k in index], rng)
        batch.conditions = {'elements': multi_hot(batch.extras['elements']), **batch.conditions}
        return batch

    def _substituted(self, batch: Batch, crystals: list[np.ndarray], rng: np.random.Generator) -> Batch:
        slots, factors = batch.extras['elements'].clone(), torch.ones(batch.size, dtype=torch.float64)
        for k, old, new, factor in self.substitution.exchanges(crystals, rng):
            slots[k] = torch.as_tensor(new[np.searchsorted(old, slots[k].numpy())])
            factors[k] = factor
        changed = (slots != batch.extras['elements']).any(1)  # (B,)
        batch = batch.with_fields(cloud=self.representation.stretched(batch.fields['cloud'], factors))
        return replace(batch, extras={**batch.extras, 'elements': slots}, conditions=unknown_where(changed, batch.conditions))


class TokenLoss:
    """Squared errors of the estimates of atoms and lattice, weighted as in EDM (arXiv 2206.00364, table 1).

    Rows of a cloud are copies: s, noise over signal of a row, is s / sqrt(copies) of an atom. Levels are drawn for atoms, and
    (1 + s^2) / s^2 of an atom, a species and the lattice takes the place of that of rows.

    Parameters
    ----------
    process : JointProcess
        With the field 'cloud' and a geometric schedule.
    levels : (mean, std)
        Of ln s of an atom, normal.
    weights : (positions, species, lattice)
    """

    def __init__(
        self, process: JointProcess, levels: tuple[float, float] = LEVELS, weights: tuple[float, float, float] = WEIGHTS
    ) -> None:
        self.process, self.levels, self.weights = process, tuple(levels), tuple(weights)

    def __call__(self, network: torch.nn.Module, batch: Batch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return ``{'loss': ..., 'positions': ..., 'species': ..., 'lattice': ...}`` averaged over the batch."""
        like, counts, slots = batch.fields['cloud'], batch.extras['counts'], batch.extras['elements']
        u = (torch.randperm(batch.size, generator=generator) + torch.rand(batch.size, generator=generator)) / batch.size
        copies = (POINTS // counts).to(like)  # (B,) of an atom
        ln_s = self.levels[0] + self.levels[1] * torch.special.ndtri(u.clamp(1e-5, 1 - 1e-5)).to(like) + copies.log() / 2
        t = self._times(ln_s)
        noisy, target = self.process.add_noise(batch, t, NoiseStream(generator))
        pred = network(noisy, self.process.c_noise(t), batch.conditions)
        square = (pred['cloud'] - target['cloud']).square()  # (B, 3, 128, 3)
        s = torch.exp(4 * self.process.c_noise(t))  # (B,)
        shared = (slots[:, :, None] == slots[:, None]).sum(-1)  # (B, 3) slots of the same element
        number = [copies[:, None], copies[:, None] * shared, torch.full_like(copies, POINTS // 2)[:, None]]
        parts = {}
        for k, name in enumerate(('positions', 'species', 'lattice')):
            weight = (number[k] + s[:, None] ** 2) / (1 + s[:, None] ** 2)  # (B, 1 or 3), over that of rows
            parts[name] = (square[:, k].mean(1) * weight).mean()
        total = sum(weight * part for weight, part in zip(self.weights, parts.values(), strict=True))
        return {'loss': total, **{name: part.detach() for name, part in parts.items()}}

    def _times(self, ln_s: Tensor) -> Tensor:
        """Return the times (B,) of ln(noise over signal) of rows."""
        schedule = self.process.processes['cloud'].schedule
        low, high = (float(np.log(x)) for x in (schedule.sigma_min, schedule.sigma_max))
        return ((ln_s - low) / (high - low)).clamp(0.0, 1.0)
