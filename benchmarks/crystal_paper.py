"""Crystals beside Takahara et al. (arXiv 2406.09263, table 1) and beside trivial baselines, on the splits that the data carries.

    python benchmarks/crystal_paper.py MODEL DATA [--parts prediction target free] [-n 200] [--seeds 0] [--steps 1000]

MODEL is a shipped name or a .safetensors file, DATA a set with splits (npz, folder of CSV). Every part is one entry of
results/crystal_paper.json, named by model, part, steps and seed; what is there is not computed again.

prediction: one sample for each of n held-out compositions (test split); match rate and RMSE by pymatgen's StructureMatcher
    (stol 0.5, angle_tol 10, ltol 0.3). Baselines on the same compositions: a random training crystal of as many atoms with the
    species put on its sites at random and the volume of the mean atomic volumes; and atoms at random in a cube of that volume.
target: n samples with the condition at the minimum of the training split; shares at or below its 5, 10, 15 % percentiles (SR5,
    SR10, SR15) as judged by a regressor trained here on the training split, whose test error is printed beside. Plain shares.
free: n samples without condition; the same shares, for comparison.
All parts report structural validity of everything generated, the rejected included.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from ase_diffusion import CrystalDiffusion
from ase_diffusion.data.crystals import read_crystals
from ase_diffusion.diffusion import SAMPLERS, NoisePerStructure
from ase_diffusion.networks import CrystalTransformer
from ase_diffusion.training.crystal_dataset import CrystalData, Crystals
from ase_diffusion.utils.rng import spawn_seeds

RESULTS = Path(__file__).parent / 'results' / 'crystal_paper.json'
PAPER = {'heat_of_formation': {'CDVAE': [0.52, 0.65, 0.79], 'SyMat': [0.73, 0.80, 0.87], 'CDI': [0.93, 0.97, 0.98],
                               'CDS': [0.97, 0.99, 1.00]},
         'energy_per_atom': {'CDVAE': [0.0, 0.06, 0.06], 'SyMat': [0.06, 0.13, 0.13], 'CDI': [0.43, 0.56, 0.57],
                             'CDS': [0.56, 0.64, 0.64]}}  # fmt: skip


def match(a: Atoms, b: Atoms):
    """Return the normalised RMSE of two crystals, or None where they do not match."""
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    found = matcher.get_rms_dist(AseAtomsAdaptor.get_structure(a), AseAtomsAdaptor.get_structure(b))
    return None if found is None else float(found[0])


def matched(images, targets) -> dict:
    """Return match rate and mean RMSE; an image that is no structure at all does not match."""
    found = []
    for atoms, target in zip(images, targets, strict=True):
        try:
            found.append(match(atoms, target))
        except Exception:  # noqa: BLE001  flat cells and the like
            found.append(None)
    rms = [x for x in found if x is not None]
    rmse = round(float(np.mean(rms)), 4) if rms else None
    return {'match_rate': round(len(rms) / len(found), 4), 'rmse': rmse, 'n': len(found)}


def prototypes(targets, training, volumes, rng) -> tuple[list, list]:
    """Return for each target a training crystal with its species at random, and atoms at random."""
    sites, noise = [], []
    for target in targets:
        like = [atoms for atoms in training if len(atoms) == len(target)]
        volume = sum(volumes[z] for z in target.numbers)
        atoms = like[rng.integers(len(like))].copy()
        atoms.numbers = rng.permutation(target.numbers)
        atoms.set_cell(atoms.cell[:] * (volume / atoms.cell.volume) ** (1 / 3), scale_atoms=True)
        sites.append(atoms)
        noise.append(Atoms(target.numbers, scaled_positions=rng.random((len(target), 3)), cell=[volume ** (1 / 3)] * 3, pbc=True))
    return sites, noise


def atomic_volumes(images) -> dict[int, float]:
    """Fit one volume to each element, A^3, by least squares over the training crystals."""
    elements = sorted({z for atoms in images for z in atoms.numbers.tolist()})
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in images], float)
    solution, *_ = np.linalg.lstsq(counts, np.array([atoms.cell.volume for atoms in images]), rcond=None)
    return dict(zip(elements, np.clip(solution, 3.0, None), strict=True))


def predict(gen: CrystalDiffusion, targets, seed: int, size: int = 64) -> list[Atoms]:
    """Return one structure for each composition, many compositions in a batch; nothing is rejected."""
    seeds, images = spawn_seeds(seed, len(targets)), []
    options = {'corrector': gen.corrector} if gen.sampler == 'predictor_corrector' else {}
    for k in range(0, len(targets), size):
        batch = gen.representation.encode(targets[k : k + size])
        batch.extras['known'] = batch.extras['counts'] > 0
        noise = NoisePerStructure(seeds[k : k + size])
        mask = {'species': torch.ones(len(batch.rows['species']), dtype=torch.bool)}
        final = SAMPLERS[gen.sampler](gen.network, gen.process, batch, steps=gen.steps, generator=noise, mask=mask, **options)
        images += [gen._finished(atoms) for atoms in gen.representation.decode(final)]
    return images


class Judge:
    """Regress a property of clean crystals with the same Transformer, its output read from the lattice head."""

    def __init__(self, training: Crystals, elements, name: str, steps: int, seed: int = 0):
        from ase_diffusion.representations import Crystal

        torch.manual_seed(seed)
        values = training.properties[name]
        self.shift, self.scale, self.representation = float(np.nanmean(values)), float(np.nanstd(values)), Crystal(elements)
        self.network = CrystalTransformer(len(elements), 96, 3, coupled=True, length=4.0)
        optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
        data = CrystalData(training, self.representation, [name], batch_size=64, dropout=0.0, seed=seed)
        for k in range(steps):
            batch = data.draw(k)
            target = (batch.conditions[name] - self.shift) / self.scale
            loss = torch.nn.functional.smooth_l1_loss(self._raw(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def _raw(self, batch):
        out = {}
        hook = self.network.head_lattice.register_forward_hook(lambda module, inputs, output: out.update(phi=output))
        self.network(batch, torch.zeros(batch.size), {})
        hook.remove()
        return out['phi'][:, 0]

    @torch.no_grad()
    def __call__(self, images) -> np.ndarray:
        return np.concatenate([self._raw(self.representation.encode(images[k : k + 256])).numpy()
                               for k in range(0, len(images), 256)]) * self.scale + self.shift  # fmt: skip


def judged(values, thresholds) -> list[float]:
    """Return the shares at or below the thresholds."""
    return [round(float(np.mean(values <= limit)), 4) for limit in thresholds]


def run_part(part: str, args, gen: CrystalDiffusion, seed: int, sets: dict) -> dict:
    begun, cpu = time.perf_counter(), time.process_time()
    if part == 'prediction':
        rng = np.random.default_rng(seed)
        targets = [sets['test'][k] for k in rng.permutation(len(sets['test']))[: args.n]]
        images = predict(gen, targets, seed)
        sites, noise = prototypes(targets, sets['train'], atomic_volumes(sets['train']), rng)
        record = {'model': matched(images, targets), 'prototype': matched(sites, targets), 'random': matched(noise, targets)}
        record['valid'] = round(float(np.mean([gen._reason_to_reject(atoms) is None for atoms in images])), 4)
    else:
        name = args.property or next(iter(gen.header['conditions']))
        values = np.array([a.info['key_value_pairs'].get(name, np.nan) for a in sets['train']])
        thresholds = np.nanpercentile(values, [5, 10, 15])
        condition = {name: float(np.nanmin(values))} if part == 'target' else {}
        images = gen.sample(args.n, guidance_scale=args.guidance_scale, **condition)
        judge = Judge(Crystals.from_atoms(sets['train']), gen.representation.elements, name, args.judge_steps)
        truth = np.array([a.info['key_value_pairs'].get(name, np.nan) for a in sets['test']])
        record = {'property': name, 'condition': condition.get(name), 'thresholds': thresholds.round(4).tolist(),
                  'SR5, SR10, SR15': judged(judge(images), thresholds), 'n': args.n, 'guidance_scale': args.guidance_scale,
                  'test set by the judge': judged(judge(sets['test']), thresholds),
                  'judge_test_mae': round(float(np.nanmean(np.abs(judge(sets['test']) - truth))), 4),
                  'paper': PAPER.get(name),
                  'valid': round(gen.statistics['accepted'] / gen.statistics['generated'], 4)}  # fmt: skip
    return {**record, 'seconds': round(time.perf_counter() - begun), 'cpu_seconds': round(time.process_time() - cpu)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model')
    parser.add_argument('data')
    parser.add_argument('--parts', nargs='+', default=['prediction', 'target', 'free'], choices=['prediction', 'target', 'free'])
    parser.add_argument('-n', type=int, default=200)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--steps', type=int)
    parser.add_argument('--sampler')
    parser.add_argument('--property')
    parser.add_argument('--guidance-scale', type=float, default=1.0)
    parser.add_argument('--judge-steps', type=int, default=4000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sets = {split: read_crystals(args.data, split) for split in ('train', 'test')}
    for seed in args.seeds:
        for part in args.parts:
            gen = CrystalDiffusion(model=args.model, steps=args.steps, sampler=args.sampler, rng=seed, logfile=None)
            name = f'{Path(args.model).stem} step {gen.header["steps"]}: {part}, {gen.sampler} {gen.steps}, n {args.n}'
            name += f', seed {seed}'
            if args.guidance_scale != 1:
                name += f', guidance {args.guidance_scale:g}'
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            if name not in results:
                results[name] = {'data': Path(args.data).name, **run_part(part, args, gen, seed, sets)}
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(results, indent=1) + '\n')
            print(name, json.dumps(results[name]), flush=True)


if __name__ == '__main__':
    main()
