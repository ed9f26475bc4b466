"""The command ``ase-diffusion``: parse, call the verb, turn a user's error into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ase_diffusion import __version__
from ase_diffusion.cli import again as again_verb
from ase_diffusion.cli import data, demo, evaluate, grid, info, models, plot, relax, sample, search, train
from ase_diffusion.errors import GenerationFailed

VERBS = (demo, models, info, sample, again_verb, relax, search, train, data, evaluate, grid, plot)
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, GenerationFailed)  # CheckpointError is a ValueError
EPILOG = """\
first steps:
  ase-diffusion demo
  ase-diffusion sample surface slab.traj --stoich Ag12O6 -n 32 -o out.traj
  ase-diffusion relax out.traj -o relaxed.traj --calculator ag-o

`ase-diffusion VERB --help` lists the options of a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0; 2 where the input was wrong, with one line on stderr; 130 after Ctrl-C (what was done before is kept).
    """
    args = make_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except USER_ERRORS as err:
        if args.traceback:
            raise
        text = ' '.join(str(err).split()) or type(err).__name__
        print(f'ase-diffusion: {text}', file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog='ase-diffusion',
        description='Diffusion models that generate atomic structures, for ASE.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'ase-diffusion {__version__}')
    parser.add_argument('--traceback', action='store_true', help='show where an error came from')
    again = argparse.ArgumentParser(add_help=False)  # --traceback works behind the verb, too
    again.add_argument('--traceback', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest='verb', metavar='VERB', required=True)
    for module in VERBS:
        name, text = module.__name__.rpartition('.')[2], module.HELP
        module.add_arguments(verbs.add_parser(name, help=text, description=module.__doc__, parents=[again]), again)
    return parser


if __name__ == '__main__':
    sys.exit(main())
