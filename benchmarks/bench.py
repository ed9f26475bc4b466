"""The frame of all benchmarks: threads, machine, seeds, command line, resuming, results and tables, once.

A benchmark is one file with one subclass of :class:`Benchmark` (items, how to run one, what to print), and it ends in
``main(ItsClass)``. Every benchmark has the same command line::

    python benchmarks/NAME.py run [--quick] [--minutes M] [--out FILE] [options of its own]
    python benchmarks/NAME.py report [--out FILE]

``run`` skips what is there, stores every item as soon as it is done, and can be stopped and started at any time; ``report``
prints the tables and draws the picture from the results file alone. Import this module first: it sets the number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package of this checkout is measured, installed or not
RESULTS, RUNS = ROOT / 'benchmarks' / 'results', ROOT / 'runs'


class Benchmark:
    """One benchmark: items that are run one by one, and a report of their results.

    A subclass writes :meth:`items`, :meth:`run` and :meth:`report`, and where it has them :meth:`options` and :meth:`settings`.

    Parameters
    ----------
    args : argparse.Namespace
        Of the command line: ``quick``, ``minutes``, ``out`` and the options of the subclass.

    Attributes
    ----------
    results : dict
        key -> record, as in the results file.
    out, store : Path
        The results file, and a folder for structures and other intermediate files.
    """

    name: str  # of the results file
    isolated = False  # run each item in a process of its own

    def __init__(self, args):
        self.args, self.quick = args, getattr(args, 'quick', False)
        if args.out:
            self.out = Path(args.out)
            self.store = self.out.with_suffix('')
        else:
            self.out = (RUNS / 'quick' if self.quick else RESULTS) / f'{self.name}.json'
            self.store = (RUNS / 'quick' if self.quick else RUNS) / self.name
        if self.quick and not args.out:  # a quick run is a check of the code: always anew
            self.out.unlink(missing_ok=True)
            shutil.rmtree(self.store, ignore_errors=True)
        self.file = json.loads(self.out.read_text()) if self.out.exists() else {}
        self.file = {'benchmark': self.name, 'machines': [], 'settings': {}, 'results': {}} | self.file
        self.results = self.file['results']

    @staticmethod
    def options(parser: argparse.ArgumentParser) -> None:
        """Add the options of ``run`` to a parser."""

    def settings(self) -> dict:
        """Return what must be equal for all items, fit for JSON; results of other settings are not continued."""
        return {}

    def items(self) -> Iterable[tuple[str, object]]:
        """Return (key, item) pairs in the order of the run; may be a generator that looks at the results so far."""
        raise NotImplementedError

    def run(self, item) -> dict:
        """Return the record of one item."""
        raise NotImplementedError

    def report(self, results: dict) -> None:
        """Print the tables; draw the picture to ``self.picture``."""
        raise NotImplementedError

    def done(self, key: str) -> bool:
        """Return whether an item need not be run."""
        return key in self.results

    @property
    def picture(self) -> Path:
        """The picture beside the results file."""
        return self.out.with_suffix('.png')

    def put(self, key: str, record: dict) -> None:
        """Store the record of an item, with the machine that made it."""
        self.results[key] = plain({**record, 'machine': self._machine()})
        self.save()

    def save(self) -> None:
        """Write the results file; an interruption leaves the old or the new one."""
        write_json(self.out, self.file)

    def _machine(self) -> int:
        """Return the number of this machine in the results file; the load does not distinguish machines."""
        here = machine()
        for number, known in enumerate(self.file['machines']):
            if {**known, 'load': 0} == {**here, 'load': 0}:
                return number
        self.file['machines'].append(here)
        return len(self.file['machines']) - 1

    def _work(self, key: str, item) -> None:
        """Run one item and store what it gives."""
        self.put(key, in_own_process(self, item) if self.isolated else self.run(item))

    def run_all(self) -> None:
        """Run the items that are not done until the time is over.

        Raises
        ------
        SystemExit
            The results file was made with other settings.
        """
        settings = plain(self.settings())
        if self.results and self.file['settings'] != settings:
            old = {k: v for k, v in self.file['settings'].items() if settings.get(k) != v}
            raise SystemExit(f'{self.out} was made with other settings, {old}: pass --out FILE, or move it away')
        self.file['settings'] = settings
        self._run_items()

    def _run_items(self) -> None:
        end = time.monotonic() + 60 * self.args.minutes
        for key, item in self.items():
            if self.done(key):
                continue
            if time.monotonic() > end:
                break
            begun = time.perf_counter()
            self._work(key, item)
            print(f'{time.strftime("%H:%M:%S")} {key} ({time.perf_counter() - begun:.1f} s)', flush=True)


class StructureBenchmark(Benchmark):
    """A benchmark whose items are lists of structures, and whose results compare them all.

    :meth:`run` returns a list of Atoms, kept as one trajectory ``store/KEY.traj``; :meth:`summarize` makes the results. With
    ``goes_on`` it keeps the records of the results file whose structures are not in the store.
    """

    goes_on = False

    def path(self, key: str) -> Path:
        """Return where the structures of an item are kept."""
        return self.store / f'{key}.traj'

    def done(self, key: str) -> bool:
        """Return whether the structures of an item are there."""
        return self.path(key).exists()

    def images(self, pattern: str) -> list:
        """Return all structures of the keys that match a pattern, in order."""
        from ase.io import read

        return [atoms for path in sorted(self.store.glob(f'{pattern}.traj')) for atoms in read(path, ':')]

    def summarize(self) -> dict[str, dict]:
        """Return the records from all structures in the store."""
        raise NotImplementedError

    def _work(self, key: str, item) -> None:
        write_images(self.path(key), self.run(item))
        self._machine()
        write_json(self.store / 'machines.json', self.file['machines'])

    def run_all(self) -> None:
        """Fill the store, then make the results anew from all that is there; its keys tell what must not be mixed.

        Raises
        ------
        SystemExit
            The store has not enough for results.
        """
        known, old = self.store / 'machines.json', self.file['machines'] if self.goes_on else []
        self.file['machines'] = json.loads(known.read_text()) if known.exists() else []
        self.file['settings'] = plain(self.settings())
        self._run_items()
        self.file['machines'] = [one for one in old if one not in self.file['machines']] + self.file['machines']
        self.results = self.file['results'] = plain(self.summarize())
        if not self.results:
            raise SystemExit(f'{self.store} holds too little for results: run more')
        self.save()


def main(benchmark: type[Benchmark], arguments=None) -> None:
    """Run the command line of a benchmark."""
    import torch

    module = sys.modules[benchmark.__module__]
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser('run', help='run what is not in the results, then report')
    run.add_argument('--quick', action='store_true', help='a few small items, in seconds; to runs/quick')
    run.add_argument('--minutes', type=float, default=1e6, help='begin no new item after this time')
    report = commands.add_parser('report', help='print the tables and draw the picture')
    for one in (run, report):
        one.add_argument('--out', help=f'results file (benchmarks/results/{benchmark.name}.json)')
    benchmark.options(run)
    item = commands.add_parser('item')  # for in_own_process
    item.add_argument('item', type=json.loads)
    args = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    if args.command == 'item':
        args.out = None
        print(json.dumps(plain(benchmark(args).run(args.item))))
        return
    bench = benchmark(args)
    if args.command == 'run':
        bench.run_all()
    if not bench.results:
        raise SystemExit(f'{bench.out} holds no results; first: python benchmarks/{Path(module.__file__).name} run')
    for here in bench.file['machines']:
        print(f'{benchmark.name}: {", ".join(f"{name} {value}" for name, value in here.items())}')
    bench.report(bench.results)


def in_own_process(bench: Benchmark, item) -> dict:
    """Return ``bench.run(item)`` of a fresh process, so that memory and compilation of other items do not count."""
    file = sys.modules[type(bench).__module__].__file__
    return last_line([sys.executable, file, 'item', json.dumps(item)])


def last_line(command: list[str], **options) -> dict:
    """Return the JSON that a program prints last, with the load of the machine, or its error."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        return {'error': (done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]}
    return {**json.loads(done.stdout.strip().splitlines()[-1]), 'load': round(os.getloadavg()[0], 1)}


