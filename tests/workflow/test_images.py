"""Images of the user through the whole workflow: the example of docs/images.md, NUS-WIDE in its layout, and what a mistake prints."""

import json
import re
import subprocess

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.functional import interpolate

from .conftest import ROOT, plan, snakemake, write_config

PAGE = (ROOT / "docs/images.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]


def photograph(path, colour, rng):
    """A noisy picture around a colour, of a size of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(colour) + rng.normal(0, 30, (*rng.integers(40, 90, 2), 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def birds(tmp_path):
    """A folder with birds/: four classes, 25 training and 20 test images each."""
    rng = np.random.default_rng(0)
    for name, colour in {"jay": (60, 90, 180), "owl": (120, 100, 80), "robin": (180, 80, 60), "a wren": (90, 160, 90)}.items():
        for split, count in (("train", 25), ("test", 20)):
            for number in range(count):
                photograph(tmp_path / "birds" / split / name / f"{number}.{'png' if number % 5 == 0 else 'jpg'}", colour, rng)
    return tmp_path


def record(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_the_example_of_the_page(birds):
    (birds / "birds.yaml").write_text(EXAMPLE)
    done = snakemake(birds, "--configfile", birds / "birds.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my_birds: 20 queries, 60 database images" in " ".join(done.stdout.split())
    with h5py.File(birds / "results/birds/my_birds/images.h5") as file:
        assert [file[f"{part}/images"].shape for part in ("train", "database", "query")] == [(n, 3, 64, 64) for n in (100, 60, 20)]
        assert file.attrs["classes"].tolist() == ["a wren", "jay", "owl", "robin"] and not file.attrs["multilabel"]
    sums = "find train test -type f -exec sha256sum {} + | LC_ALL=C sort -k2 | sha256sum"
    assert sums in PAGE
    digest = subprocess.run(["bash", "-c", sums], cwd=birds / "birds", capture_output=True, text=True, check=True).stdout.split()[0]
    dependencies = record(birds, "data/my_birds.prov.json")["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "birds/*", "digest": {"sha256": digest}} in [{key: one[key] for key in ("name", "digest")} for one in dependencies]


def fetched(folder, study, name, *targets):
    """Run fetch and prepare alone."""
    write_config(folder / "own.yaml", study)
    targets = targets or (f"results/{study['study']}/{name}/images.h5",)
    return snakemake(folder, "--configfile", folder / "own.yaml", "--cores", 2, *targets)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "bird"}, "bird is not a folder; use the folder that contains train/ and test/"),
        ({"database": 61}, "20 queries and 61 database images were requested, but there are 80 test images"),
        ({"sha256": "ab" * 32}, f"but the config says {'ab' * 32}"),
    ],
)
def test_a_mistake_is_one_sentence(birds, change, words):
    study = yaml.safe_load(EXAMPLE)
    study["datasets"]["my_birds"] |= change
    done = fetched(birds, study, "my_birds")
    assert done.returncode == 1 and words in done.stderr
    assert len(done.stderr.splitlines()) < 9 and "Traceback" not in done.stderr


def test_a_target_that_is_no_class_of_the_images_is_refused_when_the_run_is_planned(birds):
    study = yaml.safe_load(EXAMPLE)
    study["attacks"] = {"to_wrens": {"loss": "dhta", "target": {"class": "wren"}}}
    done = fetched(birds, study, "my_birds")
    words = "attacks.to_wrens.target.class: datasets.my_birds has no class 'wren': did you mean a wren? allowed are a wren, jay, owl, robin"
    assert done.returncode == 1 and words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_more_classes_than_centres_are_refused_when_the_run_is_planned(birds):
    for number in range(40):
        photograph(birds / f"birds/train/kind {number}/0.png", (0, 0, 0), np.random.default_rng(number))
    study = yaml.safe_load(EXAMPLE) | {"bits": [16]}
    study["models"] = {"net": {"network": "vgg11", "width": 0.1, "quantizer": {"method": "csq"}}}
    done = fetched(birds, study, "my_birds")
    words = "bits: datasets.my_birds has 44 classes, but csq has 32 centres for 16 bits; allowed are at least 24 bits"
    assert done.returncode == 1 and words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_an_edited_manifest_is_fetched_again_and_an_absent_one_is_not(birds):
    rows = [f"{path.relative_to(birds / 'birds')},{path.parts[-3]},{path.parts[-2]}\n" for path in (birds / "birds").rglob("*.*g")]
    (birds / "birds/list.csv").write_text("".join(["path,split,labels\n", *rows]))
    study = yaml.safe_load(EXAMPLE)
    study["datasets"] = {"my_list": {"kind": "manifest", "source": "birds/list.csv"}}
    done = fetched(birds, study, "my_list", "data/my_list.h5")
    assert done.returncode == 0, done.stderr
    assert plan(birds, study, "data/my_list.h5") == []
    text = (birds / "birds/list.csv").read_text()
    (birds / "birds/list.csv").write_text(text.replace("train,jay", "train,owl", 12))
    assert plan(birds, study, "data/my_list.h5") == [("fetch", {"dataset": "my_list"})]
    (birds / "birds/list.csv").write_text(text)
    assert plan(birds, study, "data/my_list.h5") == []
    (birds / "birds").rename(birds / "elsewhere")
    assert plan(birds, study, "data/my_list.h5") == []


def test_known_images_are_enlarged_and_training_images_held_out(tmp_path):
    """Queries and database are stored as torch enlarges them, to a rounding; training images as they are."""
    study = yaml.safe_load(EXAMPLE) | {"bits": [16]}
    study["datasets"] = {"synthetic": {"database": 50, "queries": 7, "image_size": 48, "validation": True}}
    done = fetched(tmp_path, study, "synthetic")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "data/synthetic.h5") as raw, h5py.File(tmp_path / "results/birds/synthetic/images.h5") as file:
        assert file.attrs["title"] == "Synthetic patterns, enlarged to 48 pixels, training images held out"
        ids = {part: file[f"{part}/ids"][()] for part in ("train", "database", "query")}
        assert sorted(np.concatenate(list(ids.values()))) == list(range(2000))
        np.testing.assert_array_equal(file["train/images"], raw["images"][ids["train"]])
        for part in ("database", "query"):
            wanted = interpolate(torch.from_numpy(raw["images"][ids[part]]).float(), (48, 48), mode="bilinear").numpy()
            assert np.abs(file[f"{part}/images"][()] - wanted).max() < 1.01


def test_classes_without_training_images_are_fetched_for_networks_that_are_not_trained(birds):
    (birds / "birds/train/owl").rename(birds / "birds/train/crow")
    study = yaml.safe_load(EXAMPLE)
    done = fetched(birds, study, "my_birds")
    words = "datasets.my_birds: the class 'owl' has test images, but no training images, so nothing can be trained on this data set"
    assert done.returncode == 1 and words in done.stderr and "models.resnet18 would be" in done.stderr and len(done.stderr.splitlines()) < 4
    study["models"]["resnet18"]["weights"] = "weights.pt"
    (birds / "weights.pt").write_bytes(b"not read")
    done = fetched(birds, study, "my_birds")
    assert done.returncode == 0, done.stderr
    with h5py.File(birds / "results/birds/my_birds/images.h5") as file:
        assert file.attrs["unseen"] == "owl" and file.attrs["classes"].tolist() == ["a wren", "crow", "jay", "owl", "robin"]


def test_warnings_are_on_the_console(birds):
    jay, owl = birds / "birds/test/jay", birds / "birds/test/owl"
    for number in range(4):
        (owl / f"copy{number}").write_bytes((jay / f"{number}.{'png' if number == 0 else 'jpg'}").read_bytes())
    (owl / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    done = fetched(birds, yaml.safe_load(EXAMPLE) | {"study": "wild"}, "my_birds")
    assert done.returncode == 0, done.stderr
    assert "1 of 185 images are left out, the first is test/owl/a.heic: it is HEIC, which is not read" in done.stderr
    assert "images of query with the same bytes as one of database: " in done.stderr
    assert "log: results/wild/logs/prepare/my_birds.log" in done.stderr


@pytest.mark.slow
def test_nuswide_with_a_missing_a_damaged_a_repeated_and_an_unlabelled_image(tmp_path):
    """Sixty images in the official layout, of two or three concepts, on the way to the table: training is multi-label."""
    rng, source = np.random.default_rng(0), tmp_path / "NUS-WIDE"
    concepts = {"sky": (80, 120, 220), "grass": (60, 160, 60), "sand": (200, 180, 120)}
    rows = [(f"f{i % 3}\\{i:04}_{1000 + i}.jpg", "Test" if i % 2 else "Train", {list(concepts)[i % 3], "sky"}) for i in range(60)]
    rows += [("f9\\0060_1001.jpg", "Test", {"sky"}), ("f9\\0061_1061.jpg", "Train", set())]
    for number, (name, _, shown) in enumerate(rows):
        if number != 7:
            photograph(
                source / "Flickr" / name.replace("\\", "/"),
                concepts[sorted(shown, key=list(concepts).index)[-1]] if shown else (0,) * 3,
                rng,
            )
    damaged = source / "Flickr" / rows[9][0].replace("\\", "/")
    damaged.write_bytes(damaged.read_bytes()[:300])

    def write(place, lines):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_text("".join(f"{line}\n" for line in lines))

    write("ConceptsList/Concepts81.txt", sorted(concepts))
    for split in ("Train", "Test"):
        mine = [row for row in rows if row[1] == split]
        write(f"ImageList/{split}Imagelist.txt", [name for name, _, _ in mine])
        for concept in concepts:
            write(f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt", [int(concept in shown) for _, _, shown in mine])

    study = yaml.safe_load((ROOT / "config/nuswide.yaml").read_text())
    official = study["datasets"]["nuswide"] | {"kind": "nuswide", "concepts": 3, "queries": 8, "image_size": 32}
    study["datasets"] = {"scenes": official}
    study |= {"models": {"vgg11": {"width": 0.125}}, "bits": [8], "training": {"epochs": 2, "batch_size": 10}, "figures": {"models": []}}
    write_config(tmp_path / "own.yaml", study)
    done = snakemake(tmp_path, "--configfile", tmp_path / "own.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NUS-WIDE-3 (incomplete copy), scenes: 8 queries, 20 database images" in " ".join(done.stdout.split())
    log = (tmp_path / "results/nuswide/logs/fetch/scenes.log").read_text()
    for words in (
        "31 train images were released here, officially 161,789",
        "31 test images were released here, officially 107,859",
        "61 have one of the 3 most frequent concepts",
        "left out, because f1/0001_1001.jpg has the same id: f9/0060_1001.jpg",
        "left out: f1/0007_1007.jpg: there is no such file",
        "left out: f0/0009_1009.jpg: ",
        "30 training and 28 test images, 2 left out",
    ):
        assert words in log, log
    with h5py.File(tmp_path / "results/nuswide/scenes/images.h5") as file:
        assert file.attrs["multilabel"] and len(file["train/ids"]) == 30


def test_a_manifest_with_training_images_in_the_database(birds):
    """Of 180 images 30 are trained on and 10 are queries; accuracy is measured on the 150 that are not trained on."""
    lines = [f"{path.relative_to(birds / 'birds')},{path.parts[-3]},{path.parts[-2]}|bird" for path in (birds / "birds").rglob("*.*g")]
    (birds / "birds/list.csv").write_text("\n".join(["path,split,labels", *sorted(lines)]))
    study = yaml.safe_load(EXAMPLE)
    study["datasets"] = {"my_list": {"kind": "manifest", "source": "birds/list.csv", "queries": 10, "database_from": "all", "train": 30}}
    study["training"]["batch_size"] = 10
    done = fetched(birds, study, "my_list", "results/birds/my_list/resnet18-pretrained/seed0/weights.pt")
    assert done.returncode == 0, done.stderr
    accuracies = pd.read_csv(birds / "results/birds/my_list/resnet18-pretrained/seed0/training.csv")["test_accuracy"] * 150
    np.testing.assert_allclose(accuracies, accuracies.round(), atol=1e-6)
    with h5py.File(birds / "results/birds/my_list/images.h5") as file:
        assert [len(file[f"{part}/ids"]) for part in ("train", "database", "query")] == [30, 170, 10]
        assert file.attrs["multilabel"] and file.attrs["classes"].tolist() == ["a wren", "bird", "jay", "owl", "robin"]
    raw = {one["name"] for one in record(birds, "data/my_list.prov.json")["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert {"list.csv/list.csv", "list.csv/*"} <= raw
