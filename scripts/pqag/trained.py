"""Methods of attacks that are trained on training images, never on queries, under the names that a study calls them by.

The digest of an attack covers its own method, not the others (``CHOSEN`` in job/provenance.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pqag import uaa_gan as _uaa_gan
from pqag import universal as _universal

#: As many training images at the most, drawn by the seed.
IMAGES = 10_000


class Trained(NamedTuple):
    """``fit(network, codebook, images, settings, seed, size, on_step)`` trains on images, uint8 (N, 3, H, W), ``batch`` at a time, enlarged
    to ``size`` pixels, and returns arrays by their names and the losses on the way. ``changes(arrays, settings, device)`` returns a
    function from images, float32 (N, 3, H, W) in [0, 1], to changes of the same shape, in the ball."""

    fit: Callable
    changes: Callable
    batch: int


universal = Trained(_universal.fit, _universal.changes, _universal.BATCH)
uaa_gan = Trained(_uaa_gan.fit, _uaa_gan.changes, _uaa_gan.BATCH)


def some(count: int, seed: int) -> np.ndarray:
    """Which of ``count`` training images a method is trained on, int64 (n,), in ascending order."""
    return np.sort(np.random.default_rng([seed, 0, 0, 3]).permutation(count)[:IMAGES])
