"""Generate crystals as CrysTens images (Alverson et al., Digital Discovery 3, 62, 2024)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms

from ..diffusion import Batch
from ..networks.image_layout import ATOMS
from ..representations.conditions import ClassCondition, conditions_of
from ..training.crystens import SAMPLING, train_crystens
from ..utils.checks import check_integer
from .bulk import BulkGenerator, check_symmetrize
from .compiling import copy_network
from .relaxation import relax_keywords
from .tasks import FromNoise

log = logging.getLogger(__name__)

NETWORKS = ('diffusion', 'cascade', 'wgan', 'gan')
MERGED = 'fewer atoms than asked for, since some came to lie on one site'


class CrysTensDiffusion(BulkGenerator):
    """Generate crystals of at most 52 atoms as images of 4 x 64 x 64 numbers.

    Crystals have the cell of their image, the conventional one. ``info['key_value_pairs']['space_group']`` is the number in the
    image; spglib may find another one in the atoms.

    Parameters
    ----------
    model : str or Path
        A checkpoint, or ``'untrained'`` (then :meth:`fit` comes first); no model of images ships yet.
    natoms : int, optional
        Atoms per cell; by default as many as in the training data, at random with their frequencies. :meth:`sample` takes it too.
        Images whose atoms are fewer, since some coincide, are rejected where it is asked for.
    network : str
        'diffusion'. The cascade of U-Nets, the WGAN and the GAN of the paper are not shipped.
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
        The network does not exist or is not shipped; natoms is above 52; ``best_of`` is above 1, which compares energies of one
        composition.
    CheckpointError
        The model cannot be loaded.

    Examples
    --------
    >>> gen = CrysTensDiffusion('run/best.safetensors')                                                         # doctest: +SKIP
    >>> images = gen.sample(8, space_group=225, elements=['Na', 'Cl'], guidance_scale=2)  # doctest: +SKIP
    """

    kind: ClassVar[str] = 'crystens'
    default_sampling: ClassVar[dict] = SAMPLING
    default_batch_size: ClassVar[int] = 32
    recorded: ClassVar[tuple[str, ...]] = ('natoms', 'symmetrize')

    def __init__(
        self,
        model: str = 'untrained',
        *,
        natoms: int | None = None,
        network: str = 'diffusion',
        symmetrize: float | None = None,
        relax: dict | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _check_network(network)
        if self.best_of > 1:
            raise ValueError(
                f'best_of={self.best_of} compares energies, so that all candidates need one composition, which images do not '
                "have; take CrystalDiffusion(stoich='...')"
            )
        self.natoms = None if natoms is None else _check_natoms(natoms)
        self.symmetrize = check_symmetrize(symmetrize)
        self.relax = relax_keywords(relax, self.device, filter='FrechetCellFilter')
        self._load(model)

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
        number = asked.get('space_group')
        if isinstance(number, (int, np.integer)) and not isinstance(number, bool):
            asked['space_group'] = _word(number, conditions_of(self.header).get('space_group'))
        merged = super().check_conditions(asked)
        if natoms is not None and str(natoms) not in self.header['sizes']:
            sizes = ', '.join(map(str, sorted(map(int, self.header['sizes']))))
            log.warning('%s never saw cells of %d atoms, only of %s', self.model, natoms, sizes)
        return merged | {'natoms': natoms}

    def _hint(self) -> str:
        return '; natoms is the number of atoms'

    def _template(self, seed: int) -> Atoms:
        """Return a placeholder with the number of atoms of this seed."""
        atoms = Atoms(f'H{self._drawn_count(seed)}', cell=5 * np.eye(3), pbc=True)
        atoms.info['key_value_pairs'] = {'space_group': 1}
        return atoms

    def _encode(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        batch = super()._encode(seeds, conditions, task)
        if conditions['natoms'] is not None:
            batch.extras['counts'] = batch.extras['counts'].fill_(conditions['natoms'])
        return batch

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        natoms = atoms.info.get('key_value_pairs', {}).get('condition_natoms')
        return MERGED if natoms is not None and len(atoms) != natoms else super()._reason_to_reject(atoms)

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

    def fit(self, data: Any, out: str | Path | None = None, *, steps: int = 20_000, **options: Any) -> Any:
        """Train on crystals and use the result; returns self.

        Parameters
        ----------
        data : list of Atoms, or a path that :func:`ase_diffusion.data.crystals.read_crystals` reads
            Made conventional by spglib; those of more than 52 atoms are left out. A split ``train`` is used where there is one.
        out : path, optional
            Folder for checkpoints and log; the same folder resumes an interrupted training. Default: a temporary one.
        steps : int
        options : see :func:`ase_diffusion.training.crystens.train_crystens` and :func:`ase_diffusion.training.train`.
        """
        return super().fit(data, out, steps=steps, **options)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        if self.networks:
            network = copy_network(self.network).requires_grad_(True)
            options = {'network': network, 'representation': self.representation, **options}
        return train_crystens(images, out, **options)

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        return {**super().todict(), 'natoms': self.natoms, 'symmetrize': self.symmetrize}


def _check_network(network) -> None:
    """Raise a ValueError where a network is unknown or not shipped."""
    if network not in NETWORKS:
        raise ValueError(f'network is one of {", ".join(NETWORKS)}; got {network!r}')
    if network != 'diffusion':
        raise ValueError(f"network={network!r} is not shipped yet; network='diffusion' is")


def _check_natoms(natoms) -> int:
    natoms = check_integer('natoms', natoms, 1)
    if natoms > ATOMS:
        raise ValueError(f'an image holds at most {ATOMS} atoms, natoms={natoms} are more; CrystalDiffusion makes other cells')
    return natoms


def _word(number, known) -> str:
    """Return the word of a space group; ValueError where there is none of this number."""
    if isinstance(known, ClassCondition) and str(int(number)) not in known.classes:
        raise ValueError(f'space_group is a number of the International Tables, 1 to 230; got {number}')
    return str(int(number))
