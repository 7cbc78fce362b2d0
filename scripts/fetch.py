"""Get one data set from the first source that has it, decode it and store it whole."""

from pqag import datasets, storage
from pqag.step import log, step

with step(snakemake) as settings:
    name = snakemake.wildcards.dataset
    # From the config itself: the source is no setting where the content is pinned by its hash.
    fetched = datasets.fetch(name, snakemake.config["datasets"][name].get("source"), settings["sha256"])
    log.info("%s from %s, content sha256 %s", fetched.title, fetched.source, fetched.sha256)
    storage.write_hdf5(
        snakemake.output[0],
        {"images": fetched.raw.images, "labels": fetched.raw.labels},
        {"dataset": name, "title": fetched.title, "sha256": fetched.sha256, "source": fetched.source, "train": fetched.raw.train},
    )
