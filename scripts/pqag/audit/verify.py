"""Is every file of a study what its job made, from what it was made, under the config and the code of today?"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pqag import files
from pqag.errors import UserError
from pqag.job import records
from pqag.show import cells
from pqag.study.file import printable
from pqag.study.scores import needed
from pqag.study.settings import settings

#: Beside the records in a study: what says how long things took, a training that goes on, what audit itself writes.
UNRECORDED = re.compile(r"(?:logs|benchmarks)/.*|.*/unfinished\.pt|audit\.html|report\.zip|(?:crate|\.crate\.part)/.*")

#: What a file that someone made up or damaged raises when it is looked at.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

DELETE = "delete the files named and run the study again: what the study needs is made anew, and what depends on it"
RUN = "run the study again, only what is stale is made anew; where Snakemake finds nothing to do, delete the records named first"
CONFIG = "run the study again, only what is stale is made anew; where Snakemake finds nothing to do, delete study.json of the study first"
LEFT_OVER = "delete the records named and what they say was made, or take the jobs into the config again"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: the file, what is wrong with it, and what to do about it, in words."""

    file: str
    what: str
    mend: str = DELETE

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what}")


@dataclass(frozen=True)
class Study:
    """All records that one study rests on, by their paths, and which record names which output; faults of files that should be records."""

    folder: Path
    records: dict[str, dict[str, Any]]
    made_by: dict[str, str]
    unreadable: list[Fault]

    def record(self, path: str) -> dict[str, Any] | None:
        """The record of the job that made ``path``; None where there is none."""
        return self.records.get(self.made_by.get(path, ""))


Digest = Callable[[str], str | None]


