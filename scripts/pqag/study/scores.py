"""Which query sets are scored on which victims, for each table and for the figures. Needs only the standard library."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pqag import files
from pqag.job.provenance import LIBRARY
from pqag.names import CLEAN, FARTHEST, FINE_TUNED, JOINT, PQN, PRETRAINED, UNBOUNDED, is_of_zoo

#: The trained victims that ship with the project.
ZOO = LIBRARY.parents[1] / "zoo"


class Score(NamedTuple):
    """A query set on a victim: the clean queries, or those that ``attack`` made for (``source_model``, ``source_training``,
    ``source_bits``). A training is named as in the names of folders, see ``training_of``."""

    attack: str
    source_model: str
    source_training: str
    source_bits: int
    model: str
    training: str
    bits: int

    @property
    def transferred(self) -> bool:
        """Whether the queries were made for another network."""
        return (self.source_model, self.source_training) != (self.model, self.training)


def is_fine_tuned(model: Mapping[str, Any]) -> bool:
    """Whether a model of a resolved study, given by its entry, is trained together with its codebook from trained weights. A method of the
    user's is if the entry has the section ``joint``."""
    return model["quantizer"]["method"] in FINE_TUNED or "joint" in model


def is_joint(study: Mapping[str, Any], model: str) -> bool:
    """Whether a model of a resolved study is trained together with its codebook."""
    one = study["models"][model]
    return one["quantizer"]["method"] == PQN or is_fine_tuned(one)


def training_of(study: Mapping[str, Any], model: str, bits: int) -> str:
    """How a model comes by its weights, as the names of folders say: ``pretrained``, the same for all code lengths, or trained for one,
    ``joint16``."""
    return f"{JOINT}{bits}" if is_joint(study, model) else PRETRAINED


def score(study: Mapping[str, Any], attack: str, source_model: str, source_bits: int, model: str, bits: int) -> Score:
    """The score of queries made for a model at a code length on a model at a code length."""
    trainings = training_of(study, source_model, source_bits), training_of(study, model, bits)
    return Score(attack, source_model, trainings[0], source_bits, model, trainings[1], bits)


def table_models(study: Mapping[str, Any], table: str) -> list[str]:
    """The models in ``table`` of a resolved study; none where the study has no such table."""
    return study["tables"].get(table, {"models": []})["models"]


def white_box(study: Mapping[str, Any], table: str) -> Iterator[Score]:
    """The clean queries and every attack, on the victim that it was made for."""
    for model in table_models(study, table):
        yield from on_itself(study, model)


def on_itself(study: Mapping[str, Any], model: str) -> Iterator[Score]:
    """The clean queries and every attack on one model, at every code length."""
    for bits in study["bits"]:
        for attack in (CLEAN, *study["attacks"]):
            yield score(study, attack, model, bits, model, bits)


def counterpart(study: Mapping[str, Any], model: str) -> str | None:
    """The model that a jointly trained one is compared with: the first with the same network, width and training recipe whose features
    are quantized afterwards, by plain product quantization with as many sub-spaces; None if the study has none."""
    one, own = study["models"][model], recipe(study, model)
    for name, other in study["models"].items() if own else ():  # nothing says how a user's weights were trained
        its = recipe(study, name)
        alike = ("images" in its) == ("images" in own) and its and its.items() <= own.items()
        same_code = other["quantizer"]["subspaces"] == one["quantizer"]["subspaces"]
        if alike and same_code and other["quantizer"]["method"] == "pq" and all(other[key] == one[key] for key in ("network", "width")):
            return name
    return None


