"""Methods of attacks: by hand, against AdverTorch, and AdverTorch against our own loop."""

import importlib.util
import math
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from pqag import attacks, losses, methods, names, networks
from pqag.job import records

from .conftest import make


@pytest.fixture
def without_advertorch(monkeypatch):
    """AdverTorch cannot be imported."""
    monkeypatch.setitem(sys.modules, "advertorch.attacks.iterative_projected_gradient", None)
    methods.advertorch.cache_clear()
    yield
    methods.advertorch.cache_clear()


@pytest.mark.parametrize("name", ["basic", "apd", "aod"])
def test_the_loop_that_replaces_advertorch_makes_the_same_images_and_says_so_once(victim, name, without_advertorch, caplog):
    adversarial, health = make(victim, name)
    make(victim, name, method="fgsm")
    assert methods.ENGINE == records.engine() == "pqag"
    [line] = caplog.messages
    assert line.startswith("warning: AdverTorch cannot be imported (") and line.endswith("), so pqag itself takes the steps of PGD")
    sys.modules.pop("advertorch.attacks.iterative_projected_gradient")
    methods.advertorch.cache_clear()
    expected, theirs = make(victim, name)
    assert methods.ENGINE == records.engine() == "AdverTorch"
    assert len(health["loss"]) == len(theirs["loss"]) and health["loss"][0] == theirs["loss"][0]
    # Not "all": sums in another memory layout differ in their last bits, which now and then turns a gradient's sign.
    assert (adversarial == expected).mean() > 0.999


class Tensor:
    """What the adapter of docs/attack.md uses of eagerpy's tensors."""

    def __init__(self, raw):
        self.raw = raw

    def __add__(self, other):
        return Tensor(self.raw + other.raw)


class FoolboxAttack:
    """The interface of foolbox 3.3.4 that the adapter overrides: ``BaseGradientDescent`` with the steps of its PGD."""

    def __init__(self, *, rel_stepsize=0.01 / 0.3, abs_stepsize=None, steps=40, random_start=True):
        self.step, self.steps, self.random_start = abs_stepsize, steps, random_start

    def run(self, model, inputs, criterion, *, epsilon, **kwargs):
        assert not kwargs and len(criterion) == len(inputs) and model == (0, 1)
        loss_fn, x0 = self.get_loss_fn(model, Tensor(criterion)), Tensor(inputs)
        x = self.get_random_start(x0, epsilon).raw.clamp(0, 1)
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            value = loss_fn(Tensor(x)).raw
            assert value.shape == ()
            value.backward()
            x = (inputs + (x.detach() + self.step * x.grad.sign() - inputs).clamp(-epsilon, epsilon)).clamp(0, 1)
        return x


def test_the_adapter_for_foolbox_of_the_page_runs(monkeypatch, scripts):
    """With foolbox itself where it is installed; otherwise with a stand-in for its interface, whose steps are those of PGD."""
    if importlib.util.find_spec("foolbox") is None:
        attacks_of = types.SimpleNamespace(LinfProjectedGradientDescentAttack=FoolboxAttack)
        parts = {"attacks": attacks_of, "PyTorchModel": lambda model, bounds: bounds, "Misclassification": lambda labels: labels}
        monkeypatch.setitem(sys.modules, "foolbox", types.SimpleNamespace(**parts))
        monkeypatch.setitem(sys.modules, "eagerpy", types.SimpleNamespace(astensor=Tensor))
    [code] = re.findall(r"^```py\n(.*?)^```$", (scripts.parent / "docs/attack.md").read_text(), re.MULTILINE | re.DOTALL)
    names_of_page = {}
    exec(code, names_of_page)
    loss, images = Quadratic(), torch.full((2, 3, 1, 1), 0.5, dtype=torch.float64)
    start = torch.tensor(np.random.default_rng(2).uniform(-0.1, 0.1, images.shape))
    found = names_of_page["pgd"](loss, images, start, 0.1, 0.02, 9)
    assert np.allclose(loss.asked[0], (images + start).flatten(1)) and len(loss.asked) == 9
    assert torch.allclose(found, methods.pgd(loss, images, start, 0.1, 0.02, 9))


#: A batch of one image of three pixels, 0.5 grey, to work by hand with losses that are linear in the pixels.
GREY = torch.full((1, 3, 1, 1), 0.5)


def linear(*weights):
    """The loss whose gradient is ``weights`` at every image."""
    return lambda images: (images.double().flatten(1) * torch.tensor(weights, dtype=torch.float64)).sum(1)


