"""One trainer for every denoiser and force field, on Lightning: EMA, clipping, resume, best and last checkpoint, CSV log."""

from __future__ import annotations

import copy
import logging
import math
import signal
import time
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import MissingDependency
from ..utils.checks import check_integer
from ..utils.interrupts import noted_interrupts
from ..utils.memory import keep_freed_memory
from .run_folder import RunFolder, check_run

if TYPE_CHECKING:
    from ..diffusion import Batch
    from .data import EndlessBatches
    from .objectives import Objective

log = logging.getLogger(__name__)
MIXED = {'bf16-mixed': torch.bfloat16}  # precisions in which only the network computes with few digits


class EMA:
    """Exponential moving average of the parameters, warmed up as min(decay, (1 + k) / (10 + k))."""

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Move towards the parameters of ``network``, and to its device; buffers are copied."""
        device = next(network.parameters()).device
        if next(self.network.parameters()).device != device:  # Lightning moves what it knows after this was made
            self.network.to(device)
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for a, b in zip(self.network.buffers(), network.buffers(), strict=True):
            a.copy_(b)


class Mixed:
    """Call a network under autocast: its matrix products and convolutions in ``dtype``, what it returns in float32.

    Noise, losses, optimizer and EMA stay outside, in float32; networks keep their geometry in float32 themselves, see
    :func:`ase_diffusion.networks.precision.full_precision`.
    """

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        self.network, self.dtype = network, dtype

    def __call__(self, *args: Any) -> Any:
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, self.dtype):
            out = self.network(*args)
        return _single(out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


def _single(value):
    """Return tensors of a nested value in float32."""
    if isinstance(value, dict):
        return {key: _single(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_single(item) for item in value)
    return value.float() if torch.is_tensor(value) and value.dtype in (torch.bfloat16, torch.float16) else value


def check_lightning() -> None:
    """Raise a MissingDependency if Lightning is not installed; nothing is imported."""
    if find_spec('lightning') is None:
        raise MissingDependency('lightning', 'train')


def _lightning():
    try:
        import lightning
    except ImportError as error:
        raise MissingDependency('lightning', 'train') from error
    return lightning


def learning_rate_factor(step: int, steps: int, warmup: int, share_of_time: float = 0.0) -> float:
    """Return the factor of the learning rate: linear warmup, then a cosine from 1 to 0.01.

    Parameters
    ----------
    share_of_time : float
        Of the time limit; the cosine follows the steps or the time, whichever is further.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, max((step - warmup) / max(1, steps - warmup), share_of_time))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _make_task(
    lightning, network, objective, *, lr, steps, minutes, warmup, ema, compile_network, seed, weight_decay, run, mixed
):
    begun = time.monotonic()

    class Task(lightning.LightningModule):
        """The training step that Lightning drives."""

        def __init__(self):
            super().__init__()
            self.network = network
            self.average = EMA(network, ema)
            if compile_network:
                network.core = torch.compile(network.core, dynamic=True)

        def training_step(self, batch, index):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + self.global_step)
            losses = objective(self.network if mixed is None else Mixed(self.network, mixed), batch, generator)
            for name, value in losses.items():
                self.log(name, value.detach(), prog_bar=True, batch_size=batch.size)
            if not torch.isfinite(losses['loss']):
                log.warning('step %d: the loss is not finite; this batch is skipped', self.global_step)
                return None
            return losses['loss']

        def on_save_checkpoint(self, checkpoint):
            checkpoint['average'] = {'state': self.average.network.state_dict(), 'steps': self.average.steps}
            checkpoint['run'] = run

        def on_load_checkpoint(self, checkpoint):
            self.average.network.load_state_dict(checkpoint['average']['state'])
            self.average.steps = checkpoint['average']['steps']

        def transfer_batch_to_device(self, batch, device, index):
            return batch.to(device)

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.network.parameters(), lr=lr, weight_decay=weight_decay)

            def factor(step):
                share = 0.0 if minutes is None else (time.monotonic() - begun) / (60 * minutes)
                return learning_rate_factor(step, steps, warmup, share)

            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
            return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}

    return Task()