def recipe(study: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """How the weights of a model were trained: its section ``training``; of weights of the zoo what its card says; otherwise nothing."""
    one = study["models"][study["models"][name]["like"] or name]
    return _recipe_of_zoo(one["weights"]) if is_of_zoo(one["weights"] or "") else one.get("training", {})


@functools.cache
def _recipe_of_zoo(name: str) -> dict[str, Any]:
    """The settings of the training that a card of the zoo records, if with a codebook those of all code lengths, and the sha256 of the
    images. A victim without a card has none, see ``user_code.check_of_zoo``."""
    cards = {f"zoo:{card.parent.name}": card for card in ZOO.glob("*/card.json")}  # so that no name leads out of the zoo
    record = files.read_json(cards[name])["record"] if name in cards else {}
    found = []
    for one in [record] if "predicate" in record else record.values():
        made = one["predicate"]["buildDefinition"]
        [images] = (part for part in made["resolvedDependencies"] if part["name"].endswith("/images.h5"))
        settings = made["externalParameters"]["settings"]
        same = {key: value for key, value in settings.items() if key not in ("device", "threads")}
        found.append(same | {"images": images["digest"]["sha256"]})
    return dict(set.intersection(*(set(one.items()) for one in found))) if found else {}


def counterparts(study: Mapping[str, Any], table: str) -> Iterator[Score]:
    """The scores of the counterparts of the models of a table, which are jointly trained."""
    names = (counterpart(study, model) for model in table_models(study, table))
    for name in dict.fromkeys(filter(None, names)):
        yield from on_itself(study, name)


def systems(study: Mapping[str, Any], table: str) -> Iterator[Score]:
    """The clean queries, every attack on the victim that it was made for, and the farthest codes."""
    for model in table_models(study, table):
        yield from on_itself(study, model)
        yield from (score(study, FARTHEST, model, bits, model, bits) for bits in study["bits"])


def all_attacks(study: Mapping[str, Any], table: str) -> Iterator[Score]:
    """The clean queries and every attack on the victim that it was made for, at one code length, and then on another network."""
    bits, others = study["tables"][table]["bits"], study["tables"][table]["transfer"]
    pairs = [(model, target) for model in table_models(study, table) for target in dict.fromkeys((model, others or model))]
    found = (
        [score(study, CLEAN, on, bits, on, bits), *(score(study, one, of, bits, on, bits) for one in bounded(study))] for of, on in pairs
    )
    yield from dict.fromkeys(itertools.chain.from_iterable(found))


def bounded(study: Mapping[str, Any]) -> list[str]:
    """The attacks that keep a ball, which a table can show side by side."""
    return [name for name, attack in study["attacks"].items() if attack.get("method") not in UNBOUNDED]


def smallest_changes(study: Mapping[str, Any]) -> list[Score]:
    """The other attacks, on each victim of Table 6: its figure of mAP against the size of changes shows them, of the first seed."""
    others = [name for name in study["attacks"] if name not in bounded(study)]
    pairs = itertools.product(table_models(study, "table6"), others)
    return [score(study, one, model, bits, model, bits) for model, one in pairs for bits in [study["tables"]["table6"]["bits"]]]


def bits_transfer(study: Mapping[str, Any], table: str) -> Iterator[Score]:
    """Queries made at each code length against each code length of the same network."""
    for model in table_models(study, table):
        for bits in study["bits"]:
            yield score(study, CLEAN, model, bits, model, bits)
        for source_bits in study["bits"]:
            for bits in study["bits"]:
                yield score(study, study["tables"][table]["attack"], model, source_bits, model, bits)


def model_transfer(study: Mapping[str, Any], table: str) -> Iterator[Score]:
    """Queries made for each network against each network, at one code length."""
    models, bits = table_models(study, table), study["tables"][table]["bits"]
    for model in models:
        yield score(study, CLEAN, model, bits, model, bits)
    for source_model in models:
        for model in models:
            yield score(study, study["tables"][table]["attack"], source_model, bits, model, bits)


def figure_scores(study: Mapping[str, Any]) -> Iterator[Score]:
    """The figures: the clean queries and every attack on their victims, all at one code length."""
    bits = study["figures"]["bits"]
    for model in study["figures"]["models"]:
        for attack in (CLEAN, *study["attacks"]):
            yield score(study, attack, model, bits, model, bits)


#: The scores that each table shows, in the order of its rows.
TABLES = {"table1": white_box, "table2": white_box, "table3": bits_transfer, "table4": model_transfer, "table5": systems}
TABLES |= {"table6": all_attacks}

#: By table: the rule that draws a conclusion from its scores, for its caption.
CONCLUSIONS = {"table2": "robustness", "table4": "drops"}


def rows_of(study: Mapping[str, Any], table: str) -> list[Score]:
    """The scores that ``table`` shows, in the order of its rows."""
    return list(TABLES[table](study, table))


def held_against(study: Mapping[str, Any], table: str) -> list[Score]:
    """The scores that those of ``table`` are held against: those of the counterparts of jointly trained models."""
    return list(counterparts(study, table)) if CONCLUSIONS.get(table) == "robustness" else []


def scores_of(study: Mapping[str, Any], table: str) -> list[Score]:
    """The scores that ``table`` needs."""
    return rows_of(study, table) + held_against(study, table)


def tables(study: Mapping[str, Any]) -> list[str]:
    """The tables that the study makes: those with models."""
    return [table for table in TABLES if table_models(study, table)]


def scores(study: Mapping[str, Any]) -> list[Score]:
    """Every score that some table or figure of the study shows, once each."""
    shown = [*(scores_of(study, table) for table in tables(study)), figure_scores(study)]
    return list(dict.fromkeys(s for part in shown for s in part))


def transfers(study: Mapping[str, Any], wildcards: Mapping[str, str]) -> list[Score]:
    """The scores on (``model``, ``training``) of the queries that ``attack`` made at ``source_bits`` for other networks, one for each such
    network."""
    named = {name: str(wildcards[name]) for name in ("attack", "source_bits", "model", "training")}
    found = (s for s in scores(study) if s.transferred and all(str(getattr(s, name)) == value for name, value in named.items()))
    return list({(s.source_model, s.source_training): s for s in found}.values())


def victims(study: Mapping[str, Any], table: str) -> list[tuple[str, str]]:
    """The networks in ``table``, as (model, training): a jointly trained model has one for each code length."""
    return list(dict.fromkeys((s.model, s.training) for s in scores_of(study, table)))


def heat_maps(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The heat maps, as (table, panel): of transfer between code lengths one for every data set and model, between networks one for every
    data set."""
    found = []
    for table in tables(study):
        if TABLES[table] is bits_transfer:
            found += [(table, f"{dataset}_{model}") for dataset in study["datasets"] for model in table_models(study, table)]
        if TABLES[table] in (model_transfer, systems, all_attacks):
            found += [(table, dataset) for dataset in study["datasets"]]
    return found


def with_lender(study: Mapping[str, Any], model: str) -> list[str]:
    """``model``, after the model of the study that its weights are taken from, if there is one."""
    lender = study["models"][model]["like"]
    return [lender, model] if lender else [model]
