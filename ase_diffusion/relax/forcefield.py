"""Our own force field as an ASE calculator, and as forces of a batch for guidance."""

from __future__ import annotations

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes

from ..representations.slab import Slab
from ..utils.atoms import check_elements, frozen_mask
from ..utils.device import pick_device
from ..weights.zoo import load_model

ALIASES = {'ag-o': 'ag-o-forcefield'}


def load_forcefield(model='ag-o', device=None):
    """Return the network and the header of a force field.

    Raises
    ------
    ValueError
        The model is a checkpoint, but of something else.
    """
    network, header = load_model(ALIASES.get(str(model), model), pick_device(device))
    if header.get('kind') != 'forcefield':
        raise ValueError(f'{model} is a {header.get("kind")!r} model; a force field is asked for, such as "ag-o"')
    return network.requires_grad_(False), header


class ForceFieldCalculator(Calculator):
    """Compute energies (eV) and forces (eV/A) with a :class:`ase_diffusion.networks.ForceField`.

    Parameters
    ----------
    model : str or Path
        'ag-o' (shipped; Ag-O overlayers on two frozen layers of Ag(111)) or a checkpoint.
    device : str, optional

    Notes
    -----
    A model without edges between frozen atoms knows the substrate only as a frozen body: ``FixAtoms`` tells it which atoms
    those are, and their forces are returned as zero.
    """

    implemented_properties = ['energy', 'free_energy', 'forces']  # noqa: RUF012  ASE's own form

    def __init__(self, model='ag-o', device=None, **kwargs):
        super().__init__(**kwargs)
        self.network, self.header = load_forcefield(model, device)
        self.representation = Slab()

    def check_state(self, atoms, tol=1e-15):
        """Return what changed since the last call; FixAtoms count, since they change the meaning of the structure."""
        changes = super().check_state(atoms, tol)
        if not changes and self.atoms is not None and not np.array_equal(frozen_mask(atoms), frozen_mask(self.atoms)):
            changes = [*changes, 'initial_magmoms']  # any entry makes ASE calculate again
        return changes

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        """Fill ``results``; ValueError for elements or a substrate that the model never saw."""
        super().calculate(atoms, list(properties), system_changes)
        frozen = frozen_mask(self.atoms)
        check_known(self.atoms, self.header, self.network.passive_edges)
        forces = np.zeros((len(self.atoms), 3))
        if frozen.all():
            numbers = torch.as_tensor(self.atoms.numbers, dtype=torch.long)
            energy = float(self.network.references[1][numbers].sum())
        else:
            device = self.network.scale.device
            batch = self.representation.encode([self.atoms]).to(device)
            with torch.no_grad():
                value, mobile_forces = self.network(batch)
                energy = float(value[0].double() + self.network.reference_energy(batch)[0])
            forces[~frozen] = mobile_forces.double().cpu().numpy()
        self.results = {'energy': energy, 'free_energy': energy, 'forces': forces}

    def forces_of(self, images, batch_size=64):
        """Return the raw forces on all atoms of many structures, a list of (n, 3) in eV/A; by batches, nothing is stored.

        Raises
        ------
        ValueError
            Elements or a substrate that the model never saw; the structures differ in pbc.
        """
        out = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            for atoms in part:
                check_known(atoms, self.header, self.network.passive_edges)
            batch = self.representation.encode(part).to(self.network.scale.device)
            with torch.no_grad():
                flat = self.network(batch)[1].double().cpu().numpy()
            rows = batch.rows['positions'].cpu().numpy()
            for k, atoms in enumerate(part):
                forces = np.zeros((len(atoms), 3))
                forces[~frozen_mask(atoms)] = flat[rows == k]
                out.append(forces)
        return out


def check_known(atoms, header, passive_edges):
    """Raise a ValueError where a force field would be asked for what it never saw."""
    if not frozen_mask(atoms).any() and not passive_edges:
        raise ValueError('this force field was trained on overlayers on a frozen substrate, but the structure has no FixAtoms; '
                         'set_constraint(FixAtoms(indices=[...])) on the substrate, or use another calculator')  # fmt: skip
    check_elements(atoms, header.get('data', {}), 'the force field')


def batch_forces(network):
    """Return a function ``batch -> forces`` (n_mobile, 3) for :class:`ase_diffusion.diffusion.ForceGuidance`."""

    def forces(batch):
        with torch.inference_mode(False), torch.no_grad():
            clean = batch.with_fields(positions=batch.fields['positions'].clone())
            clean.extras = {k: v.clone() if torch.is_tensor(v) else v for k, v in batch.extras.items()}
            return network(clean)[1]

    return forces
