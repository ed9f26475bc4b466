"""Tables and picture of crystal_paper.py, beside published numbers."""

from __future__ import annotations

from bench import table as text

# isort: split
import numpy as np

# Published numbers are of the full Perov-5, Carbon-24 and MP-20; ours are of parts of them, and mp_le20 is not MP-20.
COLORS = {'perov_5': 0, 'carbon_24': 2, 'mp_le20': 1}  # in the palette
PUBLISHED_SETS = {'perov_5': 'Perov-5', 'carbon_24': 'Carbon-24', 'mp_le20': 'MP-20'}
SUCCESS = {  # SR5, SR10, SR15 (arXiv 2406.09263, table 1)
    'perov_5': {'CDVAE': (0.52, 0.65, 0.79), 'SyMat': (0.73, 0.80, 0.87), 'CDI': (0.93, 0.97, 0.98), 'CDS': (0.97, 0.99, 1.00)},
    'carbon_24': {'CDVAE': (0.00, 0.06, 0.06), 'SyMat': (0.06, 0.13, 0.13), 'CDI': (0.43, 0.56, 0.57), 'CDS': (0.56, 0.64, 0.64)},
    'mp_le20': {'CDVAE': (0.78, 0.86, 0.90), 'SyMat': (0.92, 0.97, 0.97), 'CDI': (0.91, 0.93, 0.95), 'CDS': (0.63, 0.75, 0.84)},
}
PREDICTION = {  # match rate, RMSE of one sample
    'perov_5': {'DiffCSP': (0.520, 0.076), 'FlowMM': (0.532, 0.099)},
    'carbon_24': {'DiffCSP': (0.175, 0.276), 'FlowMM': (0.235, 0.412)},
    'mp_le20': {'DiffCSP': (0.515, 0.063), 'FlowMM': (0.614, 0.057), 'Crystalite': (0.661, 0.033)},
}
COLUMNS = {
    'structural': 'struct. %',
    'compositional': 'comp. %',
    'unique': 'unique %',
    'novel': 'novel %',
    'cov_r': 'COV-R %',
    'cov_p': 'COV-P %',
    'wasserstein_density': 'W density',
    'wasserstein_elements': 'W elements',
}
DENOVO = {  # in the order of COLUMNS, shares as such
    'mp_le20': {
        'CDVAE': (1.0, 0.867, None, None, 0.9915, 0.9949, 0.688, 1.43),
        'DiffCSP': (1.0, 0.8325, None, None, 0.9971, 0.9976, 0.350, 0.340),
    },
}
# shares at most 0.08 and 0.1 eV/atom above the hull after relaxation, other judges and hulls (MP-20)
STABLE = {'mp_le20': {'DiffCSP': (0.677, 0.742), 'FlowMM': (0.611, 0.681)}}


def tables(data: str, records: list) -> list[tuple[str, str]]:
    """Return titles and tables of one data set."""
    other, answers = f'published, {PUBLISHED_SETS.get(data)}', []
    if rows := prediction_rows(records):
        n = ' and '.join(sorted({str(r['result']['n']) for r in records if r['part'] == 'prediction'}))
        rows += [(f'{name} ({other})', percent([m]), f'{e:.3f}') for name, (m, e) in PREDICTION.get(data, {}).items()]
        answers.append(
            (
                f'structure prediction, {n} held-out compositions',
                text(('', 'match % of 1', 'RMSE', 'best of', 'match %', 'RMSE'), rows),
            )
        )
    if rows := success_rows(records):
        about = next(r for r in records if r['part'] in ('target', 'free'))
        rows += [(f'{name} ({other})', *(percent([x]) for x in shares)) for name, shares in SUCCESS.get(data, {}).items()]
        n = ' and '.join(sorted({str(r['n']) for r in records if r['part'] in ('target', 'free')}))
        limits = ', '.join(f'{x:g}' for x in about['result']['thresholds'].values())
        answers.append(
            (
                f'{about["property"]}, share at or below {limits} (n = {n}; judge: {about["judge"]}, mean error '
                f'{about["judge_mae"]:g} on {about["judge_n"]} test crystals)',
                text(('', 'SR5 %', 'SR10 %', 'SR15 %', 'valid %'), rows),
            )
        )
    if rows := denovo_rows(records):
        rows += [(f'{name} ({other})', *map(cell, COLUMNS, row)) for name, row in DENOVO.get(data, {}).items()]
        n = ' and '.join(sorted({str(r['result']['n']) for r in records if r['part'] == 'denovo'}))
        part = next((r['result'].get('coverage_n') for r in records if r['part'] == 'denovo'), None)
        part = f', coverage of {part}' if part else ''
        answers.append(
            (f'de novo, n = {n}{part}; W in g/cm3 and elements, against the test split', text(('', *COLUMNS.values()), rows))
        )
    if rows := sun_rows(records):
        rows += [(f'{name} ({other})', '', '', '', *(percent([x]) for x in pair)) for name, pair in STABLE.get(data, {}).items()]
        about = next(r for r in records if r['part'] == 'sun')['result']
        answers.append(
            (
                f'stability by CHGNet, n = {about["n"]}, hull of {about["n_phases"]} crystals of the data; '
                'MSUN: at most 0.1 eV/atom above',
                text(('', 'S.U.N. %', 'MSUN %', '<= 0 %', '<= 0.08 %', '<= 0.1 %', 'unique %', 'novel %'), rows),
            )
        )
    if rows := symmetry_rows(records):
        answers.append(
            (
                'averaged over the symmetry within a tolerance, energies by CHGNet, not relaxed, eV/atom',
                text(('', 'n', 'P1 %', 'mean change', 'least', 'most'), rows),
            )
        )
    if table := step_table(records):
        answers.append(('match rate (%) of one sample / RMSE, by number of steps', table))
    return answers


