"""Exact denoisers: for simple data the mean noise given x_t is known, and takes the place of a network."""

import itertools
import math

import torch

from ase_diffusion.diffusion import SAMPLERS, Batch, Interval, JointProcess, ProductProcess, Torus

EXACT_SAMPLERS = [name for name in SAMPLERS if name != 'renoised_ancestral']  # which narrows what is wide, see its tests

FIELD = 'x'
CELL = torch.tensor([[4.0, 0.0], [1.7, 3.6]], dtype=torch.float64)  # a skewed torus, A
MEAN, WIDTH = 1.0, 0.5  # of the Gaussian in free space
CENTRE, SPREAD = torch.tensor([0.3, 3.1], dtype=torch.float64), 0.4  # of the wrapped normal: near an edge of the cell
LOW, HIGH = 0.5, 5.0  # the window


DENSE = (2, 4, 4)  # an image of two channels


def free_batch(n, dtype=torch.float64, shape=(2,)):
    """n structures of one row each, (n, *shape), in free space."""
    return Batch.dense(FIELD, torch.zeros(n, *shape, dtype=dtype))


def torus_batch(n, periodic=(True, True), cell=CELL):
    """n structures of one row each on a torus."""
    domain = Torus(cell.expand(n, 2, 2), periodic)
    return Batch({FIELD: torch.zeros(n, 2, dtype=torch.float64)}, {FIELD: torch.arange(n)}, n, {FIELD: domain})


def window_batch(n):
    """n structures of one row each in a window."""
    ends = [torch.full((n, 1), end, dtype=torch.float64) for end in (LOW, HIGH)]
    return Batch({FIELD: torch.zeros(n, 1, dtype=torch.float64)}, {FIELD: torch.arange(n)}, n, {FIELD: Interval(*ends)})


def single(process):
    """The joint process of one field."""
    return JointProcess({FIELD: process})


def slab_batch(atoms_per_structure, process):
    """Structures of several rows in three dimensions: torus in the plane, window along z; and their process."""
    size = len(atoms_per_structure)
    rows = torch.repeat_interleave(torch.arange(size), torch.tensor(atoms_per_structure))
    n = len(rows)
    ends = [torch.full((n, 1), end) for end in (LOW, HIGH)]
    domains = (Torus(CELL.float().expand(n, 2, 2)), Interval(*ends))
    plane, normal = process
    joint = JointProcess({FIELD: ProductProcess([((0, 2), plane), ((2, 3), normal)])})
    return Batch({FIELD: torch.full((n, 3), 1.0)}, {FIELD: rows}, size, {FIELD: domains}), joint


def images(cell, sigma, reach=7.0):
    """Lattice vectors (K, 2) as far as `reach` standard deviations."""
    heights = 1.0 / torch.linalg.inv(cell).norm(dim=0)
    counts = [math.ceil(reach * sigma / float(h)) + 1 for h in heights]
    steps = list(itertools.product(*[range(-k, k + 1) for k in counts]))
    return torch.tensor(steps, dtype=cell.dtype) @ cell


def log_wrapped(x, centre, sigma, cell=CELL):
    """Logarithm of the wrapped normal density at x (n, 2) by the explicit sum over images, without its normaliser."""
    d = x[:, None] + images(cell, sigma) - centre
    return torch.logsumexp(-0.5 * d.square().sum(-1) / sigma**2, -1)


def wrapped_noise(x, centre, sigma, cell=CELL):
    """Mean of (x + image - centre) / sigma over the images, (n, 2): the mean noise before wrapping."""
    d = x[:, None] + images(cell, sigma) - centre  # (n, K, 2)
    weight = torch.softmax(-0.5 * d.square().sum(-1) / sigma**2, -1)
    return (weight[:, :, None] * d).sum(1) / sigma


class GaussianNoise:
    """Mean noise given x_t for Gaussian data N(MEAN, WIDTH^2) in free space; linear in x_t."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, batch, level, conditions):
        x = batch.fields[FIELD]
        ratio = torch.exp(4 * level.double()).to(x.dtype)  # sigma / alpha
        vp = type(self.schedule).__name__ != 'GeometricVE'
        alpha = 1 / torch.sqrt(1 + ratio**2) if vp else torch.ones_like(ratio)
        alpha, sigma = (column[batch.rows[FIELD]].reshape(-1, *[1] * (x.dim() - 1)) for column in (alpha, alpha * ratio))
        return {FIELD: sigma * (x - alpha * MEAN) / (sigma**2 + (alpha * WIDTH) ** 2)}


class GaussianVelocity(GaussianNoise):
    """The same as F = -v = sigma E[x_0 | x_t] - alpha E[eps | x_t]; the schedule is variance-preserving."""

    def __call__(self, batch, level, conditions):
        x, eps = batch.fields[FIELD], super().__call__(batch, level, conditions)[FIELD]
        ratio = torch.exp(4 * level.double()).to(x.dtype)[batch.rows[FIELD]].reshape(-1, *[1] * (x.dim() - 1))
        alpha = 1 / torch.sqrt(1 + ratio**2)
        return {FIELD: alpha * ratio * (x - alpha * ratio * eps) / alpha - alpha * eps}


def torus_noise(batch, level, conditions):
    """Mean noise given x_t for the wrapped normal around CENTRE; all levels are equal."""
    sigma = float(torch.exp(4 * level[0]))
    total = math.sqrt(SPREAD**2 + sigma**2)
    return {FIELD: wrapped_noise(batch.fields[FIELD], CENTRE, total) * sigma / total}


class WindowNoise:
    """Mean noise given x_t for data in a window, by quadrature over x_0; the kernel's normaliser depends on x_0."""

    def __init__(self, mean, width, points=600):
        self.grid = torch.linspace(LOW, HIGH, points, dtype=torch.float64)
        self.log_density = -0.5 * ((self.grid - mean) / width) ** 2
        weight = torch.softmax(self.log_density, 0)
        self.mean = float(weight @ self.grid)
        self.std = float(weight @ (self.grid - self.mean) ** 2) ** 0.5

    def __call__(self, batch, level, conditions):
        x, sigma = batch.fields[FIELD], torch.exp(4 * level[0])
        inside = torch.special.ndtr((HIGH - self.grid) / sigma) - torch.special.ndtr((LOW - self.grid) / sigma)
        log_weight = self.log_density - torch.log(inside) - 0.5 * ((x - self.grid) / sigma) ** 2  # (n, G)
        clean = torch.softmax(log_weight, -1) @ self.grid
        return {FIELD: (x - clean[:, None]) / sigma}
