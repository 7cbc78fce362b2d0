"""What would run: from nothing, and after a change."""

import copy
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pqag.config import parse_study

from .conftest import ROOT, dry_run, plan


def test_default_study_from_nothing(tmp_path):
    """2 models x 3 code lengths x 3 attacks."""
    jobs = Counter(rule for rule, _ in plan(tmp_path, yaml.safe_load((ROOT / "config.yaml").read_text())))
    assert jobs == {
        "fetch": 1,
        "prepare": 1,
        "pretrain": 2,
        "extract": 4,
        "quantize": 6,
        "attack": 18,
        "extract_adversarial": 18,
        "evaluate": 18,
        "evaluate_clean": 6,
        "table1": 1,
        "all": 1,
    }


def test_seeds_multiply_everything_but_the_data(tmp_path, tiny):
    jobs = Counter(rule for rule, _ in plan(tmp_path, tiny | {"seeds": [0, 1, 2]}, "table1"))
    assert (jobs["fetch"], jobs["prepare"], jobs["table1"]) == (1, 1, 1)
    assert (jobs["pretrain"], jobs["attack"]) == (6, 18)


def test_one_file_brings_only_what_it_needs(tmp_path, tiny):
    target = "results/tiny/synthetic/vgg16-pretrained/seed0/16bits/metrics/aod.alexnet-pretrained-16bits.json"
    jobs = plan(tmp_path, tiny, target)
    assert Counter(rule for rule, _ in jobs) == {
        "fetch": 1,
        "prepare": 1,
        "pretrain": 2,
        "extract": 2,
        "quantize": 2,
        "attack": 1,
        "extract_adversarial": 1,
        "evaluate": 1,
    }
    assert [w["model"] for rule, w in jobs if rule == "attack"] == ["alexnet"]


def test_a_second_run_has_nothing_to_do(study, tiny):
    assert plan(study[0], tiny) == []


def changed(config, key, value):
    """A copy of ``config`` with one key, written with dots, set to ``value``."""
    result = section = copy.deepcopy(config)
    *path, last = key.split(".")
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    return result


EVERYTHING_TRAINED = {"pretrain", "extract", "quantize", "attack", "extract_adversarial", "evaluate", "evaluate_clean", "table1", "all"}
ATTACKED = {"attack", "extract_adversarial", "evaluate", "table1", "all"}


@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        ("attacks.aod.iterations", 7, ATTACKED),
        ("attacks.basic.feature", "raw", ATTACKED),
        ("quantizer.iterations", 3, {"quantize", "attack", "extract_adversarial", "evaluate", "evaluate_clean", "table1", "all"}),
        ("training.epochs", 3, EVERYTHING_TRAINED),
        ("models.vgg16.training", {"crop": 1}, EVERYTHING_TRAINED),
        ("threads.pretrain", 2, EVERYTHING_TRAINED),
        ("threads.attack", 2, EVERYTHING_TRAINED - {"pretrain"}),
        ("bits", [16, 24], {"quantize", *ATTACKED, "evaluate_clean"}),
        ("datasets.synthetic.split_seed", 1, EVERYTHING_TRAINED | {"prepare"}),
        ("datasets.synthetic.sha256", "0" * 64, EVERYTHING_TRAINED | {"prepare", "fetch"}),
    ],
)
def test_a_changed_key_makes_stale_what_depends_on_it(study, tiny, key, value, rules):
    jobs = plan(study[0], changed(tiny, key, value))
    assert {rule for rule, _ in jobs} == rules


def test_only_the_changed_attack_and_model_are_done_again(study, tiny):
    jobs = plan(study[0], changed(tiny, "attacks.aod.iterations", 7))
    assert {w["attack"] for rule, w in jobs if rule in ("attack", "extract_adversarial", "evaluate")} == {"aod"}
    jobs = plan(study[0], changed(tiny, "models.vgg16.training", {"crop": 1}))
    assert {w["model"] for rule, w in jobs if rule not in ("table1", "all")} == {"vgg16"}


def test_stating_a_default_makes_nothing_stale(study, tiny):
    defaults = parse_study(tiny).model_dump()
    for key in ("training", "quantizer", "threads", "bits", "seeds", "attacks", "models", "datasets"):
        assert plan(study[0], tiny | {key: defaults[key]}) == [], key


def test_another_order_of_attacks_or_models_makes_the_table_anew(study, tiny):
    for key in ("attacks", "models"):
        turned = tiny | {key: dict(reversed(tiny[key].items()))}
        assert [rule for rule, _ in plan(study[0], turned)] == ["table1", "all"]


def test_another_source_matters_only_where_the_hash_does_not_pin_the_content(tmp_path, tiny):
    """Fashion-MNIST has one known content; CIFAR-10 has, once the config names its hash."""

    def settings(name, **values):
        jobs = dry_run(tmp_path, tiny | {"datasets": {name: values}}, f"data/{name}.h5")[1].dag.jobs
        return next(job.params.settings for job in jobs if job.rule.name == "fetch")

    for name, values, matters in (("fashion_mnist", {}, False), ("cifar10", {"sha256": "0" * 64}, False), ("cifar10", {}, True)):
        assert (settings(name, **values, source="here") != settings(name, **values, source="there")) == matters


def test_an_added_attack_runs_alone(study, tiny):
    jobs = plan(study[0], changed(tiny, "attacks.strong", {"loss": "apd", "iterations": 20}))
    assert Counter(rule for rule, _ in jobs) == {"attack": 2, "extract_adversarial": 2, "evaluate": 2, "table1": 1, "all": 1}
    assert {w["attack"] for rule, w in jobs if rule == "attack"} == {"strong"}


def test_touching_code_makes_nothing_stale(study, tiny):
    for path in [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("rules/*.smk"), ROOT / "Snakefile"]:
        path.touch()
    assert plan(study[0], tiny) == []


def test_changed_code_makes_stale_what_it_made(study, tiny, monkeypatch):
    """The tables' module is used by table1 alone; retrieval by the evaluation, and by the tables through it."""
    original = Path.read_text

    def edited(name, text="edited = 1"):
        monkeypatch.setattr(Path, "read_text", lambda path, **options: original(path, **options) + f"\n{text}" * (path.name == name))
        return {rule for rule, _ in plan(study[0], tiny)}

    assert edited("tables.py") == {"table1", "all"}
    assert edited("retrieval.py") == {"evaluate", "evaluate_clean", "table1", "all"}
    assert edited("training.py") == EVERYTHING_TRAINED
    assert edited("attacks.py") == ATTACKED
    assert edited("training.py", "# a remark") == set()


def test_every_rule_states_what_it_needs(tmp_path, tiny):
    """Log, benchmark, message, environment, memory, run time, and its settings under one name."""
    rules = [rule for rule in dry_run(tmp_path, tiny)[1].rules if rule.script]
    assert len(rules) == 10
    for rule in rules:
        assert rule.log and rule.benchmark and rule.message and rule.conda_env, rule.name
        assert {"mem_mb", "runtime"} <= set(rule.resources), rule.name
        assert list(rule.params.keys()) == ["settings"], rule.name
