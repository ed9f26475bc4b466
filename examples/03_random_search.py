"""What does the model save? Random starts and generated ones, relaxed with the same force field."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
N, STEPS, RELAX_STEPS = (2, 10, 5) if FAST else (20, 100, 200)

# %% The same slab and composition for both
from ase.build import fcc111
from ase.constraints import FixAtoms

slab = fcc111('Ag', (3, 3, 2), a=4.16, vacuum=10.0)
slab.set_constraint(FixAtoms(indices=range(len(slab))))

# %% Random starts, relaxed (`RandomStructureSearch` does this with a database and worker processes)
from ase_diffusion.relax import relax_batched
from ase_diffusion.search import random_start

random = relax_batched([random_start(slab, 'Ag6O3', seed) for seed in range(N)], 'ag-o', steps=RELAX_STEPS)

# %% Generated starts, relaxed
from ase_diffusion import SurfaceDiffusion

generated = SurfaceDiffusion(slab, 'Ag6O3', rng=0, steps=STEPS, logfile=None).sample(N)
generated = relax_batched(generated, 'ag-o', steps=RELAX_STEPS)

# %% Compare
import numpy as np

both = {'random': random, 'generated': generated}
both = {name: [a for a in images if not a.info['key_value_pairs'].get('relax_failed')] for name, images in both.items()}
lowest = min(atoms.get_potential_energy() for images in both.values() for atoms in images)
print(f'{"":<12s}{"steps":>8s}{"as started/eV":>16s}{"relaxed/eV":>12s}')
for name, images in both.items():
    pairs = [atoms.info['key_value_pairs'] for atoms in images]
    steps = np.mean([pair['relax_steps'] for pair in pairs])
    started = np.mean([pair['energy_generated'] for pair in pairs]) - lowest
    relaxed = np.mean([atoms.get_potential_energy() for atoms in images]) - lowest
    print(f'{name:<12s}{steps:8.0f}{started:16.2f}{relaxed:12.2f}')

# %% How many relaxations until a structure within 0.1 eV of the lowest is found, with 95 % bands
import matplotlib.pyplot as plt

from ase_diffusion import metrics, plot

figure, ax = plt.subplots()
for name, images in both.items():
    found = [atoms.get_potential_energy() - lowest < 0.1 for atoms in images]
    k, p, band = metrics.surface.success_curve(found)
    plot.plot_success_curve(k, p, band, ax=ax, label=name)
figure.savefig('success.png', dpi=150)
