"""The tables of Park et al., J. Mater. Chem. A 12, 6507 (2024), for the shipped model of zeolites, and what no network gives.

"Random nets" is the default of the generator: random symmetric sites, relaxed in drawn cells, no grid. "Random sites" are such
sites as grids in the cells of the network's rows, with the restoration of the network's grids. "Valid" is the restoration's own
check (cost below 0.03 A^2 per T), "good" a cost below 0.01. The paper has 10,000 grids, these rows have the numbers printed.
Targets are drawn, denoised and restored without rejection; the report shows all frameworks, and those that the generator would
hand out (its tolerance). Times are CPU seconds of one thread, contended where the load says so. With --grids SAMPLES DRAWS the
grids of the network come from files (zeolite_grids.py), and so do those of the WGAN-GP and the U-Net of 32^3; the rows with a
number of steps are sampled here, in cells of the shipped table.
"""

from __future__ import annotations

import resource
import time
from functools import partial

import numpy as np
from bench import Benchmark, digest, in_own_process, main, seeded, write_images
from zeolite_grids import SampledGrids

ROWS = {
    'random nets': {'n': 1000, 'source': 'random'},
    'network': {'n': 80},
    'random sites': {'n': 1000, 'network': False},
    '10 steps': {'n': 100, 'steps': 10},
    '20 steps': {'n': 1000, 'steps': 20},
    '40 steps': {'n': 100, 'steps': 40},
    'no symmetry': {'n': 40, 'symmetry': False},
    'no symmetry, 20 steps': {'n': 200, 'symmetry': False, 'steps': 20},
    'no symmetry, random sites': {'n': 200, 'symmetry': False, 'network': False},
}
BASELINES = {name: {'n': n, 'symmetry': False} for name, n in (('WGAN-GP', 40), ('U-Net', 20))}  # from files alone
CELLS_OF = {'random sites': 'network', 'no symmetry, random sites': 'no symmetry'}  # the rows whose cells these rows have
TARGETS = {
    'void_fraction': (0.05, 0.10, 0.15, 0.20, 0.25),
    'heat_of_adsorption': (15.0, 20.0, 25.0),
    'henry_coefficient': (10.0, 40.0, 70.0, 100.0),
}
TARGET_GRIDS, CHUNK, GOOD = 40, 20, 0.01
GUIDANCE, LEAST_VOLUME = 2.0, 0.9  # those of the generator
ENDS = (67, 729)  # of silica-frameworks: 32 T, void fraction 0.05 and 0.20, 16 common operations
PATH = (0.0, 0.25, 0.5, 0.75, 1.0)
PATH_GRIDS = 6
ONE_PASS = {'variants': (), 'relax': False}


def rows() -> dict[str, dict]:
    """Return name -> settings of all rows."""
    found = dict(ROWS)
    for name, values in TARGETS.items():
        for source in ('network', 'random'):
            for value in values:
                label = f'{name} {value:g}' + ('' if source == 'network' else ', random nets')
                found[label] = {'n': TARGET_GRIDS, 'targets': {name: value}, 'source': source}
    return found


def random_orbit(rng, operations, edges) -> np.ndarray:
    """Return the orbit (m, 3) of a random point, moved onto a special position where its images are near."""
    rotations, translations = operations
    x, radius = rng.random(3), rng.uniform(0.8, 2.4)
    for _ in range(3):
        d = np.einsum('gij,j->gi', rotations, x) + translations - x
        d -= np.round(d)
        x = x + d[np.linalg.norm(d * edges, axis=1) < radius].mean(0)
    images = np.einsum('gij,j->gi', rotations, x) + translations
    images -= np.floor(images)
    d = images[:, None] - images
    same = (((d - np.round(d)) * edges) ** 2).sum(-1) < 0.01
    return images[same.argmax(1) == np.arange(len(images))]  # the first of each


