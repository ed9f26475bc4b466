"""Make ase_diffusion/data/prototypes.npz, the templates of the crystal generator, and check that it holds no test formula.

    python scripts/prototypes.py make mp_le52.npz
    python scripts/prototypes.py elements
    python scripts/prototypes.py fit mp_le52.npz
    python scripts/prototypes.py check mp_le20.npz mp_le52.npz

``elements`` (part of ``make``) adds fcc, hcp, bcc and diamond crystals of the elements by the lattice constants of ASE, but for
those whose formula is in a test split. ``make`` takes the training and validation splits; every crystal is averaged over the
symmetry that spglib finds within 0.05 A and reduced to its Niggli cell. ``fit`` (part of ``make``, some minutes) fits points of
the elements, whose distances say how much a crystal votes for its structure type: neighborhood component analysis (Goldberger et
al., NIPS 2004) of the training split, every crystal against those of other formulas; it begins with descriptors and prints the
negative log-likelihood of the validation split before and after. ``check`` exits with status 1 where a formula of the test split
of one of the files is in the bank, or where the hashes of test formulas in the bank lack one of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.data import chemical_symbols, reference_states

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pymatgen.core.periodic_table import Element  # noqa: E402

from ase_diffusion.data.crystals import read_crystals  # noqa: E402
from ase_diffusion.generators.crystal.prototypes import FILE, Prototypes, anonymous, formula_hash, rows_of  # noqa: E402
from ase_diffusion.representations.elements import period_and_group  # noqa: E402
from ase_diffusion.representations.reduction import symmetrize  # noqa: E402

AVERAGED = 0.05  # A
ELEMENTS = 119
NEAREST, MOST = 80, 7  # candidates of a crystal; most different elements of crystals to fit to
DIMENSIONS, EPOCHS, BATCH, RATE, DECAY = 16, 10, 512, 2e-2, 0.1


def descriptors(used: np.ndarray) -> np.ndarray:
    """Return points (119, 3 + groups): Pauling electronegativity, atomic and covalent radius, standardised, and the group.

    The sum of absolute differences has 0.8 for different groups.
    """
    from ase.data import covalent_radii

    table = np.full((ELEMENTS, 3), np.nan)
    for z in range(1, 104):
        element = Element.from_Z(z)
        table[z] = float(element.X), float(element.atomic_radius or np.nan), covalent_radii[z]
    table = np.where(np.isnan(table), np.nanmean(table[used], axis=0), table)
    groups = np.array([0, *(period_and_group(z)[1] for z in range(1, ELEMENTS))])
    return np.c_[(table - table[used].mean(0)) / table[used].std(0), 0.4 * np.eye(groups.max() + 1)[groups]].astype(np.float32)


def pairs_of(bank: Prototypes, targets: np.ndarray, pool: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return for crystals their elements and those of the nearest 80 of the pool, with whether their structure type is the same.

    Elements are (T, 80, 7), 0 where there is none; whether there is a candidate, and whether it is of the type, (T, 80).

    Crystals of equal formula are no candidates; crystals without a candidate of their type are left out.
    """
    counts, elements, kind = bank.table['counts'].astype(int), bank.table['elements'], bank.table['kind']
    parts = [slice(begin, begin + int(k)) for begin, k in zip(bank._first[0], bank.table['species'], strict=True)]
    contents = [np.repeat(elements[part], counts[part]) for part in parts]
    formulas = np.array([formula_hash(numbers) for numbers in contents])
    found = []
    for target in targets:
        key, new = anonymous(contents[target])
        rows, old = bank._groups[key]
        fits = pool[rows] & (bank.natoms[rows] == bank.natoms[target]) & (formulas[rows] != formulas[target])
        rows, old = rows[fits], old[fits]
        if len(key) > MOST or not (kind[rows] == kind[target]).any():
            continue
        difference, order = bank._assign(key, new, old)
        near = np.argsort(difference, kind='stable')[:NEAREST]
        block = np.zeros((2, NEAREST, MOST), int)
        block[0, : len(near), : len(key)], block[1, : len(near), : len(key)] = new[order[near]], old[near]
        same = np.zeros(NEAREST, bool)
        same[: len(near)] = kind[rows[near]] == kind[target]
        if same.any():
            found.append((block, np.arange(NEAREST) < len(near), same))
    blocks, there, same = (torch.as_tensor(np.array(each)) for each in zip(*found, strict=True))
    return blocks[:, 0], blocks[:, 1], there, same


def surprise(points: torch.Tensor, new, old, there, same) -> torch.Tensor:
    """Return the mean negative log-likelihood of the right structure type, voted for with weights exp(-distance)."""
    distance = (points[new] - points[old]).abs().sum((-1, -2))  # (T, 80)
    votes = torch.log_softmax((-distance).masked_fill(~there, -1e9), 1)
    return -torch.logsumexp(votes.masked_fill(~same, -1e9), 1).mean()


