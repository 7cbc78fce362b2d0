"""What the result of each rule depends on in a study: exactly those keys. ``pqag.study.rules`` says which function is of which rule.

Each takes the wildcards of a job, as text, and the study as ``Study.resolved()`` of ``pqag.study.model`` gives it. It raises KeyError where
the study has no such data set, model or attack. Needs only the standard library.
"""

from collections.abc import Mapping
from typing import Any

from pqag.names import DATASETS, PQN, codewords, is_entry_point, is_torchvision
from pqag.study.scores import (
    CONCLUSIONS,
    TABLES,
    bounded,
    counterpart,
    is_fine_tuned,
    rows_of,
    smallest_changes,
    table_models,
    tables,
    transfers,
    victims,
    white_box,
)


def as_config(study: Mapping[str, Any]) -> dict[str, Any]:
    """What study.json holds as a study file again: without the keys that only say where it came from, and what its files contained."""
    kept = {key: value for key, value in study.items() if key not in ("configfiles", "overrides", "brought", "contents")}
    if "readings" in kept:
        changed = {name: as_config(one["study"]) | {"study": study["study"]} for name, one in kept["readings"].items()}
        kept["readings"] = {name: {"title": kept["readings"][name]["title"], "change": one} for name, one in changed.items()}
    return kept


def maker_of(model: Mapping[str, Any]) -> str:
    """The rule that makes the weights of a model of a resolved study, or those that its joint training begins with: ``borrow`` takes
    another model's, ``adopt`` those of the user, ``adopt_joint`` those of the zoo that were trained with a codebook; ``train_joint`` trains
    new ones with a codebook, ``pretrain`` without, ``pretrain_own`` those of a network of the user's that has a recipe."""
    if model["like"]:
        return "borrow"
    if is_entry_point(model["network"]) and not model["weights"] and "training" in model and not is_fine_tuned(model):
        return "pretrain_own"
    own = is_entry_point(model["network"]) or is_torchvision(model["network"])
    if model["weights"] or own:
        return "adopt_joint" if model["quantizer"]["method"] == PQN else "adopt"
    return "train_joint" if model["quantizer"]["method"] == PQN else "pretrain"


def _pick(section: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: section[key] for key in keys}


#: Keys of a data set that say how it is split; all others say what its images are. Known data sets are fetched as they are published.
_SPLIT = ("train", "database", "database_from", "queries", "split_seed", "validation")


def _split(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_SPLIT, "image_size") if dataset["kind"] in DATASETS else _SPLIT


def fitted_to(study: Mapping[str, Any], model: str) -> str:
    """The part of the images that the codebook of a model is fitted to; what ``Study.resolved`` leaves out is the default."""
    return study["models"][model]["quantizer"].get("fitted_to", "database")


def _brought(study: Mapping[str, Any], *names: str | None) -> dict[str, Any]:
    """The sha256 of the user's files among ``names`` (see ``pqag.user_code``); nothing where all that is named is ours."""
    known = {name: study["brought"][name] for name in names if name in study.get("brought", {})}
    return {"brought": known} if known else {}


def fetch(wildcards, study):
    """Where content is pinned by its hash, ``resolved`` leaves no source: a moved archive makes nothing stale. Otherwise ``content`` says
    what the source contains, see ``pqag.content``."""
    name = wildcards["dataset"]
    content = study.get("contents", {}).get(name)
    settings = {key: value for key, value in study["datasets"][name].items() if key not in _split(study["datasets"][name])}
    return settings | ({"content": content} if content else {})


def prepare(wildcards, study):
    dataset = study["datasets"][wildcards["dataset"]]
    return _pick(dataset, *_split(dataset))


def pretrain(wildcards, study):
    model = study["models"][wildcards["model"]]
    run = {"threads": study["threads"]["pretrain"], "device": study["device"]}
    return model["training"] | _pick(model, "network", "width") | run | _brought(study, model["network"])


def train_joint(wildcards, study):
    """``joint`` has other epochs, and another learning rate, than the training that it goes on from."""
    model = study["models"][wildcards["model"]]
    start = model["quantizer"] | {"codewords": codewords(int(wildcards["bits"]), model["quantizer"]["subspaces"])}
    if is_fine_tuned(model):
        return pretrain(wildcards, study) | start | model["joint"] | _brought(study, model["network"], model["quantizer"]["method"])
    return pretrain(wildcards, study) | start | model["pqn"]


def adopt(wildcards, study):
    model = study["models"][wildcards["model"]]
    run = {"threads": study["threads"]["attack"], "device": study["device"]}
    return _pick(model, "network", "width", "weights") | run | _brought(study, model["network"], model["weights"])


def adopt_joint(wildcards, study):
    """The weights of one code length, see ``pqag.user_code``, and the codewords that they should have."""
    model, bits = study["models"][wildcards["model"]], wildcards["bits"]
    weights, subspaces = f"{model['weights']}/{bits}bits", model["quantizer"]["subspaces"]
    own = {"weights": weights, "subspaces": subspaces, "codewords": codewords(int(bits), subspaces)}
    return adopt(wildcards, study) | own | _brought(study, weights)


def borrow(wildcards, study):
    return _pick(study["models"][wildcards["model"]], "like")


def extract(wildcards, study):
    """A network of the user's is built by running their file again."""
    run = {"threads": study["threads"]["attack"], "device": study["device"]}
    return run | _brought(study, study["models"][wildcards["model"]]["network"])


