"""Masks, windows, seeds, steps, callbacks and guidance: what every sampler keeps, whatever the network says."""

import exact_denoisers as exact
import pytest
import torch

from ase_diffusion.diffusion import (
    SAMPLERS,
    Batch,
    ClassifierFree,
    CosineVP,
    ForceGuidance,
    Gaussian,
    GeometricVE,
    JointProcess,
    NoisePerStructure,
    Preconditioned,
    ProductProcess,
    TruncatedNormal,
    WrappedNormal,
)

SCHEDULE = GeometricVE(0.02, 4.0)
every_sampler = pytest.mark.parametrize('sampler', SAMPLERS.values(), ids=SAMPLERS)


def wild(batch, level, conditions):
    """A network that is wrong: large predictions in all directions, a function of the state alone."""
    x = batch.fields[exact.FIELD]
    return {exact.FIELD: 6 * torch.sin(3 * x + torch.arange(3.0)) - 0.5 * level[batch.rows[exact.FIELD], None]}


def slab(atoms_per_structure=(3, 5, 1)):
    return exact.slab_batch(atoms_per_structure, (WrappedNormal(SCHEDULE), TruncatedNormal(SCHEDULE)))


def sample(sampler, atoms_per_structure=(3, 5, 1), seeds=(11, 12, 13), network=wild, steps=7, **options):
    batch, process = slab(atoms_per_structure)
    options.setdefault('generator', NoisePerStructure(seeds))
    return sampler(network, process, batch, steps=steps, **options).fields[exact.FIELD]


@every_sampler
def test_masked_rows_are_never_noised_or_moved_and_the_network_sees_them(sampler):
    batch, process = slab()
    fixed = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 1], dtype=torch.bool)
    clean = torch.rand(9, 3, generator=torch.Generator().manual_seed(0)) * 7 - 2  # also outside of cell and window
    batch = batch.with_fields(**{exact.FIELD: clean.clone()})
    seen = []

    def network(state, level, conditions):
        seen.append(state.fields[exact.FIELD][fixed])
        return wild(state, level, conditions)

    out = sampler(
        network,
        process,
        batch,
        steps=5,
        generator=NoisePerStructure([1, 2, 3]),
        mask={exact.FIELD: fixed},
        callback=lambda k, t, state, x0: seen.append(state.fields[exact.FIELD][fixed]),
    )
    assert torch.equal(out.fields[exact.FIELD][fixed], clean[fixed])
    assert (out.fields[exact.FIELD][~fixed] != clean[~fixed]).all()
    assert len(seen) >= 10
    assert all(torch.equal(x, clean[fixed]) for x in seen)
    assert torch.equal(batch.fields[exact.FIELD], clean)  # the input is not changed


@every_sampler
@pytest.mark.parametrize('process', [Gaussian(CosineVP()), Preconditioned(CosineVP())], ids=lambda p: type(p).__name__)
def test_masks_of_elements_keep_pixels_and_channels(sampler, process):
    """A pixel mask, (H, W), and a mask of the full shape with another part of every image; the rest is sampled."""
    clean = torch.randn(3, *exact.DENSE, generator=torch.Generator().manual_seed(0))
    batch, joint = Batch.dense(exact.FIELD, clean.clone()), exact.single(process)
    full = torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    channel = torch.tensor([True, False]).reshape(1, 2, 1, 1)
    seen = []

    def network(state, level, conditions):
        seen.append(state.fields[exact.FIELD])
        return {exact.FIELD: torch.sin(3 * state.fields[exact.FIELD])}

    for mask in (full, channel, full[0, 0]):
        seen.clear()
        out = sampler(network, joint, batch, steps=4, generator=NoisePerStructure([1, 2, 3]), mask={exact.FIELD: mask})
        mask = mask.expand(clean.shape)
        assert all(torch.equal(x[mask], clean[mask]) for x in [*seen, out.fields[exact.FIELD]])
        assert (out.fields[exact.FIELD][~mask] != clean[~mask]).all()
    alone = Batch.dense(exact.FIELD, clean[1:2].clone())
    one = sampler(network, joint, alone, steps=4, generator=NoisePerStructure([2]), mask={exact.FIELD: full[0, 0]})
    assert torch.equal(one.fields[exact.FIELD], out.fields[exact.FIELD][1:2])  # the same seed at any batch size
    with pytest.raises(ValueError, match='a mask of x'):
        sampler(network, joint, batch, steps=4, generator=None, mask={exact.FIELD: full[:2]})


