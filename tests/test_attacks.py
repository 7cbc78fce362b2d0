"""Attacks: losses against scalar loops, gradients against finite differences, the ball, and AdverTorch against a loop of our own."""

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pqag import attacks, networks

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
    return attacks.attack(network, codewords, images, ids, chosen, seed, batch_size=batch_size)


# ------------------------------------------------------------------------------------------------------------------- the losses


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


def test_basic_is_equation_3(head):
    z, clean = features(1), features(2)
    expected = [sum((float(a) - float(b)) ** 2 for a, b in zip(x, y)) for x, y in zip(z, clean)]
    assert attacks.basic_loss(z, clean, head).tolist() == pytest.approx(expected)


def test_apd_is_equation_8(head):
    z, clean = features(1), features(2)
    expected = []
    for x, y in zip(z, clean):
        p, p_clean = scalar_distribution(x, head.codewords), scalar_distribution(y, head.codewords)
        expected.append(-sum(math.log(p[m][max(range(K), key=lambda k, m=m: p_clean[m][k])]) for m in range(M)))
    assert attacks.apd_loss(z, clean, head).tolist() == pytest.approx(expected)


def test_aod_is_equation_9(head):
    z, clean = features(1), features(2)
    expected = []
    for x, y in zip(z, clean):
        p, p_clean = scalar_distribution(x, head.codewords), scalar_distribution(y, head.codewords)
        expected.append(-sum(p_clean[m][k] * math.log(p[m][k]) for m in range(M) for k in range(K)))
    assert attacks.aod_loss(z, clean, head).tolist() == pytest.approx(expected)


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


def test_gradients_vanish_at_the_clean_query_but_for_apd(head):
    """Sum_k (p_k - p_k) c_k = 0 for AOD, 2 (z - z) = 0 for Basic; APD's is Sum_k p_k c_k - c_b."""
    size = {}
    for name, loss in attacks.LOSSES.items():
        z = features(1).requires_grad_()
        loss(z, z.detach(), head).sum().backward()
        size[name] = float(z.grad.abs().max())
    assert size["basic"] == 0
    assert size["aod"] < 1e-15
    assert size["apd"] > 1e-2


def test_aod_is_smallest_at_the_clean_query(head):
    clean = features(2)
    at_clean = attacks.aod_loss(clean, clean, head)
    assert (attacks.aod_loss(features(1), clean, head) > at_clean).all()


# ------------------------------------------------------------------------------------------------------- the search for a maximum


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


@settings(max_examples=15, deadline=None)
@given(epsilon=st.sampled_from([0, 0.4, 1, 2.5, 8, 30]), iterations=st.integers(1, 3), name=st.sampled_from(sorted(attacks.LOSSES)))
def test_stays_in_the_ball(victim, epsilon, iterations, name):
    adversarial, health = make(victim, name, epsilon=epsilon, iterations=iterations)
    change = np.abs(adversarial.astype(int) - victim[2])
    assert adversarial.dtype == np.uint8
    assert change.max() <= epsilon
    assert health["change_max"] == change.max()
    assert health["change_mean"] == pytest.approx(change.mean())


def test_losses_rise_and_the_last_is_of_the_stored_images(victim):
    network, codewords, images, _ = victim
    adversarial, health = make(victim, "apd")
    assert len(health["loss"]) == 6
    assert health["loss"][4] > health["loss"][0]
    head = attacks.Head(torch.as_tensor(codewords, dtype=torch.float64))
    with torch.no_grad():
        z, clean = (networks.features(network, networks.pixels(torch.from_numpy(i))) for i in (adversarial, images))
    assert health["loss"][-1] == pytest.approx(float(attacks.apd_loss(z, clean, head).mean()))


def test_health_counts_changed_codes_as_retrieval_assigns_them(victim):
    from pqag import quantizer

    network, codewords, images, _ = victim
    adversarial, health = make(victim, "apd")
    with torch.no_grad():
        z, clean = (networks.features(network, networks.pixels(torch.from_numpy(i))).numpy() for i in (adversarial, images))
    changed = (quantizer.encode(z, codewords) != quantizer.encode(clean, codewords)).any(1)
    assert health["codes_changed"] == pytest.approx(changed.mean())


def test_without_a_random_start_basic_returns_the_clean_image_and_says_so(victim):
    adversarial, health = make(victim, "basic", random_start=False)
    assert np.array_equal(adversarial, victim[2])
    assert health["zero_gradients"] == 1
    assert make(victim, "apd", random_start=False)[1]["zero_gradients"] < 0.5


def test_start_depends_on_seed_and_query_alone(victim):
    network, codewords, images, ids = victim
    first = attacks.random_starts(ids, (3, 2, 2), 0.1, seed=1)
    assert torch.equal(first[2:4], attacks.random_starts(ids[2:4], (3, 2, 2), 0.1, seed=1))
    assert not torch.equal(first, attacks.random_starts(ids, (3, 2, 2), 0.1, seed=2))
    assert first.abs().max() <= 0.1
    whole, _ = make(victim)
    by_twos, _ = make(victim, batch_size=2)
    assert (whole == by_twos).mean() > 0.995  # sums in batches of another size differ in their last bits


def test_seed_and_repetition(victim):
    assert np.array_equal(make(victim)[0], make(victim)[0])
    assert not np.array_equal(make(victim)[0], make(victim, seed=4)[0])


def test_parameters_are_frozen_and_statistics_untouched(victim):
    network = victim[0]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    make(victim)
    assert not network.training
    assert all(not p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_raw_and_normalised_basic_are_different_attacks(victim):
    assert not np.array_equal(make(victim, "basic")[0], make(victim, "basic", feature="raw")[0])


def test_features_have_unit_norm_in_double_precision(victim):
    with torch.no_grad():
        z = networks.features(victim[0], torch.rand(3, 3, 32, 32))
    assert z.dtype is torch.float64
    assert z.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-15)


def test_rounding_clips_to_the_ball_of_a_fractional_radius():
    clean = torch.tensor([[[[100, 0, 255]]]], dtype=torch.uint8)
    adversarial = torch.tensor([[[[102.5, 2.5, 252.5]]]]) / 255
    assert attacks.rounded(adversarial, clean, 2.5).flatten().tolist() == [102, 2, 253]


def test_advertorch_imports_on_this_torch_by_the_repair_alone():
    unrepaired = subprocess.run([sys.executable, "-c", "import advertorch.attacks"], capture_output=True, text=True)
    assert "cannot import name 'zero_gradients'" in unrepaired.stderr, "the repair has become needless"
    gradcheck = importlib.import_module("torch.autograd.gradcheck")
    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)
    gradcheck.zero_gradients([parameter])
    assert parameter.grad is None
    from advertorch.attacks import FABAttack  # the one module that needed the repair

    assert FABAttack.__module__ == "advertorch.attacks.fast_adaptive_boundary"
