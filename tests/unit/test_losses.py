"""Losses of attacks: against scalar loops, and gradients against finite differences."""

import itertools
import math
from dataclasses import replace

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


#: Codes that losses aim at, one row for each query.
GOALS = torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0], [1, 2]])


def scalar_loss(name, x, y, goals, head):
    """A loss for a query and its clean self by plain loops: Eq. 3, 8 and 9, and the others from their definitions."""
    if name == "basic":
        return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y))
    codewords = head.codewords.tolist()
    p, p_clean = (scalar_distribution(z, codewords, head.temperature) for z in (x, y))
    codes = [max(range(K), key=lambda k, m=m: p_clean[m][k]) for m in range(M)]
    if name == "aod":
        return -sum(p_clean[m][k] * math.log(p[m][k]) for m in range(M) for k in range(K))
    if name in ("apd", "centre", "p2p", "dhta"):
        towards = sum(math.log(p[m][k]) for m, k in enumerate(codes if name == "apd" else goals))
        return -towards if name in ("apd", "centre") else towards
    if name in ("margin", "clipped_margin"):
        scores = [[head.temperature * math.log(p[m][k]) for k in range(K)] for m in range(M)]  # but for a constant of each sub-space
        margins = [max(s for k, s in enumerate(scores[m]) if k != codes[m]) - scores[m][codes[m]] for m in range(M)]
        return sum(margins if name == "margin" else (min(one, 0) for one in margins))
    cosines, kept = [], []
    for m, code in enumerate(codes):
        soft = [sum(p[m][k] * codewords[m][k][i] for k in range(K)) for i in range(D // M)]
        cosines.append(sum(a * b for a, b in zip(soft, codewords[m][code])) / sum(b * b for b in codewords[m][code]))
        kept += [cosines[-1]] if p[m][code] - max(p[m][k] for k in range(K) if k != code) > -0.5 else []
    above = sum(kept or cosines) / len(kept or cosines) + 1
    return -above * abs(above)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("name", names.LOSSES)
def test_losses_by_plain_loops(head, name, temperature):
    head = replace(head, temperature=temperature, goals=GOALS)
    z, clean = features(1), features(2)
    expected = [scalar_loss(name, x, y, goals, head) for x, y, goals in zip(z, clean, GOALS.tolist())]
    assert getattr(losses, name)(z, clean, head).tolist() == pytest.approx(expected)


def test_the_mask_of_hag_leaves_out_what_has_changed_until_all_has(head):
    """Of a query with the code (0, 0) at the codewords of (1, 0), only the second sub-space counts; at those of (1, 1) both."""
    head = losses.Head(torch.tensor([[[2.0, 0], [0, 2], [0, -2]]] * 2, dtype=torch.float64), temperature=0.01)
    clean, one, both = torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, -1]], dtype=torch.float64)[:, None]
    assert losses.hag(clean, clean, head).tolist() == [-4]
    assert losses.hag(one, clean, head).tolist() == [-4] and losses.hag(both, clean, head).tolist() == [-1]


@pytest.mark.parametrize("progress", [0.0, 0.4, 0.55, 0.69, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("bits", [1, 2])
def test_hag_on_sign_patterns_is_the_published_loss_on_bits(progress, bits):
    """(sum of w s tanh(alpha u) / sum of w + 1)^2 to be made small, w = 1 where |tanh(alpha u) - s| < 1.5; at T = g on raw features."""
    g, signs = 0.25, torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)), dtype=torch.float64)
    head = losses.Head(torch.stack([g * signs] * (4 // bits)), temperature=g, progress=progress)
    u, clean = 3 * features(1), 3 * features(2)
    alpha = {0.0: 0.1, 0.4: 0.1, 0.55: 0.2, 0.69: 0.3, 0.8: 0.7, 0.95: 1, 1.0: 1}[progress]
    expected = []
    for row, own in zip(u.tolist(), clean.tolist()):
        soft, s = [math.tanh(alpha * v) for v in row], [math.copysign(1, v) for v in own]
        w = [abs(a - b) < 1.5 for a, b in zip(soft, s)]
        w = w if any(w) else [True] * 4
        expected.append(-((sum(a * b for a, b, on in zip(soft, s, w) if on) / sum(w) + 1) ** 2))
    assert losses.hag(u, clean, head).tolist() == pytest.approx(expected)


def test_margin_is_above_zero_where_the_code_changed(head):
    z, clean = features(1, 200), features(2, 200)
    for m, assignment in itertools.product(range(M), ("inner_product", "euclidean")):
        one = losses.Head(head.codewords[m : m + 1], assignment)
        part = slice(m * D // M, (m + 1) * D // M)
        changed = one.codes(z[:, part]) != one.codes(clean[:, part])
        assert torch.equal(losses.margin(z[:, part], clean[:, part], one) > 0, changed[:, 0]) and 0 < changed.sum() < 200


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
    aimed = replace(head, goals=GOALS)
    assert torch.autograd.gradcheck(lambda z: getattr(losses, name)(z, clean, aimed), (z,))
