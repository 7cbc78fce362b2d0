"""Every rule of the workflow, said once: its script, what there is one job of it for, what it depends on, and what it asks for.

What Snakemake compares with the last run to find what is stale, what a record holds, what ``audit verify`` expects, what a job asks a
cluster for and which files a study has: all follow from this table. A test holds the local rules and the profile of the cluster to it.
Needs only the standard library.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pqag.job.provenance import LIBRARY, code_digest
from pqag.names import CLEAN, FARTHEST, PAPER_DATASETS, TRAINED, is_entry_point
from pqag.study import resources as asks
from pqag.study import settings as needs
from pqag.study.resources import Work
from pqag.study.scores import (
    CONCLUSIONS,
    Score,
    heat_maps,
    is_fine_tuned,
    is_joint,
    scores,
    smallest_changes,
    tables,
    training_of,
    with_lender,
)
from pqag.study.settings import maker_of

#: The wildcards that tell the jobs of a rule apart, by what there is one job for. Most have a dataset and a seed besides.
WILDCARDS = {
    "study": (),
    "data set": (),
    "network": ("model",),
    "network and code length": ("model", "bits"),
    "victim": ("model", "training"),
    "codebook": ("model", "training", "bits"),
    "attack": ("model", "training", "bits", "attack"),
    "source": ("model", "training", "attack", "source_bits"),
    "score": Score._fields,
    "figure": ("model",),
    "strength": ("model", "training", "bits", "attack"),
    "table": ("table",),
    "heat map": ("table", "panel"),
    "reading": ("reading",),
}


#: What an attack, and the fit of a codebook, look up by name, see ``Rule``.
OF_ATTACK = (("loss", "losses"), ("loss", "goals"), ("method", "methods"), ("loss", "black_box"), ("method", "black_box"))
OF_TRAINED = (*OF_ATTACK, ("method", "trained"))
OF_QUANTIZER = (("method", "additive"),)


class Rule(NamedTuple):
    """A rule: its name, what there is one job of it for (a key of ``WILDCARDS``), which settings and what resources a job has.

    ``script`` is the script of another name. ``network``: it trains or runs a network, and asks for a GPU where there is one. ``local``: it
    runs where Snakemake does, also on a cluster. ``group``: on a cluster, jobs of such a group run one after the other in a single job.
    ``looks_up``: which of its settings name functions of which modules of ``provenance.CHOSEN``.
    """

    name: str
    per: str
    settings: Callable[[Mapping[str, str], Mapping[str, Any]], dict[str, Any]]
    resources: Callable[[Mapping[str, str], Mapping[str, Any]], Work]
    script: str = ""
    network: bool = False
    local: bool = False
    group: str = ""
    looks_up: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> Path:
        """The script that the rule runs."""
        return LIBRARY.parent / f"{self.script or self.name}.py"

    def chosen(self, settings: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
        """The functions that a job with these ``settings`` looks up by name, as (module, name): the digest of its code covers them. One of
        the user's is not among them, since ``brought`` has the digest of its file."""
        return frozenset((module, settings[key]) for key, module in self.looks_up if not is_entry_point(settings[key]))


