"""Adversarial queries: what all attacks have in common.

An attack is a loss, see ``pqag.losses``, and a method, which searches the ball around the images for a maximum of it, see
``pqag.methods``. Both may be the user's own (docs/attack.md). Those that only see what a retrieval system answers are in
``pqag.black_box``.

Precision: the backbone runs in float32 and never under autocast, the head in float64. At temperature 1 the centroid distribution is
nearly uniform and AOD's gradient a small difference of large numbers: in float32 throughout, 15 % of the gradient's signs are wrong.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pqag import black_box, codebooks, goals, losses, methods, names, user_code
from pqag.codebooks import Codebook
from pqag.errors import UserError
from pqag.losses import Head
from pqag.networks import Backbone, features, groups_of, normalise, pixels


@dataclass(frozen=True)
class Attack:
    """One entry of ``attacks`` in config.yaml.

    loss: name of a function of ``pqag.losses``, or in ``entry_points``. epsilon, step: radius of the ball and step size, in pixel values of
    0 ... 255. iterations: gradient steps. random_start: begin at a uniformly drawn point of the ball. feature: "normalised" or "raw"
    features for Basic. assignment: "inner_product" (Eq. 6) or "euclidean" (Eq. 1) to find the codeword that APD attacks. temperature: of
    the softmax of Eq. 7. distribution: of "codewords" (Eq. 7) or of the "own" scores of the victim, see ``losses.Head``. method: name
    of a function of ``pqag.methods``, or in ``entry_points``. restarts: from how many starting points the method runs; of each query the
    point with the largest loss is kept. items, distance: how many items a retrieval system returns, and by which distance, "ADC" or "SDC",
    for the losses of ``pqag.black_box``. budget: how many requests it answers for each query, that of the clean image included. options:
    what only this method uses, see ``options_of``. entry_points: functions of the user's, by their names. goals: the codes that the loss
    aims at, int64 (N, M), in the order of the images. changes: what a trained method does to images, see ``pqag.trained``.
    """

    loss: str
    epsilon: float
    step: float
    iterations: int
    random_start: bool = True
    feature: str = "normalised"
    assignment: str = "inner_product"
    temperature: float = 1.0
    distribution: str = "codewords"
    method: str = "pgd"
    restarts: int = 1
    items: int = 1000
    distance: str = "ADC"
    budget: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict)
    entry_points: Mapping[str, Callable] = field(default_factory=dict)
    goals: np.ndarray | None = None
    changes: Callable[[Tensor], Tensor] | None = None

    @property
    def looks(self) -> int:
        """How often a batch looks at the loss, if the method is ours."""
        if self.method in names.BLACK_BOX:
            return names.requests(self.method, self.iterations, self.options.get("directions", 0)) - 1
        if self.method in names.TRAINED:
            return 1
        return self.options.get("searches", self.restarts) * (self.iterations + (self.method == "apgd"))


def from_settings(settings: Mapping[str, Any]) -> Attack:
    """The attack that the settings of a job describe; runs the files of its entry points, whose sha256 stand in ``brought``."""
    keys = [one.name for one in fields(Attack) if one.name not in ("options", "entry_points", "goals", "changes")]
    own = [settings[key] for key in ("loss", "method") if names.is_entry_point(settings[key])]
    functions = {name: user_code.function(name, settings["brought"][name]) for name in own}
    options = {key: settings[key] for key in options_of(settings["method"])}
    return Attack(**{key: settings[key] for key in keys if key in settings}, options=options, entry_points=functions)


def goals_of(loss: str, known: goals.Known) -> goals.Goals:
    """What a loss of ``names.AIMED`` aims at, for the queries of what is ``known``."""
    return getattr(goals, loss)(known)


def options_of(method: str) -> dict[str, Any]:
    """What only this method of ours uses, with its defaults: its keyword-only parameters. A method of the user's has none."""
    module = black_box if method in names.BLACK_BOX else methods
    parameters = {} if names.is_entry_point(method) else inspect.signature(getattr(module, method)).parameters
    return {name: one.default for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}


def random_starts(ids: np.ndarray, shape: tuple[int, ...], epsilon: float, seed: int, restart: int = 0) -> Tensor:
    """A point of the ball for each query, float32 (N, *shape), uniform in [-epsilon, epsilon].

    Drawn from (seed, id) of the query alone, and from the number of the restart after the first, so that no query's start depends on the
    batch it is in, nor on the attack: different attacks begin at the same points.
    """
    later = [restart] if restart else []
    draws = [np.random.default_rng([seed, int(i), *later]).uniform(-epsilon, epsilon, shape) for i in ids]
    return torch.from_numpy(np.asarray(draws, dtype=np.float32).reshape(len(ids), *shape))


