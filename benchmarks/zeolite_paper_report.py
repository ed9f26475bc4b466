"""Tables and histograms of zeolite_paper.py."""

from __future__ import annotations

import math
import re

import numpy as np
from bench import number, table

GOOD = 0.01
UNITS = {
    'void_fraction': 'void fraction',
    'heat_of_adsorption': 'heat of adsorption, kJ/mol',
    'henry_coefficient': 'Henry coefficient',
}


def column(records: list[dict], name: str) -> np.ndarray:
    """Return one column over all chunks of a row; nan where there is no number."""
    found = []
    for record in records:
        values = record.get(name) or [None] * record['n']
        found += [np.nan if value is None else value for value in values]
    return np.array(found, dtype=float if all(isinstance(x, (int, float)) for x in found) else object)


def by_row(results: dict) -> dict[str, list[dict]]:
    """Return row -> records of its chunks."""
    rows: dict[str, list[dict]] = {}
    for record in results.values():
        rows.setdefault(record['row'], []).append(record)
    return rows


def is_new(key) -> bool:
    """Return whether the key of a net is that of no framework known to the package."""
    from ase_diffusion.data.framework_nets import known_nets

    codes, known = known_nets()
    return isinstance(key, str) and int(key[1:], 16) not in codes and int(key[1:], 16) not in known


def share(part: int, whole: int) -> str:
    """Return a percentage with its binomial standard deviation."""
    p = part / whole
    return f'{100 * p:.0f} ({100 * max(p * (1 - p) / whole, 0) ** 0.5:.0f})'


def yields(records: list[dict], once: bool = False) -> dict:
    """Return counts and means of one row; `once`: of one search for bonds without variants."""
    cost = column(records, 'once_cost' if once else 'cost').astype(float)
    valid, good = np.isfinite(cost), cost < GOOD
    found = {'grids': len(cost), 'valid': int(valid.sum()), 'good': int(good.sum())}
    times = {
        name: sum(math.nan if r[f'cpu_{name}'] is None else r[f'cpu_{name}'] for r in records) / len(cost)
        for name in ('sampling', 'restoring', 'one_pass')
    }
    found |= {'sampling': times['sampling'], 'restoring': times['one_pass' if once else 'restoring']}
    if once:
        return found
    nets = column(records, 'net')
    new = np.array([is_new(key) for key in nets])
    return found | {
        'good_new': int((good & new).sum()),
        'new': int((valid & new).sum()),
        'unique': len(set(nets[valid].tolist())),
        'atoms': 3 * float(np.mean(column(records, 'silicon')[valid])) if valid.any() else None,
        'moved': float(np.median(column(records, 'moved')[valid].astype(float))) if valid.any() else None,
    }


def report(results: dict, picture) -> None:
    """Print all tables and draw the picture."""
    rows = by_row(results)
    plain = {name: records for name, records in rows.items() if not re.match('void|heat|henry|memory|interpolation', name)}
    lines = []
    for name, records in plain.items():
        for once in (False, True) if any('once' in r for r in records) else (False,):
            found = yields([r for r in records if 'once' in r] if once else records, once)
            seconds = found['sampling'] + found['restoring']
            n, good = found['grids'], found['good']
            lines.append(
                (
                    f'{name}, one pass' if once else name,
                    n,
                    *(share(found[k], n) if k in found else '-' for k in ('valid', 'good', 'good_new')),
                    f'{found["unique"]} / {found["new"]}' if 'unique' in found else '-',
                    number(found.get('atoms'), 0),
                    number(found.get('moved')),
                    f'{found["sampling"]:.3f} + {found["restoring"]:.2f}',
                    number(n * seconds / good, 2) if good and math.isfinite(seconds) else '-',
                )
            )
    head = ('row (% of grids)', 'grids', 'valid', 'good', 'good, new', 'unique / new', 'atoms', 'moved A', 'CPU s', 'per good')
    print(table(head, lines))
    steps = [column(plain[name], 'outcome') for name in plain]
    for name, outcomes in zip(plain, steps, strict=True):
        kinds, counts = np.unique(outcomes.astype(str), return_counts=True)
        print(f'{name}: ' + ', '.join(f'{c} {k}' for k, c in sorted(zip(kinds, counts, strict=True), key=lambda x: -x[1])))
    targets(rows)
    others(rows)
    draw(rows, picture)


def spread(values: np.ndarray, median: bool) -> str:
    """Return mean (or median) and standard deviation (or quartiles)."""
    values = values[np.isfinite(values)]
    if not len(values):
        return '-'
    if median:
        low, middle, high = np.percentile(values, [25, 50, 75])
        return f'{middle:.1f} ({low:.1f} to {high:.1f})'
    return f'{values.mean():.3f} +- {values.std():.3f}'


