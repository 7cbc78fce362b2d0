"""What jobs ask for: the formulas against networks, hand-worked numbers, and what a run of the tiny study used."""

import copy
import math
import sys

import pytest
import torch

from pqag import names, networks
from pqag.study import resources
from pqag.study.model import parse_study
from pqag.study.resources import LEAST_MINUTES, LEAST_NETWORK_MINUTES
from pqag.study.rules import READERS, RULES, work

from ..workflow.conftest import ROOT, plan, write_config

sys.path.append(str(ROOT / "scripts/tools"))
import staleness  # noqa: E402
import usage as checked  # noqa: E402

#: A study in which no job is as small as the floors.
STUDY = {
    "study": "large",
    "datasets": {"photos": {"kind": "imagefolder", "source": "photos", "image_size": 96, "database": 300_000, "queries": 100_000}},
    "models": {
        "vgg16": {},
        "resnet50": {"quantizer": {"method": "opq"}},
        "mine": {"network": "torchvision:vit_b_16", "weights": "DEFAULT"},
    },
    "attacks": {"aod": {"loss": "aod"}, "basic": {"loss": "basic"}},
    "training": {"epochs": 50},
    "quantizer": {"iterations": 500},
    "bits": [16, 32, 40],
    "figures": {"sweep": {"queries": 5000}},
}
JOB = {"dataset": "photos", "model": "vgg16", "training": "pretrained", "bits": "40", "source_bits": "16", "seed": "0", "attack": "aod"}


def resolved(**changes):
    """The study with values under keys written with two underscores for a dot."""
    study = copy.deepcopy(STUDY)
    for key, value in changes.items():
        *path, last = key.split("__")
        section = study
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return parse_study(study).resolved()


def asked(rule, study=None, gpu=False, **wildcards):
    it = work(rule, JOB | wildcards, study or resolved(), gpu)
    return it.mem_mb(), it.runtime()


@pytest.mark.parametrize("name", names.NETWORKS)
def test_sizes_are_those_of_the_networks(name):
    """Outputs of the layers that keep them for the gradient, and multiply-adds, counted while an image goes through."""
    network, counted = networks.build(name, 10).eval(), {"outputs": 0, "multiplications": 0}

    def look(module, inputs, output):
        counted["outputs"] += output.numel()
        if not isinstance(module, torch.nn.BatchNorm2d):
            counted["multiplications"] += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.register_forward_hook(look)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    size = resources.SIZES[name]
    assert size.outputs == pytest.approx(counted["outputs"] / 1e6, rel=0.01)
    assert size.multiplications == pytest.approx(counted["multiplications"] / 1e6, rel=0.01)
    assert size.parameters == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, rel=0.01)


def test_scoring_by_hand():
    """100 MiB, 80 bytes for each of 190,000 images, 2,000 for each codeword, and twice 512 numbers of 4 bytes for each of 100,000 queries.

    With 280 for Snakemake, and half as much again.
    """
    study, features = resolved(datasets__photos__database=190_000), 2 * 512 * 4 * 100_000  # of the 200,000 images that there may be
    by_hand = 100 + (80 * 190_000 + 2000 * 4 * 16 + features) / 2**20
    assert asked("evaluate", study, bits="16") == (math.ceil(1.5 * (by_hand + 280)), math.ceil(2.5 * (6 + 100_000 * 0.0042) / 60))


def test_triplets_of_dtq_by_hand():
    """A batch of 512 images has 512^3, 20 bytes and 0.2 microseconds each; DQN looks at none."""
    both = []
    for method in ("dqn", "dtq"):
        study = resolved(models__short={"like": "vgg16", "quantizer": {"method": method}, "joint": {"epochs": 3}})
        study["models"]["short"]["training"]["batch_size"] = 512
        both.append(work("train_joint", JOB | {"model": "short"}, study))
    train = resources.images(JOB, study).train
    assert both[1].mb - both[0].mb == pytest.approx(20 * 512**3 / 2**20)
    assert both[1].seconds - both[0].seconds == pytest.approx(2e-7 * 512**2 * 3 * train)


@pytest.mark.parametrize(("method", "of_number"), [("pq", 20), ("rq", 64)])
def test_a_codebook_of_the_training_images_by_hand(tmp_path, monkeypatch, method, of_number):
    """Features of 100,000 training images are extracted, and held beside those of the 300,000 of the database, which are encoded."""
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/photos.h5", "wb") as file:
        file.truncate(3 * 96**2 * 1_000_000)
    monkeypatch.chdir(tmp_path)
    of = {"quantizer__method": method, "datasets__photos__train": 100_000}
    fewer, more = (asked("quantize", resolved(**of, quantizer__fitted_to="train", datasets__photos__database=n)) for n in (10_000, 310_000))
    assert more[0] - fewer[0] == pytest.approx(1.5 * of_number * 512 * 300_000 / 2**20, abs=1)
    less, all_of_it = (asked("extract_train", resolved(datasets__photos__train=n)) for n in (100_000, 200_000))
    assert all_of_it[0] - less[0] == pytest.approx(1.5 * 12 * 512 * 100_000 / 2**20, abs=1) and all_of_it[1] > less[1]


