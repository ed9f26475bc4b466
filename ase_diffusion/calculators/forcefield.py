"""Force fields of this package as ASE calculators, and as forces of a batch for guidance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from ..networks.forcefield import ForceField
from ..representations.slab import Slab, SlabTemplate
from ..utils.atoms import frozen_mask
from ..utils.checks import CALCULATOR_KEYWORDS
from ..utils.device import pick_device
from ..weights.zoo import load_model
from .own import OWN

if TYPE_CHECKING:
    from ase import Atoms

    from ..diffusion.batch import Batch


def load_forcefield(model: str | Path | ForceField = 'ag-o', device: str | torch.device | None = None) -> tuple[ForceField, dict]:
    """Return the network and the header of a force field given by name, as a checkpoint, or as a ForceField (copied).

    Raises
    ------
    ValueError
        The checkpoint is of another kind of model.
    """
    if isinstance(model, ForceField):
        return copy.deepcopy(model).to(pick_device(device)).eval().requires_grad_(False), {'kind': 'forcefield'}
    network, header = load_model(OWN.get(str(model), model), pick_device(device))
    if header.get('kind') != 'forcefield':
        raise ValueError(f'{model} is a {header.get("kind")!r} model; a force field is asked for, such as "ag-o"')
    return network.requires_grad_(False), header


def _precision(dtype) -> torch.dtype:
    """Return a torch.dtype of its name; raise a ValueError for others than float32 and float64."""
    name = str(dtype).removeprefix('torch.')
    if name not in ('float32', 'float64'):
        raise ValueError(f"dtype is 'float32' or 'float64'; got {dtype!r}")
    return getattr(torch, name)


class ForceFieldCalculator(Calculator):
    """Compute energies (eV) and forces (eV/A) with a :class:`ase_diffusion.networks.ForceField`.

    Parameters
    ----------
    model : str, Path or ForceField
        'ag-o' (shipped; Ag-O overlayers on two frozen layers of Ag(111)), 'metal-oxide' (shipped; the metal, O, H, C,
        N and S on frozen close-packed metals, energies relative to the bare substrate), a checkpoint, or a network, as
        :func:`ase_diffusion.networks.schnetpack_io.forcefield_from_schnetpack` returns it.
    device : str or torch.device, optional
    dtype : 'float32' or 'float64'
        Precision of the network. float64 takes twice as long; its forces agree with differences of energies to 1e-6 eV/A.
    **kwargs
        Those of every calculator of ASE: ``atoms``, ``directory``, ``label``, ``restart``.

    Raises
    ------
    TypeError
        A keyword is unknown.
    ValueError
        The checkpoint is of another kind of model, or dtype is another one.

    Notes
    -----
    For a model without edges between frozen atoms the substrate is rigid: it consists of the atoms in ``FixAtoms``, and their
    forces are zero. A model with ``passive_edges=True`` returns the forces on all atoms.
    """

    implemented_properties = ['energy', 'free_energy', 'forces']  # noqa: RUF012  ASE's own form

    def __init__(
        self,
        model: str | Path | ForceField = 'ag-o',
        device: str | torch.device | None = None,
        dtype: Literal['float32', 'float64'] | None = None,
        **kwargs: Any,
    ) -> None:
        if unknown := sorted(set(kwargs) - set(CALCULATOR_KEYWORDS)):
            raise TypeError(
                f'a force field has the keywords model, device, dtype and {", ".join(CALCULATOR_KEYWORDS)}; got {unknown}'
            )
        super().__init__(**kwargs)
        self.network, self.header = load_forcefield(model, device)
        if dtype is not None:
            self.network = self.network.to(_precision(dtype))
        self.representation = Slab(dtype=self.network.scale.dtype)
        self.model = type(model).__name__ if isinstance(model, ForceField) else Path(OWN.get(str(model), str(model))).stem
        self.parameters.update(
            model=self.model,
            dtype=str(self.network.scale.dtype).removeprefix('torch.'),
            fingerprint=self.header.get('data', {}).get('fingerprint'),
            version=self.header.get('version'),
        )

    def _get_name(self) -> str:
        """Return what ``ase db`` shows as the calculator."""
        return self.model.lower()

    def __repr__(self) -> str:
        dtype = self.parameters['dtype']
        return f'{type(self).__name__}({self.model!r}, device={str(self.network.scale.device)!r}, dtype={dtype!r})'

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return the changes since the last call; a changed FixAtoms counts, since it changes the substrate."""
        changes = super().check_state(atoms, tol)
        if not changes and self.atoms is not None and not np.array_equal(frozen_mask(atoms), frozen_mask(self.atoms)):
            changes = [*changes, 'initial_magmoms']  # any entry makes ASE recalculate
        return changes

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ('energy',), system_changes: Sequence[str] = all_changes
    ) -> None:
        """Calculate energy (eV) and forces (eV/A); raise a ValueError for elements or a substrate that the model never saw."""
        super().calculate(atoms, list(properties), system_changes)
        frozen = frozen_mask(self.atoms)
        check_known(self.atoms, self.header, self.network.passive_edges)
        references = self.network.references.cpu().numpy()  # (role, Z)
        energy = float(references[frozen.astype(int), self.atoms.numbers].sum())
        if frozen.all() and not self.network.passive_edges:
            forces = np.zeros((len(self.atoms), 3))
        else:
            with torch.no_grad():
                values, flat = self.network(self._encode([self.atoms]))
            energy += float(values[0].double())
            [forces] = self._split([self.atoms], flat)
        self.results = {'energy': energy, 'free_energy': energy, 'forces': forces}

    def forces_of(self, images: Sequence[Atoms], batch_size: int = 64) -> list[np.ndarray]:
        """Return the raw forces on all atoms of many structures, a list of (n, 3) in eV/A; computed in batches, not stored.

        Raises
        ------
        ValueError
            The model never saw the elements or the substrate, or the structures differ in pbc.
        """
        out = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            for atoms in part:
                check_known(atoms, self.header, self.network.passive_edges)
            with torch.no_grad():
                out += self._split(part, self.network(self._encode(part))[1])
        return out

    def _encode(self, images):
        """Return the batch of the images; for models with edges between frozen atoms, constraints are removed."""
        if self.network.passive_edges:
            images = [atoms.copy() for atoms in images]
            for atoms in images:
                atoms.set_constraint()
        return self.representation.encode(images).to(self.network.scale.device)

    def _split(self, images, flat):
        """Return the forces (n, 3) of each image from those of a batch of `_encode`; 0 on atoms that are frozen in it."""
        return split_forces(images, flat, self.network.passive_edges)


