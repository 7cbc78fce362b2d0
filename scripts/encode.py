"""Encode the database with the codebook that was trained with the network."""

from pqag import codebooks, encoders, storage
from pqag.job.step import log, step

with step(snakemake):
    features, ids = storage.read_hdf5(snakemake.input.database, "features", "ids")
    trained = codebooks.read_trained(snakemake.input.codewords)
    fit = encoders.fitted(features, trained.codewords, trained.encoder, trained.logits)
    if fit.logits is not None:
        near = encoders.encode(encoders.soft(features, fit.codewords, fit.logits), fit.codewords, "nearest")
        log.info("%.1f %% of codes are those of the codewords nearest to the soft representations", 100 * (near == fit.codes).mean())
    log.info("mean squared error %.6g, empty codewords per sub-space %s", fit.objective, fit.empty)
    codebook = codebooks.Codebook(fit.codewords, fit.codes, ids, None, fit.encoder, fit.logits)
    codebooks.write(snakemake.output[0], codebook, fit.objective, fit.empty)
