"""A generative model and one batch of it: from seeds to structures or failures, with labels."""

from __future__ import annotations

import inspect
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from ase import Atoms

from ..diffusion import SAMPLERS, Batch, ClassifierFree, JointProcess, NoisePerStructure
from ..representations import Failure, Representation, representation_from_dict
from ..representations.conditions import RANGES, NumberCondition, Range, conditions_of, with_numbers
from ..training.checkpoint import save_checkpoint
from ..training.recipe import train_method
from ..training.trainer import check_lightning
from ..utils.atoms import as_list, min_distance_ratio
from ..utils.checks import check_integer, check_output_folder
from ..utils.device import pick_device
from ..utils.progress import Steps
from ..utils.provenance import note
from ..utils.rng import RandomSource, coerce_rng, spawn_seeds
from ..weights.zoo import load_networks
from .compiling import compile_core, copy_network
from .tasks import FromNoise
from .text import as_text, condition_text, plain, shown_condition
from .trajectory import DenoisingTrajectory

if TYPE_CHECKING:
    from .guidance import CallCounter
    from .selection import BestOf

log = logging.getLogger(__name__)

UNTRAINED = 'untrained'
Outcome = Atoms | Failure


class GenerativeModel:
    """Networks, representation and process of a checkpoint, and batches of structures from them.

    The base of :class:`ase_diffusion.generators.base.Generator`, whose docstring has the parameters.

    Attributes
    ----------
    kind : str
        The word of the method: kind of its checkpoints, verb of the command line.
    default_sampling : dict
        ``sampler``, ``steps`` and options of samplers where the model does not say.
    default_condition, default_guidance_scale : float or None
        What is asked for where the user asks for nothing.
    default_batch_size : int
    always_known : tuple of str
        Conditions that the unconditional network of classifier-free guidance knows, too.
    """

    kind: ClassVar[str] = ''
    default_sampling: ClassVar[dict] = {'sampler': 'ancestral', 'steps': 100}
    default_condition: ClassVar[float | None] = None
    default_guidance_scale: ClassVar[float] = 1.0
    default_batch_size: ClassVar[int] = 16
    always_known: ClassVar[tuple[str, ...]] = ()
    networks: dict[str, torch.nn.Module]
    header: dict
    process: JointProcess | None
    guidance: CallCounter | None = None
    selection: BestOf | None = None

    def __init__(
        self,
        *,
        rng: RandomSource = None,
        steps: int | None = None,
        sampler: str | None = None,
        batch_size: int | None = None,
        device: str | int | torch.device | None = None,
        denoising_trajectory: str | Path | None = None,
        compile: bool | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            words = ', '.join(sorted(unknown))
            raise TypeError(
                f'{type(self).__name__} has no argument {words}; it has {_arguments(type(self))}; '
                'conditions are keywords of sample'
            )
        self.rng = coerce_rng(rng)
        self._asked = {
            'steps': None if steps is None else check_integer('steps', steps, 2),
            'sampler': None if sampler is None else check_sampler(sampler),
        }
        self.sampling = {**self.default_sampling, **{k: v for k, v in self._asked.items() if v is not None}}
        self.batch_size = None if batch_size is None else check_integer('batch_size', batch_size, 1)
        self.device, self.compile = pick_device(device), compile
        self.denoising_trajectory = denoising_trajectory
        self.model, self.networks, self.header, self.process = UNTRAINED, {}, {}, None
        self.representation: Representation | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *args: Any, **options: Any) -> Self:
        """Return a generator with a shipped model or a checkpoint file; the other arguments are those of the class."""
        return cls(*args, model=name_or_path, **options)

    @property
    def network(self) -> torch.nn.Module | None:
        """The first network of the model; None before it is trained."""
        return next(iter(self.networks.values()), None)

    @property
    def steps(self) -> int | None:
        """Sampling steps; None for a model without a process."""
        return self.sampling.get('steps')

    @steps.setter
    def steps(self, steps: int) -> None:
        self._ask('steps', check_integer('steps', steps, 2))

    @property
    def sampler(self) -> str | None:
        """Name of the sampler; None for a model without a process."""
        return self.sampling.get('sampler')

    @sampler.setter
    def sampler(self, sampler: str) -> None:
        self._ask('sampler', check_sampler(sampler))

    def _ask(self, name: str, value) -> None:
        """Set an option of sampling as the user wants it, for this model and those that :meth:`fit` makes."""
        if self.networks and self.process is None:
            raise ValueError(f'{self.model} generates in one pass, without a diffusion process; it has no {name}')
        self._asked[name] = self.sampling[name] = value

    def _load(self, model) -> None:
        """Load a model by name or path, unless it is ``'untrained'``."""
        self.model = str(model)
        if self.model != UNTRAINED:
            self._use(*load_networks(self.model, self.device))

    def _use(self, networks: dict[str, torch.nn.Module], header: dict) -> None:
        if header.get('kind') != self.kind:
            raise ValueError(f'{self.model} is a {header.get("kind")!r} model; {type(self).__name__} needs a {self.kind} model')
        representation = self._adapt(representation_from_dict(header['representation']), networks, header)
        process = None if header.get('process') is None else JointProcess.fromdict(header['process'])
        asked = {name: value for name, value in self._asked.items() if value is not None}
        if process is None and asked:
            raise ValueError(
                f'{self.model} generates in one pass, without a diffusion process; leave out {" and ".join(sorted(asked))}'
            )
        learned = header.get('sampling', {})
        self.sampling = {} if process is None else {**self.default_sampling, **learned, **self._sampling_here(), **asked}
        self.networks = {name: network.requires_grad_(False) for name, network in networks.items()}
        self.header, self.representation, self.process = header, representation, process
        if self.compile:
            compile_core(self.network)

    def _sampling_here(self) -> dict:
        """Return what of the sampling other arguments of this generator decide, in place of the model and unless it is given."""
        return {}

    def _adapt(self, representation: Representation, networks: dict, header: dict) -> Representation:
        """Return the representation of a model as this generator uses it; raise a ValueError where the model does not fit."""
        return representation

    def fit(
        self, data: Iterable[Atoms] | str | Path, out: str | Path | None = None, *, steps: int = 20_000, **options: Any
    ) -> Self:
        """Train on structures and use the result; returns self.

        Parameters
        ----------
        data : list of Atoms, or a path that the reader of the method takes
            Structures that cannot be used are left out; a warning counts and names them.
        out : path, optional
            Folder for checkpoints and log; the same folder resumes an interrupted training. Default: a temporary one.
        steps : int
        options
            Of the training recipe of the method and of :func:`ase_diffusion.training.train` (``minutes``, ``lr``,
            ``batch_size``, ...).
        """
        check_lightning()
        if out is not None:
            check_output_folder(out)
        images = self._read(data) if isinstance(data, (str, Path)) else _structures(data)
        with tempfile.TemporaryDirectory() as folder:
            best = self._train(images, folder if out is None else out, steps=steps, **options)
            self.model = str(best) if out is not None else 'fitted'
            self._use(*load_networks(best, self.device))
        return self

    def _read(self, path) -> list[Atoms]:
        """Return the structures of a file of training data."""
        from ..data import read_frames

        return read_frames(path)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        """Train on structures; return the path of the best checkpoint."""
        if self.networks:
            representation, network = self.representation, copy_network(self.network).requires_grad_(True)
        else:
            representation, network = self._untrained(images)
        return train_method(representation, network, images, out, kind=self.kind, sampling=self.sampling, **options)

    def _untrained(self, images: list[Atoms]) -> tuple[Representation, Callable[..., torch.nn.Module]]:
        """Return representation and network of a new model: ``network(conditions={...})`` builds one."""
        raise NotImplementedError

    def save(self, path: str | Path) -> Path:
        """Write the model as one safetensors file that ``model=path`` reads."""
        if not self.networks:
            raise ValueError('there is nothing to save: this generator is untrained; call gen.fit(data) first')
        check_output_folder(Path(path).parent)
        if Path(path).is_dir():
            raise IsADirectoryError(f'a model is one file, but {path} is a folder; name a file in it')
        return save_checkpoint(path, self.networks, self.header)

    def check_conditions(self, conditions: dict) -> dict:
        """Return all conditions of a call with their defaults, checked; a pair of numbers as a range.

        Of a range the part is taken that lies in the training data, with a warning where it is not all.

        Raises
        ------
        ValueError
            The generator is untrained; a value has no meaning.
        TypeError
            A keyword is no condition of this model.
        """
        if not self.networks:
            raise ValueError("this generator is untrained; call gen.fit(data) first, or leave out model='untrained'")
        known = conditions_of(self.header)
        numbers = {name for name, condition in known.items() if isinstance(condition, NumberCondition)}
        defaults = {name: self.default_condition if name in numbers else None for name in known}
        merged = {'guidance_scale': self.default_guidance_scale, **defaults, **self.header.get('defaults', {})}
        if unknown := set(conditions) - set(merged):
            raise TypeError(f'unknown conditions {sorted(unknown)}; this model knows {sorted(merged)}{self._hint()}')
        merged |= conditions
        for name, condition in known.items():
            if merged[name] is not None:
                check = condition.check_asked if isinstance(condition, NumberCondition) else condition.check
                merged[name] = value = check(name, merged[name])
                if (span := condition.outside(value)) is not None:
                    verb, rest = 'lies', ''
                    if isinstance(value, Range) and (part := condition.overlap(value)) is not None:
                        verb, rest = 'reaches', f'; numbers are drawn from {shown_condition(part)}'
                        merged[name] = part
                    log.warning('%s = %s %s outside the training data, %s%s', name, shown_condition(value), verb, span, rest)
        if merged['guidance_scale'] is None:
            raise ValueError('guidance_scale must be a number; 1 is the plain conditional model, 0 the unconditional one')
        merged['guidance_scale'] = NumberCondition(0, 0).check('guidance_scale', merged['guidance_scale'])
        return merged

    def _nothing_asked(self) -> dict:
        """Return the conditions that ask for nothing, in place of the defaults."""
        return dict.fromkeys(conditions_of(self.header)) if self.networks else {}

    def _hint(self) -> str:
        """Return the end of the message for unknown conditions."""
        return ''

    def _auto_batch_size(self) -> int:
        return self.default_batch_size

    def _template(self, seed: int) -> Any:
        """Return what is given of the structure with this seed, as the representation encodes it."""
        raise NotImplementedError

    def _task(self, conditions: dict | None = None) -> FromNoise:
        """Return the task of :meth:`sample` with these conditions."""
        return FromNoise(self._template, self.steps)

    def _encode(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        """Return the batch of the templates and conditions, on the device."""
        return self.representation.encode(task.take(seeds), self._tensors(seeds, conditions)).to(self.device)

    def _asked_of(self, conditions: dict, seed: int) -> dict:
        """Return the conditions of the structure with this seed: a number in place of each range."""
        return with_numbers(conditions, np.random.default_rng([seed, RANGES]))

    def _tensors(self, seeds: list[int], conditions: dict) -> dict[str, torch.Tensor]:
        """Return what is asked for of each structure, by name, (B, ...)."""
        asked = [self._asked_of(conditions, seed) for seed in seeds]
        return {name: form.tensor([each[name] for each in asked]) for name, form in conditions_of(self.header).items()}

    def _sample_batch(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        """Return the finished batch of these seeds; a subclass adds masks and guidance."""
        return self._denoise(self._encode(seeds, conditions, task), seeds, conditions, task)

    def _denoise(
        self, batch: Batch, seeds, conditions: dict, task: FromNoise, *, wrap=None, mask=None, guides=(), process=None
    ) -> Batch:
        """Run the sampler, or the single pass of a model without a process.

        Parameters
        ----------
        wrap : callable, optional
            ``wrap(network) -> network``, around classifier-free guidance.
        mask, guides
            ``mask`` and ``guidance`` of the sampler.
        process : JointProcess, optional
            In place of that of the model.
        """
        noise = NoisePerStructure(seeds)
        if self.process is None:
            with torch.inference_mode():
                return batch.with_fields(**self.network.generate(batch, noise, batch.conditions))
        network = ClassifierFree(self.network, conditions['guidance_scale'], self.always_known)
        network = network if wrap is None else wrap(network)
        process, begin = task.begin(self.process if process is None else process, batch, noise, network)
        with DenoisingTrajectory(self, begin['steps']) as movie, Steps(begin['steps'], movie) as callback:
            return self._sampler()(
                network, process, batch, generator=noise, mask=mask, guidance=guides, callback=callback, **begin
            )

    def _sampler(self) -> Callable:
        """Return the sampler with the options that the model has for it."""
        sampler = SAMPLERS[self.sampler]
        return partial(sampler, **sampler.options_in(self.sampling))

    def _candidates(self, seeds: list[int], conditions: dict, task: FromNoise) -> list[Outcome]:
        """Return one labelled structure or failure per seed."""
        batch = self._sample_batch(seeds, conditions, task)
        more = {
            **({} if self.process is None else {'sampler': self.sampler, 'sampling_steps': task.steps}),
            **task.labels(),
            **batch.extras.get('labels', {}),
        }
        return self._labelled(task.restore(self.representation.decode(batch), batch), seeds, conditions, more)

    def _labelled(self, found: list[Outcome], seeds: list[int], conditions: dict, more: dict) -> list[Outcome]:
        """Return structures in their final form with their labels, or failures, one for each seed."""
        outcomes = []
        for outcome, seed in zip(found, seeds, strict=True):
            outcome = outcome if isinstance(outcome, Failure) else self._finish(outcome)
            if not isinstance(outcome, Failure):
                self._label(outcome, seed, conditions, more)
            outcomes.append(outcome)
        return outcomes

    def candidates(self, seeds: list[int], task: FromNoise | None = None, **conditions: Any) -> list[Outcome]:
        """Return one structure or :class:`~ase_diffusion.representations.Failure` for each seed, without checks and relaxation.

        Parameters
        ----------
        seeds : list of int
            From :func:`ase_diffusion.utils.rng.spawn_seeds`; one batch.
        task : optional
            Of :mod:`ase_diffusion.generators.tasks`; default: from noise.
        """
        return self._candidates(list(seeds), self.check_conditions(conditions), self._task() if task is None else task)

    def sample_batches(self, n: int, **conditions: Any) -> Iterator[Batch]:
        """Yield finished batches, of n samples in all, before they are decoded: the tensors of the fields."""
        n, conditions = check_integer('n', n, 1), self.check_conditions(conditions)
        return (self._sample_batch(seeds, conditions, self._task()) for seeds in self._seeds(n))

    def _seeds(self, n: int) -> Iterator[list[int]]:
        while n > 0:
            seeds = spawn_seeds(self.rng, min(n, self.batch_size or self._auto_batch_size()))
            n -= len(seeds)
            yield seeds

    def _frame(self, batch: Batch) -> Atoms | None:
        """Return the first structure of a batch that is being denoised, for the denoising trajectory; None: nothing to show."""
        outcome = self.representation.decode(batch)[0]
        return None if isinstance(outcome, Failure) else outcome

    def _finish(self, atoms: Atoms) -> Outcome:
        """Return a decoded structure in its final form, or why it is none."""
        return atoms

    def _identity(self) -> dict:
        """Return what was asked for at construction, for provenance: stoich, elements, ..."""
        return {}

    def _label(self, atoms: Atoms, seed: int, conditions: dict, more: dict) -> None:
        notes = {
            'generator': type(self).__name__,
            'model': as_text(Path(self.model).stem, Path(self.model).name),
            **self._identity(),
            'seed': f's{seed:x}',
            'min_distance_ratio': self._min_distance_ratio(atoms),
            **more,
        }
        for name, value in self._asked_of(conditions, seed).items():
            if value is not None:
                notes[name if name == 'guidance_scale' else f'condition_{name}'] = condition_text(value)
        note(atoms, **notes)
        atoms.info['data'] = {**atoms.info.get('data', {}), 'diffusion': json.loads(json.dumps(self.todict(), default=plain))}

    def _min_distance_ratio(self, atoms: Atoms) -> float:
        """Return the shortest distance over the sum of the covalent radii, capped at 99, since ase.db cannot store inf."""
        return float(min(min_distance_ratio(atoms), 99.0))

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        return {
            'type': f'{self.kind}-diffusion',
            'model': self.model,
            **self._identity(),
            **{name: self.sampling[name] for name in ('sampler', 'steps') if name in self.sampling},
            'fingerprint': self.header.get('data', {}).get('fingerprint'),
            'guidance': None if self.guidance is None else self.guidance.todict(),
            **({} if self.selection is None else self.selection.todict()),
        }


def _arguments(cls: type) -> list[str]:
    """Return the names of the arguments of a class and of those that it inherits from."""
    found = [inspect.signature(kind.__init__).parameters.values() for kind in cls.__mro__ if '__init__' in vars(kind)]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return sorted({each.name for some in found for each in some if each.kind in kinds and each.name != 'self'})


def _structures(data: Iterable[Atoms]) -> list[Atoms]:
    """Return structures to train on as a list; raise an error where there is none, or what is none."""
    if isinstance(data, Atoms) or not hasattr(data, '__iter__'):
        raise TypeError(f'data to train on is a list of Atoms, or the path of a file of them; got {data!r}')
    images = as_list(data)
    if not images:
        raise ValueError('the data set is empty: no structures to train on')
    return images


def check_sampler(sampler: str) -> str:
    """Return the name of a sampler; raise a ValueError where there is none of this name."""
    if sampler not in SAMPLERS:
        raise ValueError(f'sampler must be one of {sorted(SAMPLERS)}, got {sampler!r}')
    return sampler
