"""The tiny study on a real SLURM: the results of the local run, in few jobs, through every way in which a job can end badly."""

import os
import shutil
import signal
import sys
import time

import psutil
import pytest
import yaml

from ..workflow.conftest import ROOT, write_config
from ..workflow.test_crash import assert_absent_or_complete, assert_same
from .conftest import wait_for

sys.path.append(str(ROOT / "docs"))
from jobs import submitted  # noqa: E402

pytestmark = pytest.mark.cluster


@pytest.fixture
def folder(study, tmp_path):
    shutil.copyfile(study[0] / "config.yaml", tmp_path / "config.yaml")
    return tmp_path


@pytest.fixture(scope="module")
def run(cluster, request, tmp_path_factory):
    """A folder in which the tiny study was run on the cluster, what the run printed, and the calls of sbatch."""
    folder = tmp_path_factory.mktemp("on_cluster")
    write_config(folder / "config.yaml", yaml.safe_load((ROOT / "config/tiny.yaml").read_text()))
    before = len(cluster.submitted())
    snakemake = cluster.start(folder, "all")
    try:
        request.getfixturevalue("study")  # meanwhile, the same without the cluster
        assert snakemake.wait() == 0, (folder / "printed.txt").read_text()
    finally:
        snakemake.kill()
    return folder, (folder / "printed.txt").read_text(), cluster.submitted()[before:]


def option(words, name):
    """The value of an option of sbatch, written as two words or one; None where it is not given."""
    for word, after in zip(words, [*words[1:], ""]):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
    return None


def planned(folder):
    """What docs/jobs.py says is submitted for all of the study in ``folder``."""
    return submitted(folder / "config.yaml", folder, "all")


def test_as_many_jobs_as_the_table_in_the_docs_counts(run):
    assert len(run[2]) == len(planned(run[0])) == 10


def test_results_are_those_of_the_local_run(run, study, monkeypatch):
    assert_same(run[0], study[0], monkeypatch)
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
    """What limits GPU jobs on one machine does not limit a cluster."""
    name = option(run[2][0], "--job-name")
    jobs = [job for job in cluster.jobs().values() if job["JobName"] == name and job["Comment"].startswith("rule_pretrain")]
    assert len(jobs) == 2 and max(job["StartTime"] for job in jobs) < min(job["EndTime"] for job in jobs)


def running(cluster, step):
    """The job of a rule or group that is now at work, if there is one."""
    jobs = [job for job in cluster.jobs().values() if job["JobState"] == "RUNNING" and job.get("Comment", "").startswith(f"rule_{step}")]
    return jobs[-1]["JobId"] if jobs else None


def pretraining(folder, model):
    """The process that trains ``model`` in ``folder``, if there is one."""
    for process in psutil.process_iter():
        try:
            program, *words = process.cmdline() or [""]
            if "python" in program and words[-1:] and words[-1].endswith(".pretrain.py") and process.cwd() == str(folder):
                above = (word for parent in process.parents() for word in parent.cmdline())
                if any(word.startswith(f"pretrain:dataset=synthetic,model={model},") for word in above):
                    return process
        except psutil.Error:
            pass
    return None


def test_killed_by_the_scheduler_a_job_is_sent_again(cluster, folder, study):
    """The training of one network runs out of memory, the other's out of time, and the job of the codebooks is taken away; and for a while
    the controller does not answer."""
    targets = [f"results/tiny/synthetic/{model}-pretrained/seed0/16bits/codebook.h5" for model in ("alexnet", "vgg16")]
    little = "150 if attempt == 1 and wildcards.model == 'alexnet' else 3000"
    before = set(cluster.jobs())
    limits = [f"pretrain:mem_mb={little}", "pretrain:runtime=1 if attempt == 1 else 30"]
    snakemake = cluster.start(folder, "--set-resources", *limits, "--", *targets)
    try:
        stopped = wait_for(lambda: pretraining(folder, "vgg16"))
        stopped.send_signal(signal.SIGSTOP)  # a step that hangs
        (cluster.folder / "away").touch()
        time.sleep(15)
        (cluster.folder / "away").unlink()
        cluster.call("scancel", wait_for(lambda: running(cluster, "codebooks"), 300))
        assert snakemake.wait() == 0, (folder / "printed.txt").read_text()
    finally:
        (cluster.folder / "away").unlink(missing_ok=True)
        snakemake.kill()
    jobs = [job for number, job in cluster.jobs().items() if number not in before]
    assert sorted((job["Comment"].split("_")[1], job["JobState"]) for job in jobs) == [
        ("codebooks", "CANCELLED"),
        ("codebooks", "COMPLETED"),
        ("features", "COMPLETED"),
        ("prepare", "COMPLETED"),
        ("pretrain", "COMPLETED"),
        ("pretrain", "COMPLETED"),
        ("pretrain", "FAILED"),
        ("pretrain", "TIMEOUT"),
    ]
    logs = [log.read_text() for log in (folder / ".snakemake/slurm_logs").glob("rule_pretrain/**/*.log")]
    assert sum("Exceeded job memory limit" in log for log in logs) == 1
    assert all((folder / target).exists() for target in targets)
    assert_absent_or_complete(folder, study[0])


def test_killed_and_started_again_it_goes_on_and_jobs_of_the_old_run_end(cluster, folder, study):
    """Jobs outlive a Snakemake that was killed: one that still waits, and one that is at work."""
    target = "results/tiny/synthetic/alexnet-pretrained/seed0/16bits/codebook.h5"
    before = set(cluster.jobs())

    def new(step, state):
        jobs = cluster.jobs()
        return [n for n in jobs if n not in before and jobs[n]["JobState"] == state and jobs[n]["Comment"].startswith(f"rule_{step}")]

    def kill(snakemake):
        os.killpg(snakemake.pid, signal.SIGKILL)
        snakemake.wait()

    cluster.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    first = cluster.start(folder, target)
    try:
        (waiting,) = wait_for(lambda: new("prepare", "PENDING"))
    finally:
        kill(first)
    second = cluster.start(folder, target)
    try:
        wait_for(lambda: len(new("prepare", "PENDING")) == 2)
        cluster.call("scontrol", "update", "PartitionName=main", "State=UP")
        (working,) = wait_for(lambda: new("pretrain", "RUNNING"))
        wait_for(lambda: pretraining(folder, "alexnet"))
        cluster.call("scontrol", "suspend", working)
    finally:
        kill(second)
    third = cluster.start(folder, target)
    try:
        wait_for(lambda: len(new("pretrain", "RUNNING")) + len(new("pretrain", "COMPLETED")) == 1)
        cluster.call("scontrol", "resume", working)
        assert third.wait() == 0, (folder / "printed.txt").read_text()
    finally:
        third.kill()
    jobs = cluster.jobs()
    assert [jobs[number]["JobState"] for number in (waiting, working)] == ["FAILED", "FAILED"]
    (log,) = (folder / ".snakemake/slurm_logs").rglob(f"{waiting}.log")
    assert "another has begun in this folder" in log.read_text()
    assert (folder / target).exists()
    assert_absent_or_complete(folder, study[0])
