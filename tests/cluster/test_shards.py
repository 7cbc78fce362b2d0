"""A study that is split into shards on a real SLURM."""

import re
import shutil
from collections import Counter

import pytest

from ..workflow.conftest import snakemake as local
from ..workflow.conftest import write_config
from ..workflow.test_shards import STUDY, digests
from .conftest import option

pytestmark = pytest.mark.cluster


def test_shards_are_jobs_of_their_own_and_their_results_those_of_one(cluster, tmp_path):
    split, whole = tmp_path / "split", tmp_path / "whole"
    victim = "results/tiny/synthetic/vgg16-pretrained/seed0"
    target = f"{victim}/16bits/adversarial/aod.h5"
    whole.mkdir()
    write_config(whole / "config.yaml", STUDY | {"shards": {}})
    options = [whole, "--configfile", whole / "config.yaml", "--cores", 2]
    assert local(*options, f"{victim}/weights.pt").returncode == 0
    shutil.copytree(whole, split)
    write_config(split / "config.yaml", STUDY)
    calls, before = len(cluster.submitted()), set(cluster.jobs())
    snakemake = cluster.start(split, target)
    try:
        assert local(*options, target).returncode == 0
        assert snakemake.wait() == 0, (split / "printed.txt").read_text()
    finally:
        snakemake.kill()
    made = digests(split)
    assert made == digests(whole) and target in made and f"{victim}/features/database.h5" in made
    jobs = [job for number, job in cluster.jobs().items() if number not in before]
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    names = Counter(re.match("rule_([a-z_]+?)(?=_wildcards|$)", job["Comment"])[1] for job in jobs)
    assert names == {"extract_shard": 3, "features_extract": 1, "codebooks_quantize": 1, "attack_shard": 3, "attacks_attack": 1}
    gpus = [option(call, "--gpus") for call in cluster.submitted()[calls:]]
    assert (gpus.count("1"), gpus.count(None)) == (6, 3), "joining shards needs none"
