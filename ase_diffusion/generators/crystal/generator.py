"""Generate crystals: structure prediction, inverse design, or more of the training data (Takahara et al., arXiv 2406.09263)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ...calculators.elements import check_elements
from ...calculators.names import CalculatorLike
from ...diffusion import Batch
from ...representations import Crystal
from ...representations.cells import space_group_of
from ...representations.reduction import niggli
from ...training.crystal import SCHEMES, train_crystal
from ...training.crystal_data import Crystals, split_crystals
from ...utils.atoms import atomic_numbers_of, composition_text, parse_formula
from ...utils.checks import check_integer, check_number
from ...utils.rng import spawn_seeds
from ...weights.zoo import list_models
from ..base import collect
from ..bulk import check_symmetrize, without
from ..compiling import copy_network
from ..relaxation import relax_keywords
from ..selection import BestOf
from ..tasks import FromNoise, given_structures
from ..text import formula_text
from .bank import SAME_TYPE
from .guidance import CrystalGuidance
from .tasks import AllowedElements, perturbation
from .templates import (
    PRIOR_WEIGHT,
    ElementTemplates,
    Templates,
    TemplatesFirst,
    UnknownToModel,
    asked_templates,
    check_space_group,
    energy_and_prior,
)

log = logging.getLogger(__name__)

DEFAULT_MODEL, DEFAULT_PREDICTOR = 'mp-le20', 'mp-le20-prediction'
SYMMETRIC = 0.1  # A, of the symmetry of results


class CrystalDiffusion(TemplatesFirst):
    """Generate crystals with a joint diffusion of lattice, fractional coordinates and species.

    Parameters
    ----------
    stoich : str or dict, optional
        Content of the cell, e.g. ``'Ti4O8'`` or ``{'Ti': 4, 'O': 8}``: its structure is predicted.
    natoms : int, optional
        Atoms per cell; by default as many as in the training data, at random with their frequencies.
    elements : list of str, optional
        Elements that may occur; all that the model knows by default.
    all_elements : bool
        Every one of ``elements`` must occur: crystals without one are rejected.
    model : str or Path, optional
        A shipped model, a checkpoint, or ``'untrained'`` (then :meth:`fit` comes first). Default: ``'mp-le20-prediction'``
        where ``stoich`` is given (it knows no conditions; ``'mp-le20'`` does), else ``'mp-le20'``.
    conditioning : 'cds' or 'cdi', optional
        Which variant of a model: conditions enter the attention or the first embedding; default: what the model has.
    templates : bool, int, path or list of Atoms, optional
        Structures come first from known crystals whose elements are exchanged by similarity, the volume scaled
        (:class:`ase_diffusion.generators.crystal.prototypes.Prototypes`), each once, the likeliest first; then from the network.
        With ``stoich`` those of the same anonymous formula, or with an element more or less where these are not likely; with
        ``elements`` and ``all_elements`` those of as many elements, in all compositions. A number: no more of them than this.
        False: the network alone. A list or a file of crystals: added to those that ship. Default: 20 where no model is named;
        the network alone with another model, a denoising trajectory, or guidance without ``best_of``.
    space_group : int, optional
        Space group that spglib finds in a result within 0.1 A; templates of it are taken, and what has another is rejected.
    symmetrize : float or None
        Average every structure over the symmetry that spglib finds within this tolerance, A; after a relaxation as well. None or
        0: as the network left it, which is P1 at tolerances below its noise. The default moves no energy by more than 5 meV/atom.
    relax : dict, optional
        Keywords of :func:`ase_diffusion.relax.relax`; positions and cell are relaxed before a structure is returned. One whose
        relaxation fails is rejected, and another takes its place.
    calculator, guidance : optional
        Guidance along the forces (and the stress) of an ASE calculator: ``guidance`` is a dict of the parameters of
        :class:`ase_diffusion.generators.crystal.guidance.CrystalGuidance`. It moves more with ``sampler='ancestral'`` or
        ``'predictor_corrector'``: 'renoised_ancestral' takes the opinion of the network anew before each step.
    best_of : int
        Generate this many candidates for each structure and return the one of lowest energy, that of ``relax`` or else a single
        point of ``calculator`` (which guides as well unless ``guidance=False``); needs ``stoich``, since energies of different
        compositions cannot be compared.
    prior_weight : float
        With ``best_of``: eV per atom that a factor of e in the probability of a template is worth: the lowest
        energy / atoms - prior_weight * log(probability) is returned. 0: the energy alone decides.
    steps, sampler : optional
        Default: what the model says: ``'renoised_ancestral'`` with 100 steps, which finds minima, or the paper's
        ``'predictor_corrector'`` with 1000, which shows how they are spread.
    rng, batch_size, device, logfile, trajectory, denoising_trajectory, maxtries
        See :class:`ase_diffusion.generators.base.Generator`.

    Raises
    ------
    ValueError
        stoich, natoms and elements contradict each other, or the model does not know the elements or that many atoms.
    CheckpointError
        The model cannot be loaded.

    Examples
    --------
    >>> gen = CrystalDiffusion(model='perov-5')              # doctest: +SKIP
    >>> images = gen.sample(16, heat_of_formation=-0.2)      # doctest: +SKIP
    """

    kind: ClassVar[str] = 'crystal'
    default_sampling: ClassVar[dict] = SCHEMES['d3pm']
    default_batch_size: ClassVar[int] = 64
    recorded: ClassVar[tuple[str, ...]] = (
        'stoich',
        'natoms',
        'elements',
        'symmetrize',
        'templates',
        'space_group',
        'all_elements',
        'prior_weight',
    )

    def __init__(
        self,
        stoich: str | Mapping[str, int] | None = None,
        natoms: int | None = None,
        *,
        elements: list[str] | None = None,
        all_elements: bool = False,
        model: str | Path | None = None,
        conditioning: Literal['cds', 'cdi'] | None = None,
        templates: bool | int | str | Path | Iterable[Atoms] | None = None,
        space_group: int | None = None,
        symmetrize: float | None = SYMMETRIC,
        relax: dict | None = None,
        calculator: CalculatorLike | None = None,
        guidance: CalculatorLike | CrystalGuidance | dict | bool | None = None,
        prior_weight: float = PRIOR_WEIGHT,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(stoich, (int, np.integer)):
            raise TypeError(f"stoich is a formula such as 'Ti4O8', got {stoich!r}; natoms={stoich} counts atoms")
        self.stoich = None if stoich is None else composition_text(stoich)
        self.numbers = None if stoich is None else parse_formula(self.stoich)
        self.natoms = None if natoms is None else check_integer('natoms', natoms, 1)
        self.elements = None if elements is None else _elements(elements)
        _check_agreement(self.stoich, self.numbers, self.natoms, self.elements)
        self.all_elements = bool(all_elements)
        if self.all_elements and (self.elements is None or len(self.elements) > (self.natoms or len(self.elements))):
            raise ValueError(f'all_elements needs elements, no more of them than natoms={natoms}; got elements={elements}')
        if conditioning not in (None, 'cds', 'cdi'):
            raise ValueError(f"conditioning must be 'cds' or 'cdi', got {conditioning!r}")
        self.conditioning, self.symmetrize = conditioning, check_symmetrize(symmetrize)
        asked = self.numbers or (self.elements if self.all_elements else ())
        self.relax = relax_keywords(relax, self.device, numbers=asked, filter='FrechetCellFilter')
        self.guidance = CrystalGuidance.coerce(guidance, calculator)
        if self.guidance is not None:
            check_elements(self.guidance.calculator, asked, 'guidance')
        what = 'eV per atom, such as 0.01, or 0 for the energy alone'
        self.prior_weight = check_number('prior_weight', prior_weight, what, strict=False)
        if self.best_of > 1:
            self.selection = self._selection(calculator)
        self.space_group = None if space_group is None else check_space_group(space_group)
        templates = asked_templates(templates, None)
        if templates is None:
            guided = self.denoising_trajectory is not None or (self.guidance is not None and self.best_of == 1)
            known = (stoich is not None or self.all_elements) and model is None
            templates = known and not guided
            if known and guided:
                self.log.write(
                    'templates: left out, for guidance and denoising are of the network; templates=True takes them first'
                )
        if self.all_elements and self.numbers is None and templates is not False:
            every = ElementTemplates(templates, self.elements, self.natoms, space_group=self.space_group)
            self.templates = every.ordered(spawn_seeds(self.rng, 1)[0])
        else:
            self.templates = Templates.coerce(templates, self.numbers, self.space_group)
        if self.space_group is not None and (self.templates is None or not self.templates.found):
            log.warning('no template has the space group that is asked for; %s', self._advice())
        if model is None:
            model = DEFAULT_MODEL if stoich is None else DEFAULT_PREDICTOR
        self._load(_variant(str(model), conditioning))

    def _selection(self, calculator) -> BestOf:
        if self.numbers is None:
            raise ValueError(
                f"best_of={self.best_of} compares energies, so that all candidates need one composition: pass stoich='...'"
            )
        if self.relax is None and calculator is None:
            raise ValueError(
                f'best_of={self.best_of} needs energies: pass relax={{"calculator": ...}}, or calculator=... (and '
                'guidance=False where it does not guide)'
            )
        judge = calculator if self.relax is None else None
        if judge is not None:
            check_elements(judge, self.numbers, 'best_of')
        return BestOf(self.best_of, judge, self.device, partial(energy_and_prior, weight=self.prior_weight))

    def _adapt(self, representation: Crystal, networks: dict, header: dict) -> Crystal:
        network = next(iter(networks.values()))
        sizes = [int(n) for n in header['sizes']]
        known, given = header['representation']['elements'], header.get('csp_fraction')
        self._check_network(lambda: self._check_asked(self.model, network.settings['conditioning'], given, known, sizes))
        return representation

    def _other_sizes(self) -> str:
        return '' if self.templates is None else self.templates.other_sizes()

    def _check_asked(self, name: str, conditioning: str, given, known, sizes) -> None:
        """Raise a ValueError where a model, or one trained on such data, could not make what this generator is for."""
        if self.conditioning not in (None, conditioning):
            raise ValueError(f'{name} was trained with conditioning={conditioning!r}, not {self.conditioning!r}')
        if given == 1 and self.numbers is None:
            raise ValueError(f"{name} predicts structures of a given composition: pass stoich='...', or another model")
        asked = set(self.numbers or ()) | set(self.elements or ())
        if unknown := sorted(chemical_symbols[z] for z in asked - set(known)):
            names = ', '.join(chemical_symbols[z] for z in known)
            raise UnknownToModel(f'{name} never saw {", ".join(unknown)}', f'it knows {names}')
        count = self.natoms if self.numbers is None else len(self.numbers)
        if count is not None and count > max(sizes):
            raise UnknownToModel(
                f'{self.stoich or "the cell"} has {count} atoms, {name} knows cells of up to {max(sizes)}',
                'take fewer formula units or another model',
            )
        if count is not None and count not in sizes and self.templates is None:
            log.warning('%s never saw cells of %d atoms, only of %s', name, count, ', '.join(map(str, sorted(sizes))))

    def _hint(self) -> str:
        more = f'; model={DEFAULT_MODEL!r} knows more' if self.model == DEFAULT_PREDICTOR else ''
        return f'{more}; stoich, natoms, elements and space_group are arguments of CrystalDiffusion'

    def _advice(self) -> str:
        if self.space_group is None:
            return 'try more steps or another model'
        return (
            f'the network finds space group {self.space_group} by chance only: leave space_group out, or take '
            f'CrysTensDiffusion().sample(space_group={self.space_group}), whose crystals are in the group asked for'
        )

    def _count(self, seed: int) -> int:
        """Return the number of atoms of the structure with this seed."""
        if self.numbers is not None or self.natoms is not None:
            return self.natoms if self.numbers is None else len(self.numbers)
        return self._drawn_count(seed)

    def _template(self, seed: int) -> Atoms:
        """Return placeholders: the wanted species where they are given."""
        count = self._count(seed)
        numbers = [self.representation.elements[0]] * count if self.numbers is None else self.numbers
        return Atoms(numbers, positions=np.zeros((count, 3)), cell=5 * np.eye(3), pbc=True)

    def _task(self, conditions: dict | None = None) -> FromNoise:
        task = super()._task(conditions)
        if self.templates is None or conditions is None:
            return task
        if reason := self.templates.reason_against(list(self._asked_for(conditions))):
            self.log.write(f'templates: {reason}; the network alone')
            return task
        if self.guidance is not None:
            self.log.write('templates: guidance is for the structures of the network')
        return self._from_templates(conditions, task, *(self.templates_begin or ()))

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        reason = super()._reason_to_reject(atoms)
        if reason is None and self.space_group is not None and space_group_of(atoms, SAME_TYPE) != self.space_group:
            return f'another space group than {self.space_group}'
        if reason is None and self.all_elements:
            return without(atoms, [chemical_symbols[z] for z in self.elements])
        return reason

    def _sample_batch(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        batch, mask = self._encode(seeds, conditions, task), None
        if self.numbers is not None or task.keeps_species:
            batch.extras['given_species'] = batch.extras['counts'] > 0
            mask = {'species': batch.extras['given_species'][batch.rows['species']]}
        wrap = None
        if self.elements is not None:
            wrap = partial(AllowedElements, allowed=[z in self.elements for z in self.representation.elements])
        if self.guidance is None:
            return self._denoise(batch, seeds, conditions, task, wrap=wrap, mask=mask)
        guide, before = self.guidance.bind(self.representation, len(seeds)), self.guidance.calls
        final = self._denoise(batch, seeds, conditions, task, wrap=wrap, mask=mask, guides=(guide,))
        final.extras['labels'] = {'guidance_calls': (self.guidance.calls - before) // len(seeds)}
        return final

    def _reduced(self, atoms: Atoms) -> Atoms:
        return niggli(atoms)

    def _identity(self) -> dict:
        return {} if self.stoich is None else {'stoich': formula_text(self.stoich, self.numbers)}

    @overload
    def perturb(
        self, atoms: Atoms | Sequence[Atoms], noise: float = 0.3, n: int = 8, *, species: bool = False, **conditions: Any
    ) -> list[Atoms]: ...
    @overload
    def perturb(
        self, atoms: Atoms | Sequence[Atoms], noise: float = 0.3, n: None = None, *, species: bool = False, **conditions: Any
    ) -> Atoms: ...
    def perturb(
        self, atoms: Atoms | Sequence[Atoms], noise: float = 0.3, n: int | None = 8, *, species: bool = False, **conditions: Any
    ) -> Atoms | list[Atoms]:
        """Noise given crystals a little and denoise them: neighbors of theirs that the model finds likely.

        Parameters
        ----------
        atoms : Atoms or list of Atoms
            Crystals of elements that the model knows; of several, each has its turn. Never changed.
        noise : float
            Standard deviation of the noise on the positions, A; the lattice is noised to the same time of the diffusion.
        n : int or None
            Number of structures; None returns one Atoms and not a list.
        species : bool
            Noise the species as well. They forget what they were far earlier than the sites do (perov-5: 0.05 A keeps the
            formulas, 0.1 A four in ten, 0.2 A none), so by default they stay, except in models that were trained without given
            species (``csp_fraction=0``).
        conditions
            As for :meth:`sample`, which also describes what is raised in addition.

        Raises
        ------
        ValueError
            noise is not above the least that the model knows; a structure is no crystal, too large, or has elements that the
            model does not know; ``species`` together with ``stoich``.
        """
        if species and self.numbers is not None:
            raise ValueError(f'stoich={self.stoich!r} fixes the species; leave species=True out')
        count, conditions = check_integer('n', 1 if n is None else n, 1), self.check_conditions(conditions)
        limit = max(int(size) for size in self.header['sizes'])
        task = perturbation(
            given_structures(atoms), noise, self.process, self.representation, limit=limit, steps=self.steps, numbers=self.numbers
        )
        task.keeps_species = not species and self.header.get('csp_fraction', 1) > 0
        return collect(self._iterate(count, conditions, task), n)

    def fit(
        self, data: Iterable[Atoms] | str | Path, out: str | Path | None = None, *, steps: int = 20_000, **options: Any
    ) -> Self:
        """Train on crystals and use the result; returns self.

        Parameters
        ----------
        data : list of Atoms, or a path that :func:`ase_diffusion.data.crystals.read_crystals` reads
            Numbers in ``info['key_value_pairs']`` are properties. A split ``train`` is used where there is one.
        out : path, optional
            Folder for checkpoints and log; the same folder resumes an interrupted training. Default: a temporary one.
        steps : int
        options : see :func:`ase_diffusion.training.crystal.train_crystal` and :func:`ase_diffusion.training.train`.
        """
        return super().fit(data, out, steps=steps, **options)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        training, held = split_crystals(images)
        if (mine := options.pop('validation', None)) is not None:
            held = mine if isinstance(mine, Crystals) else Crystals.from_atoms(mine)
        if self.networks:
            elements = self.header['representation']['elements']
            options = {'network': copy_network(self.network).requires_grad_(True), 'elements': elements, **options}
            conditioning = self.network.settings['conditioning']
        else:
            elements = sorted({*training.elements(), *(held.elements() if held else ())})
            options = {'conditioning': self.conditioning or 'cds', **options}
            conditioning = options['conditioning']
        self._check_asked('a model of these data', conditioning, options.get('csp_fraction'), elements, training.counts.tolist())
        return train_crystal(training, out, validation=held, **options)

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        return {
            **super().todict(),
            'stoich': self.stoich,
            'natoms': self.natoms,
            'elements': None if self.elements is None else [chemical_symbols[z] for z in self.elements],
            'symmetrize': self.symmetrize,
            **({} if self.templates is None else {'templates': self.templates.record}),
            **({} if self.space_group is None else {'space_group': self.space_group}),
            **({'all_elements': True} if self.all_elements else {}),
            **({'prior_weight': self.prior_weight} if self.best_of > 1 else {}),
        }


def _elements(elements) -> list[int]:
    """Return atomic numbers, sorted; raise a ValueError for what is no element."""
    if isinstance(elements, str):
        raise ValueError(f"elements is a list of symbols, such as ['Li', 'O']; got {elements!r}")
    if numbers := atomic_numbers_of(elements, 'elements'):
        return numbers
    raise ValueError('elements is a list of chemical symbols, one or more; got none')


def _check_agreement(stoich, numbers, natoms, elements) -> None:
    """Raise a ValueError where stoich, natoms and elements contradict each other."""
    if numbers is None:
        return
    if natoms not in (None, len(numbers)):
        raise ValueError(
            f'stoich={stoich!r} has {len(numbers)} atoms, natoms={natoms} says otherwise; leave natoms out, or '
            'write the content of the whole cell as stoich'
        )
    if elements is not None and set(elements) != set(numbers):
        names = [chemical_symbols[z] for z in elements]
        raise ValueError(f'stoich={stoich!r} fixes the elements, elements={names} are others; leave elements out')


def _variant(model: str, conditioning) -> str:
    """Return the shipped variant of a model with this conditioning, or the model as it is."""
    names = [entry['name'] for entry in list_models('crystal')]
    if conditioning is not None and f'{model}-{conditioning}' in names:
        return f'{model}-{conditioning}'
    return model
