"""Conditions on the command line: ``--condition NAME=VALUE``, for all methods."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_diffusion.generators.base import Generator


def add_conditions(parser: ArgumentParser) -> None:
    """Add ``--condition`` and ``--guidance-scale``."""
    parser.add_argument(
        '--condition',
        nargs='+',
        action='extend',
        type=name_and_text,
        default=[],
        metavar='NAME=VALUE',
        help='what is asked for: a number, a range LOW:HIGH, a word, elements as A,B,C, or none; '
        'ase-diffusion info MODEL lists them',
    )
    parser.add_argument('--guidance-scale', type=float, metavar='W', help='weight of the conditions')


def name_and_text(text: str) -> tuple[str, str]:
    """Return name and value, both as text, of NAME=VALUE."""
    name, equals, value = text.partition('=')
    if not (name.strip() and equals and value.strip()):
        raise argparse.ArgumentTypeError(f'a condition is NAME=VALUE, such as energy=0.1, not {text!r}')
    return name.strip(), value.strip()


def check_names(args: Namespace) -> None:
    """Raise a ValueError where a condition comes twice; before a model is loaded."""
    names = [name for name, _ in args.condition]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f'a condition has one value; --condition names {", ".join(twice)} more than once: leave one of each')


def parse_conditions(generator: Generator, args: Namespace) -> dict:
    """Return the conditions of the arguments, read as the model of the generator says.

    Raises
    ------
    ValueError
        A name comes twice, or a text is no value of its condition.
    """
    from ase_diffusion.representations.conditions import conditions_of

    check_names(args)
    known, values = conditions_of(generator.header), {}
    for name, text in args.condition:
        try:
            values[name] = known[name].parse(text) if name in known and text.lower() != 'none' else None
        except ValueError as error:
            raise ValueError(f'--condition {name}={text}: expected {error}') from None
    if args.guidance_scale is not None:
        values['guidance_scale'] = args.guidance_scale
    return values
