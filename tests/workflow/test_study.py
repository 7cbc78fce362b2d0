"""The tiny study from generated images to Table 1, as a user runs it."""

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from pqag.audit import diff
from pqag.job import records
from pqag.show import tables

from .conftest import ROOT, mean_average_precision, snakemake


def rows(folder, name="table1.csv"):
    with (folder / "results/tiny/tables" / name).open() as file:
        return list(csv.DictReader(file))


def test_a_table_that_was_deleted_is_made_again_by_its_name(study, tmp_path):
    shutil.copytree(study[0], tmp_path, dirs_exist_ok=True, symlinks=True)
    table = tmp_path / "results/tiny/tables/table3.csv"
    before = table.read_bytes()
    table.unlink()
    done = snakemake(tmp_path, "table3", "--configfile", tmp_path / "config.yaml", "--cores", 2)
    assert done.returncode == 0 and table.read_bytes() == before, done.stdout + done.stderr


def test_table_has_a_row_a_cell_networks_learn_and_attacks_hurt(study):
    table = rows(study[0])
    assert list(table[0]) == tables.COLUMNS
    keys = {(r["source_model"], r["target_model"], r["source_bits"], r["distance"], r["attack"]) for r in table}
    attacks = ("clean", "basic", "apd", "aod")
    assert keys == {(model, model, "16", kind, a) for model in ("alexnet", "vgg16") for kind in ("SDC", "ADC") for a in attacks}
    for row in table:
        low, middle, high = (float(row[k]) for k in ("map_worst", "map", "map_best"))
        assert 0 < low <= middle + 1e-9 and middle <= high + 1e-9 and high <= 100
        assert float(row["ci_low"]) <= middle <= float(row["ci_high"])
        assert (row["queries"], row["seeds"]) == ("60", "1")
    value = {(r["source_model"], r["distance"], r["attack"]): float(r["map"]) for r in rows(study[0])}
    for model in ("alexnet", "vgg16"):
        for distance in ("SDC", "ADC"):
            assert value[model, distance, "clean"] > 60
            for attack in ("basic", "apd", "aod"):
                assert value[model, distance, attack] < value[model, distance, "clean"] - 5


def test_a_cell_recomputed_from_the_stored_images(study):
    """Adversarial image to mAP by a plain loop over the ranking: what the table says of APD by ADC on vgg16."""
    import torch

    from pqag import checkpoints

    victim = study[0] / "results/tiny/synthetic/vgg16-pretrained/seed0"
    with h5py.File(victim / "16bits/adversarial/apd.h5") as file:
        images, labels = file["query/images"][()], file["query/labels"][()].argmax(1)
    with h5py.File(victim / "16bits/codebook.h5") as file:
        codewords, codes = file["codewords"][()], file["codes"][()]
    with h5py.File(victim / "features/database.h5") as file:
        database_labels = file["labels"][()].argmax(1)
    with torch.no_grad():
        z = checkpoints.load_network(victim / "weights.pt").features(torch.from_numpy(images) / 255).numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    items = np.concatenate([codewords[m][codes[:, m]] for m in range(4)], axis=1)
    found = mean_average_precision(z, items, labels, database_labels)
    row = next(r for r in rows(study[0]) if (r["source_model"], r["distance"], r["attack"]) == ("vgg16", "ADC", "apd"))
    assert float(row["map_worst"]) - 0.01 <= found <= float(row["map_best"]) + 0.01


def test_stored_queries_are_near_the_clean_ones_and_training_has_a_history(study):
    folder = study[0] / "results/tiny/synthetic"
    with h5py.File(folder / "images.h5") as file:
        clean, ids = file["query/images"][()].astype(int), file["query/ids"][()]
        assert (file.attrs["title"], len(file["train/ids"]), len(file["database/ids"])) == ("Synthetic patterns", 1000, 300)
    for attack in ("basic", "apd", "aod"):
        with h5py.File(folder / f"alexnet-pretrained/seed0/16bits/adversarial/{attack}.h5") as file:
            assert np.array_equal(file["query/ids"][()], ids)
            assert 0 < np.abs(file["query/images"][()] - clean).max() <= 8
        health = json.loads((folder / f"alexnet-pretrained/seed0/16bits/adversarial/{attack}.health.json").read_text())
        assert len(health["loss"]) == 6
    metrics = json.loads((study[0] / "results/tiny/synthetic/vgg16-pretrained/seed0/16bits/metrics/clean.json").read_text())
    assert {"map", "ci_low, ci_high", "SDC", "ADC", "relevant"} <= set(metrics["definitions"])
    assert len(metrics["ADC"]["precision"]) == len(metrics["recall"]) == 100

    history = list(csv.DictReader((study[0] / "results/tiny/synthetic/vgg16-pretrained/seed0/training.csv").open()))
    assert [row["epoch"] for row in history] == ["0", "1"]
    assert not (study[0] / "results/tiny/synthetic/vgg16-pretrained/seed0/unfinished.pt").exists()


