"""PointCloudDiffusion beside the numbers of the paper (Li et al., PCCD): free samples and reconstruction.

Free samples: for the elements of test crystals, numbers of atoms drawn as in training. Shares of all samples: all elements
occur, distances of at least 0.5, 1.0 and 1.5 A, charges balance (SMACT). Nothing is rejected, except in the row "as returned":
what the generator rejects is drawn again, and counted. "By argmax" decodes the same clouds with the likeliest species of every
atom, so that an element may be missing. Beside them the test crystals, and random sites and species in their cells, scaled to
the number of atoms ("no network").

Reconstruction: clouds noised and denoised by the deterministic sampler with the noise kept, so that tan(pi t / 2T) is the noise
on coordinates in [-1, 1], as in the paper. The number of atoms is the likeliest for the noised cloud, without any network; "no
network" averages over the copies of so many atoms. N: number of atoms right; cell: lengths within 5 %, of all; sites:
coordinates within 0.05 of the cell, periodic, where N is right; whiskers: share of the errors within Q1 - 1.5 IQR to
Q3 + 1.5 IQR, as in the paper, and where these lie.
"Inverted": to x_T by the deterministic sampler run backwards, and forwards again, with N given; also with an untrained network.

    python benchmarks/pccd_paper.py run --data mp_le20.npz
"""

from __future__ import annotations

from bench import Benchmark, main, number, rounded, seeded, table

# isort: split
import hashlib
import math
import time

import numpy as np
import torch
from ase import Atoms

SAMPLERS = (('renoised_ancestral', 30), ('dpmpp_2m', 30))
PARTS = ('free', 'reconstruction', 'inverted')
SEEDS, TIMES, TRIES = (0, 1), (0.25, 0.5, 0.75, 1.0), 8
AXES = ('a', 'b', 'c', 'x', 'y', 'z')
JUDGED = ('elements', 'distance_0.5', 'distance_1.0', 'distance_1.5', 'charge', 'all', 'all_1.5')