def evaluate(network: torch.nn.Module, objective: Objective, batches: Sequence[Batch], seed: int = 0) -> dict[str, float]:
    """Return the objective's numbers averaged over ``batches``, with fixed noise, on the device of the network."""
    generator, device = torch.Generator().manual_seed(seed), next(network.parameters()).device
    totals: dict[str, float] = {}
    with torch.no_grad():
        for batch in batches:
            for name, value in objective(network, batch.to(device), generator).items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / len(batches)
    return totals


def train(
    network: torch.nn.Module,
    objective: Objective,
    data: EndlessBatches,
    out: str | Path,
    *,
    steps: int,
    header: dict,
    validation: Sequence[Batch] = (),
    lr: float = 1e-3,
    ema: float = 0.999,
    warmup: int = 200,
    clip: float = 1.0,
    weight_decay: float = 1e-4,
    seed: int = 0,
    every: int = 1000,
    checkpoint_seconds: float = 60,
    compile_network: bool = False,
    precision: str = '32-true',
    workers: int = 0,
    devices: int = 1,
    accelerator: str = 'auto',
    progress: bool = True,
    minutes: float | None = None,
) -> Path:
    """Train ``network`` and return the path of the best checkpoint.

    Parameters
    ----------
    network : one of ``ase_diffusion.networks.NETWORKS``.
    objective : callable ``(network, batch, generator) -> dict`` with the key ``loss``.
    data : iterable data set of batches with an attribute ``start`` (first batch), see
        :class:`ase_diffusion.training.data.EndlessBatches`.
    out : folder for ``best.safetensors``, ``last.safetensors``, ``log.csv`` and ``resume.ckpt``; an interrupted run
        with the same ``out`` goes on from where it was, a killed one from the last minute.
    steps : int
    header : dict stored in the checkpoints.
    validation : list of batches for the choice of the best checkpoint (EMA weights).
    every : int
        Steps between validations.
    precision : str
        'bf16-mixed': matrix products and convolutions of the network in bfloat16, everything else in float32, see
        :class:`Mixed`; others as Lightning names them.
    workers : int
        Processes that draw the batches, the same ones in the same order as without; 0: the one that trains. On a GPU a small
        network is faster than one process that draws.
    minutes : float, optional
        Stop after this time even if ``steps`` are not reached; the learning rate then falls with the time.

    Raises
    ------
    MissingDependency
        Lightning is not installed.
    ValueError
        The folder belongs to another training or is damaged, the loss is not finite, or a number has no meaning.
    KeyboardInterrupt
        After Ctrl-C, when the step is done and everything is kept; a second Ctrl-C stops at once.
    """
    check_run(steps, minutes, lr, every=every, seed=seed, warmup=warmup, ema=ema)
    if check_integer('workers', workers, 0) and devices > 1:
        raise ValueError(f'workers draw batches for one device; with devices={devices} each process draws its own: leave one out')
    lightning = _lightning()
    folder = RunFolder(out, network, header)
    keep_freed_memory()
    if folder.resume.exists():
        data.start = folder.begun(steps)
        if data.start >= steps and folder.best.exists():
            return folder.best
    task = _make_task(
        lightning,
        network,
        objective,
        lr=lr,
        steps=steps,
        minutes=minutes,
        warmup=warmup,
        ema=ema,
        compile_network=compile_network,
        seed=seed,
        weight_decay=weight_decay,
        run=folder.identity,
        mixed=MIXED.get(precision),
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers, worker_init_fn=_begin_to_draw)
    torch.set_flush_denormal(True)  # gradients fade through denormal numbers, which are slow on CPUs
    try:
        with _quiet('lightning.pytorch.utilities.rank_zero', 'lightning.pytorch.trainer.connectors'), noted_interrupts() as came:
            keeper = _make_callback(lightning, objective, validation, folder, every, checkpoint_seconds, came)
            trainer = lightning.Trainer(
                max_steps=steps,
                max_time=None if minutes is None else timedelta(minutes=minutes),
                accelerator=accelerator,
                devices=devices,
                precision='32-true' if precision in MIXED else precision,
                gradient_clip_val=clip,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=progress,
                enable_model_summary=False,
                callbacks=[keeper],
                log_every_n_steps=50,
                use_distributed_sampler=False,
            )
            _fit(trainer, task, loader, folder.resume.absolute(), keeper)
            if came or keeper.interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        log.warning('interrupted; the same call goes on with what is in %s', folder.path)
        raise
    finally:
        torch.set_flush_denormal(False)
        network.__dict__.pop('core', None)  # the compiled one
    return folder.best


