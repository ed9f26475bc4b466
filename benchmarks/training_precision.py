"""Training in float32 and with bfloat16 matrix products: loss curves with equal seeds, and CPU seconds per step.

Both networks start from the same weights and see the same batches and noise, in turn, in one process on one thread, so that a
busy machine slows both alike; seconds are CPU time. Crystals: ``run DATA`` (npz); overlayers: ``run``, of the shipped data.
"""

import copy
import time

import numpy as np
import torch
from bench import Benchmark, main

WINDOW = 20  # steps over which a loss is averaged


def crystal(data, batch_size: int):
    """Return network, objective, batches and validation batches of the crystal model."""
    from ase_diffusion.data.crystals import read_crystals
    from ase_diffusion.networks import CrystalTransformer
    from ase_diffusion.representations.crystal import LogLatticeCrystal
    from ase_diffusion.training.crystal import DENSITY
    from ase_diffusion.training.crystal_data import CrystalData, Crystals
    from ase_diffusion.training.data import fixed_batches
    from ase_diffusion.training.objectives import DenoisingLoss

    images = read_crystals(data)
    chosen = np.random.default_rng(0).permutation(len(images))[:2000]
    crystals = Crystals.from_atoms([images[k] for k in chosen]).taking([])
    training, held = crystals.split(seed=0)
    representation = LogLatticeCrystal.of(crystals.elements(), crystals.cells, crystals.counts)
    points = representation.table.shape[1]
    torch.manual_seed(0)
    network = CrystalTransformer(
        len(representation.elements),
        coupled=True,
        points=points,
        cell_mean=representation.mean,
        cell_std=representation.std,
        distances=16,
    )
    source = CrystalData(training, representation, batch_size=batch_size)
    validation = fixed_batches(CrystalData(held, representation), limit=64, size=64)
    return network, DenoisingLoss(representation.process(), {'species': 0.33}, DENSITY), source, validation


def surface(data, batch_size: int):
    """Return network, objective, batches and validation batches of the overlayer model."""
    from ase_diffusion.data import read_frames
    from ase_diffusion.networks import OverlayerDenoiser
    from ase_diffusion.representations import Slab
    from ase_diffusion.training import OverlayerData, Overlayers
    from ase_diffusion.training.data import fixed_batches
    from ase_diffusion.training.objectives import DenoisingLoss
    from ase_diffusion.training.recipe import condition_forms, condition_scales

    overlayers = Overlayers.from_atoms(read_frames(data or 'ag-o-rss'))
    representation = Slab(overlayers.window())
    training, held = overlayers.split(seed=0)
    forms = condition_forms(training.conditions)
    torch.manual_seed(0)
    network = OverlayerDenoiser(conditions=condition_scales(forms, training.conditions))
    source = OverlayerData(training, representation, batch_size=batch_size)
    validation = fixed_batches(OverlayerData(held, representation), limit=64, size=32)
    return network, DenoisingLoss(representation.process()), source, validation


def compare(network, objective, source, validation, steps: int, every: int, lr: float) -> dict:
    """Train twins in turn; return losses of every step, validation losses and CPU seconds per step."""
    from ase_diffusion.training.trainer import EMA, Mixed, evaluate

    twins, out = {}, {}
    for name in ('float32', 'bf16-mixed'):
        twin = copy.deepcopy(network)
        optimizer = torch.optim.AdamW(twin.parameters(), lr, weight_decay=1e-4)
        twins[name] = twin, twin if name == 'float32' else Mixed(twin), optimizer, EMA(twin, 0.98)
        out[name] = {'loss': [], 'seconds': [], 'val_step': [], 'val_loss': []}
    for step in range(steps):
        batch = source.draw(step)
        for name, (twin, call, optimizer, average) in twins.items():
            begun = time.process_time()
            for group in optimizer.param_groups:
                group['lr'] = lr * min(1.0, (step + 1) / 50)
            loss = objective(call, batch, torch.Generator().manual_seed(step))['loss']
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
            out[name]['seconds'].append(round(time.process_time() - begun, 4))
            average.update(twin)
            out[name]['loss'].append(round(float(loss.detach()), 6))
            if (step + 1) % every == 0:
                out[name]['val_step'].append(step + 1)
                out[name]['val_loss'].append(round(evaluate(average.network, objective, validation)['loss'], 6))
    return out


def smooth(losses: list[float]) -> np.ndarray:
    """Return running means over WINDOW steps."""
    return np.convolve(losses, np.ones(min(WINDOW, len(losses))) / min(WINDOW, len(losses)), 'valid')


def table(results: dict) -> str:
    """Return a line per method: CPU seconds per step, gain, last losses, largest difference of the curves."""
    lines = [
        '| method | float32 s/step | bf16 s/step | faster | val float32 | val bf16 | largest difference |',
        '|---|---|---|---|---|---|---|',
    ]
    for method, found in results.items():
        full, half = found['float32'], found['bf16-mixed']
        a, b = (float(np.mean(each['seconds'][1:])) for each in (full, half))
        val = [each['val_loss'][-1] for each in (full, half)]
        apart = float(np.abs(smooth(full['loss']) - smooth(half['loss'])).max())
        lines.append(f'| {method} | {a:.3f} | {b:.3f} | {a / b:.2f} | {val[0]:.4f} | {val[1]:.4f} | {apart:.4f} |')
    return '\n'.join(lines)


class TrainingPrecision(Benchmark):
    """One item per method; both precisions in turn."""

    name = 'training_precision'

    @staticmethod
    def options(parser):
        parser.add_argument('data', nargs='?', help='crystals (.npz); without it overlayers, the shipped set')
        parser.add_argument('--batch-size', type=int, default=48)
        parser.add_argument('--steps', type=int, default=160)
        parser.add_argument('--lr', type=float, default=1e-3)

    def settings(self) -> dict:
        """What all methods share."""
        return {'batch_size': self.args.batch_size, 'steps': self.steps, 'lr': self.args.lr, 'seed': 0}

    @property
    def steps(self) -> int:
        """Training steps."""
        return 4 if self.quick else self.args.steps

    def items(self):
        yield ('crystal', crystal) if self.args.data else ('surface', surface)

    def run(self, item) -> dict:
        """Train twins of one method."""
        from ase_diffusion.utils.memory import keep_freed_memory

        keep_freed_memory()
        torch.set_flush_denormal(True)
        every = max(1, self.steps // 4)
        return compare(*item(self.args.data, self.args.batch_size), self.steps, every, self.args.lr)

    def report(self, results: dict) -> None:
        """Print the table and draw the curves."""
        import matplotlib.pyplot as plt

        print(table(results))
        figure, axes = plt.subplots(1, len(results), figsize=(4.5 * len(results), 3.4), squeeze=False)
        for ax, (method, found) in zip(axes[0], results.items(), strict=True):
            for name, color in (('float32', 'tab:blue'), ('bf16-mixed', 'tab:orange')):
                curve = smooth(found[name]['loss'])
                ax.plot(np.arange(len(curve)) + WINDOW, curve, color=color, lw=1.2, label=f'{name}, training')
                steps, losses = found[name]['val_step'], found[name]['val_loss']
                ax.plot(steps, losses, 'o--', ms=3, color=color, label=f'{name}, validation (EMA)')
            ax.set(xlabel='step', ylabel='loss', title=method)
            ax.legend(frameon=False, fontsize=7)
        figure.tight_layout()
        figure.savefig(self.picture, dpi=130)


if __name__ == '__main__':
    main(TrainingPrecision)
