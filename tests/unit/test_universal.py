"""Universal perturbations: against a loop, and as the method of an attack."""

import numpy as np
import torch

from pqag import attacks, losses, networks, universal
from pqag.codebooks import Codebook


def attack(**changes):
    return attacks.Attack(**({"loss": "apd", "epsilon": 8, "step": 6, "iterations": 3, "method": "universal"} | changes))


def test_the_change_follows_the_sign_of_the_mean_gradient(victim):
    """Seven images in batches of three: nine steps, of 6, 6 x 8/9, ... 6/9 grey levels, from a point of the ball."""
    network, codewords, images, _ = victim
    steps = []
    change, trace = universal.fit(network, Codebook(codewords, None, None), images, attack(), 3, 32, lambda: steps.append(1), 3)
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
    chosen = attack(change=change)
    codebook = Codebook(codewords, None, None)
    adversarial, _, health = attacks.attack(network, codebook, images, ids, chosen, 3)
    assert np.array_equal(adversarial, np.clip(images + np.rint(255 * change).astype(int), 0, 255))
    unchanged = attacks.attack(network, codebook, images, ids, attack(change=0 * change), 3)[2]
    assert health["loss"][0] == unchanged["loss"][0] == unchanged["loss"][1] != health["loss"][1]
    assert chosen.looks == 1 == len(health["loss"]) - 1 and health["change_max"] == 8 and health["zero_gradients"] is None
    assert np.array_equal(attacks.attack(network, codebook, images, ids, chosen, 3, batch_size=2)[0], adversarial)


def test_which_training_images_it_is_fitted_to(monkeypatch):
    monkeypatch.setattr(universal, "IMAGES", 5)
    chosen = universal.some(20, 1)
    assert len(set(chosen)) == 5 and (np.diff(chosen) > 0).all() and chosen.max() < 20
    assert not np.array_equal(chosen, universal.some(20, 2)) and universal.some(3, 1).tolist() == [0, 1, 2]


def test_small_training_images_are_enlarged(victim):
    network, codewords, images, _ = victim
    change, _ = universal.fit(network, Codebook(codewords, None, None), images[:2], attack(iterations=1), 3, 64)
    assert change.shape == (3, 64, 64)
