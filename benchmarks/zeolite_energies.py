"""Are generated frameworks SiO2 that could exist? Energies by 7net-mf-0 relative to alpha-quartz against framework density.

Frameworks from random sites (the default of the generator) with a cost below 0.01 A^2 per T, one of each net, new, known and IZA
nets in turn, and the frameworks of a file of the IZA (or, without a file, the IZA nets among the frameworks that ship), all with
primitive cells of up to ``--atoms`` atoms. All are relaxed, positions and cell, for 12 steps of BFGS from the geometry of the
distance least squares. Experiment puts zeolites 7 to 15 kJ/mol per T above quartz (Piccione et al., J. Phys. Chem. B 104, 10001,
2000).
"""

from __future__ import annotations

import time
from itertools import zip_longest
from pathlib import Path

import numpy as np
from bench import Benchmark, kept, main, number, table

CALCULATOR, FMAX, STEPS = '7net-mf-0', 0.1, 12
GENERATED, MOST = 200, 15  # frameworks that are generated, and relaxed
KJ = 96.4853  # kJ/mol per eV


def primitive(atoms):
    """Return the primitive cell of a framework."""
    import spglib
    from ase import Atoms

    found = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    cell, scaled, numbers = spglib.standardize_cell(found, to_primitive=True, no_idealize=True, symprec=0.05)
    return Atoms(numbers, cell=cell, scaled_positions=scaled, pbc=True)


def in_turn(images: list, key: str) -> list:
    """Return one framework of each net, up to `MOST`: new, known and IZA nets in turn."""
    distinct = {atoms.info['key_value_pairs'][key]: atoms for atoms in reversed(images)}
    groups = {}
    for atoms in reversed(distinct.values()):
        groups.setdefault(atoms.info['key_value_pairs']['novelty'], []).append(atoms)
    rounds = zip_longest(*(groups.get(name, []) for name in ('new', 'known', 'iza')))
    return [atoms for each in rounds for atoms in each if atoms is not None][:MOST]