def test_what_a_person_sees(table1):
    _, done = table1
    lines = done.stderr.splitlines()
    jobs = int(re.search(r"^(\d+) jobs to do$", done.stderr, re.MULTILINE)[1])
    assert any(re.fullmatch(rf"\[\d+/{jobs} done, [\d:]+\] Fetching the images of synthetic", line) for line in lines)
    assert sum(line.startswith("[") for line in lines) == jobs
    assert len(lines) < jobs + 5, "one line a job, and no walls of text"
    assert "Traceback" not in done.stderr
    assert "SDC Clean" in done.stdout
    assert done.stdout.rstrip().endswith("Files: results/tiny/tables/")


def test_a_failing_job_says_why_and_where(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "study: bad\ndatasets: {cifar10: {source: nowhere}}\nmodels: {vgg16: {width: 0.125}}\nattacks: {aod: {loss: aod}}\n"
    )
    done = snakemake(tmp_path, "--configfile", tmp_path / "bad.yaml", "--cores", 1, "all")
    assert done.returncode == 1
    assert "nowhere: there is no such file or folder" in done.stderr
    assert "log: results/bad/logs/fetch/cifar10.log" in done.stderr
    assert len(done.stderr.splitlines()) < 8
    assert not (tmp_path / "data/cifar10.h5").exists()


def test_a_second_start_is_refused_while_the_first_lives(tmp_path):
    """And the locks that a killed Snakemake left are in nobody's way."""
    command = ["--configfile", ROOT / "config/tiny.yaml", "--cores", 1, "--", "data/synthetic.h5"]
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.output.lock").write_text("data/synthetic.h5\n")
    with (tmp_path / ".snakemake/running").open("w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        done = snakemake(tmp_path, *command)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "Another run is going on in this folder; wait for it, or stop it, first."
        assert not (tmp_path / "data").exists()
    assert snakemake(tmp_path, *command).returncode == 0


@pytest.mark.slow
def test_another_clone_with_other_cores_time_zone_and_locale_gives_identical_files(table1, tmp_path):
    clone = tmp_path / "else where"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, clone / name)
    shutil.copyfile(table1[0] / "config.yaml", clone / "config.yaml")
    environment = os.environ | {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "C"}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "all"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    compared = set()
    for path in sorted((table1[0] / "results").rglob("*")):
        telling_time = (
            path.name.endswith(records.SUFFIX) or path.name in ("MANIFEST.sha256", "report.zip") or {"logs", "benchmarks"} & set(path.parts)
        )
        if path.is_file() and not telling_time:
            twin = clone / path.relative_to(table1[0])
            assert path.read_bytes() == twin.read_bytes(), path.name
            compared.add(path.name)
    results = {"images.h5", "weights.pt", "training.csv", "codebook.h5", "aod.h5", "clean.json", "table1.csv", "table1.tex", "study.json"}
    assert results < compared
    told = diff.differences(Path(table1[0], "results/tiny"), clone / "results/tiny")
    assert [line for line in told if not line.startswith("note: ")] == []


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_in_the_same_bits(tmp_path, tiny):
    """SIGKILL of Snakemake and its job in mid-training; the second start picks up the checkpoint of the last whole epoch."""
    tiny["models"] = {"vgg16": {"width": 0.125, "training": {"epochs": 8}}}
    del tiny["figures"]  # which name another model
    weights = "results/tiny/synthetic/vgg16-pretrained/seed0/weights.pt"
    folders = [tmp_path / name for name in ("undisturbed", "killed")]
    for folder in folders:
        folder.mkdir()
        (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    undisturbed, killed = folders
    assert snakemake(undisturbed, "--cores", 1, "--configfile", undisturbed / "tiny.yaml", "--", weights).returncode == 0

    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", killed]
    command += ["--cores", 1, "--configfile", killed / "tiny.yaml", "--", weights]
    run = subprocess.Popen(list(map(str, command)), cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    unfinished = (killed / weights).with_name("unfinished.pt")
    while not unfinished.exists():
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (killed / weights).exists()

    again = snakemake(killed, "--cores", 1, "--configfile", killed / "tiny.yaml", "--", weights)
    assert again.returncode == 0, again.stderr
    log = (killed / "results/tiny/logs/pretrain/synthetic/vgg16/seed0.log").read_text()
    assert re.search(r"[1-7] of 8 epochs done before", log), log
    assert (killed / weights).read_bytes() == (undisturbed / weights).read_bytes()
    assert not unfinished.exists()


def test_keys_of_the_command_line_are_written_down(tmp_path):
    config = ["--configfile", ROOT / "config/tiny.yaml", "--cores", 1]
    assert snakemake(tmp_path, *config, "--config", "device=cpu", "--", "results/tiny/study.json").returncode == 0
    study = json.loads((tmp_path / "results/tiny/study.json").read_text())
    assert (study["device"], study["overrides"]) == ("cpu", ["device"])
    assert snakemake(tmp_path, *config, "--", "results/tiny/study.json").returncode == 0
    assert "overrides" not in json.loads((tmp_path / "results/tiny/study.json").read_text())
