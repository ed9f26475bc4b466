"""The denoiser of overlayers: PaiNN on mobile and frozen atoms, one predicted noise vector per mobile atom."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .conditions import ConditionEmbedding, LevelEmbedding
from .neighbors import build_graph
from .painn import GatedVector, PaiNN
from .precision import full_precision


class OverlayerDenoiser(nn.Module):
    """Predict the noise of the mobile atoms from noisy positions, noise level and conditions.

    The batch carries (see :class:`ase_diffusion.representations.Slab`) ``fields['positions']`` (n, 3) of mobile atoms
    and ``extras``: ``numbers`` (n + m,) of mobile and frozen atoms, ``frozen`` (m, 3), ``rows`` (n + m,), ``cell``
    (B, 3, 3), ``pbc``. Edges between frozen atoms are left out: they carry nothing that changes along a trajectory. In
    the last block only mobile atoms are updated.

    Parameters
    ----------
    features, blocks, cutoff, n_basis, descriptors : see :class:`PaiNN`.
    conditions : dict, optional
        Conditions that the model knows, see :class:`ConditionEmbedding`.
    """

    def __init__(
        self,
        features: int = 64,
        blocks: int = 4,
        cutoff: float = 6.0,
        n_basis: int = 20,
        conditions: dict | None = None,
        descriptors: int = 0,
    ) -> None:
        super().__init__()
        self.settings = dict(
            features=features,
            blocks=blocks,
            cutoff=cutoff,
            n_basis=n_basis,
            conditions=dict(conditions or {}),
            **({'descriptors': descriptors} if descriptors else {}),
        )
        options = dict(modulation=features, roles=2, normalize=True, descriptors=descriptors)
        self.representation = PaiNN(features, blocks, cutoff, n_basis, **options)
        self.level = LevelEmbedding(features)
        self.conditions = ConditionEmbedding(conditions or {}, features)
        self.head_film = nn.Linear(features, 2 * features)
        self.head = GatedVector(features)
        self._graph = (None, None)

    def forward(self, batch: Any, c_noise: Tensor, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{'positions': (n, 3)}``, the predicted noise in units of sigma."""
        extras, x = batch.extras, batch.fields['positions']
        graph = self._neighbors(x, extras)
        c = self.level(c_noise.to(x.dtype))
        c = nn.functional.silu(c + self.conditions(conditions, c))  # (B, F)
        return {
            'positions': self.core(
                extras['numbers'],
                extras['roles'],
                extras['rows'],
                graph.receivers,
                graph.senders,
                graph.vectors,
                c,
                x.shape[0],
                graph.n_active_edges,
            )
        }

    def core(
        self,
        numbers: Tensor,
        roles: Tensor,
        rows: Tensor,
        receivers: Tensor,
        senders: Tensor,
        vectors: Tensor,
        c: Tensor,
        n: int,
        n_edges: int,
    ) -> Tensor:
        """Evaluate the network on a ready graph; this is the part to compile."""
        s, v = self.representation(numbers, receivers, senders, vectors, rows, c, roles, n, n_edges)
        scale, shift = self.head_film(c).index_select(0, rows[:n]).chunk(2, -1)
        return self.head(s * (1 + scale) + shift, v)

    def _neighbors(self, x: Tensor, extras: dict):
        of = (x, *(extras[name] for name in ('frozen', 'rows', 'cell')))
        if self._graph[0] is None or any(a is not b for a, b in zip(of, self._graph[0], strict=True)):
            # guidance evaluates the same state twice
            positions = torch.cat([x, extras['frozen'].to(x.dtype)])
            graph = full_precision(build_graph)(
                positions,
                extras['rows'],
                extras['cell'].to(x.dtype),
                extras['pbc'],
                self.representation.cutoff,
                len(x),
                passive_edges=False,
            )
            self._graph = (of, graph)
        return self._graph[1]
