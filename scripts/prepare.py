"""Draw training, database and query images of one data set."""

import os

import h5py

from pqag import storage
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
    )
    with storage.writing_hdf5(snakemake.output[0]) as file:
        for part in ("train", "database", "query"):
            ids = getattr(drawn, part)
            storage.copy_rows(file, f"{part}/images", raw["images"], ids)
            storage.write_dataset(file, f"{part}/labels", labels[ids])
            storage.write_dataset(file, f"{part}/ids", ids)
            log.info("%s: %d images", part, len(ids))
        for some, others in (("query", "database"), ("query", "train"), ("database", "train")) if "hashes" in raw else ():
            if found := copies(getattr(drawn, some), getattr(drawn, others), raw["hashes"][()]):
                first = " and ".join(os.fsdecode(raw["names"][row]) for row in found[0])
                warn(f"images of {some} with the same bytes as one of {others}: {len(found)}, the first are {first}")
        keys = ("dataset", "title", "sha256", "source", "classes", "unseen")
        file.attrs.update({key: attributes[key] for key in keys if key in attributes})
        file.attrs["multilabel"] = bool((labels.sum(1) != 1).any())
