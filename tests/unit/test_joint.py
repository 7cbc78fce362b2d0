"""Joint training from trained weights: the hypercube is hashing, centres are orthogonal, losses against loops and finite differences."""

import copy
import itertools
import math
import types

import faiss
import numpy as np
import pytest
import torch

from pqag import checkpoints, files, joint, losses, names, networks, quantizer, retrieval, training, user_code
from pqag.errors import UserError

RECIPE = training.Recipe(3, 32, 0.05, 0.9, 5e-4, 0.1, 2, True, "float32")
LABELS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]).float()
GIVEN = joint.Given(bits=8, subspaces=4, codewords=4, classes=3, batches=3, quantization=0.3, size=8, epochs=3)


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def settings(method, **others):
    recipe = {field: getattr(RECIPE, field) for field in RECIPE.__dataclass_fields__}
    sizes = {"subspaces": 4, "codewords": 4, "iterations": 5, "network": "alexnet", "width": 0.01}
    return recipe | sizes | {"method": method, "classification": 0.5, "quantization": 0.3, "size": 8} | others


@pytest.fixture
def start(tmp_path):
    torch.manual_seed(1)
    checkpoints.save_network(tmp_path / "weights.pt", networks.build("alexnet", 5, 0.01), "alexnet", 0.01, 5)
    return str(tmp_path / "weights.pt")


def given_data(data):
    return training.Data(data[0].numpy(), data[1], lambda: [data], False, "")


# -------------------------------------------------------------------------------------------------------------- hashing as quantization


