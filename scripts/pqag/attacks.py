"""Adversarial queries: the Basic attack (Eq. 3), APD (Type I, Eq. 8) and AOD (Type II, Eq. 9) of PQ-AG, by projected gradient ascent.

Every loss here is to be *maximised*; it is a function ``loss(z, clean, head)`` of the adversarial features z and the clean ones, float64
(N, D), and of the product-quantization head, that gives one number per query, (N,). A new attack is a new entry of ``LOSSES``.

Precision: the backbone runs in float32 and never under autocast, the head in float64. At temperature 1 the centroid distribution is
nearly uniform and AOD's gradient a small difference of large numbers: in float32 throughout, 15 % of the gradient's signs are wrong.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pqag.networks import Backbone, features, pixels

# AdverTorch 0.2.3 (2020) imports ``zero_gradients`` from a module of torch that lost it in 1.9; only its FAB attack would call it. The
# module must be asked for by name, for ``torch.autograd.gradcheck`` as an attribute is the function of the same name.
_gradcheck = importlib.import_module("torch.autograd.gradcheck")
if not hasattr(_gradcheck, "zero_gradients"):

    def _zero_gradients(tensors):
        for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
            tensor.grad = None

    _gradcheck.zero_gradients = _zero_gradients

from advertorch.attacks import LinfPGDAttack  # noqa: E402
from advertorch.attacks.iterative_projected_gradient import perturb_iterative  # noqa: E402


@dataclass(frozen=True)
class Attack:
    """One entry of ``attacks`` in config.yaml.

    loss: name in ``LOSSES``. epsilon, step: radius of the ball and step size, in pixel values of 0 ... 255. iterations: gradient steps.
    random_start: begin at a uniformly drawn point of the ball. feature: "normalised" or "raw" features for Basic. assignment:
    "inner_product" (Eq. 6) or "euclidean" (Eq. 1) to find the codeword that APD attacks. temperature: of the softmax of Eq. 7.
    """

    loss: str
    epsilon: float
    step: float
    iterations: int
    random_start: bool = True
    feature: str = "normalised"
    assignment: str = "inner_product"
    temperature: float = 1.0


@dataclass(frozen=True)
class Head:
    """The product-quantization head that an attack looks at: codewords, float64 (M, K, D/M), and how codes are assigned."""

    codewords: Tensor
    assignment: str = "inner_product"
    temperature: float = 1.0

    def similarities(self, z: Tensor) -> Tensor:
        """Inner products, (N, M, K), of the sub-vectors of z, (N, D), with the codewords of their sub-space."""
        subspaces, _, size = self.codewords.shape
        return torch.einsum("nmd,mkd->nmk", z.reshape(len(z), subspaces, size), self.codewords)

    def log_distribution(self, z: Tensor) -> Tensor:
        """log p of the soft assignment, (N, M, K): Eq. 7, with the inner products divided by the temperature."""
        return F.log_softmax(self.similarities(z) / self.temperature, dim=2)

    def codes(self, z: Tensor) -> Tensor:
        """Hard assignment b, int64 (N, M): Eq. 6 by inner product, or Eq. 1 by Euclidean distance."""
        scores = self.similarities(z)
        if self.assignment == "euclidean":
            scores = scores - (self.codewords**2).sum(2) / 2  # argmin ||z - c||^2 = argmax <z, c> - ||c||^2 / 2
        return scores.argmax(2)


def basic_loss(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Squared distance of the features, Eq. 3."""
    return ((z - clean) ** 2).sum(1)


