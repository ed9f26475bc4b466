"""The case of surface_speed.py through the interface of AGeDi (1.4 needs Python >= 3.12); run by surface_speed.py --peer.

python - BATCH STEPS MEASURED [flush] < surface_speed_agedi.py
"""

import json
import sys
import time

import torch
from agedi import create_diffusion, sample
from ase.build import fcc111
from ase.constraints import FixAtoms

batch, steps, measured = map(int, sys.argv[1:4])
torch.set_num_threads(1)
torch.set_flush_denormal('flush' in sys.argv)
torch.manual_seed(0)
slab = fcc111('Ag', (4, 4, 2), a=4.16, vacuum=10.0)
slab.set_constraint(FixAtoms(indices=range(32)))
top = slab.positions[:, 2].max()
window = (top + 0.4, top + 5.0)
model = create_diffusion(noisers=('ConfinedCellPositions',), confinement=window, cutoff=6.0, device='cpu')  # PaiNN 64 x 4


def seconds(count: int) -> float:
    """Return the CPU time of one batch with so many steps."""
    begun = time.process_time()
    images = sample(model, n_samples=batch, formula='Ag12O6', template=slab, confinement=window, steps=count, batch_size=batch)
    assert len(images) == batch and len(images[0]) == 50
    return time.process_time() - begun


seconds(5)  # warm-up
per_step = seconds(measured) / measured / batch
hourly = round(3600 / (per_step * steps))
print(json.dumps({'structures_per_hour': hourly, 'ms_per_step_and_structure': round(1e3 * per_step, 3)}))
