"""The option ``templates`` of the crystal generator, and the task that begins with them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms

from ...utils.atoms import energy_of, parse_formula
from ...utils.checks import check_integer
from ..tasks import FromNoise
from ..text import formula_text
from .prototypes import TAKEN, Prototypes, Template, as_prototypes, shipped_prototypes

UNLIKELY = 1e-3  # least probability, also that of a structure of the network
PRIOR_WEIGHT = 0.01  # eV / atom, in the middle of a plateau on 400 formulas of the validation split, CHGNet, not relaxed


@dataclass
class Templates:
    """Templates of one composition, in the order in which they are taken.

    Parameters
    ----------
    bank : Prototypes
    numbers : list of int
        Atoms of the cell.
    found : list of Template
    space_group : int or None
    record : bool, int, str or dict
        What the provenance says of them.
    turn : int
        How many of them have been taken.
    """

    bank: Prototypes
    numbers: list[int]
    found: list[Template]
    space_group: int | None
    record: Any
    turn: int = 0

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
            raise ValueError("templates belong to a composition: pass stoich='...', or leave them out")
        limit, bank, record = TAKEN, None, templates
        if isinstance(templates, (int, np.integer)) and templates is not True:
            limit = record = check_integer('templates', templates, 1)
        elif isinstance(templates, (str, Path)):
            bank, record = as_prototypes(templates), str(templates)
        elif templates is not True:
            if isinstance(templates, Atoms) or not hasattr(templates, '__iter__'):
                raise TypeError(
                    f'templates is True, False, a number of them, a file or a list of Atoms; got {type(templates).__name__}'
                )
            images = list(templates)
            bank, record = as_prototypes(images), {'given': len(images), 'digest': _digest(images)}
        bank = shipped_prototypes() if bank is None else bank
        return cls(bank, list(numbers), bank.find(numbers, limit, space_group=space_group), space_group, record)

    def reason_against(self, asked: list[str]) -> str | None:
        """Return why there are no templates for a sampling with these conditions, or None."""
        if asked:
            return f'they know no conditions ({", ".join(asked)})'
        if self.found:
            return None
        group = '' if self.space_group is None else f' in space group {self.space_group}'
        return f'no crystal of this anonymous formula and size is known{group}{self.other_sizes()}'

    def other_sizes(self) -> str:
        """Return which sizes of the cell have templates, as the end of a message; nothing where there are none."""
        known = [size for size in self.bank.sizes(self.numbers) if len(self.numbers) % size]
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
        return self.bank.substituted(template, len(self.numbers)), notes


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
    """

    name: ClassVar[str] = 'templates'

    def __init__(self, templates: Templates, task: FromNoise, turn: int | None = None) -> None:
        super().__init__(task.template, task.steps, task.start)
        self.templates, self.turn = templates, turn

    def known(self, count: int) -> list[tuple[Atoms, dict]]:
        """Return the next structures from templates, at most ``count``, and what their provenance says."""
        turn = self.templates.turn if self.turn is None else self.turn
        places = range(turn, min(turn + count, len(self.templates.found)))
        if self.turn is None:
            self.templates.turn += count
        else:
            self.turn += count
        return [self.templates.made(place) for place in places]

    def before(self) -> list[str]:
        left = max(0, len(self.templates.found) - self.templates.turn)
        return [f'{left} templates first'] if left else []

    def todict(self) -> dict:
        return {'name': self.name, 'turn': self.templates.turn if self.turn is None else self.turn}


def check_space_group(number: Any) -> int:
    """Return a space group as an integer from 1 to 230; raise a ValueError for anything else."""
    number = check_integer('space_group', number, 1)
    if number > 230:
        raise ValueError(f'space_group is a number of the International Tables, 1 to 230; got {number}')
    return number


def _digest(images: list[Atoms]) -> str:
    parts = [np.ascontiguousarray(a).tobytes() for atoms in images for a in (atoms.numbers, atoms.positions, atoms.cell[:])]
    return hashlib.sha256(b''.join(parts)).hexdigest()[:10]
