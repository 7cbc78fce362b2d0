"""Fit a codebook to the features of the database, or of the training images, and encode the database."""

import faiss

from pqag import additive, codebooks, encoders, names, quantizer, storage, user_code
from pqag.errors import UserError
from pqag.job.step import log, step

with step(snakemake) as settings:
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    features, ids = storage.read_hdf5(snakemake.input.database, "features", "ids")
    points = storage.read_hdf5(snakemake.input.train, "features")[0] if snakemake.input.train else features
    if len(points) < settings["codewords"]:
        kind = "database" if points is features else "training"
        need = f"{snakemake.wildcards.bits} bits in {settings['subspaces']} sub-spaces need {settings['codewords']} codewords"
        raise UserError(f"bits: {need}, more than the {len(points)} {kind} images they are fitted to")
    size, subspaces, method = features.shape[1], settings["subspaces"], settings["method"]
    if size % subspaces and method != "rq":  # which does not cut features
        raise UserError(f"quantizer.subspaces: {subspaces} does not divide the {size} numbers of a feature of {snakemake.wildcards.model}")
    arguments = points, subspaces, settings["codewords"], int(snakemake.wildcards.seed), settings["iterations"]
    if names.is_entry_point(method):
        fit = encoders.by_user(user_code.function(method, settings["brought"][method]), method, *arguments)
    else:
        fit = (getattr(additive, method) if method in names.ADDITIVE else quantizer.METHODS[method])(*arguments)
    if points is not features:
        fit = encoders.fitted(features, fit.codewords, fit.encoder, fit.logits, fit.rotation)
    log.info("mean squared error %.6g, empty codewords per sub-space %s", fit.objective, fit.empty)
    codebook = codebooks.Codebook(fit.codewords, fit.codes, ids, fit.rotation, fit.encoder, fit.logits)
    codebooks.write(snakemake.output[0], codebook, fit.objective, fit.empty)
