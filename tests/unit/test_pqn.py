"""The jointly trained victim: soft layer against a scalar loop and its limit, losses against loops, gradients by finite differences."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pqag import networks, pqn, quantizer, training

LOSS = {"alpha": 5.0, "loss": "sigmoid", "margin": 0.5, "intra_normalisation": True, "classification": 1.0, "warm_up": 0.5}
JOINT = pqn.Joint(subspaces=4, codewords=8, iterations=5, **LOSS)
RECIPE = training.Recipe(4, 32, 0.05, 0.9, 5e-4, 0.1, 2, True, "float32")


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def network(joint=JOINT):
    torch.manual_seed(1)
    return pqn.ProductQuantizationNetwork(networks.build("alexnet", 3, width=0.01), joint)


def soft_by_loop(z, codewords, alpha):
    """One number at a time: softmax(-alpha ||z_m - c_mk||^2), then the mean of the codewords under it."""
    subspaces, count, size = codewords.shape
    result = []
    for row in z:
        for m in range(subspaces):
            part = row[m * size : (m + 1) * size]
            weights = [math.exp(-alpha * sum((part[d] - codewords[m][k][d]) ** 2 for d in range(size))) for k in range(count)]
            result += [sum(weights[k] * codewords[m][k][d] for k in range(count)) / sum(weights) for d in range(size)]
    return np.reshape(result, z.shape)


@pytest.mark.parametrize("alpha", [0.3, 5])
def test_soft_quantization_is_the_mean_of_codewords_by_nearness(random, alpha):
    z, codewords = torch.rand(3, 8, generator=random).double(), torch.rand(2, 5, 4, generator=random).double()
    expected = soft_by_loop(z.numpy(), codewords.numpy(), alpha)
    np.testing.assert_allclose(pqn.soft_quantize(z, codewords, alpha).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1, 0.2])
def test_it_tends_to_the_nearest_codeword(random, scale):
    """Whether codewords have norm 1 or any length: Eq. 1."""
    z, codewords = torch.randn(50, 12, generator=random).double(), scale * torch.randn(3, 16, 4, generator=random).double()
    hard = quantizer.decode(quantizer.encode(z.numpy(), codewords.numpy()), codewords.numpy())
    gaps = [float((pqn.soft_quantize(z, codewords, alpha) - torch.from_numpy(hard)).abs().mean()) for alpha in (10, 1000, 1e7)]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-12


def triplets_by_loop(z, quantized, labels, cost):
    """Every triplet by itself."""
    costs = []
    for a in range(len(z)):
        for p in range(len(z)):
            for n in range(len(z)):
                shared = [any(x and y for x, y in zip(labels[a], labels[i])) for i in (p, n)]
                if p != a and shared == [True, False]:
                    costs.append(cost(float(z[a] @ quantized[n]) - float(z[a] @ quantized[p])))
    return sum(costs) / len(costs)


COSTS = {
    "sigmoid": lambda difference: 1 / (1 + math.exp(-difference)),
    "hinge": lambda difference: max(0.0, difference + 0.5),
    "softplus": lambda difference: math.log(1 + math.exp(difference)),
}


@pytest.mark.parametrize("loss", pqn.LOSSES)
def test_the_loss_is_the_mean_over_all_triplets(random, loss):
    """With several labels too: the second image shares one with the first and one with the third."""
    z, quantized = torch.randn(2, 6, 4, generator=random).double()
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]).float()
    expected = triplets_by_loop(z, quantized, labels.tolist(), COSTS[loss])
    assert float(pqn.triplet_loss(z, quantized, labels, loss, 0.5)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("labels", [[[1, 0]] * 3, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]])
def test_a_batch_without_triplets_costs_nothing(labels):
    z = torch.ones(3, 4, requires_grad=True)
    loss = pqn.triplet_loss(z, z * 2, torch.tensor(labels).float(), "sigmoid", 0)
    loss.backward()
    assert float(loss) == 0 and not z.grad.any()


@pytest.mark.parametrize("loss", pqn.LOSSES)
@pytest.mark.parametrize("intra", [True, False])
def test_the_gradient_is_that_of_finite_differences(random, loss, intra):
    """By the raw features and by the free codewords, through normalisation, soft layer and loss."""
    free = torch.randn(2, 5, 3, generator=random).double().requires_grad_()
    raw = torch.randn(5, 6, generator=random).double().requires_grad_()
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]]).float()

    def value(raw, free):
        z = networks.normalise(raw, 2 if intra else 1)
        codewords = F.normalize(free, dim=2) if intra else free
        return pqn.triplet_loss(z, pqn.soft_quantize(z, codewords, 2.0), labels, loss, 0.7)

    assert torch.autograd.gradcheck(value, (raw, free))


def test_sub_vectors_and_codewords_have_norm_1_only_with_intra_normalisation(data):
    for intra, groups in ((True, 4), (False, 1)):
        joint = pqn.Joint(**{**vars(JOINT), "intra_normalisation": intra})
        net = network(joint)
        net.start_codebook(data[0].numpy(), seed=0)
        assert net.backbone.feature_groups == groups
        z = networks.features(net.backbone.eval(), networks.pixels(data[0][:5]))
        norms = z.reshape(5, groups, -1).norm(dim=2)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        lengths = net.codewords().norm(dim=2)
        assert torch.allclose(lengths, torch.ones_like(lengths)) is intra


@pytest.mark.parametrize(("images", "for_each"), [(10_000, 20), (40, 2), (16, 5)])
def test_the_codebook_begins_as_k_means_on_the_networks_own_features(data, monkeypatch, images, for_each):
    """Of all 96 images where these are fewer, of 40, or of 5 for each of the 8 codewords."""
    monkeypatch.setattr(pqn, "IMAGES_OF_START", images)
    monkeypatch.setattr(pqn, "FOR_EACH_CODEWORD", for_each)
    net = network()
    net.start_codebook(data[0].numpy(), seed=3)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(3))[: 96 if images > 96 else 40]
    with torch.no_grad():
        features = networks.normalise(net.backbone.eval().features(networks.pixels(data[0][order])), 4).numpy()
    fit = quantizer.fit(features, 4, 8, 3, 5)
    np.testing.assert_allclose(net.free_codewords.detach().numpy(), fit.codewords, atol=1e-5)


def test_the_warm_up_is_a_share_of_the_epochs_rounded_down_but_at_least_one():
    """0.58 of 50 epochs are 29, though their product is 28.999… in floating point."""
    for warm_up, epochs, first in ((0.58, 50, 29), (0.5, 3, 1), (0.2, 4, 1), (0.5, 1, 1), (0.0, 4, 0), (0.0, 1, 0)):
        net = network(dataclasses.replace(JOINT, warm_up=warm_up))
        assert net.begins_at(dataclasses.replace(RECIPE, epochs=epochs)) == first


def run(data, checkpoint=None):
    """A network in training, from a checkpoint if given, and the codebooks that it begins with, by the epoch."""
    net, began = network(), {}

    def begin(epoch):
        before = net.free_codewords.detach().clone()
        net.begin(epoch, RECIPE, data[0].numpy(), 5)
        if not torch.equal(before, net.free_codewords):
            began[epoch] = net.codewords().detach().clone()

    given = training.Data(data[0].numpy(), data[1], lambda: [data], False, "")
    return net, training.train(net, net.objective(RECIPE, False), given, RECIPE, 5, checkpoint, on_epoch=begin), began


def test_it_learns_codebook_and_network_together(data):
    """Classification alone in the first half of the epochs; then the codebook begins, once, and moves with the weights."""
    net, epochs, began = run(data)
    assert [next(epochs)[0].epoch for _ in range(2)] == [0, 1]
    assert not net.free_codewords.any() and not began
    assert [epoch.epoch for epoch, _ in epochs] == [2, 3]
    assert list(began) == [2]
    assert float((net.codewords().detach() - began[2]).norm(dim=2).max()) > 1e-5  # rounding is below 1e-7


@pytest.mark.parametrize("done", [0, 1, 2])
def test_resuming_ends_in_the_same_bits(data, done):
    """Before the codebook begins, when it begins next, and when it has begun."""
    whole, epochs, _ = run(data)
    checkpoints = [copy.deepcopy(checkpoint) for _, checkpoint in epochs]
    resumed, epochs, began = run(data, checkpoints[done])
    assert [epoch.epoch for epoch, _ in epochs] == list(range(done + 1, 4))
    assert list(began) == ([2] if done < 2 else [])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_without_classification_its_head_learns_nothing_after_the_warm_up(data):
    joint = pqn.Joint(**{**vars(JOINT), "classification": 0.0, "warm_up": 0.0})
    net = network(joint)
    net.start_codebook(data[0].numpy(), 0)
    loss, _ = net.train().objective(RECIPE, False)(networks.pixels(data[0][:32]), data[1][:32].float(), 0)
    loss.backward()
    assert not net.backbone.head.weight.grad.any() and net.free_codewords.grad.any() and net.backbone.body[0][0].weight.grad.any()


def test_a_feature_that_sub_vectors_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="cannot be cut into 3"):
        network(pqn.Joint(**{**vars(JOINT), "subspaces": 3}))


@pytest.mark.parametrize(
    ("alpha", "loss", "margin", "weight"), [(5, "sigmoid", 0.5, 1.0), (0.7, "hinge", 0.3, 0.25), (2, "softplus", 0, 3)]
)
def test_the_objective_is_that_of_its_settings(data, alpha, loss, margin, weight):
    """Un-quantized anchors against quantized items, by loops, and the weighted classification loss; before the warm-up ends the latter."""
    joint = pqn.Joint(**{**vars(JOINT), "alpha": alpha, "loss": loss, "margin": margin, "classification": weight})
    net = network(joint)
    with torch.no_grad():
        net.free_codewords.copy_(torch.randn(net.free_codewords.shape, generator=torch.Generator().manual_seed(4)))
        for parameter in net.backbone.parameters():  # features that differ
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    images, labels = networks.pixels(data[0][:8]), data[1][:8].float()
    value, logits = net.eval().objective(RECIPE, False)(images, labels, 2)
    z = networks.normalise(net.backbone.features(images), 4).detach().double()
    quantized = torch.from_numpy(soft_by_loop(z.numpy(), net.codewords().detach().double().numpy(), alpha))
    cost = {**COSTS, "hinge": lambda difference: max(0.0, difference + margin)}[loss]
    classified = float(F.cross_entropy(logits, labels, label_smoothing=0.1))
    expected = triplets_by_loop(z, quantized, labels.tolist(), cost) + weight * classified
    assert float(value) == pytest.approx(expected, rel=1e-5)
    swapped = triplets_by_loop(quantized, z, labels.tolist(), cost) + weight * classified
    assert abs(swapped - expected) > 3e-5, "the data tell anchors from items"
    assert float(net.objective(RECIPE, False)(images, labels, 1)[0]) == pytest.approx(classified, rel=1e-6)