@pytest.mark.parametrize("bits", [16, 24, 36])
def test_a_hypercube_is_hashing(random, bits):
    """Codes are the signs; SDC^2 is 4 g^2 times the Hamming distance, and its order that of faiss; APD and AOD are those of single bits."""
    words = joint.hypercube(bits, 4)
    assert words.shape == (4, names.codewords(bits, 4), bits // 4) and np.unique(np.abs(words)) == [0.25]
    u = torch.randn(60, bits, generator=random).double()
    z = networks.normalise(u).numpy()
    codes = quantizer.encode(z, words)
    signs = np.where(u.numpy() > 0, 1, -1)
    np.testing.assert_array_equal(np.sign(quantizer.decode(codes, words)), signs)

    packed = np.packbits(signs > 0, axis=1)
    padded = np.zeros((60, -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    index = faiss.IndexBinaryFlat(8 * padded.shape[1])
    index.add(padded)
    found, order = index.search(padded, 60)
    hamming = np.take_along_axis(found, order.argsort(1), 1)
    np.testing.assert_array_equal(hamming, (bits - signs @ signs.T) // 2)
    decoded = quantizer.decode(codes, words).astype(float)
    squared = ((decoded[:, None] - decoded[None]) ** 2).sum(2)
    np.testing.assert_array_equal(squared, 4 * joint.G**2 * hamming)
    labels = np.eye(3)[np.arange(60) % 3]
    sdc = retrieval.evaluate(z[:20].astype(np.float32), labels[:20], words, codes, labels)["SDC"]["map"]
    mine = np.where(signs > 0, 1, -1).astype(np.float32)[:, None, :]
    bitwise = np.stack([[[-1.0], [1.0]]] * bits).astype(np.float32)
    assert retrieval.evaluate(mine[:20, 0], labels[:20], bitwise, quantizer.encode(mine[:, 0], bitwise), labels)["SDC"]["map"] == sdc

    one_bit = np.tile(np.float32([[-0.25], [0.25]]), (bits, 1, 1))
    clean, moved = torch.from_numpy(z[:30]), torch.from_numpy(z[30:])
    for loss, temperature in itertools.product((losses.apd, losses.aod), (1.0, 0.05)):
        values = [loss(moved, clean, losses.Head(torch.from_numpy(c).double(), "euclidean", temperature)) for c in (words, one_bit)]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-12)


def test_a_number_of_zero_takes_the_lower_codeword():
    """So no half-bits, as where signs of zero are multiplied."""
    assert quantizer.encode(np.zeros((1, 8), np.float32), joint.hypercube(8, 4)).tolist() == [[0] * 4]


@pytest.mark.parametrize("bits", names.HADAMARD)
def test_centres_are_orthogonal_and_no_bit_is_the_same_in_all(bits):
    matrix = joint.hadamard(bits)
    np.testing.assert_array_equal(matrix @ matrix.T, bits * np.eye(bits, dtype=int))
    found = joint.centres(bits, bits)
    np.testing.assert_array_equal(found @ found.T, bits * np.eye(bits, dtype=int))
    all_of_them = joint.centres(2 * bits, bits)
    assert len(np.unique(all_of_them, axis=0)) == 2 * bits
    if bits >= 16:
        assert np.abs(joint.centres(10, bits).sum(0)).max() < 10


def test_what_has_no_centres_is_refused(data, start):
    for order in (3, 6, 52):
        with pytest.raises(ValueError, match=f"order {order}"):
            joint.hadamard(order)
    many = training.Data(data[0].numpy(), torch.ones(96, 17), lambda: [], True, "")
    with pytest.raises(UserError, match="bits: csq cannot be trained: 17 classes need as many centres, but 8 bits have 16"):
        joint.network(settings("csq"), many, 8, 0, start)


def test_an_image_of_several_classes_has_the_majority_of_their_centres():
    """A bit without one is that of a fixed code, whatever the image: with two labels the centres disagree in half of the bits."""
    method, of_classes = joint.csq(GIVEN), joint.centres(3, 8)
    tie = np.random.default_rng(0).choice([-1.0, 1.0], 8)
    u = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    two = of_classes[0] + of_classes[1]
    targets = np.stack([np.where(two == 0, tie, np.sign(two)), of_classes[2]])
    value = method.loss(u, torch.tensor([[1.0, 1, 0], [0, 0, 1]]), None, 0)
    assert float(value) == pytest.approx(csq_by_loop(u.tolist(), targets.tolist(), 0.3), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------------------------- losses


def pairs(labels):
    """Of each two images: their numbers, and 1 if they share a label, otherwise 0."""
    for i, j in itertools.permutations(range(len(labels)), 2):
        yield i, j, int(any(a and b for a, b in zip(labels[i], labels[j])))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def csq_by_loop(u, targets, weight):
    total = penalty = 0.0
    for row, target in zip(u, targets):
        for x, t in zip(row, target):
            p, wanted = (math.tanh(x) + 1) / 2, (t + 1) / 2
            total -= wanted * math.log(p) + (1 - wanted) * math.log(1 - p)
            penalty += (abs(math.tanh(x)) - 1) ** 2
    return (total + weight * penalty) / (len(u) * len(u[0]))


def dpsh_by_loop(u, labels, weight):
    costs = [math.log(1 + math.exp(dot(u[i], u[j]) / 2)) - s * dot(u[i], u[j]) / 2 for i, j, s in pairs(labels)]
    penalty = [(x - (1 if x > 0 else -1)) ** 2 for row in u for x in row]
    return sum(costs) / len(costs) + weight * sum(penalty) / len(penalty)


def hashnet_by_loop(u, labels, beta):
    h = [[math.tanh(beta * x) for x in row] for row in u]
    costs = {0: [], 1: []}
    for i, j, s in pairs(labels):
        t = 10 / len(u[0]) * dot(h[i], h[j])
        costs[s].append(math.log(1 + math.exp(t)) - s * t)
    return sum(sum(some) / len(some) for some in costs.values())


def dqn_by_loop(u, labels, codewords, weight):
    z = [[x / math.sqrt(dot(row, row)) for x in row] for row in u]
    cosine = [((1 if s else -1) - dot(z[i], z[j])) ** 2 for i, j, s in pairs(labels)]
    size, error = len(codewords[0][0]), 0.0
    for row in z:
        for m, words in enumerate(codewords):
            part = row[m * size : (m + 1) * size]
            error += min(sum((a - b) ** 2 for a, b in zip(part, word)) for word in words)
    return sum(cosine) / len(cosine) + weight * error / len(z)


WORDS = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(7)).double() / 3
TARGETS = torch.randn(6, 8, generator=torch.Generator().manual_seed(8)).sign().double()
LOSSES = {
    "csq": (lambda u: joint.csq_loss(u, TARGETS, 0.3), lambda u: csq_by_loop(u, TARGETS.tolist(), 0.3)),
    "dpsh": (lambda u: joint.dpsh_loss(u, LABELS, 0.3), lambda u: dpsh_by_loop(u, LABELS.tolist(), 0.3)),
    "hashnet": (lambda u: joint.hashnet_loss(u, LABELS, 1.7), lambda u: hashnet_by_loop(u, LABELS.tolist(), 1.7)),
    "dqn": (lambda u: joint.dqn_loss(u, LABELS, WORDS, 0.3), lambda u: dqn_by_loop(u, LABELS.tolist(), WORDS.tolist(), 0.3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_that_of_a_loop_and_its_gradient_that_of_finite_differences(random, name):
    u = torch.randn(6, 8, generator=random).double().requires_grad_()
    loss, by_loop = LOSSES[name]
    assert float(loss(u).detach()) == pytest.approx(by_loop(u.tolist()), rel=1e-9)
    assert torch.autograd.gradcheck(loss, (u,))


@pytest.mark.parametrize("name", ["dpsh", "hashnet", "dqn"])
def test_a_batch_of_one_image_has_no_pairs(name):
    u = torch.ones(1, 8, dtype=torch.double)
    loss = {"dpsh": joint.dpsh_loss, "hashnet": joint.hashnet_loss}.get(name, lambda u, labels, w: joint.dqn_loss(u, labels, WORDS, w))
    assert float(loss(u, LABELS[:1], 0.0)) == 0


def test_the_schedules_of_the_methods(random):
    """HashNet: beta = sqrt(1 + 0.005 x 3 batches x epochs). DQN: no quantization term in the first epoch."""
    u, words = torch.randn(6, 8, generator=random), torch.randn(4, 4, 2, generator=random) / 3
    of_epochs = {name: [float(joint.METHODS[name](GIVEN).loss(u, LABELS, words, epoch)) for epoch in (0, 2)] for name in ("hashnet", "dqn")}
    labels = LABELS.tolist()
    expected = [hashnet_by_loop(u.tolist(), labels, beta) for beta in (1, math.sqrt(1.03))]
    assert of_epochs["hashnet"] == pytest.approx(expected, rel=1e-5)
    expected = [dqn_by_loop(u.tolist(), labels, words.tolist(), weight) for weight in (0, 0.3)]
    assert of_epochs["dqn"] == pytest.approx(expected, rel=1e-5)


# ----------------------------------------------------------------------------------------------------------------------------- training


def run(data, start, method, checkpoint=None, **others):
    """A network in training, from a checkpoint if given."""
    own = settings(method, **others)
    network = joint.network(own, given_data(data), 8, 5, start)

    def begin(epoch):
        network.begin(epoch, RECIPE, data[0].numpy(), 5)

    epochs = training.train(network, network.objective(RECIPE, False), given_data(data), RECIPE, 5, checkpoint, on_epoch=begin)
    return network, epochs


@pytest.mark.parametrize("method", names.FINE_TUNED)
def test_resuming_in_the_middle_ends_in_the_same_bits(data, start, method):
    whole, epochs = run(data, start, method)
    middle = [copy.deepcopy(checkpoint) for _, checkpoint in epochs][1]
    resumed, epochs = run(data, start, method, middle)
    assert [epoch.epoch for epoch, _ in epochs] == [2]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_every_method_begins_with_the_same_trained_weights_and_a_fixed_codebook_stays(data, start):
    trained = checkpoints.load_network(start).state_dict()
    for method in names.FINE_TUNED:
        network, epochs = run(data, start, method)
        for name, value in trained.items():
            assert torch.equal(network.backbone.trunk.state_dict()[name], value), (method, name)
        list(epochs)
        moved = network.backbone.trunk.state_dict()["body.0.0.weight"]
        assert not torch.equal(moved, trained["body.0.0.weight"])
        if method in names.HASHING:
            np.testing.assert_array_equal(network.codewords(), joint.hypercube(8, 4))
        if method == "dqn":  # k-means on the features of now
            network.begin(3, RECIPE, data[0].numpy(), 5)
            z = networks.extract(network.backbone.eval(), data[0].numpy(), torch.device("cpu"))
            order = torch.randperm(96, generator=torch.Generator().manual_seed(5)).numpy()
            np.testing.assert_allclose(network.codewords(), quantizer.fit(z[order], 4, 4, 5, 5).codewords, atol=1e-4)


@pytest.mark.parametrize("name", names.NETWORKS)
def test_any_network_gets_a_feature_of_its_bits_and_learns_in_all_layers(data, tmp_path, name):
    torch.manual_seed(1)
    path = str(tmp_path / "weights.pt")
    checkpoints.save_network(path, networks.build(name, 5, 0.01), name, 0.01, 5)
    network = joint.network(settings("csq", network=name), given_data(data), 8, 0, path)
    loss, logits = network.train().objective(RECIPE, True)(networks.pixels(data[0][:8]), data[1][:8].float(), 0)
    loss.backward()
    assert network.backbone.features(networks.pixels(data[0][:8])).shape == (8, 8) and logits.shape == (8, 3)
    trained = [one.grad is not None for key, one in network.named_parameters() if not key.startswith("backbone.trunk.head.")]
    assert all(trained) and network.backbone.trunk.head.weight.grad is None


def test_the_objective_adds_the_loss_of_classification_by_its_weight(data, start):
    network, _ = run(data, start, "dpsh")
    images, labels = networks.pixels(data[0][:8]), data[1][:8].float()
    value, logits = network.eval().objective(RECIPE, False)(images, labels, 0)
    u = network.backbone.features(images).detach()
    classified = training.classification_loss(logits, labels, False, 0.1)
    assert float(value.detach()) == pytest.approx(
        dpsh_by_loop(u.tolist(), labels.tolist(), 0.3) + 0.5 * float(classified.detach()), rel=1e-5
    )
    torch.testing.assert_close(logits, network(images))


def test_a_network_with_a_bottleneck_is_written_and_read(data, start, tmp_path):
    network, _ = run(data, start, "csq")
    checkpoints.save_network(tmp_path / "joint.pt", network.backbone, "alexnet", 0.01, 5)
    read = checkpoints.load_network(tmp_path / "joint.pt")
    images = networks.pixels(data[0][:4])
    torch.testing.assert_close(read.features(images), network.eval().backbone.features(images), rtol=0, atol=0)
    assert read.features(images).shape == (4, 8) and read(images).shape == (4, 3)


# ------------------------------------------------------------------------------------------------------------------- methods of the user

MINE = """
import types

def method(given):
    return types.SimpleNamespace(size=2 * given.bits, loss=lambda z, labels, codewords, epoch: (z**2).mean() + codewords.sum() * 0)

def network():
    import torch

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3072, 6)

        def features(self, images):
            return self.layer(images.flatten(1)).relu()

    return Own()
"""


def test_a_method_and_a_network_of_the_users_are_trained(data, tmp_path, monkeypatch):
    """No codewords: those of k-means on the features."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    brought = dict.fromkeys(("mine:method", "mine:network"), files.sha256(tmp_path / "mine.py"))
    torch.manual_seed(2)
    own = user_code.function("mine:network", brought["mine:network"])()
    checkpoints.save_network(tmp_path / "weights.pt", own, "mine:network", 1.0, None)
    network, epochs = run(data, str(tmp_path / "weights.pt"), "mine:method", brought=brought)
    list(epochs)
    assert network.codewords().shape == (4, 4, 4) and network.codewords().any()
    assert not torch.equal(network.backbone.trunk.layer.weight, own.layer.weight)
    checkpoints.save_network(tmp_path / "joint.pt", network.backbone, "mine:network", 1.0, None)
    assert checkpoints.load_network(tmp_path / "joint.pt", brought).features(networks.pixels(data[0][:4])).shape == (4, 16)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "the quantizer a:b must return an object with a function loss, but returned a NoneType"),
        ({"size": 8}, "an object with a function loss"),
        ({"size": 6, "loss": len}, "the quantizer a:b returned the size 6, but must return a multiple of 4, the sub-spaces"),
        (
            {"size": 8, "loss": len, "codewords": np.ones((4, 3, 2))},
            r"the quantizer a:b must return codewords as a numpy array \(4, 4, 2\)",
        ),
        ({"size": 8, "loss": len, "codewords": np.full((4, 4, 2), np.nan)}, "codewords with numbers that are NaN or infinite"),
        ({"size": 8, "loss": len, "codewords": np.full((4, 4, 2), 1e300)}, "numbers that are NaN or infinite as float32"),
        ({"size": 8, "loss": len, "encoder": "icm"}, "returned the encoder 'icm', but a joint method of yours may only return nearest"),
    ],
)
def test_a_wrong_method_of_the_users_is_refused(returned, words):
    found = returned if returned is None else types.SimpleNamespace(**returned)
    with pytest.raises(UserError, match=words):
        joint.by_user(lambda given: found, "a:b", GIVEN)


@pytest.mark.parametrize("loss", [3.0, torch.ones(()), torch.ones(2, requires_grad=True), torch.tensor(math.nan, requires_grad=True)])
def test_a_wrong_loss_of_the_users_is_refused(data, loss):
    method = joint.Method(8, lambda z, labels, codewords, epoch: loss)
    backbone = networks.Bottleneck(networks.build("alexnet", 3, 0.01), names.feature_size("alexnet", 0.01), 8, 3)
    network = joint.FineTuned(backbone, method, GIVEN, 5, 1.0, "a:b")
    with pytest.raises(UserError, match="the loss of a:b must return one finite number"):
        network.objective(RECIPE, False)(networks.pixels(data[0][:4]), data[1][:4].float(), 0)
