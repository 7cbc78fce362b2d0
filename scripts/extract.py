"""l2-normalised features of the database and of the clean queries."""

import h5py

from pqag import checkpoints, networks, storage
from pqag.step import log, step, torch_device

with step(snakemake) as settings:
    device = torch_device(settings)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought"))
    for part in ("database", "query"):
        labels, ids = storage.read_hdf5(snakemake.input.images, f"{part}/labels", f"{part}/ids")
        with h5py.File(snakemake.input.images) as file:
            features = networks.extract(network, file[f"{part}/images"], device)
        log.info("%s: %d features of %d numbers", part, *features.shape)
        storage.write_hdf5(snakemake.output[part], {"features": features, "labels": labels, "ids": ids})