def grouped(records: list, *parts: str) -> dict[tuple, list]:
    """Return the records of these parts that differ by their seed only, {(model, sampler, steps, part, ...): records}."""
    groups: dict = {}
    for r in records:
        if r['part'] in parts:
            key = (r['model'], r['sampler'], r['sampling_steps'], r['part'], r.get('guidance_scale', 1.0))
            groups.setdefault((*key, r['result']['n'], r['result'].get('samples')), []).append(r)
    return groups


def named(key: tuple, alone: bool = False) -> str:
    """Return the name of a group."""
    model, sampler, steps, part, scale = key[:5]
    extra = {'target': ', lowest asked for', 'free': ', nothing asked for'}.get(part, '')
    return model if alone else f'{model}, {sampler} {steps}{extra}' + (f', guidance {scale:g}' if scale != 1 else '')


def prediction_rows(records: list) -> list[tuple]:
    """Return the rows of models and baselines."""
    rows = []
    for key, group in grouped(records, 'prediction').items():
        names = {
            'result': named(key),
            'selected': f'{named(key)}, the lowest of {key[-1]} by CHGNet',
            'prototype': 'prototypes, species at random',
            'random': 'atoms at random',
        }
        for kind, name in names.items():
            if not (of := [r[kind] for r in group if kind in r]):
                continue
            row = (name, percent([x['match_rate'] for x in of]), numbers([x['rmse'] for x in of]))
            if of[0]['samples'] > 1:
                row += (str(of[0]['samples']), percent([x['match_rate_best'] for x in of]), numbers([x['rmse_best'] for x in of]))
            rows.append(row)
    return rows


def success_rows(records: list) -> list[tuple]:
    """Return the rows of models, and of the test split."""
    groups, rows = grouped(records, 'target', 'free'), []
    for key, group in groups.items():
        shares = [percent([r['result'][name] for r in group]) for name in ('SR5', 'SR10', 'SR15')]
        rows.append((named(key), *shares, percent([r['valid'] for r in group])))
    if groups:
        test = next(iter(groups.values()))[0]['test set by the judge']
        rows.append(('test split, by the same judge', *(percent([test[name]]) for name in ('SR5', 'SR10', 'SR15'))))
    return rows


def denovo_rows(records: list) -> list[tuple]:
    """Return the rows of models, and of the training split."""
    rows = []
    for key, group in grouped(records, 'denovo').items():
        for kind, name in (('result', named(key)), ('ceiling', 'training split')):
            rows.append((name, *(cell(column, *(r[kind].get(column) for r in group)) for column in COLUMNS)))
    return rows


def symmetry_rows(records: list) -> list[tuple]:
    """Return the rows of models and tolerances."""
    rows = []
    for key, group in grouped(records, 'symmetry').items():
        for name in [name for name in group[0]['result'] if name != 'n']:
            of = [r['result'][name] for r in group]
            change = [numbers([x[f'energy_change_{kind}'] for x in of]) for kind in ('mean', 'least', 'most')]
            rows.append((f'{named(key)}, {name}', str(key[5]), percent([x['p1'] for x in of]), *change))
    return rows