def _begin_to_draw(number: int) -> None:
    """Prepare a process that draws batches: one thread, and Ctrl-C is for the process that trains."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _fit(trainer, task, loader, resume, keeper) -> None:
    """Train and keep the result; KeyboardInterrupt stays what it is, though Lightning makes it a SystemExit."""
    try:
        trainer.fit(task, loader, ckpt_path=str(resume) if resume.exists() else None, weights_only=True)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    keeper.finish(trainer, task)


@contextmanager
def _quiet(*names):
    """Let these loggers say warnings only, and put their levels back."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _mean(losses: list[float]) -> float:
    """Return the mean of the batches that were not skipped (NaN); NaN where all were, 0 where there were none."""
    finite = [x for x in losses if math.isfinite(x)]
    return round(sum(finite) / len(finite), 6) if finite else math.nan if losses else 0.0


def finite_score(row: dict, lr: float, out: Path) -> float:
    """Return the loss by which the best is chosen; ValueError where it is not finite."""
    score = row.get('val_loss', row['train_loss'])
    if not (math.isfinite(score) and math.isfinite(row['train_loss'])):
        raise ValueError(
            f'a training needs a loss that is finite; at step {row["step"]} it is not, with lr={lr:g}. Begin anew '
            f'with a smaller lr, in another folder than {out}; if it does not help, look for outliers in the data'
        )
    return score


def _make_callback(lightning, objective, validation, folder: RunFolder, every, seconds, came):
    class CheckpointCallback(lightning.Callback):
        """Validate, log, and keep checkpoints."""

        def __init__(self):
            self.saved, self.losses = time.monotonic(), []
            self.begun, self.validated, self.interrupted = time.monotonic(), None, False

        def state_dict(self):
            return {'best': folder.best_score}

        def load_state_dict(self, state):
            folder.best_score = state['best']

        def on_train_batch_end(self, trainer, task, outputs, batch, index):
            task.average.update(task.network)  # here, since hooks of the task itself come after checkpoints are kept
            self.losses.append(float(outputs['loss'].detach()) if outputs else math.nan)  # NaN: skipped
            if trainer.global_step % every == 0:
                self.validate(trainer, task)
            if time.monotonic() - self.saved > seconds:
                self.keep(trainer)
            if trainer.strategy.reduce_boolean_decision(bool(came), all=False):
                self.interrupted = trainer.should_stop = True

        def on_exception(self, trainer, task, exception):
            # where it does not come from a signal that we hold, and not for the second Ctrl-C, which is in a hurry
            if isinstance(exception, KeyboardInterrupt) and not came and trainer.global_step and trainer.world_size == 1:
                self.finish(trainer, task)

        def keep(self, trainer):
            partial = folder.resume.with_suffix('.partial').absolute()  # Lightning takes ~ and : for something else
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                partial.replace(folder.resume)
            self.saved = time.monotonic()

        def validate(self, trainer, task):
            if not trainer.is_global_zero or self.validated == trainer.global_step:
                return
            self.validated = trainer.global_step
            row = {
                'step': trainer.global_step,
                'seconds': round(time.monotonic() - self.begun, 1),
                'train_loss': _mean(self.losses),
            }
            self.losses = []
            row |= {f'val_{k}': round(v, 6) for k, v in evaluate(task.average.network, objective, validation).items()}
            folder.append(row)
            folder.keep(task.average.network, row, finite_score(row, trainer.optimizers[0].defaults['lr'], folder.path))

        def finish(self, trainer, task):
            self.validate(trainer, task)
            self.keep(trainer)

    return CheckpointCallback()