def _reading(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> dict[str, Any]:
    """The study of a reading, and a digest of the settings and the code of all its jobs: if one is stale, so is the reading."""
    other = needs.reading(study, wildcards["reading"])
    of_jobs = ([rule, values, settings(rule, values, other)] for rule, values in jobs_of(other) if rule != "study")
    every = sorted(json.dumps(job, sort_keys=True) for job in of_jobs)
    own = {"title": study["readings"][wildcards["reading"]]["title"], "lent": needs.lent(study, wildcards["reading"])}
    return own | {"study": needs.as_config(other), "jobs": hashlib.sha256("".join(every).encode()).hexdigest()}


def _work_of_reading(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> Work:
    """Its jobs run one after the other, each in a process of its own, under a Snakemake of their own. Lent weights are not trained."""
    other, lent = needs.reading(study, wildcards["reading"]), needs.lent(study, wildcards["reading"])
    every = [work("adopt" if its.get("model") in lent and rule == "pretrain" else rule, its, other) for rule, its in jobs_of(other)]
    return Work(asks.SNAKEMAKE_MB + max(one.mb for one in every), sum(asks.START_SECONDS + one.seconds for one in every), network=True)


RULES = {
    rule.name: rule
    for rule in (
        Rule("fetch", "data set", needs.fetch, asks.fetch, local=True),
        Rule("prepare", "data set", needs.prepare, asks.prepare),
        Rule("pretrain", "network", needs.pretrain, asks.pretrain, network=True),
        Rule("pretrain_own", "network", needs.pretrain, asks.pretrain, network=True),
        Rule("train_joint", "network and code length", needs.train_joint, asks.train_joint, network=True),
        Rule("adopt", "network", needs.adopt, asks.adopt, network=True),
        Rule("adopt_joint", "network and code length", needs.adopt_joint, asks.adopt, script="adopt", network=True),
        Rule("borrow", "network", needs.borrow, asks.light, local=True),
        Rule("extract", "victim", needs.extract, asks.extract, network=True, group="features"),
        Rule("extract_shard", "victim", needs.extract, asks.extract, script="extract", network=True),
        Rule("extract_train", "victim", needs.extract, asks.extract_train, script="extract", network=True, group="features"),
        Rule("quantize", "codebook", needs.quantize, asks.quantize, group="codebooks", looks_up=OF_QUANTIZER),
        Rule("encode", "codebook", needs.nothing, asks.quantize, group="codebooks"),
        Rule("attack", "attack", needs.attack, asks.attack, network=True, group="attacks", looks_up=OF_TRAINED),
        Rule("attack_shard", "attack", needs.attack, asks.attack, script="attack", network=True, looks_up=OF_TRAINED),
        Rule("train_attack", "attack", needs.attack, asks.train_attack, network=True, looks_up=OF_TRAINED),
        Rule("extract_transfer", "source", needs.extract_transfer, asks.extract_transfer, network=True, group="transfers"),
        Rule("evaluate", "score", needs.nothing, asks.evaluate, group="scores"),
        Rule("evaluate_clean", "codebook", needs.nothing, asks.evaluate, script="evaluate", group="scores"),
        Rule("evaluate_farthest", "codebook", needs.nothing, asks.evaluate, script="evaluate", group="scores"),
        Rule("robustness", "table", needs.robustness, asks.light, group="paper"),
        Rule("drops", "table", needs.drops, asks.light, group="paper"),
        Rule("table", "table", needs.table, asks.light, group="paper"),
        Rule("beside_paper", "study", needs.nothing, asks.drawing, group="paper"),
        Rule("claims", "study", needs.claims, asks.light, group="paper"),
        Rule("reading", "reading", _reading, _work_of_reading, network=True),
        Rule("ambiguity", "study", needs.nothing, asks.drawing, group="paper"),
        Rule("heat_map", "heat map", needs.nothing, asks.drawing, group="paper"),
        Rule("distortion", "data set", needs.distortion, asks.distortion, group="paper"),
        Rule("perturbation", "figure", needs.one_query, asks.figure, group="paper"),
        Rule("centroid_distributions", "figure", needs.chosen_queries, asks.figure, group="paper"),
        Rule("retrieval_sheet", "figure", needs.chosen_queries, asks.figure, group="paper"),
        Rule("precision_recall", "figure", needs.figure, asks.drawing, group="paper"),
        Rule("sweep", "strength", needs.sweep, asks.sweep, network=True, group="sweeps", looks_up=OF_ATTACK),
        Rule("figure_sweep", "figure", needs.figure, asks.drawing, group="paper"),
        Rule("gallery", "study", needs.gallery, asks.gallery, group="paper"),
        Rule("paper", "study", needs.paper, asks.light, local=True),
        Rule("study", "study", needs.whole_study, asks.light, local=True),
        Rule("manifest", "study", needs.nothing, asks.light, local=True),
    )
}
#: Rules without settings or a record: they read what the others made.
READERS = {"report": asks.report, "all": asks.light, "publish": asks.light}
#: The rules that draw a victim, or measure what is drawn of it.
FIGURES = tuple(name for name, rule in RULES.items() if rule.per in ("figure", "strength"))


def settings(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one job of ``rule``, sorted by name, then ``code``, the digest of its code.

    ``study`` is ``Study.resolved()`` of ``pqag.study.model``: every key present. Raises KeyError where the study has no such data set,
    model or attack, or the rule is unknown.
    """
    found = RULES[rule].settings(wildcards, study)
    return dict(sorted(found.items())) | {"code": code_digest(RULES[rule].path, RULES[rule].chosen(found))}


def work(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any], gpu: bool = False) -> Work:
    """What a job of ``rule`` is expected to take, without any reserve.

    ``study`` is as in ``settings``, and may have the section ``shards``; ``gpu`` says whether networks run on one.
    """
    found = (RULES[rule].resources if rule in RULES else READERS[rule])(wildcards, study)
    return found.on_gpu() if gpu else found


def figure_models(study: Mapping[str, Any], rule: str) -> list[str]:
    """The models that a rule of ``FIGURES`` has a job for."""
    return (study["figures"]["sweep"] if "sweep" in rule else study["figures"])["models"]


def jobs_of(study: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every job of ``jobs`` once, with its dataset and its seed."""
    found = {}
    for dataset, seed in product(study["datasets"], study["seeds"]):
        for rule, wildcards in jobs(study):
            its = {"dataset": dataset, "seed": str(seed)} | wildcards
            found[rule, frozenset(its.items())] = rule, its
    yield from found.values()


def jobs(study: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every job of a finished study, as its rule and its wildcards without dataset; some come twice.

    There is one such job for each data set, and for each seed unless the wildcards have one: figures are of the first seed. Shards are not
    among them, since a finished study has none left.
    """

    def job(rule: str, **values: Any) -> tuple[str, dict[str, str]]:
        return rule, {name: str(values[name]) for name in WILDCARDS[RULES[rule].per]}

    def victim(its: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
        for model in with_lender(study, its["model"]):
            yield job(maker_of(study["models"][model]), **its | {"model": model})
        if is_fine_tuned(study["models"][its["model"]]):
            yield job("train_joint", **its)
        yield job("extract", **its)
        if needs.fitted_to(study, its["model"]) == "train":
            yield job("extract_train", **its)
        yield job("encode" if is_joint(study, its["model"]) else "quantize", **its)

    for rule in ("study", "manifest", "paper", "fetch", "prepare"):
        yield job(rule)
    for table in tables(study):
        yield job("table", table=table)
        if table in CONCLUSIONS:
            yield job(CONCLUSIONS[table], table=table)
    if any(name in PAPER_DATASETS for name in study["datasets"]) and tables(study):
        yield job("beside_paper")
        yield job("claims")
    for name in study.get("readings", {}):
        yield job("reading", reading=name)
    if study.get("readings"):
        yield job("ambiguity")
    for table, panel in heat_maps(study):
        yield job("heat_map", table=table, panel=panel)
    if smallest_changes(study):
        yield job("distortion")
    if study["figures"]["models"]:
        yield job("gallery")
    bits, first = study["figures"]["bits"], {"seed": str(study["seeds"][0])}
    for rule in FIGURES:
        for model in figure_models(study, rule):
            its = {"model": model, "training": training_of(study, model, bits), "bits": bits}
            yield from ((maker, wildcards | first) for maker, wildcards in victim(its))
            if RULES[rule].per == "figure":
                yield job(rule, **its)
            else:
                yield from ((rule, job(rule, **its, attack=attack)[1] | first) for attack in study["attacks"])
    for score in smallest_changes(study):
        its = score._asdict()
        of_score = (*victim(its), job("attack", **its), job("evaluate_clean", **its), job("evaluate", **its))
        yield from ((rule, wildcards | first) for rule, wildcards in of_score)
    for score in scores(study):
        its = score._asdict()
        yield from victim(its)
        if score.attack in (CLEAN, FARTHEST):
            yield job(f"evaluate_{score.attack}", **its)
            continue
        source = {"model": score.source_model, "training": score.source_training, "bits": score.source_bits}
        yield job("attack", **its | source)
        if study["attacks"][score.attack].get("method") in TRAINED:
            yield job("train_attack", **its | source)
        yield job("evaluate", **its)
        if score.transferred:
            yield job("extract_transfer", **its)