def apd_loss(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the peak of the centroid distribution: cross-entropy to the clean query's code, Eq. 8."""
    return -head.log_distribution(z).gather(2, head.codes(clean)[:, :, None]).sum((1, 2))


def aod_loss(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the overall centroid distribution: cross-entropy to the clean query's soft assignment, Eq. 9."""
    return -(head.log_distribution(clean).exp() * head.log_distribution(z)).sum((1, 2))


LOSSES: dict[str, Callable[[Tensor, Tensor, Head], Tensor]] = {"basic": basic_loss, "apd": apd_loss, "aod": aod_loss}


def random_starts(ids: np.ndarray, shape: tuple[int, ...], epsilon: float, seed: int) -> Tensor:
    """A point of the ball for each query, float32 (N, *shape), uniform in [-epsilon, epsilon].

    Drawn from (seed, id) of the query alone, so that no query's start depends on the batch it is in, nor on the attack: different attacks
    begin at the same point.
    """
    draws = [np.random.default_rng([seed, int(i)]).uniform(-epsilon, epsilon, shape) for i in ids]
    return torch.from_numpy(np.asarray(draws, dtype=np.float32).reshape(len(ids), *shape))


class SeededPgd(LinfPGDAttack):
    """AdverTorch's PGD from given starting points instead of ones drawn from the global generator, for queries are to have their own.

    start: change of the images at the start, float32, of the shape of the images. zero_gradients: after ``perturb``, the share of exactly
    zero entries in the gradient at the start, per query, (N,).
    """

    def __init__(self, predict, loss_fn, start: Tensor, **options):
        super().__init__(predict, loss_fn, **options)
        self.start = start
        self.zero_gradients: Tensor | None = None

    def _keep_first(self, gradient: Tensor) -> None:
        if self.zero_gradients is None:
            self.zero_gradients = (gradient == 0).flatten(1).float().mean(1)

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images, float32 like the images ``x``, (N, 3, H, W) in [0, 1]; ``y`` is what the loss compares with."""
        delta = torch.nn.Parameter((x + self.start).clamp(self.clip_min, self.clip_max) - x)
        delta.register_hook(self._keep_first)
        return perturb_iterative(
            x,
            y,
            self.predict,
            nb_iter=self.nb_iter,
            eps=self.eps,
            eps_iter=self.eps_iter,
            loss_fn=self.loss_fn,
            delta_init=delta,
            clip_min=self.clip_min,
            clip_max=self.clip_max,
        ).detach()


def rounded(adversarial: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Adversarial images in [0, 1] as stored: uint8, no pixel further than ``epsilon`` (of 255) from ``clean``, uint8 (N, 3, H, W)."""
    radius = int(epsilon)
    change = (adversarial * 255).round().int() - clean.int()
    result = clean.int() + change.clamp(-radius, radius)
    assert int((result - clean.int()).abs().max()) <= epsilon and int(result.min()) >= 0 and int(result.max()) <= 255
    return result.to(torch.uint8)


def attack(
    network: Backbone,
    codewords: np.ndarray,
    images: np.ndarray,
    ids: np.ndarray,
    settings: Attack,
    seed: int,
    device: torch.device | None = None,
    batch_size: int = 250,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, dict]:
    """Adversarial counterparts, uint8, of query ``images``, uint8 (N, 3, H, W) with stable ``ids`` (N,), and the attack's health.

    ``network`` is put into evaluation mode with frozen parameters, ``codewords`` (M, K, D/M) are the victim's. ``on_step`` is called after
    every gradient step of a batch. The health: ``loss`` is the mean over the queries before each step and, last, of the stored images;
    ``zero_gradients`` the share of exact zeros in the gradient at the start; ``codes_changed`` the share of queries with another code
    (by Eq. 1, as retrieval assigns it); ``change_mean`` and ``change_max`` the absolute change in pixel values.
    """
    device = device or torch.device("cpu")
    network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    head = Head(torch.as_tensor(codewords, dtype=torch.float64, device=device), settings.assignment, settings.temperature)
    retrieval_head = Head(head.codewords, "euclidean")
    loss = LOSSES[settings.loss]
    normalised = settings.feature == "normalised"

    stored: list[np.ndarray] = []
    losses = np.zeros(settings.iterations + 1)
    zero_share = changed = 0.0
    for begin in range(0, len(images), batch_size):
        batch = slice(begin, begin + batch_size)
        clean = torch.from_numpy(images[batch]).to(device)
        x = pixels(clean)
        with torch.no_grad():
            reference = features(network, x, normalised)
        trace: list[float] = []

        def traced_loss(z: Tensor, reference: Tensor, trace: list[float] = trace) -> Tensor:
            total = loss(z, reference, head).sum()
            trace.append(float(total.detach()))
            on_step()
            return total

        epsilon = settings.epsilon / 255
        start = random_starts(ids[batch], images.shape[1:], epsilon if settings.random_start else 0.0, seed).to(device)
        pgd = SeededPgd(
            lambda image: features(network, image, normalised),
            traced_loss,
            start,
            eps=epsilon,
            nb_iter=settings.iterations,
            eps_iter=settings.step / 255,
        )
        result = rounded(pgd.perturb(x, reference), clean, settings.epsilon)
        with torch.no_grad():
            z = features(network, pixels(result), normalised)
            final = float(loss(z, reference, head).sum())
            codes = [retrieval_head.codes(F.normalize(f, dim=1)) for f in (z, reference)]
        losses += np.array([*trace, final])
        zero_share += float(pgd.zero_gradients.sum())
        changed += int((codes[0] != codes[1]).any(1).sum())
        stored.append(result.cpu().numpy())

    adversarial_images = np.concatenate(stored)
    change = np.abs(adversarial_images.astype(np.int16) - images)
    return adversarial_images, {
        "loss": (losses / len(images)).tolist(),
        "zero_gradients": zero_share / len(images),
        "codes_changed": changed / len(images),
        "change_mean": float(change.mean()),
        "change_max": int(change.max()),
    }
