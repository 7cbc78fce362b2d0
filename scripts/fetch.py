"""Get one data set from the first source that has it, decode it and store it whole."""

from pathlib import Path

from pqag import datasets, storage
from pqag.step import came_from, log, step

with step(snakemake) as settings:
    name = snakemake.wildcards.dataset
    # From the config itself: the source is no setting where the content is pinned by its hash.
    given = snakemake.config["datasets"][name].get("source")
    fetched = datasets.fetch(name, given, settings["sha256"])
    log.info("%s from %s, content sha256 %s", fetched.title, fetched.source, fetched.sha256)
    source = Path(given).name if given else fetched.source  # no result names the folders of the machine it was made on
    for file, digest in fetched.files.items():
        came_from(f"{source}/{file}", digest)
    storage.write_hdf5(
        snakemake.output[0],
        {"images": fetched.raw.images, "labels": fetched.raw.labels},
        {"dataset": name, "title": fetched.title, "sha256": fetched.sha256, "source": source, "train": fetched.raw.train},
    )
