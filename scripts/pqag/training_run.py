"""What the steps that train share: the images, the new network, and a checkpoint after every epoch, from which a killed job goes on."""

import contextlib
import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import astuple, fields
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pqag import checkpoints, files, networks, storage, training
from pqag.errors import UserError

log = logging.getLogger("pqag")


def read(path: str | Path, device: torch.device) -> training.Data:
    """The training images of an images.h5, which stays open. Database and queries are held out, except images that are trained on too.

    Raises UserError if a class has no training images.
    """
    attributes = storage.read_attributes(path)
    if unseen := attributes.get("unseen"):
        raise UserError(f"the class {unseen!r} has test images, but no training images, so nothing can be trained on this data set")
    file = h5py.File(path)
    labels = torch.from_numpy(file["train/labels"][()]).to(device)
    size = file["query/images"].shape[-1]
    return training.Data(file["train/images"], labels, partial(held_out, path, device), attributes["multilabel"], files.sha256(path), size)


def held_out(path: str | Path, device: torch.device, batch_size: int = 250) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield images, uint8 (N, 3, H, W), and labels of the database and the queries that are not trained on, in batches on ``device``."""
    with h5py.File(path) as file:
        for part in ("database", "query"):
            images, labels = file[f"{part}/images"], file[f"{part}/labels"][()]
            new = np.flatnonzero(~np.isin(file[f"{part}/ids"][()], file["train/ids"][()]))
            for rows in torch.from_numpy(new).split(batch_size) if len(new) else ():
                yield training.read_rows(images, rows).to(device), torch.from_numpy(labels[rows.numpy()]).to(device)


def recipe_of(settings: dict[str, Any]) -> training.Recipe:
    """The recipe in the settings of a job."""
    return training.Recipe(**{field.name: settings[field.name] for field in fields(training.Recipe)})


def new_network(settings: dict[str, Any], data: training.Data, seed: int) -> networks.Backbone:
    """The network that the settings of a job describe, before training, on the device of ``data``."""
    torch.manual_seed(seed)
    mean, std = training.channel_statistics(data.images)
    network = networks.build(settings["network"], data.labels.shape[1], settings["width"], mean, std, data.image_size)
    training.identity_initialisation(network)
    return network.to(data.labels.device)


class Unfinished:
    """A training that is not finished: the rows of its history, and its last checkpoint, which lies beside the weights.

    A checkpoint belongs to ``identity`` (plain values), to the images and to the arithmetic; under any others it is not used.
    """

    def __init__(self, weights: str | Path, identity: list[Any], data: training.Data, recipe: training.Recipe):
        precision = training.autocast_dtype(recipe.precision, data.labels.device) or torch.float32
        log.info("training in %s", precision)
        key = json.dumps([*identity, str(precision), data.labels.device.type, data.digest], sort_keys=True)
        self.path, self.identity = Path(weights).with_name("unfinished.pt"), hashlib.sha256(key.encode()).hexdigest()
        saved = checkpoints.load(self.path) if self.path.exists() else {}
        same = saved.get("identity") == self.identity
        self.rows, self.checkpoint = (saved["history"], saved["training"]) if same else ([], None)
        self.epochs, self.batches = recipe.epochs, -(-len(data.images) // recipe.batch_size)
        log.info("%d training images, %d of %d epochs done before", len(data.images), len(self.rows), recipe.epochs)

    def save(self, epoch: training.Epoch, checkpoint: dict) -> str:
        """Keep an epoch and its checkpoint; returns the epoch in words."""
        self.rows.append(list(astuple(epoch)))
        checkpoints.save(self.path, {"identity": self.identity, "history": self.rows, "training": checkpoint})
        log.info("%s", epoch)
        return f"epoch {epoch.epoch + 1}/{self.epochs}, accuracy in training {epoch.train_accuracy:.1%}"

    def history(self) -> str:
        """The history of the training as CSV, a row for each epoch."""
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([[field.name for field in fields(training.Epoch)], *self.rows])
        return table.getvalue()


@contextlib.contextmanager
def resumable(weights: str | Path, identity: list[Any], data: training.Data, recipe: training.Recipe) -> Iterator[Unfinished]:
    """Yield the training that ends in ``weights``, as an earlier job left it; its checkpoint is removed when the body ends well."""
    unfinished = Unfinished(weights, identity, data, recipe)
    yield unfinished
    unfinished.path.unlink()
