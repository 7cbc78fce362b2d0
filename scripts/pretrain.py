"""Train one backbone; checkpointed every epoch, so that a killed job goes on where it was."""

import csv
import hashlib
import io
import json
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import torch

from pqag import checkpoints, files, networks, storage, training
from pqag.step import log, progress, step, torch_device

with step(snakemake) as settings:
    device = torch_device(settings)
    model, seed = snakemake.wildcards.model, int(snakemake.wildcards.seed)
    recipe = training.Recipe(**{field.name: settings[field.name] for field in fields(training.Recipe)})
    arrays = storage.read_hdf5(
        snakemake.input[0], "train/images", "train/labels", "database/images", "query/images", "database/labels", "query/labels"
    )
    # Where training images are in the database as well, accuracy is measured on the others.
    trained, searched = storage.read_hdf5(snakemake.input[0], "train/ids", "database/ids")
    new = torch.from_numpy(~np.isin(searched, trained))
    images, labels, *held_out = (torch.from_numpy(array) for array in arrays)
    test_images, test_labels = (torch.cat([database[new], query]).to(device) for database, query in (held_out[:2], held_out[2:]))
    images, labels = images.to(device), labels.to(device)

    # What is unfinished belongs to these settings, images and arithmetic alone; under any others it is not picked up.
    precision = training.autocast_dtype(recipe.precision, device) or torch.float32
    log.info("training in %s", precision)
    digest = hashlib.sha256(json.dumps([model, seed, settings, str(precision), device.type], sort_keys=True).encode())
    for array in arrays:
        digest.update(array)
    identity = digest.hexdigest()
    unfinished = Path(snakemake.output.weights).with_name("unfinished.pt")
    state = checkpoints.load(unfinished) if unfinished.exists() else {}
    if state.get("identity") != identity:
        state = {"identity": identity, "history": [], "training": None}
    history = state["history"]

    torch.manual_seed(seed)
    mean, std = training.channel_statistics(images)
    network = networks.build(settings["network"], labels.shape[1], settings["width"], mean, std, images.shape[-1])
    training.identity_initialisation(network)
    network.to(device)
    batches = -(-len(images) // recipe.batch_size)
    multilabel = storage.read_attributes(snakemake.input[0])["multilabel"]
    log.info("%d training images, %d of %d epochs done before", len(images), len(history), recipe.epochs)
    with progress(recipe.epochs * batches, f"training {model}", len(history) * batches) as bar:
        for epoch, checkpoint in training.train(
            network, images, labels, test_images, test_labels, recipe, seed, multilabel, state["training"], bar.update
        ):
            history.append(list(astuple(epoch)))
            checkpoints.save(unfinished, {"identity": identity, "history": history, "training": checkpoint})
            bar.set_postfix_str(f"epoch {epoch.epoch + 1}/{recipe.epochs}, accuracy {epoch.test_accuracy:.1%}")
            log.info("%s", epoch)

    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([[field.name for field in fields(training.Epoch)], *history])
    files.write_text(snakemake.output.history, table.getvalue())
    checkpoints.save_network(snakemake.output.weights, network, settings["network"], settings["width"], network.head.out_features)
    unfinished.unlink()
