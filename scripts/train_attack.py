"""Train an attack on the training images, never on the queries: the change that a universal perturbation makes to every image."""

import h5py

from pqag import attacks, checkpoints, codebooks, storage, universal
from pqag.devices import torch_device
from pqag.job.step import log, progress, step
from pqag.names import BATCH_SIZES

with step(snakemake) as settings:
    codebook = codebooks.read(snakemake.input.codebook)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought")).to(torch_device(settings))
    attack, seed = attacks.from_settings(settings), int(snakemake.wildcards.seed)
    with h5py.File(snakemake.input.images) as file:
        images = file["train/images"][universal.some(len(file["train/images"]), seed)]
        size = file["query/images"].shape[-1]
    steps = attack.iterations * -(-len(images) // BATCH_SIZES["attack"])
    with progress(steps, f"training {snakemake.wildcards.attack} on {snakemake.wildcards.model}") as bar:
        change, losses = universal.fit(network, codebook, images, attack, seed, size, bar.update)
    log.info("loss from %g to %g, mean change %g of 255", losses[0], losses[-1], 255 * abs(change).mean())
    storage.write_hdf5(snakemake.output[0], {"change": change}, {"loss": losses})
