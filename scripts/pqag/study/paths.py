"""Where the files of a study lie, as functions of the resolved study and the wildcards of a job. Needs only the standard library.

``study`` is ``Study.resolved()`` of ``pqag.study.model``; paths are relative to the folder that the workflow runs in.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from pqag.names import CLEAN, FARTHEST
from pqag.study.scores import TABLES, Score, all_attacks, rows_of, smallest_changes, systems, training_of, transfers, victims

#: The folder of a victim below that of the study, its logs or its benchmarks.
VICTIM = "{dataset}/{model}-{training}/seed{seed}"


def results(study: Mapping[str, Any]) -> str:
    """The folder of a study: its name is the first below ``results/``, so studies never overwrite one another."""
    return f"results/{study['study']}"


def victim(study: Mapping[str, Any]) -> str:
    """The folder of a victim, with wildcards."""
    return f"{results(study)}/{VICTIM}"


def metrics(study: Mapping[str, Any], scored: Iterable[Score]) -> list[str]:
    """The metrics of scores, in their order for every data set; the seeds of a score side by side."""
    found = []
    for dataset, score, seed in product(study["datasets"], scored, study["seeds"]):
        source = "" if score.attack in (CLEAN, FARTHEST) else f".{score.source_model}-{score.source_training}-{score.source_bits}bits"
        folder = victim(study).format(dataset=dataset, seed=seed, **score._asdict())
        found.append(f"{folder}/{score.bits}bits/metrics/{score.attack}{source}.json")
    return found


def healths(study: Mapping[str, Any], table: str) -> list[str]:
    """How each attack of Tables 5 and 6 fared, in the order of its ``metrics`` on its own victim; nothing for other tables."""
    if TABLES[table] not in (systems, all_attacks):
        return []
    attacked = [score for score in rows_of(study, table) if score.attack not in (CLEAN, FARTHEST) and not score.transferred]
    each = product(study["datasets"], attacked, study["seeds"])
    pattern = f"{victim(study)}/{{bits}}bits/adversarial/{{attack}}.health.json"
    return [pattern.format(dataset=dataset, seed=seed, **score._asdict()) for dataset, score, seed in each]


def histories(study: Mapping[str, Any], table: str) -> list[str]:
    """How the networks of a table were trained, for every data set, victim and seed."""
    each = product(study["datasets"], victims(study, table), study["seeds"])
    return [f"{results(study)}/{dataset}/{model}-{training}/seed{seed}/training.csv" for dataset, (model, training), seed in each]


def distortion(study: Mapping[str, Any], wildcards: Mapping[str, str]) -> dict[str, list[str]]:
    """What the figure of attacks that keep no ball is of, on one data set and of the first seed: the ``attacked`` queries, their
    ``metrics``, and those of the ``clean`` queries on each victim."""
    of_first = {**study, "datasets": [wildcards["dataset"]], "seeds": study["seeds"][:1]}
    found = smallest_changes(study)
    pattern = f"{victim(study)}/{{bits}}bits/adversarial/{{attack}}.h5"
    each = {"dataset": wildcards["dataset"], "seed": study["seeds"][0]}
    return {
        "attacked": [pattern.format(**each, **score._asdict()) for score in found],
        "metrics": metrics(of_first, found),
        "clean": metrics(of_first, dict.fromkeys(score._replace(attack=CLEAN) for score in found)),
    }


def transferred_queries(study: Mapping[str, Any], wildcards: Mapping[str, str]) -> list[str]:
    """The adversarial queries that are scored on a network they were not made for, see ``pqag.study.scores.transfers``."""
    folder = f"{results(study)}/{wildcards['dataset']}/{{source_model}}-{{source_training}}/seed{wildcards['seed']}/{{source_bits}}bits"
    return [f"{folder}/adversarial/{{attack}}.h5".format(**score._asdict()) for score in transfers(study, wildcards)]


def features_of_queries(study: Mapping[str, Any], wildcards: Mapping[str, str]) -> str:
    """The features of adversarial queries on the victim that they are scored on: the attack's own, or those of all other networks."""
    own = all(wildcards[f"source_{name}"] == wildcards[name] for name in ("model", "training"))
    path = "{source_bits}bits/adversarial/{attack}.h5" if own else "features/{attack}.transfer-{source_bits}bits.h5"
    return f"{victim(study)}/{path}".format(**wildcards)


def of_figure(study: Mapping[str, Any], wildcards: Mapping[str, str], *patterns: str) -> list[str]:
    """Files of the victim of a figure, at its code length and of the first seed; ``{own}`` in a pattern is its model and training."""
    bits = study["figures"]["bits"]
    training = training_of(study, wildcards["model"], bits)
    folder = victim(study).format(**wildcards, training=training, seed=study["seeds"][0])
    own = f"{wildcards['model']}-{training}"
    return [f"{folder}/{pattern.format(own=own, bits=bits)}" for pattern in patterns]
