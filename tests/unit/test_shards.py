"""Shards: whole batches, every image once; what is made of them is the same bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pqag import attacks, names, networks, split
from pqag.codebooks import Codebook
from pqag.job import shards


@pytest.mark.parametrize(
    ("count", "of", "by_hand"),
    [(1000, 3, [(0, 250), (250, 500), (500, 1000)]), (520, 4, [(0, 0), (0, 250), (250, 500), (500, 520)]), (10, 1, [(0, 10)])],
)
def test_shares_by_hand(count, of, by_hand):
    got = [split.share("attack", count, {"shard": str(shard), "shards": str(of), "seed": "0"}) for shard in range(1, of + 1)]
    assert [(share.start, share.stop) for share in got] == by_hand


def test_a_job_that_is_not_split_does_everything_and_shards_are_known_by_their_names():
    assert split.share("extract", 1234, {"seed": "1"}) == slice(0, 1234)
    assert shards.in_words({"seed": "1"}) == "" and shards.in_words({"shard": "2", "shards": "3"}) == ", shard 2 of 3"
    assert [shards.number("attack", wanted, 1000) for wanted in (1, 3, 4, 9)] == [1, 3, 4, 4]
    assert shards.number("extract", 9, 501) == 2 and shards.number("extract", 9, None) == 9
    for path in ("results/a/aod.shard1of3.h5", "results/a/aod.shard12of30.health.json", "clean.shard1of3.prov.json"):
        assert shards.is_shard(path)
    for path in ("results/a/aod.h5", "results/x.shard1of3.y/aod.h5", "results/shard1of3/aod.h5"):
        assert not shards.is_shard(path)


@pytest.fixture(scope="module")
def victim():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = networks.build("vgg11", 10, 0.125).eval()
    images = np.random.default_rng(0).integers(0, 256, (23, 3, 32, 32), dtype=np.uint8)
    with torch.no_grad():
        z = networks.features(network, networks.pixels(torch.from_numpy(images))).numpy()
    return network, z.reshape(23, 4, -1).transpose(1, 0, 2)[:, :6].astype(np.float32).copy(), images, np.arange(100, 123)


BLACK_BOX = [
    ("ranks", {"method": "square"}),
    *(("distances", {"method": one, "options": {"directions": 1}}) for one in names.BLACK_BOX[:2]),
]


@pytest.mark.parametrize(
    ("loss", "changes"), [*((loss, {}) for loss in names.LOSSES), ("aod", {"method": "apgd", "restarts": 2}), *BLACK_BOX]
)
def test_an_attack_in_shards_is_the_same_bit_for_bit(victim, loss, changes, monkeypatch):
    monkeypatch.setitem(names.BATCH_SIZES, "attack", 4)
    network, codewords, images, ids = victim
    goals, feature = np.random.default_rng(0).integers(0, 6, (23, 4)), "raw" if loss == "basic" else "normalised"
    codebook = Codebook(codewords, goals.astype(np.uint8), None)
    chosen = attacks.Attack(loss, 8, 2.55, 2, feature=feature, goals=goals, **changes)
    adversarial, features, health = attacks.attack(network, codebook, images, ids, chosen, 3, batch_size=4)
    assert np.array_equal(features, networks.extract(network, adversarial, torch.device("cpu"), 4))
    assert health["codes_changed"] > 0 and len(health["loss"]) == chosen.looks // chosen.restarts + 1
    for of in (2, 6):
        shares = [split.share("attack", 23, {"shard": shard, "shards": of}) for shard in range(1, of + 1)]
        parts = []
        for share in shares:
            parts += attacks.attack_batches(network, codebook, images[share].copy(), ids[share], replace(chosen, goals=goals[share]), 3, 4)
        joined, joined_features = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
        assert np.array_equal(joined, adversarial) and np.array_equal(joined_features, features)
        assert attacks.health(images, joined, [figures for *_, figures in parts]) == health


def test_the_health_of_batches_by_hand():
    images = np.full((3, 3, 1, 1), 100, np.uint8)
    adversarial = images.copy()
    adversarial[0, 0], adversarial[2, 1] = 96, 105
    batches = [{"loss": [1.0, 2.0, 4.0], "zero_gradients": [0.5, 0.25], "codes_changed": 1}]
    batches += [{"loss": [2.0, 2.5, 3.5], "zero_gradients": [0.0], "codes_changed": 1}]
    wanted = {"loss": [1.0, 1.5, 2.5], "zero_gradients": 0.25, "codes_changed": 2 / 3, "change_mean": 1.0, "change_max": 5}
    assert attacks.health(images, adversarial, batches) == wanted
    batches[1]["zero_gradients"] = None
    assert attacks.health(images, adversarial, batches)["zero_gradients"] is None


def test_features_in_shards_are_the_same_bit_for_bit(victim):
    network, _, images, _ = victim
    whole = networks.extract(network, images, torch.device("cpu"), 4)
    parts = [networks.extract(network, images, torch.device("cpu"), 4, share) for share in (slice(0, 8), slice(8, 23))]
    assert np.array_equal(np.concatenate(parts), whole)