class ZeoliteEnergies(Benchmark):
    """One item per framework."""

    name = 'zeolite_energies'
    calculator = None

    @staticmethod
    def options(parser):
        parser.add_argument('file', nargs='?', help='frameworks of the IZA; without it those nets of the IZA that ship')
        parser.add_argument(
            '--generated',
            nargs='+',
            default=[],
            metavar='TRAJ',
            help='of zeolite_paper.py, runs/zeolite_paper/*.traj; else generate',
        )
        parser.add_argument('--atoms', type=int, default=36, help='largest primitive cell (36)')

    def settings(self) -> dict:
        """Return the source, the file and the size."""
        name = Path(self.args.file).name if self.args.file else 'silica-frameworks'
        return {'source': 'random', 'file': name, 'atoms': self.args.atoms, 'fmax': FMAX, 'steps': STEPS}

    def items(self):
        yield 'quartz', {'set': 'quartz'}
        pairs = [('generated', self.generated()), ('iza', self.known())]
        for k in range(1 if self.quick else max(len(images) for _, images in pairs)):
            for name, images in pairs:
                if k < len(images):
                    yield f'{name}/{k}', {'set': name, 'atoms': images[k]}

    def generated(self) -> list:
        """Return primitive cells of generated frameworks that are not too large."""
        from ase.io import read

        from ase_diffusion import ZeoliteDiffusion

        if self.args.generated:
            images = [atoms for file in self.args.generated for atoms in read(file, ':')]
            images = [atoms for atoms in images if atoms.info['key_value_pairs']['cost'] < 0.01]
            return in_turn(self.small(images), 'net')

        def make(begin, end):
            return ZeoliteDiffusion(rng=7000 + begin, max_cost=0.01, logfile=None).sample(end - begin)

        images = kept(self.store / 'generated.traj', 2 if self.quick else GENERATED, make, size=8)
        return in_turn(self.small(images), 'net_key')

    def small(self, images: list) -> list:
        """Return the primitive cells with up to the largest number of atoms; labels stay."""
        found = []
        for atoms in images:
            new = primitive(atoms)
            new.info['key_value_pairs'] = atoms.info['key_value_pairs']
            found.append(new)
        return [atoms for atoms in found if len(atoms) <= self.args.atoms]

    def known(self) -> list:
        """Return primitive cells of frameworks of the IZA."""
        from ase_diffusion.data.framework_nets import describe_net
        from ase_diffusion.data.zeolites import read_zeolites
        from ase_diffusion.porous.silica import check_framework

        images = [atoms for atoms in read_zeolites(self.args.file or 'silica-frameworks') if check_framework(atoms) is None]
        images = self.small(images)
        for atoms in images:
            atoms.info['key_value_pairs'] |= describe_net(atoms)
        return [atoms for atoms in images if atoms.info['key_value_pairs']['novelty'] == 'iza']

    def run(self, item) -> dict:
        """Relax one framework; return energy (eV per T), density before and after."""
        from ase.spacegroup import crystal

        from ase_diffusion.calculators import get_calculator
        from ase_diffusion.porous.silica import check_framework, relax_framework
        from ase_diffusion.relax import relax

        self.calculator = self.calculator or get_calculator(CALCULATOR)
        if item['set'] == 'quartz':
            cell = [4.913, 4.913, 5.405, 90, 90, 120]
            sites = [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)]
            atoms, pairs = crystal(['Si', 'O'], sites, spacegroup=154, cellpar=cell), {}
        else:
            atoms, pairs = item['atoms'], item['atoms'].info['key_value_pairs']
            if item['set'] == 'iza':
                atoms = relax_framework(atoms)
                pairs = {**pairs, 'cost': atoms.info['key_value_pairs']['cost']}
            atoms.info = {}
        silicon = int((atoms.numbers == 14).sum())
        begun = time.process_time()
        options = {'calculator': self.calculator, 'fmax': FMAX, 'filter': 'FrechetCellFilter'}
        first = relax([atoms.copy()], **options, steps=0)[0]
        done = relax([atoms.copy()], **options, steps=100 if item['set'] == 'quartz' else STEPS)[0]
        return {
            'set': item['set'],
            'atoms': len(atoms),
            **{name: pairs.get(name) for name in ('cost', 'novelty', 'topology', 'void_fraction')},
            'energy_fitted': round(first.get_potential_energy() / silicon, 5),
            'energy': round(done.get_potential_energy() / silicon, 5),
            'density': round(1000 * silicon / atoms.get_volume(), 3),  # T per 1000 A^3
            'density_relaxed': round(1000 * silicon / done.get_volume(), 3),
            'intact': check_framework(done) is None,
            'steps': done.info['key_value_pairs'].get('relax_steps'),
            'converged': done.info['key_value_pairs'].get('relax_converged'),
            'cpu': round(time.process_time() - begun, 1),
        }

    def report(self, results: dict) -> None:
        """Print energies above quartz by set, with the line through the IZA; draw the picture."""
        quartz = results['quartz']['energy']
        groups = {}
        for record in results.values():
            if record['set'] != 'quartz':
                name = record['set'] if record['set'] == 'iza' else f'generated, {record["novelty"]}'
                x, y = record['density_relaxed'], KJ * (record['energy'] - quartz)
                groups.setdefault(name, []).append((x, y, record))
        if len(groups.get('iza', ())) < 2:
            return
        known = np.array([(x, y) for x, y, _ in groups['iza']])
        slope, base = np.polyfit(*known.T, 1)
        rows = []
        for name, points in groups.items():
            x, y = np.array([p[:2] for p in points]).T
            off = y - (slope * x + base)
            records = [p[2] for p in points]
            rows.append(
                (
                    name,
                    len(y),
                    number(np.median(y), 1),
                    f'{y.min():.1f} to {y.max():.1f}',
                    f'{off.mean():.1f} +- {off.std():.1f}',
                    sum(r['intact'] for r in records),
                    sum(bool(r['converged']) for r in records),
                    number(np.mean([r['density_relaxed'] for r in records]), 1),
                )
            )
        head = (
            'kJ/mol per T above quartz',
            'n',
            'median',
            'range',
            'above the IZA line',
            'intact',
            'converged',
            'T per 1000 A^3',
        )
        print(table(head, rows))
        print(f'IZA line: {base:.1f} {slope:+.2f} kJ/mol per T/(1000 A^3)')
        draw(groups, slope, base, self.picture)


def draw(groups: dict, slope: float, base: float, picture) -> None:
    """Draw energy against framework density."""
    from matplotlib.figure import Figure

    figure = Figure((6, 4.2), layout='constrained')
    ax = figure.subplots()
    for (name, points), marker in zip(sorted(groups.items()), 'os^vD', strict=False):
        x, y = np.array([p[:2] for p in points]).T
        ax.plot(x, y, marker, markersize=5, label=name, alpha=0.8)
    ends = np.array(ax.get_xlim())
    ax.plot(ends, slope * ends + base, 'k:', label='IZA line')
    ax.set(xlabel='framework density, T per 1000 A$^3$', ylabel='energy above alpha-quartz, kJ/mol per T')
    ax.legend()
    figure.savefig(picture, dpi=110)


if __name__ == '__main__':
    main(ZeoliteEnergies)
