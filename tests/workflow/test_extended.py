"""config/extended.yaml at the size of the tiny study: two attacks and a quantizer beyond the paper's, in Tables 1 and 4."""

import csv

import h5py
import numpy as np
import pytest
import yaml

from pqag import checkpoints, codebooks, files, networks, quantizer, storage
from pqag.job import records

from ..conftest import run_study
from .conftest import ROOT, mean_average_precision, plan, snakemake, write_config

pytestmark = pytest.mark.slow  # a whole study


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    tiny = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    study = yaml.safe_load((ROOT / "config/extended.yaml").read_text()) | {
        key: tiny[key] for key in ("datasets", "bits", "training", "threads")
    }
    study["models"]["alexnet"]["width"] = 0.0625  # features of 256 numbers: OPQ wants as many database images
    write_config(folder / "config.yaml", study)
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, study


def maps(folder, number, study="extended"):
    with (folder / f"results/{study}/tables/table{number}.csv").open() as file:
        return {(r["source_model"], r["target_model"], r["attack"], r["distance"]): float(r["map"]) for r in csv.DictReader(file)}


def test_both_victims_have_a_row_for_every_attack(extended):
    table = maps(extended[0], 1)
    names = ("alexnet", "alexnet_opq")
    assert {(model, attack) for _, model, attack, _ in table} == {
        (model, attack) for model in names for attack in ("clean", "aod", "aod_fgsm", "aod_momentum")
    }
    for (_, model, attack, distance), value in table.items():
        assert attack == "clean" or value < table[model, model, "clean", distance]
    for name in names:  # a single step does less harm than five
        assert table[name, name, "aod", "SDC"] < table[name, name, "aod_fgsm", "SDC"]
    assert len(maps(extended[0], 4)) == 2 * (2 + 4)


def test_the_caption_says_what_is_not_the_papers(extended):
    text = " ".join((extended[0] / "results/extended/tables/table1.txt").read_text().split())
    assert "alexnet_opq: network AlexNet, quantizer OPQ." in text
    assert "aod_fgsm: pixels within 8 grey levels, 1 step of 8 by FGSM." in text
    assert "aod_momentum: pixels within 8 grey levels, 5 steps of 2.55 by momentum PGD." in text


def test_a_cell_of_the_rotated_victim_recomputed_in_the_space_of_the_features(extended):
    """ADC of the clean queries by OPQ, from the network's features and the reconstructions turned back, by a plain loop."""
    import torch

    folder = extended[0] / "results/extended/synthetic"
    victim = folder / "alexnet_opq-pretrained/seed0"
    with h5py.File(folder / "images.h5") as file:
        images, labels, gallery = file["query/images"][()], file["query/labels"][()].argmax(1), file["database/labels"][()].argmax(1)
    with h5py.File(victim / "16bits/codebook.h5") as file:
        codewords, codes, rotation = file["codewords"][()], file["codes"][()], file["rotation"][()]
    with torch.no_grad():
        z = checkpoints.load_network(victim / "weights.pt").features(torch.from_numpy(images) / 255).numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    items = np.concatenate([codewords[m][codes[:, m]] for m in range(4)], axis=1) @ rotation
    found = mean_average_precision(z, items, labels, gallery)
    with (extended[0] / "results/extended/tables/table1.csv").open() as file:
        [row] = [r for r in csv.DictReader(file) if (r["target_model"], r["attack"], r["distance"]) == ("alexnet_opq", "clean", "ADC")]
    assert float(row["map_worst"]) - 0.01 <= found <= float(row["map_best"]) + 0.01


def test_the_second_quantizer_costs_no_second_training(tmp_path, extended):
    assert [wildcards["model"] for rule, wildcards in plan(tmp_path, extended[1]) if rule == "pretrain"] == ["alexnet"]


NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 10)
    def features(self, images):
        return self.layer(images.flatten(1))
