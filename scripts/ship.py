"""Enter a checkpoint in ase_diffusion/weights in index.json, so that it ships under the name of its file.

    python scripts/ship.py ase_diffusion/weights/NAME.safetensors --description TEXT --data TEXT

Kind, steps and metrics are those of the checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ase_diffusion.utils.header import read_header  # noqa: E402

INDEX = ROOT / 'ase_diffusion' / 'weights' / 'index.json'


def ship(path: Path, description: str, data: str) -> None:
    """Write the entry of a checkpoint."""
    header, index = read_header(path), json.loads(INDEX.read_text())
    index[path.stem] = {
        'kind': header['kind'],
        'file': path.name,
        'size_mb': round(path.stat().st_size / 1e6, 2),
        'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        'licence': 'MIT',
        'description': description,
        'data': data,
        'steps': header['steps'],
        'metrics': header['metrics'],
    }
    INDEX.write_text(json.dumps(index, indent=1) + '\n')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path)
    parser.add_argument('--description', required=True, help='what it is, one line')
    parser.add_argument('--data', required=True, help='what it was trained on, one line')
    args = parser.parse_args()
    ship(args.path, args.description, args.data)


if __name__ == '__main__':
    main()
