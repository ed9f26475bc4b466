"""Train AGeDi on frames that come through a pipe (extxyz, the test's slab first), and print samples; run by surface_peer.py."""

import datetime
import io
import os
import sys
import time

import torch
from agedi import sample, train_from_atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

minutes, count, steps, lr, batch = (kind(x) for kind, x in zip((float, int, int, float, int), sys.argv[1:6], strict=True))
out = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)  # what the library prints is no part of the result
torch.set_num_threads(1)
torch.manual_seed(0)
slab, *data = read(io.StringIO(sys.stdin.read()), ':', format='extxyz')
top = float(slab.positions[:, 2].max())
window = (top + 0.4, top + 5.0)
for atoms in data:
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
print(f'{len(data)} frames, {time.process_time():.0f} s to begin', file=sys.stderr, flush=True)
begun = time.process_time()
model, _, trainer = train_from_atoms(
    data, noisers=('ConfinedCellPositions',), confinement=window, mask='MaskFixed', cutoff=6.0, batch_size=batch, lr=lr,
    max_time=datetime.timedelta(minutes=minutes), accelerator='cpu', log_dir='/tmp/agedi')  # fmt: skip
print(f'{trainer.global_step} steps of {batch} in {time.process_time() - begun:.0f} s', file=sys.stderr, flush=True)
images, part = [], min(8, count)
while len(images) < count:
    begun = time.process_time()
    found = sample(model, n_samples=part, formula='Ag12O6', template=slab, confinement=window, steps=steps, batch_size=part)
    for atoms in found:
        atoms.info = {'seconds': (time.process_time() - begun) / part}
        atoms.calc = None
    images += found
    print(f'{len(images)} of {count}', file=sys.stderr, flush=True)
write(out, images[:count], format='extxyz')
out.close()
