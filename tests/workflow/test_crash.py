"""What a kill, a failing system call and a full disk leave behind: final paths absent or complete, and one restart makes it good."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pqag import files
from pqag.audit import diff
from pqag.audit.verify import UNRECORDED, verify
from pqag.job import records

from .conftest import ROOT, dry_run, snakemake, write_config

KILLS = 12  # in turns of Snakemake, of a job, and of the whole process group
RESULTS = "results/tiny"
REFUSED = re.compile(r"Another run (is going on|has just ended) in this folder.*")


def command(folder, *targets):
    arguments = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml", "--cores", 2, "--"]
    return [sys.executable, "-m", "snakemake", *map(str, arguments), *targets]


def start(folder, *targets):
    """Snakemake in a process group of its own, with what it prints in ``printed.txt``."""
    with (folder / "printed.txt").open("w") as printed:
        return subprocess.Popen(command(folder, *targets), cwd=ROOT, start_new_session=True, stdout=printed, stderr=subprocess.STDOUT)


def paths(folder):
    """The final paths of ``folder`` that hold results, as they are named there: all but what tells the time."""
    found = [path.relative_to(folder) for top in ("data", "results") for path in (folder / top).rglob("*") if path.is_file()]
    return {
        path
        for path in found
        if not path.name.endswith((records.SUFFIX, ".part")) and not UNRECORDED.fullmatch(str(path).removeprefix(f"{RESULTS}/"))
    } - {Path(RESULTS, "MANIFEST.sha256")}


def assert_absent_or_complete(folder, undisturbed):
    """Every final path has the bytes of the undisturbed run or is not there, and every record is whole."""
    for path in paths(folder):
        assert (folder / path).read_bytes() == (undisturbed / path).read_bytes(), path
    for record in folder.rglob(f"*{records.SUFFIX}"):
        assert records.is_sealed(record), record


def assert_same(folder, undisturbed, monkeypatch):
    """Both ran to the end, with the same digests of all that does not tell the time; nothing is left over, and verify is content."""
    assert paths(folder) == paths(undisturbed)
    assert_absent_or_complete(folder, undisturbed)
    assert not list(folder.rglob("*.part")) + list((folder / "results").rglob("unfinished.pt"))
    told = diff.differences(undisturbed / RESULTS, folder / RESULTS)
    assert [line for line in told if not line.startswith("note: ")] == []
    monkeypatch.chdir(folder)
    assert verify(Path(RESULTS))[0] == []


@pytest.fixture
def folder(table1, tmp_path):
    shutil.copyfile(table1[0] / "config.yaml", tmp_path / "config.yaml")
    return tmp_path


def jobs_of(run):
    """The processes of steps below a Snakemake."""
    children = psutil.Process(run.pid).children(recursive=True)
    return [child for child in children if any(".snakemake/scripts/" in word for word in child.cmdline())]


def kill(run, whom):
    """Whether there was something to kill; Snakemake itself is gone afterwards, by the kill or because its job failed."""
    try:
        jobs = jobs_of(run)
        if whom == "job" and not jobs:
            return False
        if whom == "job":
            random.choice(jobs).kill()
        else:
            (os.killpg if whom == "group" else os.kill)(run.pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    run.wait()
    return True


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_and_ends_in_the_same_bits(folder, table1, monkeypatch):
    """SIGKILL of Snakemake, of a job or of both, again and again on the way through one study; then one start without."""
    random.seed(0)
    done = Counter()
    while sum(done.values()) < KILLS:
        run = start(folder, "all")
        while not re.search(r"\[\d+/\d+ done", (folder / "printed.txt").read_text()) and run.poll() is None:
            time.sleep(0.05)
        time.sleep(random.uniform(0, 4))
        whom = ("snakemake", "job", "group")[sum(done.values()) % 3]
        if run.poll() is None and kill(run, whom):
            done[whom] += 1
            assert_absent_or_complete(folder, table1[0])
        elif run.wait() == 0:  # through before its time: once more from the beginning
            assert_same(folder, table1[0], monkeypatch)
            shutil.rmtree(folder / "results")
            shutil.rmtree(folder / "data")
    assert set(done) == {"snakemake", "job", "group"} and min(done.values()) == KILLS // 3
    again = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert again.returncode == 0, again.stderr
    assert_same(folder, table1[0], monkeypatch)


@pytest.fixture
def strace():
    """Runs a command with a system call failing; returns its exit status and how many calls failed."""
    able = shutil.which("strace") and subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0
    if not able:
        assert "REQUIRE_STRACE" not in os.environ, "strace is wanted here, but not installed, or may not trace"
        pytest.skip("strace is not installed, or may not trace")

    def run(log, calls, error, when, arguments):
        traced = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"]
        done = subprocess.run([*traced, *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, log.read_text().count("(INJECTED)")

    return run


#: A file of each kind of writer: HDF5, weights, JSON, and a table in several files.
TARGETS = {
    "images": f"{RESULTS}/synthetic/images.h5",
    "weights": f"{RESULTS}/synthetic/alexnet-pretrained/seed0/weights.pt",
    "metrics": f"{RESULTS}/synthetic/alexnet-pretrained/seed0/16bits/metrics/clean.json",
    "table": f"{RESULTS}/tables/table1.csv",
}
RENAMES = "rename,renameat,renameat2"
#: The number of the call is counted in every thread of its own, so one run meets it in Snakemake and in its job.
INJECTED = {"fsync": ("EIO", (1, 2)), RENAMES: ("EIO", (1, 2)), "write": ("ENOSPC", (1, 3, 6, 12))}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_failing_write_sync_or_rename_leaves_no_half_file(target, table1, tmp_path, monkeypatch, strace):
    folder = tmp_path / "study"
    shutil.copytree(table1[0], folder, symlinks=True)
    monkeypatch.chdir(folder)
    record = records.record_of(TARGETS[target])
    made = records.outputs(records.read(record))
    for calls, (error, numbers) in INJECTED.items():
        hit = 0
        for when in numbers:
            for name in (*made, record):
                Path(name).unlink(missing_ok=True)
            status, failed = strace(tmp_path / "strace.log", calls, error, when, command(folder, TARGETS[target]))
            hit += bool(failed and status)
            assert_absent_or_complete(folder, table1[0])
        assert hit, "a call that never failed shows nothing"
        again = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "--", TARGETS[target])
        assert again.returncode == 0, again.stderr
        assert {name: files.sha256(name) for name in made} == made
        assert_absent_or_complete(folder, table1[0])
        assert not list((folder / "results").rglob("*.part"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and what sets its size in KiB."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(kib, *options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={kib}k"]), "tmpfs", place], capture_output=True)

    if resize(100).returncode:
        pytest.skip("only root may mount a small file system")
    yield place, lambda kib: resize(kib, "remount")
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_and_going_on_with_more_room_ends_in_the_same_bits(table1, small_disk, monkeypatch):
    folder, resize = small_disk
    shutil.copyfile(table1[0] / "config.yaml", folder / "config.yaml")
    needed = sum(path.stat().st_size for path in table1[0].rglob("*") if path.is_file()) // 1024
    for share in (0.4, 0.8):
        assert resize(int(needed * share)).returncode == 0
        done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
        assert done.returncode != 0, f"{share} of {needed} KiB was enough"
        assert "no space left on the disk" in done.stderr.lower(), done.stderr
        assert_absent_or_complete(folder, table1[0])
    assert resize(3 * needed).returncode == 0
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stderr
    assert_same(folder, table1[0], monkeypatch)


@pytest.mark.slow
def test_of_six_starts_at_once_one_runs_and_the_others_say_so(folder, table1):
    starts = [subprocess.Popen(command(folder, TARGETS["images"]), cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    last_lines = [(run.communicate()[1].splitlines()[-1], run.returncode) for run in starts]
    assert [status for _, status in last_lines].count(0) == 1, last_lines
    assert all(REFUSED.fullmatch(line) for line, status in last_lines if status), last_lines
    assert_absent_or_complete(folder, table1[0])
    assert (folder / TARGETS["images"]).exists()


def test_a_start_that_planned_before_another_run_ended_is_refused(tiny, tmp_path, monkeypatch):
    """It holds the lock, but its plan is out of date."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "config.yaml", tiny)
    (tmp_path / ".snakemake/incomplete").mkdir(parents=True)
    _, workflow = dry_run(tmp_path, tiny, TARGETS["images"])
    only_run = workflow.globals["only_run"]
    with only_run(workflow.persistence):
        pass
    (tmp_path / ".snakemake/incomplete/a job").touch()
    with pytest.raises(SystemExit) as ended, only_run(workflow.persistence):
        pytest.fail("it goes on")
    assert ended.value.code == 1
