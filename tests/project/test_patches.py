"""What this workflow changes in Snakemake: only through one helper, once, and with a sentence where it cannot."""

import os
import re
import subprocess
import sys
import types

import pqag_snakemake
import pytest
import snakemake
from snakemake.cli import get_argument_parser
from snakemake.settings.types import MaxJobsPerTimespan

from ..workflow.conftest import ROOT


def owner():
    return types.SimpleNamespace(__name__="Owner", greet=lambda name: f"hello {name}")


def test_a_replacement_gets_the_original_however_often_it_is_made():
    """As when one process reads the Snakefile several times: the last replacement counts, and none wraps another."""
    changed = owner()
    for mark in ("!", "?"):
        pqag_snakemake.replace(changed, "greet", lambda every, mark=mark: lambda name: every(name) + mark, "politeness")
    assert changed.greet("you") == "hello you?"
    with pytest.raises(
        SystemExit, match=rf"^Snakemake {snakemake.__version__} has no Owner\.wave, which this workflow replaces \(a wave\)\.$"
    ):
        pqag_snakemake.replace(owner(), "wave", lambda every: every, "a wave")


@pytest.mark.parametrize(
    ("version", "fits"), [("9.26.3", False), ("9.27.0", True), ("9.31.2+local", True), ("10.0.0", False), ("8.30", False)]
)
def test_versions_of_snakemake_that_are_supported(version, fits):
    words = pqag_snakemake.unsupported(version)
    assert (words is None) == fits
    assert fits or words == f"Snakemake {version} is installed, but this workflow needs 9.27 or later, below 10: run `make setup`."


def test_the_pinned_version_is_supported():
    [pin] = re.findall(r"^snakemake==(.*)$", (ROOT / "envs/requirements.txt").read_text(), re.MULTILINE)
    assert pqag_snakemake.unsupported(pin) is None


def run(folder, *arguments):
    return subprocess.run([sys.executable, "-m", "snakemake", "--cores", "1", *arguments], cwd=folder, capture_output=True, text=True)


def test_an_unsupported_version_is_refused_before_anything_else(tmp_path):
    (tmp_path / "old.py").write_text(
        "import sys, snakemake, pqag_snakemake\n"
        "pqag_snakemake.unsupported.__defaults__ = ('9.1.0',)\n"
        "from snakemake.cli import main\n"
        f"sys.argv = ['snakemake', '--snakefile', {str(ROOT / 'Snakefile')!r}, '--cores', '1', '-n', 'all']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "old.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Snakemake 9.1.0 is installed, but this workflow needs 9.27 or later" in done.stderr
    assert "Traceback" not in done.stderr


def test_as_a_module_of_another_workflow_it_is_refused_in_a_sentence(tmp_path):
    text = f'module pqag:\n    snakefile: "{ROOT}/Snakefile"\n    config: config\n\nuse rule * from pqag as pqag_*\n'
    (tmp_path / "Snakefile").write_text(text)
    done = run(tmp_path, "-n")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).strip().splitlines()[-1].startswith("This workflow cannot be a module of another: ")


def test_the_library_of_another_clone_on_pythonpath_is_refused_by_its_path(tmp_path, monkeypatch):
    """An own library there, a folder without one, and an empty entry are fine."""
    (tmp_path / "other/pqag").mkdir(parents=True)
    for path, fine in ((tmp_path / "other", False), (ROOT / "scripts", True), (tmp_path, True), ("", True)):
        monkeypatch.setenv("PYTHONPATH", f":{path}")
        done = run(tmp_path, "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / "config/tiny.yaml"), "-n", "study")
        assert (done.returncode == 0) == fine, done.stderr
        assert fine or f"PYTHONPATH has {path}, whose library pqag would compute" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("limit", "local", "holds"), [("100/1s", True, False), ("100/1s", False, True), ("5/1s", True, True), ("100/1m", True, True)]
)
def test_only_the_usual_limit_of_jobs_a_second_is_dropped_and_only_here(limit, local, holds):
    settings = types.SimpleNamespace(max_jobs_per_timespan=MaxJobsPerTimespan.parse_choice(limit))
    scheduler = types.SimpleNamespace(
        workflow=types.SimpleNamespace(scheduling_settings=settings, local_exec=local), job_rate_limiter="limiter"
    )
    assert pqag_snakemake.without_a_rate_limit(lambda one: one.job_rate_limiter)(scheduler) == ("limiter" if holds else None)


def test_the_usual_limit_is_the_one_that_snakemake_has():
    limit = get_argument_parser().parse_args(["--cores", "1"]).max_jobs_per_timespan
    limit = limit if isinstance(limit, MaxJobsPerTimespan) else MaxJobsPerTimespan.parse_choice(limit)
    assert (limit.max_jobs, limit.timespan) == (100, 1)


def test_nothing_else_changes_snakemake():
    profiles = (path for path in (ROOT / "profiles").rglob("*") if path.suffix in (".yaml", ".py"))
    for path in [*(ROOT / "rules").glob("*.smk"), ROOT / "Snakefile", *profiles]:
        found = re.findall(
            r"^\s*(?:PersistenceBase|Job|SpawnedJobArgsFactory|plugin|snakemake[\w.]*)\.\w+ = .*", path.read_text(), re.MULTILINE
        )
        assert not found, f"{path}: {found}"


def test_the_memory_of_a_machine_is_the_lowest_limit_around_the_process(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    machine = pqag_snakemake.memory_mb(tmp_path, groups)
    assert machine == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    (proc / "self").mkdir(parents=True)
    (groups / "user/job").mkdir(parents=True)
    (groups / "memory/old").mkdir(parents=True)
    (proc / "self/cgroup").write_text("5:cpu:/\n0::/user/job\n")
    assert pqag_snakemake.memory_mb(proc, groups) == machine
    (groups / "user/job/memory.max").write_text("max\n")
    (groups / "user/memory.max").write_text(f"{512 * 2**20}\n")
    (groups / "memory/old/memory.limit_in_bytes").write_text(f"{256 * 2**20}\n")
    assert pqag_snakemake.memory_mb(proc, groups) == 512
    (proc / "self/cgroup").write_text("5:memory:/old\n0::/user/job\n")
    assert pqag_snakemake.memory_mb(proc, groups) == 256


def test_a_job_that_asks_for_more_memory_than_there_is_starts_with_a_warning(tmp_path):
    files = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / "config/tiny.yaml")]
    done = run(tmp_path, *files, "-n", "--resources", "mem_mb=900", "--", "table1")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("pretrain asks for ")]
    assert line.endswith(" MiB of memory, but only 900 MiB are there: it runs alone, and may be killed.")
    assert done.returncode == 0 and "Training vgg16" in done.stderr
