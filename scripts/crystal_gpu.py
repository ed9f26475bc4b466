"""Train a crystal network on one GPU for some minutes, then predict structures with it.

    python scripts/crystal_gpu.py --data train.npz --held held.npz --out runs/crystal-gpu --seconds 500

`ase-diffusion train crystal` draws batches and noise in the process that trains; on a GPU that takes longer than the network.
Here several processes draw them and the GPU only computes; the rest is the same recipe ('edm', see
:func:`ase_diffusion.training.train_crystal`), and the checkpoints are of the same format. Data: crystals packed by ``prepare``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from ase_diffusion.diffusion import SAMPLERS, NoiseStream, TimeDensity
from ase_diffusion.networks import CrystalTransformer
from ase_diffusion.representations import representation_from_dict
from ase_diffusion.representations.crystal import LogLatticeCrystal
from ase_diffusion.training.checkpoint import load_checkpoint, save_checkpoint
from ase_diffusion.training.crystal import DENSITY, SCHEMES, UNITS, _sizes
from ase_diffusion.training.crystal_data import CrystalData, Crystals
from ase_diffusion.training.recipe import condition_forms, condition_scales, header_of
from ase_diffusion.training.trainer import EMA, MIXED, learning_rate_factor


def unpack(path: Path) -> Crystals:
    """Return crystals that were packed."""
    with np.load(path) as file:
        tables = {name[2:]: file[name] for name in file if name.startswith('c_')}
        return Crystals(file['fractional'], file['numbers'].astype(int), file['cells'], file['counts'].astype(int), tables)


class Noised(IterableDataset):
    """Batches with their noise, drawn by the processes of a loader: dicts of tensors."""

    def __init__(self, source: CrystalData, process, csp: float, seed: int, every: int = 4):
        self.source, self.process, self.csp, self.seed, self.every = source, process, csp, seed, every

    def __iter__(self):
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        k, step = (0, 1) if info is None else (info.id, info.num_workers)
        while True:
            yield self.noised(self.source.draw(self.seed + k), k)
            k += step

    def noised(self, batch, k: int) -> dict:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + k)
        u = (torch.randperm(batch.size, generator=generator) + torch.rand((), generator=generator)) / batch.size
        t = DENSITY.times(u).float()
        noisy, target = self.process.add_noise(batch, t, NoiseStream(generator))
        given = torch.rand(batch.size, generator=generator) < self.csp
        rows = batch.rows['species']
        species = torch.where(given[rows, None], batch.fields['species'], noisy.fields['species'])
        width = -(-batch.extras['width'] // self.every) * self.every
        slots = batch.extras['slots']
        slots = rows * width + slots - rows * batch.extras['width']
        return {
            'fractional': noisy.fields['fractional'],
            'lattice': noisy.fields['lattice'],
            'species': species,
            'rows': rows,
            'slots': slots,
            'counts': batch.extras['counts'],
            'width': torch.tensor(width),
            'given': given,
            'c_noise': self.process.c_noise(t),
            'weight': (1.0 / batch.extras['counts'].float() / batch.size)[rows],
            **{f'target_{name}': value for name, value in target.items()},
            **{f'c_{name}': value for name, value in batch.conditions.items()},
        }


def batch_of(x: dict):
    """Return the batch that a network takes."""
    from ase_diffusion.diffusion import Batch

    size = len(x['lattice'])
    rows = {'fractional': x['rows'], 'lattice': torch.arange(size, device=x['rows'].device), 'species': x['rows']}
    extras = {'slots': x['slots'], 'counts': x['counts'], 'width': int(x['width']), 'given_species': x['given']}
    return Batch({name: x[name] for name in ('fractional', 'lattice', 'species')}, rows, size, extras=extras)


def losses_of(network, x: dict, width: int) -> dict:
    """Return the parts of the loss as means over structures."""
    batch = batch_of({**x, 'width': width})
    pred = network(batch, x['c_noise'], {name[2:]: v for name, v in x.items() if name.startswith('c_') and name != 'c_noise'})
    w = x['weight']
    entropy = torch.nn.functional.cross_entropy(pred['species'].float(), x['target_species'], reduction='none')
    return {
        'lattice': (pred['lattice'].float() - x['target_lattice']).square().mean(),
        'fractional': ((pred['fractional'].float() - x['target_fractional']).square().mean(-1) * w).sum(),
        'species': (entropy * w * ~x['given'][x['rows']]).sum(),
    }


def move(x: dict, device) -> dict:
    """Return tensors on the device; the width stays."""
    return {name: v if name == 'width' else v.to(device, non_blocking=True) for name, v in x.items()}


@torch.no_grad()
def validate(network, batches, device, autocast) -> dict:
    """Return the losses of held-out crystals with given species."""
    totals = {}
    for x in batches:
        with autocast():
            for name, value in losses_of(network, move(x, device), int(x['width'])).items():
                totals[name] = totals.get(name, 0.0) + float(value) / len(batches)
    return {'val_loss': totals['lattice'] + totals['fractional'], **{f'val_{name}': v for name, v in totals.items()}}


def predict(network, representation, process, numbers: list, samples: int, device, seconds, autocast, chunk=2048, seed=0) -> dict:
    """Return one lattice and coordinates for each composition, samples times, batches of any compositions."""
    network = network.eval()
    order = sorted(range(len(numbers)), key=lambda k: len(numbers[k]))
    cells, fractional = {}, {}
    generator = torch.Generator(device=device).manual_seed(seed)
    call = SAMPLERS['renoised_ancestral']
    begun = time.monotonic()

    def network_of(batch, c_noise, conditions):
        with autocast():
            return {name: v.float() for name, v in network(batch, c_noise.float(), conditions).items()}

    for _ in range(samples):
        if time.monotonic() - begun > seconds:
            break
        for first in range(0, len(order), chunk):
            part = order[first : first + chunk]
            counts = [len(numbers[k]) for k in part]
            flat = np.concatenate([numbers[k] for k in part])
            batch = representation.assemble(np.zeros((len(flat), 3)), flat, np.tile(np.eye(3), (len(part), 1, 1)), counts)
            batch.extras['given_species'] = torch.ones(len(part), dtype=torch.bool)
            batch = replace(batch.to(device), conditions={})
            mask = {'species': torch.ones(len(flat), dtype=torch.bool, device=device)}
            out = call(network_of, process, batch, steps=100, generator=generator, mask=mask, density=TimeDensity(0.5, 0.15, 0.9))
            got = representation.to_cells(out.fields['lattice'], out.extras['counts'])
            places = np.split(out.fields['fractional'].float().cpu().numpy() % 1.0, np.cumsum(counts)[:-1])
            for k, cell, f in zip(part, got, places, strict=True):
                cells.setdefault(k, []).append(cell)
                fractional.setdefault(k, []).append(f)
    done = min(len(v) for v in cells.values())
    print(f'{done} samples of {len(order)} compositions in {time.monotonic() - begun:.1f} s', flush=True)
    return {
        'cells': np.stack([np.stack(cells[k][:done]) for k in range(len(numbers))]).astype('f4'),  # (n, samples, 3, 3)
        'fractional': np.concatenate([np.stack(fractional[k][:done], 1) for k in range(len(numbers))]).astype('f4'),
    }


@torch.no_grad()
def judge(network, representation, process, data: Crystals, draws: int, device, autocast, chunk=4096) -> np.ndarray:
    """Return the losses of lattice and coordinates of crystals (n, draws, 2) at times spread over their density."""
    order = np.argsort(data.counts, kind='stable')
    out = np.zeros((len(data), draws, 2), np.float32)
    times = DENSITY.times((torch.arange(draws) + 0.5) / draws).float()
    stream = NoiseStream(torch.Generator(device=device).manual_seed(0))
    begun = time.monotonic()
    for part in np.split(order, range(chunk, len(order), chunk)):
        batch = data.batch(part, representation)
        batch.extras['given_species'] = torch.ones(len(part), dtype=torch.bool)
        batch = batch.to(device)
        for k, value in enumerate(times.tolist()):
            t = torch.full((len(part),), value, device=device)
            noisy, target = process.add_noise(batch, t, stream)
            noisy = noisy.with_fields(species=batch.fields['species'])
            with autocast():
                pred = network(noisy, process.c_noise(t), {})
            for j, name in enumerate(('lattice', 'fractional')):
                rows = (pred[name].float() - target[name]).square().mean(-1)
                out[part, k, j] = batch.mean_over_rows(name, rows).cpu().numpy()
    print(f'{len(data)} candidates judged in {time.monotonic() - begun:.1f} s', flush=True)
    return out


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--held', type=Path, required=True)
    parser.add_argument('--targets', type=Path, help='JSON: lists of atomic numbers, predicted at the end')
    parser.add_argument('--candidates', type=Path, help='packed crystals, judged at the end by the loss of the network')
    parser.add_argument('--draws', type=int, default=64)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seconds', type=float, default=300, help='of training, from the start of the program')
    parser.add_argument('--predict-seconds', type=float, default=60)
    parser.add_argument('--samples', type=int, default=8)
    parser.add_argument('--batch', type=int, default=512)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--ema', type=float, default=0.9995)
    parser.add_argument('--decay', type=float, default=0.01)
    parser.add_argument('--workers', type=int, default=8)
    parser.add_argument('--substitute', type=float, default=0.4)
    parser.add_argument('--csp', type=float, default=0.6)
    parser.add_argument('--settings', type=json.loads, default={})
    parser.add_argument('--compile', default='', help='mode of torch.compile; none: eager')
    parser.add_argument('--names', nargs='+', default=['e_above_hull', 'formation_energy', 'band_gap'], help='conditions')
    parser.add_argument('--init', help='checkpoint to start from')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--every', type=float, default=45, help='seconds between validations')
    args = parser.parse_args()
    begun = time.monotonic()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_flush_denormal(True)
    data, held = unpack(args.data).taking(args.names), unpack(args.held).taking(args.names)
    elements = sorted({*data.elements(), *held.elements()})
    representation = LogLatticeCrystal.of(elements, data.cells, data.counts)
    forms = condition_forms(data.conditions)
    torch.manual_seed(args.seed)
    if args.init:
        networks, old = load_checkpoint(args.init)
        network = networks['denoiser']
        representation = representation_from_dict(old['representation'])
        network = network.requires_grad_(True).train()
    else:
        settings = dict(
            features=224, blocks=8, heads=7, head_width=32, hidden=448, pair_hidden=192, pair_width=80, distances=16, coupled=True
        )
        settings |= dict(
            points=representation.table.shape[1],
            cell_mean=representation.mean,
            cell_std=representation.std,
            conditions=condition_scales(forms, data.conditions),
        )
        network = CrystalTransformer(len(elements), **{**settings, **args.settings})
    network, process = network.to(device), representation.process()
    average = EMA(network, args.ema)
    print(sum(p.numel() for p in network.parameters()) / 1e6, 'million parameters,', len(data), 'crystals', flush=True)
    header = header_of(
        'crystal',
        representation,
        process,
        units=UNITS,
        conditions=forms,
        sampling=SCHEMES['edm'],
        data=data.describe(),
        scheme='edm',
        csp_fraction=args.csp,
        sizes=_sizes(data),
        substitute=args.substitute,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=args.decay, fused=device == 'cuda')
    source = CrystalData(
        data, representation, args.names, batch_size=args.batch, dropout=0.15, seed=args.seed, substitute=args.substitute
    )
    loader = iter(
        DataLoader(
            Noised(source, process, args.csp, args.seed),
            batch_size=None,
            num_workers=args.workers,
            prefetch_factor=8 if args.workers else None,
            pin_memory=device == 'cuda' and args.workers > 0,
        )
    )
    fixed = Noised(CrystalData(held, representation, args.names, batch_size=args.batch), process, float(args.csp > 0), 77)
    parts = np.array_split(np.argsort(held.counts, kind='stable'), -(-len(held) // args.batch))
    checks = []
    for k, part in enumerate(4 * parts):
        batch = fixed.source.batch_of(part)
        if args.csp:
            batch.conditions = {name: torch.full_like(v, torch.nan) for name, v in batch.conditions.items()}
        checks.append(fixed.noised(batch, k))

    def autocast():
        return torch.autocast('cuda', MIXED['bf16-mixed']) if device == 'cuda' else nullcontext()

    if args.compile:
        network.core = torch.compile(network.core, dynamic=True, mode=None if args.compile == 'default' else args.compile)
    args.out.mkdir(parents=True, exist_ok=True)
    step, sums, last, seen, best = 0, {}, time.monotonic(), 0, math.inf
    waited = 0.0
    while (now := time.monotonic() - begun) < args.seconds:
        before = time.monotonic()
        x = next(loader)
        waited += time.monotonic() - before
        for group in optimizer.param_groups:
            group['lr'] = args.lr * learning_rate_factor(step, 10**9, 500, now / args.seconds)
        optimizer.zero_grad(set_to_none=True)
        try:
            with autocast():
                parts_of_loss = losses_of(network, move(x, device), int(x['width']))
                loss = parts_of_loss['lattice'] + parts_of_loss['fractional'] + 0.3 * parts_of_loss['species']
            loss.backward()
        except Exception as error:
            if 'core' not in network.__dict__ or step > 100:
                raise
            print('not compiled:', str(error)[:500], flush=True)
            del network.core
            continue
        if step in (0, 1, 5, 20):
            print('step', step, round(time.monotonic() - begun, 1), 's', flush=True)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network)
        step += 1
        for name, value in parts_of_loss.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        if time.monotonic() - last > args.every or step in (50, 200):
            row = {'step': step, 'seconds': round(time.monotonic() - begun, 1)}
            row |= {f'train_{name}': round(float(v) / (step - seen), 4) for name, v in sums.items()}
            row |= {k: round(v, 4) for k, v in validate(average.network, checks, device, autocast).items()}
            row['waited'] = round(waited, 1)
            print(json.dumps(row), flush=True)
            sums, seen, last = {}, step, time.monotonic()
            note = {'steps': step, 'metrics': row}
            save_checkpoint(args.out / 'last.safetensors', average.network, {**header, **note}, torch.float16)
            if row['val_loss'] < best and step > 200:
                best = row['val_loss']
                save_checkpoint(args.out / 'best.safetensors', average.network, {**header, **note}, torch.float16)
    row = {'step': step, 'seconds': round(time.monotonic() - begun, 1)}
    row |= {k: round(v, 4) for k, v in validate(average.network, checks, device, autocast).items()}
    print(json.dumps(row), flush=True)
    save_checkpoint(args.out / 'last.safetensors', average.network, {**header, 'steps': step, 'metrics': row}, torch.float16)
    del loader
    if args.candidates:
        losses = judge(average.network.eval(), representation, process, unpack(args.candidates), args.draws, device, autocast)
        np.savez_compressed(args.out / 'judged.npz', losses=losses.astype('f2'))
    if args.targets:
        targets = json.loads(args.targets.read_text())
        found = predict(average.network, representation, process, targets, args.samples, device, args.predict_seconds, autocast)
        np.savez_compressed(args.out / 'predicted.npz', **found)


if __name__ == '__main__':
    main()