def sun_rows(records: list) -> list[tuple]:
    """Return the rows of models, relaxed and as generated, and of the test split."""
    rows = []
    for key, group in grouped(records, 'sun').items():
        for kind, name in (('result', named(key)), ('ceiling', 'test split')):
            for state in ('relaxed', 'as generated') if kind == 'result' else ('relaxed',):
                of = [r[kind][state] for r in group]
                shares = [percent([x['shares'][edge] for x in of]) for edge in ('0', '0.08', '0.1')]
                same = [percent([r[kind][name] for r in group]) for name in ('unique', 'novel')]
                row = (f'{name}, {state}', percent([x['sun'] for x in of]), percent([x['msun'] for x in of]), *shares, *same)
                rows.append(row)
    return rows


def step_curves(records: list) -> dict[tuple, dict]:
    """Return {(model, sampler and number of compositions): {steps: results of all seeds}}; different numbers do not mix."""
    curves: dict = {}
    for key, group in grouped(records, 'steps').items():
        name = f'{key[1]}, n {group[0]["result"]["n"]}'
        curves.setdefault((key[0], name), {})[key[2]] = [r['result'] for r in group]
    return curves


def step_table(records: list) -> str:
    """Return the table of numbers of steps, empty without results."""
    curves = step_curves(records)
    steps = sorted({step for each in curves.values() for step in each})
    rows = []
    for (model, sampler), each in curves.items():
        row = [f'{model}, {sampler}']
        for step in steps:
            of = each.get(step, [])
            rate, rmse = ([x[name] for x in of if x[name] is not None] for name in ('match_rate', 'rmse'))
            row.append(f'{100 * np.mean(rate):.1f} / {np.mean(rmse):.3f}' if rmse else '0.0 / -' if of else '')
        rows.append(tuple(row))
    return text(('steps', *map(str, steps)), rows) if rows else ''


def percent(shares: list) -> str:
    """Return one share in percent, or the mean and the range of several."""
    return spread([None if x is None else 100 * x for x in shares], 1)


def numbers(values: list) -> str:
    """Return a number, or the mean and the range of several."""
    return spread(values, 3)


def spread(values: list, digits: int) -> str:
    values = [x for x in values if x is not None]
    if not values:
        return '-'
    mean = f'{np.mean(values):.{digits}f}'
    low, high = (f'{edge(values):.{digits}f}' for edge in (min, max))
    return mean if low == high else f'{mean} ({low} to {high})'


def cell(column: str, *values) -> str:
    """Return a cell of the de-novo table."""
    return numbers(list(values)) if column.startswith('wasserstein') else percent(list(values))


def draw(records: list):
    """Return the figure: success rates, match rates by number of candidates and of steps, energies above the hull."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout='constrained')
    for ax, panel in zip(axes.flat, (draw_success, draw_candidates, draw_steps, draw_hull), strict=True):
        panel(ax, records)
        ax.spines[['top', 'right']].set_visible(False)
        if not ax.has_data():
            ax.text(0.5, 0.5, 'not computed', ha='center', va='center', color='0.5', transform=ax.transAxes)
            ax.set(xticks=[], yticks=[])
        elif ax.get_legend_handles_labels()[0]:
            place = {
                draw_hull: {'loc': 'lower right'},
                draw_candidates: {'loc': 'center right', 'bbox_to_anchor': (1, 0.42), 'ncol': 2},
            }
            ax.legend(frameon=False, fontsize=7, **place.get(panel, {}))
    return figure


def shown(records: list, part: str) -> dict[str, list]:
    """Return the group of this part (all seeds) to draw of each data set: its own model, no guidance, the default
    sampler, most candidates."""
    found: dict = {}
    for data in sorted({r['data'] for r in records}):
        groups, own = grouped([r for r in records if r['data'] == data], part), data.replace('_', '-')
        names = ['', own, f'{own}-prediction']  # the last has this part only
        rank = {
            key: (
                names.index(key[0] if key[0] in names else ''),
                key[4] == 1,
                key[6] or 1,
                key[1] == 'renoised_ancestral',
                key[5],
            )
            for key in groups
        }
        if groups:
            found[data] = groups[max(reversed(groups), key=rank.get)]  # of equals the last
    return found


def draw_success(ax, records: list) -> None:
    """Draw SR5, SR10 and SR15 of the model of each set as nested bars, beside the paper's."""
    from ase_diffusion.plot import PALETTE

    bars = []
    for data, group in shown(records, 'target').items():
        free = shown(records, 'free').get(data)
        mine = [
            (name, [np.mean([r['result'][k] for r in each]) for k in ('SR5', 'SR10', 'SR15')], PALETTE[0])
            for name, each in (('ours', group), ('ours, free', free))
            if each
        ]
        bars += [mine + [(name, row, PALETTE[4]) for name, row in SUCCESS.get(data, {}).items()]]
        bars[-1] = [(data, *bar) for bar in bars[-1]]
    x, ticks = 0.0, []
    for group in bars:
        start = x
        for _, name, row, color in group:
            for value, alpha in zip(row[::-1], (0.3, 0.6, 1.0), strict=True):
                ax.bar(x, 100 * value, 0.8, color='white', lw=0)
                ax.bar(x, 100 * value, 0.8, color=color, alpha=alpha, lw=0)
            ticks.append((x, name))
            x += 1
        ax.text((start + x - 1) / 2, 104, group[0][0], ha='center', fontsize=8)
        x += 1
    ax.set_xticks([t for t, _ in ticks], [name for _, name in ticks], rotation=60, ha='right', rotation_mode='anchor', fontsize=7)
    ax.set(ylim=(0, 112), yticks=range(0, 101, 25), ylabel='SR15, SR10, SR5 (pale to dark, %)')