def fit(bank: Prototypes, path: str, seed: int = 0) -> np.ndarray:
    """Return points of the elements (119, 16), fitted to the training split of a data set."""
    torch.manual_seed(seed)
    with np.load(path) as file:
        split = dict(zip(file['info_material_id'].tolist(), file['info_split'].tolist(), strict=True))
    training = np.array([split.get(str(name)) == 'train' for name in bank.table['names']])
    start = descriptors(np.unique(bank.table['elements']))
    bank = Prototypes({**bank.table, 'similarity': start})
    data, held = (pairs_of(bank, np.flatnonzero(rows), training) for rows in (training, ~training))
    with torch.no_grad():
        print(f'{len(data[0])} crystals to fit, {len(held[0])} held out, {surprise(torch.as_tensor(start), *held):.3f} before')
    first = torch.cat([torch.as_tensor(start[:, :3]), 0.05 * torch.randn(ELEMENTS, DIMENSIONS - 3)], 1)
    points = first.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([points], RATE)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]['lr'] = RATE * (1 - epoch / EPOCHS)
        for rows in torch.randperm(len(data[0])).split(BATCH):
            loss = surprise(points, *(each[rows] for each in data)) + DECAY * (points - first).square().sum() / len(data[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            print(f'epoch {epoch + 1}: {surprise(points, *held):.3f}', flush=True)
    return points.detach().numpy()


def atomic_volumes(table: dict) -> np.ndarray:
    """Return atomic volumes (119,) in A^3 by least squares; 15 for elements that do not occur."""
    bank = Prototypes(table)
    cells = [bank.original(row) for row in range(len(bank))]
    counts = np.array([np.bincount(atoms.numbers, minlength=ELEMENTS) for atoms in cells], float)
    used = np.flatnonzero(counts.sum(0))
    found, *_ = np.linalg.lstsq(counts[:, used], np.array([atoms.cell.volume for atoms in cells]), rcond=None)
    volumes = np.full(ELEMENTS, 15.0)
    volumes[used] = np.clip(found, 3.0, None)
    return volumes.astype(np.float32)


def make(path: str, out: Path = FILE) -> Prototypes:
    """Write the bank of a data set with splits and material_id; return it."""
    images = read_crystals(path)
    with np.load(path) as file:
        names = file['info_material_id']
    known = [k for k, atoms in enumerate(images) if atoms.info['key_value_pairs']['split'] != 'test']
    held = {formula_hash(atoms.numbers) for atoms in images if atoms.info['key_value_pairs']['split'] == 'test'}
    table = rows_of([symmetrize(images[k], AVERAGED) for k in known], names[known])
    table['volumes'] = atomic_volumes(table)
    table['similarity'] = descriptors(np.unique(table['elements']))
    table['held_out'] = np.array(sorted(held), np.uint32)
    bank = Prototypes(table)
    bank.table['similarity'] = fit(bank, path)
    bank = with_elements(bank)
    bank.save(out)
    return bank


def with_elements(bank: Prototypes) -> Prototypes:
    """Return the bank and the elements in the crystals that ASE knows, without those of the test split."""
    held, images = set(bank.table['held_out'].tolist()), []
    for z, state in enumerate(reference_states[:ELEMENTS]):
        known = state is not None and state.get('symmetry') in ('fcc', 'bcc', 'hcp', 'diamond') and 'basis' not in state
        if known and formula_hash([z]) not in held:
            images.append(bulk(chemical_symbols[z]))
    return bank + Prototypes.from_atoms(images, [f'ASE {atoms.symbols[0]}' for atoms in images])


def test_formulas_in(bank: Prototypes, paths: list[str]) -> tuple[int, int]:
    """Return how many formulas of test splits are in the bank, and how many its hashes lack."""
    mine = {formula_hash(bank.original(row).numbers) for row in range(len(bank))}
    tests = {formula_hash(atoms.numbers) for path in paths for atoms in read_crystals(path, 'test')}
    return len(mine & tests), len(tests - set(bank.table['held_out'].tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('verb', choices=('make', 'fit', 'elements', 'check'))
    parser.add_argument('data', nargs='*')
    args = parser.parse_args()
    if args.verb == 'make':
        bank = make(args.data[0])
        print(f'{len(bank)} crystals, {len(bank.table["kinds"])} structure types, {FILE.stat().st_size / 1e6:.2f} MB')
        return
    if args.verb == 'fit':
        bank = Prototypes.load()
        bank.table['similarity'] = fit(bank, args.data[0])
        bank.save(FILE)
        return
    if args.verb == 'elements':
        bank = with_elements(Prototypes.load())
        bank.save(FILE)
        print(f'{len(bank)} crystals')
        return
    shared, missing = test_formulas_in(Prototypes.load(), args.data)
    print(f'{shared} formulas of the test splits are in the bank; {missing} are not among its hashes')
    sys.exit(int(bool(shared or missing)))


if __name__ == '__main__':
    main()
