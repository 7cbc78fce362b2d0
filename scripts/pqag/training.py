"""Supervised pretraining of a backbone on the training images (PQ-AG, Implementations: "the base models are pretrained on the datasets").

SGD with Nesterov momentum and a one-cycle learning rate (Smith & Topin 2018), random crops and flips, label smoothing (Szegedy et al.
2016). Identity initialisation of the convolutions (Jordan 2024, as in cifar10-airbench) makes plain deep networks trainable in few epochs.

The result depends only on the images, the settings, the seed and the number of threads: every random draw of an epoch comes from
generators seeded by (seed, epoch), so a run resumed from the checkpoint of an epoch ends in the same bits as one that never stopped.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag.networks import Backbone, pixels


@dataclass(frozen=True)
class Recipe:
    """How to train; the keys of ``training`` in config.yaml, where each is explained."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    crop: int
    flip: bool
    precision: str


@dataclass(frozen=True)
class Data:
    """What is trained on: images, uint8 (N, 3, H, W), and multi-hot labels, uint8 (N, C), on the device of the training; the same of
    held-out images; whether an image may have several labels; and a digest of all of them."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    multilabel: bool
    digest: str


@dataclass(frozen=True)
class Epoch:
    """What is known after one epoch: mean loss and accuracy of the training batches as they went by, accuracy on held-out images."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_accuracy: float


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision, None for plain float32.

    ``precision`` is "float32", "bfloat16" or "auto". "auto" takes bfloat16 where the hardware multiplies it natively (CUDA from Ampere on,
    CPUs with AVX512-BF16 or AMX) and float32 elsewhere: on a CPU without such instructions bfloat16 was 15 times slower (VGG16, 2 cores).
    """
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else None


def mixed(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which a network is trained in the precision of ``recipe``."""
    dtype = autocast_dtype(recipe.precision, device)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def augmented(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random shift by up to ``crop`` pixels (reflected border) and, if ``flip``, mirroring of every second image on average.

    ``images`` uint8 or float (N, C, H, W); the same shape and dtype comes back. Draws come from ``generator`` (a CPU generator).
    """
    count, channels, height, width = images.shape
    device = images.device
    if crop:
        padded = F.pad(images.float(), (crop,) * 4, mode="reflect").to(images.dtype)
        shift = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator).to(device)
        rows = shift[0] + torch.arange(height, device=device)
        columns = shift[1] + torch.arange(width, device=device)
        images = padded[
            torch.arange(count, device=device)[:, None, None, None],
            torch.arange(channels, device=device)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
    if flip:
        mirrored = torch.rand(count, generator=generator).to(device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of ``images``, uint8 (N, 3, H, W), in pixels of [0, 1]; exact, from the histogram."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        weights = torch.bincount(images[:, channel].flatten().cpu(), minlength=256).double()
        weights /= weights.sum()
        mean.append(float(weights @ values))
        std.append(float((weights @ values**2 - mean[-1] ** 2).clamp(min=0).sqrt()))
    return mean, std


def classification_loss(logits: Tensor, labels: Tensor, multilabel: bool, smoothing: float) -> Tensor:
    """Mean cross-entropy of one-hot ``labels``, or mean sigmoid cross-entropy per class of multi-hot ones; float (N, C) both."""
    if multilabel:
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the class of the highest logit is one of the image's labels, bool (N,)."""
    return labels.gather(1, logits.argmax(1, keepdim=True)).squeeze(1) > 0


def one_cycle(progress: float) -> float:
    """Factor on the learning rate after a share ``progress`` in [0, 1] of all steps: up from 1/25 in the first quarter, then down to 0."""
    return 0.04 + 0.96 * progress / 0.25 if progress < 0.25 else (1 - progress) / 0.75


def identity_initialisation(network: nn.Module) -> None:
    """Let every convolution with a kernel above 1 x 1 pass its input on: its first filters become unit impulses (Jordan 2024, 3.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            nn.init.dirac_(module.weight.data[: module.in_channels])


def classification(network: Backbone, recipe: Recipe, multilabel: bool) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
    """The objective of pretraining, for ``train``: the classification loss of a batch, whatever the epoch, and its logits."""

    def objective(images: Tensor, labels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        with mixed(recipe, images.device):
            logits = network(images)
        return classification_loss(logits.float(), labels, multilabel, recipe.label_smoothing), logits

    return objective


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """Share in [0, 1] of ``images`` (uint8, N x 3 x H x W) whose highest logit is one of their labels; the caller sets evaluation mode."""
    hits = [correct(network(pixels(x)), y).sum() for x, y in zip(images.split(batch_size), labels.split(batch_size))]
    return float(torch.stack(hits).sum()) / len(images)


def train(
    network: nn.Module,
    objective: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]],
    data: Data,
    recipe: Recipe,
    seed: int,
    checkpoint: dict | None = None,
    on_batch: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Iterator[tuple[Epoch, dict]]:
    """Train ``network`` in place; after every epoch yield its figures and a checkpoint, from which ``checkpoint`` resumes the training.

    The network is on the device of ``data`` and returns logits (N, C) for images. ``objective`` takes a batch of augmented images, float32
    in [0, 1], their labels, float32, and the number of the epoch, and returns the loss to minimise and the logits; see ``classification``.
    The held-out images only measure: no setting and no epoch is chosen by them. ``on_epoch`` is called before every epoch with its number,
    ``on_batch`` after every batch.
    """
    images, labels, device = data.images, data.labels, data.images.device
    network.to(memory_format=torch.channels_last)
    steps = -(-len(images) // recipe.batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / (recipe.epochs * steps)))
    first = 0
    if checkpoint is not None:
        network.load_state_dict(checkpoint["network"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        schedule.load_state_dict(checkpoint["schedule"])
        first = checkpoint["epoch"] + 1

    for epoch in range(first, recipe.epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        torch.manual_seed(seed * 1_000_003 + epoch)  # dropout
        on_epoch(epoch)
        network.train()
        order = torch.randperm(len(images), generator=generator).to(device)
        loss_sum = torch.zeros((), device=device)
        hits = torch.zeros((), device=device)
        for batch in order.split(recipe.batch_size):
            x = pixels(augmented(images[batch], recipe.crop, recipe.flip, generator))
            y = labels[batch].float()
            loss, logits = objective(x, y, epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach() * len(batch)
            hits += correct(logits.detach(), y).sum()
            on_batch()
        network.eval()
        figures = Epoch(
            epoch=epoch,
            learning_rate=schedule.get_last_lr()[0],
            train_loss=float(loss_sum) / len(images),
            train_accuracy=float(hits) / len(images),
            test_accuracy=accuracy(network, data.test_images, data.test_labels),
        )
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        yield figures, state | {"epoch": epoch}
