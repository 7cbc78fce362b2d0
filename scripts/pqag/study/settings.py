"""What the result of each rule depends on: its keys of the study and the digest of its code. The only place that says so.

Snakemake compares these settings with those of the last run to find what is stale, every record holds them, and ``audit verify`` compares
both. Needs the standard library alone.
"""

from collections.abc import Mapping
from typing import Any

from pqag.job.provenance import code_digest
from pqag.names import PQN, codewords, is_entry_point, is_torchvision
from pqag.study.rules import script_of
from pqag.study.scores import CONCLUSIONS, counterpart, transfers, victims


def settings(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one job of ``rule``, sorted by name, then ``code``.

    ``study`` is ``Study.resolved()`` of ``pqag.study.model``: every key present. Raises KeyError where the study has no such data set,
    model or attack, or the rule is unknown.
    """
    return dict(sorted(_FROM_STUDY[rule](wildcards, study).items())) | {"code": code_digest(script_of(rule))}


def as_config(study: Mapping[str, Any]) -> dict[str, Any]:
    """What study.json holds as a study file again: without the keys that only say where it came from, and what it brought along."""
    return {key: value for key, value in study.items() if key not in ("configfiles", "overrides", "brought")}


def maker_of(model: Mapping[str, Any]) -> str:
    """The rule that makes the weights of a model of a resolved study: ``borrow`` takes another model's, ``adopt`` those of the user;
    ``train_pqn`` trains them with a codebook, ``pretrain`` without."""
    if model["like"]:
        return "borrow"
    own = is_entry_point(model["network"]) or is_torchvision(model["network"])
    if model["weights"] or own:
        return "adopt"
    return "train_pqn" if model["quantizer"]["method"] == PQN else "pretrain"


def _pick(section: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: section[key] for key in keys}


#: Keys of a data set that say how it is split; all others say what its images are.
_SPLIT = ("train", "database", "database_from", "queries", "split_seed")


def _brought(study: Mapping[str, Any], *names: str | None) -> dict[str, Any]:
    """The sha256 of the user's files among ``names`` (see ``pqag.user_code``); nothing where all that is named is ours."""
    known = {name: study["brought"][name] for name in names if name in study.get("brought", {})}
    return {"brought": known} if known else {}


def _fetch(wildcards, study):
    """Where content is pinned by its hash, ``resolved`` leaves no source: a moved archive makes nothing stale."""
    return {key: value for key, value in study["datasets"][wildcards["dataset"]].items() if key not in _SPLIT}


def _prepare(wildcards, study):
    return _pick(study["datasets"][wildcards["dataset"]], *_SPLIT)


def _pretrain(wildcards, study):
    model = study["models"][wildcards["model"]]
    run = {"threads": study["threads"]["pretrain"], "device": study["device"]}
    return model["training"] | _pick(model, "network", "width") | run


def _train_pqn(wildcards, study):
    """The method of the quantizer is no setting: it is why the rule is this one."""
    model = study["models"][wildcards["model"]]
    subspaces = model["quantizer"]["subspaces"]
    start = _pick(model["quantizer"], "subspaces", "iterations") | {"codewords": codewords(int(wildcards["bits"]), subspaces)}
    return _pretrain(wildcards, study) | start | model["pqn"]


def _adopt(wildcards, study):
    model = study["models"][wildcards["model"]]
    run = {"threads": study["threads"]["attack"], "device": study["device"]}
    return _pick(model, "network", "width", "weights") | run | _brought(study, model["network"], model["weights"])


def _borrow(wildcards, study):
    return _pick(study["models"][wildcards["model"]], "like")


def _extract(wildcards, study):
    """A network of the user's is built by running their file again."""
    run = {"threads": study["threads"]["attack"], "device": study["device"]}
    return run | _brought(study, study["models"][wildcards["model"]]["network"])


def _extract_transfer(wildcards, study):
    """``sources``: whose queries, by the names under which their features are stored."""
    sources = [f"{score.source_model}-{score.source_training}" for score in transfers(study, wildcards)]
    return _extract(wildcards, study) | {"sources": sources}


def _quantize(wildcards, study):
    quantizer = study["models"][wildcards["model"]]["quantizer"]
    number = codewords(int(wildcards["bits"]), quantizer["subspaces"])
    return quantizer | {"codewords": number} | _brought(study, quantizer["method"])


def _attack(wildcards, study):
    attack = study["attacks"][wildcards["attack"]]
    network = study["models"][wildcards["model"]]["network"]
    return attack | _extract(wildcards, study) | _brought(study, attack["loss"], attack["method"], network)


def _none(wildcards, study):
    return {}


def _attacks_of_table(table, study):
    shown = study["tables"][table]
    return {shown["attack"]: study["attacks"][shown["attack"]]} if "attack" in shown else study["attacks"]


def _counterparts(table, study):
    held = CONCLUSIONS.get(table) == "robustness"
    return {model: counterpart(study, model) for model in study["tables"][table]["models"]} if held else {}


def _table(wildcards, study):
    """What a table shows, and in which order; Snakemake itself does not notice when the order of input files changes."""
    table = wildcards["table"]
    shown = study["tables"][table]
    models = {model: study["models"][model] for model, _ in victims(study, table)}
    joint = {model: one["pqn"] for model, one in models.items() if "pqn" in one}
    beside = _counterparts(table, study)
    return {
        "datasets": list(study["datasets"]),
        "victims": [list(victim) for victim in victims(study, table)],
        "widths": {model: one["width"] for model, one in models.items()},
        "networks": {model: one["network"] for model, one in models.items()},
        "quantizers": {model: one["quantizer"]["method"] for model, one in models.items()},
        "attacks": _attacks_of_table(table, study),
        "bits": [shown["bits"]] if "bits" in shown else study["bits"],
        "seeds": study["seeds"],
        **({"pqn": joint} if joint else {}),
        **({"counterparts": beside} if beside else {}),
    }


def _robustness(wildcards, study):
    """Of its table, all that decides which scores are compared, and in which order."""
    return _pick(_table(wildcards, study), "datasets", "networks", "attacks", "bits", "seeds") | {
        "counterparts": _counterparts(wildcards["table"], study)
    }


def _drops(wildcards, study):
    return _pick(_table(wildcards, study), "datasets", "victims", "attacks", "bits", "seeds")


def _figure(wildcards, study):
    """Figures are of the first seed. ``attacks``: their names, in the order that gives them their colours."""
    return {"attacks": list(study["attacks"]), "bits": study["figures"]["bits"], "seed": study["seeds"][0]}


def _one_query(wildcards, study):
    return {"attack": study["figures"]["attack"], "bits": study["figures"]["bits"], "seed": study["seeds"][0]}


def _chosen_queries(wildcards, study):
    return _figure(wildcards, study) | _one_query(wildcards, study)


def _sweep(wildcards, study):
    return _attack(wildcards, study) | {"sweep": _pick(study["figures"]["sweep"], "queries", "epsilon", "iterations")}


def _paper(wildcards, study):
    return {"study": study["study"], "models": list(study["models"])}


def _study(wildcards, study):
    return dict(study)


_FROM_STUDY = {
    "fetch": _fetch,
    "prepare": _prepare,
    "pretrain": _pretrain,
    "train_pqn": _train_pqn,
    "adopt": _adopt,
    "borrow": _borrow,
    "extract": _extract,
    "extract_shard": _extract,
    "quantize": _quantize,
    "encode": _none,
    "attack": _attack,
    "attack_shard": _attack,
    "extract_transfer": _extract_transfer,
    "evaluate": _none,
    "evaluate_clean": _none,
    "robustness": _robustness,
    "drops": _drops,
    "table": _table,
    "heat_map": _none,
    "perturbation": _one_query,
    "centroid_distributions": _chosen_queries,
    "retrieval_sheet": _chosen_queries,
    "precision_recall": _figure,
    "sweep": _sweep,
    "figure_sweep": _figure,
    "paper": _paper,
    "study": _study,
    "manifest": _none,
}

#: Every rule that computes, in the order of the data.
RULES = tuple(_FROM_STUDY)
