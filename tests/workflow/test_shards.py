"""A study whose attack and extraction are split over several jobs has the same results, and whether it is split makes nothing stale."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pqag import files
from pqag.audit import why
from pqag.audit.verify import verify
from pqag.job import records

from ..conftest import run_study
from .conftest import plan, snakemake, write_config

pytestmark = pytest.mark.slow  # two runs


#: Three batches of each, the last not full; of the clean queries two, so that one shard of the features has none of them.
STUDY = {
    "study": "tiny",
    "datasets": {"synthetic": {"train": 1000, "database": 1100, "database_from": "all", "queries": 520}},
    "models": {"vgg16": {"width": 0.125}},
    "attacks": {"aod": {"loss": "aod", "iterations": 2}},
    "bits": [16],
    "training": {"epochs": 1, "batch_size": 100},
    "threads": {"pretrain": 1},
    "tables": {"table3": {"models": []}, "table4": {"models": []}},
    "figures": {"models": []},
    "shards": {"attack": 3, "extract": 9},
}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A folder in which a study was run in three shards, and the study."""
    return run_study(tmp_path_factory.mktemp("split"), STUDY)[0], STUDY


def digests(folder):
    """sha256 of all that was computed, but for records, which tell how."""
    known = [path for path in (folder / "results/tiny/synthetic").rglob("*") if path.is_file() and not path.name.endswith(".prov.json")]
    return {str(path.relative_to(folder)): files.sha256(path) for path in known}


def test_a_run_in_shards(split):
    """Three of each, though nine were asked for; none is left, every number is traced, and their own logs and benchmarks stay."""
    folder, study = split
    jobs = Counter(rule for rule, _ in plan(folder, study | {"study": "another"}))
    assert (jobs["attack_shard"], jobs["attack"], jobs["extract_shard"], jobs["extract"]) == (3, 1, 3, 1)
    assert not list((folder / "results/tiny/synthetic").rglob("*shard*"))
    assert len(list((folder / "results/tiny/logs").rglob("*shard*of3.log"))) == 6
    assert len(list((folder / "results/tiny/benchmarks").rglob("*shard*of3.jsonl"))) == 6


def test_shards_used_the_memory_that_they_asked_for(split):
    from usage import measured

    folder, _ = split
    jobs = [job for job in measured(folder / "config.yaml", folder) if job.used_mb is not None]
    assert {"attack_shard", "extract_shard", "attack", "extract"} <= {job.rule for job in jobs}
    assert not [fault for job in jobs for fault in job.faults() if "MiB" in fault]


def test_the_audit_names_the_shards(split, monkeypatch):
    monkeypatch.chdir(split[0])
    assert verify(Path("results/tiny"))[0] == []
    told = "\n".join(map(str, why.explain(Path("results/tiny"), "table1:aod/vgg16/16/ADC")))
    for name in ("adversarial/aod", "features/clean"):
        assert all(f"{name}.shard{shard}of3.h5 sha256" in told for shard in (1, 2, 3))


def test_shards_that_a_killed_run_left_are_told(split, monkeypatch):
    """If the study is run in another number of shards afterwards, nothing else would touch them."""
    monkeypatch.chdir(split[0])
    name = "results/tiny/synthetic/vgg16-pretrained/seed0/features/clean.shard1of2"
    record = json.loads(Path(name).with_name("clean.prov.json").read_text())
    files.write_bytes(f"{name}.h5", b"some")
    record["subject"] = [{"name": f"{name}.h5", "digest": {"sha256": files.sha256(f"{name}.h5")}}]
    record["predicate"]["buildDefinition"]["externalParameters"]["rule"] = "extract_shard"
    files.write_json(f"{name}.prov.json", records.sealed(record))
    try:
        [fault] = verify(Path("results/tiny"))[0]
    finally:
        Path(f"{name}.h5").unlink()
        Path(f"{name}.prov.json").unlink()
    assert str(fault).startswith(f"{name}.prov.json: belongs to a job that is not in the study, extract_shard")
    assert fault.remedy.startswith("delete the named records and their outputs")


def test_another_number_of_shards_makes_nothing_stale(split):
    folder, study = split
    for shards in ({}, {"attack": 1, "extract": 1}, {"attack": 2, "extract": 3}):
        jobs = {rule for rule, _ in plan(folder, study | {"shards": shards})}
        assert jobs == {"study", "manifest", "all"}


def test_what_is_stale_for_the_whole_is_stale_for_its_shards(split):
    folder, study = split
    jobs = Counter(rule for rule, _ in plan(folder, study | {"attacks": {"aod": study["attacks"]["aod"] | {"iterations": 3}}}))
    assert (jobs["attack_shard"], jobs["attack"], jobs["extract_shard"], jobs["extract"]) == (3, 1, 0, 0)


def test_results_are_the_same_bit_for_bit_without_shards(split):
    """Made again from the weights on, by one job each."""
    folder, study = split
    before = digests(folder)
    victim = folder / "results/tiny/synthetic/vgg16-pretrained/seed0"
    for path in [*(victim / "features").iterdir(), *(victim / "16bits").rglob("*.*")]:
        path.unlink()
    write_config(folder / "config.yaml", study | {"shards": {}})
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(folder) == before and len(before) > 8
    assert records.dependencies(records.read(victim / "16bits/adversarial/aod.prov.json"), "shard") == {}, "it was made whole"
