"""CrysTensDiffusion beside the numbers of the paper (Alverson et al.): tables 1 and 2, and what the decoded crystals are worth.

Images of every kind are decoded, none rejected. Tables 1 and 2 say how far the copies of a number in an image agree before they
are averaged; an image whose copies agree on a wrong number scores 0, so shares of valid crystals stand beside. Without a model:
test crystals, encoded; these with Gaussian noise of 0.01 and 0.03 on every pixel, in units of half the range of its field; test
crystals whose coordinates are uniform random numbers ("random sites", no network); images of nothing but noise. Conditions: space
groups and elements of test crystals are asked for, with their numbers of atoms, with several guidance scales; spglib says (0.1 A)
which space group came.

    python benchmarks/crystens_paper.py run --data mp_le52.npz --models MODEL ...
"""

from __future__ import annotations

from bench import Benchmark, main, number, rounded, seeded, table

# isort: split
import hashlib
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

PAPER = {  # tables 1 and 2, 1,000 images each
    'the paper, GAN': (582.23, 1338.11, 6322.1, 5.57e-2, 9.62e-2, 3.84),
    'the paper, WGAN': (31.18, 695.03, 3024.27, 5.9e-2, 1.37e-2, 2.49),
    'the paper, diffusion': (0.35, 0.846, 4.56, 4.36e-4, 5.51e-4, 0.473),
}
VARIANCES = ('lattice', 'angle', 'space_group', 'coordinate', 'agreement_per_atom', 'pair_difference')
FIELDS = ('a', 'b', 'c', 'alpha', 'beta', 'gamma', 'space_group', 'atoms', 'Z')
NO_NETWORK = ('data', 'data + 0.01', 'data + 0.03', 'random sites', 'random in given sites', 'noise')
DECODERS = {'guesses averaged': {}, 'own coordinates': {'guesses': False}, 'K-means (3, 6)': {'clusters': (3, 6)}}
SITES = {True: 'sites given', False: 'all coordinates'}
SCALES, SYMPREC, REFERENCE = (0.0, 1.0, 2.0), 0.1, 2000


