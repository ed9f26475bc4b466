"""Crystals beside Takahara et al. (arXiv 2406.09263, table 1), CDVAE, DiffCSP and trivial baselines, on the data's own splits.

    python benchmarks/crystal_paper.py run MODEL DATA [--parts prediction target ...] [-n 1000] [--seeds 0 1 2] [--steps 1000]
    python benchmarks/crystal_paper.py report

MODEL is a shipped name or a .safetensors file, DATA a set with splits (npz, folder of CSV). Every part is one record, named by
model, part, steps and seed; what is there for the same weights is not computed again. Structures are kept in
runs/crystal_paper/<digest of the weights> as they come. Nothing that was generated is left out: what is structurally invalid
counts as a failure. ``--quick``: one structure of each of two rock salts (DATA may be left out).

prediction: --samples structures for each of n held-out compositions (test split); match rate and RMSE by pymatgen's
    StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3) of the first and of the best, with --select also of the one of lowest
    energy by CHGNet without relaxation. Baselines on the same compositions: random
    training crystals of as many atoms with the species put on their sites at random and the volume of the mean atomic volumes;
    and atoms at random in a cube of that volume.
target: n samples with the condition at the minimum of the training split; shares at or below its 5, 10, 15 % percentiles (SR5,
    SR10, SR15). --judge regressor: trained here on the training split; --judge chgnet (default for formation energies): CHGNet
    without relaxation; chgnet-fit (default for energy_per_atom): linear in its energy and the volume, fitted to the training
    split, since the energies of carbon_24 are enthalpies at 10 GPa. The error of the judge on the test split is printed beside.
    Plain shares, no best of several.
free: n samples without condition; the same shares, for comparison.
denovo: n samples without condition: validity, uniqueness, novelty against what models may have seen (training and validation
    split), coverage (of --coverage-n structures) and Wasserstein distances against the test split, and the same for a random
    sample of the training split.
sun: n samples without condition, relaxed with CHGNet (cell and positions, at most 200 steps, fmax 0.05): stable, unique, novel
    on the hull of CHGNet energies of all crystals of the data; and the same for crystals of the test split.
symmetry: the same crystals averaged over the symmetry that spglib finds within 0.1 and 0.2 A (``symmetrize``): energies by CHGNet
    before and after, not relaxed, and shares without symmetry (P1 at 0.01 A).
steps: prediction by one sample, for all --step-list and --samplers.
"""

from __future__ import annotations

from bench import Benchmark, kept, main, thinned

# isort: split
import hashlib
import time
from functools import cached_property
from pathlib import Path

import numpy as np
from ase import Atoms
from crystal_judges import CHGNET, Chgnet, ChgnetFit, Regressor, relaxed, rock_salts, stability
from crystal_paper_report import draw, tables

from ase_diffusion import CrystalDiffusion, metrics
from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.diffusion import SAMPLERS
from ase_diffusion.generators.tasks import FromNoise
from ase_diffusion.representations.cells import space_group_of
from ase_diffusion.representations.reduction import symmetrize
from ase_diffusion.utils.rng import spawn_seeds
from ase_diffusion.weights.zoo import list_models

PARTS = ('prediction', 'target', 'free', 'denovo', 'sun', 'symmetry', 'steps')
ENERGIES = ('heat_of_formation', 'formation_energy', 'energy_per_atom')  # properties of the paper
JUDGES = {'formation_energy': 'chgnet', 'energy_per_atom': 'chgnet-fit'}  # else regressor
CUTOFFS = {'perov_5': 'perovskite', 'carbon_24': 'carbon'}  # of the coverage; else mp


def generate(gen: CrystalDiffusion, seeds: list, conditions: dict, *task) -> list[Atoms]:
    """Return one structure for each seed as generated; nothing is rejected."""
    return gen.candidates(seeds, *task, **conditions)


def in_batches(gen: CrystalDiffusion, path: Path, total: int, seed: int, conditions: dict) -> list[Atoms]:
    """Return structures of the model, the invalid ones included."""
    seeds = spawn_seeds(seed, total)
    return kept(path, total, lambda begin, end: generate(gen, seeds[begin:end], conditions))


