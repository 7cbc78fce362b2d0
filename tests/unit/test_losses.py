"""Losses of attacks: against scalar loops, and gradients against finite differences."""

import math

import numpy as np
import pytest
import torch

from pqag import losses, names

M, K, D = 2, 3, 4


@pytest.fixture
def head():
    return losses.Head(torch.tensor(np.random.default_rng(0).normal(size=(M, K, D // M))))


def features(seed, count=5):
    z = torch.tensor(np.random.default_rng(seed).normal(size=(count, D)))
    return torch.nn.functional.normalize(z, dim=1)


def scalar_distribution(z, codewords, temperature=1.0):
    """p[m][k] of Eq. 7 by plain loops."""
    p = []
    for m in range(M):
        z_m = [float(v) for v in z[m * D // M : (m + 1) * D // M]]
        exponentials = [math.exp(sum(a * float(b) for a, b in zip(z_m, codewords[m][k])) / temperature) for k in range(K)]
        p.append([e / sum(exponentials) for e in exponentials])
    return p


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_distribution_is_equation_7(head, temperature):
    z = features(1)
    head = losses.Head(head.codewords, temperature=temperature)
    for row, logs in zip(z, head.log_distribution(z)):
        assert np.allclose(logs.exp(), scalar_distribution(row, head.codewords, temperature), atol=1e-14)


def scalar_loss(name, x, y, codewords):
    """Eq. 3, 8 and 9 for a query and its clean self by plain loops."""
    if name == "basic":
        return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y))
    p, p_clean = scalar_distribution(x, codewords), scalar_distribution(y, codewords)
    if name == "apd":
        return -sum(math.log(p[m][max(range(K), key=lambda k, m=m: p_clean[m][k])]) for m in range(M))
    return -sum(p_clean[m][k] * math.log(p[m][k]) for m in range(M) for k in range(K))


@pytest.mark.parametrize("name", ["basic", "apd", "aod"])
def test_losses_are_those_of_the_paper(head, name):
    z, clean = features(1), features(2)
    expected = [scalar_loss(name, x, y, head.codewords) for x, y in zip(z, clean)]
    assert getattr(losses, name)(z, clean, head).tolist() == pytest.approx(expected)


def test_hard_assignment_by_inner_product_and_by_distance_differ_where_norms_do():
    """z = 1 between codewords 1 and 3: the nearest is 1 (distance 0 against 2), the largest product is with 3."""
    codewords = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    z = torch.tensor([[1.0]], dtype=torch.float64)
    assert losses.Head(codewords, "inner_product").codes(z).tolist() == [[1]]
    assert losses.Head(codewords, "euclidean").codes(z).tolist() == [[0]]


@pytest.mark.parametrize("name", names.LOSSES)
def test_gradient_by_finite_differences(name, head):
    clean = features(2)
    z = features(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: getattr(losses, name)(z, clean, head), (z,))
