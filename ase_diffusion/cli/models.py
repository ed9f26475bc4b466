"""List the weights that ship with the package."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

HELP = 'list the shipped weights'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Print one row per model."""
    from ase_diffusion import list_models
    from ase_diffusion.cli.common import table

    rows = [
        (m['name'], m.get('kind', ''), f'{m.get("size_mb", 0):.1f}', m.get('licence', ''), m.get('description', ''))
        for m in list_models()
    ]
    print(table(('name', 'kind', 'MB', 'licence', 'what it is'), rows))
    print('\nmore: ase-diffusion info NAME')
