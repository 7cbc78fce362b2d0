"""A result made again from its record, in a repository made for the test."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from pqag import checkpoints, files, storage
from pqag.audit import rerun
from pqag.errors import UserError
from pqag.job import records

from ..workflow.conftest import ROOT
from .edits import change_record, make_record_fit

METRICS = "results/tiny/synthetic/vgg16-pretrained/seed0/16bits/metrics/apd.vgg16-pretrained-16bits.json"


def git(repository, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", str(repository), *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def say_commit(path, commit):
    """Let a record say that the code of ``commit`` made its files."""
    git = {"commit": commit, "dirty": False, "difference_sha256": None}
    change_record(path, lambda record: record["predicate"]["buildDefinition"]["internalParameters"].update(git=git))


@pytest.fixture
def again(study, tmp_path, monkeypatch):
    """The tiny study in a folder of its own, made, so its records say, by the one commit of a new repository that holds today's code."""
    repository, folder = tmp_path / "repository", tmp_path / "study"
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, repository / name)
    for path in (ROOT / "scripts").rglob("*.py"):  # those not yet known to git too
        (repository / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, repository / path.relative_to(ROOT))
    git(tmp_path, "init", "--quiet", str(repository))
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "all")
    commit = git(repository, "rev-parse", "HEAD")
    shutil.copytree(study[0], folder, ignore=shutil.ignore_patterns(".snakemake"))
    for path in folder.rglob(f"*{records.SUFFIX}"):
        say_commit(path, commit)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(records, "REPOSITORY", repository)
    return repository, folder


def run(what, deep=False):
    """The comparisons by name, and the words."""
    found = list(rerun.rerun(Path("results/tiny"), what, deep, cores=1))
    return {one.name: one for one in found if not isinstance(one, str)}, [one for one in found if isinstance(one, str)]


@pytest.mark.slow
def test_a_cell_computed_again_from_the_images_comes_out_in_the_same_bytes(again):
    compared, words = run("table1:apd/vgg16/16/ADC", deep=True)
    assert compared == {METRICS: rerun.Comparison(METRICS, True, 0.0)}
    assert words == []
    assert git(again[0], "worktree", "list").count("\n") == 0, "the worktree is taken away"


@pytest.mark.slow
def test_a_cell_of_its_last_step_alone_and_another_result_are_told(again):
    compared, words = run("table1:apd/vgg16/16/ADC")
    assert (compared, words) == ({METRICS: rerun.Comparison(METRICS, True, 0.0)}, [])
    value = json.loads(Path(METRICS).read_text())
    value["ADC"]["average_precision"][0] += 0.5
    files.write_json(METRICS, value)
    make_record_fit(METRICS)
    [one] = run(METRICS)[0].values()
    assert not one.same and 0.2 < one.difference <= 1


def test_code_that_was_not_committed_is_told(again):
    repository, _ = again
    (repository / "scripts/pqag/retrieval.py").write_text("# other\n")
    git(repository, "commit", "--all", "--quiet", "--message", "other")
    say_commit(METRICS.replace(".json", records.SUFFIX), git(repository, "rev-parse", "HEAD"))
    with pytest.raises(UserError, match=r"uncommitted scripts/pqag/retrieval\.py"):
        run(METRICS)


def test_other_settings_than_the_studys_and_what_was_fetched_are_no_result(again):
    study = json.loads(Path("results/tiny/study.json").read_text())
    study["attacks"]["apd"]["iterations"] = 7
    files.write_json("results/tiny/study.json", study)
    with pytest.raises(UserError, match="settings other than"):
        run("results/tiny/synthetic/vgg16-pretrained/seed0/16bits/adversarial/apd.h5")
    with pytest.raises(UserError, match="was fetched from outside"):
        run("data/synthetic.h5", deep=True)


def test_what_only_tells_of_a_run_and_what_was_made_of_a_changed_input_is_not_computed_again(again):
    for name in ("study.json", "MANIFEST.sha256"):
        with pytest.raises(UserError, match="only describes a run"):
            run(f"results/tiny/{name}")
    path = Path("results/tiny/synthetic/vgg16-pretrained/seed0/16bits/codebook.h5")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"codebook\.h5 is not what its job made"):
        run(METRICS)


def write_weights(path, value):
    checkpoints.save(path, {"weights": {"w": torch.tensor(value)}})


def write_nan(path, value):
    path.write_text(json.dumps(value))


def write_csv(path, value):
    path.write_text(f"epoch,loss\n0,{value}\n1,0.5\n")


@pytest.mark.parametrize(
    ("name", "write", "one", "other", "wanted"),
    [
        ("x.json", files.write_json, {"a": [1.0, 4.0]}, {"a": [1.0, 3.0]}, 0.25),
        ("x.json", files.write_json, {"a": 8.0, "b": {"c": 2}}, {"a": 8.0, "b": {"c": 1}}, 0.5),
        ("x.json", files.write_json, {"a": 1.0}, {"a": 1.0}, 0.0),
        ("x.json", files.write_json, {"a": 1.0}, {"b": 1.0}, math.inf),
        ("x.json", files.write_json, {"a": [1.0]}, {"a": [1.0, 2.0]}, math.inf),
        ("x.json", files.write_json, {"a": "x"}, {"a": "y"}, math.inf),
        ("x.json", files.write_json, {"a": [1.0, None]}, {"a": [1.0, None]}, 0.0),
        ("x.json", files.write_json, {"a": [1.0, None]}, {"a": [1.0, 2.0]}, math.inf),
        ("x.json", write_nan, {"a": [4.0, math.nan]}, {"a": [4.0, 1.0]}, math.inf),
        ("x.json", write_nan, {"a": [4.0, math.nan]}, {"a": [3.0, math.nan]}, 0.25),
        ("x.h5", storage.write_hdf5, {"x": np.array([[200.0, 1]])}, {"x": np.array([[200.0, 3]])}, 0.01),
        ("x.pt", write_weights, [4.0, 2.0], [4.0, 1.0], 0.25),
        ("x.csv", write_csv, 2.0, 1.0, 0.5),
    ],
)
def test_difference_by_hand(tmp_path, name, write, one, other, wanted):
    paths = [tmp_path / folder / name for folder in "ab"]
    for path, value in zip(paths, (one, other)):
        path.parent.mkdir()
        write(path, value)
    assert rerun.difference(*paths) == wanted


def test_what_the_study_brought_along_goes_into_the_worktree_if_it_is_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/attack.py").write_text("def run(): pass\n")
    (tmp_path / "w.pt").write_bytes(b"weights")
    brought = {"mine.attack:run": files.sha256("mine/attack.py"), str(tmp_path / "w.pt"): files.sha256("w.pt")}
    files.write_json("results/a/study.json", {"study": "a", "brought": brought})
    study = rerun.Study(Path("results/a"), {}, {}, [])
    rerun._copy_user_files(study, tmp_path / "worktree")
    assert [path.name for path in (tmp_path / "worktree").rglob("*") if path.is_file()] == ["attack.py"], "an absolute path is good anyway"
    (tmp_path / "mine/attack.py").write_text("def run(): return 1\n")
    with pytest.raises(UserError, match=r"mine/attack.py is missing or differs from the file of the study \(sha256 [0-9a-f]{12}…\)"):
        rerun._copy_user_files(study, tmp_path / "worktree")
