"""Adversarial queries: the Basic attack (Eq. 3), APD (Type I, Eq. 8) and AOD (Type II, Eq. 9) of PQ-AG, by gradient ascent.

An attack is a loss and a method. Every loss here is to be *maximised*; it is a function ``loss(z, clean, head)`` of the adversarial
features z and the clean ones, float64 (N, D), and of the product-quantization head, that gives one number per query, (N,). A method
searches the ball around the images for a maximum, see ``pgd``. Both may be the user's own (docs/attack.md); the rest of ``attack`` is
common to all.

Precision: the backbone runs in float32 and never under autocast, the head in float64. At temperature 1 the centroid distribution is
nearly uniform and AOD's gradient a small difference of large numbers: in float32 throughout, 15 % of the gradient's signs are wrong.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pqag import names, user_code
from pqag.codebooks import Codebook
from pqag.errors import UserError
from pqag.networks import Backbone, features, groups_of, normalise, pixels

# AdverTorch 0.2.3 (2020) imports ``zero_gradients`` from a module of torch that lost it in 1.9; only its FAB attack would call it. The
# module must be asked for by name, for ``torch.autograd.gradcheck`` as an attribute is the function of the same name.
_gradcheck = importlib.import_module("torch.autograd.gradcheck")
if not hasattr(_gradcheck, "zero_gradients"):

    def _zero_gradients(tensors):
        for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
            tensor.grad = None

    _gradcheck.zero_gradients = _zero_gradients

from advertorch.attacks.iterative_projected_gradient import perturb_iterative  # noqa: E402


@dataclass(frozen=True)
class Attack:
    """One entry of ``attacks`` in config.yaml.

    loss: name in ``LOSSES`` or in ``entry_points``. epsilon, step: radius of the ball and step size, in pixel values of 0 ... 255.
    iterations: gradient steps. random_start: begin at a uniformly drawn point of the ball. feature: "normalised" or "raw" features for
    Basic. assignment: "inner_product" (Eq. 6) or "euclidean" (Eq. 1) to find the codeword that APD attacks. temperature: of the softmax of
    Eq. 7. method: name in ``METHODS`` or in ``entry_points``. decay: of momentum. entry_points: functions of the user's, by their names.
    """

    loss: str
    epsilon: float
    step: float
    iterations: int
    random_start: bool = True
    feature: str = "normalised"
    assignment: str = "inner_product"
    temperature: float = 1.0
    method: str = "pgd"
    decay: float = 1.0
    entry_points: Mapping[str, Callable] = field(default_factory=dict)


def from_settings(settings: Mapping[str, Any]) -> Attack:
    """The attack that the settings of a job describe; runs the files of its entry points, whose sha256 stand in ``brought``."""
    keys = [one.name for one in fields(Attack) if one.name != "entry_points"]
    own = [settings[key] for key in ("loss", "method") if names.is_entry_point(settings[key])]
    functions = {name: user_code.function(name, settings["brought"][name]) for name in own}
    return Attack(**{key: settings[key] for key in keys}, entry_points=functions)


@dataclass(frozen=True)
class Head:
    """The product-quantization head that an attack looks at: codewords, float64 (M, K, D/M), how codes are assigned, and the rotation of
    features that comes first, float64 (D, D), None for none."""

    codewords: Tensor
    assignment: str = "inner_product"
    temperature: float = 1.0
    rotation: Tensor | None = None

    def similarities(self, z: Tensor) -> Tensor:
        """Inner products, (N, M, K), of the sub-vectors of z, (N, D), with the codewords of their sub-space."""
        z = z if self.rotation is None else z @ self.rotation.T
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


LOSSES = dict(zip(names.LOSSES, (basic_loss, apd_loss, aod_loss), strict=True))


def random_starts(ids: np.ndarray, shape: tuple[int, ...], epsilon: float, seed: int) -> Tensor:
    """A point of the ball for each query, float32 (N, *shape), uniform in [-epsilon, epsilon].

    Drawn from (seed, id) of the query alone, so that no query's start depends on the batch it is in, nor on the attack: different attacks
    begin at the same point.
    """
    draws = [np.random.default_rng([seed, int(i)]).uniform(-epsilon, epsilon, shape) for i in ids]
    return torch.from_numpy(np.asarray(draws, dtype=np.float32).reshape(len(ids), *shape))


class Objective:
    """What an attack maximises on a batch of queries, with a look at how it fares.

    Called with images, float32 (N, 3, H, W) in [0, 1], it gives the loss of each query, float64 (N,), differentiable by the images.
    trace: the sum over the queries at each call. zero_gradients: the share of exactly zero entries in the first gradient, per query, (N,);
    None until a gradient was taken. Raises UserError if a loss of the user's gives something else.
    """

    def __init__(self, network: Backbone, reference: Tensor, head: Head, settings: Attack, on_step: Callable[[], None]):
        self.network, self.reference, self.head, self.settings, self.on_step = network, reference, head, settings, on_step
        self.loss = LOSSES.get(settings.loss) or settings.entry_points[settings.loss]
        self.trace: list[float] = []
        self.zero_gradients: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        z = features(self.network, images, self.settings.feature == "normalised")
        values = self.loss(z, self.reference, self.head)
        _check_loss(values, z, self.settings.loss)
        if images.requires_grad and self.zero_gradients is None:
            images.register_hook(self._keep_first)
        self.trace.append(float(values.detach().sum()))
        self.on_step()
        return values

    def _keep_first(self, gradient: Tensor) -> None:
        if self.zero_gradients is None:
            self.zero_gradients = (gradient == 0).flatten(1).float().mean(1)


def _check_loss(values: object, z: Tensor, name: str) -> None:
    """Refuse what is no loss: only one of the user's can be that."""
    if not isinstance(values, Tensor) or values.shape != (len(z),):
        raise UserError(f"the loss {name} returned {described(values)}, but must return one number per query, a tensor ({len(z)},)")
    if not values.isfinite().all():
        raise UserError(f"the loss {name} returned NaN or infinite numbers, but must return finite ones")
    if z.requires_grad and not values.requires_grad:
        raise UserError(f"the loss {name} has no gradient: it must be computed from its argument z by operations of torch")


