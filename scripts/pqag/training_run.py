"""What the steps that train have in common: the images, a checkpoint after every epoch, so that a killed job goes on where it was, and the
files that are left."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pqag import checkpoints, files, networks, storage, training
from pqag.job.step import log, progress


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


def read(path: str | Path, device: torch.device) -> Data:
    """The training images of an images.h5. Held out are the database and the queries, but for those that are trained on as well."""
    arrays = storage.read_hdf5(path, "train/images", "train/labels", "database/images", "query/images", "database/labels", "query/labels")
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array)
    trained, searched = storage.read_hdf5(path, "train/ids", "database/ids")
    new = torch.from_numpy(~np.isin(searched, trained))
    images, labels, *held_out = (torch.from_numpy(array) for array in arrays)
    test_images, test_labels = (torch.cat([database[new], query]).to(device) for database, query in (held_out[:2], held_out[2:]))
    multilabel = storage.read_attributes(path)["multilabel"]
    return Data(images.to(device), labels.to(device), test_images, test_labels, multilabel, digest.hexdigest())


def recipe_of(settings: dict[str, Any]) -> training.Recipe:
    """The recipe in the settings of a job."""
    return training.Recipe(**{field.name: settings[field.name] for field in fields(training.Recipe)})


def new_network(settings: dict[str, Any], data: Data, seed: int) -> networks.Backbone:
    """The network that the settings of a job describe, before training, on the device of ``data``."""
    torch.manual_seed(seed)
    mean, std = training.channel_statistics(data.images)
    network = networks.build(settings["network"], data.labels.shape[1], settings["width"], mean, std, data.images.shape[-1])
    training.identity_initialisation(network)
    return network.to(data.images.device)


def finish(
    start: Callable[..., Iterator[tuple[training.Epoch, dict]]],
    weights: str | Path,
    history: str | Path,
    identity: list[Any],
    data: Data,
    recipe: training.Recipe,
) -> None:
    """Train to the last epoch, from the checkpoint beside ``weights`` if there is one, and write ``history``, a row an epoch, as CSV.

    ``start`` is ``training.train`` with all but ``checkpoint`` and ``on_batch``. A checkpoint belongs to ``identity``, to the images and to
    the arithmetic alone; under any others it is not picked up. The caller takes it away once the weights are written.
    """
    precision = training.autocast_dtype(recipe.precision, data.images.device) or torch.float32
    log.info("training in %s", precision)
    key = json.dumps([*identity, str(precision), data.images.device.type, data.digest], sort_keys=True)
    known = hashlib.sha256(key.encode()).hexdigest()
    unfinished = checkpoint_of(weights)
    state = checkpoints.load(unfinished) if unfinished.exists() else {}
    if state.get("identity") != known:
        state = {"history": [], "training": None}
    rows = state["history"]
    batches = -(-len(data.images) // recipe.batch_size)
    log.info("%d training images, %d of %d epochs done before", len(data.images), len(rows), recipe.epochs)
    with progress(recipe.epochs * batches, f"training {identity[0]}", len(rows) * batches) as bar:
        for epoch, checkpoint in start(checkpoint=state["training"], on_batch=bar.update):
            rows.append(list(astuple(epoch)))
            checkpoints.save(unfinished, {"identity": known, "history": rows, "training": checkpoint})
            bar.set_postfix_str(f"epoch {epoch.epoch + 1}/{recipe.epochs}, accuracy {epoch.test_accuracy:.1%}")
            log.info("%s", epoch)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([[field.name for field in fields(training.Epoch)], *rows])
    files.write_text(history, table.getvalue())


def checkpoint_of(weights: str | Path) -> Path:
    """Where the checkpoint of a training lies while it goes on."""
    return Path(weights).with_name("unfinished.pt")
