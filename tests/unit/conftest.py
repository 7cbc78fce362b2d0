"""What several tests of modules share."""

from pathlib import Path

import pytest


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.fixture(scope="module")
def victim():
    """A small network, codewords float32 (4, 6, D/4), and seven images with their ids."""
    import numpy as np
    import torch

    from pqag import networks

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = networks.build("vgg11", 10, 0.125).eval()
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    with torch.no_grad():
        z = networks.features(network, networks.pixels(torch.from_numpy(images))).numpy()
    codewords = z.reshape(7, 4, -1).transpose(1, 0, 2)[:, :6].astype(np.float32).copy()
    return network, codewords, images, np.arange(100, 107)


def make(victim, loss="aod", seed=3, batch_size=250, **changes):
    """Adversarial images, uint8 (7, 3, 32, 32), of the victim, and the health of the attack, the paper's but for ``changes``."""
    from pqag import attacks
    from pqag.codebooks import Codebook

    network, codewords, images, ids = victim
    chosen = attacks.Attack(**({"loss": loss, "epsilon": 8, "step": 2.55, "iterations": 5} | changes))
    adversarial, _, health = attacks.attack(network, Codebook(codewords, None, None), images, ids, chosen, seed, batch_size=batch_size)
    return adversarial, health
