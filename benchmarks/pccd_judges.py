"""Judge of gap classes and formation energies for pccd_compare.py, and retrieval of the most similar known oxide."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from ase import Atoms

WORDS = ('metal', 'semiconductor', 'insulator')


class Judge:
    """Classify gaps and regress formation energies by composition and volume: a network of three layers, trained here.

    Parameters
    ----------
    training, validation : list of Atoms
        With ``band_gap`` (eV) or ``formation_energy`` (eV/atom) in their key-value pairs; the epoch of the least loss of
        validation is kept.
    """

    def __init__(self, training: list, validation: list, epochs: int = 40, seed: int = 0):
        torch.manual_seed(seed)
        x, gaps, energies = self._data(training)
        self.mean, self.std = x.mean(0), x.std(0).clamp(min=1e-3)
        layers = [torch.nn.Linear(x.shape[1], 192), torch.nn.SiLU(), torch.nn.Dropout(0.2)]
        layers += [torch.nn.Linear(192, 192), torch.nn.SiLU(), torch.nn.Dropout(0.2), torch.nn.Linear(192, 4)]
        self.network = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3, weight_decay=1e-2)
        held, best = self._data(validation), (np.inf, None)
        for _ in range(epochs):
            self.network.train()
            for rows in torch.randperm(len(x)).split(128):
                optimizer.zero_grad()
                self._loss(x[rows], gaps[rows], energies[rows]).backward()
                optimizer.step()
            self.network.eval()
            with torch.no_grad():
                loss = float(self._loss(*held))
            if loss < best[0]:
                best = loss, {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(best[1])

    def __call__(self, images: list) -> tuple[np.ndarray, np.ndarray]:
        """Return gap classes (n,) and formation energies (n,), eV/atom."""
        with torch.no_grad():
            out = self.network((self._features(images) - self.mean) / self.std)
        return out[:, :3].argmax(1).numpy(), out[:, 3].numpy()

    def accuracy(self, images: list) -> float:
        """Return the share of the known gap classes that it gets right."""
        known = [a for a in images if 'band_gap' in a.info['key_value_pairs']]
        true = [gap_class(a.info['key_value_pairs']['band_gap']) for a in known]
        return float((self(known)[0] == true).mean())

    def error(self, images: list) -> float:
        """Return the mean absolute error of formation energies, eV/atom."""
        known = [a for a in images if 'formation_energy' in a.info['key_value_pairs']]
        true = [a.info['key_value_pairs']['formation_energy'] for a in known]
        return float(np.abs(self(known)[1] - true).mean())

    def _loss(self, x, gaps, energies):
        out = self.network((x - self.mean) / self.std)
        loss = torch.nn.functional.cross_entropy(out[:, :3], gaps, ignore_index=-1)
        known = torch.isfinite(energies)
        return loss + torch.nn.functional.smooth_l1_loss(out[known, 3], energies[known])

    def _data(self, images: list):
        pairs = [a.info['key_value_pairs'] for a in images]
        gaps = torch.tensor([gap_class(p['band_gap']) if 'band_gap' in p else -1 for p in pairs])
        return self._features(images), gaps, torch.tensor([p.get('formation_energy', np.nan) for p in pairs])

    @staticmethod
    def _features(images: list):
        from ase_diffusion.representations.descriptors import element_descriptors

        table, rows = element_descriptors(), []
        for atoms in images:
            x = table[atoms.numbers]  # (N, 56)
            rows.append([*x.mean(0), *x.std(0), *x.min(0), *x.max(0), np.log(max(atoms.cell.volume, 1e-3) / len(atoms))])
        return torch.tensor(np.array(rows), dtype=torch.float32)


def gap_class(gap: float) -> int:
    """Return 0 (metal), 1 (semiconductor, below 1.5 eV) or 2 (insulator) for a gap in eV."""
    from ase_diffusion.representations.pointcloud import band_gap_class

    return int(band_gap_class([gap])[0])


def most_similar(target: Atoms, known: list, volumes: dict) -> Atoms:
    """Return the known ternary oxide whose cations are most similar to those of a crystal, with these in their place.

    Similar: the least squared difference of element descriptors. The volume is scaled by that of the elements.
    """
    from ase_diffusion.representations.descriptors import element_descriptors

    x = element_descriptors()
    wanted, best = sorted(set(target.numbers.tolist()) - {8}), (np.inf, None)
    for atoms in known:
        for pair in permutations(sorted(set(atoms.numbers.tolist()) - {8})):
            far = sum(float(((x[a] - x[b]) ** 2).sum()) for a, b in zip(wanted, pair, strict=True))
            if far < best[0]:
                best = far, (atoms, dict(zip(pair, wanted, strict=True)))
    atoms, exchange = best[1]
    new = atoms.copy()
    new.numbers = [exchange.get(z, z) for z in atoms.numbers.tolist()]
    size = [sum(volumes.get(z, 15.0) for z in a.numbers.tolist()) for a in (new, atoms)]
    new.set_cell(new.cell[:] * (size[0] / size[1]) ** (1 / 3), scale_atoms=True)
    return Atoms(new.numbers, positions=new.positions, cell=new.cell, pbc=True)
