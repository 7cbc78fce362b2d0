"""Attacks on a black box: the system against exact retrieval, losses by hand, methods against the texts of their papers."""

import numpy as np
import pytest
import torch

from pqag import additive, attacks, black_box, codebooks, names, retrieval
from pqag.codebooks import Codebook
from pqag.errors import UserError

from .test_methods import GREY, linear

RNG = np.random.default_rng(0)
ROTATION = np.linalg.qr(RNG.normal(size=(8, 8)))[0].astype(np.float32)
FULL = Codebook(RNG.normal(size=(2, 5, 4)).astype(np.float32), RNG.integers(0, 5, (200, 2)).astype(np.uint8), np.arange(200), ROTATION)


@pytest.mark.parametrize("distance", retrieval.DISTANCES)
def test_the_system_returns_what_exact_retrieval_ranks_first(distance):
    z = RNG.normal(size=(6, 8))
    first, far = black_box.System(FULL, 30, distance)(torch.from_numpy(z))
    turned = FULL.rotated(z)
    assert np.array_equal(first, retrieval.nearest(turned, FULL.codewords, FULL.codes, 30, distance))
    squares = retrieval.distances(turned, FULL.codes, FULL.codewords, distance)
    np.testing.assert_allclose(far, np.sqrt(np.take_along_axis(squares, first.numpy(), 1)))
    assert black_box.System(FULL, 999, distance)(torch.from_numpy(z))[0].shape == (6, 200)


@pytest.mark.parametrize("distance", retrieval.DISTANCES)
def test_the_system_knows_codes_that_are_sums_of_codewords(distance):
    z = RNG.normal(size=(300, 8)).astype(np.float32)
    fit = additive.rq(z, 4, 16, 0)
    sums = Codebook(fit.codewords, fit.codes, np.arange(300), None, fit.encoder)
    first, far = black_box.System(sums, 30, distance)(torch.from_numpy(z[:6].astype(np.float64)))
    assert np.array_equal(first, codebooks.nearest(sums, z[:6].astype(np.float64), 30, distance))
    items = fit.codewords.astype(float)[np.arange(4), fit.codes].sum(1)
    queries = z[:6].astype(float) if distance == "ADC" else items[:6]
    squares = ((queries[:, None] - items) ** 2).sum(2)
    np.testing.assert_allclose(far**2, np.sort(squares, 1)[:, :30], atol=1e-5)


