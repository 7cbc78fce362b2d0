"""Attacks: what all losses and methods have in common, and those of the user."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pqag import attacks, codebooks, losses, methods, names, networks, quantizer
from pqag.codebooks import Codebook
from pqag.errors import UserError

from .conftest import make


def test_losses_rise_and_the_health_is_of_the_stored_images(victim):
    network, codewords, images, _ = victim
    adversarial, health = make(victim, "apd")
    assert len(health["loss"]) == 6
    assert health["loss"][4] > health["loss"][0]
    head = losses.Head(torch.as_tensor(codewords, dtype=torch.float64))
    with torch.no_grad():
        z, clean = (networks.features(network, networks.pixels(torch.from_numpy(i))) for i in (adversarial, images))
    assert health["loss"][-1] == pytest.approx(float(losses.apd(z, clean, head).mean()))
    changed = (quantizer.encode(z.numpy(), codewords) != quantizer.encode(clean.numpy(), codewords)).any(1)
    assert health["codes_changed"] == pytest.approx(changed.mean())


def test_changed_codes_of_rq_are_those_of_the_beam_of_retrieval(victim):
    """A beam of one, the own scores of RQ, counts other queries."""
    network, _, images, ids = victim
    clean = networks.extract(network, images, torch.device("cpu"))
    tables = np.random.default_rng(1).normal(clean.mean(0) / 3, clean.std(0).mean() / 2, (3, 4, clean.shape[1])).astype(np.float32)
    codebook, basic = Codebook(tables, None, None, None, "beam"), attacks.Attack("basic", epsilon=8, step=2.55, iterations=2)
    _, found, health = attacks.attack(network, codebook, images, ids, basic, 3)
    codes = [codebooks.encode(codebook, z) for z in (clean, found)]
    assert health["codes_changed"] == (codes[0] != codes[1]).any(1).mean()
    head = losses.Head(torch.from_numpy(tables).double(), encoder="beam", distribution="own")
    greedy = [head.codes(torch.from_numpy(z).double()).numpy() for z in (clean, found)]
    assert (greedy[0] != greedy[1]).any(1).mean() < health["codes_changed"]


def brought(victim, function=None, loss=None, **changes):
    """The attack with a function of the user's as method, or as loss."""
    own = {"mine:run": function, "mine:loss": loss}
    changes |= {"method": "mine:run"} if function else {}
    return make(victim, "mine:loss" if loss else "apd", entry_points=own, **changes)


def test_a_method_of_the_users_runs_in_the_same_frame(victim):
    def ours(loss, images, start, epsilon, step, iterations):
        return methods.pgd(loss, images, start, epsilon, step, iterations)

    adversarial, health = brought(victim, ours)
    assert np.array_equal(adversarial, make(victim, "apd")[0]) and health == make(victim, "apd")[1]

    def blind(loss, images, start, epsilon, step, iterations):
        with torch.no_grad():
            for _ in range(len(images)):
                loss(images)
        return images + start

    adversarial, health = brought(victim, blind, batch_size=4)
    assert health["zero_gradients"] is None and len(health["loss"]) == 3 + 1, "batches of 4 and 3 queries"
    assert 0 < health["change_max"] <= 8


def test_a_loss_of_the_users_is_maximised(victim):
    def loss(z, clean, head):
        return -(head.log_distribution(clean).exp() * head.log_distribution(z)).sum((1, 2))

    assert np.array_equal(brought(victim, loss=loss)[0], make(victim, "aod")[0])


