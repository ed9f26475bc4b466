"""No data at all: Pt7 on Pt(111), which no shipped model knows; a calculator is enough."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
PLAN = {'rounds': 2, 'samples': 3, 'relax_steps': 3, 'steps': 5} if FAST else {'rounds': 10, 'samples': 20}
OPTIONS = {'features': 8, 'blocks': 1, 'batch_size': 2} if FAST else {'features': 32, 'blocks': 3, 'batch_size': 8}

# %% The slab, and an untrained generator
from ase.build import fcc111
from ase.constraints import FixAtoms

from ase_diffusion import SurfaceDiffusion

slab = fcc111('Pt', (4, 4, 2), vacuum=8.0)
slab.set_constraint(FixAtoms(indices=range(len(slab))))
gen = SurfaceDiffusion(slab, 'Pt7', model='untrained', rng=0, steps=5 if FAST else 40, maxtries=2)

# %% Sample, relax a little, weight by Boltzmann factors, train, repeat. Any ASE calculator; for an oxide '7net-mf-0'. The
# same call with the same folder resumes and computes nothing twice
gen.fit_with_calculator('emt', 'pt7', options=OPTIONS, **PLAN)
print(gen.calculator_calls, 'calls')

# %% What it found, relaxed to the end
from ase_diffusion import metrics
from ase_diffusion.relax import relax

best = relax(gen.found[:5], 'emt', steps=5 if FAST else 200)
print(metrics.surface.relative_energies(best), metrics.surface.duplicates(best))

# %% The model works as any other, also in larger cells
gen.save('pt7.safetensors')
