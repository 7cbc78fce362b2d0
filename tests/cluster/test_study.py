"""The tiny study on a real SLURM: the results of the local run, in few jobs, of which one that fails takes nothing from the others."""

import json
import shutil
import sys

import pytest
import yaml

from ..conftest import run_study
from ..workflow.conftest import ROOT, plan, write_config
from ..workflow.conftest import snakemake as local
from ..workflow.test_crash import assert_same
from .conftest import option

sys.path.append(str(ROOT / "scripts/tools"))
from jobs import submitted  # noqa: E402

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def runs(cluster, table1, tmp_path_factory):
    """A folder in which the tiny study, with figures of one network, was run on the cluster, what the run printed, and the calls of sbatch;
    and one in which the run of Table 1 went on to the same study without the cluster, meanwhile.
    """
    study = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    study["figures"]["models"] = study["figures"]["sweep"]["models"] = ["vgg16"]
    folder = tmp_path_factory.mktemp("on_cluster")
    write_config(folder / "config.yaml", study)
    before = len(cluster.submitted())
    snakemake = cluster.start(folder, "all")
    try:
        without = shutil.copytree(table1[0], tmp_path_factory.mktemp("without") / "copy", symlinks=True)
        run_study(without, study)
        assert snakemake.wait() == 0, (folder / "printed.txt").read_text()
    finally:
        snakemake.kill()
    return (folder, (folder / "printed.txt").read_text(), cluster.submitted()[before:]), without


@pytest.fixture
def run(runs):
    return runs[0]


def planned(folder):
    """What scripts/tools/jobs.py says is submitted for all of the study in ``folder``."""
    return submitted(folder / "config.yaml", folder, "all")


def test_as_many_jobs_as_the_table_in_the_docs_counts(run):
    assert len(run[2]) == len(planned(run[0])) == 10


def test_results_are_those_of_the_local_run(run, runs, monkeypatch):
    assert_same(run[0], runs[1], monkeypatch)
    assert "Table 1" in run[1]


def test_sbatch_is_told_what_the_rules_ask_for(run):
    """Of the steps of a job the most memory and processors, and the sum of their times; a GPU for networks, and only for them."""
    jobs = [[step.resources for step in job] for job in planned(run[0])]
    stated = [
        (max(r["mem_mb"] for r in job), sum(r["runtime"] for r in job), max(r["_cores"] for r in job), max(r.get("gpu", 0) for r in job))
        for job in jobs
    ]
    keys = ("--mem", "-t", "--cpus-per-task", "--gpus")
    assert sorted(tuple(int(option(call, key) or 0) for key in keys) for call in run[2]) == sorted(stated)
    with_gpu = {option(call, "--comment").split("_")[1] for call in run[2] if option(call, "--gpus")}
    assert with_gpu == {"pretrain", "features", "attacks", "transfers", "sweeps"}
    for call in run[2]:
        assert option(call, "--job-name").startswith("pqag_") and "--requeue" in call


def test_two_jobs_with_a_gpu_run_side_by_side(cluster, run):
    name = option(run[2][0], "--job-name")
    jobs = [job for job in cluster.jobs().values() if job["JobName"] == name and job["Comment"].startswith("rule_pretrain")]
    assert len(jobs) == 2 and max(job["StartTime"] for job in jobs) < min(job["EndTime"] for job in jobs)


def test_a_step_that_fails_takes_nothing_from_the_others_of_its_job(cluster, run, tmp_path):
    """All three have other settings than those by which their files were made, and one an error; mended, it alone is computed.

    Before that the job is refused: files of the old settings must not pass for what it was to make.
    """
    folder = shutil.copytree(run[0], tmp_path / "copy")
    loss = "def loss(z, clean, head):\n    {}\n    return 1 - (z * clean).sum(1)\n"
    (folder / "mine.py").write_text(loss.format("raise ValueError('not yet')"))
    study = yaml.safe_load((folder / "config.yaml").read_text())
    study["attacks"] = {name: {"loss": name, "iterations": 2} for name in ("basic", "apd", "aod")} | {"basic": {"loss": "mine:loss"}}
    write_config(folder / "config.yaml", study)
    targets = [f"results/tiny/synthetic/vgg16-pretrained/seed0/16bits/adversarial/{attack}.h5" for attack in study["attacks"]]

    def attempt(*options):
        before = set(cluster.jobs())
        snakemake = cluster.start(folder, "--retries", 0, *options, "--", *targets)
        try:
            assert snakemake.wait() == 1
        finally:
            snakemake.kill()
        return [job for number, job in cluster.jobs().items() if number not in before]

    def missing():
        return sorted(wildcards["attack"] for rule, wildcards in plan(folder, study, *targets) if rule == "attack")

    assert missing() == ["aod", "apd", "basic"]
    assert attempt("--default-resources", "at_once=1", "slurm_partition=nowhere") == []
    assert missing() == ["aod", "apd", "basic"]
    (job,) = attempt()
    assert (job["Comment"], job["JobState"]) == ("rule_attacks_attack", "FAILED")
    assert "ValueError: not yet" in (folder / "printed.txt").read_text()
    (folder / "mine.py").write_text(loss.format("pass"))
    assert missing() == ["basic"]
    assert local(folder, "--configfile", folder / "config.yaml", "--cores", 2, *targets).returncode == 0
    health = [json.loads((folder / target.replace(".h5", ".health.json")).read_text()) for target in targets]
    assert [len(one["loss"]) for one in health] == [6, 3, 3]
