"""Networks and losses for config/ambiguity.yaml: readings of the paper that nobody else wants, so they are no keys of a study.

The networks are VGG16 at a quarter of its width for CIFAR-10 at 128 pixels, each with one change. They are trained here: see
docs/checkpoint.md.
"""

from dataclasses import replace

import torch
from torch import nn

from pqag import losses, networks, training

WIDTH, PIXELS, CLASSES = 0.25, 128, 10
#: Mean and standard deviation of the channels of CIFAR-10's training images, in pixels of [0, 1].
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


def vgg16(pixels: int = PIXELS) -> networks.Backbone:
    """The network of the default reading, before training."""
    network = networks.build("vgg16", CLASSES, WIDTH, MEAN, STD, pixels)
    training.identity_initialisation(network)
    return network


def _fully_connected(network: networks.Backbone) -> networks.Backbone:
    """Put the original's two linear layers, of 4,096 numbers times the width, behind the last pooling, with dropout; the feature is fc7."""
    size, inputs = int(4096 * WIDTH), network.feature_size
    layers = [nn.Linear(inputs, size), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(size, size), nn.ReLU(inplace=True)]
    network.body = nn.Sequential(network.body, *layers)
    network.head, network.feature_size = nn.Linear(size, CLASSES), size
    return network


def fully_connected() -> networks.Backbone:
    return _fully_connected(vgg16())


def fully_connected_224() -> networks.Backbone:
    return _fully_connected(vgg16(224))


def no_batch_norm() -> networks.Backbone:
    """Without batch normalisation and with He's initialisation: identity filters do not train without it."""
    network = networks.build("vgg16", CLASSES, WIDTH, MEAN, STD, PIXELS)
    layers = [module for module in network.body[0] if not isinstance(module, nn.BatchNorm2d)]
    network.body[0] = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


class _LinearEnd(nn.Module):
    """The last activation of VGG16 may be negative: the feature is that before ReLU, averaged over its places."""

    def __init__(self, network: networks.Backbone):
        super().__init__()
        self.layers = nn.Sequential(*list(network.body[0])[:-2])  # without the last ReLU and pooling

    def forward(self, images):
        return self.layers(images).mean((2, 3))


def before_relu() -> networks.Backbone:
    network = vgg16()
    network.body = _LinearEnd(network)
    return network


def intra_normalised() -> networks.Backbone:
    """Every sub-vector has norm 1, instead of the whole feature."""
    network = vgg16()
    network.feature_groups = 4
    return network


def _in_float32(head: losses.Head) -> losses.Head:
    return replace(head, codewords=head.codewords.float())


def apd_float32(z: torch.Tensor, clean: torch.Tensor, head: losses.Head) -> torch.Tensor:
    return losses.apd(z.float(), clean.float(), _in_float32(head)).double()


def aod_float32(z: torch.Tensor, clean: torch.Tensor, head: losses.Head) -> torch.Tensor:
    return losses.aod(z.float(), clean.float(), _in_float32(head)).double()
