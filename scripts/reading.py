"""Run the study of another reading of the paper, with a Snakemake of its own, and collect what it found.

A model whose training the reading does not change takes the weights of the study. The reading's own records lie with its results, which
this run verifies.
"""

import copy
import csv
import subprocess
import sys
from itertools import product
from pathlib import Path

from pqag import codebooks, files, storage
from pqag.errors import UserError
from pqag.job.provenance import LIBRARY
from pqag.job.step import log, step
from pqag.show.ambiguity import neighbours_of_one_class, peak

SNAKEFILE = LIBRARY.parents[1] / "Snakefile"


def run(study: dict, config: Path) -> None:
    """Run and verify the study ``study``, by way of the file ``config``."""
    files.write_json(config, study)
    options = ["--configfile", config, "--cores", snakemake.threads, "--workflow-profile", "none", "--nolock", "--rerun-incomplete"]
    call = [sys.executable, "-m", "snakemake", "all", "--snakefile", SNAKEFILE, *options]
    done = subprocess.run(list(map(str, call)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log.info("%s", done.stdout)
    if done.returncode:
        raise UserError(f"the study {study['study']} of this reading failed; this log has what it printed")


def found(study: dict) -> dict:
    """What the study found: the rows of Table 1, the health of every attack, the accuracy, and what the codebooks look like."""
    results = Path("results", study["study"])
    with (results / "tables/table1.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    victims = [
        results / f"{dataset}/{model}-pretrained/seed{seed}"
        for dataset, model, seed in product(*map(study.get, ("datasets", "models", "seeds")))
    ]
    accuracy, health, codes = {}, {}, {}
    for victim in victims:
        with (victim / "training.csv").open(encoding="utf-8") as file:
            accuracy[str(victim.relative_to(results))] = list(csv.DictReader(file))[-1].get("test_accuracy")
        queries, labels = storage.read_hdf5(victim / "features/query.h5", "features", "labels")
        [database_labels] = storage.read_hdf5(victim / "features/database.h5", "labels")
        for bits in study["bits"]:
            name = f"{victim.relative_to(results)}/{bits}bits"
            health[name] = {attack: files.read_json(results / name / f"adversarial/{attack}.health.json") for attack in study["attacks"]}
            codebook = codebooks.read(results / name / "codebook.h5")
            shares = {
                attack: peak(codebook.rotated(queries), codebook.codewords, one["temperature"]) for attack, one in study["attacks"].items()
            }
            codes[name] = {"peak": shares, "neighbours_of_one_class": neighbours_of_one_class(codebook, database_labels)}
    return {"rows": rows, "accuracy": accuracy, "health": health, "codes": codes, "manifest": files.sha256(results / "MANIFEST.sha256")}


with step(snakemake) as settings:
    study = copy.deepcopy(settings["study"])
    for model, weights in zip(settings["lent"], snakemake.input.weights):
        del study["models"][model]["training"]
        study["models"][model]["weights"] = weights
    run(study, Path(snakemake.log[0]).with_suffix(".json"))
    files.write_json(snakemake.output[0], {"reading": snakemake.wildcards.reading, "title": settings["title"]} | found(study))
