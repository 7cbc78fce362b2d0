"""Extract l2-normalised features of the database and of the clean queries, or of one shard of them, or join the shards; or extract those
of the training images."""

import h5py
import numpy as np

from pqag import checkpoints, networks, split, storage
from pqag.devices import torch_device
from pqag.job.shards import in_words
from pqag.job.step import log, step
from pqag.names import BATCH_SIZES

PARTS = ("train",) if snakemake.rule == "extract_train" else ("database", "query")


def extracted(settings: dict) -> dict[str, np.ndarray]:
    """Return the features that this job extracts, by the part of the images; a shard may have no images of a part."""
    device = torch_device(settings)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought"))
    found = {}
    with h5py.File(snakemake.input.images) as file:
        size = file["query/images"].shape[-1]  # training images are stored as they were fetched
        for part in PARTS:
            images = file[f"{part}/images"]
            share = split.share("extract", len(images), snakemake.wildcards)
            if share.start < share.stop:
                found[part] = networks.extract(network, images, device, BATCH_SIZES["extract"], share, size)
                networks.check_finite(found[part], file[f"{part}/ids"][share], f"{part} images{in_words(snakemake.wildcards)}")
    return found


def joined(paths: list[str]) -> dict[str, np.ndarray]:
    """Return the features of all images from the files of the shards."""
    paths = [path for path in paths if path.endswith(".h5")]
    log.info("joining %d shards", len(paths))
    names = [(path, name) for path in paths for name in storage.dataset_names(path)]
    return {part: np.concatenate([storage.read_hdf5(path, part)[0] for path, name in names if name == part]) for part in PARTS}


with step(snakemake) as settings:
    parts = snakemake.input.get("shards")
    features = joined(parts) if parts else extracted(settings)
    for part, array in features.items():
        log.info("%s: %d features of %d numbers", part, *array.shape)
    if snakemake.wildcards.get("shard"):
        storage.write_hdf5(snakemake.output[0], features)
    else:
        for part, array in features.items():
            labels, ids = storage.read_hdf5(snakemake.input.images, f"{part}/labels", f"{part}/ids")
            storage.write_hdf5(snakemake.output[part], {"features": array, "labels": labels, "ids": ids})