#: What a method of the user's may do wrong, and the sentence that it gets.
WRONG_METHODS = {
    "nothing": (lambda x, start: None, r"the attack mine:run returned nothing, but must return a tensor \(7, 3, 32, 32\) of floats"),
    "an array": (lambda x, start: x.numpy(), r"returned an array \(7, 3, 32, 32\) of float32, but must return a tensor"),
    "another shape": (lambda x, start: x[:, :1], r"returned a tensor \(7, 1, 32, 32\) of float32, but must return .*\(7, 3, 32, 32\)"),
    "bytes": (lambda x, start: (x * 255).to(torch.uint8), r"returned a tensor \(7, 3, 32, 32\) of uint8, but must return .* of floats"),
    "NaN": (lambda x, start: x * torch.nan, r"the attack mine:run returned NaN or infinite pixels, but must return images in \[0, 1\]"),
    "pixels to 255": (lambda x, start: x * 255, r"returned pixels from 0 to 255, but must stay in \[0, 1\]"),
    "negative pixels": (lambda x, start: x - 8 / 255, r"returned pixels from -0.03\d+ to 0.968\d*, but must stay in \[0, 1\]"),
    "leaves the ball": (lambda x, start: (x + 9 / 255).clamp(0, 1), r"changed a pixel by 9 of 255, but may change none by more than 8"),
}  # fmt: skip


#: The same of a loss.
WRONG_LOSSES = {
    "one number": (lambda z: z.sum(), r"the loss mine:loss returned a tensor \(\) of float64, but must return one .* \(7,\)"),
    "a list": (lambda z: [1.0], r"the loss mine:loss returned a list, but must return one number per query"),
    "NaN": (lambda z: z.sum(1) * torch.nan, r"the loss mine:loss returned NaN or infinite numbers, but must return finite ones"),
    "no gradient": (lambda z: z.detach().sum(1), r"the loss mine:loss has no gradient: it must be computed from its argument z"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "loss", "words"),
    [
        *((lambda loss, x, start, *_, run=run: run(x, start), None, words) for run, words in WRONG_METHODS.values()),
        *((None, lambda z, clean, head, loss=loss: loss(z), words) for loss, words in WRONG_LOSSES.values()),
    ],
    ids=[*WRONG_METHODS, *(f"loss: {kind}" for kind in WRONG_LOSSES)],
)
def test_what_is_no_attack_or_no_loss_is_told_in_a_sentence(victim, function, loss, words):
    with pytest.raises(UserError, match=words):
        brought(victim, function, loss)


def test_without_a_random_start_basic_returns_the_clean_image_and_says_so(victim):
    adversarial, health = make(victim, "basic", random_start=False)
    assert np.array_equal(adversarial, victim[2])
    assert health["zero_gradients"] == 1
    assert make(victim, "apd", random_start=False)[1]["zero_gradients"] < 0.5
    assert not np.array_equal(make(victim, "basic")[0], make(victim, "basic", feature="raw")[0])


def test_start_depends_on_seed_and_query_alone(victim):
    ids = victim[3]
    first = attacks.random_starts(ids, (3, 2, 2), 0.1, seed=1)
    assert torch.equal(first[2:4], attacks.random_starts(ids[2:4], (3, 2, 2), 0.1, seed=1))
    assert not torch.equal(first, attacks.random_starts(ids, (3, 2, 2), 0.1, seed=2))
    assert first.abs().max() <= 0.1
    whole, _ = make(victim)
    by_twos, _ = make(victim, batch_size=2)
    assert np.array_equal(make(victim)[0], whole) and not np.array_equal(make(victim, seed=4)[0], whole)
    assert (whole == by_twos).mean() > 0.995  # sums in batches of another size differ in their last bits


@pytest.mark.parametrize("batch_size", [250, 4])
def test_of_each_query_the_restart_with_the_largest_loss_is_kept(victim, batch_size, monkeypatch):
    network, codewords, images, ids = victim
    kept, health = make(victim, "basic", restarts=3, batch_size=batch_size)
    starts, runs = attacks.random_starts, []
    for restart in range(3):
        monkeypatch.setattr(attacks, "random_starts", lambda *of, restart=restart: starts(*of[:4], restart))
        runs.append(make(victim, "basic", batch_size=batch_size))
    with torch.no_grad():
        clean, *found = (networks.features(network, networks.pixels(torch.from_numpy(x))) for x in (images, *(x for x, _ in runs)))
    values = torch.stack([losses.basic(z, clean, None) for z in found])
    best = values.argmax(0)
    assert len(set(best.tolist())) > 1
    assert np.array_equal(kept, np.stack([runs[restart][0][query] for query, restart in enumerate(best.tolist())]))
    assert health["loss"][-1] == pytest.approx(float(values.max(0).values.mean())) and len(health["loss"]) == 6
    assert not any(np.array_equal(one, runs[0][0]) for one, _ in runs[1:])