class Objective:
    """What an attack maximises on a batch of queries, with a look at how it fares.

    Called with images, float32 (N, 3, H, W) in [0, 1], it gives the loss of each query, float64 (N,), differentiable by the images.
    trace: the losses at each call. zero_gradients: the share of exactly zero entries in the first gradient, per query, (N,);
    None until a gradient was taken. Raises UserError if a loss of the user's gives something else.
    """

    def __init__(self, network: Backbone, reference: Tensor, head: Head, settings: Attack, on_step: Callable[[], None]):
        self.network, self.reference, self.head, self.settings, self.on_step = network, reference, head, settings, on_step
        self.loss = settings.entry_points.get(settings.loss) or getattr(losses, settings.loss)
        self.trace: list[Tensor] = []
        self.zero_gradients: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        z = features(self.network, images, self.settings.feature == "normalised")
        progress = min(1.0, len(self.trace) / self.settings.iterations)
        values = self.loss(z, self.reference, replace(self.head, progress=progress))
        _check_loss(values, z, self.settings.loss)
        if images.requires_grad and self.zero_gradients is None:
            images.register_hook(self._keep_first)
        self.trace.append(values.detach())
        self.on_step()
        return values

    def _keep_first(self, gradient: Tensor) -> None:
        if self.zero_gradients is None:
            self.zero_gradients = (gradient == 0).flatten(1).float().mean(1)

    def final(self, z: Tensor) -> Tensor:
        """The loss of the stored images, whose features are z."""
        return self.loss(z, self.reference, self.head)

    @property
    def requests(self) -> int | None:
        """How many requests were made to a retrieval system for each query; None for what needs its network."""
        return None


class Requests(Objective):
    """What an attack on a black box maximises: a loss of what a retrieval system answers.

    Called with images as ``Objective``, which it receives as 8-bit images. It gives no gradient, and answers only as many requests as the
    budget allows: otherwise it raises UserError. draws: a random generator for each query, which no other query depends on.
    zero_gradients: the share of differences that are exactly zero in the first estimate of the gradient; None if there is none.
    """

    def __init__(
        self, network: Backbone, reference: Tensor, codebook: Codebook, settings: Attack, on_step: Callable[[], None], draws: list
    ):
        self.network, self.settings, self.on_step, self.draws = network, settings, on_step, draws
        self.final = getattr(black_box, settings.loss)(reference, codebook, settings.items, settings.distance)
        self.trace = []

    def __call__(self, images: Tensor) -> Tensor:
        name = self.settings.method
        if images.requires_grad:
            raise UserError(f"the attack {name} asked for a gradient, but a retrieval system only answers with items and distances")
        if self.requests >= self.settings.budget:
            raise UserError(f"the attack {name} made more requests for an image than its budget of {self.settings.budget}")
        with torch.no_grad():
            received = pixels((images * 255).round().clamp(0, 255).to(torch.uint8))
            values = self.final(features(self.network, received, self.settings.feature == "normalised"))
        self.trace.append(values)
        self.on_step()
        return values

    @property
    def requests(self) -> int:
        return 1 + len(self.trace)

    @property
    def zero_gradients(self) -> Tensor | None:
        first = self.trace[: 2 * self.settings.options.get("directions", 0)]
        return torch.stack([a == b for a, b in zip(first[::2], first[1::2])]).float().mean(0) if first else None


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


def _method(settings: Attack) -> Callable[..., Tensor]:
    """The method of an attack as a function of loss, images, start, epsilon, step and iterations."""
    module = black_box if settings.method in names.BLACK_BOX else methods
    method = settings.entry_points.get(settings.method) or getattr(module, settings.method)
    return functools.partial(method, **settings.options)


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


@dataclass
class _Found:
    """What a method found for a batch: images as stored, uint8 (N, 3, H, W), their features, float64 (N, D), the losses at each look and,
    last, of the stored images, the share of zeros in the first gradient of each query, None if there was none, and the number of requests
    for each query, None for what makes none."""

    images: Tensor
    z: Tensor
    losses: list[Tensor]
    zero_gradients: Tensor | None
    requests: int | None = None

    def or_better(self, other: "_Found") -> "_Found":
        """For each query this, or the ``other`` where that has a larger loss. Looks that only one of them has are left out."""
        larger = other.losses[-1] > self.losses[-1]

        def of(one: Tensor, another: Tensor) -> Tensor:
            return torch.where(larger.reshape(-1, *[1] * (one.ndim - 1)), another, one)

        pairs = [*zip(self.losses[:-1], other.losses[:-1]), (self.losses[-1], other.losses[-1])]
        zeros = None if None in (self.zero_gradients, other.zero_gradients) else of(self.zero_gradients, other.zero_gradients)
        return _Found(of(self.images, other.images), of(self.z, other.z), [of(*pair) for pair in pairs], zeros)


