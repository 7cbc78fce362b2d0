"""Encode the database with the codebook that was trained with the network."""

from pqag import codebooks, quantizer, storage
from pqag.job.step import log, step

with step(snakemake):
    features, ids = storage.read_hdf5(snakemake.input.database, "features", "ids")
    [codewords] = storage.read_hdf5(snakemake.input.codewords, "codewords")
    fit = quantizer.fitted(features, codewords)
    log.info("mean squared error %.6g, empty codewords per sub-space %s", fit.objective, fit.empty)
    codebooks.write(snakemake.output[0], codebooks.Codebook(fit.codewords, fit.codes, ids), fit.objective, fit.empty)
