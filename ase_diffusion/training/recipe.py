"""Parts of every recipe: conditions, header, validation, network to start from; and one recipe for any representation."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from ..diffusion import JointProcess, TimeDensity
from ..representations import Representation
from ..representations.conditions import (
    ClassCondition,
    Condition,
    ElementsCondition,
    NumberCondition,
    VectorCondition,
)
from ..utils.checks import check_integer, check_keywords, keywords_of
from .data import (
    NUMBERS,
    EndlessBatches,
    RandomBatches,
    Structures,
    fixed_batches,
    known_values,
    split_images,
    usable_structures,
)
from .objectives import DenoisingLoss, Objective
from .trainer import train

log = logging.getLogger(__name__)
MAY_BE_NONE = ('attention', 'distances', 'frequencies', 'shells', 'waves')  # settings of networks that may be 0


def check_options(options: Iterable[str], *recipes: Callable[..., Path], but: Collection[str] = ()) -> None:
    """Raise a TypeError, which lists those that exist, for options that neither a recipe nor the trainer has.

    Parameters
    ----------
    options : iterable of str
    recipes : callables
        The recipe, and another one to which it passes options.
    but : collection of str
        Names that the caller gives itself.
    """
    known = keywords_of(train) - {'header', 'validation'}
    check_keywords(recipes[0].__name__, options, known.union(*map(keywords_of, recipes)) - set(but))


def check_new(settings: Mapping | None, *networks: Callable, but: Collection[str], own: Collection[str] = ()) -> dict:
    """Return more settings of a new network as a dict.

    Parameters
    ----------
    settings : dict or None
    networks : callables
        What builds it, one or several of which it has the keywords.
    but : collection of str
        Its keywords that the recipe gives itself.
    own : collection of str
        Its keywords that are arguments of the recipe.

    Raises
    ------
    TypeError
        It is no dict; a name is none of its keywords, which are listed.
    ValueError
        A number that counts something is none.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f'settings is a dict of settings of a new network; got {settings!r}')
    every = {name: each for network in networks for name, each in inspect.signature(network).parameters.items()}
    known = set(every) - {*but, *own}
    if unknown := [name for name in settings or {} if name not in known]:
        mine = f'; {" and ".join(own)} are arguments of their own' if set(own) & set(unknown) else ''
        raise TypeError(f'settings of a new network are {", ".join(sorted(known))}; got {", ".join(map(repr, unknown))}{mine}')
    for name, value in (settings or {}).items():
        if type(every[name].default) is int:
            check_integer(name, value, 0 if name in MAY_BE_NONE else 1)
    return dict(settings or {})


def condition_form(name: str, values: Iterable) -> Condition:
    """Return the form of a condition from its values: numbers, words, sets of symbols or vectors of one length.

    Raises
    ------
    ValueError
        No value is known, or the values are of several forms.
    """
    known = [v for v in known_values(values) if v is not None]
    if not known:
        raise ValueError(
            f'a condition needs structures of which it is known; to train on there is none with {name}. '
            'Leave it out of conditions, or give more data'
        )
    if all(isinstance(v, NUMBERS) for v in known):
        return NumberCondition(float(min(known)), float(max(known)))
    if all(isinstance(v, str) for v in known):
        return ClassCondition(tuple(sorted(set(known))))
    if all(map(_are_symbols, known)):
        return _elements_form(name, known)
    try:
        rows = np.array([[float(x) for x in v] for v in known])  # (n, k)
        return VectorCondition(tuple(rows.min(0).tolist()), tuple(rows.max(0).tolist()))
    except (TypeError, ValueError):
        raise ValueError(
            f'values of a condition are numbers, words, sets of symbols or vectors of one length; {name} has {known[:3]!r}'
        ) from None


def _are_symbols(value) -> bool:
    plain = isinstance(value, str) or not isinstance(value, (Sequence, set, frozenset, np.ndarray))
    return not plain and len(value) > 0 and all(isinstance(x, str) for x in value)


def _elements_form(name: str, known: list) -> ElementsCondition:
    every = ElementsCondition(tuple(range(1, 119)))
    rows = every.tensor([every.check(name, value) for value in known])
    return ElementsCondition(tuple(torch.nonzero(rows.sum(0)).flatten().tolist()))


def check_names(names: Collection[str]) -> None:
    """Raise a ValueError where a condition has the name of a keyword of sampling."""
    if 'guidance_scale' in names:
        raise ValueError('guidance_scale is a keyword of sampling, no condition to learn; give the condition another name')


