"""Write ase_diffusion/data/zeolite_cells.npz from the training data of the voxel model.

    python scripts/zeolite_cells.py zeolites.npz

zeolites.npz has natoms, numbers, cell (n, 3, 3), operation_count, rotations, translations_24, info_space_group,
info_void_fraction, info_Qst_kJ_mol, info_KH_unitless. Frameworks above 9,000 A^3, with edges above 30 A or without symmetry
are left out.
"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LARGEST, LONGEST = 9000.0, 30.0  # A^3, A
SMALLEST_HENRY = 1e-3  # below it heat and Henry coefficient say nothing


def group_number(cell, scaled, numbers, known):
    """Return the number of the space group."""
    import spglib

    if np.isfinite(known) and known > 0:
        return int(known)
    data = spglib.get_symmetry_dataset((cell, scaled, numbers), symprec=0.05)
    return int(data.number) if data else 1


def main():
    """Write the table."""
    z = np.load(sys.argv[1])
    data = {name: z[name] for name in z.files}
    lengths = np.einsum('nii->ni', data['cell']).astype(np.float32)
    ends = np.cumsum(data['natoms'])
    bounds = np.cumsum(data['operation_count'])[:-1]
    operations = list(zip(np.split(data['rotations'], bounds), np.split(data['translations_24'], bounds), strict=True))
    keep = (lengths.prod(1) < LARGEST) & (lengths.max(1) < LONGEST) & (data['operation_count'] > 1)
    sets, index, rows = {}, [], []
    for k in np.flatnonzero(keep):
        rotations, steps = operations[k]
        order = np.lexsort(np.c_[rotations.reshape(-1, 9), steps].T)
        rotations, steps = rotations[order].astype(np.int8), steps[order].astype(np.int8)
        key = rotations.tobytes() + steps.tobytes()
        index.append(sets.setdefault(key, (len(sets), rotations, steps))[0])
        part = slice(ends[k] - data['natoms'][k], ends[k])
        number = data['info_space_group'][k]
        rows.append(group_number(data['cell'][k], data['scaled_positions'][part], data['numbers'][part], number))
    silicon = np.add.reduceat(data['numbers'] == 14, ends - data['natoms'])
    henry = data['info_KH_unitless'][keep].astype(np.float32)
    closed = ~(henry >= SMALLEST_HENRY)
    np.savez_compressed(
        ROOT / 'ase_diffusion' / 'data' / 'zeolite_cells.npz',
        lengths=lengths[keep],
        silicon=silicon[keep].astype(np.int16),
        group=np.array(rows, np.int16),
        operations=np.array(index, np.int16),
        counts=np.array([len(s[1]) for s in sets.values()], np.int16),
        rotations=np.concatenate([s[1] for s in sets.values()]),
        translations=np.concatenate([s[2] for s in sets.values()]),
        void_fraction=data['info_void_fraction'][keep].astype(np.float32),
        heat_of_adsorption=np.where(closed, np.nan, data['info_Qst_kJ_mol'][keep]).astype(np.float32),
        henry_coefficient=np.where(closed, np.nan, henry),
    )
    print(f'{keep.sum()} of {len(keep)} cells, {len(sets)} sets of operations')


if __name__ == '__main__':
    main()
