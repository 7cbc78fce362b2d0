"""What would run: from nothing, and after a change."""

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import staleness
import yaml
from staleness import changed

from pqag.job import provenance
from pqag.study.model import parse_study
from pqag.study.rules import RULES
from pqag.study.scores import TABLES

from .conftest import ROOT, dry_run, plan

#: The tables of the tiny study.
SHOWN = set(TABLES) - {"table2", "table5", "table6"}


def test_default_study_from_nothing(tmp_path):
    """Table 1: 2 models x 3 code lengths x 3 attacks. Table 3: AOD at 3 lengths on the 2 others. Table 4: VGG16 and 5 more models at one
    code length, each on all; alone it brings 6 networks, each attacked at one code length and queried with the queries of all."""
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    jobs = Counter(rule for rule, _ in plan(tmp_path, default))
    assert jobs.pop("report") == 1 and jobs.pop("paper", 0) == bool(shutil.which("pdflatex"))
    single = ("fetch", "prepare", "drops", "figure_sweep", "gallery", "study", "manifest", "all")
    steps = {"pretrain": 7, "extract": 7, "quantize": 6 + 5, "attack": 18 + 5, "extract_transfer": 6, "evaluate_clean": 6 + 5, "table": 3}
    figures = {"perturbation": 2, "centroid_distributions": 2, "retrieval_sheet": 2, "precision_recall": 2, "sweep": 3, "heat_map": 2 + 1}
    assert jobs == dict.fromkeys(single, 1) | steps | figures | {"evaluate": 18 + 2 * 3 * 2 + 6 * 6 - 1}
    jobs = Counter(rule for rule, _ in plan(tmp_path, default, "table4"))
    six = dict.fromkeys(("pretrain", "extract", "quantize", "attack", "extract_transfer", "evaluate_clean"), 6)
    assert jobs == six | {"evaluate": 36, "fetch": 1, "prepare": 1, "drops": 1, "table": 1, "table4": 1}


def test_transferred_queries_go_by_the_name_of_the_network_they_were_made_for(tmp_path, tiny):
    """The step pairs ``sources`` of its settings with its input files by their order."""
    names = ["vgg16", "alexnet", "resnet18"]
    jobs = dry_run(tmp_path, tiny | {"models": dict.fromkeys(names, {"width": 0.125})}, "table4")[1].dag.jobs
    found = {job.wildcards.model: job for job in jobs if job.rule.name == "extract_transfer"}
    for model, job in found.items():
        sources = job.params.settings["sources"]
        assert sources == [f"{name}-pretrained" for name in names if name != model]
        folder = "results/tiny/synthetic/{}/seed0/16bits/adversarial/aod.h5"
        assert list(job.input.images) == [folder.format(source) for source in sources]
    assert len(found) == 3


def test_seeds_multiply_everything_but_the_data(tmp_path, tiny):
    jobs = Counter(rule for rule, _ in plan(tmp_path, tiny | {"seeds": [0, 1, 2]}, "table1"))
    assert (jobs["fetch"], jobs["prepare"], jobs["table"]) == (1, 1, 1)
    assert (jobs["pretrain"], jobs["attack"]) == (6, 18)


def test_a_study_that_splits_splits_all(tmp_path, tiny):
    """60 queries, and 300 images of the database, are a batch: one shard each. Otherwise a job of a cluster could have steps with a network
    and steps that join shards, and hold a GPU for these."""
    study = tiny | {"shards": {"attack": 3, "extract": 3}}
    jobs = [job for job in dry_run(tmp_path, study, "table1")[1].dag.jobs]
    count = Counter(job.rule.name for job in jobs)
    assert count["attack_shard"] == count["attack"] == 6 and count["extract_shard"] == count["extract"] == 2
    assert all(job.input.shards for job in jobs if job.rule.name in ("attack", "extract"))


def test_one_file_brings_only_what_it_needs(tmp_path, tiny):
    target = "results/tiny/synthetic/vgg16-pretrained/seed0/16bits/metrics/aod.alexnet-pretrained-16bits.json"
    jobs = plan(tmp_path, tiny, target)
    once = dict.fromkeys(("fetch", "prepare", "attack", "extract_transfer", "evaluate"), 1)
    assert Counter(rule for rule, _ in jobs) == once | dict.fromkeys(("pretrain", "extract", "quantize"), 2)
    assert [w["model"] for rule, w in jobs if rule == "attack"] == ["alexnet"]


def test_a_second_run_has_nothing_to_do(study, tiny):
    assert plan(study[0], tiny) == [("all", {})], "which verifies"


def rules(jobs):
    """The rules that have jobs, tables by name, but for those that every change of the config file brings."""
    return {staleness.named(*job) for job in jobs} - staleness.ALWAYS - staleness.SHOWING


#: One key of each section; the long run tries the others too.
QUICK = {key.rpartition(".")[0] or key: key for key in reversed(staleness.CHANGES)}.values()
KEYS = [pytest.param(key, marks=[pytest.mark.slow] * (key not in QUICK)) for key in staleness.CHANGES]


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_key_makes_stale_what_the_docs_say(study, tiny, key):
    jobs = plan(study[0], changed(tiny, key, staleness.CHANGES[key]))
    assert rules(jobs) == staleness.made_again(key)
    assert {rule for rule, _ in jobs} >= staleness.ALWAYS


