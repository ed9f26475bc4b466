"""Perovskites with a given property: sample, symmetrize, judge, draw. No data and no training needed."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
MODEL = os.environ.get('ASE_DIFFUSION_MODEL', 'perov-5')  # or a file of your own
N, STEPS = (3, 10) if FAST else (12, None)  # None: what the model says

# %% Cubic perovskites ABX3 with a low heat of formation (eV). `sample` returns ordinary Atoms, each averaged over
# the symmetry that spglib finds within 0.1 A (`symmetrize`)
from ase_diffusion import CrystalDiffusion

gen = CrystalDiffusion(model=MODEL, steps=STEPS, rng=0)
images = gen.sample(N, heat_of_formation=-0.2)

# %% The same without a condition, for comparison
free = CrystalDiffusion(model=MODEL, steps=STEPS, rng=0, logfile=None).sample(N)

# %% The structure of a given composition. The data hold each perovskite also with A and B exchanged, which costs energy: the
# condition decides
gen = CrystalDiffusion('SrTiO3', model=MODEL, steps=STEPS, rng=0, logfile=None)
both = [gen.sample(heat_of_formation=value) for value in (-0.2, 2.5)]
for atoms in both:
    titanium, oxygen = ([k for k in range(5) if atoms.symbols[k] == symbol] for symbol in ('Ti', 'O'))
    length = atoms.get_distances(titanium[0], oxygen, mic=True).min()
    print(f'{atoms.get_chemical_formula()}  a = {atoms.cell.cellpar()[0]:.3f} A, Ti-O {length:.3f} A')

# %% Which symmetry did they get?
import spglib

for atoms in images:
    group = spglib.get_spacegroup((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), symprec=0.01)
    print(f'{atoms.get_chemical_formula():<10s} a = {atoms.cell.cellpar()[0]:.3f} A   {group}')

# %% Metrics of any list of Atoms. With reference=... (the test split of some data) and known=... (its training
# split) there are novelty, coverage and distances, too; `ase-diffusion evaluate` does the same for files
from ase_diffusion import metrics

for name, sets in (('heat of formation -0.2 eV', images), ('nothing asked for', free)):
    print(f'\n{name}')
    for metric, value, remark in metrics.crystal.report_rows(metrics.crystal.evaluate(sets, processes=1)):
        print(f'{metric:<26s}{value:>8s}  {remark}')

# %% Pictures: all of them in a grid by lattice parameter; both kinds of SrTiO3 from two sides; what the condition changed
from ase_diffusion import plot

widths = {'heat of formation −0.2 eV': images, 'nothing asked for': free}
widths = {name: [atoms.cell.volume ** (1 / 3) for atoms in sets] for name, sets in widths.items()}
figure = plot.plot_composition_grid(images, values=next(iter(widths.values())), unit='Å')
figure.savefig('perovskites.png', dpi=150)
plot.plot_crystals(both, labels=['−0.2 eV', '2.5 eV'], directions=('auto', 'a')).savefig('srtio3.png', dpi=150)
ax = plot.plot_property_histogram(widths, xlabel='Cube root of the volume of the cell (Å)', bins=12)
ax.figure.savefig('lattice_parameters.png', dpi=150)

# %% Keep them: the condition, the seed and the model stay with every structure
from ase.io import write

write('perovskites.traj', images)
print(images[0].info['key_value_pairs'])
