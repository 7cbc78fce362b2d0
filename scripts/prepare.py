"""Draw training, database and query images of one data set."""

import os
from functools import partial

import h5py
import numpy as np
from PIL import Image

from pqag import storage
from pqag.job.step import log, step, warn
from pqag.split import copies, split


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """``images``, uint8 (N, 3, H, W), resized to ``size`` pixels on a side: bilinearly, as in training."""
    whole = (Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR) for image in images)
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in whole])


with step(snakemake) as settings, h5py.File(snakemake.input[0]) as raw:
    attributes = storage.read_attributes(snakemake.input[0])
    labels = raw["labels"][()]
    drawn = split(
        attributes["train"],
        len(labels),
        settings["train"],
        settings["database"],
        settings["queries"],
        settings["split_seed"],
        settings["database_from"],
        settings["validation"],
    )
    size = settings.get("image_size")  # of a known data set; images of the user have theirs since they were fetched
    with storage.writing_hdf5(snakemake.output[0]) as file:
        for part in ("train", "database", "query"):
            ids = getattr(drawn, part)
            # Training images are enlarged batch by batch: stored, they would take 16 times the disk at 128 pixels.
            change = partial(enlarged, size=size) if size and part != "train" else None
            storage.copy_rows(file, f"{part}/images", raw["images"], ids, change)
            storage.write_dataset(file, f"{part}/labels", labels[ids])
            storage.write_dataset(file, f"{part}/ids", ids)
            log.info("%s: %d images", part, len(ids))
        for some, others in (("query", "database"), ("query", "train"), ("database", "train")) if "hashes" in raw else ():
            if found := copies(getattr(drawn, some), getattr(drawn, others), raw["hashes"][()]):
                first = " and ".join(os.fsdecode(raw["names"][row]) for row in found[0])
                warn(f"images of {some} with the same bytes as one of {others}: {len(found)}, the first are {first}")
        keys = ("dataset", "title", "sha256", "source", "classes", "unseen")
        file.attrs.update({key: attributes[key] for key in keys if key in attributes})
        # What a caption must say of the images, since numbers of other images are no numbers of these.
        file.attrs["title"] += f", enlarged to {size} pixels" * bool(size) + ", training images held out" * settings["validation"]
        file.attrs["multilabel"] = bool((labels.sum(1) != 1).any())
