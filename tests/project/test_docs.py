"""The pages on attacks, quantizers and networks of one's own, followed to the letter."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from pqag import codebooks, quantizer, storage
from pqag.job import records

from ..workflow.conftest import ROOT, mean_average_precision, plan, snakemake, write_config

#: The model that is trained with its codebook by a method of the user's.
TRAINED = "alexnet_pairs"
PAGES = ("attack", "quantizer", "checkpoint")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE | re.DOTALL)


pytestmark = pytest.mark.slow  # a whole study


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A folder in which somebody did what all three pages say, in one study; its configuration, and what the run printed."""
    folder = tmp_path_factory.mktemp("docs")
    study = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    study |= {"models": {}, "attacks": {}, "figures": {"models": ["pooled"], "sweep": {"queries": 5, "epsilon": [8], "iterations": [1]}}}
    study |= {"training": {"epochs": 1}, "tables": {"table3": {"models": []}, "table4": {"models": []}}}
    for page in PAGES:
        for code in blocks(page, "python"):
            path = folder / re.match("# (.*)\n", code)[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
        for text in blocks(page, "yaml"):
            for section, entries in yaml.safe_load(text).items():
                study[section] |= entries
    write_config(folder / "config.yaml", study)
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, study, done


def test_every_entry_is_in_table_1(followed):
    folder, study, done = followed
    with (folder / "results/tiny/tables/table1.csv").open() as file:
        cells = {(row["target_model"], row["attack"]): float(row["map"]) for row in csv.DictReader(file)}
    assert set(cells) == {(model, attack) for model in study["models"] if model != TRAINED for attack in ("clean", *study["attacks"])}
    with (folder / "results/tiny/tables/table2.csv").open() as file:
        assert {row["target_model"] for row in csv.DictReader(file)} == {TRAINED}
    for model in ("alexnet", "alexnet_balanced"):
        assert cells[model, "aod_shrinking"] < cells[model, "clean"]
    for name in (
        "pooled",
        "alexnet_balanced",
        "aod_shrinking",
        "towards_second",
        "mine.quantizer:fit",
        "mine.network:make",
        "mine.joint:pairs",
    ):
        assert name in " ".join(done.stdout.split()), name


def test_the_metrics_of_a_targeted_attack_have_its_t_map(followed):
    """ADC of the queries that are not of the target's class, with that class as theirs, by a plain loop."""
    folder = followed[0] / "results/tiny/synthetic/alexnet-pretrained/seed0"
    metrics = json.loads((folder / "16bits/metrics/to_pattern_3.alexnet-pretrained-16bits.json").read_text())
    queries, labels = storage.read_hdf5(folder / "16bits/adversarial/to_pattern_3.h5", "query/features", "query/labels")
    [gallery] = storage.read_hdf5(folder / "features/database.h5", "labels")
    codebook, others = codebooks.read(folder / "16bits/codebook.h5"), labels.argmax(1) != 3
    items = quantizer.decode(codebook.codes, codebook.codewords)
    wanted = mean_average_precision(queries[others], items, np.full(others.sum(), 3), gallery.argmax(1))
    target, clean = metrics["target"], json.loads((folder / "16bits/metrics/clean.json").read_text())
    assert 100 * target["ADC"]["map"] == pytest.approx(wanted, abs=0.5), "ties are in some order here"
    assert target["queries_without_relevant"] == (~others).sum() and "target" not in clean
    assert metrics["ADC"]["map"] < clean["ADC"]["map"] and target["ADC"]["map"] > 0.2


def test_the_other_quantizer_has_the_same_weights(followed):
    folder = followed[0] / "results/tiny/synthetic"
    one, other = (folder / f"{name}-pretrained/seed0" for name in ("alexnet", "alexnet_balanced"))
    assert (one / "weights.pt").read_bytes() == (other / "weights.pt").read_bytes()
    assert (one / "training.csv").read_bytes() == (other / "training.csv").read_bytes()
    assert (one / "16bits/codebook.h5").read_bytes() != (other / "16bits/codebook.h5").read_bytes()


def test_the_sha256_of_every_file_is_recorded(followed):
    folder, study, _ = followed
    brought = json.loads((folder / "results/tiny/study.json").read_text())["brought"]
    assert set(brought) == {
        "mine.attack:shrinking_steps",
        "mine.attack:second_best",
        "mine.quantizer:fit",
        "mine.network:make",
        "mine.joint:pairs",
    }
    record = records.read(folder / "results/tiny/synthetic/pooled-pretrained/seed0/weights.prov.json")
    assert records.dependencies(record, "raw") == {"mine.network:make": brought["mine.network:make"]}
    assert records.settings_of(record)["brought"] == {"mine.network:make": brought["mine.network:make"]}


MADE = {"attack": ("attack", {"alexnet", "alexnet_balanced", "pooled", TRAINED}), "quantizer": ("quantize", {"alexnet_balanced"})}
MADE |= {"network": ("adopt", {"pooled"}), "joint": ("train_joint", {TRAINED})}


def test_an_edited_file_makes_stale_what_it_made_and_neither_planning_nor_the_audit_runs_it(followed):
    folder, study, _ = followed
    assert plan(folder, study) == [("all", {})]
    for name, (rule, models) in MADE.items():
        path = folder / f"mine/{name}.py"
        before = path.read_text()
        path.write_text(f"open({str(folder / 'ran')!r}, 'w')\n{before}")
        try:
            jobs = plan(folder, study)
            done = subprocess.run([sys.executable, ROOT / "scripts/audit.py", "verify", "tiny"], cwd=folder, capture_output=True, text=True)
        finally:
            path.write_text(before)
        assert {wildcards["model"] for made, wildcards in jobs if made == rule} == models
        assert not {"pretrain", "extract" if name == "quantizer" else ""} & {made for made, _ in jobs}
        assert done.returncode == 0, done.stdout + done.stderr
        assert not (folder / "ran").exists()


def test_a_file_that_is_missing_is_told_before_anything_runs(tmp_path, followed):
    write_config(tmp_path / "config.yaml", followed[1])
    done = snakemake(tmp_path, "--configfile", tmp_path / "config.yaml", "--cores", 1, "all")
    assert done.returncode == 1 and not (tmp_path / "results").exists()
    assert "attacks.aod_shrinking.method: mine/attack.py, the file of mine.attack:shrinking_steps, does not exist" in done.stderr
