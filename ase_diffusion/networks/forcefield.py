"""A force field: PaiNN with an energy head, forces as the negative gradient."""

from __future__ import annotations

from typing import Any, Literal

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from .neighbors import build_graph
from .painn import MAX_Z, PaiNN


class ForceField(nn.Module):
    """Predict energies (eV) and forces (eV/A).

    Parameters
    ----------
    features, blocks, cutoff, n_basis, basis, descriptors : see :class:`PaiNN`.
    passive_edges : bool
        False: edges between frozen atoms are left out; the frozen atoms enter the energy by a constant per atom and by
        what the mobile atoms do to them. True: the whole graph, frozen or not.
    core : float
        Strength k of a repulsion k (d0 / d - 1)^2 per pair closer than d0 = 0.7 times the sum of the covalent radii, eV. No
        data has such pairs; without it a network may invent minima there.
    """

    def __init__(
        self,
        features: int = 64,
        blocks: int = 3,
        cutoff: float = 6.0,
        n_basis: int = 20,
        basis: Literal['bessel', 'gaussian'] = 'gaussian',
        passive_edges: bool = False,
        core: float = 40.0,
        descriptors: int = 0,
    ) -> None:
        super().__init__()
        self.settings = dict(
            features=features,
            blocks=blocks,
            cutoff=cutoff,
            n_basis=n_basis,
            basis=basis,
            passive_edges=passive_edges,
            core=core,
            **({'descriptors': descriptors} if descriptors else {}),
        )
        self.passive_edges, self.core_strength = passive_edges, float(core)
        radii = torch.as_tensor(covalent_radii[:MAX_Z], dtype=torch.float32)
        self.register_buffer('radii', radii, persistent=False)  # A
        roles = 0 if passive_edges else 2
        self.representation = PaiNN(features, blocks, cutoff, n_basis, basis, roles=roles, descriptors=descriptors)
        self.energy_net = nn.Sequential(nn.Linear(features, features // 2), nn.SiLU(), nn.Linear(features // 2, 1))
        self.register_buffer('references', torch.zeros(2, MAX_Z, dtype=torch.float64))  # (role, Z), eV
        self.register_buffer('scale', torch.ones(()))

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return interaction energies (B,) in eV, without :meth:`reference_energy`, and forces (n_mobile, 3) in eV/A.

        ``batch`` is encoded by :class:`ase_diffusion.representations.Slab`. Forces are derivatives of the edge vectors,
        so that the whole evaluation is one differentiable (and compile-able) function of the graph.
        """
        extras, x = batch.extras, batch.fields['positions']
        positions = torch.cat([x, extras['frozen'].to(x.dtype)])
        graph = build_graph(
            positions,
            extras['rows'],
            extras['cell'].to(x.dtype),
            extras['pbc'],
            self.representation.cutoff,
            len(x),
            passive_edges=self.passive_edges,
        )
        energy, slope = self.core(
            graph.vectors, extras['numbers'], extras['roles'], extras['rows'], graph.receivers, graph.senders, batch.size
        )
        forces = torch.zeros_like(positions).index_add(0, graph.receivers, slope)
        return energy, forces.index_add(0, graph.senders, -slope)[: len(x)]

    def core(
        self, vectors: Tensor, numbers: Tensor, roles: Tensor, rows: Tensor, receivers: Tensor, senders: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """Return energies (B,) and their derivatives by the edge vectors (E, 3); this is the part to compile."""

        def total(vectors):
            energy = self.energies(vectors, numbers, roles, rows, receivers, senders, size)
            return energy.sum(), energy

        slope, energy = torch.func.grad(total, has_aux=True)(vectors)
        return energy, slope

    def energies(
        self, vectors: Tensor, numbers: Tensor, roles: Tensor, rows: Tensor, receivers: Tensor, senders: Tensor, size: int
    ) -> Tensor:
        """Return interaction energies (B,) of a ready graph, eV."""
        s, _ = self.representation(numbers, receivers, senders, vectors, roles=roles)
        per_atom = self.energy_net(s).squeeze(-1) * self.scale  # (n,)
        if self.core_strength:
            d = torch.sqrt(vectors.square().sum(-1) + 1e-6)  # (E,)
            d0 = 0.7 * (self.radii[numbers[receivers]] + self.radii[numbers[senders]]).to(d.dtype)
            pair = 0.5 * self.core_strength * (d0 / d - 1).clamp(min=0).square()  # every pair has two edges
            per_atom = per_atom.index_add(0, receivers, pair)
        return torch.zeros(size, dtype=s.dtype, device=s.device).index_add(0, rows, per_atom)

    def reference_energy(self, batch: Any) -> Tensor:
        """Return the sum of constants per atom, (B,) float64, eV."""
        extras = batch.extras
        each = self.references[extras['roles'], extras['numbers']]
        return torch.zeros(batch.size, dtype=torch.float64, device=each.device).index_add(0, extras['rows'], each)
