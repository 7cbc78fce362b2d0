"""Attacks: losses against scalar loops, gradients against finite differences, the ball, and AdverTorch against a loop of our own."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from pqag import attacks, networks, quantizer
from pqag.codebooks import Codebook
from pqag.errors import UserError

M, K, D = 2, 3, 4
torch.set_num_threads(1)


@pytest.fixture
def head():
    return attacks.Head(torch.tensor(np.random.default_rng(0).normal(size=(M, K, D // M))))


def features(seed, count=5):
    z = torch.tensor(np.random.default_rng(seed).normal(size=(count, D)))
    return torch.nn.functional.normalize(z, dim=1)


@pytest.fixture(scope="module")
def victim():
    torch.manual_seed(0)
    network = networks.build("vgg11", 10, 0.125).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    with torch.no_grad():
        z = networks.features(network, networks.pixels(torch.from_numpy(images))).numpy()
    codewords = z.reshape(7, 4, -1).transpose(1, 0, 2)[:, :6].astype(np.float32).copy()
    return network, codewords, images, np.arange(100, 107)


def make(victim, name="aod", seed=3, batch_size=250, **changes):
    network, codewords, images, ids = victim
    chosen = attacks.Attack(**({"loss": name, "epsilon": 8, "step": 2.55, "iterations": 5} | changes))
    adversarial, _, health = attacks.attack(network, Codebook(codewords, None, None), images, ids, chosen, seed, batch_size=batch_size)
    return adversarial, health


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
    head = attacks.Head(head.codewords, temperature=temperature)
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


@pytest.mark.parametrize("name", attacks.LOSSES)
def test_losses_are_those_of_the_paper(head, name):
    z, clean = features(1), features(2)
    expected = [scalar_loss(name, x, y, head.codewords) for x, y in zip(z, clean)]
    assert attacks.LOSSES[name](z, clean, head).tolist() == pytest.approx(expected)


def test_hard_assignment_by_inner_product_and_by_distance_differ_where_norms_do():
    """z = 1 between codewords 1 and 3: the nearest is 1 (distance 0 against 2), the largest product is with 3."""
    codewords = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    z = torch.tensor([[1.0]], dtype=torch.float64)
    assert attacks.Head(codewords, "inner_product").codes(z).tolist() == [[1]]
    assert attacks.Head(codewords, "euclidean").codes(z).tolist() == [[0]]


@pytest.mark.parametrize("loss", attacks.LOSSES.values(), ids=attacks.LOSSES)
def test_gradient_by_finite_differences(loss, head):
    clean = features(2)
    z = features(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, clean, head), (z,))


def own_pgd(network, codewords, images, ids, loss, seed, epsilon=8 / 255, step=0.01, iterations=5):
    """Projected gradient ascent on the sign of the gradient, written from its definition (Madry et al. 2018)."""
    head = attacks.Head(torch.as_tensor(codewords, dtype=torch.float64))
    x = (torch.from_numpy(images).float() / 255).contiguous(memory_format=torch.channels_last)
    start = [np.random.default_rng([seed, int(i)]).uniform(-epsilon, epsilon, images.shape[1:]) for i in ids]
    change = (x + torch.tensor(np.array(start), dtype=torch.float32)).clamp(0, 1) - x

    def z(image):
        return torch.nn.functional.normalize(network.features(image).double(), dim=1)

    clean = z(x).detach()
    for _ in range(iterations):
        change.requires_grad_()
        [gradient] = torch.autograd.grad(loss(z(x + change), clean, head).sum(), change)
        change = (change.detach() + step * gradient.sign()).clamp(-epsilon, epsilon)
        change = (x + change).clamp(0, 1) - x
    return ((x + change) * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("name", attacks.LOSSES)
def test_advertorch_makes_the_same_images_as_a_loop_of_our_own(victim, name):
    network, codewords, images, ids = victim
    expected = own_pgd(network, codewords, images, ids, attacks.LOSSES[name], seed=3)
    adversarial, _ = make(victim, name)
    # Not "all": sums in another memory layout differ in their last bits, which now and then turns a gradient's sign.
    assert (adversarial == expected).mean() > 0.999


def test_losses_rise_and_the_health_is_of_the_stored_images(victim):
    network, codewords, images, _ = victim
    adversarial, health = make(victim, "apd")
    assert len(health["loss"]) == 6
    assert health["loss"][4] > health["loss"][0]
    head = attacks.Head(torch.as_tensor(codewords, dtype=torch.float64))
    with torch.no_grad():
        z, clean = (networks.features(network, networks.pixels(torch.from_numpy(i))) for i in (adversarial, images))
    assert health["loss"][-1] == pytest.approx(float(attacks.apd_loss(z, clean, head).mean()))
    changed = (quantizer.encode(z.numpy(), codewords) != quantizer.encode(clean.numpy(), codewords)).any(1)
    assert health["codes_changed"] == pytest.approx(changed.mean())


#: A batch of one image of three pixels, 0.5 grey, to work by hand with losses that are linear in the pixels.
GREY = torch.full((1, 3, 1, 1), 0.5)


def linear(*weights):
    """The loss whose gradient is ``weights`` at every image."""
    return lambda images: (images.double().flatten(1) * torch.tensor(weights, dtype=torch.float64)).sum(1)


def test_fgsm_is_one_step_as_long_as_the_radius_by_hand():
    """From (0.05, 0, -0.05) by 0.1 along the signs +, 0, - is (0.15, 0, -0.15), which the ball cuts to (0.1, 0, -0.1)."""
    start = torch.tensor([0.05, 0.0, -0.05]).reshape(1, 3, 1, 1)
    found = attacks.fgsm(linear(2, 0, -7), GREY, start, 0.1, step=0.001, iterations=9)
    assert found.flatten().tolist() == pytest.approx([0.6, 0.5, 0.4])


def test_momentum_by_hand():
    """The loss 3 x0 - x0^2 - x1 + 0 x2 from the grey image, step 0.2, radius 1, decay 1; pixels end at 1.

    First gradient (2, -1, 0), of l1-norm 3: momentum (2/3, -1/3, 0), images (0.7, 0.3, 0.5). Then (1.6, -1, 0): the same signs, to
    (0.9, 0.1, 0.5). Then (1.2, -1, 0), to (1, 0, 0.5).
    """

    def loss(images):
        x = images.double().flatten(1)
        return 3 * x[:, 0] - x[:, 0] ** 2 - x[:, 1]

    zero = torch.zeros_like(GREY)
    for iterations, wanted in enumerate([[0.7, 0.3, 0.5], [0.9, 0.1, 0.5], [1, 0, 0.5]], 1):
        found = attacks.momentum_pgd(loss, GREY, zero, 1.0, 0.2, iterations)
        assert found.flatten().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(("decay", "wanted"), [(1.0, 0.7), (0.0, 0.5)])
def test_momentum_carries_over_a_turn_of_the_gradient(decay, wanted):
    """The gradient of the first pixel is 3 and, past 0.55, -1; with the second pixel's 1 the norms are 4 and 2: 3/4 decay - 1/2.

    With decay 1 that is above 0, so that the second step of 0.1 goes on, from 0.6 to 0.7; without it the step turns back to 0.5.
    """

    def loss(images):
        x = images.double().flatten(1)
        return torch.where(x[:, 0] < 0.55, 3 * x[:, 0], -x[:, 0]) + x[:, 1]

    found = attacks.momentum_pgd(loss, GREY, torch.zeros_like(GREY), 1.0, 0.1, 2, decay)
    assert float(found[0, 0]) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("method", "theirs", "changes", "options"),
    [
        ("momentum_pgd", "MomentumIterativeAttack", {"decay": 0.7}, {"nb_iter": 5, "decay_factor": 0.7, "eps_iter": 0.01}),
        ("fgsm", "GradientSignAttack", {}, {}),
    ],
)
def test_other_methods_are_advertorchs(victim, method, theirs, changes, options):
    """Which begin at the clean image; with the loss of APD, whose gradient does not vanish there."""
    import advertorch.attacks

    network, codewords, images, _ = victim
    head = attacks.Head(torch.as_tensor(codewords, dtype=torch.float64))
    x = networks.pixels(torch.from_numpy(images))
    with torch.no_grad():
        clean = networks.features(network, x)

    def loss(z, y):
        return attacks.apd_loss(z, y, head).sum()

    attack = getattr(advertorch.attacks, theirs)(lambda image: networks.features(network, image), loss, eps=8 / 255, **options)
    expected = attack.perturb(x.contiguous(), clean)
    adversarial, health = make(victim, "apd", method=method, random_start=False, **changes)
    assert (adversarial == (expected * 255).round().to(torch.uint8).numpy()).mean() > 0.999
    assert len(health["loss"]) == options.get("nb_iter", 1) + 1 and health["change_max"] <= 8
    assert not np.array_equal(adversarial, make(victim, "apd", random_start=False)[0])


@pytest.mark.parametrize("method", attacks.METHODS)
@pytest.mark.parametrize("epsilon", [1, 2.5, 8, 30])
def test_every_method_begins_at_the_same_random_point_and_stays_in_the_ball(victim, method, epsilon):
    adversarial, health = make(victim, "basic", method=method, epsilon=epsilon)
    assert health["loss"][0] == make(victim, "basic", epsilon=epsilon)[1]["loss"][0] > 0
    change = np.abs(adversarial.astype(int) - victim[2])
    assert adversarial.dtype == np.uint8 and 0 < change.max() <= epsilon
    assert health["change_max"] == change.max() and health["change_mean"] == pytest.approx(change.mean())
    assert health["loss"][-1] > health["loss"][0]


def brought(victim, function=None, loss=None, **changes):
    """The attack with a function of the user's as method, or as loss."""
    own = {"mine:run": function, "mine:loss": loss}
    changes |= {"method": "mine:run"} if function else {}
    return make(victim, "mine:loss" if loss else "apd", entry_points=own, **changes)


def test_a_method_of_the_users_runs_in_the_same_frame(victim):
    def ours(loss, images, start, epsilon, step, iterations):
        return attacks.pgd(loss, images, start, epsilon, step, iterations)

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


def test_advertorch_imports_on_this_torch_by_the_repair_alone():
    unrepaired = subprocess.run([sys.executable, "-c", "import advertorch.attacks"], capture_output=True, text=True)
    assert "cannot import name 'zero_gradients'" in unrepaired.stderr, "the repair has become needless"
    from advertorch.attacks import FABAttack  # the one module that needed the repair

    assert FABAttack.__module__ == "advertorch.attacks.fast_adaptive_boundary"