def random_sites(rng, count: int, operations, edges, closest: float = 2.4) -> np.ndarray | None:
    """Return random symmetric sites (count, 3), none nearer than `closest` A, or None after 100 attempts."""
    for _ in range(100):
        sites = np.empty((0, 3))
        for _ in range(60 + 4 * count):
            orbit = random_orbit(rng, operations, edges)
            every = np.concatenate([sites, orbit])
            if len(every) > count:
                continue
            d = every[:, None] - orbit
            square = (((d - np.round(d)) * edges) ** 2).sum(-1)
            square[len(sites) :][np.diag_indices(len(orbit))] = 99.0
            if square.min() < closest**2:
                continue
            sites = every
            if len(sites) == count:
                return sites
    return None


class ZeolitePaper(Benchmark):
    """One item per row and chunk of grids; its record has a list for each column."""

    name = 'zeolite_paper'

    @staticmethod
    def options(parser) -> None:
        parser.add_argument('--grids', nargs=2, metavar=('SAMPLES', 'DRAWS'), help='grids sampled elsewhere')
        parser.add_argument('--rows', nargs='+', help='these rows alone')

    def sampled(self, row: str, item: dict) -> list | None:
        """Return functions that make the grids of a row, from files; None where they are sampled here."""
        if not getattr(self.args, 'grids', None) or item.get('source') == 'random':
            return None
        if not hasattr(self, 'files'):
            self.files = SampledGrids(*self.args.grids)
        return self.files.of_row(CELLS_OF.get(row, row), GUIDANCE if item.get('targets') else None) or None

    def settings(self) -> dict:
        """Return the model."""
        return {'model': digest('zeolite-silica')}

    def items(self):
        plan = rows() | (BASELINES if getattr(self.args, 'grids', None) else {})
        asked = getattr(self.args, 'rows', None)
        plan = {name: row for name, row in plan.items() if not asked or name in asked}
        sizes = {name: 2 if self.quick else row.get('chunk', CHUNK) for name, row in plan.items()}
        chunks = {name: 1 if self.quick else row['n'] // sizes[name] for name, row in plan.items()}
        for k in range(max(chunks.values())):
            for name, row in plan.items():
                if k < chunks[name]:
                    yield f'{name}/{k}', {**row, 'row': name, 'begin': k * sizes[name], 'n': sizes[name]}
        for steps in () if asked else (10, 40):
            yield f'memory/{steps}', {'row': 'memory', 'steps': steps}
        for weight in () if asked else PATH[::4] if self.quick else PATH:
            yield f'interpolation/{weight:g}', {'row': 'interpolation', 'weight': weight, 'noise': 2.0}
        for weight in () if asked or self.quick else PATH[1:-1]:
            yield f'interpolation, more noise/{weight:g}', {'row': 'interpolation', 'weight': weight, 'noise': 6.0}

    def _work(self, key: str, item) -> None:
        self.put(key, in_own_process(self, item) if item['row'] == 'memory' else self.run(item))

    def run(self, item) -> dict:
        """Return the record of one item."""
        if item['row'] == 'memory':
            return memory(item['steps'])
        if item['row'] == 'interpolation':
            record, images = interpolation(item['weight'], item['noise'], 1 if self.quick else PATH_GRIDS)
        else:
            record, images = (
                random_row(item) if item.get('source') == 'random' else sample_row(item, self.sampled(item['row'], item))
            )
        if images:
            write_images(self.store / f'{item["row"]}-{item.get("begin", item.get("weight"))}.traj', images)
        return record

    def report(self, results: dict) -> None:
        """Print the tables and draw the histograms."""
        from zeolite_paper_report import report

        report(results, self.picture)


def random_row(item: dict) -> tuple[dict, list]:
    """Return the record and the frameworks of one chunk of random nets; a target is not looked at, but for the cells."""
    from ase_diffusion import ZeoliteDiffusion
    from ase_diffusion.generators.random_sites import RandomSites
    from ase_diffusion.representations import Failure
    from ase_diffusion.utils.rng import spawn_seeds

    gen = ZeoliteDiffusion(logfile=None, rng=0)
    search = RandomSites(partial(gen._draw_cell, gen.cells.weights(item.get('targets', {}), gen.rows)))
    search(1, lambda atoms: True)  # compiles
    columns, images, sampling = [], [], 0.0
    for seed in spawn_seeds(seeded(0, 17), item['begin'] + item['n'])[item['begin'] :]:
        begun = time.process_time()
        atoms = search(seed, lambda atoms: True)
        sampling += time.process_time() - begun
        if isinstance(atoms, Failure):
            columns.append({'outcome': str(atoms)})
            continue
        columns.append({'outcome': 'random net', 'cost': round(atoms.info.pop('cost'), 5), **of_framework(atoms)})
        images.append(atoms)
    return record_of(item, columns, cpu_sampling=round(sampling, 3), cpu_restoring=0.0, cpu_one_pass=0.0), images


def record_of(item: dict, columns: list[dict], **times) -> dict:
    """Return the record of one chunk."""
    names = list(dict.fromkeys(name for row in columns for name in row))
    record = {name: item.get(name) for name in ('row', 'targets', 'steps')} | {'n': len(columns), **times}
    return record | {name: [row.get(name) for row in columns] for name in names}


def sample_row(item: dict, ready: list | None = None) -> tuple[dict, list]:
    """Return the record and the valid frameworks of one chunk of a row; `ready`: functions that make the grids of the row."""
    from ase_diffusion import ZeoliteDiffusion
    from ase_diffusion.porous import framework_from_grid
    from ase_diffusion.utils.rng import spawn_seeds

    symmetry, targets = item.get('symmetry', True), item.get('targets', {})
    options = {'steps': item['steps']} if 'steps' in item else {}
    gen = ZeoliteDiffusion(source='network', symmetry=symmetry, logfile=None, batch_size=1, rng=0, **options)
    width, columns, images = gen.representation.width, [], []
    sampling = restoring = one_pass = 0.0
    span = slice(item['begin'], item['begin'] + item['n'])
    seeds = spawn_seeds(seeded(0, 17), span.stop)[span]  # the same of all rows
    for seed, source in zip(seeds, [None] * len(seeds) if ready is None else ready[span], strict=False):
        begun = time.process_time()
        draw, grid = drawn_grid(gen, seed, item, source)
        sampling += time.process_time() - begun
        if grid is None:
            columns.append({'outcome': 'not placed'})
            continue
        begun = time.process_time()
        given = {'width': width} | ({'operations': draw.operations} if draw.operations is not None else {})
        found = framework_from_grid(grid['Si'], grid['O'], draw.edges, **given, least_volume=LEAST_VOLUME if targets else 0.0)
        restoring += time.process_time() - begun
        row = columns_of(found, draw, grid)
        begun = time.process_time()
        once = framework_from_grid(grid['Si'], grid['O'], draw.edges, **given, **ONE_PASS)
        one_pass += time.process_time() - begun
        row |= {'once': 'valid' if once else once.reason, 'once_cost': round(once.cost, 5) if once else None}
        if found:
            found.atoms.info['key_value_pairs'] = {name: v for name, v in row.items() if v is not None}
            images.append(found.atoms)
        columns.append(row)
    elsewhere = ready is not None and item.get('network', True)
    times = {'cpu_sampling': None if elsewhere else round(sampling, 2)}
    return record_of(item, columns, **times, cpu_restoring=round(restoring, 2), cpu_one_pass=round(one_pass, 2)), images


def drawn_grid(gen, seed: int, item: dict, source=None) -> tuple:
    """Return the draw and the grids of one seed, of the network or of random sites; `source`: draw and grids from files."""
    from ase_diffusion.generators.grids import Draw

    targets, grid = item.get('targets', {}), None
    if source is None:
        draw = gen._draw(seed, targets)
    else:
        grid = source()
        draw = Draw(grid['edges'], grid['shape'], grid['silicon'], None, grid['operations'])
    if not item.get('network', True):
        return draw, random_grid(seed, draw, gen.representation.width)
    return draw, grid or grid_of(gen, seed, targets)


def grid_of(gen, seed: int, targets: dict) -> dict:
    """Return the denoised grids of one seed."""
    batch = gen._sample_batch([seed], gen.check_conditions(targets), gen._task())
    return {name: grid[0].cpu().numpy() for name, grid in gen.representation.to_grids(batch.fields['grids']).items()}


def columns_of(found, draw, grid) -> dict:
    """Return what is kept of one grid."""
    from ase_diffusion.porous import adsorption_properties

    row = {'outcome': found.step or found.reason, 'drawn_silicon': draw.silicon}
    if 'void_fraction' in grid:
        row['grid_void_fraction'] = round(grid['void_fraction'], 4)
    elif 'energy' in grid:
        row['grid_void_fraction'] = round(adsorption_properties(grid['energy'])['void_fraction'], 4)
    if not found:
        return row
    row |= {'cost': round(found.cost, 5), 'moved': round(found.moved, 3)}
    return row | of_framework(found.atoms) | {'shrunk': round(found.atoms.get_volume() / draw.edges.prod(), 3)}


def of_framework(atoms) -> dict:
    """Return adsorption properties, T number and net of a framework."""
    from ase_diffusion.data.framework_nets import describe_net
    from ase_diffusion.porous import adsorption_properties, energy_grid

    known = adsorption_properties(energy_grid(atoms))
    row = {name: round(float(known[name]), 4) for name in TARGETS if np.isfinite(known[name])}
    net = describe_net(atoms)
    return row | {
        'silicon': len(atoms) // 3,
        'net': net['net_key'],
        'novelty': net['novelty'],
        'topology': net.get('topology'),
    }


def random_grid(seed: int, draw, width: float) -> dict | None:
    """Return densities of random symmetric sites, and of O everywhere the same; None where the sites found no place."""
    from ase import Atoms

    from ase_diffusion.data.zeolite_cells import IDENTITY
    from ase_diffusion.porous import density_grid

    sites = random_sites(seeded(seed % 2**32, 1), draw.silicon, draw.operations or IDENTITY, draw.edges)
    if sites is None:
        return None
    atoms = Atoms(f'Si{len(sites)}', cell=draw.edges, scaled_positions=sites, pbc=True)
    density = density_grid(atoms, 'Si', shape=draw.shape, width=width)
    return {'Si': density, 'O': np.full_like(density, 0.3)}


def memory(steps: int) -> dict:
    """Return the memory of a process that samples one grid of fixed seed, MiB."""
    from ase_diffusion import ZeoliteDiffusion

    gen = ZeoliteDiffusion(steps=steps, logfile=None, rng=0)
    before = usage()
    grid_of(gen, 5, {})
    return {'row': 'memory', 'steps': steps, 'before_MiB': round(before), 'peak_MiB': round(usage())}


def usage() -> float:
    """Return the largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ends() -> list:
    """Return the two frameworks between which the path leads."""
    from ase_diffusion.data.zeolites import read_zeolites

    images = read_zeolites('silica-frameworks')
    return [images[k] for k in ENDS]


def interpolation(weight: float, noise: float, grids: int) -> tuple[dict, list]:
    """Return the record and frameworks at one weight between the two ends; no rejection but of grids that are no framework."""
    from ase_diffusion import ZeoliteDiffusion
    from ase_diffusion.errors import GenerationFailed

    gen = ZeoliteDiffusion(logfile=None, rng=3, maxtries=grids)
    begun = time.process_time()
    try:
        images = gen.interpolate(*ends(), weight, n=max(1, grids // 3), noise=noise)
    except GenerationFailed as error:
        images = error.images
    pairs = [atoms.info['key_value_pairs'] for atoms in images]
    record = {
        'row': 'interpolation',
        'weight': weight,
        'noise': noise,
        'grids': gen.statistics['generated'],
        'frameworks': len(images),
    }
    record |= {'cpu': round(time.process_time() - begun, 1)}
    return record | {name: [p.get(name) for p in pairs] for name in (*TARGETS, 'cost', 'novelty', 'topology', 'net_key')}, images


if __name__ == '__main__':
    main(ZeolitePaper)