def described(value: object) -> str:
    """What a function of the user's returned, in a few words."""
    if isinstance(value, Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        return f"{kind} {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def pgd(loss: Callable[[Tensor], Tensor], images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """Projected gradient ascent on the sign of the gradient (Madry et al. 2018), by AdverTorch.

    As for every method: ``images`` float32 (N, 3, H, W) in [0, 1]; ``start`` the change to begin at, of the same shape, within the ball and
    leading to no pixel outside [0, 1]; ``epsilon`` and ``step`` in the same units. Gives adversarial images of the same shape in the ball
    and in [0, 1]. What AdverTorch's ``LinfPGDAttack`` does, but from given starting points instead of ones that it draws.
    """
    return perturb_iterative(
        images,
        images,
        loss,
        nb_iter=iterations,
        eps=epsilon,
        eps_iter=step,
        loss_fn=lambda values, _: values.sum(),
        delta_init=torch.nn.Parameter(start),
        clip_min=0.0,
        clip_max=1.0,
    ).detach()


def fgsm(loss: Callable[[Tensor], Tensor], images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): one step as long as the radius, whatever ``step`` and ``iterations`` are."""
    return pgd(loss, images, start, epsilon, epsilon, 1)


def momentum_pgd(
    loss: Callable[[Tensor], Tensor], images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, decay: float = 1.0
) -> Tensor:
    """MI-FGSM (Dong et al. 2018, Algorithm 1): steps along the sign of a sum of gradients of l1-norm 1, the older ones times ``decay``.

    AdverTorch's ``MomentumIterativeAttack`` is the same (tested), but takes no starting points.
    """
    change, momentum = start, torch.zeros_like(images)
    for _ in range(iterations):
        x = (images + change).requires_grad_()
        [gradient] = torch.autograd.grad(loss(x).sum(), x)
        norm = gradient.abs().sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        momentum = decay * momentum + gradient / norm
        change = (change + step * momentum.sign()).clamp(-epsilon, epsilon)
        change = (images + change).clamp(0, 1) - images
    return images + change


METHODS = dict(zip(names.METHODS, (pgd, fgsm, momentum_pgd), strict=True))


def _method(settings: Attack) -> Callable[..., Tensor]:
    """The method of an attack as a function of loss, images, start, epsilon, step and iterations."""
    method = METHODS.get(settings.method) or settings.entry_points[settings.method]
    return functools.partial(method, decay=settings.decay) if method is momentum_pgd else method


def _check_images(adversarial: object, images: Tensor, epsilon: float, name: str) -> None:
    """Refuse what are no adversarial images: only a method of the user's can give that. A hundredth of a grey level is rounding."""
    if not isinstance(adversarial, Tensor) or adversarial.shape != images.shape or not adversarial.is_floating_point():
        wanted = f"a tensor {tuple(images.shape)} of floats, as the images are"
        raise UserError(f"the attack {name} returned {described(adversarial)}, but must return {wanted}")
    if not adversarial.isfinite().all():
        raise UserError(f"the attack {name} returned NaN or infinite pixels, but must return images in [0, 1]")
    if float(adversarial.min()) < -4e-5 or float(adversarial.max()) > 1 + 4e-5:
        raise UserError(f"the attack {name} returned pixels from {adversarial.min():g} to {adversarial.max():g}, but must stay in [0, 1]")
    if (change := float((adversarial - images).abs().max())) > epsilon + 4e-5:
        raise UserError(
            f"the attack {name} changed a pixel by {change * 255:.4g} of 255, but may change none by more than {epsilon * 255:g}"
        )


def rounded(adversarial: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Adversarial images in [0, 1] as stored: uint8, no pixel further than ``epsilon`` (of 255) from ``clean``, uint8 (N, 3, H, W)."""
    radius = int(epsilon)
    change = (adversarial * 255).round().int() - clean.int()
    result = clean.int() + change.clamp(-radius, radius)
    assert int((result - clean.int()).abs().max()) <= epsilon and int(result.min()) >= 0 and int(result.max()) <= 255
    return result.to(torch.uint8)


def attack_batches(
    network: Backbone,
    codebook: Codebook,
    images: np.ndarray,
    ids: np.ndarray,
    settings: Attack,
    seed: int,
    batch_size: int = names.BATCH_SIZES["attack"],
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Adversarial counterparts, uint8, of each batch of query ``images``, uint8 (N, 3, H, W) with stable ``ids`` (N,), their features as
    ``networks.extract`` gives them, and the figures of the batch.

    ``network`` is put into evaluation mode with frozen parameters and computes where it is; ``codebook`` is the victim's. ``on_step`` is
    called after every look of a batch at the loss. The figures are plain values, for ``health``: ``loss`` is the sum over
    the queries at each such look and, last, of the stored images; ``zero_gradients`` the share of exact zeros in the first gradient of each
    query, None if there was none; ``codes_changed`` the number of queries with another code (by Eq. 1, as retrieval assigns it). A batch
    depends on no other. Raises UserError if an attack of the user's gives something else than images in the ball.
    """
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    turn = None if codebook.rotation is None else torch.as_tensor(codebook.rotation, dtype=torch.float64, device=device)
    head = Head(torch.as_tensor(codebook.codewords, dtype=torch.float64, device=device), settings.assignment, settings.temperature, turn)
    retrieval_head = replace(head, assignment="euclidean")
    method, epsilon = _method(settings), settings.epsilon / 255
    normalised = settings.feature == "normalised"

    for begin in range(0, len(images), batch_size):
        batch = slice(begin, begin + batch_size)
        clean = torch.from_numpy(images[batch]).to(device)
        x = pixels(clean)
        with torch.no_grad():
            reference = features(network, x, normalised)
        objective = Objective(network, reference, head, settings, on_step)
        start = random_starts(ids[batch], images.shape[1:], epsilon if settings.random_start else 0.0, seed).to(device)
        start = (x + start).clamp(0, 1) - x
        adversarial = method(objective, x, start, epsilon, settings.step / 255, settings.iterations)
        _check_images(adversarial, x, epsilon, settings.method)
        result = rounded(adversarial.detach(), clean, settings.epsilon)
        with torch.no_grad():
            z = features(network, pixels(result), normalised)
            final = float(objective.loss(z, reference, head).sum())
            unit = [normalise(f, groups_of(network)) for f in (z, reference)]
            codes = [retrieval_head.codes(f) for f in unit]
        yield (
            result.cpu().numpy(),
            (z if normalised else unit[0]).float().cpu().numpy(),
            {
                "loss": [*objective.trace, final],
                "zero_gradients": None if objective.zero_gradients is None else objective.zero_gradients.tolist(),
                "codes_changed": int((codes[0] != codes[1]).any(1).sum()),
            },
        )


def health(images: np.ndarray, adversarial: np.ndarray, batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How an attack fared on query ``images``, uint8 (N, 3, H, W): from its ``adversarial`` images and the figures of all its batches.

    ``loss`` is the mean over the queries at each look at it and, last, of the stored images; ``zero_gradients`` and ``codes_changed`` are
    shares, the first None if there was no gradient; ``change_mean`` and ``change_max`` the absolute change in pixel values. Sums are taken
    in the order of the batches.
    """
    looks = zip(*(batch["loss"][:-1] for batch in batches))
    shares = [batch["zero_gradients"] for batch in batches]
    change = np.abs(adversarial.astype(np.int16) - images)
    return {
        "loss": [sum(at_step) / len(images) for at_step in (*looks, [batch["loss"][-1] for batch in batches])],
        "zero_gradients": None if None in shares else float(np.concatenate(shares).mean()),
        "codes_changed": sum(batch["codes_changed"] for batch in batches) / len(images),
        "change_mean": float(change.mean()),
        "change_max": int(change.max()),
    }


def attack(
    network: Backbone, codebook: Codebook, images: np.ndarray, *arguments, **options
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """All adversarial images of ``attack_batches``, which has the same parameters, their features, and the attack's ``health``."""
    *arrays, batches = zip(*attack_batches(network, codebook, images, *arguments, **options))
    adversarial, features = map(np.concatenate, arrays)
    return adversarial, features, health(images, adversarial, batches)