@pytest.mark.parametrize(
    ("rule", "changes", "more"),
    [
        ("pretrain", {"training__epochs": 60}, "time"),
        ("pretrain", {"training__batch_size": 2000}, "memory"),
        ("pretrain", {"datasets__photos__image_size": 127}, "memory time"),
        ("extract", {"datasets__photos__database": 400_000}, "memory time"),
        ("extract_transfer", {"datasets__photos__queries": 400_000}, "memory time"),
        ("extract_transfer", {"models__vgg11": {}}, "memory time"),
        ("attack", {"attacks__aod__iterations": 50}, "time"),
        ("attack", {"attacks__aod__restarts": 10}, "time"),
        ("attack", {"attacks__aod__loss": "ranks", "attacks__aod__method": "square"}, "memory time"),
        ("attack", {"datasets__photos__queries": 400_000}, "memory time"),
        ("sweep", {"figures__sweep__iterations": [1, 2, 5, 10, 20, 200]}, "time"),
        ("sweep", {"figures__sweep__queries": 90_000}, "memory time"),
        ("sweep", {"attacks__aod__restarts": 10}, "time"),
        ("quantize", {"quantizer__iterations": 2000}, "time"),
        ("evaluate", {"datasets__photos__database": 400_000}, "memory time"),
        ("evaluate", {"datasets__photos__queries": 400_000}, "memory time"),
        ("fetch", {"datasets__photos__image_size": 64}, "time"),
    ],
)
def test_more_work_asks_for_more(tmp_path, monkeypatch, rule, changes, more):
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/photos.h5", "wb") as file:
        file.truncate(3 * 96**2 * 1_000_000)  # a million images of 96 pixels, or more smaller ones
    monkeypatch.chdir(tmp_path)
    before, after = asked(rule), asked(rule, resolved(**changes))
    assert (after[0] > before[0], after[1] > before[1]) == ("memory" in more, "time" in more)


@pytest.mark.parametrize(
    ("network", "weights", "pixels"),
    [
        ("vit_b_16", "IMAGENET1K_V1", 224),
        ("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1", 224),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384),
        ("vit_b_16", "some/file.pt", 384),
        ("efficientnet_b7", "DEFAULT", 600),
        ("resnet18", "DEFAULT", 224),
    ],
)
def test_a_network_of_torchvision_has_the_size_that_its_weights_want(network, weights, pixels):
    study = resolved(models__mine={"network": f"torchvision:{network}", "weights": weights})
    [row] = [row for row in resources.of_torchvision()[network] if row["pixels"] == pixels]
    found = resources.network(JOB | {"model": "mine"}, study, 1)
    assert (found.size.multiplications, found.features) == (row["multiplications"], row["features"])


def test_more_bits_a_rotation_and_a_network_of_the_user_ask_for_more():
    one, more, rotated = asked("quantize", bits="32"), asked("quantize"), asked("quantize", model="resnet50")
    assert one[0] < more[0] < rotated[0] and one[1] < more[1] < rotated[1]
    assert asked("attack", model="mine")[0] > asked("attack", model="vgg16")[0], "it is taken for a large one"
    study = resolved(models__own={"network": "a.b:make", "training": {"epochs": 50}})
    assert asked("pretrain", study, model="own") == asked("pretrain", study, model="resnet50"), "it is taken for the largest of ours"


@pytest.mark.parametrize(
    ("name", "section", "before", "side", "stored"),
    [
        ("photos", STUDY["datasets"]["photos"] | {"database": 5000}, (resources.UNKNOWN, resources.UNKNOWN, 5000, 100_000, 96, 96), 96, 7),
        ("cifar10", {"train": 40_000}, (60_000, 40_000, 9000, 1000, 32, 32), 32, None),
        ("cifar10", {"database_from": "all", "database": 59_000, "image_size": 128}, (60_000, 50_000, 59_000, 1000, 128, 32), 128, None),
        ("nuswide", {"source": "NUS-WIDE", "image_size": 64}, (161_789 + 107_859, 161_789, 107_859, 1000, 64, 64), 64, 500),
    ],
)
def test_images_are_those_of_the_data_set_and_at_most_those_in_its_file(tmp_path, monkeypatch, name, section, before, side, stored):
    """Training images are at most all of them, and what is drawn at most what the study says."""
    monkeypatch.chdir(tmp_path)
    study = parse_study(STUDY | {"datasets": {name: section}, "bits": [16]}).resolved()
    assert resources.images({"dataset": name}, study) == before
    if stored:
        (tmp_path / "data").mkdir()
        (tmp_path / f"data/{name}.h5").write_bytes(bytes(3 * side**2 * stored + 999))
        assert resources.images({"dataset": name}, study) == (stored, stored, stored, *before[3:])


