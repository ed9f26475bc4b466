"""Generate crystals: structure prediction, inverse design, or more of the training data (Takahara et al., arXiv 2406.09263)."""

from __future__ import annotations

import json
import logging
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ...data.crystals import read_crystals
from ...diffusion import SAMPLERS, ClassifierFree, JointProcess, NoisePerStructure
from ...representations import representation_from_dict
from ...representations.reduction import niggli, symmetrize
from ...training.crystal import SCHEMES, train_crystal
from ...training.crystal_data import split_crystals
from ...utils.atoms import parse_formula
from ...utils.checks import check_integer
from ...weights.zoo import list_models, load_model
from ..base import Generator, _collect, compile_core
from ..checks import as_text, check_condition, copy_network, formula_text
from ..relaxation import relax_keywords
from ..selection import BestOf
from ..tasks import FromNoise, given_structures
from ..trajectory import DenoisingTrajectory
from .guidance import CrystalGuidance
from .tasks import AllowedElements, perturbation, shortest_distance

log = logging.getLogger(__name__)

DEFAULT_MODEL, DEFAULT_PREDICTOR = 'mp-le20', 'mp-le20-prediction'
UNTRAINED = 'untrained'
SHORTEST, SMALLEST = 0.5, 0.1  # A and A^3: below, a structure is no crystal (CDVAE)
LARGEST = 5000.0  # A^3 per atom: above it is a gas, in which looking for neighbors takes for ever