#: Four items at 0, 1, 1 and 4 of a line, and the queries 0.1 and 2.9.
LINE = Codebook(np.array([[[0], [1], [4]]], np.float32), np.array([[1], [0], [2], [1]], np.uint8), np.arange(4))
CLEAN, MOVED = torch.tensor([[0.1]], dtype=torch.float64), torch.tensor([[2.9]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("items", "distance", "ranks", "distances"),
    [
        # First are the item at 0 and the earlier one at 1; then 4 and that at 1, of the weights 2 and 1.
        (2, "ADC", 1 - 1 / 3, (1.9 + 1.9) / 2),
        # As 4, the query has it first, at 0; then that at 1, at 3.
        (2, "SDC", 1 - 1 / 3, 3),
        # All four were returned: 0, 1, 1, 4 and then 4, 1, 1, 0.
        (4, "ADC", 0, (2.9 + 1.9 + 1.9 + 1.1) / 4),
    ],
)
def test_losses_of_answers_by_hand(items, distance, ranks, distances, monkeypatch):
    monkeypatch.setattr(black_box, "PART", 1)
    for loss, wanted in ((black_box.ranks, ranks), (black_box.distances, distances)):
        of = loss(torch.cat([MOVED, CLEAN]), LINE, items, distance)  # of two parts, the second by hand
        assert of(torch.cat([MOVED, MOVED]))[1].tolist() == pytest.approx(wanted)
    assert black_box.ranks(CLEAN, LINE, items, distance)(CLEAN).tolist() == [0]


class Asked:
    """A loss with generators, and all that it was asked for."""

    def __init__(self, function, seeds=(1,)):
        self.function, self.draws, self.asked = function, [np.random.default_rng(seed) for seed in seeds], []

    def __call__(self, images):
        self.asked.append(images.clone())
        return self.function(images)


def test_random_groups_of_one_pixel_each_give_the_gradient_and_one_group_its_sum():
    """Gradient (3, 0, -1): two steps of 0.1 along (+, 0, -); as one group 3 + 0 - 1 > 0 moves all pixels up."""
    zero = torch.zeros_like(GREY)
    for groups, wanted in ((3, [0.7, 0.5, 0.3]), (1, [0.7, 0.7, 0.7])):
        loss = Asked(linear(3, 0, -1))
        found = black_box.random_groups(loss, GREY, zero, 0.3, 0.1, 2, directions=groups, probe=5.1)
        assert found.flatten().tolist() == pytest.approx(wanted) and len(loss.asked) == 4 * groups
    assert loss.asked[0].flatten().tolist() == pytest.approx([0.52] * 3) and loss.asked[1].flatten().tolist() == pytest.approx([0.48] * 3)


def test_nes_steps_along_the_sum_of_directions_times_differences():
    """For a linear loss a difference is 2 x probe x <w, u>; the ball cuts at 0.15."""
    weights, loss = np.array([3.0, -0.5, -1.0]), Asked(linear(3, -0.5, -1))
    found = black_box.nes(loss, GREY, torch.zeros_like(GREY), 0.15, 0.1, 2, directions=4, probe=2.55)
    draw, x = np.random.default_rng(1), np.zeros(3)
    for _ in range(2):
        directions = [draw.standard_normal((3, 1, 1), np.float32).ravel() for _ in range(4)]
        x = np.clip(x + 0.1 * np.sign(sum((0.02 * weights @ u) * u for u in directions)), -0.15, 0.15)
    assert found.flatten().tolist() == pytest.approx((0.5 + x).tolist()) and len(loss.asked) == 2 * 2 * 4


def by_the_paper(loss, clean, epsilon, steps, draw):
    """Square attack on one image, (C, H, W), by plain loops over pixels: Algorithms 1 and 2, stripes at the start."""
    channels, height, width = clean.shape

    def changed(x, top, left, side, signs):
        x = x.copy()
        for c in range(channels):
            for i in range(top, top + side):
                for j in range(left, left + side):
                    x[c, i, j] = np.float32(min(max(clean[c, i, j] + np.float32(epsilon) * np.float32(signs[c]), 0), 1))
        return x

    stripes = draw.choice([-1.0, 1.0], (channels, 1, width))
    best = np.clip(clean + np.float32(epsilon) * stripes.astype(np.float32), 0, 1)
    value = loss(best)
    for i in range(steps):
        share = 0.8
        for published in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000):
            share /= 2 if i * 10_000 / steps > published else 1
        side = max(1, round((share * height * width) ** 0.5))
        top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
        for _ in range(10):
            tried = changed(best, top, left, side, draw.choice([-1.0, 1.0], (channels, 1, 1)).ravel())
            if (tried != best).any():
                break
        if loss(tried) > value:
            best, value = tried, loss(tried)
    return best


def test_square_is_that_of_the_paper():
    clean = np.random.default_rng(5).random((2, 3, 6, 5)).astype(np.float32)
    weights = np.random.default_rng(6).normal(size=(3, 6, 5))

    def value(x):
        return float((np.sin(9 * x.astype(np.float64)) * weights).sum())

    loss = Asked(lambda images: torch.tensor([value(x) for x in images.numpy()]), seeds=(7, 8))
    found = black_box.square(loss, torch.from_numpy(clean), None, 0.1, 1.0, 60)
    assert len(loss.asked) == 61
    for image, seed, got in zip(clean, (7, 8), found.numpy()):
        wanted = by_the_paper(value, image, 0.1, 60, np.random.default_rng(seed))
        assert np.array_equal(got, wanted) and value(got) > value(image)