def test_every_key_of_the_schema_is_tried():
    tried = {staleness.general(key) for key in staleness.CHANGES} | set(staleness.UNTRIED)
    assert tried == set(staleness.schema_keys())
    assert {"datasets.*.train", "models.*.training.crop", "attacks.*.feature", "bits", "threads.attack"} < tried


def test_some_keys_by_hand():
    drawn = DRAWN | {"sweep", "gallery"}
    scored = drawn | {"evaluate", "evaluate_clean", "drops", "table1", "table3", "table4"}
    trained = scored | {"pretrain", "extract", "extract_transfer", "quantize", "attack"}
    for key, wanted in {
        "attacks.apd.iterations": drawn - {"heat_map", "perturbation"} | {"attack", "evaluate", "table1"},
        "quantizer.iterations": scored | {"quantize", "attack", "extract_transfer"},
        "tables.table3.attack": {"table3", "heat_map"},
        "figures.sweep.queries": {"sweep", "figure_sweep"},
        "figures.attack": {"perturbation", "centroid_distributions", "retrieval_sheet", "gallery"},
        "figures.gallery.queries": {"gallery"},
        "training.epochs": trained,
        "threads.attack": trained - {"pretrain"},
        "datasets.synthetic.split_seed": trained | {"prepare"},
        "anonymous": set(),
    }.items():
        assert staleness.made_again(key) == wanted, key


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/staleness.md").read_text() == staleness.page(), "make docs"


def test_only_the_changed_attack_and_model_are_done_again(study, tiny):
    jobs = plan(study[0], changed(tiny, "attacks.aod.iterations", 7))
    assert {w["attack"] for rule, w in jobs if rule in ("attack", "extract_transfer", "evaluate")} == {"aod"}
    jobs = plan(study[0], changed(tiny, "models.vgg16.training", {"crop": 1}))
    shared = {"heat_map", "extract_transfer"}  # what other networks made of its queries, and it of theirs
    again = [w for rule, w in jobs if rule not in staleness.ALWAYS | staleness.SHOWING | {"table", "drops", "gallery"} | shared]
    assert all("vgg16" in (w["model"], w.get("source_model")) for w in again)
    assert {w["model"] for w in again if "source_model" not in w} == {"vgg16"}


def test_stating_a_default_makes_nothing_stale(study, tiny):
    defaults = parse_study(tiny).model_dump()
    stated = ("training", "quantizer", "threads", "bits", "seeds", "attacks", "models", "datasets")
    assert rules(plan(study[0], tiny | {key: defaults[key] for key in stated})) == set()


@pytest.mark.parametrize(("key", "tables"), [("attacks", {"table1"}), ("models", SHOWN)])
def test_another_order_of_attacks_or_models_makes_the_tables_that_show_them_anew(study, tiny, key, tables):
    turned = tiny | {key: dict(reversed(tiny[key].items()))}
    assert rules(plan(study[0], turned)) & set(TABLES) == tables


def test_another_source_matters_only_where_the_hash_does_not_pin_the_content(tmp_path, tiny):
    """Fashion-MNIST has one known content; CIFAR-10 has, once the config names its hash."""

    def settings(name, **values):
        jobs = dry_run(tmp_path, tiny | {"datasets": {name: values}}, f"data/{name}.h5")[1].dag.jobs
        return next(job.params.settings for job in jobs if job.rule.name == "fetch")

    for name, values, matters in (("fashion_mnist", {}, False), ("cifar10", {"sha256": "0" * 64}, False), ("cifar10", {}, True)):
        assert (settings(name, **values, source="here") != settings(name, **values, source="there")) == matters


def test_an_added_attack_runs_alone(study, tiny):
    jobs = plan(study[0], changed(tiny, "attacks.strong", {"loss": "apd", "iterations": 20}))
    counts = Counter(staleness.named(*job) for job in jobs if job[0] not in staleness.SHOWING)
    twice = ("attack", "evaluate", "sweep", "centroid_distributions", "retrieval_sheet", "precision_recall", "figure_sweep")
    assert counts == dict.fromkeys(twice, 2) | dict.fromkeys(("table1", "gallery", "study", "manifest", "all"), 1)
    assert {w["attack"] for rule, w in jobs if rule == "attack"} == {"strong"}


@pytest.mark.parametrize(
    ("changes", "earlier", "stays"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"attacks": {"aod": {"loss": "aod", "iterations": 4}}}, False, False),
        ({"shards": {"attack": 2}}, False, False),
    ],
    ids=["finished", "finished in an earlier run", "with other settings", "joined from shards, which would be left over"],
)
def test_of_a_job_that_failed_stays_what_it_had_finished(study, tiny, tmp_path, monkeypatch, changes, earlier, stays):
    monkeypatch.chdir(shutil.copytree(study[0], tmp_path / "copy"))
    [job] = [
        job
        for job in dry_run(Path.cwd(), tiny | changes, "table1")[1].dag.jobs
        if job.rule.name == "attack" and (job.wildcards.model, job.wildcards.attack) == ("vgg16", "aod")
    ]
    os.utime(".snakemake/running", None if earlier else (0, 0))  # when this run began
    asyncio.run(job.cleanup([]))
    assert [Path(path).exists() for path in job.output] == [stays] * 3


