"""The gallery of a study, a page that shows single queries: what each attack makes of them, and what they retrieve."""

import contextlib
import itertools

import h5py

from pqag import codebooks, files, storage
from pqag.job.step import log, step
from pqag.show import gallery


def read(path: str, count: int, *names: str) -> list:
    """The first ``count`` rows of arrays in an HDF5 file."""
    with h5py.File(path) as file:
        return [file[name][:count] for name in names]


with step(snakemake) as settings, contextlib.ExitStack() as stack:
    count, attacks, given = settings["queries"], len(settings["attacks"]), snakemake.input
    datasets = {}
    for name, path in zip(settings["datasets"], given.images):
        about = storage.read_attributes(path)
        [labels] = storage.read_hdf5(path, "database/labels")
        database = stack.enter_context(h5py.File(path))["database/images"]
        queries = read(path, count, "query/images", "query/labels")
        datasets[name] = gallery.Images(about["title"], about["classes"], *queries, labels, database)
    victims = []
    for i, (dataset, model) in enumerate(itertools.product(settings["datasets"], settings["models"])):
        of_attacks = [read(path, count, "query/images", "query/features") for path in given.attacked[attacks * i : attacks * (i + 1)]]
        attacked, features = zip(*of_attacks)
        features = [*read(given.clean[i], count, "features"), *features]
        scores = [files.read_json(path) for path in given.metrics[(attacks + 1) * i : (attacks + 1) * (i + 1)]]
        victims.append(gallery.Victim(dataset, model, codebooks.read(given.codebooks[i]), features, attacked, scores))
    page = gallery.page(settings, datasets, victims)
    log.info("%d bytes", len(page.encode()))
    files.write_text(snakemake.output[0], page)
