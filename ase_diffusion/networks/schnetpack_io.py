"""Exchange of PaiNN weights with schnetpack 2; the only file that touches it, and only when it is called.

schnetpack's ``representation.PaiNN`` and ours are the same function where ours has no modulation, no roles and no
normalisation; names differ by the place of activations. Units are converted exactly: a network in other units of length
is one in A with another cutoff.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import CheckpointError, MissingDependency
from .forcefield import ForceField
from .painn import MAX_Z, PaiNN

if TYPE_CHECKING:
    from schnetpack.model import NeuralNetworkPotential
    from schnetpack.representation import PaiNN as SchnetpackPaiNN

_EPSILON = 1e-8  # of Mixing
_NETS = {'interactions': 'interatomic_context_net', 'mixing': 'intraatomic_context_net'}


def _schnetpack():
    try:
        import schnetpack
        import schnetpack.atomistic
        import schnetpack.model
        import schnetpack.nn
        import schnetpack.representation
        import schnetpack.transform
    except ImportError as error:
        raise MissingDependency(error.name or 'schnetpack', 'schnetpack') from error
    return schnetpack


def _refuse(what: str):
    raise ValueError(f'only what our PaiNN can do can be taken over from schnetpack; this model has {what}')


def _is_silu(activation) -> bool:
    return activation is nn.functional.silu or isinstance(activation, nn.SiLU)


def from_schnetpack(module: SchnetpackPaiNN, *, distance_unit: str = 'Ang') -> PaiNN:
    """Return our PaiNN with the weights of schnetpack's, for positions in A.

    Parameters
    ----------
    module : schnetpack.representation.PaiNN
        With GaussianRBF or BesselRBF, CosineCutoff, silu, and no electronic embeddings.
    distance_unit : str
        Of the model's positions and cutoff, as schnetpack writes units.

    Returns
    -------
    PaiNN
        Its outputs are those of ``module``; vectors (n, 3, F) too. The weights are copies.

    Raises
    ------
    ValueError
        The module has parts that our PaiNN lacks.
    MissingDependency
        schnetpack is not installed.
    """
    spk = _schnetpack()
    if not isinstance(module, spk.representation.PaiNN):
        raise ValueError(f'from_schnetpack takes a schnetpack.representation.PaiNN, got {type(module).__name__}')
    bases = {spk.nn.GaussianRBF: 'gaussian', spk.nn.GaussianRBFCentered: 'gaussian', spk.nn.BesselRBF: 'bessel'}
    _check(spk, module, bases)
    length = spk.units.convert_units(distance_unit, 'Ang')
    basis = bases[type(module.radial_basis)]
    ours = PaiNN(module.n_atom_basis, module.n_interactions, float(module.cutoff) * length, module.radial_basis.n_rbf, basis).to(
        module.embedding.weight.dtype
    )
    copy = module.filter_net.weight.shape[0] // (3 * module.n_atom_basis)
    times = 1 if copy == module.n_interactions else module.n_interactions
    with torch.no_grad():
        _copy(ours.embedding.weight, module.embedding.weight)
        _copy(ours.filter_net.weight, module.filter_net.weight.repeat(times, 1))
        _copy(ours.filter_net.bias, module.filter_net.bias.repeat(times))
        if basis == 'gaussian':
            ours.radial_basis.offsets.copy_(module.radial_basis.offsets * length)
            ours.radial_basis.widths.copy_(module.radial_basis.widths * length)
        else:  # sin(f r) / r is in inverse lengths
            ours.radial_basis.freqs.copy_(module.radial_basis.freqs / length)
            ours.filter_net.weight.mul_(length)
        for theirs, mine in _pairs(module, ours):
            _copy(mine, theirs)
    return ours.train(module.training)


def to_schnetpack(painn: PaiNN) -> SchnetpackPaiNN:
    """Return schnetpack's PaiNN (positions in A) with the weights of ours.

    Parameters
    ----------
    painn : PaiNN
        With ``modulation=0, roles=0, normalize=False``.

    Returns
    -------
    schnetpack.representation.PaiNN

    Raises
    ------
    ValueError
        Ours has parts that schnetpack's lacks.
    MissingDependency
        schnetpack is not installed.
    """
    spk = _schnetpack()
    s = painn.settings
    if extra := [name for name in ('modulation', 'roles', 'normalize') if s[name]]:
        raise ValueError(
            f"schnetpack's PaiNN has no {' and no '.join(extra)}, this one has: "
            f'{ {name: s[name] for name in extra} }. Networks of overlayers stay here; a PaiNN or a '
            'ForceField with passive_edges=True can go'
        )
    rbf = {'gaussian': spk.nn.GaussianRBF, 'bessel': spk.nn.BesselRBF}[s['basis']](s['n_basis'], s['cutoff'])
    theirs = spk.representation.PaiNN(s['features'], s['blocks'], rbf, spk.nn.CosineCutoff(s['cutoff']), epsilon=_EPSILON).to(
        painn.embedding.weight.dtype
    )
    with torch.no_grad():
        theirs.embedding.weight.copy_(painn.embedding.weight)
        theirs.filter_net.load_state_dict(painn.filter_net.state_dict())
        for name, value in painn.radial_basis.named_buffers():
            getattr(rbf, name).copy_(value)
        for target, source in _pairs(theirs, painn):
            target.copy_(source)
    return theirs.train(painn.training)


def forcefield_from_schnetpack(
    model: NeuralNetworkPotential | str | Path, *, energy_key: str = 'energy', energy_unit: str = 'eV', distance_unit: str = 'Ang'
) -> ForceField:
    """Return a force field (eV, A) with the weights of a schnetpack potential.

    Parameters
    ----------
    model : schnetpack.model.NeuralNetworkPotential or path
        PaiNN with an Atomwise head of two layers (its default, F -> F/2 -> 1). A path is what schnetpack saved
        (``best_model``): a pickle, of which only the layers of such models are let in, so that no code in it runs. An
        AddOffsets postprocessor of the energy goes into the constants per atom.
    energy_key : str
        Name of the energy in the model.
    energy_unit, distance_unit : str
        Units of the model, as in schnetpack's SpkCalculator; the model itself does not know them.

    Returns
    -------
    ForceField
        With ``passive_edges=True``: ``forward`` gives the energy without the constants per atom,
        ``reference_energy`` these, in eV. `ase_diffusion.relax.get_calculator` makes an ASE calculator of it.

    Raises
    ------
    ValueError
        The model has parts that our force field lacks.
    CheckpointError
        The file is no saved schnetpack model.
    MissingDependency
        schnetpack is not installed.
    """
    spk = _schnetpack()
    if isinstance(model, (str, Path)):
        model = _load(spk, model)
    if not isinstance(model, spk.model.NeuralNetworkPotential):
        raise ValueError(
            f'a schnetpack.model.NeuralNetworkPotential is needed, got {type(model).__name__}; '
            'of a saved training task, take task.model'
        )
    representation = from_schnetpack(model.representation, distance_unit=distance_unit)
    head = _energy_head(spk, model, energy_key, representation.features)
    s = representation.settings
    ours = ForceField(s['features'], s['blocks'], s['cutoff'], s['n_basis'], s['basis'], passive_edges=True, core=0.0)
    ours.to(head.outnet[0].weight.dtype)
    ours.representation = representation
    unit = spk.units.convert_units(energy_unit, 'eV')
    with torch.no_grad():
        for mine, theirs in zip((ours.energy_net[0], ours.energy_net[2]), head.outnet, strict=True):
            mine.weight.copy_(theirs.weight)
            mine.bias.copy_(theirs.bias)
        ours.scale.fill_(unit)
        ours.references = unit * _references(spk, model, energy_key)
    return ours.train(model.training)


def _check(spk, module, bases):
    """Raise a ValueError for what our PaiNN cannot be."""
    if type(module.radial_basis) not in bases:
        _refuse(f'the radial basis {type(module.radial_basis).__name__} (known: GaussianRBF, BesselRBF)')
    if type(module.cutoff_fn) is not spk.nn.CosineCutoff:
        _refuse(f'the cutoff function {type(module.cutoff_fn).__name__} (known: CosineCutoff)')
    if len(module.electronic_embeddings):
        _refuse('electronic embeddings')
    if type(module.embedding) is not nn.Embedding or module.embedding.num_embeddings > MAX_Z:
        _refuse(f'the embedding {module.embedding} (known: Embedding of up to {MAX_Z} elements)')
    for part in [*module.interactions, *module.mixing]:
        net = getattr(part, 'interatomic_context_net', None) or part.intraatomic_context_net
        if not _is_silu(net[0].activation):
            _refuse(f'the activation {net[0].activation} (known: silu)')
        if getattr(part, 'epsilon', _EPSILON) != _EPSILON:
            _refuse(f'epsilon = {part.epsilon} (known: {_EPSILON})')


def _copy(mine, theirs):
    mine[: len(theirs)].copy_(theirs)
    mine[len(theirs) :].zero_()


def _pairs(theirs, ours):
    """Yield (schnetpack's, ours) for every tensor of the blocks; ours has the activation as a module of its own."""
    for blocks, net in _NETS.items():
        for a, b in zip(getattr(theirs, blocks), getattr(ours, blocks), strict=True):
            for k, layer in ((0, 0), (1, 2)):
                for name in ('weight', 'bias'):
                    yield getattr(getattr(a, net)[k], name), getattr(getattr(b, net)[layer], name)
    for a, b in zip(theirs.mixing, ours.mixing, strict=True):
        yield a.mu_channel_mix.weight, b.mu_channel_mix.weight


def _energy_head(spk, model, key, features):
    heads = [m for m in model.output_modules if isinstance(m, spk.atomistic.Atomwise) and m.output_key == key]
    if len(heads) != 1:
        keys = [getattr(m, 'output_key', type(m).__name__) for m in model.output_modules]
        raise ValueError(
            f'the energy comes from one Atomwise module with output_key {key!r}; the model has {keys}. '
            'Name the energy with energy_key'
        )
    head, known = heads[0], (spk.atomistic.Atomwise, spk.atomistic.Forces)
    if other := [type(m).__name__ for m in model.output_modules if not isinstance(m, known)]:
        _refuse(f'the output modules {other} (known: Atomwise, Forces)')
    if head.aggregation_mode != 'sum':
        _refuse(f'an energy that is aggregated by {head.aggregation_mode!r} (known: sum)')
    shapes = [tuple(layer.weight.shape) for layer in head.outnet]
    if shapes != [(features // 2, features), (1, features // 2)] or not _is_silu(head.outnet[0].activation):
        _refuse(f'an energy head of the layers {shapes} (known: {features} -> {features // 2} -> 1 with silu)')
    return head


def _references(spk, model, key):
    """Return the constants per atom, (2, MAX_Z) float64 in the model's unit, from the postprocessors."""
    total = torch.zeros(MAX_Z, dtype=torch.float64)
    for step in model.postprocessors if model.do_postprocessing else ():
        if isinstance(step, (spk.transform.CastTo64, spk.transform.CastTo32)):
            continue
        if not isinstance(step, spk.transform.AddOffsets):
            _refuse(f'the postprocessor {type(step).__name__} (known: AddOffsets, CastTo64)')
        if step._property != key:
            continue
        if not step.is_extensive:
            _refuse('offsets of an energy per atom (AddOffsets with is_extensive=False)')
        if step.add_mean:
            total += step.mean.double()
        if step.add_atomrefs:
            refs = step.atomref.double().flatten()[:MAX_Z]
            total[: len(refs)] += refs
    return total.repeat(2, 1)


def _load(spk, path):
    """Return a saved model; the unpickler lets in torch's own and the classes of schnetpack named here."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'no schnetpack model at {path}')
    modules = (spk.model, spk.representation, spk.atomistic, spk.nn, spk.transform)
    names = (
        'NeuralNetworkPotential',
        'PaiNN',
        'PaiNNInteraction',
        'PaiNNMixing',
        'Atomwise',
        'Forces',
        'Dense',
        'PairwiseDistances',
        'GaussianRBF',
        'GaussianRBFCentered',
        'BesselRBF',
        'CosineCutoff',
        'CastTo64',
        'CastTo32',
        'AddOffsets',
        'ASENeighborList',
        'MatScipyNeighborList',
        'Strain',
    )
    found = [getattr(module, name) for module in modules for name in names if hasattr(module, name)]
    layers = [
        nn.ModuleList,
        nn.Sequential,
        nn.Embedding,
        nn.Identity,
        nn.SiLU,
        nn.functional.silu,
        nn.init.xavier_uniform_,
        nn.init.zeros_,
    ]
    try:
        with torch.serialization.safe_globals([*found, *layers]):
            model = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle leads to
        raise CheckpointError(
            f'{path} is not a schnetpack potential that can be read without running code ({error}). '
            'If you trust it, load it yourself: torch.load(path, weights_only=False), and pass the '
            'model'
        ) from error
    representation = getattr(model, 'representation', None)
    if isinstance(representation, spk.representation.PaiNN) and not hasattr(representation, 'electronic_embeddings'):
        representation.electronic_embeddings = []  # saved before schnetpack 2.1
    return model
