"""Fit a codebook to the database features and encode the database."""

import faiss

from pqag import quantizer, storage
from pqag.errors import UserError
from pqag.step import log, step

with step(snakemake) as settings:
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    features, ids = storage.read_hdf5(snakemake.input[0], "features", "ids")
    if len(features) < settings["codewords"]:
        need = f"{snakemake.wildcards.bits} bits in {settings['subspaces']} sub-spaces need {settings['codewords']} codewords"
        raise UserError(f"bits: {need}, more than the {len(features)} database images they are fitted to")
    fit = quantizer.fit(features, settings["subspaces"], settings["codewords"], int(snakemake.wildcards.seed), settings["iterations"])
    log.info("mean squared error %.6g, empty codewords per sub-space %s", fit.objective, fit.empty)
    storage.write_hdf5(
        snakemake.output[0],
        {"codewords": fit.codewords, "codes": fit.codes, "ids": ids},
        {"objective": fit.objective, "empty": fit.empty},
    )
