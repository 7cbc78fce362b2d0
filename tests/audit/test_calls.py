"""How the audit is called: a mistake is told in one sentence, and any working directory will do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..workflow.conftest import ROOT
from . import edits
from .conftest import command
from .edits import FILES, STUDY, copied

BAD = {
    "": "the following arguments are required: VERB",
    "frobnicate": "invalid choice: 'frobnicate' (choose from ",
    "verify nowhere": "results/nowhere is not a folder of results; existing studies: results/tiny",
    "verify": "results/default is not a folder of results; existing studies: results/tiny",
    "verify results": "results contains several studies, name one of them; existing studies: results/tiny",
    "verify empty": "empty contains no record of any job: run the study first; existing studies: results/tiny",
    "verify results/tiny/study.json": "results/tiny/study.json is not a folder of results",
    "verify tiny tiny": "unrecognized arguments: tiny",
    "verify --deep": "unrecognized arguments: --deep",
    "why": "the following arguments are required: what",
    "why aod": "results/default is not a folder of results; existing studies: results/tiny",
    "why nonsense --study tiny": "nonsense matches no cell of results/tiny; the nearest are ",
    "why aod --study": "expected one argument",
    "why config.yaml --study tiny": "config.yaml was made by no recorded job of results/tiny",
    "diff tiny": "the following arguments are required: other",
    "diff tiny nowhere": "results/nowhere is not a study: ",
}


def test_a_mistake_in_the_call_is_one_sentence(folder, capsys):
    for name in ("empty", "results/empty"):
        Path(name).mkdir()
    for call, words in BAD.items():
        assert command.main(call.split()) == 2, call
        shown = capsys.readouterr()
        assert shown.out == "", call
        [line] = shown.err.splitlines()
        assert line.startswith("error: ") and words in line, call


def test_an_older_python_is_refused_in_a_sentence(tmp_path):
    for version, refused in (((3, 8, 2), True), ((3, 10, 13), True), ((3, 11, 0), False)):
        code = f"import sys; sys.version_info = {version}; sys.version = 'X.Y (main)'; sys.argv = ['audit.py', 'verify', 'nowhere']\n"
        (tmp_path / "old.py").write_text(f"{code}import runpy; runpy.run_path({str(ROOT / 'scripts/audit.py')!r}, run_name='__main__')")
        done = subprocess.run([sys.executable, tmp_path / "old.py"], capture_output=True, text=True, env={"PYTHONPATH": ROOT / "scripts"})
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: this needs Python 3.11 or later, not X.Y: run it with .venv") == refused, done.stderr


def test_every_verb_is_explained(capsys):
    for verb in ("verify", "why", "diff", "rerun", "export", "html"):
        with pytest.raises(SystemExit) as end:
            command.main([verb, "--help"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: audit {verb}")


def test_the_exit_status_says_what_was_found(folder, capsys):
    calls = (["verify", "tiny"], ["why", "apd/vgg16/adc", "--study", "tiny"], ["diff", "tiny", "tiny"])
    for call in calls:
        assert command.main(call) == 0
    assert capsys.readouterr().err == ""
    copied(folder, folder / "other")
    edits.flip(FILES["metrics"])
    for call in (*calls[:2], ["diff", "tiny", "other/results/tiny"]):
        assert command.main(call) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    assert f"fault: {FILES['metrics']}: is missing, or is no longer what its job made" in shown.out


def test_what_verify_ends_with(folder, capsys):
    edits.flip(FILES["weights"])
    assert command.main(["verify", "tiny"]) == 1
    first, remedy, *notes, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{FILES['weights']}: is not what its job made")
    assert remedy.startswith("remedy: delete the named files and run the study again")
    assert all(note.startswith("note: ") for note in notes)
    assert last == f"error: 1 fault in 39 files of 25 jobs of results/tiny; first: {first}"


@pytest.mark.parametrize("place", ["data", ".", "results/tiny/tables", "/"])
def test_a_study_by_its_path_from_anywhere(folder, capsys, monkeypatch, place):
    (folder / place).exists()
    monkeypatch.chdir(folder / place)
    path = os.path.relpath(folder / STUDY)
    assert command.main(["verify", path]) == 0
    assert "39 files of 25 jobs verified; sha256 of results/tiny/MANIFEST.sha256: " in capsys.readouterr().out
    monkeypatch.chdir(folder / place)
    assert command.main(["why", os.path.relpath(folder / FILES["images"])]) == 0, "the study is that of the file"
    assert capsys.readouterr().out.startswith(FILES["images"])


def test_a_name_means_the_study_though_a_folder_is_called_so(folder, capsys):
    Path("tiny").mkdir()
    assert command.main(["verify", "tiny"]) == 0
    assert capsys.readouterr().out


def test_a_closed_pipe_is_no_error(folder):
    """As `audit why … | head -1` makes it."""
    call = [sys.executable, str(ROOT / "scripts/audit.py"), "why", "results/tiny/tables/table1.csv"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