class CrysTensPaper(Benchmark):
    """Images of the models and of test crystals."""

    name = 'crystens_paper'

    @staticmethod
    def options(parser):
        parser.add_argument('--data', required=True, help='mp_le52.npz')
        parser.add_argument('--models', nargs='*', default=[], help='checkpoints, or names of shipped models')
        parser.add_argument('--number', type=int, default=200, help='images for each seed of what is not there yet (200)')
        parser.add_argument('--asked', type=int, default=64, help='crystals for each guidance scale (64)')
        parser.add_argument('--seeds', type=int, default=1, help='of each model (1)')

    def __init__(self, args):
        super().__init__(args)
        self.known: dict = {}

    def settings(self):
        return {'asked': self.asked}  # each record says how many images it is of

    @property
    def number(self) -> int:
        """Images for each seed."""
        return 6 if self.quick else self.args.number

    @property
    def asked(self) -> int:
        """Crystals for each guidance scale."""
        return 3 if self.quick else self.args.asked

    def items(self):
        for name in NO_NETWORK:
            yield name, {'what': name, 'seed': 0}
        for path in self.args.models:
            name = f'{Path(path).stem} {weights_digest(path)}'
            for sites in self.ways(path):
                for seed in range(self.args.seeds):
                    word = '' if sites is None else f', {SITES[sites]}'
                    yield f'{name}{word}/{seed}', {'what': name + word, 'seed': seed, 'model': path, 'sites': sites}
        for path in self.args.models:
            if 'space_group' in self.generator(path).header['conditions']:
                for scale, sites in product(SCALES, self.ways(path)):
                    word = '' if sites is None else f', {SITES[sites]}'
                    key = f'{Path(path).stem} {weights_digest(path)}{word}/scale {scale:g}'
                    yield key, {'what': 'conditions', 'model': path, 'scale': scale, 'sites': sites}

    def ways(self, path) -> list:
        """Return with and without given sites, for models that know both."""
        return [True, False] if self.generator(path).header.get('sites') else [None]

    def run(self, item):
        return rounded(self.conditions(**item) if item['what'] == 'conditions' else self.images(**item), 6)

    def crystals(self, split: str, limit: int) -> list[Atoms]:
        """Return conventional cells of a split at random that an image can hold."""
        from ase_diffusion.data.crystals import read_crystals
        from ase_diffusion.representations.cells import conventional

        if split not in self.known:
            images = read_crystals(self.args.data, split)
            self.known[split] = iter([images[k] for k in seeded(0).permutation(len(images))]), []
        left, found = self.known[split]
        while len(found) < limit and (atoms := next(left, None)) is not None:
            atoms = conventional(atoms)
            found += [atoms] if len(atoms) <= 52 else []
        return found[:limit]

    def generator(self, model, **options):
        """Return a generator that rejects nothing."""
        from ase_diffusion import CrysTensDiffusion

        return CrysTensDiffusion(model, logfile=None, validate=False, batch_size=32, **options)

    def images(self, what: str, seed: int, model=None, sites=None) -> dict:
        """Return the record of one kind of images."""
        representation, image, seconds, more = self.without_network(what) if model is None else self.of_model(model, seed, sites)
        real = features(self.crystals('train', 60 if self.quick else REFERENCE))
        values = representation.variances(image)
        record = {'what': what, 'seed': seed, 'n': len(image), 'seconds': seconds, **more}
        record['variances'] = {name: mean(values[name]) for name in VARIANCES}
        record['decoded'] = {name: judged(decoded(representation, image, options)) for name, options in DECODERS.items()}
        mine = features([x for x in decoded(representation, image, {}) if isinstance(x, Atoms)])
        record['ks'] = {name: statistic(mine[name], real[name]) for name in FIELDS}
        return record

    def without_network(self, what: str):
        """Return representation, images (min-max units), no time and no settings of what needs no network."""
        from ase_diffusion.representations import CrysTens

        representation = CrysTens.of(self.crystals('train', 60 if self.quick else REFERENCE), scaling='minmax', log_lengths=False)
        given, rng = self.crystals('test', self.number), seeded(1)
        if what.startswith('random'):
            given = [atoms.copy() for atoms in given]
            for atoms in given:
                atoms.info.setdefault('key_value_pairs', {})
                atoms.set_scaled_positions(rng.random((len(atoms), 3)) if what == 'random sites' else in_sites(atoms, rng))
        image = representation.encode(given).fields['image'].double()
        strength = {'data + 0.01': 0.01, 'data + 0.03': 0.03}.get(what, 0.0)
        noise = torch.from_numpy(rng.standard_normal(image.shape))
        return representation, noise if what == 'noise' else image + strength * noise, None, {}

    def of_model(self, model, seed: int, sites=None):
        """Return representation, images, CPU seconds per image and settings of a model."""
        gen = self.generator(model, rng=seed, **given(sites))
        begun = time.process_time()
        image = torch.cat([batch.fields['image'] for batch in gen.sample_batches(self.number)])
        seconds = (time.process_time() - begun) / len(image)
        more = {
            'network': gen.network_kind,
            'sampler': gen.sampler,
            'steps': gen.steps,
            'training_steps': gen.header.get('steps'),
        }
        more['tied'] = bool(gen.network.settings.get('tied', False))
        return gen.representation, image, seconds, more

    def conditions(self, what: str, model, scale: float, sites=None) -> dict:
        """Return how often the space group and the elements of test crystals come back where they are asked for."""
        wished, gen = self.crystals('test', self.asked), self.generator(model, **given(sites))
        groups, elements, promised = [], [], []
        begun = time.process_time()
        wanted = [group_of(atoms) for atoms in wished]
        for one, group in zip(sampled(gen, wished, scale, space_group=[str(g) for g in wanted]), wanted, strict=True):
            made = isinstance(one, Atoms)
            groups.append([made and number_of(one) == group, made and group_of(one, True) == group])
        sets = [sorted(set(atoms.get_chemical_symbols())) for atoms in wished]
        for two, symbols in zip(sampled(gen, wished, scale, elements=sets), sets, strict=True):
            have = set(two.get_chemical_symbols()) if isinstance(two, Atoms) else set()
            elements.append([have == set(symbols), have >= set(symbols), len(have & set(symbols)) / len(symbols)])
        for three, symbols in zip(sampled(gen, wished, scale, required=True, elements=sets), sets, strict=True):
            promised.append(isinstance(three, Atoms) and set(three.get_chemical_symbols()) >= set(symbols))
        seconds = (time.process_time() - begun) / (3 * len(wished))
        (in_image, by_spglib), (exact, all_there, share) = np.mean(groups, 0), np.mean(elements, 0)
        record = {'what': what, 'scale': scale, 'n': len(wished), 'seconds': seconds, 'group_in_image': in_image}
        return record | {
            'group_by_spglib': by_spglib,
            'elements_exact': exact,
            'elements_all': all_there,
            'elements_share': share,
            'elements_required': np.mean(promised),
        }

    def report(self, results):
        kinds = [record for record in results.values() if record['what'] != 'conditions']
        rows = [(name, '1000', *(f'{x:.3g}' for x in values)) for name, values in PAPER.items()]
        for record in kinds:
            void = ('void',) * 6 if record.get('tied') else [shown(record['variances'][name]) for name in VARIANCES]
            rows.append((titled(record), record['n'], *void))
        head = ('tables 1 and 2', 'images', 'lattice A^2', 'angle deg^2', 'group', 'coordinate', 'agreement / A', 'pairs / A')
        print(table(head, rows))
        if any(record.get('tied') for record in kinds):
            print('void: one output stands behind all copies of a number, so that they agree by construction')
        names = ('valid_0.5', 'valid_1.0', 'charge', 'elements', 'atoms', 'symmetric', 'right_group')
        for decoder in DECODERS:
            rows = [
                (titled(r), percent(r['decoded'][decoder]['decoded']), *judgement(r['decoded'][decoder], names)) for r in kinds
            ]
            print()
            print(
                table(
                    (f'decoded, {decoder}', 'crystals', '>= 0.5 A', '>= 1 A', 'charge', 'elements', 'atoms', 'not P1', 'group'),
                    rows,
                )
            )
        rows = [(titled(r), *(shown(r['ks'][name], 2) for name in FIELDS), speed(r)) for r in kinds]
        print()
        print(table(('K-S', *FIELDS, 'images per core hour'), rows))
        asked = {key: record for key, record in results.items() if record['what'] == 'conditions'}
        columns = ('group_in_image', 'group_by_spglib', 'elements_exact', 'elements_all', 'elements_share', 'elements_required')
        if asked:
            print()
            rows = [(key, r['n'], *(percent(r.get(name)) for name in columns)) for key, r in asked.items()]
            head = ('asked for', 'n', 'group in image', 'by spglib', 'elements', 'all of them', 'share of them', 'all_elements')
            print(table(head, rows))


