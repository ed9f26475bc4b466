"""PointCloudDiffusion beside the numbers of the paper (Li et al., PCCD): free samples and reconstruction.

Free samples: for the elements of test crystals, numbers of atoms drawn as in training, nothing rejected. Shares of all samples:
all elements occur, distances of at least 0.5, 1.0 and 1.5 A, charges balance (SMACT). Beside them the test crystals, and random
sites and species in their cells, scaled to the number of atoms ("no network").

Reconstruction: clouds of training crystals, noised and denoised by the deterministic sampler with the noise kept, so that
tan(pi t / 2T) is the noise on coordinates in [-1, 1], as in the paper; the number of atoms is the likeliest for the noised cloud.
"No network" decodes the noised cloud. N: number of atoms right; cell: lengths within 5 %, of all; sites: coordinates within 0.05
of the cell, periodic, where N is right.

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

SAMPLERS = (('dpmpp_2m', 30), ('ancestral', 60), ('renoised_ancestral', 30))
SCALES = (0.0, 2.0)
SEEDS, TIMES = (0, 1), (0.25, 0.5)
JUDGED = ('elements', 'distance_0.5', 'distance_1.0', 'distance_1.5', 'charge', 'all', 'all_1.5')


class Pccd(Benchmark):
    """Free samples and reconstruction of one model."""

    name = 'pccd_paper'

    @staticmethod
    def options(parser):
        parser.add_argument('--data', required=True, help='mp_le20.npz')
        parser.add_argument('--model', default='pointcloud-mp')
        parser.add_argument('--number', type=int, default=200, help='samples for each seed (200)')

    def __init__(self, args):
        super().__init__(args)
        self.known: dict[str, list[Atoms]] = {}

    def settings(self):
        return {'weights': weights_digest(self.args.model), 'number': self.number}

    @property
    def number(self) -> int:
        """Samples for each seed."""
        return 8 if self.quick else self.args.number

    def items(self):
        seeds = SEEDS[: 1 if self.quick else None]
        kinds = {f'{sampler} {steps}': (sampler, steps, 1.0) for sampler, steps in SAMPLERS}
        kinds |= {f'scale {scale:g}': (None, None, scale) for scale in SCALES}
        for seed in seeds:
            for name in ('test data', 'no network'):
                yield f'free/{name}/{seed}', {'what': name, 'seed': seed}
        for k, (name, (sampler, steps, scale)) in enumerate(kinds.items()):
            for seed in seeds:
                item = {'what': 'model', 'seed': seed, 'sampler': sampler, 'steps': steps, 'scale': scale}
                yield f'free/{name}/{seed}', item
            if k == 0:
                yield from ((f'reconstruction/{t:g} T', {'time': t}) for t in TIMES)

    def run(self, item):
        return rounded(self.reconstruct(item['time']) if 'time' in item else self.free(**item))

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

    def free(self, what, seed, sampler=None, steps=None, scale=1.0) -> dict:
        """Return the shares of one kind of samples."""
        given = self.crystals('test', seed, self.number)
        record = {'what': what, 'seed': seed, 'sampler': sampler, 'steps': steps, 'scale': scale, 'seconds': None}
        gen = self.generator(sampler=sampler, steps=steps)
        counts = [drawn_count(gen.header['sizes'], atoms, seeded(seed, k)) for k, atoms in enumerate(given)]
        if what == 'test data':
            images = given
        elif what == 'no network':
            images = [random_sites(atoms, n, seeded(seed, k, 1)) for k, (atoms, n) in enumerate(zip(given, counts, strict=True))]
        else:
            begun = time.process_time()
            images = sampled(gen, given, counts, seed, scale)
            record |= {'sampler': gen.sampler, 'steps': gen.steps, 'seconds': (time.process_time() - begun) / len(images)}
        return {**record, **judged(images)}

    # ---------------------------------------------------------------- reconstruction

    def reconstruct(self, t: float) -> dict:
        """Return how often training crystals come back from the time t (in units of T), with and without the network."""
        from ase_diffusion.diffusion import NoisePerStructure
        from ase_diffusion.diffusion.joint import times
        from ase_diffusion.training.pointcloud import suitable

        gen = self.generator(sampler='dpmpp_2m')
        cloud, schedule = gen.representation, gen.process.processes['cloud'].schedule
        given = suitable(self.crystals('train', 7, 16 if self.quick else min(320, self.number)))
        sigma = math.tan(math.pi * t / 2) * 0.5 / cloud.scales['positions'][1]
        start, parts = schedule.time(sigma), {'no_network': [], 'model': []}
        for first in range(0, len(given), 64):
            images = given[first : first + 64]
            clean, noise = cloud.encode(images), NoisePerStructure(range(first, first + len(images)))
            noised, _ = gen.process.add_noise(clean, times(clean, start), noise)
            seen = clean.with_fields(cloud=noised.fields['cloud'] * math.sqrt(1 + sigma**2))
            counts = cloud.spread(seen)[0]
            asked = cloud.batch(clean.fields['cloud'], counts, clean.extras['elements'])
            with torch.inference_mode():
                options = dict(steps=max(10, round(gen.steps * start)), generator=noise, start=start, initial=noised)
                final = gen._sampler()(gen.network, gen.process, asked, **options)
            for name, batch in (('no_network', seen), ('model', final)):
                parts[name] += [recovered(a, b) for a, b in zip(images, cloud.decode(batch), strict=True)]
        return {'time': t, 'sigma': sigma, **{name: averaged(rows) for name, rows in parts.items()}}

    # ---------------------------------------------------------------- report

    def report(self, results):
        free = {key: record for key, record in results.items() if key.startswith('free/')}
        rows = []
        for name in dict.fromkeys(key.split('/')[1] for key in free):
            both = [record for key, record in free.items() if key.split('/')[1] == name]
            shares = [f'{100 * np.mean([record[k] for record in both]):.1f}' for k in JUDGED]
            seconds = [record['seconds'] for record in both if record['seconds'] is not None]
            rows.append((name, len(both), *shares, f'{3600 / np.mean(seconds):.0f}' if seconds else '-'))
        head = ('free samples, %', 'seeds', 'elements', '>= 0.5 A', '>= 1.0 A', '>= 1.5 A', 'charge')
        print(table((*head, 'all three', 'all, >= 1.5 A', 'per core hour'), rows))
        rows = []
        for key, record in results.items():
            if key.startswith('reconstruction/'):
                for name in ('no_network', 'model'):
                    rows.append((f'{record["time"]:g} T, {name}', *(number(100 * v, 1) for v in record[name].values())))
        if rows:
            print(table(('reconstruction, %', 'N', 'cell', 'sites'), rows))


def weights_digest(model: str) -> str:
    """Return the first digits of the sha256 of the weights alone: the header of a model may be mended."""
    from ase_diffusion import load_model

    state = load_model(model)[0].state_dict()
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


def sampled(gen, given, counts, seed: int, scale: float, **asked) -> list:
    """Return a sample or failure for the elements of each crystal; ``asked`` are conditions of all."""
    from ase_diffusion.representations import Failure
    from ase_diffusion.representations.conditions import conditions_of
    from ase_diffusion.representations.pointcloud import slots_of
    from ase_diffusion.utils.rng import spawn_seeds

    seeds, outcomes = spawn_seeds(seeded(seed, 1), len(given)), []
    conditions, known = gen.check_conditions({'guidance_scale': scale, **asked}), conditions_of(gen.header)
    for first in range(0, len(given), 64):
        part = slice(first, first + 64)
        triples = [slots_of(atoms.numbers) for atoms in given[part]]
        values = {name: form.tensor([conditions[name]] * len(triples)) for name, form in known.items()}
        batch = gen.representation.blank(counts[part], triples, values).to(gen.device)
        outcomes += gen.representation.decode(gen._denoise(batch, seeds[part], conditions, gen._task()))
    return [outcome if isinstance(outcome, Failure) else gen._finish(outcome) for outcome in outcomes]


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


def recovered(before: Atoms, after) -> tuple[float, float, float]:
    """Return whether the number of atoms is right, and shares of lengths and coordinates (nan where it is not) within 5 %."""
    if not isinstance(after, Atoms):
        return 0.0, 0.0, math.nan
    lengths = np.abs(after.cell.lengths() / before.cell.lengths() - 1) < 0.05
    if len(after) != len(before):
        return 0.0, float(lengths.mean()), math.nan
    gap = after.get_scaled_positions() - before.get_scaled_positions()
    return 1.0, float(lengths.mean()), float((np.abs(gap - np.round(gap)) < 0.05).mean())


def averaged(rows: list) -> dict[str, float]:
    """Return means over crystals."""
    n, cell, sites = np.array(rows).T
    return {'N': float(n.mean()), 'cell': float(cell.mean()), 'sites': float(np.nanmean(sites))}


if __name__ == '__main__':
    main(Pccd)
