"""Runs the recorded code with the recorded settings again and compares the results."""

import contextlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pqag import files, storage, user_code
from pqag.audit.verify import DAMAGE, Study, load
from pqag.audit.why import chain, find
from pqag.errors import UserError
from pqag.job import records
from pqag.study.rules import settings
from pqag.study.settings import as_config


@dataclass(frozen=True)
class Comparison:
    """An output made again: whether its bytes are the same, and otherwise the ``difference`` of its numbers."""

    name: str
    same: bool
    difference: float


def rerun(folder: Path, target: str, deep: bool, cores: int) -> Iterator[Comparison | str]:
    """Run the job that made ``target``, a file or a cell, at its recorded commit in a clean worktree, and compare the outputs.

    It uses the recorded inputs after a check. With ``deep`` it only uses the fetched images and computes everything else again. Yields a
    comparison for every output of the job, and a message for every difference of versions or machines. Raises UserError if the code or
    the settings cannot be restored, or the job fails.
    """
    study = load(folder)
    names = [target] if target in study.made_by else [source["file"] for source in find(folder, target)["sources"]]
    for name in dict.fromkeys(study.made_by.get(name, name) for name in names):
        yield from _again(study, name, deep, cores)


def _again(study: Study, path: str, deep: bool, cores: int) -> Iterator[Comparison | str]:
    record = study.records[path]
    outputs = records.outputs(record)
    if record["predicate"]["buildDefinition"]["externalParameters"]["rule"] in ("study", "manifest"):
        raise UserError(f"{path} only describes a run: run the study again to make it again")
    _check_settings(study, path, record)
    commit = record["predicate"]["buildDefinition"]["internalParameters"]["git"]["commit"]
    if commit is None:
        raise UserError(f"{path} names no commit, because it was made outside git: its code cannot be restored")
    with _worktree(commit) as worktree:
        _check_code(worktree, path, record, commit)
        needed = [name for _, name, made in chain(study, next(iter(outputs))) if made and _is_fetched(made)] if deep else []
        for name in needed or records.dependencies(record, "input"):
            if name in outputs:
                raise UserError(
                    f"{name} was fetched from outside: fetch it again with `snakemake --forcerun {name}`; it cannot be computed"
                )
            _copy(study, name, worktree)
        _copy_user_files(study, worktree)
        _run(worktree, study, [*outputs], cores)
        again = records.read(worktree / path)
        for name, digest in outputs.items():
            same = records.outputs(again)[name] == digest
            yield Comparison(name, same, 0.0 if same else difference(Path(name), worktree / name))
        yield from _circumstances(record, again)


def _is_fetched(record: Mapping[str, Any]) -> bool:
    return record["predicate"]["buildDefinition"]["externalParameters"]["rule"] == "fetch"


def _check_settings(study: Study, path: str, record: Mapping[str, Any]) -> None:
    parameters = record["predicate"]["buildDefinition"]["externalParameters"]
    try:
        today = settings(parameters["rule"], parameters["wildcards"], files.read_json(study.folder / "study.json"))
    except DAMAGE as error:
        raise UserError(f"{path} belongs to a job that is not in {study.folder}/study.json: run the study first") from error
    if {**today, "code": ""} != {**records.settings_of(record), "code": ""}:
        raise UserError(f"{path} was made with settings other than in {study.folder}/study.json: run the study first")


def _check_code(worktree: Path, path: str, record: Mapping[str, Any], commit: str) -> None:
    """Check that the commit contains the code that ran; uncommitted changes of other files do not matter."""
    for name, digest in records.dependencies(record, "code").items():
        if not (worktree / name).is_file() or files.sha256(worktree / name) != digest:
            raise UserError(f"{path} ran with an uncommitted {name}, so commit {commit[:12]} does not contain its code")


