"""config/attacks.yaml with a few of its attacks at the size of the tiny study: Table 6, and what is trained on training images."""

import csv
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import yaml

from pqag import attacks, checkpoints, codebooks, files, storage, trained
from pqag.job import records

from .conftest import ROOT, plan, snakemake, write_config

pytestmark = pytest.mark.slow  # a whole study
MADE = "results/attacks/synthetic/pq-pretrained/seed0/16bits/adversarial"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    tiny, study = (yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()) for name in ("tiny", "attacks"))
    study |= {key: tiny[key] for key in ("datasets", "training", "threads")} | {"joint": {"epochs": 1}}
    for model in ("pq", "vgg11"):
        study["models"][model]["training"] = {"epochs": 2}
    chosen = ("basic", "basic_from_clean", "universal", "uaa_gan", "square_by_ids", "cw_l2")
    study["attacks"] = {name: study["attacks"][name] for name in chosen}
    study["attacks"]["uaa_gan"]["iterations"] = 1
    study["shards"] = {"attack": 2}
    study["attacks"]["square_by_ids"] |= {"budget": 30, "queries": 25, "items": 50}
    study["attacks"]["cw_l2"] |= {"queries": 25}
    write_config(folder / "config.yaml", study)
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, study


def test_table_6_has_every_attack_on_both_victims_and_on_another_network(made):
    folder, study = made
    with (folder / "results/attacks/tables/table6.csv").open() as file:
        rows = {(one["source_model"], one["target_model"], one["distance"], one["attack"]): one for one in csv.DictReader(file)}
    pairs = [(of, on) for of in ("pq", "csq") for on in (of, "vgg11")]
    shown = [name for name in study["attacks"] if name != "cw_l2"]
    wanted = {(*pair, distance, attack) for pair in pairs for distance in ("SDC", "ADC") for attack in shown}
    assert set(rows) == wanted | {(one, one, distance, "clean") for one in ("pq", "csq", "vgg11") for distance in ("SDC", "ADC")}
    own = {attack: rows["pq", "pq", "ADC", attack] for attack in shown}
    assert own["basic_from_clean"]["verdict"] == "starved of gradient" and own["basic"]["verdict"] == "sound"
    assert [float(one["passes"]) for one in own.values()] == [15, 15, 1, 1, 30] and own["square_by_ids"]["requests"] == "30.0"
    assert [one["queries"] for one in own.values()] == ["60", "60", "60", "60", "25"]
    assert own["basic_from_clean"]["map"] == rows["pq", "pq", "ADC", "clean"]["map"]
    assert float(own["basic"]["map"]) < float(own["basic_from_clean"]["map"])
    assert (folder / "results/attacks/figures/table6_synthetic.png").exists()
    done = subprocess.run([sys.executable, ROOT / "scripts/audit.py", "verify", "attacks"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_figure_of_smallest_changes_begins_and_ends_with_what_was_scored(made):
    folder, _ = made
    with (folder / "results/attacks/figures/distortion_synthetic.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if (one["model"], one["distance"]) == ("pq", "SDC")]
    clean, attacked = (files.read_json(folder / MADE / f"../metrics/{name}.json") for name in ("clean", "cw_l2.pq-pretrained-16bits"))
    begin = np.mean(clean["SDC"]["average_precision"][:25])
    assert [float(rows[i]["map"]) for i in (0, -1)] == pytest.approx([100 * begin, 100 * attacked["SDC"]["map"]])
    assert len(rows) == 26 and float(rows[-1]["l2_mean"]) > 0 and float(rows[-1]["map"]) < 100 * begin
    health = files.read_json(folder / MADE / "cw_l2.health.json")
    assert health["codes_changed"] == 1 and health["change_max"] > 8


def test_every_query_is_changed_by_what_was_trained_on_training_images(made):
    folder, _ = made
    with h5py.File(folder / MADE / "universal.trained.h5") as file, h5py.File(folder / MADE / "universal.h5") as adversarial:
        change, images = file["change"][()], adversarial["query/images"][()]
    with h5py.File(folder / "results/attacks/synthetic/images.h5") as file:
        queries, chosen = file["query/images"][()], trained.some(len(file["train/images"]), 0)
    assert len(chosen) == 1000 and np.abs(change).max() <= np.float32(8 / 255)
    assert np.array_equal(images, np.clip(queries + np.rint(255 * change).astype(int), 0, 255))
    used = records.dependencies(records.read(folder / MADE / "universal.prov.json"), "input")
    assert used[f"{MADE}/universal.trained.h5"] == files.sha256(folder / MADE / "universal.trained.h5")


def test_a_generator_is_made_of_training_images_alone_and_makes_the_queries(made):
    """Both are what the library makes, bit for bit: the first never receives a query."""
    folder, study = made
    victim = folder / MADE.removesuffix("/adversarial")
    network, codebook = checkpoints.load_network(victim.parent / "weights.pt"), codebooks.read(victim / "codebook.h5")
    images, queries, ids = storage.read_hdf5(folder / "results/attacks/synthetic/images.h5", "train/images", "query/images", "query/ids")
    attack = attacks.Attack("basic", 8, 8, 1, method="uaa_gan", options={"discriminator": False})
    weights, losses = trained.uaa_gan.fit(network, codebook, images[trained.some(len(images), 0)], attack, 0, 32)
    with h5py.File(folder / MADE / "uaa_gan.trained.h5") as file:
        assert file.attrs["loss"].tolist() == losses and len(losses) == 1
        assert all(np.array_equal(file[name], array) for name, array in weights.items())
    attack = replace(attack, changes=trained.uaa_gan.changes(weights, attack, torch.device("cpu")))
    adversarial, features, _ = attacks.attack(network, codebook, queries, ids, attack, 0)
    stored = storage.read_hdf5(folder / MADE / "uaa_gan.h5", "query/images", "query/features", "query/ids")
    assert all(np.array_equal(*pair) for pair in zip(stored, (adversarial, features, ids)))
    used = records.dependencies(records.read(folder / MADE / "uaa_gan.prov.json"), "input")
    assert used[f"{MADE}/uaa_gan.trained.h5"] == files.sha256(folder / MADE / "uaa_gan.trained.h5")
    jobs = plan(folder, study | {"attacks": study["attacks"] | {"uaa_gan": study["attacks"]["uaa_gan"] | {"discriminator": True}}})
    makers = ("attack", "attack_shard", "train_attack")
    assert {(rule, its["attack"]) for rule, its in jobs if rule in makers} == {(maker, "uaa_gan") for maker in makers}


def test_another_loss_trains_it_again_and_no_other_attack(made):
    folder, study = made
    jobs = plan(folder, study | {"attacks": study["attacks"] | {"universal": {"loss": "aod", "method": "universal"}}})
    assert {wildcards["attack"] for rule, wildcards in jobs if rule in ("attack", "train_attack")} == {"universal"}
    assert {"train_attack", "attack", "evaluate", "table"} <= {rule for rule, _ in jobs} and "pretrain" not in {rule for rule, _ in jobs}