def _run(objective: Objective, clean: Tensor, start: Tensor) -> _Found:
    """What the attack of an objective finds for ``clean`` images, uint8 (N, 3, H, W), from a change ``start``, cut to images in [0, 1]."""
    settings, x = objective.settings, pixels(clean)
    epsilon = settings.epsilon / 255
    start = (x + start).clamp(0, 1) - x
    adversarial = _method(settings)(objective, x, start, epsilon, settings.step / 255, settings.iterations)
    _check_images(adversarial, x, epsilon, settings.method)
    result = rounded(adversarial.detach(), clean, settings.epsilon)
    with torch.no_grad():
        z = features(objective.network, pixels(result), settings.feature == "normalised")
        final = objective.final(z)
    return _Found(result, z, [*objective.trace, final], objective.zero_gradients, objective.requests)


def prepared(network: Backbone, codebook: Codebook, settings: Attack) -> tuple[Backbone, torch.device, Head]:
    """The network in evaluation mode with frozen parameters, the device that it is on, and the head of the victim as the loss sees it."""
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    words, turn, logits = (
        None if array is None else torch.as_tensor(array, dtype=torch.float64, device=device)
        for array in (codebook.codewords, codebook.rotation, codebook.logits)
    )
    head = Head(words, settings.assignment, settings.temperature, turn, codebook.encoder, logits, settings.distribution)
    return network, device, head


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
    query, None if there was none; ``codes_changed`` the number of queries with another code (as retrieval assigns it); of an attack on a
    black box ``requests`` the number of requests for each query. A batch depends on no other. Raises UserError if an attack of the user's
    gives something else than images in the ball.
    """
    network, device, head = prepared(network, codebook, settings)
    normalised, epsilon = settings.feature == "normalised", settings.epsilon / 255 if settings.random_start else 0.0

    for begin in range(0, len(images), batch_size):
        batch = slice(begin, begin + batch_size)
        clean, found = torch.from_numpy(images[batch]).to(device), None
        with torch.no_grad():
            reference = features(network, pixels(clean), normalised)
        aimed = head if settings.goals is None else replace(head, goals=torch.as_tensor(settings.goals[batch], device=device))
        for restart in range(settings.restarts):
            start = random_starts(ids[batch], images.shape[1:], epsilon, seed, restart).to(device)
            if settings.changes is not None:
                start = settings.changes(pixels(clean))
            if settings.loss in names.ANSWERS:
                draws = [np.random.default_rng([seed, int(i), restart, 1]) for i in ids[batch]]  # apart from those of the starts
                objective = Requests(network, reference, codebook, settings, on_step, draws)
            else:
                objective = Objective(network, reference, aimed, settings, on_step)
            another = _run(objective, clean, start)
            found = another if found is None else found.or_better(another)
        with torch.no_grad():
            unit = [normalise(f, groups_of(network)) for f in (found.z, reference)]
            codes = [codebooks.encode(codebook, f.float().cpu().numpy()) for f in unit]
        yield (
            found.images.cpu().numpy(),
            (found.z if normalised else unit[0]).float().cpu().numpy(),
            {
                "loss": [float(values.sum()) for values in found.losses],
                "zero_gradients": None if found.zero_gradients is None else found.zero_gradients.tolist(),
                "codes_changed": int((codes[0] != codes[1]).any(1).sum()),
            }
            | ({} if found.requests is None else {"requests": found.requests}),
        )


def health(images: np.ndarray, adversarial: np.ndarray, batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How an attack fared on query ``images``, uint8 (N, 3, H, W): from its ``adversarial`` images and the figures of all its batches.

    ``loss`` is the mean over the queries at each look at it and, last, of the stored images; ``zero_gradients`` and ``codes_changed`` are
    shares, the first None if there was no gradient; ``change_mean`` and ``change_max`` the absolute change in pixel values; ``requests``,
    of an attack on a black box, the requests for a query, at the most. Sums are taken in the order of the batches.
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
    } | ({"requests": max(batch["requests"] for batch in batches)} if "requests" in batches[0] else {})


def attack(
    network: Backbone, codebook: Codebook, images: np.ndarray, *arguments, **options
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """All adversarial images of ``attack_batches``, which has the same parameters, their features, and the attack's ``health``."""
    *arrays, batches = zip(*attack_batches(network, codebook, images, *arguments, **options))
    adversarial, features = map(np.concatenate, arrays)
    return adversarial, features, health(images, adversarial, batches)