"""


def test_weights_from_files_are_taken_over_and_what_does_not_fit_is_told(tmp_path, tiny):
    import torch

    torch.save(networks.build("alexnet", 10, 0.0625).state_dict(), tmp_path / "right.pt")
    torch.save(networks.build("alexnet", 10, 0.125).state_dict(), tmp_path / "wide.pt")
    (tmp_path / "net.py").write_text(NETWORK)
    narrow = {"network": "alexnet", "width": 0.0625}
    models = {"fine": narrow | {"weights": "right.pt"}, "wide": narrow | {"weights": "wide.pt"}, "ten": {"network": "net:Net"}}
    write_config(tmp_path / "config.yaml", tiny | {"models": models, "figures": {"models": []}})
    folder = "results/tiny/synthetic/{}-pretrained/seed0"
    targets = [f"{folder.format(name)}/weights.pt" for name in ("fine", "wide")] + [f"{folder.format('ten')}/16bits/codebook.h5"]
    done = snakemake(tmp_path, "--configfile", tmp_path / "config.yaml", "--cores", 2, "--keep-going", "--", *targets)
    assert done.returncode == 1
    assert "adopt failed: wide.pt does not fit alexnet of width 0.0625: " in done.stderr and " in the file and " in done.stderr
    assert "quantize failed: quantizer.subspaces: 4 does not divide the 10 numbers of a feature of ten" in done.stderr
    record = records.read(tmp_path / folder.format("fine") / "weights.prov.json")
    assert records.dependencies(record, "raw") == {"right.pt": files.sha256(tmp_path / "right.pt")}
    fine, ten = ((tmp_path / folder.format(name) / "training.csv").read_text().splitlines() for name in ("fine", "ten"))
    assert fine[0] == "test_accuracy" and 0 <= float(fine[1]) < 0.5, "it was never trained"
    assert ten == ["test_accuracy"], "it is no classifier"


def test_who_lends_weights_need_not_stand_in_a_table(tmp_path, tiny):
    """Its weights belong to the study all the same: a run verifies them, and makes them again if they were deleted."""
    models = {"alexnet": {"width": 0.0625}, "other": {"like": "alexnet", "quantizer": {"iterations": 3}}}
    shown = {"tables": {"table1": {"models": ["other"]}, "table4": {"models": []}}, "figures": {"models": []}}
    shown |= {"attacks": {"aod": {"loss": "aod", "iterations": 1}}, "training": {"epochs": 1, "batch_size": 100}}
    config = tiny | {"models": models} | shown
    run_study(tmp_path, config)
    weights = "results/tiny/synthetic/alexnet-pretrained/seed0/weights.pt"
    assert weights in (tmp_path / "results/tiny/MANIFEST.sha256").read_text()
    (tmp_path / weights).unlink()
    assert "pretrain" in {rule for rule, _ in plan(tmp_path, config)}


POOLED = """
import torch
from torch import nn


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64))
        self.head = nn.Linear(64, 10)

    def features(self, images):
        return self.layers(2 * images - 1)

    def forward(self, images):
        return self.head(self.features(images).relu())


def make():
    return Pooled()
