"""Enter a checkpoint in ase_diffusion/weights in index.json, so that it ships under the name of its file.

    python scripts/ship.py ase_diffusion/weights/NAME.safetensors --description TEXT --data TEXT
    python scripts/ship.py --measured     # after new results of benchmarks/metals.py

Kind, steps and metrics are those of the checkpoint. `measured`, for models of overlayers: eV per cell above the lowest known as
generated and relaxed, and the same of random starts, from the results of benchmarks/metals.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ase_diffusion.utils.header import read_header  # noqa: E402

INDEX = ROOT / 'ase_diffusion' / 'weights' / 'index.json'


def measured() -> dict[str, dict[str, list[float]]]:
    """Return what warnings tell of the models of overlayers: model -> system -> numbers, those of random starts last."""
    rows = json.loads((ROOT / 'benchmarks' / 'results' / 'metals.json').read_text())['results']
    out = {'ag-o-overlayer': {}, 'metal-oxide-overlayer': {}, 'renamed-silver': {}}
    for key, row in rows.items():
        what, start = key.split()
        found = re.fullmatch(r'([A-Z][a-z]?)((?:bcc)?\d+)-\d+-\d+-(\w+)(?:-(\d+))?', what)
        if found and start in ('model', 'renamed'):
            metal, facet, formula, oxygens = found.groups()
            formula = formula if oxygens is None else f'{metal}{formula}O{oxygens}'
            name = 'metal-oxide-overlayer' if start == 'model' else 'ag-o-overlayer' if metal == 'Ag' else 'renamed-silver'
            of = [row] + [rows[x] for x in [f'{what} random'] if x in rows]
            numbers = [round(one[kind][0], 2) for one in of for kind in ('generated_eV', 'relaxed_eV')]
            out[name][f'{formula} on {metal}({facet})'] = numbers
    return out


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
        **({'measured': index[path.stem]['measured']} if 'measured' in index.get(path.stem, {}) else {}),
    }
    INDEX.write_text(json.dumps(index, indent=1) + '\n')


def ship_measured() -> None:
    """Write what was measured of the models of overlayers."""
    index = json.loads(INDEX.read_text())
    for name, rows in measured().items():
        index[name]['measured'] = rows
    INDEX.write_text(json.dumps(index, indent=1) + '\n')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path, nargs='?')
    parser.add_argument('--description', help='what it is, one line')
    parser.add_argument('--data', help='what it was trained on, one line')
    parser.add_argument('--measured', action='store_true', help='enter the results of benchmarks/metals.py')
    args = parser.parse_args()
    if args.measured:
        ship_measured()
    elif args.path and args.description and args.data:
        ship(args.path, args.description, args.data)
    else:
        parser.error('give a checkpoint with --description and --data, or --measured')


if __name__ == '__main__':
    main()