def targets(rows: dict) -> None:
    """Print what came of each target, of all frameworks and of those inside the tolerance."""
    from ase_diffusion.generators.zeolite import TOLERANCE

    for name in TOLERANCE:
        lines = []
        for row, records in rows.items():
            if not row.startswith(name):
                continue
            target = records[0]['targets'][name]
            values, cost = column(records, name).astype(float), column(records, 'cost').astype(float)
            if name == 'henry_coefficient':
                inside = np.abs(np.log(np.maximum(values, 1e-9) / target)) <= np.log(TOLERANCE[name])
            else:
                inside = np.abs(values - target) <= TOLERANCE[name]
            median = name != 'void_fraction'
            grid = column(records, 'grid_void_fraction').astype(float) if name == 'void_fraction' else np.array([])
            lines.append(
                (
                    row,
                    len(cost),
                    np.isfinite(cost).sum(),
                    spread(grid, False),
                    spread(values, median),
                    spread(values[cost < GOOD], median),
                    inside.sum(),
                    spread(values[inside], median),
                    number(len(cost) / max(inside.sum(), 1), 1),
                    seconds_per_one(records, inside.sum()),
                )
            )
        if lines:
            head = (
                name,
                'grids',
                'valid',
                'of the grids',
                'of the valid',
                'of the good',
                'inside',
                'of these',
                'grids per one',
                'CPU s per one',
            )
            print(table(head, lines))


def seconds_per_one(records: list[dict], count: int) -> str:
    """Return the CPU seconds for each framework inside the tolerance."""
    times = [r[name] for r in records for name in ('cpu_sampling', 'cpu_restoring')]
    return '-' if None in times or not count else number(sum(times) / count, 2)


def others(rows: dict) -> None:
    """Print memory and interpolation."""
    for record in rows.get('memory', []):
        print(f'{record["steps"]} steps: {record["before_MiB"]} MiB before, {record["peak_MiB"]} MiB at most')
    lines = []
    for record in sorted(rows.get('interpolation', []), key=lambda r: (r.get('noise', 2.0), r['weight'])):
        values = np.array(record['void_fraction'], float)
        lines.append(
            (
                record.get('noise', 2.0),
                record['weight'],
                record['grids'],
                record['frameworks'],
                spread(values, False),
                len(set(record['net_key'])),
            )
        )
    if lines:
        print(table(('noise', 'weight', 'grids', 'frameworks', 'void fraction', 'nets'), lines))


def draw(rows: dict, picture) -> None:
    """Draw histograms for each condition, steps against yield, and the path."""
    from matplotlib.figure import Figure

    figure = Figure((10, 7), layout='constrained')
    axes = figure.subplots(2, 3).ravel()
    for ax, name in zip(axes, UNITS, strict=False):
        values = {r: column(c, name).astype(float) for r, c in rows.items() if r.startswith(name) and 'random nets' in r}
        top = {'void_fraction': 0.4, 'heat_of_adsorption': 32, 'henry_coefficient': 160}[name]
        bins = np.linspace(0 if name != 'heat_of_adsorption' else 8, top, 25)
        for row, found in values.items():
            line = ax.hist(found[np.isfinite(found)], bins, histtype='step', label=row.split()[1].rstrip(','))[2]
            ax.axvline(float(row.split()[1].rstrip(',')), color=line[0].get_edgecolor(), linestyle=':')
        ax.set(xlabel=UNITS[name], ylabel='frameworks')
        if values:
            ax.legend(title='asked', fontsize=7)
    names = {f'{steps} steps': steps for steps in (10, 20, 40)}
    for color, kind in enumerate(('valid', 'good')):
        known = [(steps, yields(rows[name])) for name, steps in names.items() if name in rows]
        axes[3].plot([s for s, _ in known], [100 * f[kind] / f['grids'] for _, f in known], f'C{color}o-', label=kind)
        if 'random sites' in rows:
            found = yields(rows['random sites'])
            axes[3].axhline(100 * found[kind] / found['grids'], color=f'C{color}', linestyle=':', label=f'{kind}, random sites')
    axes[3].set(xlabel='steps', ylabel='% of grids', ylim=(0, 100))
    if axes[3].lines:
        axes[3].legend(fontsize=7)
    for record in rows.get('interpolation', []):
        values = np.array(record['void_fraction'], float)
        more = record.get('noise', 2.0) > 2
        axes[4].plot([record['weight']] * len(values), values, '^' if more else 'o', color=f'C{int(more)}', markersize=4)
    axes[4].set(xlabel='weight of the second framework', ylabel='void fraction')
    for name, label in (('random nets', 'random nets'), ('20 steps', 'network, 20 steps'), ('random sites', 'random sites')):
        if name in rows:
            cost = column(rows[name], 'cost').astype(float)
            axes[5].hist(np.minimum(cost[np.isfinite(cost)], 0.03), np.linspace(0, 0.03, 25), histtype='step', label=label)
    axes[5].set(xlabel='cost, A$^2$ per T', ylabel='frameworks')
    if axes[5].patches:
        axes[5].legend(fontsize=7)
    figure.savefig(picture, dpi=110)
