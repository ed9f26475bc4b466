"""Cells of known frameworks with space group, number of T sites and adsorption properties, to draw new cells from.

The three belong together: of random cells and compatible groups hardly any hold a good framework. The file is an npz:

    lengths (n, 3)          float32, A; cells are orthogonal
    silicon, group          (n,) T sites per cell; number of the space group
    operations (n,)         which set of operations
    counts (m,)             operations in each set
    rotations, translations (sum, 3, 3), (sum, 3): integers; translations in 24ths
    void_fraction, heat_of_adsorption, henry_coefficient    (n,) float32, of methane at 298 K; NaN where there are no pores
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name('zeolite_cells.npz')
WIDTHS = {'void_fraction': 0.02, 'heat_of_adsorption': 1.0, 'henry_coefficient': 0.3}  # the last of its logarithm
FEWEST = 20  # cells among which a draw with targets chooses
SIZE = 1.25  # cells are drawn in proportion to this power of their number of T sites: small ones hold few frameworks
CONTRADICTION = 3.0  # widths; no known framework is as near to several targets that contradict each other
IDENTITY = np.eye(3, dtype=int)[None], np.zeros((1, 3))


class ZeoliteCells:
    """A table of cells, see the head of this file.

    Parameters
    ----------
    table : dict of str to numpy.ndarray
    """

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.lengths, self.silicon, self.group = (table[name] for name in ('lengths', 'silicon', 'group'))
        self.labels = {name: table[name].astype(float) for name in WIDTHS}
        ends = np.cumsum(table['counts'])[:-1]
        sets = zip(np.split(table['rotations'], ends), np.split(table['translations'], ends), strict=True)
        self.sets = [(rotations.astype(int), steps / 24) for rotations, steps in sets]
        self.which = table['operations']

    @classmethod
    def load(cls, path: str | Path = FILE) -> ZeoliteCells:
        """Read a table."""
        with np.load(path) as file:
            return cls({name: file[name] for name in file.files})

    def __len__(self) -> int:
        return len(self.silicon)

    def operations(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rotations (G, 3, 3) and translations (G, 3), fractional."""
        return self.sets[self.which[row]]

    def weights(self, targets: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return with which probability each row is drawn for some targets, (n,); large cells more often.

        Parameters
        ----------
        targets : dict of str to float
            Of `WIDTHS`; rows near them are drawn, at least about 20.
        rows : numpy.ndarray of bool, optional
            Rows among which to draw.

        Raises
        ------
        ValueError
            No row to draw from; targets that exclude each other.
        """
        rows = np.ones(len(self), bool) if rows is None else rows
        if not rows.any():
            raise ValueError('no known framework has such a cell or space group; ask for another, or leave it out')
        out = np.where(rows, self.silicon.astype(float) ** SIZE, 0.0)
        distances = [self._distance(name, value) for name, value in targets.items()]
        if not distances:
            return out / out.sum()
        distances = np.array(distances)[:, rows]  # (targets, rows), in widths
        total = np.sqrt((distances**2).sum(0))
        if len(distances) > 1 and np.sqrt((distances.min(1) ** 2).sum()) + CONTRADICTION < total.min():
            shown = ' and '.join(f'{name} = {value:g}' for name, value in targets.items())
            raise ValueError(f'several targets are those of one framework; no known framework has {shown}: ask for one of them')
        total -= total.min()  # a target outside of the data: those nearest to it
        scale = max(1.0, np.sort(total)[min(FEWEST, len(total)) - 1] / 2)
        out[rows] *= np.exp(-0.5 * (total / scale) ** 2)
        return out / out.sum()

    def _distance(self, name: str, value: float) -> np.ndarray:
        """Return how far the rows are from a target, (n,), in its width; large where unknown."""
        known = self.labels[name]
        if name == 'henry_coefficient':
            known, value = np.log(np.maximum(known, 1e-9)), np.log(max(value, 1e-9))
        return np.nan_to_num(np.abs(known - value) / WIDTHS[name], nan=1e3)


@lru_cache(maxsize=1)
def shipped_cells() -> ZeoliteCells:
    """Return the table of the training data of the shipped model."""
    return ZeoliteCells.load()
