"""The loss of CrysTens images, and which crystals are trained on."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_diffusion.representations import CrysTens
from ase_diffusion.representations.crystens import table_of
from ase_diffusion.training.crystens import ImageBatches, ImageLoss, moved_origins, small_crystals, train_crystens
from ase_diffusion.training.data import Structures

CRYSTALS = [bulk('NaCl', 'rocksalt', a=5.64), bulk('CsCl', 'cesiumchloride', a=4.12)]


def test_cross_entropies_are_those_of_elements_and_space_groups():
    images = small_crystals(CRYSTALS)
    representation = CrysTens()
    batch = representation.encode(images)
    image, counts = batch.fields['image'], batch.extras['counts']
    loss = ImageLoss(representation.process(), representation)
    assert counts.tolist() == [8, 2]
    assert loss.whole(image[:, 0, 0, 12:14], 0).tolist() == [[11, 11], [17, 55]]
    assert loss.whole(image[:, 0, 10, 12], 10).tolist() == [225, 221]
    even = {'elements': torch.zeros(2, 52, 100), 'groups': torch.zeros(2, 230)}
    assert float(loss.nats(image, counts, even)) == pytest.approx(math.log(100) + 0.3 * math.log(230), rel=1e-6)
    sure = {name: logits.clone() for name, logits in even.items()}
    for k, atoms in enumerate(images):
        for slot, z in enumerate(sorted(atoms.numbers)):
            sure['elements'][k, slot, z - 1] = 50.0
        sure['groups'][k, (225, 221)[k] - 1] = 50.0
    assert float(loss.nats(image, counts, sure)) == pytest.approx(0.0, abs=1e-6)


def test_the_loss_of_the_exact_answer_is_zero():
    representation = CrysTens()
    batch = representation.encode(small_crystals(CRYSTALS))
    process = representation.process()

    class Exact:
        """Know the clean images."""

        def __call__(self, noisy, level, conditions):
            alpha, sigma = process.processes['image'].scales(self.t, noisy.fields['image'])
            return {'image': (batch.fields['image'] - alpha * noisy.fields['image']) / sigma}

        def loss_weights(self, counts, level, extras=None):
            return torch.ones(len(counts), 4, 64, 64)

    network, loss = Exact(), ImageLoss(process, representation)
    times = loss.times
    loss.times = lambda u: setattr(network, 't', times(u).float()) or network.t
    assert float(loss(network, batch, torch.Generator().manual_seed(0))['loss']) < 1e-4


def test_other_origins_are_the_same_crystals():
    images = small_crystals(CRYSTALS)
    atoms, cell, counts = table_of(images)
    groups, rng = cell[:, 6].astype(int), np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        moved = moved_origins(atoms, groups, counts, rng)
        for k, image in enumerate(images):
            n = counts[k]
            other = Atoms(moved[k, :n, 0].astype(int), scaled_positions=moved[k, :n, 1:], cell=image.cell, pbc=True)
            assert table_of([other])[0] == pytest.approx(moved[k : k + 1])  # sorted, wrapped, in place
            assert np.sort(other.get_all_distances(mic=True).ravel()) == pytest.approx(
                np.sort(image.get_all_distances(mic=True).ravel()), abs=1e-6
            )
            seen.add((k, *moved[k, 0]))
    assert seen == {(0, 11, 0, 0, 0), (1, 17, 0, 0, 0), (1, 17, 0.5, 0.5, 0.5)} | {(0, 11, 0, 0, 0.5)}


def test_batches_of_alike_crystals_keep_absent_slots_few():
    images = small_crystals([bulk('Cu').repeat((n, 1, 1)) if n == 1 else CRYSTALS[n % 2] for n in range(1, 9)])
    data = Structures(images, {})
    sizes = np.array([len(atoms) for atoms in images])
    spread = {}
    for alike in (True, False):
        source = ImageBatches(data, CrysTens(), {}, alike=alike, batch_size=4, seed=3)
        spread[alike] = np.mean([np.ptp(sizes[source.pick(k, np.random.default_rng(k))]) for k in range(40)])
        assert source.draw(0).fields['image'].shape == (4, 4, 64, 64)
    assert spread[True] < spread[False] / 2


def test_compiled_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match='compile_network'):
        train_crystens(CRYSTALS, tmp_path, compile_network=True)


def test_sites_are_told_of_a_share_of_the_crystals():
    images = small_crystals(CRYSTALS)
    source = ImageBatches(Structures(images, {}), CrysTens(), {}, sites=0.5, batch_size=32, seed=1)
    batch = source.draw(0)
    groups = batch.extras['space_group'].tolist()
    assert set(groups) == {0, 221, 225}
    projection, offset = batch.extras['projection'], batch.extras['offset']
    f = batch.fields['image'][:, 0, 12 : 12 + offset.shape[1], 1:4].double()
    shift, scale = (torch.tensor(x[1:4], dtype=torch.float64) for x in (source.representation.shift, source.representation.scale))
    here = torch.arange(offset.shape[1]) < batch.extras['counts'][:, None]
    f = (f * scale + shift) * here[..., None]
    again = torch.einsum('bikjl,bjl->bik', projection.double(), f) + offset
    assert torch.allclose(again * here[..., None], f, atol=1e-5)
    assert set(source.batch_of(np.arange(2)).extras['space_group'].tolist()) == {221, 225}