@every_sampler
def test_heights_stay_in_the_window_at_every_step(sampler):
    times, heights, inside = [], [], []

    def callback(k, t, batch, x0):
        times.append(t)
        heights.append(batch.fields[exact.FIELD][:, 2])
        inside.append(batch.domains[exact.FIELD][0]._fractional(batch.fields[exact.FIELD][:, :2]))

    def push(batch, t):
        return {exact.FIELD: torch.full_like(batch.fields[exact.FIELD], 3.0)}

    sample(sampler, callback=callback, guidance=[push], steps=9)
    equidistant = [1 - k / 8 for k in range(9)]
    if sampler is SAMPLERS['renoised_ancestral']:
        assert (times[0], times[-1], len(times)) == (1.0, 0.0, 9) and times != pytest.approx(equidistant)
    else:
        assert times == pytest.approx(equidistant)
    assert all(((z >= exact.LOW) & (z <= exact.HIGH)).all() for z in heights)
    assert all(((f > -1e-5) & (f < 1 + 1e-5)).all() for f in inside)


@every_sampler
@pytest.mark.parametrize('steps', [1, 0, -3, 1.9])
def test_fewer_than_two_steps_are_refused(sampler, steps):
    with pytest.raises(ValueError, match='at least 2 steps'):
        sample(sampler, steps=steps)


@every_sampler
@pytest.mark.parametrize('start', [0.0, 1.1, -0.5])
def test_a_start_outside_of_time_is_refused(sampler, start):
    with pytest.raises(ValueError, match='start'):
        sample(sampler, start=start)


@every_sampler
def test_the_same_seed_gives_the_same_structure_in_any_batch(sampler):
    together = sample(sampler)
    alone = [sample(sampler, (n,), (seed,)) for n, seed in ((3, 11), (5, 12), (1, 13))]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together, sample(sampler))
    assert not torch.equal(together, sample(sampler, seeds=(21, 22, 23)))