def split_forces(images: Sequence[Atoms], flat: torch.Tensor, passive_edges: bool = False) -> list[np.ndarray]:
    """Return the forces (n, 3) of each image from those of a batch; 0 on frozen atoms unless the batch has forces on all."""
    out, flat, start = [], flat.double().cpu().numpy(), 0
    for atoms in images:
        mobile = ~frozen_mask(atoms) | passive_edges
        forces = np.zeros((len(atoms), 3))
        forces[mobile] = flat[start : start + mobile.sum()]
        start += mobile.sum()
        out.append(forces)
    return out


def check_known(atoms: Atoms | SlabTemplate, header: dict, passive_edges: bool) -> None:
    """Raise a ValueError where a force field would be asked for what it never saw."""
    template = SlabTemplate.of(atoms)
    if not template.frozen.any() and not passive_edges:
        raise ValueError(
            'this force field was trained on overlayers on a frozen substrate, but the structure has no FixAtoms; '
            'set_constraint(FixAtoms(indices=[...])) on the substrate, or use another calculator'
        )
    template.check_known(header.get('data', {}), 'the force field')


def batch_forces(network: ForceField) -> Callable[[Batch], torch.Tensor]:
    """Return a function ``batch -> forces`` (n_mobile, 3) for :class:`ase_diffusion.diffusion.ForceGuidance`."""

    def forces(batch):
        with torch.inference_mode(False), torch.no_grad():
            clean = batch.with_fields(positions=batch.fields['positions'].clone())
            clean.extras = {k: v.clone() if torch.is_tensor(v) else v for k, v in batch.extras.items()}
            return network(clean)[1]

    return forces
