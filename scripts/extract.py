"""Features of one part of the images, or of adversarial queries, l2-normalised."""

import torch

from pqag import checkpoints, networks, storage
from pqag.step import log, step, torch_device

with step(snakemake) as settings:
    device = torch_device(settings)
    part = snakemake.wildcards.get("part", "query")  # adversarial images are queries
    images, labels, ids = storage.read_hdf5(snakemake.input.images, f"{part}/images", f"{part}/labels", f"{part}/ids")
    network = checkpoints.load_network(snakemake.input.weights).to(device, memory_format=torch.channels_last)
    features = networks.extract(network, images, device)
    log.info("%d features of %d numbers", *features.shape)
    storage.write_hdf5(snakemake.output[0], {"features": features, "labels": labels, "ids": ids})
