"""DPQ and DTQ: losses against loops and finite differences, codewords against least squares, codes by logits and by distance."""

import itertools
import math

import numpy as np
import pytest
import torch

from pqag import codebooks, encoders, learned, networks, quantizer

from .test_joint import LABELS, dot, run, start  # noqa: F401

M, K, D = 2, 5, 8


def unit(count: int, seed: int = 0) -> np.ndarray:
    z = np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def random_dpq(epochs: int = 2) -> learned.Dpq:
    torch.manual_seed(3)
    layer = learned.Dpq((M, K, D), 3, epochs, 0.3).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def dpq_by_loop(u, labels, layer):
    """The loss of DPQ in its second half, number by number."""
    words, weights, biases, centres = (one.tolist() for one in (layer.codewords, layer.weights, layer.biases, layer.centres))
    matrix, offset = layer.classifier.weight.tolist(), layer.classifier.bias.tolist()
    entropy = central = sample = 0.0
    means = [[0.0] * K for _ in range(M)]
    for row, label in zip(u, labels):
        soft, hard = [], []
        for m in range(M):
            part = row[m * D // M : (m + 1) * D // M]
            length = math.sqrt(dot(part, part))
            exponentials = [math.exp(dot(w, part) / length + b) for w, b in zip(weights[m], biases[m])]
            p = [e / sum(exponentials) for e in exponentials]
            soft += [sum(p[k] * words[m][k][i] for k in range(K)) for i in range(D // M)]
            hard += words[m][p.index(max(p))]
            sample += sum(one**2 for one in p) / M / len(u)
            means[m] = [mean + one / len(u) for mean, one in zip(means[m], p)]
        target = [one / sum(label) for one in label]
        centre = [dot(target, column) for column in zip(*centres)]
        for z in (soft, hard):
            logits = [dot(w, z) + b for w, b in zip(matrix, offset)]
            total = math.log(sum(math.exp(one) for one in logits))
            entropy += sum(t * (total - one) for t, one in zip(target, logits)) / len(u)
            central += sum((a - b) ** 2 for a, b in zip(z, centre)) / 2 / len(u)
    batch = sum(one**2 for mean in means for one in mean) / M
    return entropy + 0.3 * central + learned.GINI * (batch - sample)


def test_the_loss_of_dpq_is_that_of_a_loop():
    layer, u = random_dpq(), torch.randn(6, D, generator=torch.Generator().manual_seed(0)).double()
    value = layer.loss(u, LABELS.double(), 1)
    assert float(value.detach()) == pytest.approx(dpq_by_loop(u.tolist(), LABELS.tolist(), layer), rel=1e-9)


def test_a_hard_representation_of_dpq_passes_the_gradient_of_the_soft_one():
    """By the assignment; by codewords it has its own, which is 1 for the one that it is."""
    layer, u = random_dpq(), torch.randn(6, D).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: layer.representations(u)[1], (u,))
    _, soft, hard = layer.representations(u)
    by_feature = [torch.autograd.grad(one.sum(), u, retain_graph=True)[0] for one in (soft, hard)]
    torch.testing.assert_close(*by_feature)
    [by_codewords] = torch.autograd.grad(hard.sum(), layer.codewords)
    counts = np.stack([np.bincount(column, minlength=K) for column in encode(layer, u.detach().float().numpy()).T])
    np.testing.assert_allclose(by_codewords[:, :, 0], counts, atol=1e-12)


def encode(layer, features):
    return encoders.encode(features, layer.codewords.detach().float().numpy(), "argmax", layer.logits)


def test_in_its_first_half_dpq_classifies_features_and_moves_centres_alone():
    layer, u = random_dpq(), torch.randn(6, D, dtype=torch.double, requires_grad=True)
    layer.loss(u, LABELS.double(), 0).backward()
    moved = {name for name, one in layer.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == {"classifier.weight", "classifier.bias", "centres"} and u.grad.any()


def test_dpq_begins_with_the_nearest_codewords_and_departs(data, start):  # noqa: F811
    """The share of codes that are also those of the nearest codeword: at first but for ties all, then fewer."""
    network, epochs = run(data, start, "dpq")
    z = networks.extract(network.eval().backbone, data[0].numpy(), torch.device("cpu"))
    network.learned.begin(1, lambda: z, 5, 5)
    shares = []
    for _ in range(2):
        words = network.codewords().detach().numpy()
        codebook = codebooks.Codebook(words, None, None, None, network.encoder, network.logits)
        parts = networks.normalise(torch.from_numpy(z), 4).numpy()
        shares.append((codebooks.encode(codebook, z) == quantizer.encode(parts, words)).mean())
        list(epochs)
        z = networks.extract(network.eval().backbone, data[0].numpy(), torch.device("cpu"))
    assert shares[0] > 0.95 > shares[1]
    learned_words, learned_logits = network.codewords().detach().clone(), network.logits
    for epoch in (2, 3):  # its second half began with epoch 1, so nothing is fitted again
        network.learned.begin(epoch, lambda: z, 5, 5)
    assert torch.equal(network.codewords(), learned_words) and np.array_equal(network.logits, learned_logits)


def test_triplets_are_hard_ones_of_the_batch():
    """The cost of a pair is that of one of the negatives that violate the margin; over many draws the mean is that of all of these."""
    z = torch.randn(6, D, generator=torch.Generator().manual_seed(0)).double() / 3
    similar = [[any(a and b for a, b in zip(x, y)) for y in LABELS.tolist()] for x in LABELS.tolist()]
    choices = []
    for a, p in itertools.permutations(range(6), 2):
        costs = [float(((z[a] - z[p]) ** 2).sum() - ((z[a] - z[n]) ** 2).sum()) + 0.5 for n in range(6) if not similar[a][n]]
        if similar[a][p] and any(cost > 0 for cost in costs):
            choices.append([cost for cost in costs if cost > 0])
    possible = {round(sum(one) / len(one), 9) for one in itertools.product(*choices)}
    torch.manual_seed(0)
    drawn = [float(learned.group_hard(z, LABELS.double(), 0.5)) for _ in range(400)]
    assert {round(one, 9) for one in drawn} <= possible and len(set(drawn)) > 3
    assert np.mean(drawn) == pytest.approx(np.mean([np.mean(one) for one in choices]), rel=0.05)
    far = torch.eye(6, D).double() * 9 + LABELS[:, :1].double()
    assert float(learned.group_hard(far[:1], LABELS[:1].double(), 0.5)) == 0


def test_the_codewords_of_dtq_are_the_least_squares_and_dead_ones_stay():
    z = unit(40).astype(float)
    codes = np.random.default_rng(1).integers(0, K - 1, (40, M))  # the last codeword has no feature
    kept = np.random.default_rng(2).standard_normal((M, K, D))
    found = learned.ridge(z, codes, kept)
    one_hot = np.concatenate([np.eye(K)[codes[:, m]] for m in range(M)], axis=1)
    rows = np.concatenate([one_hot, math.sqrt(1e-3) * np.eye(M * K)])
    expected = np.linalg.lstsq(rows, np.concatenate([z, np.zeros((M * K, D))]), rcond=None)[0].reshape(M, K, D)
    np.testing.assert_allclose(found[:, : K - 1], expected[:, : K - 1], atol=1e-9)
    np.testing.assert_array_equal(found[:, K - 1], kept[:, K - 1])


def test_the_codewords_of_dtq_are_those_of_sub_spaces_and_then_full_length():
    """In the first epoch there is no quantization term, and later it is the mean squared distance to what ICM finds."""
    z, layer = unit(60), learned.Dtq((M, K, D), 4, 0.3)
    errors, before = [], None
    for epoch in range(5):
        layer.begin(epoch, lambda: z, 5, 10)
        words = layer.codewords.numpy()
        if epoch > 2:  # three rounds of codes and codewords, one after the other
            for _ in range(3):
                before = learned.ridge(z, encoders.encode(z, before, "icm").astype(int), before)
            np.testing.assert_allclose(words, before, atol=1e-5)
        before = words.astype(float)
        outside = [np.abs(words[m]).sum(0).reshape(M, -1)[1 - m].max() for m in range(M)]
        assert (max(outside) > 0) == (epoch >= 2)
        codes = encoders.encode(z, words, "icm")
        errors.append(((z - encoders.decode(codes, words, "icm")) ** 2).sum(1).mean())
    assert errors[0] == errors[1] > errors[2] > errors[4]
    u = torch.from_numpy(3 * z)
    labels = torch.eye(3)[torch.arange(60) % 3]
    values = []
    for epoch in (0, 3):
        torch.manual_seed(0)
        values.append(float(layer.loss(u, labels, epoch)))
    assert values[1] - values[0] == pytest.approx(0.3 * errors[4], rel=1e-4)