class Pccd(Benchmark):
    """Free samples and reconstruction of one model."""

    name = 'pccd_paper'

    @staticmethod
    def options(parser):
        parser.add_argument('--data', required=True, help='mp_le20.npz')
        parser.add_argument('--model', default='pointcloud-mp')
        parser.add_argument('--parts', nargs='+', default=list(PARTS), choices=PARTS)
        parser.add_argument('--number', type=int, default=200, help='samples for each seed (200)')
        parser.add_argument('--items', type=int, default=200, help='crystals that are reconstructed (200; 1280 in the paper)')

    def __init__(self, args):
        super().__init__(args)
        self.known: dict[str, list[Atoms]] = {}

    def settings(self):
        return {'weights': weights_digest(self.args.model), 'number': self.number, 'items': self.args.items}

    @property
    def number(self) -> int:
        """Samples for each seed."""
        return 8 if self.quick else self.args.number

    def items(self):
        return [(key, item) for key, item in self.all_items() if key.split('/')[0] in self.args.parts]

    def all_items(self):
        """Yield the items of all parts."""
        seeds = SEEDS[: 1 if self.quick else None]
        for seed in seeds:
            for name in ('test data', 'no network'):
                yield f'free/{name}/{seed}', {'what': name, 'seed': seed}
            yield f'free/as returned/{seed}', {'what': 'as returned', 'seed': seed}
        for sampler, steps in SAMPLERS:
            for seed in seeds:
                yield f'free/{sampler} {steps}/{seed}', {'what': 'model', 'seed': seed, 'sampler': sampler, 'steps': steps}
        for split in ('train', 'test'):
            yield from ((f'reconstruction/{split}/{t:g} T', {'split': split, 'time': t}) for t in TIMES)
        yield from ((f'inverted/{what}', {'trained': what == 'model'}) for what in ('model', 'untrained'))

    def run(self, item):
        call = self.reconstruct if 'time' in item else self.inverted if 'trained' in item else self.free
        return rounded(call(**item))

    # ---------------------------------------------------------------- free samples

    def crystals(self, split: str, seed: int, number: int) -> list[Atoms]:
        """Return crystals of a split at random that clouds can hold."""
        from ase_diffusion.data.crystals import read_crystals

        if split not in self.known:
            images = read_crystals(self.args.data, split)
            self.known[split] = [a for a in images if len(a) <= 16 and len(set(a.numbers)) <= 3]
        images = self.known[split]
        return [images[k] for k in seeded(seed).permutation(len(images))[:number]]

    def generator(self, **options):
        """Return a generator; what is asked for comes with each batch."""
        from ase_diffusion import PointCloudDiffusion

        return PointCloudDiffusion(['O'], natoms=1, model=self.args.model, logfile=None, **options)

    def free(self, what, seed, sampler=None, steps=None) -> dict:
        """Return the shares of one kind of samples."""
        given = self.crystals('test', seed, self.number)
        record = {'what': what, 'seed': seed, 'sampler': sampler, 'steps': steps, 'seconds': None}
        gen = self.generator(sampler=sampler, steps=steps)
        counts = [drawn_count(gen.header['sizes'], atoms, seeded(seed, k)) for k, atoms in enumerate(given)]
        if what == 'test data':
            return {**record, **judged(given)}
        if what == 'no network':
            images = [random_sites(atoms, n, seeded(seed, k, 1)) for k, (atoms, n) in enumerate(zip(given, counts, strict=True))]
            return {**record, **judged(images)}
        begun = time.process_time()
        batches = list(sampled(gen, given, counts, seed))
        images, drawn = decoded(gen, batches), len(given)
        if what == 'as returned':
            for again in range(1, TRIES):
                bad = [k for k, x in enumerate(images) if not isinstance(x, Atoms) or gen._reason_to_reject(x) is not None]
                if not bad:
                    break
                drawn += len(bad)
                new = [drawn_count(gen.header['sizes'], given[k], seeded(seed, k, again)) for k in bad]
                fresh = decoded(gen, sampled(gen, [given[k] for k in bad], new, seed + 100 * again))
                images = [dict(zip(bad, fresh, strict=True)).get(k, x) for k, x in enumerate(images)]
        seconds = (time.process_time() - begun) / len(images)
        record |= {'sampler': gen.sampler, 'steps': gen.steps, 'seconds': seconds, 'drawn': drawn / len(images)}
        argmax = {} if what == 'as returned' else {'argmax': judged(decoded(gen, batches, by_argmax=True))}
        return {**record, **judged(images), **argmax}

    # ---------------------------------------------------------------- reconstruction

    def originals(self, gen, split: str):
        """Yield batches of crystals with their clouds and the noise that is kept."""
        from ase_diffusion.diffusion import NoisePerStructure
        from ase_diffusion.training.pointcloud import suitable

        known = set(gen.representation.elements)
        number = 16 if self.quick else self.args.items
        given = [a for a in self.crystals(split, 7, number + 64) if known >= set(a.numbers.tolist())]
        given = suitable(given[:number])
        for first in range(0, len(given), 64):
            images = given[first : first + 64]
            yield images, gen.representation.encode(images), NoisePerStructure(range(first, first + len(images)))

    def reconstruct(self, split: str, time: float) -> dict:
        """Return how often crystals come back from the time t (in units of T), with and without the network."""
        from ase_diffusion.diffusion.joint import times

        gen = self.generator(sampler='dpmpp_2m')
        cloud, schedule = gen.representation, gen.process.processes['cloud'].schedule
        parts = {'no_network': [], 'model': []}
        sigma = min(math.tan(math.pi * time / 2) * 0.5 / cloud.scales['positions'][1], schedule.sigma_max)
        start = schedule.time(sigma)
        for images, clean, noise in self.originals(gen, split):
            noised, _ = gen.process.add_noise(clean, times(clean, start), noise)
            seen = noised.fields['cloud'] * math.sqrt(1 + sigma**2)
            counts = likeliest_counts(seen, clean.extras['elements'], sigma, cloud.scales['positions'][1], gen.header['sizes'])
            asked = cloud.batch(noised.fields['cloud'], counts, clean.extras['elements'])
            with torch.inference_mode():
                options = dict(steps=max(10, round(gen.steps * start)), generator=noise, start=start, initial=asked)
                final = gen._sampler()(gen.network, gen.process, asked, **options)
            means = asked.with_fields(cloud=averaged_rows(gen.network, seen, asked))
            for name, batch in (('no_network', means), ('model', final)):
                parts[name] += [recovered(a, b) for a, b in zip(images, cloud.decode(batch), strict=True)]
        return {'split': split, 'time': time, 'sigma': sigma, **{name: averaged(rows) for name, rows in parts.items()}}

    def inverted(self, trained: bool, steps: int = 30) -> dict:
        """Return how often crystals come back from the x_T to which the deterministic sampler leads, run backwards."""
        from ase_diffusion.training.pointcloud import new_network

        gen, rows, seen = self.generator(), [], []
        network = gen.network
        if not trained:
            torch.manual_seed(0)
            network = new_network(gen.representation, {}).eval()
            for p in network.parameters():
                p.data += 0.02 * torch.randn(p.shape)
        for images, clean, _ in self.originals(gen, 'train'):
            noise = along(network, gen.process, clean, np.linspace(0, 1, steps))
            final = along(network, gen.process, noise, np.linspace(1, 0, steps))
            seen.append(float(noise.fields['cloud'].std()))
            rows += [recovered(a, b) for a, b in zip(images, gen.representation.decode(final), strict=True)]
        return {'trained': trained, 'std_x_T': float(np.mean(seen)), 'model': averaged(rows)}

    # ---------------------------------------------------------------- report

    def report(self, results):
        rows = []
        for name in dict.fromkeys(key.split('/')[1] for key in results if key.startswith('free/')):
            both = [record for key, record in results.items() if key.startswith(f'free/{name}/')]
            seconds = [record['seconds'] for record in both if record['seconds'] is not None]
            rate, drawn = (f'{3600 / np.mean(seconds):.0f}' if seconds else '-'), [x.get('drawn', 1.0) for x in both]
            rows.append((name, len(both), *shares(both), f'{np.mean(drawn):.2f}', rate))
            if 'argmax' in both[0]:
                rows.append((f'{name}, by argmax', len(both), *shares([record['argmax'] for record in both])))
        head = ('free samples, %', 'seeds', 'elements', '>= 0.5 A', '>= 1.0 A', '>= 1.5 A', 'charge')
        print(table((*head, 'all three', 'all, >= 1.5 A', 'drawn', 'per core hour'), rows))
        rows, axes = [], []
        for key, record in results.items():
            for name in ('no_network', 'model') if not key.startswith('free/') else ():
                if name in record:
                    found, title = record[name], f'{key}, {name}'
                    means = (number(found[k] and 100 * found[k], 1) for k in ('N', 'cell', 'sites', 'cell_error'))
                    rows.append((title, found['n'], *means, number(found['site_error'], 3)))
                    axes.append((title, *(whiskers(found['whiskers'][k]) for k in AXES)))
        if rows:
            print(
                table(('reconstruction', 'n', 'N, %', 'cell, %', 'sites, %', 'mean error of lengths, %', 'of sites, cells'), rows)
            )
            print(table(('whiskers: share, %, and ends, %', *AXES), axes))


