"""Draw training, database and query images of one data set."""

import os
from functools import partial

import h5py

from pqag import images, storage
from pqag.job.step import log, step, warn
from pqag.split import copies, split

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
            change = partial(images.resized, size=size) if size and part != "train" else None
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
        # Captions show the title, so that nobody takes these results for those of the usual images and split.
        file.attrs["title"] += f", enlarged to {size} pixels" * bool(size) + ", training images held out" * settings["validation"]
        file.attrs["multilabel"] = bool((labels.sum(1) != 1).any())