def test_fgsm_is_one_step_as_long_as_the_radius_by_hand():
    """From (0.05, 0, -0.05) by 0.1 along the signs +, 0, - is (0.15, 0, -0.15), which the ball cuts to (0.1, 0, -0.1)."""
    start = torch.tensor([0.05, 0.0, -0.05]).reshape(1, 3, 1, 1)
    found = methods.fgsm(linear(2, 0, -7), GREY, start, 0.1, step=0.001, iterations=9)
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
        found = methods.momentum_pgd(loss, GREY, zero, 1.0, 0.2, iterations)
        assert found.flatten().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(("decay", "wanted"), [(1.0, 0.7), (0.0, 0.5)])
def test_momentum_carries_over_a_turn_of_the_gradient(decay, wanted):
    """The gradient of the first pixel is 3 and, past 0.55, -1; with the second pixel's 1 the norms are 4 and 2: 3/4 decay - 1/2.

    With decay 1 that is above 0, so that the second step of 0.1 goes on, from 0.6 to 0.7; without it the step turns back to 0.5.
    """

    def loss(images):
        x = images.double().flatten(1)
        return torch.where(x[:, 0] < 0.55, 3 * x[:, 0], -x[:, 0]) + x[:, 1]

    found = methods.momentum_pgd(loss, GREY, torch.zeros_like(GREY), 1.0, 0.1, 2, decay=decay)
    assert float(found[0, 0]) == pytest.approx(wanted)


