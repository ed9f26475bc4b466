"""PointCloudDiffusion: guidance, CrystalDiffusion and retrieval beside it, compounds that were held out, the U-Net of the paper.

guidance: what was asked for, by guidance scale (0: elements only). Gap classes: for elements of which metals and insulators (gap
    of 1.5 eV or more) are known; judged by a network of this file, trained on compositions and volumes of the training split.
    Formation energy: for the elements of ternary oxides, judged by CHGNet without relaxation, and by the same network.
table: for the elements of ternary oxides of the test split (rare earth, alkaline earth, transition metal, O), nothing rejected
    except in "as returned": exact elements, distances, charge balance, unique, novel (against train and val), energy above the
    hull of CHGNet energies of the whole data set, as generated and, for a part, relaxed (fmax 0.1, at most 100 steps). Beside it
    retrieval (the training oxide with the most similar cations, these exchanged and its volume scaled; a known crystal where
    there is one), `CrystalDiffusion` limited to the elements, as many atoms, the same "with stoich", the formulas of retrieval,
    random sites, and the test crystals. "Default": the first structure of `PointCloudDiffusion` without options, a template, and
    the first ten and twenty. "Retrieval, noise s": crystals of retrieval, noised by s of the cell and denoised.
found: MgMnO3, Mg2Mn3O8, CaZn3O4, La2ZnO4, MgFe2O4 of the paper, held out of training: samples of this formula, whether
    they match the crystal of the data (StructureMatcher), and the energy above the hull of the lowest ones, relaxed.
network: tokens and the U-Net over the rows, trained for the same CPU time on one thread, judged as free samples.

    python benchmarks/pccd_compare.py run --data mp_le20.npz [--parts guidance table found network]
"""

from __future__ import annotations

from bench import Benchmark, kept, main, number, rounded, seeded, table

# isort: split
import contextlib
import io
import time
from functools import cached_property, partial

import numpy as np
from ase import Atoms
from ase.formula import Formula
from pccd_judges import WORDS, Judge, gap_class, most_similar
from pccd_paper import JUDGED, TRIES, decoded, drawn_count, judged, random_sites, sampled, weights_digest

PARTS = ('guidance', 'table', 'found', 'network')
SCALES = (0.0, 0.0625, 0.25, 1.0, 4.0)
ASKED = (
    ('band_gap', None),
    ('band_gap', 'metal'),
    ('band_gap', 'insulator'),
    ('formation_energy', None),
    ('formation_energy', -3.0),
)
BELOW = -2.75  # eV/atom: at or below it counts as what was asked for
EACH = {'default, 10 of each': 10, 'default, 20 of each': 20}
GUIDED_EACH = 3  # first structures of the default for each set of elements
METHODS = (
    'PointCloudDiffusion',
    'default',
    *EACH,
    'as returned',
    'retrieval',
    'CrystalDiffusion',
    'with stoich',
    'no network',
    'test crystals',
)
NOISES = (0.02, 0.06, 0.15)  # of the cell: displacements of atoms of retrieved crystals, which are then denoised
RELAXED = ('as returned', 'retrieval', 'with stoich', 'test crystals')
HELD = {'MgMnO3': 10, 'Mg2Mn3O8': 13, 'CaZn3O4': 8, 'La2ZnO4': 7, 'MgFe2O4': 14}  # atoms in the cell
RELAX = {'filter': 'FrechetCellFilter', 'steps': 100, 'fmax': 0.1}
HOW = ('natoms', 'drawn')  # number of atoms: that of the compound, or as the generator draws it
EDGES = (0.08, 0.25)  # eV/atom
CHGNET = 'chgnet_energy_per_atom'
CATIONS = {
    *(4, 12, 20, 38, 56),
    *range(21, 31),
    *range(39, 49),
    *range(57, 81),
}  # alkaline earths, transition metals, rare earths