def load(folder: Path) -> Study:
    """Read the records of a study and those of the data that it names as inputs, wherever they lie; raises UserError if there are none.

    Paths in records are relative to the folder the workflow ran in, which is the working directory here. A record that lies elsewhere than
    what it says was made is a fault, and counts for nothing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of results; {studies()}")
    found: dict[str, dict[str, Any]] = {}
    unreadable: list[Fault] = []
    moved: list[Fault] = []
    pending = [str(path) for path in reversed(record_files(folder))]
    seen = set(pending)
    while pending:
        path = pending.pop()
        try:
            record = records.read(path)
        except UserError as error:
            unreadable.append(Fault(path, str(error).removeprefix(f"{path} ")))
            continue
        if stranger := next((name for name in records.outputs(record) if Path(name).parent != Path(path).parent), None):
            moved.append(Fault(path, f"was moved or copied here, for it tells how {stranger} was made"))
            continue
        found[path] = record
        for name in records.dependencies(record, "input"):
            if not Path(name).is_relative_to(folder) and (beside := _record_of(name)) and beside not in seen:
                seen.add(beside)
                pending.append(beside)
    if moved and not any(Path(path).is_relative_to(folder) for path in found):
        raise UserError(f"{folder} is a copy: {moved[0].file} {moved[0].what}; give it the name and the place back that it had")
    if not found and not unreadable:
        raise UserError(f"{folder} holds no record of any job: run the study first; {studies()}")
    made_by = {name: path for path, record in sorted(found.items()) for name in records.outputs(record)}
    return Study(folder, dict(sorted(found.items())), made_by, [*unreadable, *moved])


def record_files(folder: Path) -> list[Path]:
    """The records that lie in a study, sorted; those of an export are left out."""
    return [path for path in sorted(folder.rglob(f"*{records.SUFFIX}")) if not UNRECORDED.fullmatch(str(path.relative_to(folder)))]


def studies() -> str:
    """The studies in the working directory, in words."""
    return f"studies that were run: {', '.join(sorted(str(path.parent) for path in Path('results').glob('*/study.json'))) or 'none here'}"


def _record_of(name: str) -> str | None:
    try:
        found = records.record_of(name)
    except ValueError:  # a name that no file can have
        return None
    return str(found) if found else None


def verify(folder: Path) -> tuple[list[Fault], list[str], Study]:
    """All faults of the study in ``folder``, causes before what follows from them; remarks that are no faults; and what was looked at."""
    if not (folder / "study.json").exists() and any(folder.glob("*/study.json")):
        raise UserError(f"{folder} holds several studies, give one of them; {studies()}")
    study = load(folder)
    digest = functools.cache(_digest)
    resolved = _resolved(folder)
    left_over = _left_over(study, resolved, digest)
    live = replace(study, records={path: record for path, record in study.records.items() if path not in left_over})
    faults = [
        *study.unreadable,
        *_config(folder, resolved, digest),
        *_bytes(live, digest),
        *_seals(live, digest),
        *_chain(study, set(left_over), digest),
        *_orphans(study),
        *left_over.values(),
        *_settings(live, resolved, digest),
        *_printed(live),
    ]
    faults.extend(_manifest(live, digest, set(left_over), {fault.file for fault in faults}))
    return list(dict.fromkeys(faults)), _remarks(live, resolved), study


def _digest(path: str) -> str | None:
    """sha256 of a file; None where there is none that can be read, or something else, which might never end."""
    try:
        return files.sha256(path) if Path(path).is_file() else None
    except (OSError, ValueError):
        return None


def _text(path: str | Path) -> str:
    """The text of a file; raises OSError for what is none, such as a pipe, which would never end."""
    if not Path(path).is_file():
        raise FileNotFoundError(path)
    return Path(path).read_text(encoding="utf-8")


def _resolved(folder: Path) -> dict[str, Any] | None:
    """The study with all its settings; None where study.json is missing or damaged."""
    try:
        resolved = json.loads(_text(folder / "study.json"))
        return resolved if all(isinstance(recorded, str) for recorded in resolved["configfiles"].values()) else None
    except DAMAGE:
        return None


def _config(folder: Path, resolved: Mapping[str, Any] | None, digest: Digest) -> Iterator[Fault]:
    """The study is that of the config files of today."""
    if resolved is None:
        yield Fault(str(folder / "study.json"), "is missing or damaged, so no setting can be checked")
        return
    for name, recorded in resolved["configfiles"].items():
        if digest(name) is None:
            yield Fault(name, "is missing, so whether it is still the config of the study cannot be checked", "put the config file back")
        elif digest(name) != recorded:
            yield Fault(name, f"is not the config that the study was last run with (sha256 {recorded})", CONFIG)


def _bytes(study: Study, digest: Digest) -> Iterator[Fault]:
    """Every output is there, byte for byte, and no two jobs claim it."""
    claimed: dict[str, str] = {}
    for path, record in study.records.items():
        for name, recorded in records.outputs(record).items():
            if name in claimed:
                yield Fault(path, f"claims {name}, as does {claimed[name]}")
            claimed[name] = path
            if Path(name).is_symlink():
                yield Fault(name, "is a link, and results are files of their own")
            if digest(name) is None:
                yield Fault(name, f"is missing or cannot be read, but {path} says it was made")
            elif digest(name) != recorded:
                yield Fault(name, f"is not what its job made: sha256 {digest(name)}, recorded {recorded}")


def _seals(study: Study, digest: Digest) -> Iterator[Fault]:
    """Every record is, byte for byte, as it was written. Who edits one can seal it anew; the list of all files has its sha256 too."""
    for path, record in study.records.items():
        if Path(path).is_symlink():
            yield Fault(path, "is a link, and results are files of their own")
        if digest(path) != records.sealed_sha256(record):
            yield Fault(path, "was changed after it was written: its own checksum does not fit")


def _chain(study: Study, left_over: set[str], digest: Digest) -> Iterator[Fault]:
    """Every input was made by a recorded job, and is what was read then."""
    for path, record in study.records.items():
        for name, read in records.dependencies(record, "input").items() if path not in left_over else ():
            maker = study.record(name)
            made = records.outputs(maker)[name] if maker else None
            if maker is None and not name.endswith(records.SUFFIX):
                yield Fault(name, f"has no record of how it was made, but {path} was made from it")
            if made is not None and made != read:
                yield Fault(path, f"was made from another {name}: it read sha256 {read}, but {made} was made")
            elif maker is None and digest(name) is None:
                yield Fault(name, f"is missing or cannot be read, but {path} was made from it")
            elif maker is None and digest(name) != read:
                yield Fault(name, f"is not what {path} was made from: sha256 {digest(name)}, read {read}")


def _orphans(study: Study) -> Iterator[Fault]:
    """Nothing lies in the study that no job made."""
    for path in sorted(study.folder.rglob("*")):
        name, inside = str(path), str(path.relative_to(study.folder))
        if name in study.made_by or name in study.records or UNRECORDED.fullmatch(inside):
            continue
        if path.is_symlink():
            yield Fault(name, "is a link, and results are files of their own")
        elif path.is_dir() or name.endswith(records.SUFFIX):
            continue
        elif path.name.startswith(".") and path.suffix == ".part":
            yield Fault(name, "was left by a writer that was killed")
        else:
            yield Fault(name, "was made by no recorded job")


def _left_over(study: Study, resolved: Mapping[str, Any] | None, digest: Digest) -> dict[str, Fault]:
    """Faults of jobs that the study does not have, such as those of an attack that was taken out of the config, by the paths of records.

    Such jobs are told once and left out of everything else. Data that no other job of the study reads may belong to another study, and is
    no fault.
    """
    if resolved is None:
        return {}
    own = {f"{study.folder}/{name}{records.SUFFIX}" for name in ("study", "MANIFEST")}  # which every study has, damaged as it may be
    strange = {path: record for path, record in study.records.items() if path not in own and not _has(resolved, record)}
    read = {name for path, record in study.records.items() if path not in strange for name in records.dependencies(record, "input")}
    current = all(digest(name) == recorded for name, recorded in resolved["configfiles"].items())
    found = {}
    for path, record in strange.items():
        outputs = records.outputs(record)
        if Path(path).is_relative_to(study.folder) or outputs.keys() & read:
            made = " and ".join(Path(name).name for name in outputs)
            what = f"is of a job that the study does not have, {job(record)}, and so is what it made, {made}"
            found[path] = Fault(path, what, LEFT_OVER if current else f"run the study to its end; then {LEFT_OVER}, if it is named again")
    return found


def job(record: Mapping[str, Any]) -> str:
    """The rule and the wildcards of the job that a record is of, in words."""
    parameters = record["predicate"]["buildDefinition"]["externalParameters"]
    wildcards = ", ".join(f"{key}={value}" for key, value in parameters["wildcards"].items())
    return f"{parameters['rule']} ({wildcards})" if wildcards else parameters["rule"]


def _has(resolved: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether the job of a record is one of the study."""
    parameters = record["predicate"]["buildDefinition"]["externalParameters"]
    try:
        rule, wildcards = parameters["rule"], parameters["wildcards"]
        settings(rule, wildcards, resolved)
        named = all(wildcards[key] in map(str, resolved[f"{key}s"]) for key in ("dataset", "seed") if key in wildcards)
        return named and needed(resolved, rule, wildcards)
    except DAMAGE:
        return False


