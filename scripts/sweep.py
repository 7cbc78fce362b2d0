"""mAP of one victim under one attack, as strong as each value of the sweep makes it: epsilon, and iterations."""

from dataclasses import replace

from pqag import attacks, checkpoints, codebooks, files, retrieval, storage
from pqag.devices import torch_device
from pqag.goals import Known
from pqag.job.step import log, progress, step
from pqag.names import AIMED, BATCH_SIZES, BLACK_BOX

BATCH = BATCH_SIZES["attack"]

with step(snakemake) as settings:
    device = torch_device(settings)
    strengths = settings["sweep"]
    count = strengths["queries"]
    images, labels, ids = storage.read_hdf5(snakemake.input.images, "query/images", "query/labels", "query/ids")
    images, labels, ids = images[:count], labels[:count], ids[:count]  # the split has drawn them in random order
    codebook = codebooks.read(snakemake.input.codebook)
    database_labels, database_ids = storage.read_hdf5(snakemake.input.database, "labels", "ids")
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought")).to(device)
    seed = int(snakemake.wildcards.seed)
    own = attacks.from_settings(settings)
    if own.loss in AIMED:
        classes = storage.read_attributes(snakemake.input.images)["classes"]
        known = Known(codebook, database_labels, database_ids, labels, ids, seed, settings.get("target"), classes)
        own = replace(own, goals=attacks.goals_of(own.loss, known).codes)
    axes = ("epsilon",) if own.method in ("fgsm", *BLACK_BOX) else ("epsilon", "iterations")  # which choose their steps
    tried = [(axis, value, replace(own, **{axis: value})) for axis in axes for value in strengths[axis]]
    steps = -(-len(images) // BATCH) * sum(attack.looks for _, _, attack in tried)
    points = []
    with progress(steps, f"{snakemake.wildcards.attack} on {snakemake.wildcards.model}") as bar:
        for axis, value, attack in tried:
            _, features, _ = attacks.attack(network, codebook, images, ids, attack, seed, BATCH, bar.update)
            scores = codebooks.evaluate(codebook, features, labels, database_labels)
            log.info("%s %g: %s", axis, value, {kind: scores[kind]["map"] for kind in retrieval.DISTANCES})
            for kind in retrieval.DISTANCES:
                point = {"axis": axis, "value": value, "attack": snakemake.wildcards.attack, "distance": kind}
                points.append(point | {key: scores[kind][key] for key in ("map", "ci_low", "ci_high")})
    known = {key: scores[key] for key in ("queries", "database", "map_floor", "map_chance")}
    files.write_json(snakemake.output[0], known | {"points": points, "definitions": retrieval.DEFINITIONS})
