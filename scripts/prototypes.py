"""Make ase_diffusion/data/prototypes.npz, the templates of the crystal generator, and check that it holds no test formula.

    python scripts/prototypes.py make mp_le52.npz
    python scripts/prototypes.py elements
    python scripts/prototypes.py fit mp_le52.npz
    python scripts/prototypes.py rank mp_le52.npz
    python scripts/prototypes.py held-out mp_le52.npz
    python scripts/prototypes.py derived mp_le52.npz
    python scripts/prototypes.py packing mp_le52.npz
    python scripts/prototypes.py check mp_le20.npz mp_le52.npz

``elements`` (part of ``make``) adds fcc, hcp, bcc and diamond crystals of the elements by the lattice constants of ASE, but for
those whose formula is in a test split. ``make`` takes the training and validation splits; every crystal is averaged over the
symmetry that spglib finds within 0.05 A and reduced to its Niggli cell. ``fit`` (part of ``make``, some minutes) fits points of
the elements, whose distances say how much a crystal votes for its structure type: neighborhood component analysis (Goldberger et
al., NIPS 2004) of the training split, every crystal against those of other formulas; it begins with descriptors and prints the
negative log-likelihood of the validation split before and after. ``rank`` (ten minutes; runs/prototype_ranking keeps its
table) trains the three networks that order templates: each crystal of the bank against the nearest 24 of the bank that are of
other formulas, loss -log of the sum of the probabilities of candidates times their likelihood to have its structure. ``held-out``
trains one without the validation split, also among candidates, and prints what it does on the validation split. ``derived``
(five minutes) fits how likely none of the nearest 24 is right and how likely merged and split crystals are then, on 514 crystals
of the training split, and prints what that does on 386 of the validation split; its numbers stand in
ase_diffusion/generators/crystal/derived.py; those of ``packing`` (five minutes), which compares the volumes of merged and split
crystals that have the right structure with the true ones, in bank.py. ``check``
exits with status 1 where a formula of the test split of one of the files is in the bank, or where the hashes of test formulas in
the bank lack one of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.data import chemical_symbols, reference_states
from scipy.optimize import minimize

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pymatgen.core.periodic_table import Element  # noqa: E402

from ase_diffusion.data.crystals import read_crystals  # noqa: E402
from ase_diffusion.generators.crystal.bank import FILE, KEPT, anonymous, formula_hash, rows_of  # noqa: E402
from ase_diffusion.generators.crystal.derived import GIVEN, NONE, derived, none_right, scores  # noqa: E402
from ase_diffusion.generators.crystal.geometry import likeness  # noqa: E402
from ase_diffusion.generators.crystal.prototypes import Prototypes  # noqa: E402
from ase_diffusion.generators.crystal.ranking import CANDIDATES, SITES, order, shipped_ranking  # noqa: E402
from ase_diffusion.generators.crystal.ranking import FILE as RANKING  # noqa: E402
from ase_diffusion.networks.ranking import NUMBERS, SITE_NUMBERS, TemplateRanker  # noqa: E402
from ase_diffusion.representations.elements import period_and_group  # noqa: E402
from ase_diffusion.representations.reduction import symmetrize  # noqa: E402

AVERAGED = 0.05  # A
ELEMENTS = 119
NEAREST, MOST = 80, 7  # candidates of a crystal; most different elements of crystals to fit to
DIMENSIONS, EPOCHS, BATCH, RATE, DECAY = 16, 10, 512, 2e-2, 0.1
TABLE, PART = ROOT / 'runs' / 'prototype_ranking', 1500
MEMBERS = 3
SAMPLE = {('train', 1, 20): 289, ('train', 21, 52): 225, ('val', 1, 20): 225, ('val', 21, 52): 161}  # crystals by split and atoms
RANK = dict(epochs=4, dropout=0.2, batch=128, rate=2e-3, decay=1e-2)


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
    kind = bank.table['kind']
    contents = contents_of(bank)
    formulas = np.array([formula_hash(numbers) for numbers in contents])
    found = []
    for target in targets:
        key, new = anonymous(contents[target])
        rows, old = bank.formulas[key]
        fits = pool[rows] & (bank.natoms[rows] == bank.natoms[target]) & (formulas[rows] != formulas[target])
        rows, old = rows[fits], old[fits]
        if len(key) > MOST or not (kind[rows] == kind[target]).any():
            continue
        difference, order = bank.assign(key, new, old)
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
    training = splits_of(bank, path) == 'train'
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


def splits_of(bank: Prototypes, path: str) -> np.ndarray:
    """Return the split of every row; '' for those that the data set lacks."""
    with np.load(path) as file:
        split = dict(zip(file['info_material_id'].tolist(), file['info_split'].tolist(), strict=True))
    return np.array([split.get(str(name), '') for name in bank.table['names']])


def contents_of(bank: Prototypes) -> list[np.ndarray]:
    """Return the atomic numbers of the atoms of every row."""
    return np.split(np.repeat(bank.table['elements'], bank.table['counts']).astype(int), np.cumsum(bank.natoms)[:-1])


def rank_part(bank: Prototypes, targets: np.ndarray, formulas: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of the candidates of some crystals of the bank, and how likely each has their structure.

    'target' (T,), 'rows' (T, 24), -1 where there is none, 'numbers' (T, 24, 12), 'new', 'old' (T, 24, 5), 'sites' (T, 24, 5, 8),
    'alike' (T, 24, 24), 'right' (T, 24). Candidates are of other formulas.
    """
    contents = contents_of(bank)
    shapes = dict(numbers=(NUMBERS,), new=(SITES,), old=(SITES,), sites=(SITES, SITE_NUMBERS), alike=(CANDIDATES,))
    kinds = dict(numbers=np.float32, new=np.uint8, old=np.uint8, sites=np.float16, alike=np.float16)
    table = {name: np.zeros((len(targets), CANDIDATES, *shape), kinds[name]) for name, shape in shapes.items()}
    table |= {'rows': np.full((len(targets), CANDIDATES), -1), 'right': np.zeros((len(targets), CANDIDATES), np.float32)}
    for place, target in enumerate(targets):
        numbers = contents[target].tolist()
        rows, difference, orders, new = bank.near(numbers, but=formulas == formulas[target])
        if not len(rows := rows[:CANDIDATES]):
            continue
        m = len(rows)
        found = bank.features(rows, difference[:m], orders[:m], new, len(numbers))
        for name in shapes:
            block = getattr(found, name)
            table[name][place, :m, ..., : block.shape[-1]] = block
        spectra = [bank.geometry(int(row)).of(np.argsort(each)).spectrum for row, each in zip(rows, orders, strict=False)]
        table['right'][place, :m] = likeness(np.array(spectra), bank.geometry(int(target)).spectrum[None])[:, 0]
        table['rows'][place, :m] = rows
    return {'target': np.asarray(targets), **table}