"""


def test_a_network_of_the_user_is_trained_here(tmp_path, tiny):
    """Its record names the file; three epochs classify the generated images, of which chance would be a tenth. Its codebook is fitted to
    the training images, and encodes the database."""
    (tmp_path / "mine.py").write_text(POOLED)
    models = {"pooled": {"network": "mine:make", "training": {"epochs": 3}}}
    shown = {"tables": {"table3": {"models": []}, "table4": {"models": []}}, "figures": {"models": []}}
    study = tiny | {"models": models, "attacks": {"apd": {"loss": "apd"}}, "quantizer": {"fitted_to": "train"}} | shown
    run_study(tmp_path, study)
    folder = tmp_path / "results/tiny/synthetic/pooled-pretrained/seed0"
    epochs = list(csv.DictReader((folder / "training.csv").open()))
    assert len(epochs) == 3 and float(epochs[-1]["test_accuracy"]) > 0.5
    raw = records.dependencies(records.read(folder / "weights.prov.json"), "raw")
    assert raw == {"mine:make": files.sha256(tmp_path / "mine.py")}
    codebook = codebooks.read(folder / "16bits/codebook.h5")
    [learned] = storage.read_hdf5(folder / "features/train.h5", "features")
    [searched] = storage.read_hdf5(folder / "features/database.h5", "features")
    fit = quantizer.fit(learned, 4, 16, 0, 25)
    assert np.array_equal(codebook.codewords, fit.codewords) and np.array_equal(codebook.codes, quantizer.encode(searched, fit.codewords))
    assert len(learned) == 1000 and len(codebook.codes) == 300
    assert plan(tmp_path, study) == [("all", {})]
    (tmp_path / "mine.py").write_text(POOLED.replace("32, 5", "16, 5").replace("512", "256"))
    assert ("pretrain_own", "pooled") in [(rule, wildcards.get("model")) for rule, wildcards in plan(tmp_path, study)]


def test_readings_are_studies_of_their_own_and_stand_side_by_side(tmp_path, tiny):
    """A reading that changes no training has the network of the study, so its clean mAP is the study's; each is verified by itself."""
    (tmp_path / "mine.py").write_text(POOLED)
    readings = {
        "default": {"title": "The default", "change": {}},
        "hot": {"title": "Temperature 10", "change": {"attacks": {"aod": {"temperature": 10}}}},
        "mine": {"title": "Mine", "change": {"models": {"victim": {"network": "mine:make", "width": 1, "training": {"epochs": 2}}}}},
    }
    shown = {"tables": {"table3": {"models": []}, "table4": {"models": []}}, "figures": {"models": []}, "readings": readings}
    study = (
        tiny | {"models": {"victim": {"network": "alexnet", "width": 0.0625}}, "attacks": {"aod": {"loss": "aod"}}, "bits": [16]} | shown
    )
    run_study(tmp_path, study)
    assert plan(tmp_path, study) == [("all", {})]
    with (tmp_path / "results/tiny/ambiguity.csv").open() as file:
        cells = {(row["reading"], row["distance"], row["attack"]): row["map"] for row in csv.DictReader(file)}
    table = maps(tmp_path, 1, "tiny")
    for distance in ("SDC", "ADC"):
        assert {cells[reading, distance, "clean"] for reading in ("default", "hot")} == {str(table["victim", "victim", "clean", distance])}
        assert (
            float(cells["default", distance, "aod"]) == table["victim", "victim", "aod", distance] != float(cells["hot", distance, "aod"])
        )
    found = files.read_json(tmp_path / "results/tiny/readings/mine.json")
    assert found["manifest"] == files.sha256(tmp_path / "results/tiny_mine/MANIFEST.sha256")
    victim = "synthetic/victim-pretrained/seed0"
    assert len(found["health"][f"{victim}/16bits"]["aod"]["loss"]) == 6 and 1 < found["codes"][f"{victim}/16bits"]["peak"]["aod"] < 16
    done = snakemake(tmp_path, "docs/results/tiny", "--configfile", tmp_path / "config.yaml", "--cores", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "docs/results/tiny/README.md").read_text()
    assert (tmp_path / "results/tiny/ambiguity.md").read_text().rstrip().replace("\n## ", "\n### ") in page and "## Figures" not in page
    assert (tmp_path / "docs/results/tiny/ambiguity.png").exists()
    changed = readings | {"hot": {"title": "Temperature 5", "change": {"attacks": {"aod": {"temperature": 5}}}}}
    again = [(rule, wildcards.get("reading")) for rule, wildcards in plan(tmp_path, study | {"readings": changed})]
    assert [job for job in again if job[0] in ("reading", "ambiguity")] == [("reading", "hot"), ("ambiguity", None)]