def predict(gen: CrystalDiffusion, path: Path, targets: list, samples: int, seed: int) -> list[list[Atoms]]:
    """Return `samples` structures for each composition, many compositions in a batch; nothing is rejected."""
    seeds = spawn_seeds(seed, samples * len(targets))
    given = dict(zip(seeds, targets * samples, strict=True))
    gen.numbers, gen.stoich = [], None  # the species are known, those of the template
    task = FromNoise(given.get, gen.steps)
    images = kept(path, len(seeds), lambda begin, end: generate(gen, seeds[begin:end], {}, task))
    return [images[k :: len(targets)] for k in range(len(targets))]


def matched(candidates: list[list], targets: list, processes: int) -> dict:
    """Return match rates and mean RMSE of the first and of the best candidate, and the rate of the best of 1, 2, ... of them."""
    samples = len(candidates[0])
    flat = [[atoms] for each in candidates for atoms in each]
    rms = metrics.match_rate(flat, [t for t in targets for _ in range(samples)], processes=processes)['rms']
    rms = np.array([np.inf if x is None else x for x in rms]).reshape(len(targets), samples)
    best = np.minimum.accumulate(rms, axis=1)
    rates = np.isfinite(best).mean(0)

    def mean(values):
        return round(float(values[np.isfinite(values)].mean()), 4) if np.isfinite(values).any() else None

    return {
        'match_rate': round(float(rates[0]), 4),
        'rmse': mean(best[:, 0]),
        'match_rate_best': round(float(rates[-1]), 4),
        'rmse_best': mean(best[:, -1]),
        'match_rate_mean': round(float(np.isfinite(rms).mean()), 4),
        'curve': rates.round(4).tolist(),
        'samples': samples,
        'n': len(targets),
    }


def lowest(candidates: list[list]) -> list[list]:
    """Return of each list the one of lowest energy by CHGNet, as it is: what ``CrystalDiffusion(best_of=...)`` returns."""
    energies = Chgnet()([atoms for each in candidates for atoms in each]).reshape(len(candidates), -1)
    best = np.where(np.isnan(energies), np.inf, energies).argmin(axis=1)
    return [[each[k]] for each, k in zip(candidates, best, strict=True)]


def prototypes(targets: list, training: list, volumes: dict, rng) -> tuple[list, list]:
    """Return for each target a training crystal of as many atoms with its species at random, and atoms at random in a cube."""
    sites, noise = [], []
    for target in targets:
        like = [atoms for atoms in training if len(atoms) == len(target)]
        volume = sum(volumes.get(z, 15.0) for z in target.numbers)
        noise.append(Atoms(target.numbers, scaled_positions=rng.random((len(target), 3)), cell=[volume ** (1 / 3)] * 3, pbc=True))
        atoms = like[rng.integers(len(like))].copy() if like else noise[-1].copy()
        atoms.numbers = rng.permutation(target.numbers)
        atoms.set_cell(atoms.cell[:] * (volume / atoms.cell.volume) ** (1 / 3), scale_atoms=True)
        sites.append(atoms)
    return sites, noise


def atomic_volumes(images: list) -> dict[int, float]:
    """Fit one volume to each element, A^3, by least squares over the training crystals."""
    elements = sorted({z for atoms in images for z in atoms.numbers.tolist()})
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in images], float)
    solution, *_ = np.linalg.lstsq(counts, np.array([atoms.cell.volume for atoms in images]), rcond=None)
    return dict(zip(elements, np.clip(solution, 3.0, None), strict=True))


