"""Draw training, database and query images of one data set."""

from pqag import datasets, storage
from pqag.step import log, step

with step(snakemake) as settings:
    images, labels = storage.read_hdf5(snakemake.input[0], "images", "labels")
    attributes = storage.read_attributes(snakemake.input[0])
    raw = datasets.Raw(images, labels, attributes["train"])
    split = datasets.split(raw, settings["train"], settings["database"], settings["queries"], settings["split_seed"])
    arrays = {}
    for part in ("train", "database", "query"):
        arrays |= dict(zip((f"{part}/images", f"{part}/labels", f"{part}/ids"), getattr(split, part)))
        log.info("%s: %d images", part, len(arrays[f"{part}/ids"]))
    storage.write_hdf5(
        snakemake.output[0],
        arrays,
        {key: attributes[key] for key in ("dataset", "title", "sha256", "source")}
        | {"classes": list(datasets.DATASETS[attributes["dataset"]].classes), "multilabel": bool((labels.sum(1) != 1).any())},
    )
