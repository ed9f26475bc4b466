"""Draw clouds of points that become crystals, docs/clouds.png.

    python scripts/draw_clouds.py [--out FILE] [--seed 3]

Points are seen along the third lattice vector; sigma is the noise of a row.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from ase_diffusion import PointCloudDiffusion
from ase_diffusion.diffusion import NoisePerStructure
from ase_diffusion.plot import plot_cloud, plot_crystal
from ase_diffusion.utils.rng import spawn_seeds

SETS = ((['Na', 'Cl'], 2), (['Sr', 'Ti', 'O'], 5), (['Mg', 'Mn', 'O'], 10))
SHOWN = 5  # frames


def frames(gen, seed: int) -> tuple[list, object]:
    """Return (sigma, points, numbers, cell) of some steps of one sample, and the crystal."""
    seeds, found = spawn_seeds(seed, 1), []
    batch = gen._encode(seeds, gen.check_conditions({}), gen._task())
    schedule = gen.process.schedule

    def see(k, t, x, x0):
        sigma = math.exp(4 * float(schedule.c_noise(gen_times(x, t))[0]))
        clean = x.with_fields(cloud=x.fields['cloud'] * math.sqrt(1 + sigma**2))  # data plus sigma times noise
        found.append((sigma, *(part[0] for part in gen.representation.points(clean))))

    final = gen._sampler()(gen.network, gen.process, batch, steps=gen.steps, generator=NoisePerStructure(seeds), callback=see)
    return found, gen._finish(gen.representation.decode(final)[0])


def gen_times(x, t):
    """Return a time for every structure."""
    from ase_diffusion.diffusion.joint import times

    return times(x, t)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path(__file__).resolve().parents[1] / 'docs' / 'clouds.png')
    parser.add_argument('--seed', type=int, default=3)
    args = parser.parse_args()
    figure, axes = plt.subplots(len(SETS), SHOWN + 1, figsize=(1.5 * (SHOWN + 1), 1.6 * len(SETS)), layout='constrained')
    for row, (elements, natoms) in zip(axes, SETS, strict=True):
        gen = PointCloudDiffusion(elements, natoms=natoms, logfile=None)
        found, atoms = frames(gen, args.seed)
        places = [0, 9, 13, 17, len(found) - 1]
        for ax, k in zip(row, places, strict=False):
            sigma, points, numbers, cell = found[k]
            plot_cloud(points, numbers, found[-1][3], ax=ax, size=9.0)
            ax.set_title(rf'$\sigma$ = {sigma:.2g}', fontsize=8)
        plot_crystal(atoms, ax=row[-1])
        row[-1].set_title(atoms.get_chemical_formula('metal'), fontsize=8)
    figure.savefig(args.out, dpi=130)
    print(args.out)


if __name__ == '__main__':
    main()
