"""Train an attack on the training images, never on the queries: a universal perturbation, or a generator."""

import h5py

from pqag import attacks, checkpoints, codebooks, storage, trained
from pqag.devices import torch_device
from pqag.job.step import log, progress, step

with step(snakemake) as settings:
    codebook = codebooks.read(snakemake.input.codebook)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought")).to(torch_device(settings))
    attack, seed = attacks.from_settings(settings), int(snakemake.wildcards.seed)
    with h5py.File(snakemake.input.images) as file:
        images = file["train/images"][trained.some(len(file["train/images"]), seed)]
        size = file["query/images"].shape[-1]
    method = getattr(trained, attack.method)
    steps = attack.iterations * -(-len(images) // method.batch)
    with progress(steps, f"training {snakemake.wildcards.attack} on {snakemake.wildcards.model}") as bar:
        arrays, losses = method.fit(network, codebook, images, attack, seed, size, bar.update)
    log.info("loss from %g to %g", losses[0], losses[-1])
    storage.write_hdf5(snakemake.output[0], arrays, {"loss": losses})