def condition_forms(conditions: Mapping[str, Iterable]) -> dict[str, Condition]:
    """Return the forms of several conditions by name; ValueError where a name is taken by sampling."""
    check_names(conditions)
    return {name: condition_form(name, values) for name, values in conditions.items()}


def condition_scales(forms: dict[str, Condition], conditions: Mapping[str, Iterable]) -> dict:
    """Return the settings of a :class:`~ase_diffusion.networks.conditions.ConditionEmbedding`: mean and standard deviation.

    Parameters
    ----------
    forms : dict of str to Condition
    conditions : dict of str to sequence
        Values per structure, None or NaN where unknown.
    """
    out = {}
    for name, form in forms.items():
        known = [v for v in known_values(conditions[name]) if v is not None]
        if isinstance(form, NumberCondition):
            out[name] = [float(np.mean(known)), float(np.std(known) + 1e-3)]
        elif isinstance(form, ClassCondition):
            out[name] = {'classes': len(form.classes)}
        elif isinstance(form, ElementsCondition):
            out[name] = {'elements': True}
        else:
            rows = np.array(known, float)
            out[name] = {'vector': rows.shape[1], 'shift': rows.mean(0).tolist(), 'scale': (rows.std(0) + 1e-3).tolist()}
    return out


def header_of(
    kind: str,
    representation: Representation,
    process: JointProcess | None,
    *,
    data: dict,
    units: dict[str, str] | None = None,
    conditions: dict[str, Condition] | None = None,
    sampling: dict | None = None,
    **more: Any,
) -> dict:
    """Return the header of a checkpoint.

    Parameters
    ----------
    kind : str
        Word of the method.
    representation, process
        Stored by their ``todict``; no process for a model that does not diffuse.
    data : dict
        What ``describe`` of the data set returns.
    units : dict, optional
        Unit of every field and condition.
    conditions : dict of str to Condition, optional
    sampling : dict, optional
        ``sampler``, ``steps`` and options of the sampler by default.
    more
        Entries that only this kind has.
    """
    return {
        'kind': kind,
        **({} if process is None else {'process': process.todict()}),
        'representation': representation.todict(),
        'units': dict(units or {}),
        **more,
        **({} if sampling is None else {'sampling': dict(sampling)}),
        'conditions': {name: form.entry() for name, form in (conditions or {}).items()},
        'data': data,
    }


