"""UAA-GAN (Zhao et al. 2019): a generator, trained on training images, which makes a change for each image in one pass.

The change is epsilon * tanh(G(x)), so it is in the ball by construction. The generator is to lead the feature of an image farther away than
that of the nearest other image of the batch, which takes no labels, to change little, and, with a discriminator, to look like an image.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag import attacks
from pqag.codebooks import Codebook
from pqag.errors import UserError
from pqag.networks import Backbone, features, pixels

#: Training images at once. The nearest other image is one of these.
BATCH = 50
#: The weights of the term of the features and of the length of the change beside that of the discriminator, which is 1; the margin; and the
#: learning rates of generator and discriminator. The publication was not at hand, so they are ours.
METRIC, LENGTH, MARGIN = 1.0, 0.01, 1.0
RATES = 1e-3, 1e-4


class Generator(nn.Module):
    """Maps images, float32 (N, 3, H, W) in [0, 1] and of any size, to changes as shares of the radius, in [-1, 1], of the same shape: two
    blocks halve the size, two double it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *_block(nn.Conv2d(3, 32, 3, stride=2, padding=1)),
            *_block(nn.Conv2d(32, 64, 3, stride=2, padding=1)),
            *_block(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)),
            nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return self.body(images - 0.5)[..., :height, :width].tanh()


class Discriminator(nn.Module):
    """Judges images, float32 (N, 3, H, W) in [0, 1], part by part: near 1 for clean ones, near 0 for adversarial ones, (N, 1, H/8, W/8)."""

    def __init__(self):
        super().__init__()
        layers = (nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1))
        self.body = nn.Sequential(*(one for layer in layers for one in _block(layer)), nn.Conv2d(64, 1, 3, stride=2, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images - 0.5)


def _block(convolution: nn.Module) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), nn.LeakyReLU(0.2)


def nearest_other(z: Tensor) -> Tensor:
    """For each feature of a batch, (N, D), which of the others is nearest, int64 (N,)."""
    return torch.cdist(z, z).fill_diagonal_(torch.inf).argmin(1)


def generator_loss(distance: Tensor, nearest: Tensor, change: Tensor, judged: Tensor | None = None) -> Tensor:
    """What the generator makes small: the hinge of the ``distance`` of its images, which is to exceed that of the ``nearest`` other images,
    both (N,), by a margin; the length of its ``change``, (N, 3, H, W); and how far from 1 they are ``judged``, if at all."""
    hinge, length = F.relu(nearest + MARGIN - distance).mean(), change.flatten(1).norm(dim=1).mean()
    return METRIC * hinge + LENGTH * length + (0 if judged is None else ((judged - 1) ** 2).mean())


def discriminator_loss(clean: Tensor, adversarial: Tensor) -> Tensor:
    """What the discriminator makes small: least squares, of 1 for ``clean`` images and 0 for ``adversarial`` ones."""
    return ((clean - 1) ** 2).mean() + (adversarial**2).mean()


def fit(
    network: Backbone,
    codebook: Codebook,
    images: np.ndarray,
    settings: attacks.Attack,
    seed: int,
    size: int,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The weights of the generator, by their names, and its mean loss in each pass.

    images: uint8 (N, 3, H, W), at least two, enlarged to ``size`` pixels where they are smaller. All pass ``settings.iterations`` times, in
    an order of its own each time. The distance is the loss of the attack; with the loss ``basic`` it is that of the features.
    """
    if len(images) < 2:
        raise UserError(f"{settings.method} compares a training image with another, but there is only {len(images)}")
    network, device, head = attacks.prepared(network, codebook, settings)
    normalised, epsilon = settings.feature == "normalised", settings.epsilon / 255
    torch.manual_seed(seed)
    generator, discriminator = Generator().to(device), Discriminator().to(device)
    steps, judging = (torch.optim.Adam(one.parameters(), rate) for one, rate in zip((generator, discriminator), RATES))
    draw, trace = np.random.default_rng([seed, 0, 0, 4]), []
    for _ in range(settings.iterations):
        losses = []
        for batch in np.array_split(draw.permutation(len(images)), -(-len(images) // BATCH)):
            clean = pixels(torch.from_numpy(images[batch]).to(device), size)
            with torch.no_grad():
                reference = features(network, clean, normalised)
            objective = attacks.Objective(network, reference, head, settings, on_step)
            change = epsilon * generator(clean)
            adversarial, judged = (clean + change).clamp(0, 1), None
            if settings.options["discriminator"]:
                judging.zero_grad()
                discriminator_loss(discriminator(clean), discriminator(adversarial.detach())).backward()
                judging.step()
                judged = discriminator(adversarial)
            loss = generator_loss(objective(adversarial), objective.final(reference[nearest_other(reference)]), change, judged)
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(float(loss.detach()))
        trace.append(float(np.mean(losses)))
    return {name: array.cpu().numpy() for name, array in generator.state_dict().items()}, trace


def changes(arrays: Mapping[str, np.ndarray], settings: attacks.Attack, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The change that the generator with these weights makes to each image, see ``pqag.trained``."""
    generator = Generator().to(device)
    generator.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return torch.no_grad()(lambda images: settings.epsilon / 255 * generator(images))