class Quarters(torch.nn.Module):
    """Features of 12 numbers, the means of the quarters of each channel, for attacks that take no time."""

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, 2).flatten(1)


@given(st.data())
@settings(max_examples=60)
def test_every_attack_stays_in_the_ball(data):
    bounded = [method for method in names.METHODS if method not in names.UNBOUNDED]
    white, black = ((names.LOSSES, bounded), (names.ANSWERS, names.BLACK_BOX))
    loss, method = data.draw(st.one_of(*(st.tuples(*map(st.sampled_from, pair)) for pair in (white, black))))
    epsilon = data.draw(st.one_of(st.just(0), st.integers(1, 255), st.floats(1, 255)))
    step, iterations = data.draw(st.floats(0.1, 255)), data.draw(st.integers(1, 25))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    images = rng.choice([0, 1, 100, 255], (3, 3, 4, 4)).astype(np.uint8)
    restarts, goals = data.draw(st.integers(1, 2)) if loss in names.LOSSES else 1, rng.integers(0, 4, (3, 2))
    options = {"directions": 2} if "directions" in attacks.options_of(method) else {}
    chosen = attacks.Attack(loss, epsilon, step, iterations, method=method, restarts=restarts, goals=goals, options=options)
    codebook = Codebook(rng.normal(size=(2, 4, 6)).astype(np.float32), rng.integers(0, 4, (9, 2)), np.arange(9))
    adversarial, _, health = attacks.attack(Quarters(), codebook, images, np.arange(3), chosen, 0)
    assert np.abs(adversarial.astype(int) - images).max() <= epsilon
    looks = {"fgsm": 1, "apgd": iterations + 1, "square": iterations + 1, "nes": 4 * iterations, "random_groups": 4 * iterations}
    assert len(health["loss"]) == looks.get(method, iterations) + 1


@pytest.mark.parametrize(
    ("loss", "changes"),
    [*((loss, {}) for loss in names.LOSSES), ("aod", {"method": "momentum_pgd"}), ("margin", {"method": "apgd", "iterations": 20})],
)
def test_batches_of_another_size_lead_nearly_as_far(victim, loss, changes):
    """Sums in batches of another size differ in their last bits, which turns the sign of a gradient near zero."""
    goals = np.random.default_rng(0).integers(0, 6, (7, 4))
    (whole, health), (by_twos, other) = (make(victim, loss, batch_size=size, goals=goals, **changes) for size in (7, 2))
    assert (whole == by_twos).mean() > (0.9 if changes.get("method") == "apgd" else 0.99)
    assert other["loss"] == pytest.approx(health["loss"], rel=0.01, abs=1e-6)


def test_parameters_are_frozen_and_statistics_untouched(victim):
    network = victim[0]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train().requires_grad_().zero_grad()
    make(victim)
    assert not network.training
    assert all(not p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_rounding_clips_to_the_ball_of_a_fractional_radius_and_features_have_unit_norm(victim):
    clean = torch.tensor([[[[100, 0, 255]]]], dtype=torch.uint8)
    adversarial = torch.tensor([[[[102.5, 2.5, 252.5]]]]) / 255
    assert attacks.rounded(adversarial, clean, 2.5).flatten().tolist() == [102, 2, 253]
    with torch.no_grad():
        z = networks.features(victim[0], torch.rand(3, 3, 32, 32))
    assert z.dtype is torch.float64
    assert z.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-15)
