"""Training without data: sample, label with a calculator, weigh by Boltzmann, train, again (GO-Diff, arXiv 2510.13448)."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from ...calculators.names import CalculatorLike, calculator_name
from ...data.starts import check_count, random_start
from ...errors import GenerationFailed
from ...relax.relaxer import Relaxer
from ...relax.settings import Settings
from ...representations.slab import surface_height
from ...training.recipe import check_options, check_settings
from ...training.surface import train_surface
from ...training.surface_data import Overlayers
from ...utils.atoms import energy_of, parse_formula
from ...utils.provenance import note
from ...weights.zoo import load_networks

FRAME_STRIDE = 5  # of a relaxation, every fifth frame and the last one go into the buffer
FEWEST = 10  # structures among which the weight is shared, as 1 / sum w^2; the temperature is raised until they are
DRAWS = 400  # structures drawn from the buffer for the training of one round
NEW = ('features', 'blocks', 'cutoff')  # options of a network before it is trained
RANDOM_HEIGHT = (1.0, 4.5)  # A above the topmost slab atom; the window where none is given
HEADER = ' round    T/eV   calls     best/eV   median/eV  random  buffer  time/s'


@dataclass
class SelfTrainingSchedule:
    """The schedule of a training without data; every field is an argument of ``SurfaceDiffusion.fit_with_calculator``."""

    rounds: int = 10
    samples: int = 20
    relax_steps: int = 30
    fmax: float = 0.05
    temperature: tuple[float, float] = (0.2, 0.02)
    explore: float = 0.2
    buffer: int = 1000
    steps: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('rounds', 'samples', 'relax_steps', 'buffer', 'steps'):
            check_count(name, 'a number', getattr(self, name))
        try:
            high, low = (float(value) for value in self.temperature)
        except (TypeError, ValueError):
            high = low = np.nan
        if not (np.isfinite([high, low]).all() and high >= low > 0):
            raise ValueError(
                'temperature is (first, last) in eV per mobile atom, first >= last > 0, such as (0.2, 0.02); '
                f'got {self.temperature!r}'
            )
        if not 0 <= self.explore <= 1:
            raise ValueError(f'explore is the share of random starts in a round, 0 to 1; got {self.explore!r}')
        self.temperature = (high, low)

    def temperature_at(self, number: int) -> float:
        """Return the temperature of a round, eV per mobile atom: geometric from the first to the last."""
        high, low = self.temperature
        return high * (low / high) ** (number / max(1, self.rounds - 1))


class SelfTraining:
    """Carry out one training without data; see ``SurfaceDiffusion.fit_with_calculator``.

    Every structure is a file as soon as it is labelled, every round a checkpoint; what is there is not computed again, and
    round k is seeded from (seed, k) alone. Calculators with files get a folder for each structure in the folder ``calculations``,
    ``vasp-0027`` for number 7 of round 1 with 20 in each.
    """

    def __init__(self, gen: Any, calculator: CalculatorLike, out: str | Path, plan: SelfTrainingSchedule, options: dict) -> None:
        check_options(options, train_surface, but=('steps', 'seed', 'network'))
        self.gen, self.calculator, self.out, self.plan, self.options = gen, calculator, Path(out), plan, options
        self.slab = gen.template[: -len(parse_formula(gen.stoich))]
        how = Settings(fmax=plan.fmax, steps=plan.relax_steps)
        self.relaxer = Relaxer(calculator, how, directory=self.out / 'calculations')
        self.calls, self.frames, self.found = 0, [], []
        if gen.networks:
            check_settings(gen.network, {name: self.options[name] for name in NEW if name in self.options})
        self._check_folder()

    def _check_folder(self) -> None:
        """Write down what the folder is for; raise where it was for something else."""
        mine = {
            **asdict(self.plan),
            'calculator': calculator_name(self.calculator),
            'stoich': self.gen.stoich,
            'positions': np.round(self.slab.positions, 4).tolist(),
            'options': {k: str(v) for k, v in self.options.items()},
        }
        mine, path = json.loads(json.dumps(mine)), self.out / 'settings.json'
        if path.exists():
            theirs = json.loads(path.read_text())
            differ = [
                key if key == 'positions' else f'{key} {theirs.get(key)!r}, now {mine[key]!r}'
                for key in mine
                if mine[key] != theirs.get(key)
            ]
            if differ:
                raise ValueError(
                    f'a folder belongs to one training; {self.out} was begun with {"; ".join(differ)}; take the '
                    'same values or another folder'
                )
        self.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(mine))

    def run(self) -> None:
        """Do all rounds that are not done."""
        log = self.gen.log
        log.write(
            f'fit_with_calculator: {calculator_name(self.calculator)}, {self.plan.rounds} rounds of {self.plan.samples} '
            f'structures, {self.out}'
        )
        log.write(HEADER)
        for number in range(self.plan.rounds):
            begun = time.perf_counter()
            ended, random = self._label(number)
            temperature, items = self._draw(number)
            self._train(number, items)
            energies = [energy_of(atoms) for atoms in ended]
            best = energy_of(self.found[0]) if self.found else np.nan
            log.write(
                f'{number:5d} {temperature:7.3f} {self.calls:7d} {best:11.4f} '
                f'{np.median(energies) if energies else np.nan:11.4f} {random:7d} {len(self.frames):7d} '
                f'{time.perf_counter() - begun:7.1f}'
            )

    def _label(self, number: int) -> tuple[list[Atoms], int]:
        """Propose structures, relax each a little and put them into the buffer; return their ends and how many were random."""
        folder = self.out / f'round_{number:03d}'
        folder.mkdir(exist_ok=True)
        paths = [folder / f'{k:04d}.traj' for k in range(self.plan.samples)]
        if all(path.exists() for path in paths):
            starts = [None] * len(paths)
        else:
            starts = self._propose(number)
        ended, random = [], 0
        for k, (path, start) in enumerate(zip(paths, starts, strict=True)):
            if not path.exists():
                frames = self._relaxed(start, number * len(paths) + k)
                partial = path.with_suffix('.partial')
                write(partial, frames, format='traj')
                partial.replace(path)
            frames = read(path, ':')
            pairs = frames[-1].info['key_value_pairs']
            random += bool(pairs['random'])
            self.calls += pairs.get('relax_steps', len(frames)) + 1  # of one that failed: what is known
            self.calls += pairs.get('guidance_calls', 0)
            if not pairs.get('relax_failed'):
                ended.append(frames[-1])
                self.frames += [*frames[:-1:FRAME_STRIDE], frames[-1]]
        self.found = sorted([*self.found, *ended], key=energy_of)
        return ended, random

    def _relaxed(self, start: Atoms, number: int) -> list[Atoms]:
        """Return the frames of a relaxation, the result last; `number` counts over all rounds."""
        self.relaxer.check([start])
        history = []
        [(_, done)] = self.relaxer.iterate([start], [number], frames=history)
        note(done, relax_calculator=calculator_name(self.calculator))
        return [_bare(atoms, start) for atoms in [*history[0][:-1], done]]

    def _propose(self, number: int) -> list[Atoms]:
        """Return the starts of a round: samples of the model so far, and random ones."""
        plan, gen = self.plan, self.gen
        rng = np.random.default_rng((plan.seed, number))
        count = plan.samples - round(plan.explore * plan.samples) if number else 0
        images = []
        if count:
            before, (gen.rng, gen.relax, gen.log.logfile) = (gen.rng, gen.relax, gen.log.logfile), (rng, None, None)
            try:
                images = gen.sample(count)
            except GenerationFailed as failure:
                images = failure.images
            finally:
                gen.rng, gen.relax, gen.log.logfile = before
        height = gen._height or RANDOM_HEIGHT
        # random_start counts from the topmost atom, the window from the topmost fixed one
        shift = surface_height(gen.template) - self.slab.positions[:, 2].max()
        numbers = gen.template.numbers[len(self.slab) :]
        for atoms in images:
            note(atoms, random=False)
        while len(images) < plan.samples:
            start = random_start(self.slab, numbers, rng, height=(height[0] + shift, height[1] + shift))
            note(start, random=True)
            images.append(start)
        return images

    def _draw(self, number: int) -> tuple[float, Overlayers]:
        """Return the temperature that was used (eV) and training items, drawn from the buffer by Boltzmann's weights."""
        if not self.frames:
            raise GenerationFailed(f'the calculator failed for every structure so far; see info["data"] in {self.out}')
        self.frames.sort(key=energy_of)
        del self.frames[self.plan.buffer :]
        data = Overlayers.from_atoms(self.gen.held(self.frames))
        energies = np.array([item.energy for item in data.items])
        temperature = self.plan.temperature_at(number) * int((~self.gen.overlayer.frozen).sum())
        weights = boltzmann(energies, temperature)
        while 1 / np.square(weights).sum() < min(FEWEST, len(weights)) * 0.999 and temperature < 1e3:
            temperature *= 1.1
            weights = boltzmann(energies, temperature)
        for item in data.items:
            item.run = 0  # nothing is held out: the best structure is there once
        chosen = np.random.default_rng((self.plan.seed, number, 1)).choice(len(weights), DRAWS, p=weights)
        data.items = [data.items[k] for k in chosen]
        return temperature, data

    def _train(self, number: int, data: Overlayers) -> None:
        """Go on with the training of the model on new data, unless that is done."""
        gen, path = self.gen, self.out / f'model_{number:03d}'
        best = path / 'last.safetensors'
        if not (path / 'done').exists():
            options = {'progress': False, 'warmup': min(50, self.plan.steps // 4), 'every': self.plan.steps, **self.options}
            if not gen.networks:
                options['height'] = gen._height or data.window(0.5, self.options.get('spacing'))
            else:
                options = {name: value for name, value in options.items() if name not in NEW}
                options |= {'height': gen.representation.height, 'spacing': gen.representation.spacing}
                options |= {'network': gen.network.train().requires_grad_(True)}
            train_surface(data, path, steps=self.plan.steps, seed=self.plan.seed + number, **options)
            (path / 'done').touch()
        gen.model = str(best)
        gen._use(*load_networks(best, gen.device))


def boltzmann(energies: np.ndarray, temperature: float) -> np.ndarray:
    """Return exp(-E / T) / sum for energies and a temperature in eV."""
    weights = np.exp(-(np.asarray(energies) - np.min(energies)) / temperature)
    return weights / weights.sum()


def _bare(atoms: Atoms, start: Atoms) -> Atoms:
    """Return a frame without the settings of the generator, which are the same for all."""
    atoms.info = {'key_value_pairs': {**atoms.info.get('key_value_pairs', {}), 'random': start.info['key_value_pairs']['random']}}
    return atoms
