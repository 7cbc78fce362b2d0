"""The comparisons of training and of the attack still run; their figures are no test."""

import argparse
import csv
import sys
from unittest.mock import MagicMock

import h5py
import numpy as np
import pytest

from ..workflow.conftest import ROOT

sys.path.append(str(ROOT / "scripts/tools"))
import bench_training  # noqa: E402


def test_both_recipes_train_the_same_network_on_the_same_images(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for number, part in enumerate(("train", "database", "query")):
            file[f"{part}/images"] = random.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
            file[f"{part}/labels"] = np.eye(10, dtype=np.uint8)[np.arange(60) % 10]
            file[f"{part}/ids"] = np.arange(60) + 60 * number
    monkeypatch.setattr(bench_training, "PAGE", tmp_path / "training.csv")
    small = {"networks": ["resnet18"], "images_file": tmp_path / "images.h5", "images": 50, "longer": 2, "seeds": 1, "threads": 1}
    bench_training.main(argparse.Namespace(**small, precision="float32"))
    rows = list(csv.DictReader((tmp_path / "training.csv").open()))
    assert [(row["recipe"], row["epochs"]) for row in rows] == [("pqag", "1"), ("torchvision", "2")]
    for row in rows:
        seconds, accuracy = float(row["seconds"]), float(row["accuracy"])
        assert float(row["ms_per_image"]) * 50 * int(row["epochs"]) == pytest.approx(1000 * seconds)
        assert 120 * accuracy == pytest.approx(round(120 * accuracy), abs=1e-4), "a share of the 120 images that are held out"
    assert "resnet18, n = 1, median and range: torchvision's recipe took" in capsys.readouterr().out


@pytest.mark.slow
def test_plain_peers_of_the_attack_make_the_same_images(monkeypatch):
    # foolbox is installed for `make bench` alone.
    for module in ("foolbox", "eagerpy"):
        monkeypatch.setitem(sys.modules, module, MagicMock())
    import bench_attack

    peers = {peer: contender for peer, contender in bench_attack.PEERS.items() if peer != "foolbox"}
    monkeypatch.setattr(bench_attack, "PEERS", peers)
    monkeypatch.setattr(bench_attack, "VICTIMS", {"resnet18": 0.125})
    monkeypatch.setattr(bench_attack, "QUERIES", 100)
    measured = list(bench_attack.measure(0))  # which compares the images before it measures
    assert [(victim, peer) for victim, peer, _, _ in measured] == [("resnet18", peer) for peer in (*peers, *bench_attack.LIMITS)]
    assert all(len(own) == len(theirs) == 5 for _, _, own, theirs in measured)
