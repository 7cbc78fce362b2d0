"""`make demo`: what it says in the README, from what ships with the project."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from pqag import files
from pqag.job import records
from pqag.user_code import ZOO

from .conftest import ROOT, snakemake, write_config

IMAGES = ROOT / "demo/fashion_mnist"


def test_the_images_are_as_their_page_says():
    paths = list(IMAGES.rglob("*.png"))
    assert [len(list((IMAGES / part).rglob("*.png"))) for part in ("train", "test")] == [100, 964]
    assert sum(path.stat().st_size for path in (ROOT / "demo").rglob("*") if path.is_file()) < 1_000_000
    for path in paths[::50]:
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (32, 32) and not pixels[:2].any() and not pixels[:, -2:].any() and pixels.any()
    assert "MIT License" in (ROOT / "demo/README.md").read_text()


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    done = snakemake(tmp_path, "--configfile", ROOT / "config/demo.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Gallery: results/demo/gallery.html" in done.stdout
    shown = (ROOT / "README.md").read_text().split("fashion_mnist_small")[1].split("```")[0]
    for attack, value in re.findall(r"(Clean|Basic|APD|AOD) +([0-9.]+)", shown):
        [[printed]] = [re.findall(rf"{attack} +([0-9.]+)\n", done.stdout)[:1]]
        assert float(printed) == pytest.approx(float(value), abs=2), f"{attack}: other processors round otherwise"
    record = records.read(tmp_path / "results/demo/fashion_mnist_small/resnet18-pretrained/seed0/weights.prov.json")
    card = ZOO / "fashion_resnet18/card.json"
    of_weights = json.loads(card.read_text())["files"]["weights.safetensors"]
    expected = {"zoo:fashion_resnet18": of_weights, "zoo:fashion_resnet18/card.json": files.sha256(card)}
    assert records.dependencies(record, "raw") == expected

    # A network of another kind reads the same file, which does not fit it.
    study = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    study["models"] = {"other": {"network": "torchvision:resnet18", "weights": "zoo:fashion_resnet18"}}
    write_config(tmp_path / "other.yaml", study)
    target = "results/demo/fashion_mnist_small/other-pretrained/seed0/weights.pt"
    done = snakemake(tmp_path, "--configfile", tmp_path / "other.yaml", "--cores", 1, target)
    assert f"{card.with_name('weights.safetensors')} does not fit torchvision:resnet18: " in done.stderr
