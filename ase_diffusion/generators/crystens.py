"""Generate crystals as CrysTens images (Alverson et al., Digital Discovery 3, 62, 2024)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from ase import Atoms

from ..diffusion import Batch, NoisePerStructure
from ..networks.coverage import MOST
from ..networks.image_layout import ATOMS
from ..networks.rowtokens import ELEMENTS
from ..representations import CrysTens
from ..representations.conditions import ClassCondition, conditions_of
from ..representations.crystens import sites_of, table_of
from ..training.crystens import SAMPLING, train_crystens
from ..training.crystens_paper import train_cascade, train_image_gan
from ..utils.checks import check_integer
from .bulk import BulkGenerator, check_symmetrize, without
from .compiling import copy_network
from .crystal.site_bank import SiteBank
from .model import UNTRAINED
from .relaxation import relax_keywords
from .tasks import FromNoise

log = logging.getLogger(__name__)

SMALL, AUGMENTATION = 0x5DEECE66D, 0xBB40E64DA  # change a seed for the small image of a cascade, and for the noise on it
FOR_ALL = {'sampler': 'renoised_ancestral', 'steps': 25}  # all elements occur several times as often as with dpmpp_2m
RATIO = 0.7  # of the sum of covalent radii; median above the hull (CHGNet, not relaxed): 0.3 eV/atom with it
MERGED = 'fewer atoms than asked for, since some came to lie on one site'


@dataclass(frozen=True)
class Kind:
    """One kind of network: its recipe, and how a batch comes from it.

    Parameters
    ----------
    train : callable
        ``train(images, out, **options) -> path``.
    sample : callable
        ``sample(generator, batch, seeds, conditions, task) -> Batch``.
    model : str
        The model by default.
    """

    train: Callable[..., Path]
    sample: Callable[..., Batch]
    model: str = UNTRAINED


def _at_once(gen: CrysTensDiffusion, batch: Batch, *task: Any) -> Batch:
    """Sample whole images, by diffusion or in one pass."""
    return gen._denoise(batch, *task)


def _in_two_stages(gen: CrysTensDiffusion, batch: Batch, seeds: list[int], *task: Any) -> Batch:
    """Sample images of half the size, then whole ones that see them, with conditioning augmentation."""
    network, movie, gen.denoising_trajectory = gen.network, gen.denoising_trajectory, None  # that of the whole images
    small = batch.with_fields(image=network.reduce(batch.fields['image']))
    small = gen._denoise(small, [seed ^ SMALL for seed in seeds], *task).fields['image']
    noise = NoisePerStructure([seed ^ AUGMENTATION for seed in seeds]).bind(batch.rows['image']).normal(small)
    gen.denoising_trajectory = movie
    return gen._denoise(replace(batch, extras={**batch.extras, 'context': network.context(small, noise)}), seeds, *task)


KINDS = {
    'diffusion': Kind(train_crystens, _at_once, 'crystens-mp'),
    'cascade': Kind(train_cascade, _in_two_stages),
    'wgan': Kind(partial(train_image_gan, adversary='wgan'), _at_once),
    'gan': Kind(partial(train_image_gan, adversary='gan'), _at_once),
}


class CrysTensDiffusion(BulkGenerator):
    """Generate crystals of at most 52 atoms as images of 4 x 64 x 64 numbers.

    Crystals have the cell of their image, the conventional one. ``info['key_value_pairs']['space_group']`` is the number in the
    image; spglib may find another one in the atoms.

    Parameters
    ----------
    model : str or Path, optional
        A shipped model, a checkpoint, or ``'untrained'`` (then :meth:`fit` comes first); by default that of ``network``.
    natoms : int, optional
        Atoms per cell; by default number of atoms and space group are drawn together from those of the training data, and one
        of them given the other where that is asked for. :meth:`sample` takes it too. Images whose atoms are fewer, since some
        coincide, are rejected where it is asked for. Only 'diffusion' knows it; images of the others say it themselves.
    network : 'diffusion', 'cascade', 'wgan' or 'gan', optional
        Tokens of rows ('diffusion', the default where there is no model); the cascade of U-Nets of the paper; its generators
        in one pass, trained with the Wasserstein distance or with cross-entropy. A model says itself which it is.
    sites : bool, path or list of Atoms, optional
        Crystals from which the occupied sites are drawn, as sites of the asked size and space group: which atoms are equivalent,
        and which coordinates are free. Elements, cell and free coordinates are generated, and every crystal has the space group.
        True takes the crystals of :mod:`ase_diffusion.generators.crystal.prototypes`; False lets the network find all
        coordinates; of crystals of your own alone size and space group are drawn, too, where they are not asked for. Default:
        True for models that were trained so. Where no crystal has the size and space group, False.
    all_elements : bool
        Whether all elements that are asked for occur in every crystal; else they may. Their chances are then those given that
        all occur. Only 'diffusion' knows it. The sampler is then 'renoised_ancestral' with 25 steps, unless it is given.
    min_distance_ratio : float, optional
        Least distance of atoms over the sum of their covalent radii, below which a structure is rejected; default: 0.7 where the
        sites come from known crystals (99 % of the data pass), else 0.
    symmetrize : float, optional
        Average every structure over the symmetry that spglib finds within this tolerance, A.
    relax : dict, optional
        Keywords of :func:`ase_diffusion.relax.relax`; positions and cell are relaxed before a structure is returned. One whose
        relaxation fails is rejected, and another takes its place.
    rng, steps, sampler, batch_size, device, logfile, trajectory, denoising_trajectory, maxtries, validate
        See :class:`ase_diffusion.generators.base.Generator`.

    Raises
    ------
    ValueError
        The network does not exist or is not that of the model; natoms is above 52; ``best_of`` is above 1, which compares
        energies of one composition.
    CheckpointError
        The model cannot be loaded.

    Examples
    --------
    >>> gen = CrysTensDiffusion()                                                                              # doctest: +SKIP
    >>> images = gen.sample(8, space_group=225, elements=['Na', 'Cl', 'O'])                                    # doctest: +SKIP
    """

    kind: ClassVar[str] = 'crystens'
    default_sampling: ClassVar[dict] = SAMPLING
    default_batch_size: ClassVar[int] = 32
    recorded: ClassVar[tuple[str, ...]] = ('natoms', 'sites', 'all_elements', 'min_distance_ratio', 'symmetrize')

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        natoms: int | None = None,
        network: Literal['diffusion', 'cascade', 'wgan', 'gan'] | None = None,
        sites: bool | str | Path | Iterable[Atoms] | None = None,
        all_elements: bool = False,
        min_distance_ratio: float | None = None,
        symmetrize: float | None = None,
        relax: dict | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._kind = None if network is None else _check_network(network)
        if self.best_of > 1:
            raise ValueError(
                f'best_of={self.best_of} compares energies, so that all candidates need one composition, which images do not '
                "have; take CrystalDiffusion(stoich='...')"
            )
        self.natoms = None if natoms is None else _check_natoms(natoms)
        self.symmetrize = check_symmetrize(symmetrize)
        self.relax = relax_keywords(relax, self.device, filter='FrechetCellFilter')
        self._least = _check_ratio(min_distance_ratio)
        self.all_elements = bool(all_elements)
        self._sites = sites
        self._bank = None if sites is None else SiteBank.coerce(sites)
        self._load(KINDS[self.network_kind].model if model is None else model)
        if self.all_elements and self.network_kind != 'diffusion':
            raise ValueError(f"all_elements needs network='diffusion'; {self.network_kind!r} does not know elements")
        if self._bank is not None and self.networks and not self.header.get('sites'):
            raise ValueError(f'{self.model} was not trained on given sites; leave sites out')

    @property
    def sites(self) -> bool:
        """Whether the occupied sites of samples come from known crystals."""
        return bool(self.header.get('sites')) if self._sites is None and self.networks else self._bank is not None

    @property
    def network_kind(self) -> str:
        """Which kind of network this is: 'diffusion', 'cascade', 'wgan' or 'gan'."""
        return kind_of(self.header) if self.networks else self._kind or 'diffusion'

    def _sampling_here(self) -> dict:
        return FOR_ALL if self.all_elements else {}

    def _advice(self) -> str:
        if not self.all_elements:
            return super()._advice()
        return (
            f'sampler={FOR_ALL["sampler"]!r} with {FOR_ALL["steps"]} steps or more finds all elements the most often; or take '
            'CrystalDiffusion(elements=[...], all_elements=True), which begins with known crystals of as many elements'
        )

    def _adapt(self, representation: CrysTens, networks: dict, header: dict) -> CrysTens:
        if self._kind not in (None, kind_of(header)):
            raise ValueError(
                f'{self.model} is a model with network={kind_of(header)!r}, not {self._kind!r}; leave network out, or take '
                f"model='untrained' and fit"
            )
        return representation

    def check_conditions(self, conditions: dict) -> dict:
        """Return all conditions of a call with their defaults, checked; ``natoms`` is the number of atoms or None.

        Parameters
        ----------
        conditions : dict
            ``space_group`` may be an integer.

        Raises
        ------
        ValueError, TypeError
            See :meth:`ase_diffusion.generators.model.GenerativeModel.check_conditions`; natoms is no integer from 1 to 52.
        """
        asked = dict(conditions)
        natoms = asked.pop('natoms', None)
        natoms = self.natoms if natoms is None else _check_natoms(natoms)
        if not self.networks and KINDS[self.network_kind].model == UNTRAINED:
            raise ValueError(
                f'no model with network={self.network_kind!r} ships: train one with gen.fit(data), or give the file of one'
            )
        if self.networks and 'sizes' not in self.header:
            self._refuse({'natoms': natoms, **asked})
            return super().check_conditions(asked) | {'natoms': None}
        number = asked.get('space_group')
        if number is not None:
            asked['space_group'] = _word(number, conditions_of(self.header).get('space_group'))
        merged = super().check_conditions(asked)
        if self.all_elements and merged.get('elements'):
            self._check_all(merged['elements'], natoms, merged.get('space_group'))
        if natoms is not None and str(natoms) not in self.header['sizes']:
            sizes = ', '.join(map(str, sorted(map(int, self.header['sizes']))))
            log.warning('%s never saw cells of %d atoms, only of %s', self.model, natoms, sizes)
        group = merged.get('space_group')
        if self.sites and None not in (natoms, group) and not self._known_sites().holds(natoms, int(group), 1):
            text = 'no known crystal of %d atoms is in space group %s: coordinates come without symmetry'
            log.warning(text, natoms, group)
        return merged | {'natoms': natoms}

    def _check_all(self, elements: tuple[str, ...], natoms: int | None, group: str | None) -> None:
        """Raise a ValueError where there are more elements than can all occur."""
        most, where = min(MOST, natoms or MOST), f'{natoms} atoms' if natoms else 'a crystal'
        sites = self._known_sites().most_orbits(natoms, None if group is None else int(group)) if self.sites else 0
        if 0 < sites < most:
            group = '' if group is None else f' in space group {group}'
            most, where = sites, f'known sites of {where}{group} (sites=False takes others)'
        if len(elements) > most:
            raise ValueError(f'with all_elements at most {most} can occur in {where}; got {list(elements)}')

    def _refuse(self, asked: dict) -> None:
        """Raise a TypeError where something is asked of a network that does not know it."""
        known = set(conditions_of(self.header))
        scale = {'guidance_scale'} if known or asked.get('guidance_scale') == self.default_guidance_scale else set()
        if unknown := sorted(name for name, value in asked.items() if value is not None and name not in known | scale):
            raise TypeError(
                f'a model with network={self.network_kind!r} knows {", ".join(sorted(known)) or "no conditions"}, not '
                f"{', '.join(unknown)}; network='diffusion' knows numbers of atoms, space groups and elements"
            )

    def _hint(self) -> str:
        return '; natoms is the number of atoms' if 'sizes' in self.header else ''

    def _template(self, seed: int) -> Atoms:
        """Return a placeholder; what is in the image comes from the network, and the number of atoms from :meth:`_encode`."""
        atoms = Atoms('H', cell=5 * np.eye(3), pbc=True)
        atoms.info['key_value_pairs'] = {'space_group': 1}
        return atoms

    def _encode(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        batch = super()._encode(seeds, conditions, task)
        if 'sizes' not in self.header:
            return batch
        elements = len(conditions.get('elements') or 'X')
        drawn = [self._drawn_for(seed, conditions['natoms'], conditions.get('space_group'), elements) for seed in seeds]
        batch.extras['counts'] = batch.extras['counts'].new_tensor([natoms for natoms, _ in drawn])
        if 'space_group' in batch.conditions:
            words = conditions_of(self.header)['space_group'].tensor([group for _, group in drawn])
            batch.conditions['space_group'] = words.to(self.device)
        if self.sites:
            self._tell_sites(batch, seeds, drawn, elements)
        self._tell_elements(batch)
        return batch

    def _tell_elements(self, batch: Batch) -> None:
        """Allow no other elements where a set is asked for."""
        if 'elements' in batch.conditions and getattr(self.network, 'tied', False):
            asked = batch.conditions['elements'][:, 1 : ELEMENTS + 1]  # (B, 100), NaN where no set is asked for
            batch.extras['allowed'] = (asked > 0) | asked.isnan()
            if self.all_elements:
                batch.extras['required'] = asked > 0

    def _tell_sites(self, batch: Batch, seeds: list[int], drawn: list, elements: int = 1) -> None:
        """Add the sites of known crystals with the sizes and space groups that were drawn."""
        bank = self._known_sites()
        empty = Atoms('H', cell=np.eye(3), pbc=True, info={'key_value_pairs': {'space_group': 0}})
        found = []
        for seed, (natoms, group) in zip(seeds, drawn, strict=True):
            rng = np.random.default_rng([seed, 1])
            atoms = bank.draw(natoms, None if group is None else int(group), rng, elements)
            found.append(empty if atoms is None else atoms)
        atoms, cell, counts = table_of(found)
        told = sites_of(atoms, cell[:, 6], counts, int(batch.extras['counts'].max()))
        batch.extras |= {name: value.to(self.device) for name, value in told.items()}

    def _known_sites(self) -> SiteBank:
        return SiteBank.coerce(True) if self._bank is None else self._bank

    def _drawn_for(self, seed: int, natoms: int | None, group: str | None, elements: int) -> tuple[int, str | None]:
        """Return number of atoms and space group, where possible those of known sites for so many elements."""
        least = elements if self.all_elements else 1
        choose = self.sites and elements > 1 and None in (natoms, group)
        return self._drawn(seed, natoms, group, least, self._known_sites().pairs(elements) if choose else ())

    def _drawn(
        self, seed: int, natoms: int | None, group: str | None, least: int = 1, choices: Sequence[set[tuple[int, int]]] = ()
    ) -> tuple[int, str | None]:
        """Return number of atoms, ``least`` or more, and space group for this seed, given what is asked for.

        Frequencies are those of the data, or of crystals of the user whose sites are taken; of the first of ``choices`` of which
        one is possible. No space group comes from models that do not say in which ones crystals of a size are; and where none
        has what is asked for, sizes alone are drawn.
        """
        known = conditions_of(self.header).get('space_group')
        given = self._bank is not None and self._bank.record is not True
        rows = [
            (int(n), word, count)
            for n, groups in (self._bank.counted() if given else self.header.get('groups', {})).items()
            for word, count in groups.items()
            if natoms in (None, int(n)) and group in (None, word) and int(n) >= least
            if known is None or word in known.classes
        ]
        if not rows:
            return self._drawn_count(seed) if natoms is None else natoms, group
        chosen = ([row for row in rows if (row[0], int(row[1])) in pairs] for pairs in choices)
        rows = next(filter(None, chosen), rows)
        weights = np.array([count for *_, count in rows], float)
        n, word, _ = rows[np.random.default_rng(seed).choice(len(rows), p=weights / weights.sum())]
        return n, word

    def _sample_batch(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        batch = self._encode(seeds, conditions, task)
        return KINDS[self.network_kind].sample(self, batch, seeds, conditions, task)

    @property
    def min_distance_ratio(self) -> float:
        """Least distance of atoms over the sum of their covalent radii."""
        return (RATIO if self.sites else 0.0) if self._least is None else self._least

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        notes = atoms.info.get('key_value_pairs', {})
        natoms = notes.get('condition_natoms')
        if natoms is not None and len(atoms) != natoms:
            return MERGED
        reason, asked = super()._reason_to_reject(atoms), notes.get('condition_elements')
        if reason is None and self.all_elements and asked:
            reason = without(atoms, asked.split('-'))
        if reason is not None or not self.min_distance_ratio:
            return reason
        close = self._min_distance_ratio(atoms) < self.min_distance_ratio
        return f'atoms closer than {self.min_distance_ratio:g} of their covalent radii' if close else None

    def sample_images(self, n: int, **conditions: Any) -> np.ndarray:
        """Return raw images in the units of the paper, before they are decoded and without rejection.

        Parameters
        ----------
        n : int
        conditions
            As for :meth:`sample`.

        Returns
        -------
        (n, 4, 64, 64) float32 array
            Lengths in A, angles in degrees, fractional coordinates; 0 where there is no atom. See
            :mod:`ase_diffusion.networks.image_layout`.
        """
        return np.concatenate(list(self._raw(n, conditions)))

    def _raw(self, n: int, conditions: dict) -> Iterator[np.ndarray]:
        for batch in self.sample_batches(n, **conditions):
            yield self.representation.raw(batch.fields['image']).float().numpy()

    def fit(
        self, data: Iterable[Atoms] | str | Path, out: str | Path | None = None, *, steps: int = 20_000, **options: Any
    ) -> Self:
        """Train on crystals and use the result; returns self.

        Parameters
        ----------
        data : list of Atoms, or a path that :func:`ase_diffusion.data.crystals.read_crystals` reads
            Made conventional by spglib; those of more than 52 atoms are left out. A split ``train`` is used where there is one.
        out : path, optional
            Folder for checkpoints and log; the same folder resumes an interrupted training. Default: a temporary one.
        steps : int
        options : of the recipe of the network, see :func:`ase_diffusion.training.crystens.train_crystens`,
            :func:`ase_diffusion.training.crystens_paper.train_cascade` and
            :func:`ase_diffusion.training.crystens_paper.train_image_gan`.
        """
        return super().fit(data, out, steps=steps, **options)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        if self.networks:
            network = copy_network(self.network).requires_grad_(True)
            options = {'network': network, 'representation': self.representation, **options}
        return KINDS[self.network_kind].train(images, out, **options)

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        return {
            **super().todict(),
            'natoms': self.natoms,
            'sites': self._known_sites().record if self.sites else False,
            'all_elements': self.all_elements,
            'min_distance_ratio': self.min_distance_ratio,
            'symmetrize': self.symmetrize,
        }


def kind_of(header: dict) -> str:
    """Return the kind of network of a checkpoint."""
    return header.get('variant', 'diffusion')


def _check_network(network: str) -> str:
    """Return the kind of network; ValueError where there is none of this name."""
    if not isinstance(network, str) or network not in KINDS:
        raise ValueError(f'network is one of {", ".join(KINDS)}; got {network!r}')
    return network


def _check_ratio(ratio: float | None) -> float | None:
    """Return the least ratio; ValueError where it is no number from 0 to 1.2."""
    if ratio is None:
        return None
    if isinstance(ratio, (bool, str)) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1.2:
        raise ValueError(f'min_distance_ratio is a number from 0 to 1.2, or None; got {ratio!r}')
    return float(ratio)


def _check_natoms(natoms) -> int:
    natoms = check_integer('natoms', natoms, 1)
    if natoms > ATOMS:
        raise ValueError(f'an image holds at most {ATOMS} atoms, natoms={natoms} are more; CrystalDiffusion makes other cells')
    return natoms


def _word(number, known) -> str:
    """Return the word of a space group; ValueError where there is none of this number."""
    whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
    word = str(int(number)) if whole else number
    if isinstance(known, ClassCondition) and (not isinstance(word, str) or word not in known.classes):
        raise ValueError(f'space_group is a number of the International Tables, 1 to 230; got {number!r}')
    return word
