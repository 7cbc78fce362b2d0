"""Make adversarial queries by a trained generator, their features on its victim, and a report of the attack's health."""

import h5py
import numpy as np

from pqag import attacks, checkpoints, codebooks, files, networks, storage, uaa_gan
from pqag.devices import torch_device
from pqag.job.step import log, progress, step
from pqag.names import BATCH_SIZES

BATCH = BATCH_SIZES["attack"]

with step(snakemake) as settings:
    codebook = codebooks.read(snakemake.input.codebook)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought")).to(torch_device(settings))
    attack, seed = attacks.from_settings(settings), int(snakemake.wildcards.seed)
    names = storage.dataset_names(snakemake.input.trained)
    weights = dict(zip(names, storage.read_hdf5(snakemake.input.trained, *names)))
    with h5py.File(snakemake.input.images) as file:
        images, labels, ids = (file[f"query/{name}"][: settings.get("queries")] for name in ("images", "labels", "ids"))
    with progress(-(-len(images) // BATCH), f"{snakemake.wildcards.attack} on {snakemake.wildcards.model}") as bar:
        of_batches = uaa_gan.attack_batches(network, codebook, images, ids, attack, seed, weights, BATCH, bar.update)
        *arrays, batches = zip(*of_batches)
    adversarial, features = map(np.concatenate, arrays)
    networks.check_finite(features, ids, "adversarial queries")
    health = attacks.health(images, adversarial, batches)
    log.info("%s", health)
    files.write_json(snakemake.output.health, health)
    arrays = {"images": adversarial, "features": features, "labels": labels, "ids": ids}
    storage.write_hdf5(snakemake.output.images, {f"query/{name}": array for name, array in arrays.items()})
