"""Jobs that the scheduler ends, and a Snakemake that is killed: on a real SLURM, a study is completed all the same."""

import os
import re
import shutil
import signal
import time

import psutil
import pytest

from ..workflow.conftest import ROOT
from ..workflow.test_crash import assert_absent_or_complete
from .conftest import wait_for

pytestmark = pytest.mark.cluster

#: Where the way of a victim of the tiny study ends here.
TARGETS = {model: f"results/tiny/synthetic/{model}-pretrained/seed0/16bits/codebook.h5" for model in ("alexnet", "vgg16")}


@pytest.fixture
def folder(tmp_path):
    shutil.copyfile(ROOT / "config/tiny.yaml", tmp_path / "config.yaml")
    return tmp_path


def running(cluster, step):
    """The running job of a rule or group, if there is one."""
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


def test_killed_by_the_scheduler_a_job_is_sent_again(cluster, folder, table1):
    """The training of one network runs out of memory, the other's out of time, and the job of the codebooks is taken away; and for a while
    the controller does not answer."""
    little = "150 if attempt == 1 and wildcards.model == 'alexnet' else 3000"
    before = set(cluster.jobs())
    limits = [f"pretrain:mem_mb={little}", "pretrain:runtime=1 if attempt == 1 else 30"]
    snakemake = cluster.start(folder, "--set-resources", *limits, "--", *TARGETS.values())
    try:
        stopped = wait_for(lambda: pretraining(folder, "vgg16"))
        stopped.send_signal(signal.SIGSTOP)  # a step that hangs
        (cluster.folder / "away").touch()
        time.sleep(5)
        (cluster.folder / "away").unlink()
        cluster.call("scancel", wait_for(lambda: running(cluster, "codebooks"), 300))
        assert snakemake.wait() == 0, (folder / "printed.txt").read_text()
    finally:
        (cluster.folder / "away").unlink(missing_ok=True)
        snakemake.kill()
    jobs = [job for number, job in cluster.jobs().items() if number not in before]
    ends = {"codebooks": ["CANCELLED", "COMPLETED"], "features": ["COMPLETED"], "prepare": ["COMPLETED"]}
    ends["pretrain"] = ["COMPLETED", "COMPLETED", "FAILED", "TIMEOUT"]
    found = sorted((job["Comment"].split("_")[1], job["JobState"]) for job in jobs)
    assert found == [(step, state) for step, states in ends.items() for state in states]
    printed = (folder / "printed.txt").read_text()
    for why in ("exceeded.* memory limit", "DUE TO TIME LIMIT"):
        assert len(re.findall(f"(?i)pretrain failed: the cluster ended it, .*{why}", printed)) == 1
    assert all((folder / target).exists() for target in TARGETS.values())
    assert_absent_or_complete(folder, table1[0])


def test_killed_and_started_again_it_goes_on_and_jobs_of_the_old_run_end(cluster, folder, table1):
    target = TARGETS["alexnet"]
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
    assert_absent_or_complete(folder, table1[0])