class CrystalDiffusion(Generator):
    """Generate crystals with a joint diffusion of lattice, fractional coordinates and species.

    Parameters
    ----------
    stoich : str, optional
        Content of the cell, e.g. ``'Ti4O8'``: its structure is predicted.
    natoms : int, optional
        Atoms per cell; by default as many as in the training data, at random with their frequencies.
    elements : list of str, optional
        Elements that may occur; all that the model knows by default.
    model : str or Path, optional
        A shipped model, a checkpoint, or ``'untrained'`` (then :meth:`fit` comes first). Default: ``'mp-le20-prediction'``
        where ``stoich`` is given (it knows no conditions; ``'mp-le20'`` does), else ``'mp-le20'``.
    conditioning : 'cds' or 'cdi', optional
        Which variant of a model: conditions enter the attention or the first embedding; default: what the model has.
    symmetrize : float, optional
        Average every structure over the symmetry that spglib finds within this tolerance, A.
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
    compile : bool
        Compile the network with torch first; needs a C++ compiler.
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

    default_sampler = SCHEMES['d3pm']['sampler']

    def __init__(
        self,
        stoich=None,
        natoms=None,
        *,
        elements=None,
        model=None,
        conditioning=None,
        symmetrize=None,
        relax=None,
        calculator=None,
        guidance=None,
        compile=False,
        steps=None,
        sampler=None,
        **options,
    ):
        super().__init__(steps=steps, sampler=sampler, **options)
        self._asked = {'steps': steps, 'sampler': sampler}
        if not isinstance(stoich, (str, type(None))):
            raise TypeError(f"stoich is a formula such as 'Ti4O8', got {type(stoich).__name__}; natoms=... counts atoms")
        self.stoich = None if stoich is None else stoich.strip()
        self.numbers = None if stoich is None else parse_formula(stoich)
        self.natoms = None if natoms is None else check_integer('natoms', natoms, 1)
        self.elements = None if elements is None else _elements(elements)
        _check_agreement(self.stoich, self.numbers, self.natoms, self.elements)
        if conditioning not in (None, 'cds', 'cdi'):
            raise ValueError(f"conditioning must be 'cds' or 'cdi', got {conditioning!r}")
        if symmetrize is not None and (isinstance(symmetrize, (bool, str)) or not symmetrize > 0):
            raise ValueError(f'symmetrize is a tolerance in A, positive; got {symmetrize!r}')
        self.conditioning, self.symmetrize, self.compile = conditioning, symmetrize, compile
        self.relax = relax_keywords(relax, self.device, filter='FrechetCellFilter')
        self.guidance = CrystalGuidance.coerce(guidance, calculator)
        if self.best_of > 1:
            self.selection = self._selection(calculator)
        self.network, self.header, self.process = None, {}, None
        if model is None:
            model = DEFAULT_MODEL if stoich is None else DEFAULT_PREDICTOR
        self.model = _variant(str(model), conditioning)
        if self.model != UNTRAINED:
            self._use(*load_model(self.model, self.device))

    def _selection(self, calculator) -> BestOf:
        if self.numbers is None:
            raise ValueError(
                f"best_of={self.best_of} compares energies, so that all candidates need one composition: pass stoich='...'"
            )
        if self.relax is None and calculator is None:
            raise ValueError(
                f'best_of={self.best_of} needs energies: pass relax={{"calculator": ...}}, or calculator=... (and '
                'guidance=False where it shall not guide)'
            )
        return BestOf(self.best_of, calculator if self.relax is None else None, self.device)

    @classmethod
    def from_pretrained(cls, name_or_path, stoich=None, natoms=None, **options):
        """Return a generator with a shipped model or a checkpoint file."""
        return cls(stoich, natoms, model=name_or_path, **options)

    def _use(self, network, header) -> None:
        if header.get('kind') != 'crystal':
            raise ValueError(f'{self.model} is a {header.get("kind")!r} model; CrystalDiffusion needs a crystal model')
        self._check_asked(
            self.model,
            network.settings['conditioning'],
            header.get('csp_fraction'),
            header['representation']['elements'],
            [int(n) for n in header['sizes']],
        )
        self.network, self.header = network.requires_grad_(False), header
        self.representation = representation_from_dict(header['representation'])
        self.process = JointProcess.fromdict(header['process'])
        sampling = {**SCHEMES['d3pm'], **header.get('sampling', {})}
        self.sampling = {name: sampling[name] for name in ('corrector', 'focus') if name in sampling}
        self.steps = sampling['steps'] if self._asked['steps'] is None else self.steps
        self.sampler = sampling['sampler'] if self._asked['sampler'] is None else self.sampler
        if self.compile:
            compile_core(network)

    def _check_asked(self, name: str, conditioning: str, given, known, sizes) -> None:
        """Raise a ValueError where a model, or one trained on such data, could not make what this generator is for."""
        if self.conditioning not in (None, conditioning):
            raise ValueError(f'{name} was trained with conditioning={conditioning!r}, not {self.conditioning!r}')
        if given == 1 and self.numbers is None:
            raise ValueError(f"{name} predicts structures of a given composition: pass stoich='...', or another model")
        asked = set(self.numbers or ()) | set(self.elements or ())
        if unknown := sorted(chemical_symbols[z] for z in asked - set(known)):
            names = ', '.join(chemical_symbols[z] for z in known)
            raise ValueError(f'{name} never saw {", ".join(unknown)}; it knows {names}')
        count = self.natoms if self.numbers is None else len(self.numbers)
        if count is not None and count > max(sizes):
            raise ValueError(
                f'{self.stoich or "the cell"} has {count} atoms, {name} knows cells of up to {max(sizes)}; take '
                'fewer formula units or another model'
            )
        if count is not None and count not in sizes:
            log.warning('%s never saw cells of %d atoms, only of %s', name, count, ', '.join(map(str, sorted(sizes))))

    def _check_conditions(self, conditions: dict) -> dict:
        if self.network is None:
            raise ValueError("this generator is untrained; call gen.fit(data) first, or leave out model='untrained'")
        ranges = self.header.get('conditions', {})
        defaults = {'guidance_scale': 1.0, **dict.fromkeys(ranges), **self.header.get('defaults', {})}
        if unknown := set(conditions) - set(defaults):
            hint = f'; model={DEFAULT_MODEL!r} knows more' if self.model == DEFAULT_PREDICTOR else ''
            raise TypeError(f'unknown conditions {sorted(unknown)}; this model knows {sorted(defaults)}{hint}')
        merged = {**defaults, **conditions}
        for name, value in merged.items():
            check_condition(name, value)
            if value is not None and name in ranges and not ranges[name][0] <= value <= ranges[name][1]:
                log.warning('%s = %g lies outside the training data, %.6g to %.6g', name, value, *ranges[name])
        if merged['guidance_scale'] is None:
            raise ValueError('guidance_scale must be a number; 1 is the plain conditional model, 0 the unconditional one')
        return merged

    def _auto_batch_size(self) -> int:
        return 64

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        if not np.isfinite(atoms.positions).all():
            return 'numbers that are not finite'
        if not atoms.cell.volume >= SMALLEST:
            return f'a volume below {SMALLEST} A^3'
        if atoms.cell.volume > LARGEST * len(atoms):
            return f'a volume above {LARGEST:g} A^3 per atom'
        return None if shortest_distance(atoms) >= SHORTEST else f'atoms closer than {SHORTEST} A, or a flat cell'

    def _count(self, seed: int) -> int:
        """Return the number of atoms of the structure with this seed."""
        if self.numbers is not None or self.natoms is not None:
            return self.natoms if self.numbers is None else len(self.numbers)
        sizes = {int(n): count for n, count in self.header['sizes'].items()}
        weights = np.array(list(sizes.values()), float)
        return int(np.random.default_rng(seed).choice(list(sizes), p=weights / weights.sum()))

    def _template(self, seed: int) -> Atoms:
        """Return placeholders: the wanted species where they are given."""
        count = self._count(seed)
        numbers = [self.representation.elements[0]] * count if self.numbers is None else self.numbers
        return Atoms(numbers, positions=np.zeros((count, 3)), cell=5 * np.eye(3), pbc=True)

    def _generate(self, seeds, conditions, task=None) -> list[Atoms]:
        task = FromNoise(self._template, self.steps) if task is None else task
        given = {k: [np.nan if v is None else v] * len(seeds) for k, v in conditions.items() if k != 'guidance_scale'}
        batch = self.representation.encode(task.take(seeds), given).to(self.device)
        mask, noise = None, NoisePerStructure(seeds)
        if self.numbers is not None or task.keeps_species:
            batch.extras['given_species'] = batch.extras['counts'] > 0
            mask = {'species': batch.extras['given_species'][batch.rows['species']]}
        network = ClassifierFree(self.network, conditions['guidance_scale'])
        if self.elements is not None:
            network = AllowedElements(network, [z in self.elements for z in self.representation.elements])
        sampler = self._sampler()
        guides = () if self.guidance is None else (self.guidance.bind(self.representation, len(seeds)),)
        process, begin = task.begin(self.process, batch, noise, network)
        more = {'sampling_steps': task.steps, **task.labels()}
        before = self.guidance and self.guidance.calls
        with DenoisingTrajectory(self, task.steps, lambda batch: self.representation.decode(batch)[0]) as movie:
            final = sampler(network, process, batch, generator=noise, mask=mask, guidance=guides, callback=movie, **begin)
        if self.guidance is not None:
            more['guidance_calls'] = (self.guidance.calls - before) // len(seeds)
        images = [self._finished(atoms) for atoms in self.representation.decode(final)]
        for atoms, seed in zip(images, seeds, strict=True):
            self._label(atoms, seed, conditions, more)
        return images

    def _sampler(self):
        """Return the sampler, with the settings that the model has for it."""
        own = {'predictor_corrector': 'corrector', 'renoised_ancestral': 'focus'}.get(self.sampler)
        return partial(SAMPLERS[self.sampler], **({own: self.sampling[own]} if own in self.sampling else {}))

    def _finished(self, atoms: Atoms) -> Atoms:
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
            return atoms  # to be rejected
        if self.symmetrize is not None:
            atoms = symmetrize(atoms, self.symmetrize)
        return niggli(atoms)

    def _after_relaxation(self, atoms: Atoms) -> Atoms:
        return super()._after_relaxation(niggli(atoms))

    def _closest(self, atoms: Atoms) -> float:
        return super()._closest(atoms) if self._reason_to_reject(atoms) is None else 0.0

    def _label(self, atoms: Atoms, seed: int, conditions: dict, more: dict) -> None:
        model = as_text(Path(self.model).stem, Path(self.model).name)
        pairs = {
            'generator': type(self).__name__,
            'model': model,
            'sampler': self.sampler,
            'seed': f's{seed:x}',
            'min_distance_ratio': self._closest(atoms),
            **more,
        }
        if self.stoich is not None:
            pairs['stoich'] = formula_text(self.stoich, self.numbers)
        pairs |= {f'condition_{k}' if k != 'guidance_scale' else k: float(v) for k, v in conditions.items() if v is not None}
        atoms.info['key_value_pairs'] = {**atoms.info.get('key_value_pairs', {}), **pairs}
        atoms.info['data'] = {**atoms.info.get('data', {}), 'diffusion': json.loads(json.dumps(self.todict()))}

    def perturb(self, atoms, noise: float = 0.3, n: int | None = 8, *, species: bool = False, **conditions):
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
        count, conditions = check_integer('n', 1 if n is None else n, 1), self._check_conditions(conditions)
        limit = max(int(size) for size in self.header['sizes'])
        task = perturbation(
            given_structures(atoms), noise, self.process, self.representation, limit=limit, steps=self.steps, numbers=self.numbers
        )
        task.keeps_species = not species and self.header.get('csp_fraction', 1) > 0
        return _collect(self._iterate(count, conditions, task), n)

    def fit(self, data, out=None, *, steps=20_000, **options):
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
        images = read_crystals(data) if isinstance(data, (str, Path)) else list(data)
        training, held = split_crystals(images)
        if self.network is not None:
            elements = self.header['representation']['elements']
            options = {'network': copy_network(self.network).requires_grad_(True), 'elements': elements, **options}
        else:
            elements = sorted({*training.elements(), *(held.elements() if held else ())})
            options = {'conditioning': self.conditioning or 'cds', **options}
        conditioning = options['conditioning'] if self.network is None else self.network.settings['conditioning']
        self._check_asked('a model of these data', conditioning, options.get('csp_fraction'), elements, training.counts.tolist())
        with tempfile.TemporaryDirectory() as folder:
            best = train_crystal(training, out or folder, validation=held, steps=steps, **options)
            self.model = str(best) if out is not None else 'fitted'
            self._use(*load_model(best, self.device))
        return self

    def todict(self) -> dict:
        """Return what made the structures, fit for JSON."""
        return {
            'type': 'crystal-diffusion',
            'model': self.model,
            'stoich': self.stoich,
            'natoms': self.natoms,
            'elements': None if self.elements is None else [chemical_symbols[z] for z in self.elements],
            'sampler': self.sampler,
            'steps': self.steps,
            'symmetrize': self.symmetrize,
            'fingerprint': self.header.get('data', {}).get('fingerprint'),
            'guidance': None if self.guidance is None else self.guidance.todict(),
            **({} if self.selection is None else self.selection.todict()),
        }


def _elements(elements) -> list[int]:
    """Return atomic numbers, sorted; raise a ValueError for what is no element."""
    if isinstance(elements, str):
        raise ValueError(f"elements is a list of symbols, such as ['Li', 'O']; got {elements!r}")
    numbers = set()
    for symbol in elements:
        if symbol not in chemical_symbols[1:]:
            raise ValueError(f'elements is a list of chemical symbols; {symbol!r} is none')
        numbers.add(chemical_symbols.index(symbol))
    if not numbers:
        raise ValueError('elements is a list of chemical symbols, one or more; got none')
    return sorted(numbers)


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
