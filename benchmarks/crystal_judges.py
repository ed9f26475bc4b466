"""Judges of generated crystals for crystal_paper.py: a regressor trained here, CHGNet; and relaxation with CHGNet.

A judge is called with a list of Atoms and returns one property for each, nan for what is structurally invalid.
"""

from __future__ import annotations

from bench import kept, thinned

# isort: split
import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from safetensors.torch import load_file, save_file

from ase_diffusion import metrics
from ase_diffusion.metrics.hull import STABLE
from ase_diffusion.networks import CrystalTransformer
from ase_diffusion.relax import get_calculator, relax
from ase_diffusion.representations import Crystal
from ase_diffusion.training.crystal_data import CrystalData, Crystals

CHGNET = 'chgnet_energy_per_atom'  # eV/atom, as data carry it
RELAX = {'filter': 'FrechetCellFilter', 'steps': 200, 'fmax': 0.05}


def rock_salts() -> list:
    """Return a few crystals with splits, for quick runs without data."""
    images = []
    for k, (name, a) in enumerate({'NaCl': 5.64, 'MgO': 4.21, 'KCl': 6.29, 'CaO': 4.81, 'LiF': 4.03, 'NaF': 4.63}.items()):
        atoms = bulk(name, 'rocksalt', a=a)
        atoms.info['key_value_pairs'] = {'split': ('train', 'test', 'val')[k % 3], 'formation_energy': -2.0 - 0.1 * k}
        images.append(atoms)
    return images


class Regressor:
    """Regress a property of clean crystals with a small Transformer, its output read from the lattice head.

    Parameters
    ----------
    training : list of Atoms
        With the property in ``info['key_value_pairs']``.
    elements : list of int
        Atomic numbers that may occur.
    name : str
        The property.
    steps : int
        Of training, 64 crystals each.
    path : Path
        The weights are kept there, and read where they exist.
    """

    kind = 'regressor of our own'

    def __init__(self, training: list, elements, name: str, steps: int, path: Path, seed: int = 0):
        torch.manual_seed(seed)
        values = metrics.property_values(training, name)
        self.shift, self.scale, self.representation = float(np.nanmean(values)), float(np.nanstd(values)), Crystal(elements)
        self.network = CrystalTransformer(len(elements), 96, 3, coupled=True, length=4.0)
        if path.exists():
            self.network.load_state_dict(load_file(path))
        else:
            self._train(Crystals.from_atoms(training), name, steps, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(self.network.state_dict(), path)

    def _train(self, training: Crystals, name: str, steps: int, seed: int) -> None:
        optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
        data = CrystalData(training, self.representation, [name], batch_size=64, dropout=0.0, seed=seed)
        for k in range(steps):
            batch = data.draw(k)
            target = (batch.conditions[name] - self.shift) / self.scale
            known = torch.isfinite(target)
            loss = torch.nn.functional.smooth_l1_loss(self._raw(batch)[known], target[known])
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
    def __call__(self, images: list) -> np.ndarray:
        values = np.full(len(images), np.nan)
        sound = np.flatnonzero(metrics.structural_validity(images))
        for rows in np.array_split(sound, max(1, len(sound) // 128)):
            if len(rows):
                batch = self.representation.encode([images[k] for k in rows])
                values[rows] = self._raw(batch).numpy() * self.scale + self.shift
        return values


class Chgnet:
    """Formation energies by CHGNet with the fitted elemental references, eV/atom, of the crystals as they are."""

    kind = 'CHGNet, fitted elemental references, no relaxation'

    def __call__(self, images: list) -> np.ndarray:
        return metrics.formation_energies(images)


class ChgnetFit:
    """Least-squares fit of a property to the energy of CHGNet and the volume, both per atom, over training crystals as they are.

    `carbon_24` calls its enthalpy at 10 GPa (Pickard, doi 10.24435/materialscloud:2020.0026) an energy: the fitted coefficient of
    the volume is that pressure in eV/A^3, 0.062, within its error when that of the energy is held at 1.
    """

    kind = 'CHGNet energy and volume, fitted to the training split, no relaxation'

    def __init__(self, training: list, name: str, count: int = 400):
        some = thinned(training, count)
        values = metrics.property_values(some, name)
        terms = self._terms(some)
        good = np.isfinite(values) & np.isfinite(terms).all(axis=1)
        self.coefficients, *_ = np.linalg.lstsq(terms[good], values[good], rcond=None)

    @staticmethod
    def _terms(images):
        volumes = [atoms.cell.volume / len(atoms) for atoms in images]
        return np.c_[np.ones(len(images)), metrics.chgnet_energies(images), volumes]

    def __call__(self, images: list) -> np.ndarray:
        values = np.full(len(images), np.nan)
        sound = np.flatnonzero(metrics.structural_validity(images))
        if len(sound):
            values[sound] = self._terms([images[k] for k in sound]) @ self.coefficients
        return values


def relaxed(images: list, path: Path) -> list:
    """Relax positions and cells with CHGNet, each kept in a trajectory; what is structurally invalid stays as it is."""
    sound = metrics.structural_validity(images)
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it was loaded
        calculator = get_calculator('chgnet')

    def make(begin, end):
        return [relax(images[k], calculator, **RELAX) if sound[k] else images[k] for k in range(begin, end)]

    return kept(path, len(images), make, size=1)


def stability(images: list, start: list, known: list, phases: list, processes: int) -> dict:
    """Judge relaxed crystals by the hull of all phases.

    Parameters
    ----------
    images, start : list of Atoms
        After and before relaxation; without energy where it failed.
    known : list of Atoms
        What the model may have seen.
    phases : list of Atoms
        With `CHGNET` in their key-value pairs.

    Returns
    -------
    dict
        'sun' (at or below the hull), 'msun' (at most 0.1 eV/atom above), shares below edges, before and after relaxation.
    """
    hull = metrics.formation_energies(phases, metrics.property_values(phases, CHGNET))
    after = np.array([np.nan if a.calc is None else a.get_potential_energy() / len(a) for a in images])
    before = np.array([a.info.get('key_value_pairs', {}).get('energy_generated', np.nan) / len(a) for a in images])
    is_unique, is_novel = metrics.unique(images, processes=processes), metrics.novel(images, known, processes=processes)
    answer = {
        'n': len(images),
        'unique': float(is_unique.mean()),
        'novel': float(is_novel.mean()),
        'converged': float(np.mean([bool(a.info.get('key_value_pairs', {}).get('relax_converged')) for a in images])),
        'n_phases': int(np.isfinite(hull).sum()),
    }
    for name, energies, of in (('relaxed', after, images), ('as generated', before, start)):
        above = metrics.energies_above_hull(of, metrics.formation_energies(of, energies), phases, hull, processes=processes)
        stable, meta = (metrics.sun(above, is_unique, is_novel, stable=edge) for edge in (0.0, STABLE))
        answer[name] = {
            'sun': stable['sun'],
            'msun': meta['sun'],
            'shares': meta['shares'],
            'above_hull': [round(float(x), 4) for x in np.sort(above) if np.isfinite(x)],
        }
    return answer
