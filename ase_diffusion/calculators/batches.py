"""Energies and forces of many structures in one call of a network: force fields of this package, and SevenNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..networks.neighbors import neighbor_pairs
from ..representations.slab import Slab, check_slab
from .elements import check_elements
from .forcefield import check_known, split_forces

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from ..networks.forcefield import ForceField
    from ..representations.slab import SlabTemplate


class OverlayerBatches:
    """Batches of overlayers for a force field of this package; forces on frozen atoms are zero.

    Parameters
    ----------
    network : ForceField
    header : dict
        Of its checkpoint.
    """

    def __init__(self, network: ForceField, header: dict) -> None:
        self.network, self.header = network, header

    def check_known(self, atoms: Atoms | SlabTemplate) -> None:
        """Raise a ValueError for a structure that the force field does not know."""
        check_known(atoms, self.header, self.network.passive_edges)

    def check(self, atoms: Atoms) -> None:
        """Raise a ValueError for a structure that cannot be part of a batch."""
        self.check_known(atoms)
        check_slab(atoms)

    def evaluate(self, images: Sequence[Atoms]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return energies (B,) in eV and, for each structure, raw forces (n, 3) in eV/A."""
        batch = Slab(dtype=self.network.scale.dtype).encode(images).to(self.network.scale.device)
        with torch.no_grad():
            energy, mobile = self.network(batch)
            energy = (energy.double() + self.network.reference_energy(batch)).cpu().numpy()
        return energy, split_forces(images, mobile)


class SevenNetBatches:
    """Batches of any structures for SevenNet; the numbers are those of its calculator.

    For a GPU: on a CPU nothing is gained.

    Parameters
    ----------
    calculator : SevenNetCalculator
        Its network is used, set to batches for the time of a call.
    """

    def __init__(self, calculator: Calculator) -> None:
        self.calculator, self.network, self.device = calculator, calculator.model, calculator.device

    def check_known(self, atoms: Atoms | SlabTemplate) -> None:
        """Raise a ValueError for elements that SevenNet does not know."""
        check_elements(self.calculator, getattr(atoms, 'atoms', atoms).numbers, 'a relaxation')

    def check(self, atoms: Atoms) -> None:
        """Raise a ValueError for a structure that cannot be part of a batch."""
        self.check_known(atoms)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def evaluate(self, images: Sequence[Atoms]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return energies (B,) in eV and, for each structure, raw forces (n, 3) in eV/A."""
        energies, forces = np.empty(len(images)), [None] * len(images)
        groups: dict = {}
        for k, atoms in enumerate(images):
            groups.setdefault(tuple(atoms.pbc.tolist()), []).append(k)
        for pbc, members in groups.items():
            some = [images[k] for k in members]
            out = self._run(self._graph(some, pbc))
            energies[members] = out['inferred_total_energy'].detach().double().cpu().numpy().reshape(-1)
            parts = out['inferred_force'].detach().double().cpu().numpy()
            for k, part in zip(members, np.split(parts, np.cumsum([len(atoms) for atoms in some])[:-1]), strict=True):
                forces[k] = part
        return energies, forces

    def _run(self, graph):
        self.network.set_is_batch_data(True)
        try:
            return self.network(graph)
        finally:
            self.network.set_is_batch_data(False)

    def _graph(self, images, pbc):
        """Return the graph of a batch as the network takes it; lengths in float32, as in its calculator."""
        from sevenn.atom_graph_data import AtomGraphData

        counts = torch.tensor([len(atoms) for atoms in images], device=self.device)
        rows = torch.repeat_interleave(torch.arange(len(images), device=self.device), counts)
        positions = torch.as_tensor(np.concatenate([atoms.positions for atoms in images]), device=self.device)
        cells = torch.as_tensor(np.stack([atoms.cell.complete()[:] for atoms in images]), device=self.device)
        source, target, shift = neighbor_pairs(positions, rows, cells, pbc, self.calculator.cutoff)
        numbers = torch.as_tensor(np.concatenate([atoms.numbers for atoms in images]), dtype=torch.long, device=self.device)
        graph = AtomGraphData(
            x=numbers,
            edge_index=torch.stack([source, target]),
            pos=positions.float(),
            atomic_numbers=numbers,
            edge_vec=(positions[target] - positions[source] + shift).float(),
            cell_volume=torch.linalg.det(cells).abs().float(),
            num_atoms=counts,
            batch=rows,
        )
        if self.calculator.modal:
            graph['data_modality'] = [self.calculator.modal] * len(images)
        return graph