def network_to_train(
    network: torch.nn.Module | None, build: Callable[..., torch.nn.Module], names: Sequence[str], seed: int, **asked: Any
) -> torch.nn.Module:
    """Return a new network, always the same for a seed, or the one to start from.

    Parameters
    ----------
    asked
        Settings of a new network by their names, None where none is asked for: keywords of ``build``.

    Raises
    ------
    ValueError
        The network to start from has other settings, or lacks a condition of the data.
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    for name in {'features', 'blocks'} & set(asked):
        check_integer(name, asked[name], 1)
    seed = check_integer('seed', seed, 0)
    check_start(network)
    if network is None:
        torch.manual_seed(seed)
        return build(**asked)
    check_settings(network, asked)
    known = sorted(network.settings.get('conditions', {}))
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f'the network to start from knows the conditions {known}, not {unknown}: leave them out, or train a new one'
        )
    return network


def check_start(network: torch.nn.Module | None) -> None:
    """Raise a TypeError for a network to start from that is none."""
    if not isinstance(network, (torch.nn.Module, type(None))):
        raise TypeError(f'network is one to train further, of a model or a generator; got {network!r}')


def check_settings(network: torch.nn.Module, asked: dict) -> None:
    """Raise a ValueError where settings of a new network are asked for, and the one to start from has others."""
    names = {'features': 'features' if 'features' in network.settings else 'width'}
    mine = {name: network.settings.get(names.get(name, name)) for name in asked}
    differ = [f'{name}={value!r} ({mine[name]!r})' for name, value in asked.items() if value != mine[name]]
    if differ:
        raise ValueError(
            f'a network that is trained further keeps its settings; asked for were {", ".join(differ)}: leave them out, or '
            "begin a new one (model='untrained' in Python, no --init on the command line)"
        )


def run(
    network: torch.nn.Module,
    process: JointProcess,
    source: EndlessBatches,
    validation: EndlessBatches | list,
    out: str | Path,
    *,
    header: dict,
    steps: int,
    objective: Objective | None = None,
    **options: Any,
) -> Path:
    """Train a denoiser on a stream of batches; returns the path of the best checkpoint.

    Parameters
    ----------
    validation : EndlessBatches, or list of Batch
        See :func:`fixed_batches`.
    objective : callable, optional
        Default: ``DenoisingLoss(process)``.
    options
        See :func:`ase_diffusion.training.train`.
    """
    fixed = fixed_batches(validation) if isinstance(validation, EndlessBatches) else validation
    objective = DenoisingLoss(process) if objective is None else objective
    return train(network, objective, source, out, steps=steps, header=header, validation=fixed, **options)


def train_method(
    representation: Representation,
    network: torch.nn.Module | Callable[..., torch.nn.Module],
    images: Iterable[Atoms],
    out: str | Path,
    *,
    kind: str | None = None,
    conditions: Sequence[str] | dict[str, Sequence] | None = None,
    validation: list[Atoms] | None = None,
    process: JointProcess | None = None,
    units: dict[str, str] | None = None,
    sampling: dict | None = None,
    density: TimeDensity | tuple[float, float, float] | None = None,
    batch_size: int = 32,
    dropout: float = 0.15,
    steps: int = 20_000,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Train a denoiser of any representation; returns the path of the best checkpoint.

    Parameters
    ----------
    representation : Representation
    network : module, or callable
        A network to start from, or what builds one: ``network(conditions={...})``, see
        :class:`~ase_diffusion.networks.conditions.ConditionEmbedding`.
    images : list of Atoms
        A split ``train`` in their key-value pairs is used where there is one, ``val`` to validate.
    out : path
        Folder for checkpoints and log; the same call with the same folder resumes.
    kind : str, optional
        Default: the only one of the representation.
    conditions : list of str, or dict of str to n values, optional
        Names of key-value pairs, or values per structure; default: all numbers that are no bookkeeping.
    validation : list of Atoms, optional
        Default: those of the split 'val', else 5 % of the compositions; needs key-value pairs where ``conditions`` are values.
    process : JointProcess, optional
        Default: ``representation.process()``.
    units, sampling
        See :func:`header_of`.
    density : TimeDensity or (mean, std, weight), optional
        See :class:`~ase_diffusion.training.objectives.DenoisingLoss`.
    batch_size, dropout, seed
        See :class:`~ase_diffusion.training.data.EndlessBatches`.
    steps : int
    options
        See :func:`ase_diffusion.training.train`.

    Raises
    ------
    ValueError
        Nothing to train on, a condition that no structure has, or a network to start from that lacks a condition.
    TypeError
        An option that does not exist.
    """
    check_options(options, train_method)
    training, held = _split(images, representation.check, conditions, validation, seed)
    forms = condition_forms(training.conditions)
    scales = condition_scales(forms, training.conditions)
    start = network if isinstance(network, torch.nn.Module) else None
    network = network_to_train(start, lambda: network(conditions=scales), list(forms), seed)
    process = representation.process() if process is None else process
    header = header_of(
        representation.kinds[0] if kind is None else kind,
        representation,
        process,
        units=units,
        conditions=forms,
        sampling=sampling,
        data=training.describe(),
    )
    common = dict(batch_size=batch_size, dropout=dropout, seed=seed)
    source, fixed = (RandomBatches(part, representation, forms, **common) for part in (training, held))
    objective = DenoisingLoss(process, density=density)
    return run(network, process, source, fixed, out, header=header, steps=steps, objective=objective, seed=seed, **options)


def _split(images, check, conditions, validation, seed) -> tuple[Structures, Structures]:
    """Return training and validation structures that ``check`` accepts, with the same conditions."""
    images, held = list(images), None
    if validation is not None:
        validation = list(validation)
        held = [validation[k] for k in usable_structures(validation, check, 'the validation data')]
    if isinstance(conditions, dict):
        data = Structures.from_atoms(images, conditions).select(list(usable_structures(images, check)))
        return data.split(seed=seed) if held is None else (data, _with(held, list(conditions)))
    if held is None:
        images, held = split_images(images, check=check)
    else:
        images = [images[k] for k in usable_structures(images, check)]
    data = Structures.from_atoms(images, conditions)
    if held is None:
        return data.split(seed=seed)
    return data, _with(held, list(data.conditions))


def _with(images: list[Atoms], names: list[str]) -> Structures:
    """Return validation structures; a condition that none of them has counts as unknown."""
    return Structures(list(images), {n: [atoms.info.get('key_value_pairs', {}).get(n) for atoms in images] for n in names})