def test_every_attempt_asks_for_more_and_a_step_of_seconds_for_the_least():
    manifest = work("manifest", {}, resolved())
    for attempt in (1, 2, 3):
        assert manifest.mem_mb(attempt) == [570, 855, 1283][attempt - 1]  # 1.5 (100 + 280), 1.5 times, 2.25 times
        assert manifest.runtime(attempt) == LEAST_MINUTES * 2 ** (attempt - 1)
    study = resolved(datasets__photos__queries=100, datasets__photos__database=1000, models__vgg16__width=0.125, bits=[16])
    assert {asked(rule, study, bits="16")[1] for rule in ("attack", "extract", "extract_transfer")} == {LEAST_NETWORK_MINUTES} == {3}
    assert {asked(rule, study, bits="16")[1] for rule in ("evaluate", "precision_recall", "manifest")} == {LEAST_MINUTES} == {1}


def test_a_gpu_relieves_the_steps_that_run_a_network():
    joint = {"network": "vgg16", "quantizer": {"method": "pqn"}}
    study = resolved(models__joint=joint, readings={"other": {"title": "Other", "change": {}}})
    asks_otherwise = set()
    for rule in (*RULES, *READERS):
        job = {"reading": "other"} | ({"model": "joint"} if rule == "train_joint" else {})
        if asked(rule, study, gpu=True, **job) != asked(rule, study, **job):
            asks_otherwise.add(rule)
    assert asks_otherwise == {rule for rule, one in RULES.items() if one.network}
    joins = resolved() | {"shards": {"attack": 100, "extract": 100}}
    for rule in ("attack", "extract"):
        assert asked(rule, joins, gpu=True) == asked(rule, joins)


def test_with_a_gpu_by_hand():
    """720 MiB for torch, 2000 for CUDA, 280 for Snakemake, 1000 queries of 3072 bytes six times; no network. Of the time a twentieth."""
    entries = {"datasets": {"cifar10": {}}, "models": {"vgg11": {"width": 0.125}}, "attacks": STUDY["attacks"]}
    study, job = parse_study({"study": "s", **entries}).resolved(), JOB | {"dataset": "cifar10", "model": "vgg11", "bits": "16"}
    with_gpu, without = (work("attack", job, study, gpu) for gpu in (True, False))
    head = 30 * 1.7 * 250 * 4 * 16 / 2**20
    assert with_gpu.mem_mb() == math.ceil(1.5 * (720 + 2000 + 280 + 1000 * 6 * 3072 / 2**20 + head))
    assert with_gpu.seconds == without.seconds / 20


@pytest.mark.parametrize("rule", ["attack", "extract"])
def test_a_shard_asks_for_less_and_the_job_that_joins_them_runs_no_network(rule):
    """400 batches of queries, and 400 of the 200,000 images that there may be: a hundredth of the time for each of 100 shards."""
    study = resolved(datasets__photos__database=None) | {"shards": {"attack": 100, "extract": 100}}
    whole = asked(rule, resolved(datasets__photos__database=None))
    shard = asked(f"{rule}_shard", study, shard="1", shards="100")
    join = asked(rule, study)
    assert shard[1] == pytest.approx(whole[1] / 100, abs=LEAST_NETWORK_MINUTES) and join[1] == LEAST_MINUTES
    assert shard[0] < whole[0] and join[0] < whole[0]


def test_known_images_are_fetched_at_their_own_size():
    small, large = (parse_study(STUDY | {"datasets": {"cifar10": {"image_size": side}}, "bits": [16]}).resolved() for side in (32, 127))
    job = {"dataset": "cifar10"}
    assert work("fetch", job, small) == work("fetch", job, large)
    assert work("prepare", job, small).seconds < work("prepare", job, large).seconds


def test_the_tiny_study_used_what_it_asked_for(study, tmp_path, tiny):
    """Only memory: how long jobs take depends on the machine, and all of these ask for the least."""
    write_config(tmp_path / "tiny.yaml", tiny)
    jobs = checked.measured(tmp_path / "tiny.yaml", study[0])
    without = staleness.INSTEAD | {"paper"}
    assert {job.rule for job in jobs} >= set(RULES) - without
    seen = [job for job in jobs if job.used_mb is not None]
    assert {"attack", "extract", "pretrain", "sweep"} <= {job.rule for job in seen}
    assert not [fault for job in seen for fault in job.faults() if "MiB" in fault]


def test_faults_of_a_job():
    def job(mb, used_mb, minutes=3, used_minutes=1.0):
        return len(list(checked.Job("attack", "attack.jsonl", mb, minutes, 3, used_mb, used_minutes).faults()))

    assert [job(1200, used) for used in (299, 301, 999, 1001)] == [1, 0, 0, 1]
    assert job(1200, None) == 0
    assert [job(1200, 600, 60, used) for used in (14, 16, 49, 51)] == [1, 0, 0, 1]
    assert [job(1200, 600, minutes, 0.1) for minutes in (3, 4)] == [0, 1]


def test_other_requests_make_nothing_stale(study, tiny, monkeypatch):
    monkeypatch.setattr(resources, "SNAKEMAKE_MB", 777)
    monkeypatch.setattr(resources, "START_SECONDS", 7777)
    assert plan(study[0], tiny) == [("all", {})]