def machine() -> dict:
    """Return the CPU, cores, threads, load, versions and, in a git checkout, the commit."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import ase_diffusion

    text = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    models = [line.split(':')[1].strip() for line in text.splitlines() if line.startswith('model name')]
    found = {
        'cpu': models[0] if models else platform.processor() or platform.machine(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load': round(os.getloadavg()[0], 1),
        'python': platform.python_version(),
        'ase_diffusion': ase_diffusion.__version__,
    }
    for name in ('torch', 'ase', 'numpy', 'numba'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.get_device_name()
    try:
        git = subprocess.run(['git', 'rev-parse', '--short=10', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return found
    return {**found, 'commit': git.stdout.strip()} if not git.returncode else found


def seeded(*numbers: int) -> np.random.Generator:
    """Return the generator of one structure or chunk: its numbers alone seed it, not what was made before."""
    return np.random.default_rng(numbers)


def digest(*models: str) -> str:
    """Return the first digits of the sha256 of the files of shipped models."""
    import hashlib

    from ase_diffusion.weights.zoo import find_model

    return '-'.join(hashlib.sha256(find_model(name).read_bytes()).hexdigest()[:10] for name in models)


def frozen_slab(size: tuple[int, int], symbol: str = 'Ag', a: float | None = 4.16, vacuum: float = 10.0):
    """Return two frozen (111) layers; a = 4.16 A is the lattice constant of Ag in the training data."""
    from ase.build import fcc111
    from ase.constraints import FixAtoms

    slab = fcc111(symbol, (*size, 2), a=a, vacuum=vacuum)
    slab.set_constraint(FixAtoms(indices=range(len(slab))))
    return slab


def sample_all(gen, n: int, **conditions) -> list:
    """Return n structures as generated, the invalid ones included: where validity is measured, nothing may be rejected."""
    gen.validate = False
    return gen.sample(n, **conditions)


def write_json(path: Path, data) -> None:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(data, indent=1) + '\n', encoding='utf-8')
    partial.replace(path)


def write_images(path: Path, images: list) -> None:
    """Write a trajectory, whole or not at all."""
    from ase.io import write

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix='.partial', delete=False) as file:
        partial = Path(file.name)
    write(partial, images, format='traj')
    partial.replace(path)


def kept(path: Path, total: int, make, size: int = 64) -> list:
    """Return ``total`` structures from a trajectory; make(begin, end) gives those that it lacks, added as they come."""
    from ase.io import read
    from ase.io.trajectory import Trajectory

    path.parent.mkdir(parents=True, exist_ok=True)
    images = read(path, ':') if path.exists() else []
    if len(images) < total:
        with Trajectory(path, 'a') as file:
            while len(images) < total:
                new = make(len(images), min(total, len(images) + size))
                for atoms in new:
                    file.write(atoms)
                images += new
    return images[:total]


def thinned(images: list, n: int, seed: int = 0) -> list:
    """Return n of the images at random, all where there are fewer."""
    return [images[k] for k in np.random.default_rng(seed).permutation(len(images))[:n]]


def plain(value):
    """Return a value for JSON: numpy as lists and numbers, nan and inf as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def rounded(record: dict, digits: int = 4) -> dict:
    """Return a record with its numbers (and those in lists and dicts) rounded."""
    if isinstance(record, dict):
        return {key: rounded(value, digits) for key, value in record.items()}
    if isinstance(record, (list, tuple, np.ndarray)):
        return [rounded(value, digits) for value in record]
    return round(float(record), digits) if isinstance(record, (float, np.floating)) else record


def mean_error(values) -> list:
    """Return the mean and the standard error, rounded to 3 digits."""
    values = np.asarray(values, float)
    return [round(float(values.mean()), 3), round(float(values.std(ddof=1) / len(values) ** 0.5), 3) if len(values) > 1 else None]


def grouped(results: dict, *names: str) -> Iterator[tuple[tuple, list[dict]]]:
    """Return ((values of these fields), records) of the records that agree in them, in the order of the results."""
    groups: dict = {}
    for record in results.values():
        groups.setdefault(tuple(record.get(name) for name in names), []).append(record)
    yield from groups.items()


def number(value, digits: int = 2, none: str = '-') -> str:
    """Return a number as text."""
    return none if value is None else f'{value:.{digits}f}'


def table(head: tuple, rows: list) -> str:
    """Return an aligned table; rows may be shorter than the head, and rows that occur twice are shown once."""
    rows = [tuple(map(str, row)) for row in rows]
    rows = list(dict.fromkeys(row + ('',) * (len(head) - len(row)) for row in rows))
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = [[row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))] for row in [head, *rows]]
    return '\n'.join('  '.join(line).rstrip() for line in lines)
