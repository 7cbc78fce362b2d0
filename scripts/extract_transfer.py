"""Extract l2-normalised features of adversarial queries made for other networks, with one group per source."""

from pqag import checkpoints, networks, storage
from pqag.devices import torch_device
from pqag.job.step import log, step

with step(snakemake) as settings:
    device = torch_device(settings)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought"))
    arrays = {}
    for source, path in zip(settings["sources"], snakemake.input.images, strict=True):
        images, labels, ids = storage.read_hdf5(path, "query/images", "query/labels", "query/ids")
        features = networks.extract(network, images, device)
        networks.check_finite(features, ids, f"adversarial queries made for {source}")
        log.info("%s: %d features of %d numbers", source, *features.shape)
        arrays |= {f"{source}/features": features, f"{source}/labels": labels, f"{source}/ids": ids}
        if "query/targets" in storage.dataset_names(path):
            [arrays[f"{source}/targets"]] = storage.read_hdf5(path, "query/targets")
    storage.write_hdf5(snakemake.output[0], arrays)
