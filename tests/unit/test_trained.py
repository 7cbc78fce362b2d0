"""Attacks that are trained, universal perturbations and UAA-GAN: against a loop, and as the method of an attack."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pqag import attacks, losses, networks, trained, uaa_gan, universal
from pqag.codebooks import Codebook
from pqag.errors import UserError


def attack(**changes):
    return attacks.Attack(**({"loss": "apd", "epsilon": 8, "step": 6, "iterations": 3, "method": "universal"} | changes))


def test_the_change_follows_the_sign_of_the_mean_gradient(victim):
    """Seven images in batches of three: nine steps, of 6, 6 x 8/9, ... 6/9 grey levels, from a point of the ball."""
    network, codewords, images, _ = victim
    steps = []
    arrays, trace = universal.fit(network, Codebook(codewords, None, None), images, attack(), 3, 32, lambda: steps.append(1), 3)
    change = arrays["change"]
    head, draw = losses.Head(torch.as_tensor(codewords, dtype=torch.float64)), np.random.default_rng([3, 0, 0, 2])
    wanted = np.random.default_rng([3, 0]).uniform(-8 / 255, 8 / 255, (3, 32, 32)).astype(np.float32)
    number = 0
    for _ in range(3):
        order = draw.permutation(7)
        for batch in (order[:3], order[3:6], order[6:]):
            clean = networks.pixels(torch.from_numpy(images[batch]))
            added = torch.from_numpy(wanted).requires_grad_()
            z, own = (networks.features(network, x) for x in ((clean + added).clamp(0, 1), clean))
            [gradient] = torch.autograd.grad(losses.apd(z, own.detach(), head).sum(), added)
            size = np.float32(6 / 255 * (9 - number) / 9)
            wanted, number = np.clip(wanted + size * gradient.sign().numpy(), np.float32(-8 / 255), np.float32(8 / 255)), number + 1
    assert len(trace) == len(steps) == 9 and trace[-1] > trace[0]
    assert np.abs(change).max() <= np.float32(8 / 255) and np.allclose(change, wanted, atol=1e-6)


def test_every_query_gets_the_same_change_within_the_ball(victim):
    network, codewords, images, ids = victim
    change = np.random.default_rng(0).choice([-8, 8], (3, 32, 32)).astype(np.float32) / 255
    of_both = ({"change": one} for one in (change, 0 * change))
    chosen, of_zero = (replace(attack(), changes=universal.changes(one, attack(), torch.device("cpu"))) for one in of_both)
    codebook = Codebook(codewords, None, None)
    adversarial, _, health = attacks.attack(network, codebook, images, ids, chosen, 3)
    assert np.array_equal(adversarial, np.clip(images + np.rint(255 * change).astype(int), 0, 255))
    unchanged = attacks.attack(network, codebook, images, ids, of_zero, 3)[2]
    assert health["loss"][0] == unchanged["loss"][0] == unchanged["loss"][1] != health["loss"][1]
    assert chosen.looks == 1 == len(health["loss"]) - 1 and health["change_max"] == 8 and health["zero_gradients"] is None
    assert np.array_equal(attacks.attack(network, codebook, images, ids, chosen, 3, batch_size=2)[0], adversarial)


def test_which_training_images_it_is_fitted_to(monkeypatch):
    monkeypatch.setattr(trained, "IMAGES", 5)
    chosen = trained.some(20, 1)
    assert len(set(chosen)) == 5 and (np.diff(chosen) > 0).all() and chosen.max() < 20
    assert not np.array_equal(chosen, trained.some(20, 2)) and trained.some(3, 1).tolist() == [0, 1, 2]


def test_small_training_images_are_enlarged(victim):
    network, codewords, images, _ = victim
    arrays, _ = universal.fit(network, Codebook(codewords, None, None), images[:2], attack(iterations=1), 3, 64)
    assert arrays["change"].shape == (3, 64, 64)


# ------------------------------------------------------------------------------------------------------------------------- UAA-GAN


def generated(loss="basic", iterations=1, discriminator=False):
    return attacks.Attack(loss, 8, 8, iterations, method="uaa_gan", options={"discriminator": discriminator})


def fitted(victim, seed=3, size=32, count=7, **changes):
    network, codewords, images, _ = victim
    return uaa_gan.fit(network, Codebook(codewords, None, None), images[:count], generated(**changes), seed, size)


def made(victim, weights, batch_size=250, on_step=lambda: None):
    """Adversarial images by a generator with these weights, and the health of the attack."""
    network, codewords, images, ids = victim
    codebook = Codebook(codewords, None, None)
    settings = replace(generated(), changes=uaa_gan.changes(weights, generated(), torch.device("cpu")))
    adversarial, _, health = attacks.attack(network, codebook, images, ids, settings, 3, batch_size, on_step)
    return adversarial, health


def test_terms_of_the_losses_by_hand():
    """Margin 1: of 0.25 + 1 - 0.5 and 1 + 1 - 3 the hinge leaves 0.75 and 0, in the mean 0.375. Changes have the lengths 5 and 0. Squares
    of 0.5 and 0 from 1 are 0.125 in the mean; of 0 and 0.5 from 1, and of 0 and 1 from 0, 0.125 and 0.5."""
    distance, nearest = torch.tensor([0.5, 3.0]), torch.tensor([0.25, 1.0])
    change = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]).reshape(2, 3, 1, 1)
    assert float(uaa_gan.generator_loss(distance, nearest, change)) == pytest.approx(0.375 + 0.01 * 2.5)
    judged = torch.tensor([[0.5], [1.0]])
    assert float(uaa_gan.generator_loss(distance, nearest, change, judged)) == pytest.approx(0.375 + 0.01 * 2.5 + 0.125)
    assert float(uaa_gan.discriminator_loss(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 1.0]))) == pytest.approx(0.125 + 0.5)


def test_the_nearest_other_image_by_hand():
    assert uaa_gan.nearest_other(torch.tensor([[0.0], [1.0], [3.0], [3.5]])).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("loss", ["basic", "apd"])
def test_the_loss_of_the_first_step_is_that_of_a_loop(victim, loss):
    """The distance is the loss of the attack: of each adversarial image, and of the clean image with the nearest other feature."""
    network, codewords, images, _ = victim
    torch.manual_seed(3)
    generator, total = uaa_gan.Generator(), 0.0
    clean = networks.pixels(torch.from_numpy(images[np.random.default_rng([3, 0, 0, 4]).permutation(7)]))
    head = losses.Head(torch.as_tensor(codewords, dtype=torch.float64))
    with torch.no_grad():
        change = 8 / 255 * generator(clean)
        z, own = networks.features(network, (clean + change).clamp(0, 1)), networks.features(network, clean)
        for i in range(7):
            other = min((j for j in range(7) if j != i), key=lambda j: float((own[i] - own[j]).norm()))
            far, near = (float(getattr(losses, loss)(one, own[i : i + 1], head)) for one in (z[i : i + 1], own[other : other + 1]))
            total += max(0.0, near + 1 - far) + 0.01 * float((change[i] ** 2).sum() ** 0.5)
    assert fitted(victim, loss=loss)[1] == [pytest.approx(total / 7, rel=1e-5)]


def test_training_lowers_the_loss_and_raises_that_of_the_attack(victim, monkeypatch):
    """Without the term of the length: features of a network that was not trained hardly differ."""
    monkeypatch.setattr(uaa_gan, "LENGTH", 0.0)
    weights, trace = fitted(victim, iterations=12)
    assert len(trace) == 12 and trace[-1] < trace[0]
    untrained = {name: array.numpy() for name, array in uaa_gan.Generator().state_dict().items()}
    health = [made(victim, one)[1] for one in (untrained, weights)]
    assert health[1]["loss"][1] > health[0]["loss"][1] > health[1]["loss"][0] == health[0]["loss"][0]


def test_training_is_repeatable_bit_for_bit_and_depends_on_seed_and_discriminator(victim):
    weights, trace = fitted(victim, iterations=2)
    torch.rand(5)
    again = fitted(victim, iterations=2)
    assert again[1] == trace and all(np.array_equal(again[0][name], array) for name, array in weights.items())
    judged = fitted(victim, iterations=2, discriminator=True)
    assert judged[1][0] > trace[0], "a term more"
    for other in (judged[0], fitted(victim, seed=4, iterations=2)[0]):
        assert any(not np.array_equal(other[name], array) for name, array in weights.items())
        assert all(np.isfinite(array).all() for array in other.values())


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_every_generator_stays_in_the_ball_and_changes_each_query_by_itself(victim, scale):
    torch.manual_seed(1)
    weights = {name: np.float32(scale) * array.numpy() for name, array in uaa_gan.Generator().state_dict().items()}
    weights["body.0.bias"] += np.float32(1)
    steps = []
    adversarial, health = made(victim, weights, on_step=lambda: steps.append(1))
    change = np.abs(adversarial.astype(int) - victim[2])
    assert adversarial.dtype == np.uint8 and change.max() == health["change_max"] == (8 if scale > 1 else change.max()) <= 8
    assert len(steps) == 1 == len(health["loss"]) - 1 and health["zero_gradients"] is None
    assert (np.abs(made(victim, weights, batch_size=2)[0].astype(int) - adversarial) <= 1).all()


def test_a_generator_that_is_not_finite_and_a_single_training_image_are_refused(victim):
    for scale in (np.nan, 1e30):
        weights = {name: np.float32(scale) * array.numpy() for name, array in uaa_gan.Generator().state_dict().items()}
        with pytest.raises(UserError, match="the attack uaa_gan returned NaN or infinite pixels"):
            made(victim, weights)
    with pytest.raises(UserError, match="uaa_gan compares a training image with another, but there is only 1"):
        fitted(victim, count=1)


@pytest.mark.parametrize("size", [(32, 32), (33, 45), (128, 128)])
def test_networks_of_the_gan_take_images_of_any_size(size):
    images = torch.rand(2, 3, *size)
    shares = uaa_gan.Generator()(images)
    assert shares.shape == images.shape and shares.abs().max() <= 1 and uaa_gan.Discriminator()(images).shape[:2] == (2, 1)


def test_small_training_images_are_enlarged_and_no_batch_has_a_single_one(victim, monkeypatch):
    monkeypatch.setattr(uaa_gan, "BATCH", 3)
    seen, forward = [], uaa_gan.Generator.forward
    monkeypatch.setattr(uaa_gan.Generator, "forward", lambda self, images: seen.append(tuple(images.shape)) or forward(self, images))
    fitted(victim, size=64, count=4)
    assert seen == [(2, 3, 64, 64)] * 2