def rank_table(bank: Prototypes, parts: int | None = None) -> dict[str, np.ndarray]:
    """Return :func:`rank_part` of the whole bank; parts that are in runs/ are read, at most ``parts`` are made."""
    formulas = np.array([formula_hash(numbers) for numbers in contents_of(bank)])
    order_of = np.concatenate([rows for rows, _ in bank.formulas.values()])  # crystals of one part share their candidates
    found = []
    for begin in range(0, len(order_of), PART):
        path = TABLE / f'{begin}.npz'
        if not path.exists():
            if parts == 0:
                raise SystemExit(f'{begin} of {len(order_of)} crystals are done')
            parts = None if parts is None else parts - 1
            part = rank_part(bank, order_of[begin : begin + PART], formulas)
            TABLE.mkdir(parents=True, exist_ok=True)
            np.savez(path.with_suffix('.new.npz'), **part)
            path.with_suffix('.new.npz').rename(path)
        with np.load(path) as file:
            found.append({name: file[name] for name in file.files})
    table = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    known = (table['rows'] >= 0).any(1)
    return {name: each[known] for name, each in table.items()}


def first_right(logs: torch.Tensor, table: dict[str, np.ndarray], rows: np.ndarray) -> dict[int, float]:
    """Return the share of targets with an alike template (likelihood above 1/2) among the first 1, 3, 10."""
    hits = []
    for each, row in zip(logs.double().numpy(), rows, strict=True):
        m = int((table['rows'][row] >= 0).sum())
        places, _ = order(each[:m], table['alike'][row, :m, :m].astype(float))
        hits.append([bool((table['right'][row, places[:k]] > 0.5).any()) for k in (1, 3, 10)])
    return dict(zip((1, 3, 10), np.mean(hits, 0).round(4).tolist(), strict=True))