def test_a_deleted_file_is_made_again(study, tiny):
    """An intermediate, a record, and a file that no other is made from; Snakemake by itself would miss them."""
    victim = "results/tiny/synthetic/vgg16-pretrained/seed0"
    makers = {f"{victim}/features/query.h5": "extract", f"{victim}/16bits/adversarial/aod.health.json": "attack"}
    makers |= {f"{victim}/weights.prov.json": "pretrain", "data/synthetic.prov.json": "fetch"}
    for name, maker in makers.items():
        hidden = study[0] / f"{name}.hidden"
        (study[0] / name).rename(hidden)
        try:
            assert maker in rules(plan(study[0], tiny)), name
        finally:
            hidden.rename(study[0] / name)


def test_touching_code_makes_nothing_stale(study, tiny):
    for path in [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("rules/*.smk"), ROOT / "Snakefile"]:
        path.touch()
    assert plan(study[0], tiny) == [("all", {})]


@pytest.fixture
def edited(study, tiny, monkeypatch):
    """Plans as if ``old`` were ``new`` in the file ``name`` of the library, or ``new`` stood at its end; the rules that have jobs."""
    original, whole = Path.read_text, Path.read_bytes

    def replan(name, new, old=""):
        edit = provenance.LIBRARY / name
        text = original(edit, encoding="utf-8")
        assert old in text
        changed = text.replace(old, new) if old else f"{text}\n{new}"
        monkeypatch.setattr(Path, "read_text", lambda path, **options: changed if path == edit else original(path, **options))
        monkeypatch.setattr(Path, "read_bytes", lambda path: changed.encode() if path == edit else whole(path))
        return {staleness.named(*job) for job in plan(study[0], tiny)} - staleness.SHOWING

    return replan


DRAWN = {"heat_map", "perturbation", "centroid_distributions", "retrieval_sheet", "precision_recall", "figure_sweep"}


def test_a_changed_module_makes_stale_what_the_docs_say(edited):
    """What runs when a module is imported: the figures take names from the tables' module, and both look at the ranking."""
    ranked = DRAWN - {"heat_map"} | {"evaluate", "evaluate_clean", "sweep", *SHOWN}
    for name, stale in {"show/figures.py": DRAWN, "retrieval.py": ranked, "networks.py": set()}.items():
        made = staleness.downstream(staleness.of_module(name)) - staleness.ALWAYS
        assert stale <= made, name
        assert edited(name, "print()") - staleness.ALWAYS == made, name


#: A change of each kind that decides no bit of a training, an extraction, a codebook, an attack or a score, and what it makes stale.
HARMLESS = {
    "how a step runs": ("job/step.py", "", "print()", set()),
    "a field of a record": ("job/records.py", '"git": git_state(),', '"git": git_state(), "another": 1,', set()),
    "the digest itself": ("job/provenance.py", "", "print()", set()),
    "how shards are named": ("job/shards.py", "", "print()", set()),
    "a kind of error": ("errors.py", "", "print()", set()),
    "the text of an error": ("attacks.py", "returned NaN or infinite numbers", "returned something else", set()),
    "a line of a log": ("training_run.py", "training images, %d of %d epochs done before", "images, %d of %d epochs done", set()),
    "the title of a progress bar": ("../attack.py", "{snakemake.wildcards.attack} on", "{snakemake.wildcards.attack} against", set()),
    "a new function": ("training.py", "", "def new():\n    pass", set()),
    "a remark": ("networks.py", "", "# a remark", set()),
    "a download": ("sources.py", "timeout=60", "timeout=61", set()),
    "a caption": ("show/tables.py", "worst possible", "the worst possible", {*SHOWN, "heat_map"}),
    "a display name": ("names.py", '"aod": "AOD"', '"aod": "Aod"', {*SHOWN, *DRAWN, "gallery"}),
    "the page of the gallery": ("show/gallery.html", "One query at a time", "A query at a time", {"gallery"}),
    "the page of the audit": ("audit/page.html", "Numbers are links", "A number is a link", set()),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_decides_no_bit_of_a_result_makes_none_stale(edited, kind):
    name, old, new, stale = HARMLESS[kind]
    made = edited(name, new, old)
    assert made - {"manifest", "all"} <= stale and (made - {"manifest", "all"} or not stale)


def test_every_rule_states_what_it_needs(tmp_path, tiny):
    computing = [rule for rule in dry_run(tmp_path, tiny)[1].rules if rule.script]
    assert {rule.name for rule in computing} == set(RULES)
    for rule in computing:
        assert rule.log and rule.benchmark and rule.message and rule.conda_env, rule.name
        assert {"mem_mb", "runtime"} <= set(rule.resources), rule.name
        assert list(rule.params.keys()) == ["settings"], rule.name
        assert "record" in list(rule.output.keys()), rule.name