def weights_digest(model) -> str:
    """Return the first digits of the sha256 of the weights alone."""
    from ase_diffusion.weights.zoo import load_networks

    networks = load_networks(str(model), 'cpu')[0]
    tensors = [tensor for network in networks.values() for _, tensor in sorted(network.state_dict().items())]
    return hashlib.sha256(b''.join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:10]


def decoded(representation, image, options: dict) -> list:
    """Return crystals and failures of images by a representation with other options of decoding."""
    from ase_diffusion.diffusion import Batch

    return type(representation)(**{**vars(representation), **options}).decode(Batch.dense('image', image))


def sampled(gen, given: list[Atoms], scale: float, size: int = 32, required: bool = False, **asked) -> list:
    """Return a sample or failure with as many atoms as each crystal; ``asked`` has a value of each condition for each.

    ``required``: as with ``all_elements`` of the generator.
    """
    from ase_diffusion.representations.conditions import conditions_of
    from ase_diffusion.utils.rng import spawn_seeds

    known, seeds, outcomes = conditions_of(gen.header), spawn_seeds(seeded(2), len(given)), []
    plain = gen.check_conditions({'guidance_scale': scale})
    for first in range(0, len(given), size):
        part = slice(first, first + size)
        none = [None] * len(given[part])
        values = {name: form.tensor(asked[name][part] if name in asked else none) for name, form in known.items()}
        batch = gen.representation.encode([gen._template(0)] * len(none), values)
        batch.extras['counts'] = torch.tensor([len(atoms) for atoms in given[part]])
        if gen.sites:
            groups = asked.get('space_group', [None] * len(given))[part]
            drawn = [(len(atoms), group) for atoms, group in zip(given[part], groups, strict=True)]
            gen._tell_sites(batch, seeds[part], drawn, max(map(len, asked['elements'][part])) if 'elements' in asked else 1)
        gen.all_elements = required
        gen._tell_elements(batch)
        outcomes += gen.representation.decode(gen._denoise(batch, seeds[part], plain, gen._task()))
    return outcomes


