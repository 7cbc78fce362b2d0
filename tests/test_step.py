"""What every script shares: its log, its errors, its device, its progress bar."""

import io
import logging
import os
import sys
import types
import warnings

import pytest
import torch

from pqag import step as module
from pqag.errors import UserError
from pqag.step import progress, step, torch_device


@pytest.fixture(autouse=True)
def logging_as_before():
    """A step takes the root logger over, as befits a process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def snakemake(tmp_path):
    """What Snakemake gives to a script, as far as a step looks at it."""
    return types.SimpleNamespace(log=[str(tmp_path / "step.log")], params=types.SimpleNamespace(settings={"threads": 1, "code": "abc"}))


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


# ----------------------------------------------------------------------------------------------------------------------- endings


def test_settings_are_yielded(snakemake):
    with step(snakemake) as settings:
        assert settings == {"threads": 1, "code": "abc"}


def test_a_good_end_is_silent_and_goes_on_after_the_body(snakemake, capsys):
    with step(snakemake):
        pass
    assert log_of(snakemake) == ""
    assert capsys.readouterr() == ("", "")


def test_a_user_error_is_one_sentence_at_the_end_of_the_log_and_no_traceback(snakemake, capsys):
    assert fail(snakemake, UserError("datasets.x.source: there is no such folder")) == 1
    assert last_line(snakemake).endswith(" error: datasets.x.source: there is no such folder")
    assert "Traceback" not in log_of(snakemake) and "UserError" not in log_of(snakemake)
    assert capsys.readouterr() == ("", "")


def test_another_error_keeps_its_traceback_and_ends_with_type_and_message(snakemake, capsys):
    assert fail(snakemake, KeyError("codewords")) == 1
    assert last_line(snakemake).endswith(" error: KeyError: 'codewords'")
    assert "Traceback (most recent call last)" in log_of(snakemake)
    assert "in fail" in log_of(snakemake), "the line that raised"
    assert capsys.readouterr() == ("", "")


def test_the_last_line_begins_with_the_time(snakemake):
    fail(snakemake, UserError("x"))
    when, words = last_line(snakemake).split(" error: ")
    assert len(when) == len("2020-01-31 12:00:00,123") and when[4] == "-" and words == "x"


def test_an_error_without_words_says_so(snakemake):
    fail(snakemake, ValueError())
    assert last_line(snakemake).endswith(" error: ValueError: no further words")


@pytest.mark.parametrize("error", [RuntimeError("size mismatch\n\tfor head.weight"), UserError("it is no archive:\n- not gz")])
def test_an_error_of_several_lines_is_told_in_the_last_line(snakemake, error):
    """load_state_dict, CUDA and tarfile raise such."""
    fail(snakemake, error)
    first, second = str(error).split("\n")
    assert " error: " in last_line(snakemake) and first in last_line(snakemake) and second.strip() in last_line(snakemake)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(snakemake, error):
    with pytest.raises(error), step(snakemake):
        raise error


def test_the_streams_are_given_back(snakemake):
    before = sys.stdout, sys.stderr
    with step(snakemake):
        assert sys.stdout is not before[0] and sys.stderr is not before[1]
    assert (sys.stdout, sys.stderr) == before
    fail(snakemake, UserError("x"))
    assert (sys.stdout, sys.stderr) == before


# --------------------------------------------------------------------------------------------------------------------------- log


def test_everything_printed_lands_in_the_log(snakemake, capsys):
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


def test_the_log_can_be_read_while_the_step_runs(snakemake):
    with step(snakemake):
        print("first line")
        assert log_of(snakemake) == "first line\n"
        module.log.info("second line")
        assert log_of(snakemake).endswith("second line\n")


def test_a_log_begins_anew(snakemake):
    for words in ("of the first run", "of the second run"):
        with step(snakemake):
            print(words)
    assert log_of(snakemake) == "of the second run\n"


SCRIPT = """
import sys, types
from pqag.errors import UserError
from pqag.step import log, progress, step

snakemake = types.SimpleNamespace(log=[sys.argv[1]], params=types.SimpleNamespace(settings={}))
with step(snakemake):
    print("printed")
    with progress(10, "working") as bar:
        bar.update(10)
    if sys.argv[2] != "good":
        raise {"user": UserError, "other": ValueError}[sys.argv[2]]("what is wrong")
"""


@pytest.mark.parametrize(
    ("ending", "status", "last"),
    [("good", 0, "printed"), ("user", 1, "error: what is wrong"), ("other", 1, "error: ValueError: what is wrong")],
)
def test_a_script_as_a_process(python, tmp_path, ending, status, last):
    """Its exit status is what Snakemake goes by; its terminal, which here is none, stays empty."""
    done = python(SCRIPT, tmp_path / "log", ending, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "printed" and lines[-1].endswith(last)


# ------------------------------------------------------------------------------------------------------------------------ device


@pytest.fixture
def torch_as_before():
    threads, environment = torch.get_num_threads(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if environment is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = environment


@pytest.fixture(params=[False, True], ids=["no GPU", "a GPU"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_those_of_the_settings(torch_as_before, threads):
    torch_device({"device": "cpu", "threads": threads})
    assert torch.get_num_threads() == threads


def test_auto_takes_a_gpu_where_there_is_one(torch_as_before, gpu):
    assert torch_device({"device": "auto", "threads": 1}) == torch.device("cuda" if gpu else "cpu")


def test_cpu_is_the_cpu(torch_as_before, gpu):
    assert torch_device({"device": "cpu", "threads": 1}) == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_a_user_error(torch_as_before, gpu):
    if gpu:
        assert torch_device({"device": "cuda", "threads": 1}) == torch.device("cuda")
    else:
        with pytest.raises(UserError, match='device is "cuda".*no GPU.*"auto"'):
            torch_device({"device": "cuda", "threads": 1})


def test_computation_is_set_to_be_reproducible(torch_as_before):
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch_device({"device": "cpu", "threads": 1})
    assert torch.are_deterministic_algorithms_enabled()
    assert not (torch.backends.cudnn.benchmark or torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_step_without_torch_does_not_load_it(python):
    code = "import sys, pqag.step; print('torch' in sys.modules)"
    assert python(code, capture_output=True, text=True, check=True).stdout == "False\n"


# ---------------------------------------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def __init__(self, is_one):
        super().__init__()
        self.is_one = is_one

    def isatty(self):
        return self.is_one


def shown(monkeypatch, terminal):
    monkeypatch.setattr(module, "_terminal", terminal)
    with progress(8, "training alexnet", done=2) as bar:
        for _ in range(6):
            bar.update()
        bar.refresh()
    return terminal.getvalue()


def test_progress_is_silent_where_there_is_no_terminal(monkeypatch):
    assert shown(monkeypatch, Terminal(False)) == ""


def test_progress_is_shown_on_a_terminal(monkeypatch):
    words = shown(monkeypatch, Terminal(True))
    assert "training alexnet" in words and "2/8" in words and "8/8" in words
    assert "\n" not in words, "a bar leaves no lines behind"


def test_progress_goes_to_the_terminal_and_not_to_the_log(monkeypatch, snakemake):
    monkeypatch.setattr(module, "_terminal", terminal := Terminal(True))
    with step(snakemake), progress(3, "attacking") as bar:
        bar.update(3)
    assert "attacking" in terminal.getvalue() and log_of(snakemake) == ""
