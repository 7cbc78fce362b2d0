"""Make adversarial queries against one victim, their features on it, and a report of the attack's health.

A shard attacks only some of the queries, and keeps the figures of their batches, from which the job that joins the shards makes the report.
"""

from dataclasses import replace

import h5py
import numpy as np

from pqag import attacks, checkpoints, codebooks, files, networks, split, storage, trained
from pqag.devices import torch_device
from pqag.goals import Goals, Known
from pqag.job.shards import in_words
from pqag.job.step import log, progress, step
from pqag.names import AIMED, BATCH_SIZES

BATCH = BATCH_SIZES["attack"]


def attacked(images: np.ndarray, ids: np.ndarray, aim: Goals | None, settings: dict) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Adversarial images, their features, and the figures of the batches."""
    device = torch_device(settings)
    codebook = codebooks.read(snakemake.input.codebook)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought")).to(device)
    attack = replace(attacks.from_settings(settings), goals=aim and aim.codes)
    if path := snakemake.input.get("trained"):
        names = storage.dataset_names(path)
        arrays = dict(zip(names, storage.read_hdf5(path, *names)))
        attack = replace(attack, changes=getattr(trained, attack.method).changes(arrays, attack, device))
    steps = -(-len(images) // BATCH) * attack.looks
    with progress(steps, f"{snakemake.wildcards.attack} on {snakemake.wildcards.model}{in_words(snakemake.wildcards)}") as bar:
        seed = int(snakemake.wildcards.seed)
        of_batches = attacks.attack_batches(network, codebook, images, ids, attack, seed, BATCH, bar.update)
        *arrays, batches = zip(*of_batches)
    adversarial, features = map(np.concatenate, arrays)
    networks.check_finite(features, ids, f"adversarial queries{in_words(snakemake.wildcards)}")
    return adversarial, features, list(batches)


def aimed(labels: np.ndarray, ids: np.ndarray, settings: dict) -> Goals | None:
    """What the loss aims at for each query; None for most losses."""
    if settings["loss"] not in AIMED:
        return None
    codebook = codebooks.read(snakemake.input.codebook)
    database = storage.read_hdf5(snakemake.input.database, "labels", "ids")
    classes = storage.read_attributes(snakemake.input.images)["classes"]
    known = Known(codebook, *database, labels, ids, int(snakemake.wildcards.seed), settings.get("target"), classes)
    return attacks.goals_of(settings["loss"], known)


def joined(paths: list[str]) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """The same, as the shards have made it."""
    arrays = [storage.read_hdf5(path, "query/images", "query/features") for path in paths if path.endswith(".h5")]
    batches = [batch for path in paths if path.endswith(".health.json") for batch in files.read_json(path)]
    log.info("joining %d shards", len(arrays))
    return *map(np.concatenate, zip(*arrays)), batches


with step(snakemake) as settings:
    with h5py.File(snakemake.input.images) as file:
        count = min(len(file["query/ids"]), settings.get("queries") or len(file["query/ids"]))  # the split drew them in random order
        share = split.share("attack", count, snakemake.wildcards)
        images, labels, ids = (file[f"query/{name}"][share] for name in ("images", "labels", "ids"))
    parts, aim = snakemake.input.get("shards"), aimed(labels, ids, settings)
    adversarial, features, batches = joined(parts) if parts else attacked(images, ids, aim, settings)
    health = attacks.health(images, adversarial, batches)
    log.info("%s", health)
    files.write_json(snakemake.output.health, batches if snakemake.wildcards.get("shard") else health)
    arrays = {"images": adversarial, "features": features, "labels": labels, "ids": ids}
    if aim is not None and aim.labels is not None:
        arrays["targets"] = aim.labels
    storage.write_hdf5(snakemake.output.images, {f"query/{name}": array for name, array in arrays.items()})