@every_sampler
def test_a_torch_generator_repeats_too(sampler):
    def once(seed):
        return sample(sampler, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(once(5), once(5))
    assert not torch.equal(once(5), once(6))


def test_initial_and_start_go_on_from_a_noised_state():
    batch, process = slab()
    seen = []
    initial, _ = process.add_noise(batch, torch.full((3,), 0.3), NoisePerStructure([1, 2, 3]))

    def network(state, level, conditions):
        seen.append((state.fields[exact.FIELD], level))
        return wild(state, level, conditions)

    SAMPLERS['ddim'](network, process, batch, steps=3, generator=None, start=0.3, initial=initial)
    assert torch.equal(seen[0][0], initial.fields[exact.FIELD])
    assert torch.allclose(seen[0][1], process.c_noise(torch.full((3,), 0.3)))


# guidance


def conditional(batch, level, conditions):
    """c where the condition is given, u = -1 where it is NaN."""
    value = conditions['energy'][batch.rows[exact.FIELD], None]
    return {exact.FIELD: torch.where(torch.isnan(value), -1.0, value).expand(-1, 3)}


@pytest.mark.parametrize('scale', [0.0, 0.5, 1.0, 2.0, 7.5])
def test_classifier_free_guidance_extrapolates_from_the_unconditional_prediction(scale):
    batch, _ = slab()
    calls = []

    def network(*args):
        calls.append(args)
        return conditional(*args)

    given = torch.tensor([0.5, 2.0, float('nan')])  # the last structure asks for nothing
    out = ClassifierFree(network, scale)(batch, torch.zeros(3), {'energy': given})[exact.FIELD]
    expected = torch.where(torch.isnan(given), -1.0, -1 + scale * (given + 1))
    assert torch.allclose(out, expected[batch.rows[exact.FIELD], None].expand(-1, 3))
    assert len(calls) == (1 if scale in (0, 1) else 2)


def test_classifier_free_without_conditions_calls_once():
    batch, _ = slab()
    calls = []
    ClassifierFree(lambda *args: calls.append(args) or {exact.FIELD: torch.zeros(9, 3)}, 3.0)(batch, torch.zeros(3), {})
    assert len(calls) == 1


def test_conditions_that_are_always_given_are_no_matter_of_the_scale():
    batch, _ = slab()
    asked, name = torch.tensor([0.5, 2.0, 1.0]), exact.FIELD

    def network(batch, c_noise, conditions):
        return {name: conditional(batch, c_noise, conditions)[name] + 10 * conditions['elements'][batch.rows[name], None]}

    elements = torch.tensor([1.0, 2.0, 3.0])
    out = ClassifierFree(network, 3.0, ['elements'])(batch, torch.zeros(3), {'elements': elements, 'energy': asked})[name]
    expected = -1 + 3 * (asked + 1) + 10 * elements
    assert torch.allclose(out, expected[batch.rows[name], None].expand(-1, 3))
    nothing = {'elements': elements, 'energy': torch.full((3,), float('nan'))}
    for scale in (0.0, 3.0):  # nothing is asked for beside them: one call, the same for every scale
        out = ClassifierFree(network, scale, ['elements'])(batch, torch.zeros(3), nothing)[name]
        assert torch.allclose(out, (10 * elements - 1)[batch.rows[name], None].expand(-1, 3))


def shift(forces, t=0.5, **options):
    batch, _ = slab()
    guide = ForceGuidance(lambda b: forces.clone(), field_name=exact.FIELD, **options)
    return guide(batch, t), guide, batch


def test_forces_displace_by_strength_and_time():
    forces = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    for power in (0.5, 1.0, 2.0):
        out, guide, _ = shift(forces, t=0.36, strength=0.002, power=power, cap=10.0)
        assert torch.allclose(out[exact.FIELD], 0.002 * 0.64**power * forces)
        assert (guide.calls, guide.failures) == (3, 0)


def test_the_cap_shortens_whole_structures_and_keeps_the_direction():
    forces = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    forces[0] *= 1e4  # the first structure only
    out, _, batch = shift(forces, strength=0.01, cap=0.05)
    out, rows = out[exact.FIELD], batch.rows[exact.FIELD]
    assert float(out[rows == 0].norm(dim=-1).max()) == pytest.approx(0.05)
    ratio = out / forces
    for k in range(3):
        assert torch.allclose(ratio[rows == k], ratio[rows == k][0, 0].expand(3), rtol=1e-4)
    assert torch.allclose(ratio[rows == 1], torch.tensor(0.005))


def test_structures_with_bad_forces_stay_and_are_counted():
    forces = torch.ones(9, 3)
    forces[4, 1] = float('nan')  # in structure 1
    forces[8, 0] = float('inf')  # in structure 2
    out, guide, batch = shift(forces)
    rows = batch.rows[exact.FIELD]
    assert (out[exact.FIELD][rows > 0] == 0).all() and (out[exact.FIELD][rows == 0] > 0).all()
    assert (guide.calls, guide.failures) == (3, 2)


def test_guidance_acts_below_a_time_at_every_kth_call():
    batch, _ = slab()
    guide = ForceGuidance(lambda b: torch.ones(9, 3), exact.FIELD, strength=0.01, below=0.5, every=2, cap=10.0)
    acted = [bool(guide(batch, t)) for t in (0.9, 0.8, 0.4, 0.3, 0.2, 0.1)]
    assert acted == [False, False, False, True, False, True]
    assert torch.allclose(guide(batch, 0.0).get(exact.FIELD, torch.zeros(1)), torch.zeros(1))
    assert torch.allclose(guide(batch, 0.0)[exact.FIELD], torch.tensor(0.02))
    assert ForceGuidance(lambda b: 1 / 0, exact.FIELD, strength=0.0)(batch, 0.1) == {}


@every_sampler
def test_guidance_of_no_strength_changes_nothing_and_some_lowers_the_energy(sampler):
    """Forces of a harmonic well in z move the atoms towards it."""
    well = 1.0

    def forces(batch):
        x = batch.fields[exact.FIELD]
        return torch.cat([torch.zeros_like(x[:, :2]), 5 * (well - x[:, 2:])], -1)

    def flat(batch, level, conditions):
        return {exact.FIELD: torch.zeros_like(batch.fields[exact.FIELD])}

    free = sample(sampler, network=flat)
    none = sample(sampler, network=flat, guidance=[ForceGuidance(forces, exact.FIELD, strength=0.0)])
    some = sample(sampler, network=flat, guidance=[ForceGuidance(forces, exact.FIELD, strength=0.05, cap=1.0)])
    assert torch.equal(free, none)
    assert float((some[:, 2] - well).abs().mean()) < float((free[:, 2] - well).abs().mean())


def test_level_is_told_by_the_first_part_of_components():
    joint = JointProcess({'a': ProductProcess([((0, 2), WrappedNormal(SCHEDULE)), ((2, 3), TruncatedNormal(SCHEDULE))])})
    t = torch.rand(4)
    assert torch.equal(joint.c_noise(t), SCHEDULE.c_noise(t))