class Compare(Benchmark):
    """One record for each setting of guidance, method of the table, compound, and network."""

    name = 'pccd_compare'

    @staticmethod
    def options(parser):
        parser.add_argument('--data', help='mp_le20.npz; rock salts and perovskites with --quick')
        parser.add_argument('--model', default='pointcloud-mp')
        parser.add_argument('--parts', nargs='+', default=list(PARTS), choices=PARTS)
        parser.add_argument('--number', type=int, default=80, help='sets of elements of the table (80)')
        parser.add_argument('--guided', type=int, default=64, help='samples for each setting of guidance (64)')
        parser.add_argument('--relaxed', type=int, default=12, help='of the table that are relaxed (12)')
        parser.add_argument('--tries', type=int, default=64, help='samples for each compound (64)')
        parser.add_argument('--seconds', type=float, default=90.0, help='CPU time of the trainings (90)')

    def settings(self):
        args = self.args
        return {
            'weights': weights_digest(args.model),
            **{k: getattr(args, k) for k in ('number', 'guided', 'relaxed', 'tries', 'seconds')},
        }

    def items(self):
        if not self.args.data:
            raise SystemExit('name the data: --data mp_le20.npz')
        if self.quick:
            vars(self.args).update(number=4, guided=4, relaxed=1, tries=4, seconds=2.0)
        kinds = {
            'guidance': [
                (f'{name} {value}, scale {s:g}', (name, value, s))
                for name, value in ASKED
                for s in (SCALES[1:] if value else SCALES[:1])
            ]
            + [
                (f'{name} {value}, scale {s:g}, default', (name, value, s, True))
                for name, value in ASKED
                for s in (SCALES[2:] if value else SCALES[:1])
            ],
            'table': [(name, (name,)) for name in (*METHODS, *(f'retrieval, noise {s:g}' for s in NOISES))]
            + [(f'{name}, relaxed', (name, True)) for name in RELAXED],
            'found': [(f'{formula}, {how}', (formula, how)) for how in HOW for formula in HELD],
            'network': [(form, (form,)) for form in ('tokens', 'unet')],
        }
        for part in self.args.parts:
            for name, arguments in kinds[part]:
                yield f'{part}/{name}', (part, *arguments)

    def run(self, item):
        part, *arguments = item
        return rounded(getattr(self, part)(*arguments))

    # ---------------------------------------------------------------- data

    @cached_property
    def images(self) -> list[Atoms]:
        """All crystals of the data that have splits."""
        from ase_diffusion.data.crystals import read_crystals

        return read_crystals(self.args.data)

    def suitable(self, *splits: str) -> list[Atoms]:
        """Return the crystals of some splits that clouds can hold, without the compounds that were held out."""
        held = {reduced(Formula(text)) for text in HELD}
        found = [
            a for a in self.images if a.info['key_value_pairs']['split'] in splits and reduced(a.symbols.formula) not in held
        ]
        return [a for a in found if len(a) <= 16 and len(set(a.numbers.tolist())) <= 3]

    @cached_property
    def oxides(self) -> list[Atoms]:
        """One test crystal of each set of elements, ternary oxides of `CATIONS`, at random."""
        found = {}
        for atoms in self.suitable('test'):
            elements = frozenset(atoms.numbers.tolist())
            if len(elements) == 3 and 8 in elements and elements <= CATIONS | {8}:
                found.setdefault(elements, atoms)
        return shuffled(list(found.values()), 11)[: self.args.number]

    @cached_property
    def of_both(self) -> list[Atoms]:
        """One crystal of each set of elements of which metals and insulators are known."""
        found: dict = {}
        for atoms in self.suitable('train', 'val', 'test'):
            gap = atoms.info['key_value_pairs'].get('band_gap')
            if gap is not None:
                classes, _ = found.setdefault(frozenset(atoms.numbers.tolist()), (set(), atoms))
                classes.add(gap_class(gap))
        return shuffled([atoms for classes, atoms in found.values() if {0, 2} <= classes], 12)[: self.args.guided]

    @cached_property
    def gen(self):
        """The generator; what is asked for comes with each batch."""
        from ase_diffusion import PointCloudDiffusion

        return PointCloudDiffusion(['O'], natoms=1, model=self.args.model, logfile=None)

    def counts(self, given, seed) -> list[int]:
        """Return numbers of atoms as drawn by the generator."""
        return [drawn_count(self.gen.header['sizes'], atoms, seeded(seed, k)) for k, atoms in enumerate(given)]

    @cached_property
    def judge(self) -> Judge:
        """The judge of gap classes and formation energies."""
        return Judge(self.suitable('train'), self.suitable('val'))

    @cached_property
    def of_judge(self) -> dict:
        """Accuracy and mean absolute error of the judge on the test split."""
        test = self.suitable('test')
        return {'accuracy': self.judge.accuracy(test), 'mae': self.judge.error(test)}

    # ---------------------------------------------------------------- guidance

    def guidance(self, name, value, scale, default: bool = False) -> dict:
        """Return what came of one condition and scale; ``default``: of the first three with templates."""
        given = self.of_both if name == 'band_gap' else self.oxides[: self.args.guided]
        asked = {} if scale == 0 else {name: value}
        if default:
            asked |= {'guidance_scale': scale} if asked else {}
            images = [atoms for one in given for atoms in self.by_default(one, GUIDED_EACH, **asked)]
        else:
            images = decoded(self.gen, sampled(self.gen, given, self.counts(given, 21), 21, scale, **asked))
        sound = [a for a in images if isinstance(a, Atoms)]
        classes, energies = self.judge(sound)
        record = {'n': len(images), 'asked': value, 'scale': scale, **judged(images)}
        record |= {word: float(np.sum(classes == k)) / len(images) for k, word in enumerate(WORDS)}
        record |= {'oxygen': float(np.mean([np.mean(a.numbers == 8) for a in sound])), 'by_composition': np.median(energies)}
        record |= self.of_judge
        if name == 'formation_energy':
            from ase_diffusion import metrics

            found = metrics.formation_energies(sound)
            record |= {'median': np.nanmedian(found), 'below': float(np.sum(found <= BELOW)) / len(images)}
            record |= {'below_by_composition': float(np.sum(energies <= BELOW)) / len(images)}
            if default:
                record['possible'] = float(np.mean([self.lowest_known(atoms) <= BELOW for atoms in given]))
        return record

    # ---------------------------------------------------------------- table

    def table(self, name: str, relaxed: bool = False) -> dict:
        """Return the row of one method."""
        from ase_diffusion import metrics

        images = self.generated(name)
        if relaxed:
            images = [a for a in images if isinstance(a, Atoms)][: self.args.relaxed]
            after = self.relaxed(f'{name}', images)
            return {'n': len(images), **self.stability(after, energies_of(after))}
        begun = time.process_time()
        sound = [a for a in images if isinstance(a, Atoms)]
        if not sound:
            return {'n': len(images), **judged(images)}
        is_unique, is_novel = metrics.unique(sound, processes=1), metrics.novel(sound, self.suitable('train', 'val'), processes=1)
        record = {'n': len(images), **judged(images), 'unique': is_unique.sum() / len(images)}
        record |= {'novel': is_novel.sum() / len(images), **self.stability(sound, metrics.chgnet_energies(sound), len(images))}
        return {**record, 'judging_seconds': time.process_time() - begun}

    def generated(self, name: str) -> list:
        """Return one structure or failure for the elements of each oxide; kept, so that relaxation starts from the same."""
        path = self.store / f'{name}.traj'

        def make(begin, end):
            given, (method, _, noise) = self.oxides[begin:end], name.partition(', noise ')
            images = getattr(self, '_' + method.lower().replace(' ', '_'))(given, self.counts(given, 31 + begin), 31 + begin)
            images = self.denoised(images, float(noise), 31 + begin) if noise else images
            return [a if isinstance(a, Atoms) else Atoms() for a in images]

        if name in EACH:
            return [atoms for oxide in self.oxides for atoms in self.by_default(oxide, EACH[name])]
        images = kept(path, len(self.oxides), make)
        return [a if len(a) and set(a.numbers) == set(b.numbers) else None for a, b in zip(images, self.oxides, strict=True)]

    def by_default(self, like: Atoms, n: int, **asked) -> list[Atoms]:
        """Return the first structures of the elements of a crystal."""
        from ase_diffusion import PointCloudDiffusion

        return PointCloudDiffusion(sorted(set(like.get_chemical_symbols())), rng=51, logfile=None).sample(n, **asked)

    def lowest_known(self, like: Atoms) -> float:
        """Return the lowest formation energy, eV/atom, that the network of compositions gives to templates of some elements."""
        import torch

        from ase_diffusion import PointCloudDiffusion
        from ase_diffusion.representations.pointcloud import fractions_of

        gen = PointCloudDiffusion(sorted(set(like.get_chemical_symbols())), logfile=None)
        compositions = fractions_of(gen.templates.compositions())
        with torch.inference_mode():
            return float(gen.networks['property'].number('formation_energy', *compositions).min())

    def _default(self, given, counts, seed) -> list:
        return [self.by_default(atoms, 1)[0] for atoms in given]

    def _pointclouddiffusion(self, given, counts, seed) -> list:
        return decoded(self.gen, sampled(self.gen, given, counts, seed))

    def _as_returned(self, given, counts, seed) -> list:
        images = self._pointclouddiffusion(given, counts, seed)
        for again in range(1, TRIES):
            bad = [k for k, x in enumerate(images) if not isinstance(x, Atoms) or self.gen._reason_to_reject(x) is not None]
            if bad:
                some = [given[k] for k in bad]
                fresh = self._pointclouddiffusion(some, self.counts(some, seed + 1000 * again), seed + 1000 * again)
                images = [dict(zip(bad, fresh, strict=True)).get(k, x) for k, x in enumerate(images)]
        return images

    def _crystaldiffusion(self, given, counts, seed) -> list:
        from ase_diffusion import CrystalDiffusion
        from ase_diffusion.generators.crystal.tasks import AllowedElements
        from ase_diffusion.utils.rng import spawn_seeds

        gen = CrystalDiffusion(model='mp-le20', logfile=None)
        seeds = spawn_seeds(seeded(seed, 2), len(given))
        gen._count = dict(zip(seeds, counts, strict=True)).get
        sets = [[z in atoms.numbers for z in gen.representation.elements] for atoms in given]
        allowed = [row for row, n in zip(sets, counts, strict=True) for _ in range(n)]
        conditions, task = gen.check_conditions({}), gen._task()
        batch = gen._encode(seeds, conditions, task)
        final = gen._denoise(batch, seeds, conditions, task, wrap=partial(AllowedElements, allowed=allowed))
        return [gen._finish(a) if isinstance(a, Atoms) else a for a in gen.representation.decode(final)]

    def _with_stoich(self, given, counts, seed) -> list:
        from ase_diffusion import CrystalDiffusion
        from ase_diffusion.utils.rng import spawn_seeds

        like = self._retrieval(given, counts, seed)
        gen = CrystalDiffusion(like[0].get_chemical_formula(), logfile=None)
        seeds = spawn_seeds(seeded(seed, 2), len(given))
        gen._template = dict(zip(seeds, like, strict=True)).get
        conditions, task = gen.check_conditions({}), gen._task()
        decoded = gen.representation.decode(gen._sample_batch(seeds, conditions, task))
        return [gen._finish(a) if isinstance(a, Atoms) else a for a in decoded]

    def _retrieval(self, given, counts, seed) -> list:
        known = [a for a in self.suitable('train') if len(set(a.numbers)) == 3 and 8 in a.numbers]
        return [most_similar(atoms, known, self.volumes) for atoms in given]

    def denoised(self, images: list[Atoms], noise: float, seed: int) -> list:
        """Return crystals whose atoms were displaced by ``noise`` of the cell (species and lattice likewise), denoised."""
        from ase_diffusion.generators.tasks import FromStructures
        from ase_diffusion.representations.conditions import conditions_of
        from ase_diffusion.representations.reduction import niggli
        from ase_diffusion.utils.rng import spawn_seeds

        cloud, images = self.gen.representation, [niggli(atoms) for atoms in images]
        copies = np.mean([128 // len(atoms) for atoms in images])
        sigma = noise * np.sqrt(copies) / cloud.scales['positions'][1]  # of a row
        start = float(self.gen.process.processes['cloud'].schedule.time(sigma))
        conditions, task = self.gen.check_conditions({}), FromStructures(images, noise, self.gen.steps, start)
        batch = cloud.encode(images, {name: f.tensor([None] * len(images)) for name, f in conditions_of(self.gen.header).items()})
        return decoded(self.gen, [self.gen._denoise(batch, spawn_seeds(seeded(seed, 3), len(images)), conditions, task)])

    def _no_network(self, given, counts, seed) -> list:
        return [random_sites(a, n, seeded(seed, k, 1)) for k, (a, n) in enumerate(zip(given, counts, strict=True))]

    def _test_crystals(self, given, counts, seed) -> list:
        return [atoms.copy() for atoms in given]

    @cached_property
    def volumes(self) -> dict[int, float]:
        """A volume of each element, A^3."""
        from crystal_paper import atomic_volumes

        return atomic_volumes(self.suitable('train'))

    def relaxed(self, name: str, images: list) -> list[Atoms]:
        """Return crystals relaxed with CHGNet, kept as they come."""
        from ase_diffusion.metrics import structural_validity
        from ase_diffusion.relax import get_calculator, relax

        with contextlib.redirect_stdout(io.StringIO()):  # it says that it was loaded
            calculator = get_calculator('chgnet')
        sound = structural_validity(images)

        def make(begin, end):
            return [relax(images[k], calculator, **RELAX) if sound[k] else images[k] for k in range(begin, end)]

        return kept(self.store / f'relaxed {name}.traj', len(images), make, size=1)

    def stability(self, images: list, energies, total: int | None = None) -> dict:
        """Return shares of crystals below energies above the hull, of all, and the median, eV/atom."""
        from ase_diffusion import metrics

        wanted = {z for atoms in images for z in atoms.numbers.tolist()}
        phases = [a for a in self.images if wanted >= set(a.numbers.tolist())]
        hull = metrics.formation_energies(phases, metrics.property_values(phases, CHGNET))
        above = metrics.energies_above_hull(images, metrics.formation_energies(images, energies), phases, hull, processes=1)
        shares = {f'below_{edge:g}': float(np.sum(above <= edge)) / (total or len(images)) for edge in EDGES}
        return {**shares, 'median': np.nanmedian(above) if np.isfinite(above).any() else np.nan, 'lowest': np.nanmin(above)}

    # ---------------------------------------------------------------- compounds that were held out

    def found(self, formula: str, how: str) -> dict:
        """Return how often samples are a compound, and how stable the lowest three are."""
        from ase_diffusion import metrics

        target = reduced(Formula(formula))
        given = [Atoms(formula)] * self.args.tries
        counts = [HELD[formula]] * len(given) if how == 'natoms' else self.counts(given, 41)
        images = decoded(self.gen, sampled(self.gen, given, counts, 41))
        hits = [a for a in images if isinstance(a, Atoms) and reduced(a.symbols.formula) == target]
        known = [a for a in self.images if reduced(a.symbols.formula) == target]
        record = {'n': len(images), 'formula': len(hits), 'in_data': len(known), 'matched': 0, 'matched_relaxed': 0}
        if not hits:
            return record
        if known:
            record['matched'] = int((~metrics.novel(hits, known, processes=1)).sum())
        order = np.argsort(np.nan_to_num(metrics.chgnet_energies(hits), nan=np.inf))
        after = self.relaxed(f'{formula} {how}', [hits[k] for k in order[:3]])
        if known:
            record['matched_relaxed'] = int((~metrics.novel(after, known, processes=1)).sum())
        return record | {'relaxed': len(after), **self.stability(after, energies_of(after))}

    # ---------------------------------------------------------------- the other network

    def network(self, form: str) -> dict:
        """Return the free samples of a network after a training of some CPU time."""
        from ase_diffusion import PointCloudDiffusion
        from ase_diffusion.training.pointcloud import train_pointcloud

        train, val = self.suitable('train'), self.suitable('val')[:256]
        options = dict(
            validation=val, network=form, conditions=[], batch_size=64, every=10**6, progress=False, ema=0.995, warmup=50
        )

        def train_for(steps, folder):
            begun = time.process_time()
            return train_pointcloud(train, self.store / folder, steps=steps, **options), time.process_time() - begun

        (_, few), (_, more) = train_for(4, f'{form}-4'), train_for(24, f'{form}-24')
        steps = max(8, int(self.args.seconds / max((more - few) / 20, 1e-3)))
        best, seconds = train_for(steps, form)
        gen = PointCloudDiffusion(['O'], natoms=1, model=best, logfile=None)
        known = set(gen.representation.elements)
        given = [a for a in shuffled(self.suitable('test'), 51) if set(a.numbers.tolist()) <= known][: self.args.guided]
        counts = self.counts(given, 51)
        begun = time.process_time()
        batches = list(sampled(gen, given, counts, 51))
        record = {'n': len(given), 'steps': steps, 'train_seconds': seconds}
        record |= {'parameters': sum(p.numel() for p in gen.network.parameters())}
        record |= {'seconds': (time.process_time() - begun) / len(given), **judged(decoded(gen, batches))}
        return {**record, 'argmax': judged(decoded(gen, batches, by_argmax=True))}

    # ---------------------------------------------------------------- report

    def report(self, results):
        parts: dict = {}
        for key, record in results.items():
            part, name = key.split('/')
            parts.setdefault(part, []).append((name, record))
        for part, records in parts.items():
            print(f'\n{part}\n{table(*getattr(self, "_rows_of_" + part)(records))}')

    @staticmethod
    def _rows_of_guidance(records):
        head = ('asked', 'n', *WORDS, 'charge', 'all, >= 1.5 A', 'O', 'median E', 'below', 'by composition', 'below')
        head = (*head, 'judge: accuracy', 'MAE')
        rows = []
        for name, r in records:
            shares = (percent(r[k]) for k in (*WORDS, 'charge', 'all_1.5', 'oxygen'))
            energies = (number(r.get('median')), percent(r.get('below')))
            more = (number(r['by_composition']), percent(r.get('below_by_composition')), percent(r['accuracy']), number(r['mae']))
            rows.append((name, r['n'], *shares, *energies, *more))
        return head, rows

    @staticmethod
    def _rows_of_table(records):
        names = (*JUDGED, 'unique', 'novel', *(f'below_{edge:g}' for edge in EDGES))
        rows = [(name, r['n'], *(percent(r.get(k)) for k in names), number(r.get('median'))) for name, r in records]
        return ('%', 'n', *names, 'median, eV/atom'), rows

    @staticmethod
    def _rows_of_found(records):
        names = ('n', 'formula', 'in_data', 'matched', 'relaxed', 'matched_relaxed')
        return ('', *names, 'lowest, eV/atom'), [
            (n, *(r.get(k, '-') for k in names), number(r.get('lowest'))) for n, r in records
        ]

    @staticmethod
    def _rows_of_network(records):
        names = ('parameters', 'steps', 'train_seconds', 'n')
        rows = []
        for name, r in records:
            rows.append((name, *(number(r[k], 0) for k in names), *(percent(r[k]) for k in JUDGED), f'{3600 / r["seconds"]:.0f}'))
            rows.append((f'{name}, by argmax', *[''] * len(names), *(percent(r['argmax'][k]) for k in JUDGED)))
        return ('', *names, *JUDGED, 'per core hour'), rows


# -------------------------------------------------------------------- parts


def reduced(formula: Formula) -> str:
    """Return the reduced formula in the order of Hill."""
    return formula.reduce()[0].format('hill')


def shuffled(images: list, seed: int) -> list:
    """Return images in random order."""
    return [images[k] for k in seeded(seed).permutation(len(images))]


def energies_of(images: list) -> np.ndarray:
    """Return energies of relaxed crystals, eV/atom; nan where there is none."""
    return np.array([np.nan if a.calc is None else a.get_potential_energy() / len(a) for a in images])


def percent(value) -> str:
    """Return a share as text, %."""
    return '-' if value is None else f'{100 * value:.1f}'


if __name__ == '__main__':
    main(Compare)