def rank(bank: Prototypes, path: str, parts: int | None = None, *, held_out: bool = False, seed: int = 0) -> dict:
    """Return the weights of a network that orders templates, as arrays.

    Trained on the whole bank, or, where the validation split is ``held_out``, on the training split with candidates of it alone;
    what it does on the validation split is printed then.
    """
    torch.manual_seed(seed)
    table, split = rank_table(bank, parts), splits_of(bank, path)
    there = table['rows'] >= 0
    seen = there & (split[table['rows']] == 'train') if held_out else there
    training = (split[table['target']] == 'train') | (not held_out)
    training = np.flatnonzero(training & (seen & (table['right'] > 0.5)).any(1))
    held = np.flatnonzero(split[table['target']] == 'val')
    points = torch.as_tensor(descriptors(np.unique(bank.table['elements'])))
    points[0] = 0
    network = TemplateRanker(points, dropout=RANK['dropout'])
    numbers = table['numbers'][training][seen[training]]
    network.shift[:], network.scale[:] = torch.as_tensor(numbers.mean(0)), torch.as_tensor(numbers.std(0))

    def logs_of(rows, there):
        given = [torch.as_tensor(table[name][rows]) for name in ('numbers', 'new', 'old', 'sites')]
        return network(given[0], given[1].long(), given[2].long(), given[3].float(), torch.as_tensor(there[rows]))

    def loss_of(logs, rows):
        return -torch.logsumexp(logs + torch.as_tensor(table['right'][rows]).clamp(1e-4).log(), 1).mean()

    print(f'{len(training)} crystals to fit', flush=True)
    optimizer = torch.optim.AdamW(network.parameters(), RANK['rate'], weight_decay=RANK['decay'])
    steps = RANK['epochs'] * -(-len(training) // RANK['batch'])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RANK['rate'], total_steps=steps, pct_start=0.1)
    for _ in range(RANK['epochs']):
        network.train()
        for rows in torch.randperm(len(training)).split(RANK['batch']):
            rows = training[rows.numpy()]
            loss = loss_of(logs_of(rows, seen), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    if held_out:
        with torch.no_grad():
            logs = torch.cat([logs_of(rows, there) for rows in np.array_split(held, 20)])
        for name, each in (
            ('nearest', torch.log_softmax(-torch.as_tensor(table['numbers'][held][..., 2]), 1)),
            ('network', logs),
        ):
            print(f'{name}: {loss_of(each, held):.3f}', first_right(each, table, held), flush=True)
    return {name: value.numpy().astype(np.float16) for name, value in network.state_dict().items()}


def rank_all(bank: Prototypes, path: str, parts: int | None) -> dict[str, np.ndarray]:
    """Return the weights of several networks, arrays (members, ...); those in runs/ are read."""
    states = []
    for member in range(MEMBERS):
        file = TABLE / f'member_{member}.npz'
        if not file.exists():
            if parts == 0:
                raise SystemExit(f'{member} of {MEMBERS} networks are done')
            np.savez(file, **rank(bank, path, parts, seed=member))
            parts = None if parts is None else 0
        with np.load(file) as state:
            states.append({name: state[name] for name in state.files})
    return {name: np.stack([state[name] for state in states]) for name in states[0]}


def candidates(bank: Prototypes, target: int, formulas: np.ndarray) -> dict | None:
    """Return the nearest 24 and the merged and split templates of a crystal, all of other formulas; None where there are none.

    'logs', 'none' and 'scores': what the ranking says of the nearest, their differences with whether they have as many atoms, and
    the merged and split templates; 'right' (m,) and 'alike' (m, m) of both together.
    """
    numbers, but = contents_of(bank)[target].tolist(), formulas == formulas[target]
    rows, difference, places, new = (each[:CANDIDATES] for each in bank.near(numbers, but=but))
    more = derived(bank, numbers, *anonymous(numbers), but=but)
    if not len(rows) + len(more):
        return None
    spectra, logs = [each.shape.spectrum for each in more], np.zeros(0)
    if len(rows):
        seen = bank.features(rows, difference, places, anonymous(numbers)[1], len(numbers))
        logs, spectra = shipped_ranking()(seen), [*seen.spectra, *spectra]
    right = likeness(np.array(spectra), bank.geometry(target).spectrum[None])[:, 0]
    alike = likeness(np.array(spectra), np.array(spectra))
    return dict(logs=logs, none=(difference, bank.natoms[rows] == len(numbers)), more=more, right=right, alike=alike)


def nearest_of(found: dict) -> dict | None:
    """Return the candidates of a crystal without merged and split templates; None where that leaves none."""
    m = len(found['logs'])
    return {**found, 'more': [], 'right': found['right'][:m], 'alike': found['alike'][:m, :m]} if m else None


def logs_of_all(found: dict, weights: tuple[tuple, tuple]) -> tuple[np.ndarray, float]:
    """Return log-probabilities (m,) of all candidates of a crystal, and that none is right."""
    none = none_right(*found['none'], weights[0])
    logs = np.concatenate([found['logs'], none + scores(found['more'], weights[1])])
    total = np.logaddexp.reduce([*logs, none])
    return logs - total, none - total


def fit_derived(bank: Prototypes, path: str) -> None:
    """Fit the numbers of :mod:`ase_diffusion.generators.crystal.derived`; print them, and what they do."""
    split, rng = splits_of(bank, path), np.random.default_rng(1)
    formulas, parts = np.array([formula_hash(numbers) for numbers in contents_of(bank)]), {}
    for (name, least, most), count in SAMPLE.items():
        rows = np.flatnonzero((split == name) & (bank.natoms >= least) & (bank.natoms <= most))
        parts[name, most] = [candidates(bank, int(row), formulas) for row in rng.permutation(rows)[:count]]

    def loss(weights, found, decay=0.02):
        total = decay * np.square(weights).sum()
        for each in filter(None, found):
            logs, none = logs_of_all(each, (tuple(weights[:2]), tuple(weights[2:])))
            right = np.append(each['right'], np.prod(1 - each['right'])).clip(1e-6)
            total -= np.logaddexp.reduce(np.append(logs, none) + np.log(right))
        return total / len(found)

    def shares(found, weights):
        hits = []
        for each in found:
            at = [] if each is None else order(logs_of_all(each, weights)[0], each['alike'])[0]
            hits.append([each is not None and bool((each['right'][at[:k]] > 0.5).any()) for k in (1, 3, 10)])
        return np.mean(hits, 0).round(3).tolist()

    fitted = minimize(loss, [*NONE, *GIVEN], (parts['train', 20] + parts['train', 52],), method='L-BFGS-B').x.round(2).tolist()
    print('NONE, GIVEN =', tuple(fitted[:2]), tuple(fitted[2:]))
    for (name, most), found in parts.items():
        without = [None if each is None else nearest_of(each) for each in found]
        both = shares(found, (tuple(fitted[:2]), tuple(fitted[2:])))
        print(
            f'{name}, up to {most} atoms: right among the first 1, 3, 10: {both}, without them {shares(without, (NONE, GIVEN))}'
        )


def volumes_of_right(bank: Prototypes, rows: np.ndarray) -> dict[bool, np.ndarray]:
    """Return for merged (False) and split (True) templates with the structure of some crystals: crystal, logs of packings (m, 3).

    Those of the template and of the crystal: volume over the sum of the atomic volumes.
    """
    formulas, found = np.array([formula_hash(numbers) for numbers in contents_of(bank)]), {False: [], True: []}
    for row in rows.tolist():
        numbers = contents_of(bank)[row].tolist()
        more = derived(bank, numbers, *anonymous(numbers), but=formulas == formulas[row])
        if more:
            right = likeness(np.array([each.shape.spectrum for each in more]), bank.geometry(row).spectrum[None])[:, 0] > 0.5
            for each in (each for each, is_right in zip(more, right, strict=True) if is_right):
                found[each.split].append((row, np.log(bank.packing(each.row)), np.log(bank.packing(row))))
    return {split: np.array(each) for split, each in found.items()}


def fit_packing(bank: Prototypes, path: str) -> None:
    """Fit how much of its packing a split template keeps; print it, and log(volume / true), mean and rms over the crystals."""
    split, rng, weights = splits_of(bank, path), np.random.default_rng(2), KEPT
    for name, least, most, count in (('train', 1, 20, 1000), ('val', 1, 20, 500), ('val', 21, 52, 150)):
        rows = np.flatnonzero((split == name) & (bank.natoms >= least) & (bank.natoms <= most))
        for is_split, (row, old, true) in ((k, v.T) for k, v in volumes_of_right(bank, rng.permutation(rows)[:count]).items()):
            _, which, counts = np.unique(row, return_inverse=True, return_counts=True)
            weight = 1 / counts[which] / len(counts)
            if is_split and name == 'train':
                roots = np.sqrt(weight)
                weights = np.linalg.lstsq(np.stack([roots, roots * old], 1), roots * true, rcond=None)[0].round(2)
                print('KEPT =', tuple(weights.tolist()))
            errors = {'as the template': old - true, 'sum of atomic volumes': -true}
            if is_split:
                errors['kept in part'] = weights[0] + weights[1] * old - true
            text = [f'{name}, {least} to {most} atoms, {"split" if is_split else "merged"}, {len(counts)} crystals']
            for title, error in errors.items():
                mean, rms = weight @ error, np.sqrt(weight @ error**2)
                text.append(f'{title} {mean:.3f} +- {rms / np.sqrt(len(counts)):.3f}, rms {rms:.3f}')
            print('; '.join(text), flush=True)


def atomic_volumes(table: dict) -> np.ndarray:
    """Return atomic volumes (119,) in A^3 by least squares; where an element does not occur, those of :func:`with_heavier`."""
    bank = Prototypes(table)
    cells = [bank.original(row) for row in range(len(bank))]
    counts = np.array([np.bincount(atoms.numbers, minlength=ELEMENTS) for atoms in cells], float)
    used = np.flatnonzero(counts.sum(0))
    found, *_ = np.linalg.lstsq(counts[:, used], np.array([atoms.cell.volume for atoms in cells]), rcond=None)
    volumes = np.full(ELEMENTS, 15.0)
    volumes[used] = np.clip(found, 3.0, None)
    return with_heavier(volumes, used).astype(np.float32)


def with_heavier(volumes: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return atomic volumes; from Hf on an element that is not ``used`` has that of the element above it, as Fr of Cs."""
    volumes = volumes.copy()
    for z in range(72, ELEMENTS):
        if z not in used:
            volumes[z] = volumes[z - 32]
    return volumes


def make(path: str, out: Path = FILE) -> Prototypes:
    """Write the bank of a data set with splits and material_id; return it."""
    images = read_crystals(path)
    with np.load(path) as file:
        names = file['info_material_id']
    known = [k for k, atoms in enumerate(images) if atoms.info['key_value_pairs']['split'] != 'test']
    held = {formula_hash(atoms.numbers) for atoms in images if atoms.info['key_value_pairs']['split'] == 'test'}
    table = rows_of([symmetrize(images[k], AVERAGED) for k in known], names[known])
    with np.load(path) as file:
        table['hull'] = np.round(1e3 * file['info_e_above_hull_eV'][known].clip(0)).astype(np.uint16)
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
    parser.add_argument('verb', choices=('make', 'fit', 'rank', 'held-out', 'derived', 'packing', 'elements', 'check'))
    parser.add_argument('data', nargs='*')
    parser.add_argument('--parts', type=int, help='rank: make at most so many parts of the table and stop')
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
    if args.verb == 'rank':
        np.savez_compressed(RANKING, **rank_all(Prototypes.load(), args.data[0], args.parts))
        return
    if args.verb == 'held-out':
        rank(Prototypes.load(), args.data[0], args.parts, held_out=True)
        return
    if args.verb in ('derived', 'packing'):
        {'derived': fit_derived, 'packing': fit_packing}[args.verb](Prototypes.load(), args.data[0])
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
