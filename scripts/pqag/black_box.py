"""Attacks on a black box: what a retrieval system answers, losses of its answers, and methods that do without gradients.

A loss is a function ``loss(clean, codebook, items, distance)``, see ``ranks``. A method is one as in ``pqag.methods``, whose loss has
``draws``, a random generator for each query, see ``pqag.attacks.Requests``. All have the names that a study calls them by: the digest of an
attack covers its own loss and method and what these use (``CHOSEN`` in job/provenance.py).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pqag import codebooks
from pqag.codebooks import Codebook
from pqag.quantizer import decode, encode, split, squared_distances
from pqag.retrieval import DISTANCE_BITS, fixed_point

#: Queries whose answers a loss holds in memory at a time.
PART = 32


class System:
    """A retrieval system as its users see it: it returns the first ``items`` of its database by ``distance``, "ADC" or "SDC"."""

    def __init__(self, codebook: Codebook, items: int, distance: str):
        self.codebook, self.distance = codebook, distance
        self.codes = torch.from_numpy(codebook.codes.astype(np.int64))
        self.size = len(self.codes)
        self.items = min(items, self.size)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The first items for features z, float64 (N, D): their places in the database, int64 (N, items), nearest first and tied ones in
        the order of the database; and their Euclidean distances, float64 (N, items)."""
        if self.codebook.encoder != "nearest":
            far = torch.from_numpy(codebooks.distances(self.codebook, z.cpu().numpy(), self.distance)).clamp(min=0)
            squares, first = far.sort(dim=1, stable=True)
            return first[:, : self.items].to(z.device), squares[:, : self.items].sqrt().to(z.device)
        codewords = self.codebook.codewords
        queries = self.codebook.rotated(z.cpu().numpy())
        if self.distance == "SDC":
            queries = decode(encode(queries, codewords), codewords)
        tables = squared_distances(split(queries, len(codewords)), codewords)
        low = self.size.bit_length()
        whole = torch.from_numpy(fixed_point(tables, min(DISTANCE_BITS, 62 - low)).astype(np.int64))
        keys = sum(whole[:, m][:, self.codes[:, m]] for m in range(len(codewords)))
        first = ((keys << low) + torch.arange(self.size)).topk(self.items, largest=False).values & (2**low - 1)
        tables = torch.from_numpy(np.ascontiguousarray(tables))
        squares = sum(tables[:, m].gather(1, self.codes[:, m][first]) for m in range(len(codewords)))
        return first.to(z.device), squares.sqrt().to(z.device)


def ranks(clean: Tensor, codebook: Codebook, items: int, distance: str) -> Callable[[Tensor], Tensor]:
    """By how much the items that were returned for the clean query have fallen: 0 if they still take all places, 1 if none is returned.

    Of k places the first counts k times as much as the last. Gives the loss as a function of features, float64 (N, D), that returns one
    number per query, (N,); ``clean`` are those of the clean queries. Sees only which items are returned, and in which order.
    """
    system = System(codebook, items, distance)
    own = torch.zeros(len(clean), system.size, dtype=torch.bool, device=clean.device).scatter(1, system(clean)[0], True)
    weights = torch.arange(system.items, 0, -1, dtype=torch.float64, device=clean.device)

    def fallen(z: Tensor, own: Tensor) -> Tensor:
        return 1 - (own.gather(1, system(z)[0]) * weights).sum(1) / weights.sum()

    return _in_parts(fallen, own)


def distances(clean: Tensor, codebook: Codebook, items: int, distance: str) -> Callable[[Tensor], Tensor]:
    """The mean distance of the items that were returned for the clean query; one that is no longer returned is as far as the last that is.

    As ``ranks``, but it also sees the distances of the items that are returned.
    """
    system = System(codebook, items, distance)
    own, _ = system(clean)

    def mean_distance(z: Tensor, own: Tensor) -> Tensor:
        first, far = system(z)
        return far[:, -1:].repeat(1, system.size).scatter(1, first, far).gather(1, own).mean(1)

    return _in_parts(mean_distance, own)


def _in_parts(loss: Callable[[Tensor, Tensor], Tensor], own: Tensor) -> Callable[[Tensor], Tensor]:
    """Return ``loss(z, own)`` as a function of z alone: features, float64 (N, D), to one number per query, (N,).

    ``own`` (N, ...) has a row for each query. The loss sees ``PART`` queries at a time, because each takes several rows of numbers, one for
    each item of the database.
    """
    return lambda z: torch.cat([loss(*part) for part in zip(z.split(PART), own.split(PART), strict=True)])


