"""The option ``relax`` of generators: its keywords, checked before any work, and relaxations that are handed out one by one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ase import Atoms

from ..calculators.default import check_installed, default_calculator
from ..calculators.elements import check_elements
from ..calculators.names import calculator_name, check_calculator, is_own_force_field
from ..relax.relax import irelax
from ..relax.relaxer import Relaxer
from ..relax.settings import Settings
from ..representations.slab import SlabTemplate
from ..utils.checks import check_limits

if TYPE_CHECKING:
    import torch

    from ..representations import Failure

log = logging.getLogger(__name__)


def relax_keywords(
    relax: dict | None,
    device: str | torch.device | None = None,
    template: Atoms | SlabTemplate | None = None,
    numbers: Iterable[int] = (),
    **defaults: Any,
) -> dict | None:
    """Return the keywords of :func:`ase_diffusion.relax.irelax`, checked; None where nothing is relaxed.

    Parameters
    ----------
    relax : dict or None
        As the user gave them; they win over ``defaults``.
    device : str or torch.device, optional
        Of our own force fields.
    template : Atoms or SlabTemplate, optional
        A structure that our own force field must know.
    numbers : iterable of int
        Elements that the calculator must know, as far as that can be told; default: those of ``template``.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        It is no dict, a keyword is unknown or has no meaning, or the calculator is none.
    """
    if relax is None:
        return None
    if not isinstance(relax, dict):
        raise TypeError(
            f"relax is a dict of keywords of ase_diffusion.relax.relax, such as relax={{'calculator': 'emt'}}; got {relax!r}"
        )
    _, *known = inspect.signature(irelax).parameters
    if unknown := sorted(set(relax) - set(known)):
        raise ValueError(f'relax has the keywords of ase_diffusion.relax.relax, {known}; got {unknown}')
    options = {**defaults, **relax}
    bound = inspect.signature(irelax).bind([], **options)
    bound.apply_defaults()
    every = bound.arguments
    if (calculator := every['calculator']) is None:
        calculator = default_calculator([] if template is None else [template])
        options['calculator'] = calculator
    check_calculator(calculator)
    check_installed(calculator)
    if template is not None:
        numbers = getattr(template, 'atoms', template).numbers
    check_elements(calculator, numbers, 'relax')
    settings = Settings(**{name: every[name] for name in inspect.signature(Settings).parameters})
    check_limits(timeout=every['timeout'], batch_size=every['batch_size'])
    if is_own_force_field(calculator):
        options = {'device': device, **options}
        if template is not None:
            relaxer = Relaxer(calculator, settings, device=options['device'])
            relaxer.check([template])
            if news := SlabTemplate.of(template).news(relaxer.batches.header.get('data', {})):
                log.warning('relax: the data of %s have no %s; its energies are a guess there', calculator_name(calculator), news)
    return options


def relax_in_order(
    images: list[Atoms | Failure], fit: Callable[[Atoms | Failure], bool], keywords: dict, finish: Callable[[Atoms], Atoms]
) -> Iterator[Atoms | Failure]:
    """Yield the structures in their order, each relaxed as soon as that is done and those before it are.

    Structures that are not ``fit(atoms)`` come back as they are. After Ctrl-C those that are relaxed
    are handed out first. ``finish(atoms)`` makes the result of a relaxation.
    """
    wanted = [k for k, atoms in enumerate(images) if fit(atoms)]
    done = {k: atoms for k, atoms in enumerate(images) if k not in set(wanted)}
    turn = 0
    relaxations = irelax([images[k] for k in wanted], **keywords) if wanted else ()
    stop = None
    try:
        for number, atoms in relaxations:
            done[wanted[number]] = finish(atoms)
            while turn in done:
                yield done.pop(turn)
                turn += 1
    except KeyboardInterrupt as interrupt:
        stop = interrupt
        done = {k: atoms for k, atoms in done.items() if k in set(wanted)}  # relaxed, while one before them was not
    yield from (done[k] for k in sorted(done))
    if stop is not None:
        raise stop
