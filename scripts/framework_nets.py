"""Write ase_diffusion/data/framework_nets.npz: keys of the nets of the IZA, of the training data of the voxel
model and of the set that ships.

    python scripts/framework_nets.py iza_zeolites.extxyz.gz zeolites.npz
"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def key_of(atoms) -> int:
    """Return the key of the net, the distances fitted first where they are bad."""
    from ase_diffusion.porous.nets import framework_net, net_key
    from ase_diffusion.porous.silica import relax_framework

    for fitted in (False, True):
        atoms = relax_framework(atoms) if fitted else atoms
        net = framework_net(atoms.numbers, atoms.get_scaled_positions(), atoms.cell.array)
        if not isinstance(net, str):
            return net_key(net)
    raise SystemExit(f'{atoms.info["key_value_pairs"]}: {net}')


def main():
    """Write the table."""
    from ase_diffusion.data.framework_nets import FILE
    from ase_diffusion.data.zeolites import read_zeolites

    iza = read_zeolites(sys.argv[1])
    keys = np.array([key_of(atoms) for atoms in iza], np.uint64)
    codes = np.array([atoms.info['key_value_pairs']['framework'] for atoms in iza])
    grown = [*read_zeolites(sys.argv[2]), *read_zeolites('silica-frameworks')]
    known = np.unique(np.array([key_of(atoms) for atoms in grown], np.uint64))
    np.savez_compressed(FILE, iza_keys=keys, iza_codes=codes, known_keys=known)
    print(f'{len(np.unique(keys))} nets of {len(keys)} IZA frameworks, {len(known)} nets of the other data')


if __name__ == '__main__':
    main()
