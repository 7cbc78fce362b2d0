"""Score one query set on one victim."""

from pathlib import Path

import numpy as np

from pqag import codebooks, files, quantizer, retrieval, storage
from pqag.errors import UserError
from pqag.job.step import log, step
from pqag.names import FARTHEST, kind_of

with step(snakemake):
    wildcards = snakemake.wildcards
    own = f"{wildcards.model}-{wildcards.training}"
    source = f"{wildcards.get('source_model', wildcards.model)}-{wildcards.get('source_training', wildcards.training)}"
    group = f"{source}/" if source != own else "query/" if wildcards.get("attack") else ""  # the group in which the step wrote them
    queries, query_labels = storage.read_hdf5(snakemake.input.queries, f"{group}features", f"{group}labels")
    database_labels, ids = storage.read_hdf5(snakemake.input.database, "labels", "ids")
    codebook = codebooks.read(snakemake.input.codebook)
    if not np.array_equal(ids, codebook.ids):
        raise UserError(f"{snakemake.input.codebook} encodes other images than those in {snakemake.input.database}")
    cell = {
        "dataset": wildcards.dataset,
        "training": kind_of(wildcards.training),
        "source_model": wildcards.get("source_model", wildcards.model),
        "target_model": wildcards.model,
        "source_bits": int(wildcards.get("source_bits", wildcards.bits)),
        "target_bits": int(wildcards.bits),
        "attack": Path(snakemake.output[0]).name.split(".")[0],
        "seed": int(wildcards.seed),
    }
    queries = codebook.rotated(queries)
    if cell["attack"] == FARTHEST:
        codes = quantizer.farthest(quantizer.encode(queries, codebook.codewords), codebook.codewords)
        queries = quantizer.decode(codes, codebook.codewords)
    scores = retrieval.evaluate(queries, query_labels, codebook.codewords, codebook.codes, database_labels)
    definitions = dict(retrieval.DEFINITIONS)
    if f"{group}targets" in storage.dataset_names(snakemake.input.queries):
        [targets] = storage.read_hdf5(snakemake.input.queries, f"{group}targets")
        if not targets.any():
            raise UserError(f"every query has a label of the target of {wildcards.attack}, so there is no t-mAP; choose another target")
        definitions["target"] = "the same scores, t-mAP among them, with the labels of the attack's target as those of the query"
        scores["target"] = retrieval.evaluate(queries, targets, codebook.codewords, codebook.codes, database_labels)
        log.info("t-mAP %s", {kind: scores["target"][kind]["map"] for kind in retrieval.DISTANCES})
    log.info("mAP %s", {kind: scores[kind]["map"] for kind in retrieval.DISTANCES})
    files.write_json(snakemake.output[0], cell | scores | {"definitions": definitions})