def given(sites) -> dict:
    """Return the options of a generator."""
    return {} if sites is None else {'sites': sites}


def in_sites(atoms: Atoms, rng) -> np.ndarray:
    """Return fractional coordinates in the sites of a crystal, uniform where these leave freedom."""
    from ase_diffusion.representations.crystens import sites_of, table_of

    table, cell, counts = table_of([atoms])
    sites, n = sites_of(table, cell[:, 6], counts), len(atoms)
    random = sites['projection'][0].reshape(3 * n, 3 * n).numpy() @ rng.random(3 * n)
    atoms.numbers = table[0, :n, 0].astype(int)  # sorted
    return random.reshape(n, 3) + sites['offset'][0].numpy()


def number_of(atoms: Atoms) -> int:
    """Return the space group that an image says."""
    return int(atoms.info['key_value_pairs']['space_group'])


def group_of(atoms: Atoms, anew: bool = False) -> int:
    """Return the space group of a crystal; ``anew``: by spglib, whatever the crystal says."""
    from ase_diffusion.representations.cells import space_group

    if not anew:
        return int(space_group(atoms))
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    return int(space_group(plain, SYMPREC)) if np.isfinite(plain.positions).all() and plain.cell.volume > 1 else 0


def judged(images: list) -> dict:
    """Return shares of all images, and means over decoded crystals."""
    from ase_diffusion.generators.bulk import shortest_distance
    from ase_diffusion.metrics import compositional_validity

    crystals = [atoms for atoms in images if isinstance(atoms, Atoms)]
    if not crystals:
        return {'decoded': 0.0}
    distances = np.array([shortest_distance(atoms) for atoms in crystals])
    groups = np.array([group_of(atoms, True) if d >= 0.3 else 0 for atoms, d in zip(crystals, distances, strict=True)])
    right = groups == [number_of(atoms) for atoms in crystals]
    share = len(crystals) / len(images)
    return {
        'decoded': share,
        'valid_0.5': share * np.mean(distances >= 0.5),
        'valid_1.0': share * np.mean(distances >= 1.0),
        'charge': share * np.mean(compositional_validity(crystals)),
        'elements': np.mean([len(set(atoms.numbers)) for atoms in crystals]),
        'atoms': np.mean([len(atoms) for atoms in crystals]),
        'symmetric': share * np.mean(groups > 1),
        'right_group': share * np.mean(right & (groups > 1)),
    }


def features(crystals: list[Atoms]) -> dict:
    """Return what distributions are compared of; angles to whole degrees, since noise splits ties, lengths to 0.001 A."""
    cells = np.array([atoms.cell.cellpar() for atoms in crystals]).reshape(-1, 6)
    numbers = np.concatenate([atoms.numbers for atoms in crystals] or [[]])
    found = dict(zip(FIELDS, [*np.round(cells[:, :3], 3).T, *np.round(cells[:, 3:]).T], strict=False))
    groups = [
        number_of(atoms) if 'space_group' in atoms.info.get('key_value_pairs', {}) else group_of(atoms) for atoms in crystals
    ]
    return found | {'space_group': np.array(groups), 'atoms': np.array([len(atoms) for atoms in crystals]), 'Z': numbers}


def statistic(mine, real) -> float | None:
    """Return the two-sample K-S statistic, None where there is nothing to compare."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(mine, real).statistic) if len(mine) else None


def mean(values) -> float | None:
    """Return the mean of the numbers that are finite."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def titled(record: dict) -> str:
    """Return the name of a row."""
    return f'{record["what"]} ({record["network"]})' if 'network' in record else record['what']


def shown(value, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}g}'


def percent(value) -> str:
    return '-' if value is None else f'{100 * value:.0f} %'


def judgement(record: dict, names) -> list[str]:
    """Return shares as percent, means with a digit."""
    return [number(record.get(n), 1) if n in ('elements', 'atoms') else percent(record.get(n)) for n in names]


def speed(record: dict) -> str:
    return '-' if not record['seconds'] else f'{3600 / record["seconds"]:.0f}'


if __name__ == '__main__':
    main(CrysTensPaper)
