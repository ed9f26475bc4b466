"""Say what a checkpoint or a file of structures holds."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

HELP = 'say what a model or a file of structures holds'


def add_arguments(parser: ArgumentParser, again: ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument('what', metavar='FILE_OR_MODEL', help='shipped model, .safetensors, .traj, .db, .npz, ...')
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Print a summary."""
    path = Path(args.what)
    looks_like_a_file = path.suffix != '.safetensors' and (path.suffix != '' or path.is_file())  # POSCAR has no ending
    lines = describe_images(args.what) if looks_like_a_file else describe_model(args.what)
    width = max(len(key) for key, _ in lines)
    print('\n'.join(f'{key:<{width}s}  {value}' for key, value in lines))


def describe_model(name: str) -> list[tuple[str, object]]:
    """Return (key, text) lines for the header of a checkpoint."""
    from ase_diffusion.utils.header import read_header
    from ase_diffusion.weights.zoo import find_model

    path = find_model(name)
    header = read_header(path)
    lines = [('file', f'{path} ({path.stat().st_size / 1e6:.1f} MB)')]
    return lines + list(_flat(header))


def _flat(tree, prefix=''):
    """Yield (dotted key, text) for all leaves of a header."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{prefix}{key}.')
        elif prefix + key == 'data.mobile_elements' or prefix + key == 'data.substrate_elements':
            from ase.data import chemical_symbols

            yield prefix + key, ' '.join(chemical_symbols[int(z)] for z in value)
        else:
            yield prefix + key, value if not isinstance(value, float) else f'{value:.6g}'


def describe_images(path: str | Path) -> list[tuple[str, object]]:
    """Return (key, text) lines for a file of structures."""
    from collections import Counter

    import numpy as np

    from ase_diffusion.cli.common import energy_of, read_images
    from ase_diffusion.utils.atoms import mobile_mask

    images = read_images(path)
    formulas = Counter(_composition(atoms, mobile_mask(atoms)) for atoms in images)
    last = images[-1]
    energies = np.array([energy_of(atoms) for atoms in images])
    known = energies[np.isfinite(energies)]
    lines = [
        ('file', path),
        ('structures', len(images)),
        ('compositions', ', '.join(f'{count} x {formula}' for formula, count in formulas.most_common(8))),
    ]
    lines += [('', f'and {len(formulas) - 8} more')] if len(formulas) > 8 else []
    runs = {atoms.info.get('key_value_pairs', {}).get('run') for atoms in images} - {None}
    lines += [('relaxations', len(runs))] if runs else []
    lines += [
        ('energy / eV', f'{known.min():.4f} to {known.max():.4f} ({len(known)} structures)' if known.size else 'none'),
        ('last: cell / A', ' '.join(f'{x:.3f}' for x in last.cell.cellpar())),
        ('last: pbc', ' '.join('TF'[not p] for p in last.pbc)),
        ('last: fixed, mobile', f'{(~mobile_mask(last)).sum()}, {mobile_mask(last).sum()}'),
    ]
    pairs = last.info.get('key_value_pairs', {})
    return lines + [(f'last: {key}', value) for key, value in pairs.items()]


def _composition(atoms, mobile):
    """Return the formula of the mobile atoms on that of the fixed ones."""
    parts = [atoms[part].get_chemical_formula() for part in (mobile, ~mobile) if part.any()]
    return ' on '.join(parts) if not mobile.all() and mobile.any() else parts[0] if parts else 'nothing'
