"""config/joint.yaml at the size of the tiny study: a network that is trained with its codebook is a victim like any other."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import faiss
import h5py
import numpy as np
import pytest
import yaml

from pqag import api, checkpoints, files, storage, user_code, victims
from pqag.errors import UserError
from pqag.show.tables import KEYS
from pqag.study.model import parse_study

from ..project.test_docs import blocks
from .conftest import ROOT, mean_average_precision, plan, snakemake, write_config

pytestmark = pytest.mark.slow  # a whole study
VICTIM = "results/joint/synthetic/alexnet_pqn-joint16/seed0"


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    tiny = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    study = yaml.safe_load((ROOT / "config/joint.yaml").read_text())
    study |= {key: tiny[key] for key in ("datasets", "training", "threads", "figures")} | {"bits": [16, 24]}
    for model in study["models"].values():
        model["width"] = 0.125
        del model["training"]
    study["models"]["alexnet_csq"] = {"like": "alexnet", "quantizer": {"method": "csq"}, "joint": {"epochs": 1}}
    for name, method in (*((name, name) for name in ("rq", "cq", "dpq", "dtq")), ("own_icm", "mine.sums:fit")):
        study["models"][name] = {"like": "alexnet", "quantizer": {"method": method}}
    for name in ("dpq", "dtq"):
        study["models"][name] |= {"joint": {"epochs": 2}}
    (folder / "mine").mkdir()
    [example] = [code for code in blocks("quantizer", "python") if code.startswith("# mine/sums.py\n")]
    (folder / "mine/sums.py").write_text(example)
    others = ["alexnet_csq", "rq", "cq", "dpq", "dtq", "own_icm"]
    study["tables"] |= {"table2": {"models": ["alexnet_pqn"]}, "table5": {"models": ["alexnet", *others]}}
    study["figures"] = {"models": ["alexnet_pqn"], "sweep": {"models": []}}
    study["tables"]["table4"] = {"models": ["alexnet", "alexnet_pqn"]}
    write_config(folder / "config.yaml", study)
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, study


def rows(folder, name):
    with (folder / f"results/joint/tables/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_table_2_has_the_columns_of_table_1_and_the_training_is_joint(joint):
    one, two = (rows(joint[0], f"table{n}") for n in (1, 2))
    assert list(one[0]) == list(two[0])
    assert {(row["training"], row["source_model"], row["target_model"]) for row in two} == {("joint", "alexnet", "alexnet")}
    assert {row["training"] for row in one} == {"pretrained"}
    attacks = {(row["target_bits"], row["attack"], row["distance"]) for row in two}
    assert attacks == {(b, a, d) for b in ("16", "24") for a in ("clean", "basic", "apd", "aod") for d in ("SDC", "ADC")}
    value = {(row["target_bits"], row["attack"], row["distance"]): float(row["map"]) for row in two}
    assert all(value[bits, attack, kind] < value[bits, "clean", kind] for bits, attack, kind in value if attack != "clean")


def test_the_claim_of_the_paper_is_answered_from_both_tables(joint):
    values = [
        {(row["target_bits"], row["attack"], row["distance"]): float(row["map"]) for row in rows(joint[0], f"table{n}")} for n in (2, 1)
    ]
    lower = sum(values[0][key] < values[1][key] for key in values[0] if key[1] != "clean")
    text = " ".join((joint[0] / "results/joint/tables/table2.txt").read_text().split())
    assert f"the jointly trained network has the lower mAP in {lower} of 12 comparisons." in text
    assert "AlexNet: quantizer PQN (sigmoid triplet loss" in text
    assert list(csv.reader((joint[0] / "results/joint/tables/table2_vs_paper.csv").open())) == [[*KEYS, "ours", "paper", "difference"]]


def test_it_stands_in_table_4_and_the_figures_like_any_other(joint):
    pairs = {(row["source_model"], row["target_model"], row["training"]) for row in rows(joint[0], "table4")}
    names = {"alexnet": "pretrained", "alexnet_pqn": "joint"}
    assert pairs == {(source, target, names[target]) for source in names for target in names}
    assert (joint[0] / "results/joint/figures/figure3_synthetic_alexnet_pqn.png").exists()


def test_a_cell_recomputed_from_the_network_and_its_codewords(joint):
    """ADC of the clean queries: sub-vectors of norm 1, items as their nearest codewords, a plain loop."""
    import torch

    with h5py.File(joint[0] / "results/joint/synthetic/images.h5") as file:
        images, queries = file["database/images"][()], file["query/images"][()]
        labels, gallery = file["query/labels"][()].argmax(1), file["database/labels"][()].argmax(1)
    with h5py.File(joint[0] / VICTIM / "codewords.h5") as file:
        codewords = file["codewords"][()]
    assert codewords.shape == (4, 16, 128)
    np.testing.assert_allclose(np.linalg.norm(codewords, axis=2), 1, rtol=1e-5)
    network = checkpoints.load_network(joint[0] / VICTIM / "weights.pt")
    with torch.no_grad():
        z, items = (network.features(torch.from_numpy(x) / 255).numpy().reshape(len(x), 4, 128) for x in (queries, images))
    z, items = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in (z, items))
    nearest = ((items[:, :, None] - codewords[None]) ** 2).sum(3).argmin(2)
    items = np.concatenate([codewords[m][nearest[:, m]] for m in range(4)], axis=1)
    found = mean_average_precision(z.reshape(len(z), -1), items, labels, gallery)
    [row] = [r for r in rows(joint[0], "table2") if (r["target_bits"], r["attack"], r["distance"]) == ("16", "clean", "ADC")]
    assert float(row["map_worst"]) - 0.01 <= found <= float(row["map_best"]) + 0.01


def test_it_goes_into_the_zoo_and_comes_back(joint, tmp_path, monkeypatch):
    import zoo

    folder, study = joint
    monkeypatch.chdir(folder)
    monkeypatch.setattr(user_code, "ZOO", tmp_path / "zoo")
    at_24, aside = Path(VICTIM.replace("16", "24"), "weights.pt"), folder / "aside.pt"
    at_24.rename(aside)
    zoo.main("config.yaml", "alexnet_pqn")
    first = files.read_json(tmp_path / "zoo/synthetic_alexnet_pqn/card.json")
    assert first["files"].keys() == {"16bits.safetensors"}, "24 bits are not trained yet"
    aside.rename(at_24)
    zoo.main("config.yaml", "alexnet_pqn")
    card = files.read_json(tmp_path / "zoo/synthetic_alexnet_pqn/card.json")
    assert list(card["files"]) == ["16bits.safetensors", "24bits.safetensors"] and list(card["record"]) == ["16bits", "24bits"]
    assert card["files"]["16bits.safetensors"] == first["files"]["16bits.safetensors"]
    for bits, attack, kind in ((16, "clean", "ADC"), (24, "basic", "SDC"), (24, "apd", "ADC")):
        allowed = 0.051 + (card["precision"][f"{bits}bits"] == "float16") * zoo.ALLOWED
        own = "" if attack == "clean" else f".alexnet_pqn-joint{bits}-{bits}bits"
        scored = files.read_json(Path(VICTIM.replace("16", str(bits)), f"{bits}bits/metrics/{attack}{own}.json"))
        assert card["map"][f"{bits}bits"][attack][kind] == pytest.approx(100 * scored[kind]["map"], abs=allowed)
    victim, trained = api.load_victim("zoo:synthetic_alexnet_pqn", 16), checkpoints.load_network(f"{VICTIM}/weights.pt")
    [codewords] = storage.read_hdf5(f"{VICTIM}/codewords.h5", "codewords")
    np.testing.assert_allclose(victim.codebook.codewords, codewords, atol=1e-3)
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(api.features(victim, images), api.features(api.Victim(trained), images), atol=1e-2)
    with pytest.raises(UserError, match="does not fit vgg16 of width 0.125: "):
        victims.joint("vgg16", 0.125, str(user_code.file_of("zoo:synthetic_alexnet_pqn/16bits")))

    monkeypatch.setitem(study["models"]["alexnet_pqn"], "weights", "zoo:synthetic_alexnet_pqn")
    assert user_code.digests(parse_study(study).brings())
    zoo.main("config.yaml", "alexnet")
    assert files.read_json(tmp_path / "zoo/synthetic_alexnet/card.json")["files"].keys() == {"weights.safetensors"}
    (folder / "results/joint/synthetic/alexnet-pretrained/seed0/weights.pt").rename(aside)
    zoo.main("config.yaml", "alexnet")  # says that it is not trained, and goes on
    aside.rename(folder / "results/joint/synthetic/alexnet-pretrained/seed0/weights.pt")


def test_a_hashing_network_stands_in_table_5(joint):
    """SDC is the Hamming ranking of the signs of its features; the audit agrees; another recipe trains it again, and nothing else."""
    import torch

    folder, study = joint
    table = [row for row in rows(folder, "table5") if row["target_model"] == "alexnet_csq"]
    assert {row["attack"] for row in table} == {"clean", "basic", "apd", "aod", "farthest"} and {row["training"] for row in table} == {
        "joint"
    }
    value = {(row["target_bits"], row["attack"], row["distance"]): row for row in table}
    assert (
        float(value["24", "farthest", "SDC"]["map"]) < float(value["24", "apd", "SDC"]["map"]) < float(value["24", "clean", "SDC"]["map"])
    )
    assert all(float(row["zero_gradients"]) < 100 for row in table if row["attack"] == "aod")
    with h5py.File(folder / "results/joint/synthetic/images.h5") as file:
        images, queries = file["database/images"][()], file["query/images"][()]
        labels, gallery = file["query/labels"][()].argmax(1), file["database/labels"][()].argmax(1)
    network = checkpoints.load_network(folder / "results/joint/synthetic/alexnet_csq-joint24/seed0/weights.pt")
    with torch.no_grad():
        signs = [np.where(network.features(torch.from_numpy(x) / 255).numpy() > 0, 1, -1) for x in (queries, images)]
    assert signs[0].shape[1] == 24 and int(value["24", "clean", "SDC"]["distinct_codes"].split(".")[0]) == len(np.unique(signs[1], axis=0))
    found, row = mean_average_precision(*signs, labels, gallery), value["24", "clean", "SDC"]
    assert float(row["map_worst"]) - 0.01 <= found <= float(row["map_best"]) + 0.01
    assert (folder / "results/joint/figures/table5_synthetic.png").exists()
    done = subprocess.run([sys.executable, ROOT / "scripts/audit.py", "verify", "joint"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = plan(folder, study | {"joint": {"learning_rate": 0.01}})
    assert {wildcards["model"] for rule, wildcards in jobs if rule == "train_joint"} == {"alexnet_csq", "dpq", "dtq"}
    assert not {"pretrain", "borrow", "quantize"} & {rule for rule, _ in jobs}


def test_sums_of_codewords_and_logits_stand_in_table_5(joint):
    """Sums are ranked by their distances: a cell of RQ by faiss' reconstructions. Codewords of sub-spaces, written in full, are PQ."""
    folder = joint[0]
    table = {(row["target_model"], row["target_bits"], row["attack"], row["distance"]): row for row in rows(folder, "table5")}
    for name in ("rq", "cq", "dpq", "dtq", "own_icm"):
        for distance in ("SDC", "ADC"):
            clean, attacked, far = (float(table[name, "24", attack, distance]["map"]) for attack in ("clean", "apd", "farthest"))
            assert far < attacked < clean, name
    for attack, distance in itertools.product(("clean", "basic", "farthest"), ("SDC", "ADC")):
        own, plain = (float(table[name, "16", attack, distance]["map"]) for name in ("own_icm", "alexnet"))
        assert own == pytest.approx(plain, abs=0.01)
    victim = folder / "results/joint/synthetic/rq-pretrained/seed0"
    queries, labels = storage.read_hdf5(victim / "features/query.h5", "features", "labels")
    [gallery] = storage.read_hdf5(victim / "features/database.h5", "labels")
    codewords, codes = storage.read_hdf5(victim / "24bits/codebook.h5", "codewords", "codes")
    trained = faiss.ResidualQuantizer(codewords.shape[2], 4, 6)
    faiss.copy_array_to_vector(codewords.ravel(), trained.codebooks)
    trained.is_trained = True
    items = trained.decode(faiss.pack_bitstrings(codes.astype(np.int32), 6))
    found, row = mean_average_precision(queries, items, labels.argmax(1), gallery.argmax(1)), table["rq", "24", "clean", "ADC"]
    assert float(row["map_worst"]) - 0.01 <= found <= float(row["map_best"]) + 0.01