def shares(records: list) -> list[str]:
    """Return the mean shares of some records, %."""
    return [f'{100 * np.mean([record[k] for record in records]):.1f}' for k in JUDGED]


def whiskers(found: list) -> str:
    """Return share and ends of whiskers as text."""
    return '-' if found[0] is None else f'{100 * found[0]:.1f} ({100 * found[1]:+.1f} {100 * found[2]:+.1f})'


def weights_digest(model: str) -> str:
    """Return the first digits of the sha256 of the weights of the denoiser alone: the header of a model may be mended."""
    from ase_diffusion.weights.zoo import load_networks

    state = next(iter(load_networks(model)[0].values())).state_dict()
    return hashlib.sha256(b''.join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()[:10]


def drawn_count(sizes: dict, atoms: Atoms, rng) -> int:
    """Return a number of atoms as the generator draws it for the elements of a crystal."""
    k = len(set(atoms.numbers.tolist()))
    row = {int(n): count for n, count in sizes[str(k)].items() if int(n) >= k}
    weights = np.array(list(row.values()), float)
    return int(rng.choice(list(row), p=weights / weights.sum()))


def random_sites(atoms: Atoms, n: int, rng) -> Atoms:
    """Return n atoms of the elements of a crystal at random sites in its cell, scaled to the same volume per atom."""
    elements = sorted(set(atoms.numbers.tolist()))
    numbers = [*elements, *rng.choice(elements, n - len(elements))]
    cell = np.asarray(atoms.cell) * (n / len(atoms)) ** (1 / 3)
    return Atoms(numbers, scaled_positions=rng.random((n, 3)), cell=cell, pbc=True)


def sampled(gen, given, counts, seed: int, scale: float = 1.0, **asked):
    """Yield finished batches for the elements of crystals; ``asked`` are conditions of all."""
    from ase_diffusion.representations.conditions import conditions_of
    from ase_diffusion.representations.pointcloud import slots_of
    from ase_diffusion.utils.rng import spawn_seeds

    seeds = spawn_seeds(seeded(seed, 1), len(given))
    conditions, known = gen.check_conditions({'guidance_scale': scale, **asked}), conditions_of(gen.header)
    for first in range(0, len(given), 64):
        part = slice(first, first + 64)
        triples = [slots_of(atoms.numbers) for atoms in given[part]]
        values = {name: form.tensor([conditions[name]] * len(triples)) for name, form in known.items()}
        batch = gen.representation.blank(counts[part], triples, values).to(gen.device)
        yield gen._denoise(batch, seeds[part], conditions, gen._task())


def decoded(gen, batches, by_argmax: bool = False) -> list:
    """Return a sample or failure for each cloud; ``by_argmax`` takes the likeliest species of each atom alone."""
    from ase_diffusion.representations import cloudsites

    whole = cloudsites.complete_slots
    cloudsites.complete_slots = (lambda scores, triple: scores.argmax(1)) if by_argmax else whole
    try:
        outcomes = [outcome for batch in batches for outcome in gen.representation.decode(batch)]
    finally:
        cloudsites.complete_slots = whole
    return [gen._finish(outcome) if isinstance(outcome, Atoms) else outcome for outcome in outcomes]


def likeliest_counts(seen, triples, sigma: float, unit: float, sizes: dict) -> np.ndarray:
    """Return the likeliest numbers of atoms (B,) of noised clouds (B, 3, 128, 3), data plus sigma times noise.

    Rows of a block are one number, normally distributed, plus noise; frequencies of the training data are the prior. ``unit`` is
    that of positions, in cells.
    """
    from ase_diffusion.representations.pointcloud import POINTS, shared_slots

    rows = torch.cat([seen[:, 0], shared_slots(seen[:, 1], triples)], -1).double()  # (B, 128, 6)
    variance = torch.tensor([1 / 12 / unit**2] * 3 + [1.0] * 3, dtype=torch.float64)
    score = torch.full((len(seen), 17), -math.inf, dtype=torch.float64)
    kinds = [len(set(triple)) for triple in triples.tolist()]
    for n in range(1, 17):
        copies = torch.full((n,), POINTS // n)
        copies[-1] += POINTS - int(copies.sum())
        parts = rows.split(copies.tolist(), 1)
        total = torch.tensor([math.log(max(sizes[str(k)].get(str(n), 0), 1e-9)) for k in kinds], dtype=torch.float64)
        for r, part in zip(copies.tolist(), parts, strict=True):
            mean = part.mean(1)  # (B, 6)
            wide = sigma**2 + r * variance  # of r copies of a number
            total -= ((part - mean[:, None]).square().sum(1) / sigma**2 + r * mean.square() / wide + wide.log()).sum(1) / 2
            total -= 3 * (r - 1) * math.log(sigma**2)
        score[:, n] = total
    return score.argmax(1).numpy()


def averaged_rows(network, seen, batch):
    """Return clouds (B, 3, 128, 3) whose rows are means over the copies of atoms."""
    from ase_diffusion.networks.cloudtokens import average_slots

    counts, slots = batch.extras['counts'], batch.extras['elements']
    rows = torch.cat([seen[:, 0], average_slots(seen[:, 1], slots)], -1)
    return network.unpool(*network.means(rows, seen[:, 2], counts, 16), counts)


def along(network, process, x, times):
    """Return the batch at the last of the times, from the first, along the probability-flow ODE (Heun), either way."""
    from ase_diffusion.diffusion.joint import times as of

    with torch.inference_mode():
        for now, then in zip(times[:-1], times[1:], strict=True):
            t, s = of(x, now), of(x, then)
            pred = network(x, process.c_noise(t), x.conditions)
            ahead = process.reverse(x, pred, t, s, None, 0.0)
            again = network(ahead, process.c_noise(s), x.conditions)
            x = process.reverse(x, process.average_eps(x, pred, t, ahead, again, s), t, s, None, 0.0)
    return x


def judged(images: list) -> dict[str, float]:
    """Return shares of all samples, see the top of this file."""
    from ase_diffusion.generators.bulk import shortest_distance
    from ase_diffusion.metrics import compositional_validity
    from ase_diffusion.representations.reduction import niggli

    rows = []
    for atoms in images:
        if not isinstance(atoms, Atoms):
            rows.append([False] * len(JUDGED))
            continue
        distance, charge = shortest_distance(niggli(atoms)), bool(compositional_validity([atoms])[0])
        near = [distance >= limit for limit in (0.5, 1.0, 1.5)]
        rows.append([True, *near, charge, near[0] and charge, near[2] and charge])
    return dict(zip(JUDGED, np.mean(rows, 0).tolist(), strict=True))


def recovered(before: Atoms, after) -> tuple[bool, np.ndarray, np.ndarray]:
    """Return whether the number of atoms is right, relative errors of lengths (3,), errors of coordinates (N, 3), periodic.

    Lengths are nan where there is no crystal, coordinates are empty where the number is wrong.
    """
    if not isinstance(after, Atoms):
        return False, np.full(3, np.nan), np.empty((0, 3))
    lengths = after.cell.lengths() / before.cell.lengths() - 1
    if len(after) != len(before):
        return False, lengths, np.empty((0, 3))
    gap = after.get_scaled_positions() - before.get_scaled_positions()
    return True, lengths, gap - np.round(gap)


def averaged(rows: list) -> dict:
    """Return means over crystals; see the top of this file."""
    right, lengths, sites = np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), [row[2] for row in rows]
    near = [float((np.abs(gap) < 0.05).mean()) for gap in sites if len(gap)]
    gaps = np.concatenate(sites)
    columns = [*lengths[right].T, *gaps.T]
    return {
        'n': len(rows),
        'N': float(right.mean()),
        'cell': float((np.abs(lengths) < 0.05).mean()),
        'sites': float(np.mean(near)) if near else math.nan,
        'cell_error': float(np.abs(lengths[np.isfinite(lengths)]).mean()) if np.isfinite(lengths).any() else math.nan,
        'site_error': float(np.abs(gaps).mean()) if len(gaps) else math.nan,
        'whiskers': dict(zip(AXES, (within_whiskers(x) for x in columns), strict=True)),
    }


def within_whiskers(errors: np.ndarray) -> list:
    """Return the share within the whiskers of a box plot, and their ends."""
    if len(errors) < 4:
        return [math.nan] * 3
    low, high = np.percentile(errors, [25, 75])
    low, high = low - 1.5 * (high - low), high + 1.5 * (high - low)
    return [float(((errors >= low) & (errors <= high)).mean()), float(low), float(high)]


if __name__ == '__main__':
    main(Pccd)