def _settings(study: Study, resolved: Mapping[str, Any] | None, digest: Digest) -> Iterator[Fault]:
    """Every record was made under the study as it stands in study.json, and by the code as it is now."""
    if resolved is None:
        return
    for name, record in study.records.items():
        try:
            yield from (Fault(name, what, RUN) for what in _other_settings(record, resolved, digest))
        except DAMAGE:
            yield Fault(name, f"cannot be compared with {study.folder}/study.json, one of them is damaged")


def _other_settings(record: Mapping[str, Any], resolved: Mapping[str, Any], digest: Digest) -> Iterator[str]:
    """What a record says otherwise than the study does."""
    definition = record["predicate"]["buildDefinition"]
    outer, inner = definition["externalParameters"], definition["internalParameters"]
    wanted, used = settings(outer["rule"], outer["wildcards"], resolved), records.settings_of(record)
    if used.pop("code") != wanted.pop("code"):
        code = records.dependencies(record, "code").items()
        changed = [file for file, recorded in code if digest(str(records.REPOSITORY / file)) != recorded]
        yield f"was made by other code than today's{': ' * bool(changed)}{', '.join(changed)}"
    yield from _unequal(used, wanted)
    if used == wanted and list(flat(used)) != list(flat(wanted)):
        yield "was made with its settings in another order than the study's"
    if inner["threads"] != wanted.get("threads", 1):
        yield f"says it ran with {inner['threads']} threads, but the study says {wanted.get('threads', 1)}"
    if inner["seeds"] != records.seeds_of(outer["wildcards"], wanted):
        yield f"says it ran with the seeds {inner['seeds']}, which are not those of its settings"