def test_another_alpha_trains_it_again_and_nothing_else(joint):
    folder, study = joint
    jobs = plan(folder, study | {"pqn": {"alpha": 7}})
    found = {rule for rule, _ in jobs}
    assert {"train_joint", "encode", "robustness"} < found and not found & {"pretrain", "quantize", "prepare"}
    assert {wildcards["table"] for rule, wildcards in jobs if rule == "table"} == {"table2", "table4"}


def test_it_is_trained_for_the_length_of_its_code(joint):
    folder, study = joint
    study = study | {"tables": {"table4": {"models": []}, "table3": {"models": []}}, "figures": {"models": []}, "bits": [16]}
    jobs = [wildcards for rule, wildcards in plan(folder, study | {"seeds": [1]}) if rule == "train_joint"]
    assert sorted((wildcards["model"], wildcards["bits"]) for wildcards in jobs) == [
        (name, "16") for name in ("alexnet_csq", "alexnet_pqn", "dpq", "dtq")
    ]


def test_its_training_used_the_memory_that_it_asked_for(joint):
    from usage import measured

    folder, _ = joint
    jobs = [job for job in measured(folder / "config.yaml", folder) if job.used_mb is not None]
    assert "train_joint" in {job.rule for job in jobs}
    assert not [fault for job in jobs for fault in job.faults() if "MiB" in fault]
