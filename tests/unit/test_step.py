"""What every script shares: its log, its errors, its record, its end, its device, its progress bar."""

import datetime
import fcntl
import hashlib
import io
import logging
import os
import re
import select
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path

import pytest
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from pqag import files
from pqag.errors import UserError
from pqag.job import records
from pqag.job import step as module
from pqag.job.provenance import LIBRARY
from pqag.job.step import _end_with_parent, came_from, progress, step


@pytest.fixture(autouse=True)
def logging_as_before():
    """A step takes over the root logger, as it may in a process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture(autouse=True)
def script(monkeypatch):
    """The script that runs; in a process of its own it is the main module."""
    monkeypatch.setattr(module, "_script", lambda: LIBRARY.parent / "evaluate.py")


@pytest.fixture(autouse=True)
def ends_with_parent(monkeypatch):
    """The tests' own process must not end when the one that started it does; holds a call for every step."""
    calls = []
    monkeypatch.setattr(module, "_end_with_parent", lambda: calls.append("called"))
    return calls


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def given(inputs=(), outputs=(), record="made.prov.json", **config):
    """The part of what Snakemake gives to a script that a step uses, in Snakemake's own containers."""
    return types.SimpleNamespace(
        rule="evaluate",
        input=InputFiles(list(inputs)),
        output=OutputFiles(list(outputs), fromdict={"record": record}),
        wildcards=Wildcards(fromdict={"seed": "3", "bits": "16"}),
        params=Params(fromdict={"settings": {"threads": 1, "code": "abc"}}),
        log=Log(["logs/step.log"]),
        config=config,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the workflow runs in, with ``in.txt`` and the record that it was made by another job."""
    monkeypatch.chdir(tmp_path)
    made("in.txt", b"input")
    return tmp_path


def made(path, content: bytes):
    """A file with the record of a job that made it."""
    Path(path).write_bytes(content)
    job = records.Job("prepare", LIBRARY.parent / "prepare.py", {}, {"code": "of another job"})
    record = records.statement(job, {path: sha256(content)}, {}, [], records.now(), True)
    files.write_json(Path(path).with_suffix(".prov.json"), record)


@pytest.fixture
def snakemake(folder):
    return given()


def log_of(snakemake):
    with open(snakemake.log[0], encoding="utf-8") as file:
        return file.read()


def last_line(snakemake):
    return log_of(snakemake).splitlines()[-1]


def fail(snakemake, error):
    """Run a step that raises ``error``; its exit status."""
    with pytest.raises(SystemExit) as ended, step(snakemake):
        raise error
    return ended.value.code


def test_a_good_end_is_silent_and_goes_on_after_the_body(snakemake, capsys, ends_with_parent):
    before = sys.stdout, sys.stderr
    with step(snakemake) as settings:
        assert settings == {"threads": 1, "code": "abc"}
        assert ends_with_parent == ["called"], "every step ends with its parent"
        assert sys.stdout is not before[0] and sys.stderr is not before[1]
    assert log_of(snakemake) == "" and capsys.readouterr() == ("", "")
    assert (sys.stdout, sys.stderr) == before


def test_a_user_error_is_one_sentence_at_the_end_of_the_log_and_no_traceback(snakemake, capsys):
    before = sys.stdout, sys.stderr
    assert fail(snakemake, UserError("datasets.x.source: there is no such folder")) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} error: datasets.x.source: there is no such folder", last_line(snakemake))
    assert "Traceback" not in log_of(snakemake) and "UserError" not in log_of(snakemake)
    assert capsys.readouterr() == ("", "") and (sys.stdout, sys.stderr) == before


def test_another_error_keeps_its_traceback_and_ends_with_type_and_message(snakemake, capsys):
    assert fail(snakemake, KeyError("codewords")) == 1
    assert last_line(snakemake).endswith(" error: KeyError: 'codewords'")
    assert "Traceback (most recent call last)" in log_of(snakemake)
    assert "in fail" in log_of(snakemake), "the line that raised"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError(), " error: ValueError: no further words"),
        (RuntimeError("size mismatch\n\tfor head.weight"), " error: RuntimeError: size mismatch for head.weight"),
        (UserError("it is no archive:\n- not gz"), " error: it is no archive: - not gz"),
    ],
)
def test_an_error_of_several_lines_or_none_is_told_in_the_last_line(snakemake, error, words):
    """load_state_dict, CUDA and tarfile raise such."""
    fail(snakemake, error)
    assert last_line(snakemake).endswith(words)


def test_a_job_that_ended_well_leaves_its_record(folder):
    job = given(["in.txt"], ["out.txt", "more.txt"], "out.prov.json")
    before = datetime.datetime.now(datetime.UTC)
    with step(job):
        came_from("archive.tar", "e" * 64)
        assert not Path("out.prov.json").exists()
        Path("out.txt").write_bytes(b"output")
        Path("more.txt").write_bytes(b"")
    record = records.read("out.prov.json")
    assert records.outputs(record) == {"out.txt": sha256(b"output"), "more.txt": sha256(b"")}
    assert records.dependencies(record, "input") == {"in.txt": sha256(b"input")}
    assert records.dependencies(record, "raw") == {"archive.tar": "e" * 64}
    assert {"scripts/evaluate.py", "scripts/pqag/job/step.py", "scripts/pqag/retrieval.py"} <= records.dependencies(record, "code").keys()
    assert records.settings_of(record) == {"threads": 1, "code": "abc"}
    definition, run = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
    assert definition["externalParameters"] == {"rule": "evaluate", "wildcards": {"seed": "3", "bits": "16"}, "settings": {"threads": 1}}
    started, finished = (datetime.datetime.fromisoformat(run["metadata"][key]) for key in ("startedOn", "finishedOn"))
    assert before - datetime.timedelta(milliseconds=1) <= started <= finished <= datetime.datetime.now(datetime.UTC)
    assert sorted(os.listdir()) == ["in.prov.json", "in.txt", "logs", "more.txt", "out.prov.json", "out.txt"]
    with step(given(["in.txt", "in.prov.json"])):
        pass
    inputs = records.dependencies(records.read("made.prov.json"), "input")
    assert inputs == {"in.txt": sha256(b"input"), "in.prov.json": sha256(Path("in.prov.json").read_bytes())}


def test_the_record_is_written_after_everything_else(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(files, "write_json", lambda path, record: seen.append((path, sorted(os.listdir()))))
    with step(given(outputs=["out.txt"])):
        Path("out.txt").write_bytes(b"output")
    assert seen == [("made.prov.json", ["in.prov.json", "in.txt", "logs", "out.txt"])]


@pytest.mark.parametrize("error", [UserError("x"), ValueError("x"), KeyboardInterrupt(), SystemExit(0)])
def test_a_job_that_did_not_end_well_leaves_no_record(folder, error):
    with pytest.raises(BaseException) as ended, step(given(outputs=["out.txt"])):
        Path("out.txt").write_bytes(b"output")
        raise error
    passed_on = isinstance(error, KeyboardInterrupt | SystemExit)
    assert ended.value is error if passed_on else isinstance(ended.value, SystemExit)
    assert not Path("made.prov.json").exists()


def test_a_job_that_did_not_write_all_its_outputs_is_an_error_and_leaves_no_record(folder):
    job = given(outputs=["out.txt", "forgotten.txt"])
    with pytest.raises(SystemExit) as ended, step(job):
        Path("out.txt").write_bytes(b"output")
    assert ended.value.code == 1
    assert "forgotten.txt" in last_line(job)
    assert not Path("made.prov.json").exists()


def test_what_came_from_outside_and_host_and_user_are_recorded_as_they_should(folder):
    for config, there in (({}, True), ({"anonymous": False}, True), ({"anonymous": True}, False)):
        with step(given(**config)):
            pass
        machine = records.read("made.prov.json")["predicate"]["runDetails"]["byproducts"][0]["annotations"]
        assert ("host" in machine, "user" in machine) == (there, there)
    with step(given(record="first.prov.json")):
        came_from("a", "a" * 64)
        came_from("b", "b" * 64)
    fail(given(), UserError("x"))
    with step(given(record="second.prov.json")):
        pass
    assert records.dependencies(records.read("first.prov.json"), "raw") == {"a": "a" * 64, "b": "b" * 64}
    assert records.dependencies(records.read("second.prov.json"), "raw") == {}


def test_an_input_that_is_not_what_its_record_says_is_never_loaded(folder):
    Path("in.txt").write_bytes(b"INPUT")
    job = given(["in.txt"], ["out.txt"])
    with pytest.raises(SystemExit) as ended, step(job):
        pytest.fail("the body ran")
    assert ended.value.code == 1
    assert "in.txt is not what its job made" in last_line(job) and "delete it and run again" in last_line(job)
    assert "Traceback" not in log_of(job)
    assert not Path("made.prov.json").exists()


def test_an_input_that_changes_while_it_is_used_is_an_error_and_leaves_no_record(folder):
    job = given(["in.txt"])
    with pytest.raises(SystemExit) as ended, step(job):
        Path("in.txt").write_bytes(b"another text")
    assert ended.value.code == 1
    assert last_line(job).endswith(" error: in.txt was changed while it was used; run again")
    assert not Path("made.prov.json").exists()


PARENT = """
import os, subprocess, sys
how, *child = sys.argv[1:]
os.environ.pop("PQAG_PARENT", None)  # a workflow that was planned in the process of the tests left it
if how != "no word of the number":
    os.environ["PQAG_PARENT"] = str(os.getpid())
print("parent", flush=True)
if how == "a shell between":
    child = ["sh", "-c", '"$@"; exit $?', "sh", *child]
subprocess.run(child)
"""

CHILD = """
import sys, time
from pqag.job.step import _end_with_parent
how = sys.argv[1]
print("child", flush=True)
if how == "gone before":
    time.sleep(1)
if how != "control":
    _end_with_parent()
print("works", flush=True)
time.sleep(10 if how == "control" else 60)
"""


@pytest.fixture
def family(python):
    """Starts a process that starts another; both write to one pipe, which is at its end when both are gone."""

    def start(how):
        child = (sys.executable, "-W", "ignore", "-c", CHILD, how)
        return python(PARENT, how, *child, start=subprocess.Popen, stdout=subprocess.PIPE, text=True)

    return start


def both_end(process, seconds):
    """Whether nothing and nobody writes to the pipe any longer, within this time."""
    try:
        return process.communicate(timeout=seconds)[0] == ""
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.parametrize("how", ["no word of the number", "a shell between", "control"])
def test_a_job_ends_when_its_snakemake_is_killed(family, how):
    """The control does not watch its parent."""
    with family(how) as parent:
        assert [parent.stdout.readline() for _ in range(3)] == ["parent\n", "child\n", "works\n"]
        assert not select.select([parent.stdout], [], [], 0.7)[0], "it works on as long as its parent lives"
        parent.kill()
        parent.wait()
        assert both_end(parent, 2) == (how != "control")


def test_a_job_whose_snakemake_was_killed_before_it_could_look_does_not_work(family):
    with family("gone before") as parent:
        assert [parent.stdout.readline() for _ in range(2)] == ["parent\n", "child\n"]
        parent.kill()
        parent.wait()
        assert both_end(parent, 3)


def test_the_parent_is_checked_once_before_any_work(monkeypatch):
    """And not only by a thread, which may run later."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    ended = []

    def leave(status):
        ended.append((status, threading.current_thread()))
        raise SystemExit

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setenv("PQAG_PARENT", str(gone.pid))
    with pytest.raises(SystemExit):
        _end_with_parent()
    assert ended == [(1, threading.current_thread())]


def test_everything_printed_lands_in_the_log_which_begins_anew_and_can_be_read_while_the_step_runs(snakemake, capsys):
    with step(snakemake):
        print("of the first run")
    with step(snakemake):
        print("first line")
        assert log_of(snakemake) == "first line\n"
        module.log.info("second line")
        assert log_of(snakemake).endswith("second line\n")
    with step(snakemake):
        print("to stdout")
        print("to stderr", file=sys.stderr)
        warnings.warn("a warning", UserWarning, stacklevel=1)
        module.log.info("an info of %s", "ours")
        logging.getLogger("another.library").warning("of another library")
        module.log.debug("too fine")
    lines = log_of(snakemake)
    for words in ("to stdout\n", "to stderr\n", "UserWarning: a warning", " an info of ours\n", " of another library\n"):
        assert words in lines
    assert "too fine" not in lines
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import os, sys, types
from snakemake.iocontainers import OutputFiles, Wildcards
from pqag.job.step import progress, step

os.chdir(sys.argv[1])
__file__ = "fetch.py"  # as Snakemake says it
snakemake = types.SimpleNamespace(
    rule="fetch", input=[], output=OutputFiles(fromdict={"record": "record.json"}), wildcards=Wildcards(), config={},
    log=["log"], params=types.SimpleNamespace(settings={"code": "abc"})
)
with step(snakemake):
    print("printed \\u2026")
    with progress(10, "working") as bar:
        bar.update(10)
    if sys.argv[2] != "good":
        raise ValueError("what is wrong \\u2026")
"""


@pytest.mark.parametrize(("ending", "status", "last"), [("good", 0, "printed …"), ("other", 1, "error: ValueError: what is wrong …")])
def test_a_script_as_a_process(python, tmp_path, monkeypatch, ending, status, last):
    """In the plainest of locales. Its exit status is what Snakemake goes by; its terminal, which here is none, stays empty."""
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    done = python(SCRIPT, tmp_path, ending, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "printed …" and lines[-1].endswith(last)
    assert (tmp_path / "record.json").exists() == (ending == "good")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_a_terminal_and_not_in_the_log(monkeypatch, snakemake, is_terminal):
    terminal = io.StringIO()
    terminal.isatty = lambda: is_terminal
    monkeypatch.setattr(module, "_terminal", terminal)
    with step(snakemake), progress(8, "training alexnet", done=2) as bar:
        for _ in range(6):
            bar.update()
        bar.refresh()
    words = terminal.getvalue()
    assert all((part in words) == is_terminal for part in ("training alexnet", "2/8", "8/8"))
    assert "\n" not in words, "a bar leaves no lines behind"
    assert log_of(snakemake) == ""


def test_one_of_several_jobs_on_a_terminal_shows_its_bar(monkeypatch):
    """Another holder of the lock is a second opening of the terminal, as another process has."""
    reader, end = os.openpty()
    with open(end, "w") as terminal, open(os.ttyname(end), "wb", buffering=0) as other:
        monkeypatch.setattr(module, "_terminal", terminal)
        monkeypatch.setattr(module, "_bar", None)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert progress(8, "training alexnet").disable
        fcntl.flock(other, fcntl.LOCK_UN)
        with progress(8, "training alexnet") as bar:
            assert not bar.disable
        module._bar.close()
    os.close(reader)
