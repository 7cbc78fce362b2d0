"""Supervised pretraining of a backbone on the training images (PQ-AG, Implementations: "the base models are pretrained on the datasets").

SGD with Nesterov momentum and a one-cycle learning rate (Smith & Topin 2018), random crops and flips, label smoothing (Szegedy et al.
2016). Identity initialisation of the convolutions (Jordan 2024, as in cifar10-airbench) makes plain deep networks trainable in few epochs.

The result depends only on the images, the settings, the seed and the number of threads: every random draw of an epoch comes from
generators seeded by (seed, epoch), so a run resumed from the checkpoint of an epoch ends in the same bits as one that never stopped.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag.networks import Backbone, pixels
from pqag.storage import chunk_rows

#: Bytes of training images to hold in memory: a larger data set is read in windows of this size.
WINDOW = 2**28


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
    """The images of a training.

    images: training images, uint8 (N, 3, H, W), an array or an HDF5 dataset, which is read in windows. labels: multi-hot labels, uint8
    (N, C), on the device of the training. held_out: yields batches of held-out images and labels on that device. multilabel: whether an
    image may have several labels. digest: a hash of all of these. image_size: pixels on a side to which ``images`` are enlarged, batch by
    batch; None where they have the size of the network's images.
    """

    images: np.ndarray | h5py.Dataset
    labels: Tensor
    held_out: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    multilabel: bool
    digest: str
    image_size: int | None = None


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch: mean loss and accuracy of the training batches as they went by; after the last epoch, the accuracy on held-out
    images, before that None."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_accuracy: float | None


def read_rows(images: np.ndarray | h5py.Dataset, rows: Tensor) -> Tensor:
    """Read the ``rows`` (sorted numbers, at least one) of ``images``: neighbours together, because HDF5 is slow at reading single rows."""
    numbers = rows.numpy()
    found = np.empty((len(numbers), *images.shape[1:]), images.dtype)
    ends = [*np.flatnonzero(np.diff(numbers) != 1) + 1, len(numbers)]
    for begin, end in zip([0, *ends], ends):
        found[begin:end] = images[numbers[begin] : numbers[begin] + end - begin]
    return torch.from_numpy(found)


def windows(shape: tuple[int, ...], batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Divide the rows of images of ``shape``, (N, 3, H, W), at random into windows of about ``WINDOW`` bytes; yields sorted row numbers.

    Each window consists of random chunks of neighbours, as ``pqag.storage`` writes them, and of whole batches but for the last window. A
    small data set is one window.
    """
    size, order = int(np.prod(shape[1:])), torch.arange(shape[0])
    rows = max(1, WINDOW // (size * batch_size)) * batch_size
    if len(order) > rows:
        chunks = order.split(chunk_rows(size))
        order = torch.cat([chunks[i] for i in torch.randperm(len(chunks), generator=generator)])
    for window in order.split(rows):
        yield window.sort().values


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

    ``images`` uint8 or float (N, C, H, W); float32 of the same shape comes back. Draws come from ``generator`` (a CPU generator).
    """
    count, _, height, width = images.shape
    images = images.float()
    if crop:
        views = F.pad(images, (crop,) * 4, mode="reflect").unfold(2, height, 1).unfold(3, width, 1)  # a view for each shift, no copies
        down, right = torch.randint(0, 2 * crop + 1, (2, count), generator=generator).to(images.device)
        images = views[torch.arange(count, device=images.device), :, down, right]
    if flip:
        mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


def channel_statistics(images: np.ndarray | h5py.Dataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of ``images``, uint8 (N, 3, H, W), in pixels of [0, 1]; exact, from the histogram."""
    weights = np.zeros((images.shape[1], 256))
    rows = 16 * chunk_rows(int(np.prod(images.shape[1:])))
    for start in range(0, len(images), rows):
        block = images[start : start + rows]
        weights += [np.bincount(block[:, channel].ravel(), minlength=256) for channel in range(len(weights))]
    weights /= weights.sum(1, keepdims=True)
    values = np.arange(256) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    return mean.tolist(), np.sqrt(variance).tolist()


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
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share in [0, 1] of images whose highest logit is one of their labels; the caller sets evaluation mode.

    ``batches`` of images, uint8 (N, 3, H, W), and their multi-hot labels (N, C).
    """
    return float(torch.cat([correct(network(pixels(images)), labels) for images, labels in batches]).double().mean())


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
    The held-out images only measure the result: no setting and no epoch is chosen by them. ``on_epoch`` is called before every epoch with
    its number, ``on_batch`` after every batch.
    """
    count, labels, device = len(data.images), data.labels, data.labels.device
    network.to(memory_format=torch.channels_last)
    steps = -(-count // recipe.batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / (recipe.epochs * steps)))
    first, window = 0, None
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
        loss_sum = torch.zeros((), device=device)
        hits = torch.zeros((), device=device)
        for rows in windows(data.images.shape, recipe.batch_size, generator):
            if window is None or len(rows) < count:  # a data set of one window is read only once
                window = read_rows(data.images, rows).to(device)
            window_labels = labels[rows.to(device)].float()
            for batch in torch.randperm(len(rows), generator=generator).to(device).split(recipe.batch_size):
                x = pixels(augmented(window[batch], recipe.crop, recipe.flip, generator), data.image_size)
                y = window_labels[batch]
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
            train_loss=float(loss_sum) / count,
            train_accuracy=float(hits) / count,
            test_accuracy=accuracy(network, data.held_out()) if epoch == recipe.epochs - 1 else None,
        )
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        yield figures, state | {"epoch": epoch}
