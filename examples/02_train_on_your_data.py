"""Train on your own data: a random search makes it, here Cu on Cu(111) with EMT, then a small network learns."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
RUNS, STEPS, SIZE = (4, 20, {'features': 8, 'blocks': 1}) if FAST else (60, 2000, {'features': 32, 'blocks': 3})
N, SAMPLING_STEPS = (2, 5) if FAST else (8, 100)

# %% The slab
from ase.build import fcc111
from ase.constraints import FixAtoms

slab = fcc111('Cu', (3, 3, 2), vacuum=10.0)
slab.set_constraint(FixAtoms(indices=range(len(slab))))

# %% Data: every frame of random relaxations, with energy and forces. The same call resumes
from ase_diffusion.search import RandomStructureSearch

search = RandomStructureSearch(slab, {'Cu': (3, 5)}, 'emt', rng=0, database='cu.db', steps=40)
search.run(RUNS)

# %% Frames in one compact file; .traj, .extxyz and databases of your own relaxations work as well
from ase_diffusion.data import frames_to_npz

print(frames_to_npz('cu.db', 'cu.npz'), 'frames')

# %% Train. With energies in the data the model learns the condition `energy`. The same `out` resumes
from ase_diffusion import SurfaceDiffusion

gen = SurfaceDiffusion(slab, 'Cu4', model='untrained', rng=0, steps=SAMPLING_STEPS)
gen.fit('cu.npz', out='cu-model', steps=STEPS, batch_size=8, progress=False, **SIZE)
gen.save('cu.safetensors')

# %% Sample on a slab twice as large, which was not in the data. After 20 steps of training it knows nothing yet
from ase_diffusion.errors import GenerationFailed

large = SurfaceDiffusion.from_pretrained('cu.safetensors', slab.repeat((2, 1, 1)), 'Cu8', steps=SAMPLING_STEPS)
try:
    for atoms in large.irun(N):
        print(atoms.get_chemical_formula(), atoms.info['key_value_pairs']['min_distance_ratio'])
except GenerationFailed as err:
    print(err)
    if not FAST:
        raise

# %% A force field from the same data; as calculator: get_calculator('cu-ff/best.safetensors')
from ase_diffusion.data import read_frames
from ase_diffusion.relax import relax
from ase_diffusion.training import Overlayers
from ase_diffusion.training.surface import train_forcefield

data = Overlayers.from_atoms(read_frames('cu.npz'))
best = train_forcefield(data, 'cu-ff', steps=STEPS, batch_size=8, progress=False, **SIZE)
relaxed = relax(search.start(0), str(best), steps=5)
print(relaxed.info['key_value_pairs'])