class Quadratic:
    """The loss -sum_j a_j (x_j - c_j)^2 of two queries of three pixels, with the images that it was asked for."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.weights, self.centres = 10 ** rng.uniform(-1, 2, (2, 3)), rng.uniform(0.3, 0.7, (2, 3))
        self.asked = []

    def __call__(self, images):
        self.asked.append(images.detach().flatten(1).tolist())
        return -(torch.tensor(self.weights) * (images.flatten(1) - torch.tensor(self.centres)) ** 2).sum(1)

    def value(self, query, x):
        return -sum(a * (v - c) ** 2 for a, v, c in zip(self.weights[query], x, self.centres[query]))

    def signs(self, query, x):
        return [math.copysign(1, c - v) for v, c in zip(x, self.centres[query])]


def algorithm_1(loss, query, clean, start, epsilon, iterations):
    """APGD for one query, from the text of the paper: the points that it visits, the best of them, and how often it halved its step."""

    def inside(x):
        return [min(max(v, c - epsilon, 0), c + epsilon, 1) for v, c in zip(x, clean)]

    shares = [0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checkpoints = [math.ceil(round(share * iterations, 9)) for share in shares]
    points, step, halvings = [start], 2 * epsilon, 0
    x, before, best, best_at_last, halved = start, start, start, loss.value(query, start), False
    rose = []
    for k in range(iterations):
        z = inside([v + step * s for v, s in zip(x, loss.signs(query, x))])
        new = z if k == 0 else inside([v + 0.75 * (w - v) + 0.25 * (v - u) for v, w, u in zip(x, z, before)])
        rose.append(loss.value(query, new) > loss.value(query, x))
        before, x = x, new
        points.append(x)
        best = x if loss.value(query, x) > loss.value(query, best) else best
        if k + 1 in checkpoints:
            halved = sum(rose) < 0.75 * len(rose) or (not halved and loss.value(query, best) == best_at_last)
            rose, best_at_last = [], loss.value(query, best)
            if halved:
                step, x, halvings = step / 2, best, halvings + 1
    return points, best, halvings


@pytest.mark.parametrize(("iterations", "epsilon"), [(20, 0.2), (100, 0.4), (100, 0.02)])
def test_apgd_takes_the_steps_of_the_paper_on_a_quadratic(iterations, epsilon):
    loss, images = Quadratic(), torch.full((2, 3, 1, 1), 0.5, dtype=torch.float64)
    start = torch.tensor(np.random.default_rng(2).uniform(-epsilon, epsilon, images.shape))
    found = methods.apgd(loss, images, start, epsilon, 1.0, iterations)
    assert len(loss.asked) == iterations + 1 == attacks.Attack("aod", 8, 1, iterations, method="apgd").looks
    for query in range(2):
        points, best, halvings = algorithm_1(loss, query, [0.5] * 3, (0.5 + start[query]).flatten().tolist(), epsilon, iterations)
        assert np.allclose([asked[query] for asked in loss.asked], points, atol=1e-12)
        assert found[query].flatten().tolist() == pytest.approx(best, abs=1e-12)
        assert halvings > (2 if iterations == 100 else 0)
    near = loss(images + start) < loss(found)
    assert near.all() and loss(found).min() > (-0.05 if epsilon > 0.1 else -math.inf)


def test_the_checkpoints_of_apgd_by_hand():
    """Shares of 22, 41 (19 later), 57, 70, 80, 87, 93, 99 %; of 20 iterations rounded up."""
    assert methods.apgd_checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert methods.apgd_checkpoints(20) == [5, 9, 12, 14, 16, 18, 19, 20]


def test_cw_finds_the_nearest_image_beyond_a_plane():
    """A loss that reaches 0 at a plane: the smallest change is the distance to it, along the pixels that can move. Half of the second query
    is black, and cannot get darker; all of the third is. No image is beyond the plane of the fourth."""
    size = (3, 16, 16)
    normal = torch.tensor(np.random.default_rng(3).choice([-1.0, 1.0], size), dtype=torch.float32)
    grey, black = torch.full(size, 0.4), torch.zeros(size)
    half = torch.where(torch.rand(size, generator=torch.manual_seed(4)) < 0.5, black, grey)
    images, apart = torch.stack([grey, half, black, grey]), torch.tensor([12.0, 9.0, 6.0, 1e4], dtype=torch.float64)
    slope, asked = torch.tensor([0.01, 1, 1, 1]), []  # the first query needs a weight of a hundred

    def loss(x):
        asked.append(x.detach())
        return slope * (((x - images) * normal).sum((1, 2, 3)).double() - apart).clamp(max=0)

    found = methods.cw_l2(loss, images, torch.ones_like(images), 0.0, 0.01, 200, searches=7)
    assert len(asked) == attacks.Attack("clipped_margin", 255, 2.55, 200, method="cw_l2", options={"searches": 7}).looks
    assert all(torch.equal((255 * x).round() / 255, x) and x.min() >= 0 and x.max() <= 1 for x in [found * 1, *asked[::100]])
    sizes, final = ((found - images) ** 2).sum((1, 2, 3)).sqrt(), loss(found)
    assert final[:3].tolist() == [0, 0, 0] and torch.equal(found[3], images[3])
    free = ((images > 0) | (normal > 0)).sum((1, 2, 3))
    assert free[0] == 768 and 500 < free[1] < 620 and free[2] < 450
    for query, most in enumerate((1.02, 1.1, 1.25)):
        assert 1 <= sizes[query] / (apart[query] / free[query] ** 0.5) < most


@pytest.mark.parametrize(
    ("method", "theirs", "changes", "options"),
    [
        ("momentum_pgd", "MomentumIterativeAttack", {"options": {"decay": 0.7}}, {"nb_iter": 5, "decay_factor": 0.7, "eps_iter": 0.01}),
        ("fgsm", "GradientSignAttack", {}, {}),
    ],
)
def test_other_methods_are_advertorchs(victim, method, theirs, changes, options):
    """Which begin at the clean image; with the loss of APD, whose gradient does not vanish there."""
    methods.advertorch()  # repairs it
    import advertorch.attacks

    network, codewords, images, _ = victim
    head = losses.Head(torch.as_tensor(codewords, dtype=torch.float64))
    x = networks.pixels(torch.from_numpy(images))
    with torch.no_grad():
        clean = networks.features(network, x)

    def loss(z, y):
        return losses.apd(z, y, head).sum()

    attack = getattr(advertorch.attacks, theirs)(lambda image: networks.features(network, image), loss, eps=8 / 255, **options)
    expected = attack.perturb(x.contiguous(), clean)
    adversarial, health = make(victim, "apd", method=method, random_start=False, **changes)
    assert (adversarial == (expected * 255).round().to(torch.uint8).numpy()).mean() > 0.999
    assert len(health["loss"]) == options.get("nb_iter", 1) + 1 and health["change_max"] <= 8
    assert not np.array_equal(adversarial, make(victim, "apd", random_start=False)[0])


@pytest.mark.parametrize("method", [one for one in names.METHODS if one not in names.UNBOUNDED])
@pytest.mark.parametrize("epsilon", [1, 2.5, 8, 30])
def test_every_method_begins_at_the_same_random_point_and_stays_in_the_ball(victim, method, epsilon):
    adversarial, health = make(victim, "basic", method=method, epsilon=epsilon)
    assert health["loss"][0] == make(victim, "basic", epsilon=epsilon)[1]["loss"][0] > 0
    change = np.abs(adversarial.astype(int) - victim[2])
    assert adversarial.dtype == np.uint8 and 0 < change.max() <= epsilon
    assert health["change_max"] == change.max() and health["change_mean"] == pytest.approx(change.mean())
    assert health["loss"][-1] > health["loss"][0]


def test_advertorch_imports_on_this_torch_by_the_repair_alone():
    unrepaired = subprocess.run([sys.executable, "-c", "import advertorch.attacks"], capture_output=True, text=True)
    assert "cannot import name 'zero_gradients'" in unrepaired.stderr, "the repair has become needless"
    methods.advertorch()
    from advertorch.attacks import FABAttack  # the one module that needed the repair

    assert FABAttack.__module__ == "advertorch.attacks.fast_adaptive_boundary"