def draw_candidates(ax, records: list) -> None:
    """Draw the match rate of the best of 1, 2, ... candidates."""
    from ase_diffusion.plot import PALETTE

    for data, group in shown(records, 'prediction').items():
        k = COLORS.get(data, 3)
        for kind, style in (('result', '-'), ('prototype', '--'), ('random', ':')):
            curve = np.mean([r[kind]['curve'] for r in group], axis=0)
            name = {'result': data, 'prototype': f'{data}, prototypes', 'random': f'{data}, random'}[kind]
            marker = 'o' if len(curve) == 1 or kind == 'result' else None
            ax.plot(np.arange(1, len(curve) + 1), 100 * curve, style, color=PALETTE[k], marker=marker, ms=3, label=name)
    ax.set(xlabel='Candidates for each composition', ylabel='Match rate of the best (%)', ylim=(0, 102))
    ax.xaxis.get_major_locator().set_params(integer=True)


def draw_steps(ax, records: list) -> None:
    """Draw the match rate of one sample against the number of steps."""
    from ase_diffusion.plot import PALETTE

    styles: dict = {}
    for data in sorted({r['data'] for r in records if r['part'] == 'steps'}):
        k = COLORS.get(data, 3)
        for (_, sampler), each in step_curves([r for r in records if r['data'] == data]).items():
            style = styles.setdefault(sampler, ('o-', 's--', '^:', 'v-.', 'D-', 'x--')[len(styles) % 6])
            steps = sorted(each)
            rates = [100 * np.mean([x['match_rate'] for x in each[step]]) for step in steps]
            ax.plot(steps, rates, style, color=PALETTE[k], ms=4, label=f'{data}, {sampler}')
    if ax.has_data():
        ax.set(xlabel='Sampling steps', ylabel='Match rate of one sample (%)', ylim=(0, 102), xscale='log')
        steps = sorted({r['sampling_steps'] for r in records if r['part'] == 'steps'})
        ax.set_xticks(steps, map(str, steps))
        ax.set_xticks([], minor=True)


def draw_hull(ax, records: list) -> None:
    """Draw the cumulative distributions of the energy above the hull."""
    from ase_diffusion.plot import PALETTE

    for data, group in shown(records, 'sun').items():
        for kind, state, name, color in (
            ('result', 'relaxed', 'generated, relaxed', PALETTE[0]),
            ('result', 'as generated', 'generated', PALETTE[5]),
            ('ceiling', 'relaxed', 'test split, relaxed', PALETTE[6]),
        ):
            values = np.sort(np.concatenate([r[kind][state]['above_hull'] for r in group]))
            share = 100 * np.arange(1, len(values) + 1) / sum(r[kind]['n'] for r in group)
            values, share = np.concatenate([[-1e3], values, [1e3]]), np.concatenate([[0.0], share, share[-1:]])
            ax.step(values, share, where='post', color=color, label=f'{data}, {name}')
    if ax.has_data():
        ax.axvline(0.1, color='0.7', lw=0.8, zorder=0)
        ax.set(xlim=(-0.3, 1.0), ylim=(0, 102), xlabel='Energy above the hull, CHGNet (eV/atom)', ylabel='Share at or below (%)')
