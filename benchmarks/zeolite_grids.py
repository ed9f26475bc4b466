"""Grids that were sampled elsewhere, such as on a GPU, for zeolite_paper.py: one value per orbit, 8 bits.

Draws (npz): rows, and per draw draw_row, draw_edges (A), draw_shape, draw_silicon, draw_which, the set of operations, of which
op_counts, rotations and translations (24ths) are those of all sets. Samples (npz): vox_sample_index, the draw; vox_sample_begin,
its number of values; vox_Si and vox_O in 1/100 and 1/24; vox_sample_scalars, void fraction, heat (kJ/mol) and Henry coefficient
of the energies; base_gan_* and base_unet_*: grids without symmetry in the cells of the lattice network. The guidance of draw k of
a row with a target is GUIDANCE[k % 3].
"""

from __future__ import annotations

import numpy as np

GUIDANCE = (1.5, 2.0, 1.0)
LEVELS = {'Si': 100.0, 'O': 24.0}
BASELINES = {'WGAN-GP': 'gan', 'U-Net': 'unet'}


class SampledGrids:
    """The grids of two files, row by row.

    Parameters
    ----------
    samples, draws : path
    """

    def __init__(self, samples: str, draws: str) -> None:
        with np.load(samples) as file:
            self.samples = {name: file[name] for name in file.files}
        with np.load(draws) as file:
            self.draws = {name: file[name] for name in file.files}
        index = self.samples['vox_sample_index']
        ends = np.cumsum(self.samples['vox_sample_begin'])
        row = self.draws['draw_row']
        self.parts = dict(
            zip(index.tolist(), zip(ends - self.samples['vox_sample_begin'], ends, range(len(index)), strict=True), strict=True)
        )
        self.members = {name: np.flatnonzero(row == k) for k, name in enumerate(self.draws['rows'].tolist())}

    def of_row(self, name: str, guidance: float | None = None) -> list:
        """Return functions that make the grids of a row; of one guidance."""
        if name in BASELINES:
            count = len(self.samples.get(f'base_{BASELINES[name]}_shapes', ()))
            return [lambda k=k: self._baseline(BASELINES[name], k) for k in range(count)]
        mine = self.members.get({'network': 'default'}.get(name, name), np.empty(0, int)).tolist()
        kept = [i for k, i in enumerate(mine) if guidance is None or GUIDANCE[k % 3] == guidance]
        return [lambda i=i: self._symmetric(i) for i in kept if i in self.parts]

    def _symmetric(self, i: int) -> dict:
        """Return edges, shape, T number, operations, grids and void fraction of draw i."""
        from ase_diffusion.porous.grid_symmetry import orbit_representatives

        draws, which = self.draws, int(self.draws['draw_which'][i])
        end = int(draws['op_counts'][: which + 1].sum(dtype=int))
        part = slice(end - int(draws['op_counts'][which]), end)
        operations = draws['rotations'][part].astype(int), draws['translations'][part] / 24
        shape = tuple(draws['draw_shape'][i].astype(int).tolist())
        first = orbit_representatives(*operations, shape).numpy()
        label = np.unique(first, return_inverse=True)[1]
        begin, end, place = self.parts[i]
        grids = {name: (self.samples[f'vox_{name}'][begin:end] / q)[label].reshape(shape) for name, q in LEVELS.items()}
        found = {'edges': draws['draw_edges'][i], 'shape': shape, 'silicon': int(draws['draw_silicon'][i])}
        found |= {'operations': operations if len(operations[0]) > 1 else None}
        return found | grids | {'void_fraction': float(self.samples['vox_sample_scalars'][place, 0])}

    def _baseline(self, kind: str, k: int) -> dict:
        shapes = self.samples[f'base_{kind}_shapes'].astype(int)
        begin = int(shapes[:k].prod(1).sum())
        part = slice(begin, begin + int(shapes[k].prod()))
        grids = {name: (self.samples[f'base_{kind}_{name}'][part] / q).reshape(tuple(shapes[k])) for name, q in LEVELS.items()}
        edges = self.samples[f'base_{kind}_edges'][k].astype(float)
        silicon = round(float(grids['Si'].sum() * edges.prod() / shapes[k].prod() / np.pi**1.5))
        found = {'edges': edges, 'shape': tuple(shapes[k].tolist()), 'silicon': silicon, 'operations': None}
        return found | grids | {'void_fraction': float(self.samples[f'base_{kind}_scalars'][k, 0])}