def nes(
    loss: Callable, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, *, directions: int = 25, probe: float = 4.0
) -> Tensor:
    """Natural evolution strategies (Wierstra et al. 2014; Ilyas et al. 2018): steps along the sign of an estimated gradient.

    For each of the ``directions``, which are standard normal, the loss is asked for ``probe`` grey levels ahead and back; the estimate is
    the sum of the directions times the differences. A step takes 2 x directions requests.
    """

    def estimate(x: Tensor) -> Tensor:
        total = torch.zeros_like(x, dtype=torch.float64)
        for _ in range(directions):
            draws = [draw.standard_normal(x.shape[1:], np.float32) for draw in loss.draws]
            ahead = torch.from_numpy(np.array(draws)).to(x.device)
            total += _difference(loss, x, probe / 255 * ahead) * ahead
        return total

    return _ascent(estimate, images, start, epsilon, step, iterations)


def random_groups(
    loss: Callable, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, *, directions: int = 25, probe: float = 4.0
) -> Tensor:
    """Gradient estimation of Bhagoji et al. (2018) with random groups of pixels, which are drawn anew for every step.

    Of each of so many groups (``directions``) the loss is asked for with its pixels ``probe`` grey levels up and down; all its pixels get
    the difference as their gradient. A step takes 2 x directions requests.
    """

    def estimate(x: Tensor) -> Tensor:
        total = torch.zeros_like(x, dtype=torch.float64)
        draws = [draw.permutation(x[0].numel()).reshape(x.shape[1:]) % directions for draw in loss.draws]
        groups = torch.from_numpy(np.array(draws)).to(x.device)
        for group in range(directions):
            own = (groups == group).float()
            total += _difference(loss, x, probe / 255 * own) * own
        return total

    return _ascent(estimate, images, start, epsilon, step, iterations)


def _difference(loss: Callable, x: Tensor, ahead: Tensor) -> Tensor:
    """By how much the loss is larger ahead than back, float64 (N, 1, 1, 1)."""
    return (loss((x + ahead).clamp(0, 1)) - loss((x - ahead).clamp(0, 1))).reshape(-1, 1, 1, 1)


def _ascent(estimate: Callable[[Tensor], Tensor], images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """Projected ascent by steps along the sign of an estimated gradient."""
    change = start
    for _ in range(iterations):
        change = (change + step * estimate(images + change).sign().to(images.dtype)).clamp(-epsilon, epsilon)
        change = (images + change).clamp(0, 1) - images
    return images + change


def square(loss: Callable, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """The Square attack (Andriushchenko et al. 2020): squares of random places are set to plus or minus the radius, and kept if that raises
    the loss; whatever ``start`` and ``step`` are.

    It begins with vertical stripes, for which it makes one request, and makes one for every further step.
    """
    _, channels, height, width = images.shape
    stripes = [draw.choice([-1.0, 1.0], (channels, 1, width)) for draw in loss.draws]
    best = (images + epsilon * torch.from_numpy(np.array(stripes, np.float32)).to(images.device)).clamp(0, 1)
    values = loss(best)
    for i in range(iterations):
        side = square_side(i, iterations, height, width)
        tried = best.clone()
        for query, draw in enumerate(loss.draws):
            top, left = (int(draw.integers(size - side + 1)) for size in (height, width))
            window = (query, slice(None), slice(top, top + side), slice(left, left + side))
            for _ in range(10):  # a square that would change nothing is drawn again
                signs = torch.from_numpy(draw.choice([-1.0, 1.0], (channels, 1, 1)).astype(np.float32)).to(images.device)
                tried[window] = (images[window] + epsilon * signs).clamp(0, 1)
                if not torch.equal(tried[window], best[window]):
                    break
        found = loss(tried)
        better = found > values
        values, best = torch.where(better, found, values), torch.where(better.reshape(-1, 1, 1, 1), tried, best)
    return best


def square_side(i: int, iterations: int, height: int, width: int) -> int:
    """The side of the square of step i = 0 ... ``iterations`` - 1: its share of the image is 0.8 at first, and is halved as published, at
    0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of the steps."""
    halvings = sum(10_000 * i > share * iterations for share in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    return min(max(1, round(math.sqrt(0.8 / 2**halvings * height * width))), height, width)
