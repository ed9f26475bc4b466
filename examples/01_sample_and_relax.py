"""Sample overlayers with the shipped model and relax them: with ASE's BFGS, in batches, with guidance."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
N, STEPS, RELAX_STEPS = (2, 10, 5) if FAST else (16, 100, 150)

# %% A slab: FixAtoms marks the substrate, here both layers of p(4x4) Ag(111)
from ase.build import fcc111
from ase.constraints import FixAtoms

slab = fcc111('Ag', (4, 4, 2), a=4.16, vacuum=10.0)
slab.set_constraint(FixAtoms(indices=range(len(slab))))

# %% Generate. The same seed gives the same structures, at any batch size
from ase_diffusion import SurfaceDiffusion

gen = SurfaceDiffusion(slab, 'Ag12O6', rng=1, steps=STEPS, trajectory='generated.traj')
images = gen.sample(N)
print(images[0].info['key_value_pairs'])  # provenance; db.write(atoms, **...) keeps it

# %% A structure is ordinary ase.Atoms
from ase.optimize import BFGS

from ase_diffusion.calculators import get_calculator

atoms = images[0].copy()
atoms.calc = get_calculator('ag-o')  # energies and forces of the shipped force field; or any ASE calculator
BFGS(atoms).run(fmax=0.05, steps=RELAX_STEPS)

# %% Many structures at once, into a database
from ase.db import connect

from ase_diffusion.relax import relax_batched

relaxed = relax_batched(images, 'ag-o', fmax=0.05, steps=RELAX_STEPS)
relaxed.sort(key=lambda atoms: atoms.get_potential_energy())
with connect('relaxed.db') as db:
    for atoms in relaxed:
        db.write(atoms, data=atoms.info['data'], **atoms.info['key_value_pairs'])

# %% Which of them are the same, and is the Ag6 model among them?
from ase_diffusion import metrics

print('first of its kind:', metrics.surface.duplicates(relaxed))
print('Ag6 model:', [metrics.surface.is_ag6(atoms) for atoms in relaxed])

# %% Pictures
from ase_diffusion import plot

energies = metrics.surface.relative_energies(relaxed)
labels = [f'{energy:+.2f} eV' for energy in energies]
plot.plot_structures(relaxed[:4], labels=labels[:4]).savefig('best.png', dpi=150)
generated = [atoms.info['key_value_pairs']['energy_generated'] - relaxed[0].get_potential_energy() for atoms in relaxed]
plot.plot_energy_histogram({'generated': generated, 'relaxed': energies}).figure.savefig('energies.png', dpi=150)

# %% Conditions: low energies (the default), any energy; force guidance while the noise is small
gen.sample(N, energy=0.0, guidance_scale=2.0)  # eV per mobile atom above the best of the composition
gen.sample(N, energy=None)
guided = SurfaceDiffusion(slab, 'Ag12O6', rng=1, steps=STEPS, guidance=True)
guided.sample(N)

# %% The denoising trajectory of one structure
from ase.io import read

gen = SurfaceDiffusion(slab, 'Ag12O6', rng=2, steps=STEPS, denoising_trajectory='denoising.traj')
gen.sample()
plot.plot_denoising_strip(read('denoising.traj', ':')).savefig('denoising.png', dpi=150)
