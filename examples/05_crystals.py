"""Crystals: train on your own, here rock salts and perovskites made on the spot; predict structures, ask for a property."""

# %% How much to do
import os

FAST = os.environ.get('ASE_DIFFUSION_FAST') == '1'  # set by the tests
TRAINING, SAMPLING, N = (10, 4, 2) if FAST else (4000, 300, 8)
SIZE = {'features': 16, 'blocks': 1} if FAST else {'features': 64, 'blocks': 3}

# %% Data: crystals with numbers in info['key_value_pairs'] are enough; read_crystals reads npz, the published CSV sets
# with a cif column, ASE databases and whatever else ASE reads
from ase import Atoms
from ase.build import bulk

images = []
for metal, a in (('Li', 5.13), ('Na', 5.64), ('K', 6.29), ('Rb', 6.58)):
    for halide, b in (('F', -0.6), ('Cl', 0.0), ('Br', 0.3)):
        images.append(bulk(metal + halide, 'rocksalt', a=a + b))
for big, a in (('Ca', 3.85), ('Sr', 3.91), ('Ba', 4.01)):
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    images.append(Atoms(f'{big}TiO3', scaled_positions=sites, cell=[a] * 3, pbc=True))
for atoms in images:
    atoms.info['key_value_pairs'] = {'volume': atoms.cell.volume / len(atoms)}

# %% Train. Every property of the data becomes a condition; the same `out` resumes
from ase_diffusion import CrystalDiffusion

gen = CrystalDiffusion(model='untrained', rng=0, steps=SAMPLING)
gen.fit(images, out='crystal-model', steps=TRAINING, batch_size=16, progress=False, **SIZE)
gen.save('crystals.safetensors')

# %% Sample with a condition. After 10 steps of training it knows nothing yet
from ase_diffusion.errors import GenerationFailed

requests = [({}, {'volume': 14.0}), ({'stoich': 'SrTiO3'}, {}), ({'natoms': 2, 'elements': ['Na', 'Cl', 'Br']}, {})]
for options, conditions in requests:
    generator = CrystalDiffusion(model='crystals.safetensors', steps=SAMPLING, rng=1, **options)
    try:
        for atoms in generator.irun(N, **conditions):
            print(options, atoms.get_chemical_formula(), atoms.cell.cellpar().round(2), atoms.info['key_value_pairs']['seed'])
    except GenerationFailed as err:
        print(err)
        if not FAST:
            raise

# %% Neighbors of a given crystal: noised a little, then denoised
generator = CrystalDiffusion('NaCl', model='crystals.safetensors', steps=SAMPLING, rng=1)
print([atoms.cell.volume for atoms in generator.perturb(bulk('NaCl', 'rocksalt', a=5.64), noise=0.2, n=N)])
