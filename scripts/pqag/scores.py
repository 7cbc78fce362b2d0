"""Which query sets are scored on which victims, for each table and for the figures. Needs the standard library alone."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

CLEAN = "clean"
PRETRAINED = "pretrained"


class Score(NamedTuple):
    """A query set on a victim: the clean queries, or those that ``attack`` made for (``source_model``, ``source_training``,
    ``source_bits``)."""

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


def of_pretrained(attack: str, source_model: str, source_bits: int, model: str, bits: int) -> Score:
    """A score of pretrained networks."""
    return Score(attack, source_model, PRETRAINED, source_bits, model, PRETRAINED, bits)


def table_models(study: Mapping[str, Any], table: str) -> list[str]:
    """The models in ``table`` of a resolved study; none where the study has no such table."""
    return study["tables"][table]["models"]


def white_box(study: Mapping[str, Any]) -> Iterator[Score]:
    """Table 1: the clean queries and every attack, on the victim that it was made for."""
    for model in table_models(study, "table1"):
        for bits in study["bits"]:
            for attack in (CLEAN, *study["attacks"]):
                yield of_pretrained(attack, model, bits, model, bits)


def bits_transfer(study: Mapping[str, Any]) -> Iterator[Score]:
    """Table 3: queries made at each code length against each code length of the same network."""
    for model in table_models(study, "table3"):
        for bits in study["bits"]:
            yield of_pretrained(CLEAN, model, bits, model, bits)
        for source_bits in study["bits"]:
            for bits in study["bits"]:
                yield of_pretrained(study["tables"]["table3"]["attack"], model, source_bits, model, bits)


def model_transfer(study: Mapping[str, Any]) -> Iterator[Score]:
    """Table 4: queries made for each network against each network, at one code length."""
    models, bits = table_models(study, "table4"), study["tables"]["table4"]["bits"]
    for model in models:
        yield of_pretrained(CLEAN, model, bits, model, bits)
    for source_model in models:
        for model in models:
            yield of_pretrained(study["tables"]["table4"]["attack"], source_model, bits, model, bits)


def drawn(study: Mapping[str, Any]) -> Iterator[Score]:
    """The figures: the clean queries and every attack on their victims, all at one code length."""
    bits = study["figures"]["bits"]
    for model in study["figures"]["models"]:
        for attack in (CLEAN, *study["attacks"]):
            yield of_pretrained(attack, model, bits, model, bits)


#: The scores of each table, in the order of its rows.
TABLES = {"table1": white_box, "table3": bits_transfer, "table4": model_transfer}


def tables(study: Mapping[str, Any]) -> list[str]:
    """The tables that the study makes: those with models."""
    return [table for table in TABLES if table_models(study, table)]


def scores(study: Mapping[str, Any]) -> list[Score]:
    """Every score that some table or figure of the study shows, once each."""
    shown = [*(TABLES[table] for table in tables(study)), drawn]
    return list(dict.fromkeys(score for part in shown for score in part(study)))


def transfers(study: Mapping[str, Any], wildcards: Mapping[str, str]) -> list[Score]:
    """What the queries that ``attack``, at ``source_bits``, made for other networks score on (``model``, ``training``), once for every
    source: whose queries a victim looks at, besides its own."""
    named = {name: str(wildcards[name]) for name in ("attack", "source_bits", "model", "training")}
    found = (s for s in scores(study) if s.transferred and all(str(getattr(s, name)) == value for name, value in named.items()))
    return list({(score.source_model, score.source_training): score for score in found}.values())


def heat_maps(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The heat maps, as (table, panel): of Table 3 one for every data set and model, of Table 4 one for every data set."""
    of_models = [("table3", f"{dataset}_{model}") for dataset in study["datasets"] for model in table_models(study, "table3")]
    return of_models + [("table4", dataset) for dataset in study["datasets"] if table_models(study, "table4")]


#: The rules of the figures that belong to a victim.
FIGURES = ("perturbation", "centroid_distributions", "retrieval_sheet", "precision_recall", "sweep", "figure_sweep")


def figure_models(study: Mapping[str, Any], rule: str) -> list[str]:
    """The models that a rule of ``FIGURES`` has a job for."""
    return (study["figures"]["sweep"] if "sweep" in rule else study["figures"])["models"]


def with_lender(study: Mapping[str, Any], model: str) -> list[str]:
    """``model``, after the model of the study that its weights are taken from, if there is one."""
    lender = study["models"][model]["like"]
    return [lender, model] if lender else [model]


def needed(study: Mapping[str, Any], rule: str, wildcards: Mapping[str, str]) -> bool:
    """Whether a job of the study has this rule and these wildcards, as far as its tables decide that."""
    if rule in TABLES:
        return rule in tables(study)
    if rule == "heat_map":
        return (wildcards["table"], wildcards["panel"]) in heat_maps(study)
    if rule in FIGURES:
        attack, bits = wildcards.get("attack"), wildcards.get("bits", str(study["figures"]["bits"]))
        known = (attack is None or attack in study["attacks"]) and bits == str(study["figures"]["bits"])
        return known and wildcards["model"] in figure_models(study, rule)
    if rule == "extract_transfer":
        return bool(transfers(study, wildcards))

    if rule in ("pretrain", "adopt", "borrow"):
        return wildcards["model"] in {name for score in scores(study) for name in with_lender(study, score.model)}

    def part_of(score: Score) -> bool:
        """Queries are made for no victim that is not scored too, so a job that makes them is named by the same words."""
        return all(str(value) == wildcards.get(name, str(value)) for name, value in score._asdict().items())

    return any(map(part_of, scores(study)))