@contextlib.contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """Yield the repository at ``commit`` in a temporary folder."""

    def git(*arguments: str) -> None:
        done = subprocess.run(["git", "-C", str(records.REPOSITORY), "worktree", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"git worktree {arguments[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")

    with tempfile.TemporaryDirectory(prefix="rerun-") as scratch:
        worktree = Path(scratch, "worktree")
        git("add", "--detach", str(worktree), commit)
        try:
            yield worktree
        finally:
            git("remove", "--force", str(worktree))


def _copy(study: Study, name: str, worktree: Path) -> None:
    """Copy a file, after a check, and its record into the worktree."""
    records.checked_sha256(name)
    for path in filter(None, (name, study.made_by.get(name))):
        (worktree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, worktree / path)


def _copy_user_files(study: Study, worktree: Path) -> None:
    """Copy the files of the user into the worktree; they need not be committed. See ``pqag.user_code``."""
    for name, digest in files.read_json(study.folder / "study.json").get("brought", {}).items():
        path = user_code.file_of(name)
        if not path.is_file() or files.sha256(path) != digest:
            raise UserError(f"{path} is missing or differs from the file of the study (sha256 {digest[:12]}…), so nothing can be run again")
        if not path.is_absolute():
            (worktree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, worktree / path)


def _run(worktree: Path, study: Study, targets: list[str], cores: int) -> None:
    config = as_config(files.read_json(study.folder / "study.json"))
    (worktree / "rerun.json").write_text(json.dumps(config), encoding="utf-8")
    command = f"-m snakemake --configfile rerun.json --cores {cores} --workflow-profile none --rerun-triggers mtime --quiet all --".split()
    done = subprocess.run([sys.executable, *command, *targets], cwd=worktree, capture_output=True, text=True)
    if done.returncode:
        logs = sorted(worktree.glob("results/*/logs/**/*.log"), key=lambda log: log.stat().st_mtime)
        words = (logs[-1].read_text(encoding="utf-8") if logs else "") + done.stderr
        reasons = [line for line in words.splitlines() if "rror" in line] or ["it printed no error"]
        raise UserError(f"the job could not be run again: {reasons[-1]}")


def _circumstances(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield differences of versions and machine."""
    then, now = (one["predicate"]["runDetails"] for one in (before, after))
    for name in sorted({*then["builder"]["version"], *now["builder"]["version"]}):
        old, new = (one["builder"]["version"].get(name, "absent") for one in (then, now))
        if old != new:
            yield f"{name} was {old}, is {new}"
    for name in ("cpu", "gpu", "engine"):
        old, new = (one["byproducts"][0]["annotations"].get(name) for one in (then, now))
        if old != new:
            yield f"{name} was {old}, is {new}"


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between the numbers of two files of the same kind, relative to the largest number of their array,
    column or list; infinite if anything else differs. Raises UserError if one cannot be read."""
    first, second = _arrays(one), _arrays(other)
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        return math.inf
    return max((_relative(first[name], second[name]) for name in first), default=0.0)


def _relative(one: np.ndarray, other: np.ndarray) -> float:
    if one.dtype.kind not in "biuf" or other.dtype.kind not in "biuf":
        return 0.0 if np.array_equal(one, other) else math.inf
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    found = float(np.abs(one - other)[~same].max() / (np.nanmax(np.abs(one)) or 1))
    return found if math.isfinite(found) else math.inf  # a number on one side only would pass every comparison


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return _values(path)
    except DAMAGE as error:
        raise UserError(f"{path} cannot be read, so it cannot be compared: {' '.join(str(error).split())[:200]}") from None


def _values(path: Path) -> dict[str, np.ndarray]:
    """Return all values of a file, as named arrays."""
    if path.suffix == ".h5":
        names = storage.dataset_names(path)
        attributes = {f"attribute {name}": np.array(value) for name, value in storage.read_attributes(path).items()}
        return dict(zip(names, storage.read_hdf5(path, *names))) | attributes
    if path.suffix == ".pt":
        from pqag import checkpoints

        return {name: value.numpy() for name, value in checkpoints.load(path)["weights"].items()}
    if path.suffix == ".json":
        return _leaves(files.read_json(path))
    if path.suffix == ".csv":
        frame = pd.read_csv(path)
        return {name: column.to_numpy() for name, column in frame.items()}
    return {"text": np.array(path.read_text(encoding="utf-8"))}


def _leaves(value: Any, name: str = "") -> dict[str, np.ndarray]:
    """Return the values of JSON as named arrays; a flat list is one array."""
    if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
        return {name: np.array(value, dtype=float if all(isinstance(one, int | float) for one in value) else object)}
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: array for part, inner in items for key, array in _leaves(inner, f"{name}/{part}").items()}
    return {name: np.array(value)}