def _unequal(used: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*used, *wanted}):
        name = f"{prefix}{key}"
        if key not in wanted:
            yield f"was made with {name}, which the study does not have"
        elif key not in used:
            yield f"was made without {name}, which the study has"
        elif isinstance(used[key], dict) and isinstance(wanted[key], dict):
            yield from _unequal(used[key], wanted[key], f"{name}.")
        elif used[key] != wanted[key]:
            yield f"was made with {name} {used[key]}, but the study says {wanted[key]}"


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their keys joined with dots."""
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


def _manifest(study: Study, digest: Digest, left_over: set[str], named: set[str]) -> Iterator[Fault]:
    """MANIFEST.sha256 lists every output and every record but its own two files, and nothing else, with the sha256 of today.

    ``named`` are files with a fault already, of which no more is said here.
    """
    path = str(study.folder / "MANIFEST.sha256")
    own = {path, str(study.folder / f"MANIFEST{records.SUFFIX}")}
    try:
        lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in _text(path).splitlines()]
        listed = {line[2]: line[1] for line in lines}
    except OSError:
        yield Fault(path, "is missing: the study was not run to its end", "run the study")
        return
    except (ValueError, TypeError):
        yield Fault(path, 'holds a line that is not "sha256, two spaces, path"')
        return
    if missing := own - {path} - set(study.records) - named:
        yield Fault(*missing, f"is missing, so nothing tells how {path} was made")
    outputs = {name for name, made_by in study.made_by.items() if made_by in study.records}
    there = (outputs | set(study.records)) - own
    for name in sorted(there - set(listed) - named):
        yield Fault(name, f"is not listed in {path}, which was written before, or for other jobs", f"delete {path} and run the study again")
    for name, recorded in sorted(listed.items()):
        if name in named | left_over or study.made_by.get(name) in left_over:
            continue
        if digest(name) is None:
            yield Fault(name, f"is missing or cannot be read, but listed in {path}")
        elif digest(name) != recorded:
            yield Fault(name, f"is not what {path} lists")
        elif name not in there:
            yield Fault(name, f"is listed in {path}, but no job of the study made it", f"delete {path} and run the study again")


def _printed(study: Study) -> Iterator[Fault]:
    """Every number of every table is what its source says, and none was typed by hand."""
    read = functools.cache(lambda path: cells.read(path) if Path(path).is_file() else _text(path))
    for path in sorted(study.folder.glob("tables/*.tex")):
        listing = path.with_suffix(".cells.json")
        maker = study.record(str(path))
        known = {study.made_by[str(path)], *records.dependencies(maker, "input"), *records.outputs(maker)} if maker else set()
        try:
            content, text = json.loads(_text(listing)), _text(path)
            entries, names = content["cells"], content["names"]
            for cell in entries:
                if fault := cells.faults(cell, read):
                    yield Fault(str(listing), f"{cell['id']} {fault}")
                for source in cell["sources"]:
                    if maker and source["file"] not in known:
                        yield Fault(str(listing), f"{cell['id']} is from {source['file']}, which the table was not made from")
            for fault in cells.faults_of_latex(text, entries, names):
                yield Fault(str(path), fault)
            for fault in cells.faults_of_layout(content["table"], entries, names):
                yield Fault(str(listing), fault)
        except DAMAGE:
            yield Fault(str(listing), f"is missing or damaged, so no number of {path} can be traced")


def _remarks(study: Study, resolved: Mapping[str, Any] | None) -> list[str]:
    """What a reader should know, though nothing is wrong."""
    states = [record["predicate"]["buildDefinition"]["internalParameters"]["git"] for record in study.records.values()]
    machines = {cpu for record in study.records.values() for cpu in records.processors(record)}
    remarks = []
    if overrides := (resolved or {}).get("overrides"):
        remarks.append(f"{overrides} came by --config, so the config files say otherwise")
    if dirty := sum(bool(git["dirty"]) for git in states):
        remarks.append(f"{dirty} of {len(states)} jobs ran with uncommitted changes, which their records hold only the sha256 of")
    if any(git["commit"] is None for git in states):
        remarks.append("some jobs ran outside git, so no commit says what their code was; its sha256 is recorded")
    if len(machines) > 1:
        remarks.append(f"the jobs ran on {len(machines)} kinds of processor: {', '.join(sorted(machines))}")
    return [printable(remark) for remark in remarks]
