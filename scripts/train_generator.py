"""Train the generator of an attack on the training images, never on the queries."""

import h5py

from pqag import attacks, checkpoints, codebooks, storage, uaa_gan, universal
from pqag.devices import torch_device
from pqag.job.step import log, progress, step

with step(snakemake) as settings:
    codebook = codebooks.read(snakemake.input.codebook)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought")).to(torch_device(settings))
    attack, seed = attacks.from_settings(settings), int(snakemake.wildcards.seed)
    with h5py.File(snakemake.input.images) as file:
        images = file["train/images"][universal.some(len(file["train/images"]), seed)]
        size = file["query/images"].shape[-1]
    steps = attack.iterations * -(-len(images) // uaa_gan.BATCH)
    with progress(steps, f"training {snakemake.wildcards.attack} on {snakemake.wildcards.model}") as bar:
        weights, losses = uaa_gan.fit(network, codebook, images, attack, seed, size, bar.update)
    log.info("mean loss of each pass: %s", ", ".join(f"{loss:g}" for loss in losses))
    storage.write_hdf5(snakemake.output[0], weights, {"loss": losses})
