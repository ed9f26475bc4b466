"""The option ``templates`` of generators of crystals, and the task that begins with them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from ase import Atoms

from ...representations import Failure
from ...representations.charges import is_charge_neutral
from ...utils.atoms import energy_of, parse_formula
from ...utils.checks import check_integer
from ...utils.provenance import note
from ..bulk import BulkGenerator
from ..model import Outcome
from ..tasks import FromNoise
from ..text import formula_text
from .bank import anonymous, formula_hash
from .prototypes import TAKEN, Prototypes, Template, given_prototypes, shipped_prototypes

UNLIKELY = 1e-3  # least probability, also that of a structure of the network
CONSIDERED = 400  # most templates of given elements
ORDERED = 8  # most elements whose every order is tried
CHARGED = 2.0  # of the difference of elements
UNSTABLE = 10.0  # of the difference of elements, per eV/atom above the hull
SPREAD = 0.2  # of the difference of elements; 0.3 costs a few compounds in the first places, 0.15 next to none
AGAIN = 0.1  # of the difference of elements, for each template of the same composition that comes before
PRIOR_WEIGHT = 0.01  # eV / atom, in the middle of a plateau on 400 formulas of the validation split, CHGNet, not relaxed


@dataclass
class Templates:
    """Templates in the order in which they are taken.

    Parameters
    ----------
    bank : Prototypes
    numbers : list of int
        Atoms of the cell; none where every template has its own composition.
    found : list of Template
    space_group : int or None
    record : bool, int, str or dict
        What the provenance says of them.
    turn : int
        How many of them have been taken.
    seed : int, optional
        Of the order, where it is drawn.
    redo : callable, optional
        ``redo(seed) -> Templates`` in the order of another seed.
    """

    bank: Prototypes
    numbers: list[int]
    found: list[Template]
    space_group: int | None
    record: Any
    turn: int = 0
    seed: int | None = None
    redo: Callable[[int], Templates] | None = None

    @classmethod
    def coerce(cls, templates: Any, numbers: list[int] | None, space_group: int | None) -> Templates | None:
        """Return the templates that a user asks for; None where there shall be none.

        Raises
        ------
        ValueError, TypeError
            There is no composition; what was asked for has no meaning.
        """
        if templates is False:
            return None
        if numbers is None:
            raise ValueError("templates need stoich='...', or elements=[...] with all_elements=True; pass one, or leave them out")
        bank, limit, record = bank_of(templates)
        return cls(bank, list(numbers), bank.find(numbers, limit, space_group=space_group), space_group, record)

    def __len__(self) -> int:
        return len(self.found)

    def reason_against(self, asked: list[str]) -> str | None:
        """Return why there are no templates for a sampling with these conditions, or None."""
        if asked:
            return f'they know no conditions ({", ".join(asked)})'
        if self.found:
            return None
        group = '' if self.space_group is None else f' in space group {self.space_group}'
        what = 'this anonymous formula and size' if self.numbers else 'so many elements and atoms'
        return f'no crystal of {what} is known{group}{self.other_sizes()}'

    def other_sizes(self) -> str:
        """Return which sizes of the cell have templates, as the end of a message; nothing where there are none."""
        known = [size for size in self.bank.sizes(self.numbers) if len(self.numbers) % size] if self.numbers else []
        return f'; there are templates of {", ".join(map(str, known))} atoms: give the whole cell as stoich' if known else ''

    def made(self, place: int) -> tuple[Atoms, dict]:
        """Return the structure from the template at a place of the order, and what its provenance says of it."""
        template = self.found[place]
        formula = self.bank.formula(template.row)
        notes = {
            'source': 'template',
            'template': self.bank.name(template.row),
            'template_formula': formula_text(formula, parse_formula(formula)),
            'template_difference': round(template.difference, 4),
            'template_chance': round(template.chance, 4),
        }
        return self.bank.substituted(template, len(self.numbers) or None), notes


class ElementTemplates:
    """Templates of all compositions of given elements.

    Parameters
    ----------
    templates : True, int, path or list of Atoms
        As for :class:`~ase_diffusion.generators.crystal.generator.CrystalDiffusion`.
    elements : list of int
        Atomic numbers; every crystal has all of them and no other.
    natoms : int, optional
        Atoms of the cell; default: any up to ``most``.
    most : int, optional
    space_group : int, optional
        The only one that is wanted.
    """

    def __init__(
        self,
        templates: Any,
        elements: list[int],
        natoms: int | None = None,
        *,
        most: int | None = None,
        space_group: int | None = None,
    ) -> None:
        self.bank, self.limit, self.record = bank_of(templates)
        self.space_group, sizes = space_group, self.bank.natoms
        fits = sizes == natoms if natoms is not None else sizes <= (sizes.max() if most is None else most)
        self.every = with_elements(self.bank, elements, fits if space_group is None else fits & (self.bank.groups == space_group))
        compositions, difference = self.compositions(), np.array([template.difference for template in self.every])
        above_hull = 1e-3 * self.bank.table['hull'][[template.row for template in self.every]]  # eV/atom
        parts = [anonymous(numbers) for numbers in compositions]
        charged = [not is_charge_neutral(tuple(zip(elements.tolist(), counts, strict=True))) for counts, elements in parts]
        self._cost = difference + UNSTABLE * above_hull + CHARGED * np.array(charged, bool) * (difference > 0)  # known ones exist
        self._formulas = [formula_hash(numbers) for numbers in compositions]
        self._taken: dict[tuple[int, Hashable], Templates] = {}

    def __len__(self) -> int:
        return len(self.every)

    def ordered(self, seed: int, asked: Hashable = None, gain: np.ndarray | None = None) -> Templates:
        """Return the templates in rising order of their differences less ``gain`` (m,), one for each of :attr:`every`.

        A template above the hull costs ``UNSTABLE`` more per eV/atom, one whose charges cannot balance ``CHARGED``, each of the
        same composition before ``AGAIN``; Gumbel noise of ``SPREAD`` draws the order, so that costs are -SPREAD log p. ``asked``
        says what the gain is for: those taken for the same are not taken again.
        """
        key = seed, asked
        if key not in self._taken:
            cost = self._cost - (0.0 if gain is None else gain)
            cost = cost - SPREAD * np.random.default_rng(seed).gumbel(size=len(cost))
            seen: Counter = Counter()
            for k in np.argsort(cost, kind='stable'):
                cost[k] += AGAIN * seen[self._formulas[k]]
                seen[self._formulas[k]] += 1
            order = np.argsort(cost, kind='stable')[: self.limit]
            found = [self.every[k] for k in order]
            redo = partial(self.ordered, asked=asked, gain=gain)
            self._taken[key] = Templates(self.bank, [], found, self.space_group, self.record, seed=seed, redo=redo)
        return self._taken[key]

    def compositions(self) -> list[np.ndarray]:
        """Return the atomic numbers of the atoms of :attr:`every`."""
        return [np.repeat(template.elements, self.bank.row_counts(template.row)) for template in self.every]


def bank_of(templates: Any) -> tuple[Prototypes, int, Any]:
    """Return the bank that a user asks for, how many templates at most, and what the provenance says of them.

    Raises
    ------
    ValueError, TypeError
        What was asked for has no meaning.
    """
    if isinstance(templates, (int, np.integer)) and templates is not True:
        limit = check_integer('templates', templates, 1)
        return shipped_prototypes(), limit, limit
    if templates is True:
        return shipped_prototypes(), TAKEN, True
    mine, record = given_prototypes('templates', 'True, False, a number of them, a file or a list of Atoms', templates)
    return shipped_prototypes() + mine, TAKEN, record


def asked_templates(templates: Any, default: bool | None) -> Any:
    """Return what a user asks for, True and False of numpy as those of Python, or the default."""
    return default if templates is None else bool(templates) if isinstance(templates, np.bool_) else templates


def with_elements(bank: Prototypes, elements: list[int], fits: np.ndarray) -> list[Template]:
    """Return templates of all compositions of these elements by difference, one for each composition and structure type.

    Parameters
    ----------
    bank : Prototypes
    elements : list of int
        Atomic numbers; only crystals of as many elements are taken, these exchanged in every way. None of more than eight.
    fits : (n,) bool array
        Rows of the bank that may be taken.
    """
    if len(elements) > ORDERED:
        return []
    orders = np.array(list(itertools.permutations(elements)))  # (p, k)
    costs, rows = [np.zeros((0, len(orders)))], [np.zeros(0, int)]
    for key, (some, old) in bank.formulas.items():
        if len(key) == len(elements):
            rows.append(some[fits[some]])
            costs.append(bank.distances[old[fits[some]][:, None].astype(int), orders[None]].sum(-1))  # (m, p)
    cost, rows = np.concatenate(costs), np.concatenate(rows)
    found: dict[tuple, Template] = {}
    mine = np.repeat(rows >= bank.shipped, len(orders))  # of the user, before equal ones
    for flat in np.lexsort((~mine, cost.ravel())).tolist():
        row, order = rows[flat // len(orders)], orders[flat % len(orders)].tolist()
        counts = bank.row_counts(row).tolist()
        what = bank.table['kind'][row], tuple(sorted(zip(order, counts, strict=True)))
        if what not in found:
            found[what] = Template(int(row), tuple(order), float(cost.flat[flat]))
        if len(found) == CONSIDERED:
            break
    return list(found.values())


def energy_and_prior(atoms: Atoms, weight: float) -> float:
    """Return the energy per atom less ``weight`` times the logarithm of the probability of its template, eV."""
    chance = atoms.info['key_value_pairs'].get('template_chance', 0.0)
    return energy_of(atoms) / len(atoms) - weight * math.log(max(chance, UNLIKELY))


class FromTemplates(FromNoise):
    """Begin with known crystals, each once, then with noise.

    Parameters
    ----------
    templates : Templates
    task : FromNoise
        For what comes after them.
    turn : int, optional
        Templates that have been taken; default: as many as the generator has.
    end : int, optional
        Place in their order before which the last one is; default: behind all of them.
    alone : str, optional
        Why the network makes none.
    """

    name: ClassVar[str] = 'templates'

    def __init__(
        self, templates: Templates, task: FromNoise, turn: int | None = None, end: int | None = None, alone: str | None = None
    ) -> None:
        super().__init__(task.template, task.steps, task.start)
        self.templates, self.turn, self.end, self.alone = templates, turn, end, alone

    def known(self, count: int) -> list[tuple[Atoms, dict]]:
        """Return the next structures from templates, at most ``count``, and what their provenance says."""
        places = range(self._taken(), self._taken() + min(count, self._left()))
        if self.turn is None:
            self.templates.turn += len(places)
        else:
            self.turn += len(places)
        return [self.templates.made(place) for place in places]

    def _left(self) -> int:
        every = len(self.templates)
        return max(0, (every if self.end is None else min(self.end, every)) - self._taken())

    @property
    def ended(self) -> str | None:
        return None if self.alone is None or self._left() else f'no template is left, and {self.alone}'

    def counts(self, outcome: Outcome) -> bool:
        return isinstance(outcome, Failure) or outcome.info['key_value_pairs']['source'] != 'template'

    def _taken(self) -> int:
        return self.templates.turn if self.turn is None else self.turn

    def before(self) -> list[str]:
        first = f'no network ({self.alone}), {self._left()} templates' if self.alone else f'{self._left()} templates first'
        return [first] if self._left() else []

    def todict(self) -> dict:
        seed = self.templates.seed
        more = {**({} if seed is None else {'order': f's{seed:x}'}), **({} if self.end is None else {'end': self.end})}
        return {'name': self.name, 'turn': self._taken(), **more}


class UnknownToModel(ValueError):
    """The network knows neither such elements nor such sizes; templates may.

    Parameters
    ----------
    reason, way_out : str
        Joined by a semicolon.
    """

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(f'{reason}; {way_out}')
        self.reason = reason


class TemplatesFirst(BulkGenerator):
    """Generate structures from templates first, then by the network.

    Attributes
    ----------
    templates : Templates, ElementTemplates or None
    templates_begin : (int, int, int) or None
        Seed of their order, where it is drawn, and places in it at which :meth:`sample` begins and before which the network
        follows; None: where the last call ended, and all of them.
    """

    templates: Any = None
    templates_begin: tuple[int, int, int] | None = None
    _without_network: str | None = None  # why the network makes none

    def _templates_for(self, conditions: dict) -> Templates:
        """Return the templates for what is asked for."""
        return self.templates

    def _asked_for(self, conditions: dict) -> dict:
        """Return the conditions that are asked for."""
        return {name: value for name, value in conditions.items() if name != 'guidance_scale' and value is not None}

    def check_conditions(self, conditions: dict) -> dict:
        """Return all conditions of a call with their defaults, checked; see the base class.

        Raises
        ------
        ValueError
            A condition is asked for where there are templates alone.
        """
        merged = super().check_conditions(conditions)
        if self._without_network and (asked := self._asked_for(merged)):
            raise ValueError(
                f'conditions are for what the network knows, and {self._without_network}: leave out {", ".join(asked)}, then '
                'there are templates'
            )
        return merged

    def _check_network(self, check: Callable[[], None]) -> None:
        """Call a check of what the network knows; where templates suffice, note why they are alone.

        Raises
        ------
        ValueError
            The check raises :class:`UnknownToModel`, and there is no template either.
        """
        self._without_network = None
        try:
            check()
        except UnknownToModel as error:
            if not self.templates:
                raise ValueError(f'{error}{self._other_sizes()}') from None
            self._without_network = error.reason

    def _other_sizes(self) -> str:
        """Return the end of the message where neither the network nor a template can be of use."""
        return ''

    def _how(self, task: FromNoise) -> list[str]:
        return [] if isinstance(task, FromTemplates) and task.alone else super()._how(task)

    def _task_again(self, values: dict, conditions: dict) -> FromNoise:
        if values['name'] != FromTemplates.name:
            return super()._task_again(values, conditions)
        order = int(values['order'][1:], 16) if 'order' in values else None
        return self._from_templates(conditions, super()._task(), order, values['turn'], values.get('end'))

    def _from_templates(
        self, conditions: dict, task: FromNoise, order: int | None = None, turn: int | None = None, end: int | None = None
    ) -> FromNoise:
        """Return the task that begins with templates, in the order of another seed and at other places where these are given."""
        templates = self._templates_for(conditions)
        if order is not None and templates.redo is not None:
            templates = templates.redo(order)
        return FromTemplates(templates, task, turn, end, self._without_network)

    def _candidates(self, seeds: list[int], conditions: dict, task: FromNoise) -> list[Outcome]:
        """Return one labelled structure or failure per seed: first those from templates, then those of the network."""
        known = task.known(len(seeds)) if isinstance(task, FromTemplates) else []
        made: list[Outcome] = []
        for (atoms, notes), seed in zip(known, seeds, strict=False):
            made.append(self._finish(atoms))
            self._label(made[-1], seed, conditions, {**notes, 'model': 'templates'})
        rest = seeds[len(known) :]
        if rest and task.ended:
            return made + [Failure(task.ended)] * len(rest)
        drawn = super()._candidates(rest, conditions, task) if rest else []
        for atoms in drawn if self.templates is not None and task.chooses else ():
            if not isinstance(atoms, Failure):
                note(atoms, source='network')
        return made + drawn

    @classmethod
    def _arguments(cls, told: dict, record: dict, atoms: Atoms) -> dict:
        return {'templates': False, **super()._arguments(told, record, atoms)}


def check_space_group(number: Any) -> int:
    """Return a space group as an integer from 1 to 230; raise a ValueError for anything else."""
    number = check_integer('space_group', number, 1, 'a number of the International Tables')
    if number > 230:
        raise ValueError(f'space_group is a number of the International Tables, 1 to 230; got {number}')
    return number