def extract_transfer(wildcards, study):
    """``sources``: whose queries, by the names under which their features are stored."""
    sources = [f"{score.source_model}-{score.source_training}" for score in transfers(study, wildcards)]
    return extract(wildcards, study) | {"sources": sources}


def quantize(wildcards, study):
    quantizer = study["models"][wildcards["model"]]["quantizer"]
    number = codewords(int(wildcards["bits"]), quantizer["subspaces"])
    return quantizer | {"codewords": number} | _brought(study, quantizer["method"])


def attack(wildcards, study):
    attack = study["attacks"][wildcards["attack"]]
    network = study["models"][wildcards["model"]]["network"]
    return attack | extract(wildcards, study) | _brought(study, attack["loss"], attack["method"], network)


def reading(study: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The resolved study of a reading, with what is known of the files that it names."""
    return study["readings"][name]["study"] | {key: study[key] for key in ("brought", "contents") if key in study}


def lent(study: Mapping[str, Any], name: str) -> list[str]:
    """The models of a reading whose training is that of the study, on the same images: they take its weights."""
    other = reading(study, name)
    if study["seeds"] != other["seeds"] or study["datasets"].keys() != other["datasets"].keys():
        return []
    parts = [{"dataset": dataset} for dataset in study["datasets"]]
    if any(step(part, study) != step(part, other) for part in parts for step in (fetch, prepare)):
        return []
    both = [model for model in other["models"] if model in study["models"]]
    pairs = {model: [one["models"][model] for one in (study, other)] for model in both}
    alike = [model for model, pair in pairs.items() if all(maker_of(one) == "pretrain" for one in pair)]
    return [model for model in alike if pretrain({"model": model}, study) == pretrain({"model": model}, other)]


def nothing(wildcards, study):
    return {}


def _attacks_of_table(table, study):
    shown = study["tables"][table]
    chosen = [shown["attack"]] if "attack" in shown else bounded(study)
    return {name: study["attacks"][name] for name in chosen}


def _counterparts(table, study):
    held = CONCLUSIONS.get(table) == "robustness"
    return {model: counterpart(study, model) for model in study["tables"][table]["models"]} if held else {}


def table(wildcards, study):
    """What a table shows, and in which order; Snakemake itself does not notice when the order of input files changes."""
    name = wildcards["table"]
    shown = study["tables"][name]
    models = {model: study["models"][model] for model, _ in victims(study, name)}
    joint = {section: {model: one[section] for model, one in models.items() if section in one} for section in ("pqn", "joint")}
    beside = _counterparts(name, study)
    return {
        "datasets": list(study["datasets"]),
        "victims": [list(victim) for victim in victims(study, name)],
        "widths": {model: one["width"] for model, one in models.items()},
        "networks": {model: one["network"] for model, one in models.items()},
        "quantizers": {model: one["quantizer"]["method"] for model, one in models.items()},
        "attacks": _attacks_of_table(name, study),
        "bits": [shown["bits"]] if "bits" in shown else study["bits"],
        "seeds": study["seeds"],
        **{section: given for section, given in joint.items() if given},
        **({"counterparts": beside} if beside else {}),
    }


def robustness(wildcards, study):
    """Of its table, all that decides which scores are compared, and in which order."""
    return _pick(table(wildcards, study), "datasets", "networks", "quantizers", "attacks", "bits", "seeds") | {
        "counterparts": _counterparts(wildcards["table"], study)
    }


def drops(wildcards, study):
    return _pick(table(wildcards, study), "datasets", "victims", "attacks", "bits", "seeds")


def claims(wildcards, study):
    """``scores``: how many scores each table has, which are the inputs, one table after the other."""
    counts = {table: len(rows_of(study, table)) * len(study["datasets"]) * len(study["seeds"]) for table in tables(study)}
    beside = _counterparts("table2", study) if "table2" in counts else {}
    return {"datasets": list(study["datasets"]), "scores": counts, "seeds": study["seeds"], "counterparts": beside}


def distortion(wildcards, study):
    """The figure is of the first seed. ``attacked``: models and attacks, in the order of the inputs."""
    found = smallest_changes(study)
    bits = study["tables"]["table6"]["bits"]
    return {"attacked": [[one.model, one.attack] for one in found], "bits": bits, "seed": study["seeds"][0]}


def figure(wildcards, study):
    """Figures are of the first seed. ``attacks``: their names, in the order that gives them their colours."""
    return {"attacks": list(study["attacks"]), "bits": study["figures"]["bits"], "seed": study["seeds"][0]}


def one_query(wildcards, study):
    return {"attack": study["figures"]["attack"], "bits": study["figures"]["bits"], "seed": study["seeds"][0]}


def chosen_queries(wildcards, study):
    return figure(wildcards, study) | one_query(wildcards, study)


def sweep(wildcards, study):
    return attack(wildcards, study) | {"sweep": _pick(study["figures"]["sweep"], "queries", "epsilon", "iterations")}


def gallery(wildcards, study):
    """``attack``: the one that the page opens with; ``tables``: which table shows the white-box scores of each model."""
    models, white_boxes = study["figures"]["models"], [table for table in TABLES if TABLES[table] is white_box]
    return one_query(wildcards, study) | {
        "study": study["study"],
        "datasets": list(study["datasets"]),
        "models": models,
        "attacks": study["attacks"],
        "queries": study["figures"]["gallery"]["queries"],
        "tables": {model: table for table in white_boxes for model in table_models(study, table) if model in models},
    }


def paper(wildcards, study):
    return {"study": study["study"], "models": list(study["models"])}


def whole_study(wildcards, study):
    return dict(study)
