"""Generate crystals of given elements by the diffusion of clouds of 128 points (Li et al., PCCD)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from ..diffusion import Batch
from ..networks.composition import CompositionGuided
from ..representations.conditions import ElementsCondition, Range, conditions_of
from ..representations.pointcloud import MAX_ATOMS, MAX_ELEMENTS, PointCloud, fractions_of, slots_of
from ..representations.reduction import niggli
from ..training.pointcloud import PROPERTY, SAMPLING, train_pointcloud
from ..utils.atoms import min_distance_ratio
from ..utils.checks import check_integer
from ..utils.rng import spawn_seeds
from .bulk import SHORTEST, check_symmetrize
from .compiling import copy_network
from .crystal.templates import ElementTemplates, Templates, TemplatesFirst, UnknownToModel, asked_templates
from .relaxation import relax_keywords
from .tasks import FromNoise

DEFAULT_MODEL = 'pointcloud-mp'
CLOSEST = 0.65  # of the sum of covalent radii; 0.66 is the least of 1,200 test crystals of mp_le20
LONGEST = 3.0  # A, largest distance that can be asked for
_ELEMENTS = ElementsCondition(tuple(range(1, len(chemical_symbols))))


class PointCloudDiffusion(TemplatesFirst):
    """Generate crystals that have exactly the given elements, up to three, and at most 16 atoms in the cell.

    By default the first ones are known crystals with exchanged elements, in the order of similarity; then come those of the
    network. The former are far nearer to the hull, the latter have structures of their own.

    Parameters
    ----------
    elements : list of str
        One to three chemical symbols; their order does not matter. Each of them occurs in every crystal, others cannot.
    natoms : int, optional
        Atoms per cell, up to 16; by default at random with the frequencies of the training data for as many elements.
    model : str or Path, optional
        A shipped model, a checkpoint, or ``'untrained'`` (then :meth:`fit` comes first); default: ``'pointcloud-mp'``.
    templates : bool, int, path or list of Atoms, optional
        Structures come first from known crystals of as many elements, these exchanged by similarity and the volume scaled
        (:class:`ase_diffusion.generators.crystal.prototypes.Prototypes`), in all compositions, each once; then from the network.
        Conditions change their order by what a network predicts from compositions. A number: no more of them than this. False:
        the network alone. A list or a file of crystals: added to those that ship. Default: 20 where no model is named; the
        network alone with another model or a denoising trajectory.
    min_distance : float
        Crystals with atoms closer than this are rejected, A; 0.5 to 3. So are those closer than 0.65 of the sum of their
        covalent radii. What is rejected is counted and drawn again.
    symmetrize : float, optional
        Average every structure over the symmetry that spglib finds within this tolerance, A.
    relax : dict, optional
        Keywords of :func:`ase_diffusion.relax.relax`; positions and cell are relaxed before a structure is returned. One whose
        relaxation fails is rejected, and another takes its place.
    rng, steps, sampler, batch_size, device, logfile, trajectory, denoising_trajectory, maxtries, validate
        See :class:`ase_diffusion.generators.base.Generator`. There is no ``best_of``: energies of different compositions cannot
        be compared.

    Raises
    ------
    ValueError
        No elements or more than three, an unknown one, one of which there is no template and that the model does not know;
        ``natoms`` above 16 or below the number of elements; ``best_of``.
    CheckpointError
        The model cannot be loaded.

    Notes
    -----
    The guidance scale weighs the conditions of :meth:`sample`, 0 leaves them out; the elements are none of them. Where a model
    has a network that predicts properties from compositions, as the shipped one, its gradient moves the species
    (:class:`ase_diffusion.networks.composition.CompositionGuided`); else guidance is classifier-free, and the network that is
    not told the conditions is told the elements.

    Examples
    --------
    >>> gen = PointCloudDiffusion(['Mg', 'Mn', 'O'])                                        # doctest: +SKIP
    >>> images = gen.sample(16, band_gap='semiconductor', formation_energy=-2.0)           # doctest: +SKIP
    """

    kind: ClassVar[str] = 'pointcloud'
    default_sampling: ClassVar[dict] = SAMPLING
    default_batch_size: ClassVar[int] = 64
    always_known: ClassVar[tuple[str, ...]] = ('elements',)
    recorded: ClassVar[tuple[str, ...]] = ('elements', 'natoms', 'templates', 'min_distance', 'symmetrize')

    def __init__(
        self,
        elements: list[str],
        *,
        natoms: int | None = None,
        model: str | Path | None = None,
        templates: bool | int | str | Path | Iterable[Atoms] | None = None,
        min_distance: float = SHORTEST,
        symmetrize: float | None = None,
        relax: dict | None = None,
        **options: Any,
    ) -> None:
        self.elements = check_elements(elements)
        self.natoms = None if natoms is None else _check_natoms(natoms, self.elements)
        if options.get('best_of', 1) != 1:
            raise ValueError(
                f'best_of={options["best_of"]!r} compares energies, so that all candidates need one composition; point clouds '
                'have different ones: leave best_of out, or use CrystalDiffusion with stoich'
            )
        super().__init__(**options)
        self.min_distance = _check_distance(min_distance)
        self.symmetrize = check_symmetrize(symmetrize)
        numbers = [chemical_symbols.index(symbol) for symbol in self.elements]
        self.relax = relax_keywords(relax, self.device, numbers=numbers, filter='FrechetCellFilter')
        templates = asked_templates(templates, model is None and self.denoising_trajectory is None)
        self.templates = None
        if templates is not False:
            self.templates = ElementTemplates(templates, numbers, self.natoms, most=MAX_ATOMS)
            self._order = spawn_seeds(self.rng, 1)[0]
        self._load(DEFAULT_MODEL if model is None else model)

    def _adapt(self, representation: PointCloud, networks: dict, header: dict) -> PointCloud:
        self._check_network(lambda: self._check_known(self.model, representation.elements, header.get('sizes', {})))
        return representation

    def _check_known(self, name: str, known: Collection[int], sizes: dict | None = None) -> None:
        """Raise a ValueError where a model, or one trained on such data, lacks an element or the number of elements."""
        if unknown := [symbol for symbol in self.elements if chemical_symbols.index(symbol) not in known]:
            names = ', '.join(chemical_symbols[z] for z in sorted(known))
            raise UnknownToModel(f'{name} never saw {", ".join(unknown)}', f'it knows {names}')
        if sizes is not None and self.natoms is None and not self._sizes({'sizes': sizes}):
            numbers = ', '.join(sorted(sizes))
            raise UnknownToModel(f'{name} saw crystals of {numbers} elements, not of {len(self.elements)}', 'pass natoms')

    def _sizes(self, header: dict) -> dict[int, float]:
        """Return how many crystals of as many elements had how many atoms."""
        table = header.get('sizes', {}).get(str(len(self.elements)), {})
        return {int(n): count for n, count in table.items() if len(self.elements) <= int(n) <= MAX_ATOMS}

    def check_conditions(self, conditions: dict) -> dict:
        """Return all conditions of a call with their defaults, checked; see the base class. The guidance scale is 0 or more."""
        merged = super().check_conditions(conditions)
        if merged['guidance_scale'] < 0:
            raise ValueError(
                f'guidance_scale is 0 or more, got {merged["guidance_scale"]:g}; 1 is the plain conditional model, 0 leaves '
                'the conditions out'
            )
        return merged

    def _hint(self) -> str:
        return '; elements and natoms are arguments of PointCloudDiffusion'

    def _count(self, seed: int) -> int:
        """Return the number of atoms of the structure with this seed."""
        return self._drawn_count(seed) if self.natoms is None else self.natoms

    def _task(self, conditions: dict | None = None) -> FromNoise:
        task = super()._task(conditions)
        if self.templates is None or conditions is None:
            return task
        asked = self._asked_for(conditions)
        if reason := self.templates.ordered(self._order).reason_against([] if PROPERTY in self.networks else list(asked)):
            self.log.write(f'templates: {reason}; the network alone')
            return task
        return self._from_templates(conditions, task, *(self.templates_begin or ()))

    def _asked_for(self, conditions: dict) -> dict:
        """Return the conditions that are asked for; none at a guidance scale of 0."""
        return super()._asked_for(conditions) if conditions['guidance_scale'] else {}

    def _templates_for(self, conditions: dict) -> Templates:
        asked, scale = self._asked_for(conditions), conditions['guidance_scale']
        if not asked:
            return self.templates.ordered(self._order)
        key = self.networks[PROPERTY], str(asked), scale
        return self.templates.ordered(self._order, key, scale * self._likelihood(asked))

    def _likelihood(self, asked: dict) -> np.ndarray:
        """Return log p(asked | composition) of all templates; of a range, that of its likeliest number."""
        network, known = self.networks[PROPERTY], conditions_of(self.header)
        fractions, slots = (x.to(self.device) for x in fractions_of(self.templates.compositions()))
        with torch.inference_mode():
            values = {}
            for name, value in asked.items():
                if isinstance(value, Range):
                    values[name] = network.number(name, fractions, slots).clamp(*value)
                else:
                    values[name] = known[name].tensor([value] * len(slots)).to(self.device)
            return network.log_likelihood(fractions, slots, values).cpu().double().numpy()

    def _template(self, seed: int) -> int:
        return self._count(seed)

    def _encode(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        slots = slots_of([chemical_symbols.index(symbol) for symbol in self.elements])
        return self.representation.blank(task.take(seeds), [slots] * len(seeds), self._tensors(seeds, conditions)).to(self.device)

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        reason = super()._reason_to_reject(atoms)
        if reason is None and min_distance_ratio(atoms) < CLOSEST:
            return f'atoms closer than {CLOSEST:g} of the sum of their covalent radii'
        return reason

    def _denoise(self, batch: Batch, seeds, conditions: dict, task: FromNoise, **options: Any) -> Batch:
        """Run the sampler; a model that predicts properties from compositions guides by these."""
        if PROPERTY in self.networks:
            scale, species = conditions['guidance_scale'], self.representation.scales['species']
            guided = CompositionGuided(self.network, self.networks[PROPERTY], scale, species)
            options = {**options, 'wrap': lambda network: guided}
        return super()._denoise(batch, seeds, conditions, task, **options)

    def _reduced(self, atoms: Atoms) -> Atoms:
        return niggli(atoms)

    def _identity(self) -> dict:
        return {'elements': '-'.join(self.elements)}

    def fit(
        self, data: Iterable[Atoms] | str | Path, out: str | Path | None = None, *, steps: int = 20_000, **options: Any
    ) -> Self:
        """Train on crystals and use the result; returns self.

        Parameters
        ----------
        data : list of Atoms, or a path that :func:`ase_diffusion.data.crystals.read_crystals` reads
            Crystals with more than 16 atoms or three elements are left out. Numbers in ``info['key_value_pairs']`` are
            conditions; ``band_gap`` (eV) becomes a class. A split ``train`` is used where there is one.
        out : path, optional
            Folder for checkpoints and log; the same folder resumes an interrupted training. Default: a temporary one.
        steps : int
        options : see :func:`ase_diffusion.training.pointcloud.train_pointcloud` and :func:`ase_diffusion.training.train`.
        """
        return super().fit(data, out, steps=steps, **options)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        if self.networks:
            if isinstance(form := options.get('network'), str):
                raise ValueError(
                    f'this generator has a network, which is trained further; network={form!r} is of a new one: leave it out, or '
                    "begin anew with model='untrained'"
                )
            network = copy_network(self.network).requires_grad_(True)
            options = {'network': network, 'elements': self.representation.elements, **options}
        else:
            self._check_known('a model of these data', {int(z) for atoms in images for z in atoms.numbers})
        return train_pointcloud(images, out, **options)

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        told = {'elements': list(self.elements), 'natoms': self.natoms, 'min_distance': self.min_distance}
        if self.templates is not None:
            told['templates'] = self.templates.record
        return {**super().todict(), **told, 'symmetrize': self.symmetrize}


def check_elements(elements: Iterable[str]) -> tuple[str, ...]:
    """Return one to three symbols by atomic number; raise a ValueError for what is no such set."""
    try:
        symbols = _ELEMENTS.check('elements', elements)
    except ValueError as error:
        raise ValueError(str(error).replace(', or None;', ';')) from None
    if len(symbols) > MAX_ELEMENTS:
        raise ValueError(
            f'elements are one to three chemical symbols, got {len(symbols)}: {", ".join(symbols)}; CrystalDiffusion takes more'
        )
    return symbols


def _check_natoms(natoms, elements: tuple[str, ...]) -> int:
    count = check_integer('natoms', natoms, len(elements), f'the atoms per cell, one of each of {", ".join(elements)} at least')
    if count > MAX_ATOMS:
        raise ValueError(f'a point cloud has at most {MAX_ATOMS} sites, got natoms={count}; CrystalDiffusion makes larger cells')
    return count


def _check_distance(value) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not SHORTEST <= value <= LONGEST:
        raise ValueError(f'min_distance is a distance of atoms in A, {SHORTEST} to {LONGEST:g}; got {value!r}')
    return float(value)