class CrystalPaper(Benchmark):
    """An item is a part with a generator and a seed, for one model on one data set."""

    name = 'crystal_paper'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('model', nargs='?')
        parser.add_argument('data', nargs='?')
        parser.add_argument('--parts', nargs='+', default=['prediction', 'target', 'free'], choices=PARTS)
        parser.add_argument('-n', type=int, default=200)
        parser.add_argument('--seeds', type=int, nargs='+', default=[0])
        parser.add_argument('--steps', type=int)
        parser.add_argument('--sampler', choices=list(SAMPLERS))
        parser.add_argument('--samples', type=int, default=1, help='structures for each composition of the part prediction')
        parser.add_argument('--select', action='store_true', help='the lowest of the --samples by CHGNet as well, not relaxed')
        parser.add_argument('--step-list', type=int, nargs='+', default=[20, 50, 100, 250, 1000])
        parser.add_argument('--samplers', nargs='+', choices=list(SAMPLERS), help='of the part steps; default: that of the model')
        parser.add_argument('--property')
        parser.add_argument('--guidance-scale', type=float, default=1.0)
        parser.add_argument('--judge', choices=['regressor', 'chgnet', 'chgnet-fit'])
        parser.add_argument('--judge-steps', type=int, default=4000)
        parser.add_argument('--judge-test', type=int, default=500, help='test crystals for the error of the judge')
        parser.add_argument('--coverage-n', type=int, default=300, help='crystals of either side for the coverage, which is slow')
        parser.add_argument('--processes', type=int, default=1)

    def load(self) -> None:
        """Read the data and the model."""
        args = self.args
        if self.quick:
            args.parts, args.n, args.steps, args.model = ['prediction'], 2, 2, args.model or 'mp-le20-prediction'
        elif not args.data:
            raise SystemExit('name the model and the data; --quick needs neither')
        self.data = Path(args.data or 'rock salts')
        self.all, self.sets = read_crystals(args.data) if args.data else rock_salts(), {'train': [], 'val': [], 'test': []}
        for atoms in self.all:
            self.sets[atoms.info['key_value_pairs']['split']].append(atoms)
        self.known = self.sets['train'] + self.sets['val']  # what a model may have seen
        gen = self.generator()
        state = hashlib.sha256()
        for tensor in gen.network.state_dict().values():
            state.update(tensor.cpu().contiguous().numpy().tobytes())
        self.digest = state.hexdigest()[:10]
        shipped = args.model in [entry['name'] for entry in list_models('crystal')]
        path = Path(args.model)
        self.label = args.model if shipped else f'{path.resolve().parent.name}/{path.stem} step {gen.header.get("steps")}'
        self.property = args.property or next((name for name in ENERGIES if name in gen.header['conditions']), None)
        if self.property is None and {'target', 'free'} & set(args.parts):
            raise SystemExit(f'{args.model} knows the conditions {sorted(gen.header["conditions"])}: choose one with --property.')
        self.elements = gen.representation.elements

    def items(self):
        self.load()
        args = self.args
        for seed in args.seeds:
            for part in args.parts:
                cases = [(None, None)]
                if part == 'steps':
                    cases = [(sampler, steps) for sampler in args.samplers or [args.sampler] for steps in args.step_list]
                for case in cases:
                    gen = self.generator(*case)
                    yield self.key(part, gen, seed), (part, gen, seed)

    def key(self, part: str, gen: CrystalDiffusion, seed: int) -> str:
        """Return the name of a record."""
        args = self.args
        key = f'{self.data.stem}: {self.label}: {part}, {gen.sampler} {gen.steps}, n {args.n}, seed {seed}'
        if part == 'prediction':
            key += f', samples {args.samples}'
        if part in ('target', 'free', 'denovo', 'sun', 'symmetry') and args.guidance_scale != 1:
            key += f', guidance {args.guidance_scale:g}'
        return key

    def done(self, key: str) -> bool:
        return self.results.get(key, {}).get('weights') == self.digest

    def report(self, results: dict) -> None:
        records = list(results.values())
        for data in sorted({r['data'] for r in records}):
            for title, text in tables(data, [r for r in records if r['data'] == data]):
                print(f'\n{data}: {title}\n{text}')
        print(
            '\nPublished numbers are of the full Perov-5, Carbon-24 and MP-20, by judges of their own; the data here are parts '
            'of the first two, and mp_le20 is not MP-20.'
        )
        draw(records).savefig(self.picture, dpi=130)

    def generator(self, sampler=None, steps=None) -> CrystalDiffusion:
        """Return a generator with the settings of the command line, or with others."""
        args = self.args
        any_formula = self.all[0].get_chemical_formula() if {*args.parts} <= {'prediction', 'steps'} else None
        return CrystalDiffusion(
            any_formula,
            model=args.model,
            steps=steps or args.steps,
            sampler=sampler or args.sampler,
            symmetrize=None,
            rng=0,
            logfile=None,
        )

    def path(self, what: str, gen: CrystalDiffusion, seed: int) -> Path:
        """Return where structures are kept."""
        scale = '' if self.args.guidance_scale == 1 else f'-guidance-{self.args.guidance_scale:g}'
        return self.store / self.digest / f'{self.data.stem}-{what}-{gen.sampler}-{gen.steps}{scale}-seed-{seed}.traj'

    def sample(self, gen: CrystalDiffusion, seed: int, **conditions) -> list[Atoms]:
        """Return n structures, with the same noise with and without conditions."""
        what = '-'.join(f'{k}-{v:g}' for k, v in conditions.items()) or 'free'
        conditions['guidance_scale'] = self.args.guidance_scale
        return in_batches(gen, self.path(what, gen, seed), self.args.n, seed, conditions)

    @cached_property
    def judge(self):
        """The judge, and its mean absolute error on (a part of) the test split."""
        kind = self.args.judge or JUDGES.get(self.property, 'regressor')
        some = thinned(self.sets['test'], self.args.judge_test)
        if kind == 'chgnet':
            judge = Chgnet()
        elif kind == 'chgnet-fit':
            judge = ChgnetFit(self.sets['train'], self.property)
        else:
            path = self.store / f'judge-{self.data.stem}-{self.property}-{self.args.judge_steps}.safetensors'
            judge = Regressor(self.sets['train'], self.elements, self.property, self.args.judge_steps, path)
        values, truth = judge(some), metrics.property_values(some, self.property)
        train = metrics.property_values(self.sets['train'], self.property)
        about = {
            'judge': judge.kind,
            'judge_mae': round(float(np.nanmean(np.abs(values - truth))), 4),
            'judge_n': len(some),
            'test set by the judge': rates(values, train),
        }
        return judge, about

    def run(self, item) -> dict:
        part, gen, seed = item
        begun, cpu = time.perf_counter(), time.process_time()
        record = {
            'data': self.data.stem,
            'weights': self.digest,
            'model': self.label,
            'sampler': gen.sampler,
            'sampling_steps': gen.steps,
            'seed': seed,
            'part': part,
        }
        record |= getattr(self, part)(gen, seed)
        return {**record, 'seconds': round(time.perf_counter() - begun), 'cpu_seconds': round(time.process_time() - cpu)}

    def prediction(self, gen: CrystalDiffusion, seed: int, samples=None, baselines=True) -> dict:
        """Predict structures of held-out compositions."""
        samples, processes, rng = samples or self.args.samples, self.args.processes, np.random.default_rng(seed)
        targets = [self.sets['test'][k] for k in rng.permutation(len(self.sets['test']))[: self.args.n]]
        images = predict(gen, self.path(f'predict-{len(targets)}', gen, seed), targets, samples, seed)
        record = {'result': matched(images, targets, processes)}
        if self.args.select:
            record['selected'] = matched(lowest(images), targets, processes)
        record['valid'] = round(float(metrics.structural_validity([a for each in images for a in each]).mean()), 4)
        if baselines:
            volumes = atomic_volumes(self.sets['train'])
            pairs = [prototypes(targets, self.sets['train'], volumes, rng) for _ in range(samples)]
            for name, sets in zip(('prototype', 'random'), zip(*pairs, strict=True), strict=True):
                record[name] = matched(list(zip(*sets, strict=True)), targets, processes)
        return record

    def steps(self, gen: CrystalDiffusion, seed: int) -> dict:
        """Predict by one sample, without baselines."""
        return self.prediction(gen, seed, samples=1, baselines=False)

    def target(self, gen: CrystalDiffusion, seed: int, conditioned=True) -> dict:
        """Ask for the lowest property of the training split."""
        train = metrics.property_values(self.sets['train'], self.property)
        condition = {self.property: float(np.nanmin(train))} if conditioned else {}
        images = self.sample(gen, seed, **condition)
        judge, about = self.judge
        record = rates(judge(images), train)
        valid = round(float(metrics.structural_validity(images).mean()), 4)
        return {
            'property': self.property,
            'condition': condition.get(self.property),
            'result': record,
            'n': len(images),
            'guidance_scale': self.args.guidance_scale,
            'valid': valid,
            **about,
        }

    def free(self, gen: CrystalDiffusion, seed: int) -> dict:
        """Ask for nothing."""
        return self.target(gen, seed, conditioned=False)

    def denovo(self, gen: CrystalDiffusion, seed: int) -> dict:
        """Compare with the test split."""
        return {'result': self.compare(self.sample(gen, seed)), 'ceiling': self.ceiling(seed)}

    def ceiling(self, seed: int) -> dict:
        """Return what a sample of the training split of equal size reaches, without novelty."""
        return self.compare(thinned(self.sets['train'], self.args.n, seed), novelty=False)

    def compare(self, images: list[Atoms], novelty=True) -> dict:
        """Return the row of a set of crystals in the de-novo table."""
        options = {'processes': self.args.processes}
        sound, neutral = metrics.structural_validity(images), metrics.compositional_validity(images)
        is_unique = metrics.unique(images, **options)
        row = {'n': len(images), 'structural': sound.mean(), 'compositional': neutral.mean(), 'unique': is_unique.mean()}
        if novelty:
            is_novel = metrics.novel(images, self.known, **options)
            row |= {'novel': is_novel.mean(), 'unique_novel': (is_unique & is_novel).mean()}
        row |= {f'wasserstein_{k}': v for k, v in metrics.wasserstein_distances(images, self.sets['test']).items() if k != 'n'}
        if count := self.args.coverage_n:
            cutoffs = CUTOFFS.get(self.data.stem, 'mp')
            found = metrics.coverage(images[:count], self.fingerprints(count), cutoffs=cutoffs, **options)
            row |= {'cov_r': found['recall'], 'cov_p': found['precision'], 'coverage_n': min(count, len(images))}
        return {k: v if isinstance(v, int) else None if not np.isfinite(v) else round(float(v), 4) for k, v in row.items()}

    def fingerprints(self, count: int):
        """Return the fingerprints of a part of the test split, which are kept."""
        path = self.store / f'fingerprints-{self.data.stem}-{count}.npz'
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            found = metrics.crystal_fingerprints(thinned(self.sets['test'], count), processes=self.args.processes)
            np.savez(path, structure=found[0], composition=found[1])
        with np.load(path) as file:
            return file['structure'], file['composition']

    def sun(self, gen: CrystalDiffusion, seed: int) -> dict:
        """Relax with CHGNet and look at the hull."""
        if CHGNET not in self.all[0].info['key_value_pairs']:
            raise SystemExit(f'The part sun needs CHGNet energies of the competing phases: {self.data.name} has no {CHGNET}.')
        path, test = self.path('free', gen, seed), thinned(self.sets['test'], self.args.n, seed)
        sets = {
            'result': (self.sample(gen, seed), path.with_name(f'relaxed-{path.name}')),
            'ceiling': (test, self.store / f'relaxed-{self.data.stem}-test-seed-{seed}.traj'),
        }
        return {
            name: stability(relaxed(images, where), images, self.known, self.all, self.args.processes)
            for name, (images, where) in sets.items()
        }

    def symmetry(self, gen: CrystalDiffusion, seed: int) -> dict:
        """Average crystals over their symmetry."""
        images = self.sample(gen, seed)
        images = [atoms for atoms, sound in zip(images, metrics.structural_validity(images), strict=True) if sound]
        answer, before = {'n': len(images)}, metrics.chgnet_energies(images)
        for tolerance in (None, 0.1, 0.2):
            these = images if tolerance is None else [symmetrize(atoms, tolerance) for atoms in images]
            change = metrics.chgnet_energies(these) - before
            answer[f'within {tolerance} A' if tolerance else 'as generated'] = {
                'p1': round(float(np.mean([space_group_of(atoms, 0.01) == 1 for atoms in these])), 4),
                'energy_change_mean': round(float(np.nanmean(change)), 5),
                'energy_change_most': round(float(np.nanmax(change)), 5),
                'energy_change_least': round(float(np.nanmin(change)), 5),
            }
        return {'result': answer}


def rates(values, reference) -> dict:
    """Return the success rates, rounded."""
    found = metrics.success_rates(values, reference)
    found['thresholds'] = {k: round(v, 4) for k, v in found['thresholds'].items()}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}


if __name__ == '__main__':
    main(CrystalPaper)