def test_the_sides_of_squares_by_hand():
    """Of 1000 steps on 32 pixels: sqrt(0.8 x 1024) = 28.6; half of that share beyond 0.1 %, a 512th beyond 80 %, at least a pixel."""
    sides = {i: black_box.square_side(i, 1000, 32, 32) for i in (0, 1, 2, 5, 6, 20, 21, 800, 801, 999)}
    assert sides == {0: 29, 1: 29, 2: 20, 5: 20, 6: 14, 20: 14, 21: 10, 800: 2, 801: 1, 999: 1}
    assert black_box.square_side(0, 10, 4, 40) == 4


@pytest.mark.parametrize(("method", "budget", "steps"), [("nes", 51, 1), ("nes", 50, 0), ("random_groups", 1000, 19), ("square", 3, 1)])
def test_steps_within_a_budget_by_hand(method, budget, steps):
    """One request is of the clean image; a step of 25 directions takes 50, and Square one besides that of its stripes."""
    assert names.steps_within(method, budget, 25) == steps
    assert not steps or names.requests(method, steps, 25) <= budget


def attacked(victim, batch_size=250, codes=200, seed=3, **changes):
    """Adversarial images of the victim, and the health, of an attack on the system with a database of random codes."""
    network, codewords, images, ids = victim
    codebook = Codebook(codewords, np.random.default_rng(1).integers(0, 6, (codes, 4)).astype(np.uint8), np.arange(codes))
    given = {"loss": "distances", "epsilon": 8, "step": 2.55, "method": "nes", "items": 20, "budget": 21} | changes
    options = {"directions": 5, "probe": 4.0} if given["method"] in ("nes", "random_groups") else {}
    steps = names.steps_within(given["method"], given["budget"], 5) if given["method"] in names.BLACK_BOX else 3
    chosen = attacks.Attack(**{"iterations": steps, "options": options} | given)
    return attacks.attack(network, codebook, images, ids, chosen, seed, batch_size=batch_size)[::2]


@pytest.mark.parametrize("method", names.BLACK_BOX)
@pytest.mark.parametrize("loss", names.ANSWERS)
def test_requests_are_counted_and_images_do_not_depend_on_their_batch(victim, method, loss):
    adversarial, health = attacked(victim, method=method, loss=loss)
    change = np.abs(adversarial.astype(int) - victim[2]).max()
    assert 0 < change <= 8 and health["requests"] == 21 and len(health["loss"]) == 20 + 1
    assert (attacked(victim, 2, method=method, loss=loss)[0] == adversarial).mean() > 0.9
    assert not np.array_equal(attacked(victim, method=method, loss=loss, seed=4)[0], adversarial)
    if method == "square":
        assert health["zero_gradients"] is None and health["loss"][-1] >= health["loss"][0] > 0


def test_an_answer_by_sdc_is_piecewise_constant(victim):
    """Probes of a grey level change no code of a feature, but its distances."""
    smooth, steps = (attacked(victim, method="random_groups", distance=distance)[1] for distance in ("ADC", "SDC"))
    assert smooth["zero_gradients"] < 0.5 < steps["zero_gradients"]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (lambda loss, x, *_: loss(x.clone().requires_grad_()), "the attack mine:run asked for a gradient, but a retrieval system only"),
        (lambda loss, x, *_: [loss(x) for _ in range(21)], "the attack mine:run made more requests for an image than its budget of 21"),
    ],
)
def test_a_black_box_refuses_gradients_and_more_requests_than_its_budget(victim, method, words):
    with pytest.raises(UserError, match=words):
        attacked(victim, method="mine:run", entry_points={"mine:run": method})


def test_a_black_box_receives_images_of_8_bits(victim):
    network, codewords, images, ids = victim
    seen = []

    def run(loss, x, *_):
        seen.append((loss(x + 0.4 / 255), loss(x)))
        return x

    adversarial, health = attacked(victim, method="mine:run", entry_points={"mine:run": run})
    assert torch.equal(*seen[0]) and health["requests"] == 3 and np.array_equal(adversarial, images)
