"""A universal perturbation (Moosavi-Dezfooli et al. 2017), in its form for retrieval: one change for all images, fitted to training images.

Instead of DeepFool's steps towards another class it takes steps along the sign of the mean gradient of a loss of ``pqag.losses``, over
batches of training images; so it needs neither classes nor labels.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from pqag import attacks
from pqag.codebooks import Codebook
from pqag.names import BATCH_SIZES
from pqag.networks import Backbone, features, pixels

#: Training images at once.
BATCH = BATCH_SIZES["attack"]


def fit(
    network: Backbone,
    codebook: Codebook,
    images: np.ndarray,
    settings: attacks.Attack,
    seed: int,
    size: int,
    on_step: Callable[[], None] = lambda: None,
    batch_size: int = BATCH,
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The ``change``, float32 (3, size, size) in units of [0, 1] and within the ball, and the mean loss of each batch.

    images: uint8 (N, 3, H, W), enlarged to ``size`` pixels where they are smaller. All pass ``settings.iterations`` times, in an order of
    its own each time. The step falls from ``settings.step`` to 0 in equal parts. The change begins at a random point of the ball, or at
    zero.
    """
    network, device, head = attacks.prepared(network, codebook, settings)
    normalised, epsilon, step = settings.feature == "normalised", settings.epsilon / 255, settings.step / 255
    start = attacks.random_starts(np.zeros(1, np.int64), (3, size, size), epsilon if settings.random_start else 0.0, seed)
    change, draw, trace = start[0].to(device), np.random.default_rng([seed, 0, 0, 2]), []
    steps = settings.iterations * -(-len(images) // batch_size)
    for _ in range(settings.iterations):
        order = draw.permutation(len(images))
        for begin in range(0, len(images), batch_size):
            clean = pixels(torch.from_numpy(images[order[begin : begin + batch_size]]).to(device), size)
            with torch.no_grad():
                reference = features(network, clean, normalised)
            objective = attacks.Objective(network, reference, head, settings, on_step)
            change = change.detach().requires_grad_()
            values = objective((clean + change).clamp(0, 1))
            [gradient] = torch.autograd.grad(values.sum(), change)
            length = step * (1 - len(trace) / steps)
            change = (change.detach() + length * gradient.sign()).clamp(-epsilon, epsilon)
            trace.append(float(values.detach().mean()))
    return {"change": change.cpu().numpy()}, trace


def changes(arrays: Mapping[str, np.ndarray], settings: attacks.Attack, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The same change for all images, see ``pqag.trained``."""
    change = torch.from_numpy(arrays["change"]).to(device)
    return lambda images: change.expand_as(images)
