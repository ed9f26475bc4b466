"""``python -m ase_diffusion``: the command line, where the script ase-diffusion is not on the path."""

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
