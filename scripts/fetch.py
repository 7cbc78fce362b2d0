"""Get one data set from the first source that has it, decode it, and store all of it."""

import os
import shutil
from pathlib import Path

import h5py

from pqag import datasets, images, storage
from pqag.errors import UserError
from pqag.job.step import came_from, log, progress, step, warn


def fetch_known(file: h5py.File, kind: str, given: str | None, settings: dict) -> dict[str, object]:
    """Store a known data set from any source. Returns the attributes of the file."""
    fetched = datasets.fetch(kind, given, settings["sha256"])
    source = Path(given).name if given else fetched.source  # results do not contain the folders of this machine
    for name, digest in fetched.files.items():
        came_from(f"{source}/{name}", digest)
    storage.write_dataset(file, "images", fetched.raw.images)
    storage.write_dataset(file, "labels", fetched.raw.labels)
    log.info("%s from %s, content sha256 %s", fetched.title, fetched.source, fetched.sha256)
    return {
        "title": fetched.title,
        "sha256": fetched.sha256,
        "source": source,
        "train": fetched.raw.train,
        "classes": list(datasets.DATASETS[kind].classes),
    }


def fetch_images(file: h5py.File, kind: str, given: str, settings: dict, workers: int) -> dict[str, object]:
    """Store the images at ``given``. Returns the attributes of the file."""
    options = {"concepts": settings["concepts"]} if kind == "nuswide" else {}
    listing = images.LISTINGS[kind](Path(os.path.expanduser(given)), **options)
    for note in listing.notes:
        log.info("%s", note)
    for words in listing.warnings:
        warn(words)
    needed, free = len(listing.names) * 3 * settings["image_size"] ** 2, shutil.disk_usage(Path(snakemake.output[0]).parent).free
    if needed > free:
        raise UserError(f"{len(listing.names)} images of this size need {needed / 2**30:.1f} GiB of disk, but {free / 2**30:.1f} are free")
    with progress(len(listing.names), "decoding", unit="image") as bar:
        stored = images.store(listing, file, settings["image_size"], settings["missing"], workers, bar.update)
    for name, reason in stored.skipped.items():
        log.info("left out: %s: %s", name, reason)
    train = int((stored.rows < listing.train).sum())
    log.info("%d training and %d test images, %d left out", train, len(stored.rows) - train, len(stored.skipped))
    if stored.skipped:
        name, reason = next(iter(stored.skipped.items()))
        warn(f"{len(stored.skipped)} of {len(listing.names)} images are left out, the first is {name}: {reason}")
    if stored.dark:
        warn(f"{len(stored.dark)} images are nearly black, the first is {stored.dark[0]}; are these 12 bits or fewer, stored in 16?")
    source = Path(given).name
    for name, digest in listing.files.items():
        came_from(f"{source}/{name}", digest)
    came_from(f"{source}/*", images.digest_of_all(listing, stored))
    digest = datasets.content_sha256(datasets.Raw(file["images"], file["labels"], train))
    log.info("content sha256 %s", digest)
    if settings["sha256"] not in (None, digest):
        raise UserError(f"the images at {given} have content of sha256 {digest}, but the config says {settings['sha256']}")
    incomplete = " (incomplete copy)" if stored.skipped or not listing.complete else ""
    return {
        "title": f"{listing.title}{incomplete}" if listing.title else snakemake.wildcards.dataset,
        "sha256": digest,
        "source": source,
        "train": train,
        "classes": list(listing.classes),
        "skipped": len(stored.skipped),
        **({"unseen": listing.unseen[0]} if listing.unseen else {}),
    }


with step(snakemake) as settings, storage.writing_hdf5(snakemake.output[0]) as file:
    name, kind = snakemake.wildcards.dataset, settings["kind"]
    # From the config: the source is not a setting if a hash pins the content.
    given = snakemake.config["datasets"][name].get("source")
    if kind in images.LISTINGS:
        attributes = fetch_images(file, kind, given, settings, snakemake.threads)
    else:
        attributes = fetch_known(file, kind, given, settings)
    if name not in (kind, attributes["title"]):
        attributes["title"] += f", {name}"  # to distinguish two entries with the same data set
    file.attrs.update({"dataset": name} | attributes)
