"""Checks that every file of a study is what its job made, from its recorded inputs, with the current config and code."""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pqag import content, files
from pqag.errors import UserError
from pqag.job import records
from pqag.show import cells
from pqag.study.file import printable
from pqag.study.rules import jobs, settings

#: Files of a study without a record: logs, benchmarks, checkpoints of unfinished trainings, and the output of the audit itself.
UNRECORDED = re.compile(r"(?:logs|benchmarks)/.*|.*/unfinished\.pt|audit\.html|report\.zip|(?:crate|\.crate\.part)/.*")

#: Exceptions that reading a forged or damaged file can raise.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

DELETE = "delete the named files and run the study again: it makes the missing files and everything that depends on them again"
RUN = "run the study again, which only makes stale files again; if Snakemake finds nothing to do, first delete the named records"
CONFIG = "run the study again, which only makes stale files again; if Snakemake finds nothing to do, first delete study.json of the study"
REMAKE = "delete study.json of the study and run the study again: it makes study.json again and computes no result again"
LEFT_OVER = "delete the named records and their outputs, or add the jobs to the config again"


@dataclass(frozen=True)
class Fault:
    """A fault: the file, what is wrong with it, and the remedy, as text."""

    file: str
    what: str
    remedy: str = DELETE

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what}")


@dataclass(frozen=True)
class Study:
    """All records of a study by their paths, the record of each output, and the faults of files that should be records."""

    folder: Path
    records: dict[str, dict[str, Any]]
    made_by: dict[str, str]
    unreadable: list[Fault]

    def record(self, path: str) -> dict[str, Any] | None:
        """Return the record of the job that made ``path``, or None."""
        return self.records.get(self.made_by.get(path, ""))


Digest = Callable[[str], str | None]


def load(folder: Path) -> Study:
    """Read the records of a study and of its input data, which may be outside the study; raises UserError if there are none.

    Paths in records are relative to the folder where the workflow ran, which must be the working directory. A record in another folder
    than its outputs is a fault and is ignored.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of results; {studies()}")
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
            moved.append(Fault(path, f"was moved or copied here: it is the record of {stranger}"))
            continue
        found[path] = record
        for name in records.dependencies(record, "input"):
            if not Path(name).is_relative_to(folder) and (beside := _record_of(name)) and beside not in seen:
                seen.add(beside)
                pending.append(beside)
    if moved and not any(Path(path).is_relative_to(folder) for path in found):
        raise UserError(f"{folder} is a copy: {moved[0].file} {moved[0].what}; restore its original name and place")
    if not found and not unreadable:
        raise UserError(f"{folder} contains no record of any job: run the study first; {studies()}")
    made_by = {name: path for path, record in sorted(found.items()) for name in records.outputs(record)}
    return Study(folder, dict(sorted(found.items())), made_by, [*unreadable, *moved])


def record_files(folder: Path) -> list[Path]:
    """Return the records in the folder of a study, sorted, without those of an export."""
    return [path for path in sorted(folder.rglob(f"*{records.SUFFIX}")) if not UNRECORDED.fullmatch(str(path.relative_to(folder)))]


def studies() -> str:
    """Return the names of the studies in the working directory, as text."""
    return f"existing studies: {', '.join(sorted(str(path.parent) for path in Path('results').glob('*/study.json'))) or 'none'}"


def _record_of(name: str) -> str | None:
    try:
        found = records.record_of(name)
    except ValueError:  # the name is invalid
        return None
    return str(found) if found else None


def verify(folder: Path, running: str | None = None) -> tuple[list[Fault], list[str], Study]:
    """Return all faults of the study in ``folder``, causes before their effects, the remarks, which are no faults, and the study.

    ``running`` is the sha256 that study.json must have according to the study that runs, None if none runs.
    """
    if not (folder / "study.json").exists() and any(folder.glob("*/study.json")):
        raise UserError(f"{folder} contains several studies, name one of them; {studies()}")
    study = load(folder)
    digest = functools.cache(_digest)
    resolved = _resolved(study, digest)
    left_over = _left_over(study, resolved, digest)
    live = replace(study, records={path: record for path, record in study.records.items() if path not in left_over})
    path = str(folder / "study.json")
    other = Fault(path, "has other settings than the study that runs, so the results are not of it (was --touch used?)", CONFIG)
    faults = [
        *study.unreadable,
        *[other] * (resolved is not None and running not in (None, digest(path))),
        *_config(folder, resolved, digest),
        *(fault for fault in _bytes(live, digest) if resolved or fault.file != str(folder / "study.json")),
        *_seals(live),
        *_chain(study, set(left_over), digest),
        *_orphans(study),
        *left_over.values(),
        *_settings(live, resolved, digest),
        *_printed(live),
    ]
    faults.extend(_manifest(live, digest, set(left_over), {fault.file for fault in faults}))
    changed, absent = _sources(resolved)
    return list(dict.fromkeys([*faults, *changed])), [*_remarks(live, resolved), *absent], study


def _digest(path: str) -> str | None:
    """Return the sha256 of a file, or None if it is missing, unreadable or no regular file (reading a pipe might never end)."""
    try:
        return files.sha256(path) if Path(path).is_file() else None
    except (OSError, ValueError):
        return None


def _text(path: str | Path) -> str:
    """Return the text of a regular file; raises OSError for anything else, such as a pipe, which would never end."""
    if not Path(path).is_file():
        raise FileNotFoundError(path)
    return Path(path).read_text(encoding="utf-8")


def _resolved(study: Study, digest: Digest) -> dict[str, Any] | None:
    """Return the study with all its settings; None if study.json is missing, not what its job made, or lacks what its jobs need.

    Such a file knows few of the jobs, so most records would look left over.
    """
    path = study.folder / "study.json"
    record = study.record(str(path))
    if record and records.is_sealed(study.made_by[str(path)]) and records.outputs(record)[str(path)] != digest(str(path)):
        return None
    try:
        resolved = json.loads(_text(path))
        for rule, wildcards in jobs(resolved):
            for dataset in resolved["datasets"]:
                settings(rule, {"dataset": dataset, "seed": str(resolved["seeds"][0]), **wildcards}, resolved)
        return resolved if all(isinstance(recorded, str) for recorded in resolved["configfiles"].values()) else None
    except DAMAGE:
        return None


def _config(folder: Path, resolved: Mapping[str, Any] | None, digest: Digest) -> Iterator[Fault]:
    """Check that study.json belongs to the current config files."""
    if resolved is None:
        what = "is missing or damaged, so no setting can be checked: delete it and run the study again, which makes it again"
        yield Fault(str(folder / "study.json"), what, REMAKE)
        return
    for name, recorded in resolved["configfiles"].items():
        if digest(name) is None:
            yield Fault(name, "is missing, so it cannot be compared with the config of the study", "restore the config file")
        elif digest(name) != recorded:
            yield Fault(name, f"is not the config of the last run of the study (sha256 {recorded})", CONFIG)


def _sources(resolved: Mapping[str, Any] | None) -> tuple[list[Fault], list[str]]:
    """Return a fault for each source of images that has changed since the run of the study, and a remark for each that is not there."""
    changed, absent = [], []
    with contextlib.suppress(*DAMAGE):  # of study.json, which other checks report
        for name, recorded in (resolved or {}).get("contents", {}).items():
            dataset = resolved["datasets"][name]
            source, found = str(dataset["source"]), content.look(name, dataset).sha256
            if found is None:
                absent.append(printable(f"{source}, the source of {name}, is not there, so it could not be looked at for changes"))
            elif found != recorded:
                changed.append(Fault(source, f"was changed after the images of {name} were fetched from it", RUN))
    return changed, absent


def _bytes(study: Study, digest: Digest) -> Iterator[Fault]:
    """Check that every output exists with the recorded bytes, and that no two jobs claim it."""
    claimed: dict[str, str] = {}
    for path, record in study.records.items():
        for name, recorded in records.outputs(record).items():
            if name in claimed:
                yield Fault(path, f"claims {name}, as does {claimed[name]}")
            claimed[name] = path
            if Path(name).is_symlink():
                yield Fault(name, "is a link, but results must be regular files")
            if digest(name) is None:
                yield Fault(name, f"is missing or unreadable, but {path} records it")
            elif digest(name) != recorded:
                yield Fault(name, f"is not what its job made: sha256 {digest(name)}, recorded {recorded}")


def _seals(study: Study) -> Iterator[Fault]:
    """Check that every record is unchanged. An editor can update the checksum in it; MANIFEST.sha256 has the sha256 of the record too."""
    for path in study.records:
        if Path(path).is_symlink():
            yield Fault(path, "is a link, but results must be regular files")
        if not records.is_sealed(path):
            yield Fault(path, "was changed after it was written: its own checksum does not match")


def _chain(study: Study, left_over: set[str], digest: Digest) -> Iterator[Fault]:
    """Check that a recorded job made every input, and that the input is still what was read."""
    for path, record in study.records.items():
        for name, read in records.dependencies(record, "input").items() if path not in left_over else ():
            maker = study.record(name)
            made = records.outputs(maker)[name] if maker else None
            if maker is None and not name.endswith(records.SUFFIX):
                yield Fault(name, f"has no record, but {path} was made from it")
            if made is not None and made != read:
                yield Fault(path, f"was made from another {name}: it read sha256 {read}, but the job made {made}")
            elif maker is None and digest(name) is None:
                yield Fault(name, f"is missing or unreadable, but {path} was made from it")
            elif maker is None and digest(name) != read:
                yield Fault(name, f"is not what {path} was made from: sha256 {digest(name)}, read {read}")


def _orphans(study: Study) -> Iterator[Fault]:
    """Check that jobs made all files in the study."""
    for path in sorted(study.folder.rglob("*")):
        name, inside = str(path), str(path.relative_to(study.folder))
        if name in study.made_by or name in study.records or UNRECORDED.fullmatch(inside):
            continue
        if path.is_symlink():
            yield Fault(name, "is a link, but results must be regular files")
        elif path.is_dir() or name.endswith(records.SUFFIX):
            continue
        elif path.name.startswith(".") and path.suffix == ".part":
            yield Fault(name, "is a leftover of a killed writer")
        else:
            yield Fault(name, "was made by no recorded job")


def _left_over(study: Study, resolved: Mapping[str, Any] | None, digest: Digest) -> dict[str, Fault]:
    """Return faults by the paths of records, for jobs that are no longer in the study, for example of an attack removed from the config.

    Such jobs are reported once and ignored by all other checks. Data that no other job of the study reads may belong to another study and
    are no fault.
    """
    if resolved is None:
        return {}
    own = {f"{study.folder}/{name}{records.SUFFIX}" for name in ("study", "MANIFEST")}  # every study has them, even a damaged one
    known = {(rule, frozenset(wildcards.items())) for rule, wildcards in jobs(resolved)}
    strange = {path: record for path, record in study.records.items() if path not in own and not _has(resolved, known, record)}
    read = {name for path, record in study.records.items() if path not in strange for name in records.dependencies(record, "input")}
    current = all(digest(name) == recorded for name, recorded in resolved["configfiles"].items())
    found = {}
    for path, record in strange.items():
        outputs = records.outputs(record)
        if Path(path).is_relative_to(study.folder) or outputs.keys() & read:
            made = " and ".join(Path(name).name for name in outputs)
            what = f"belongs to a job that is not in the study, {job(record)}, as does its output, {made}"
            found[path] = Fault(path, what, LEFT_OVER if current else f"run the study to its end; if the fault remains, {LEFT_OVER}")
    return found


def job(record: Mapping[str, Any]) -> str:
    """Return the rule and the wildcards of the job of a record, as text."""
    parameters = record["predicate"]["buildDefinition"]["externalParameters"]
    wildcards = ", ".join(f"{key}={value}" for key, value in parameters["wildcards"].items())
    return f"{parameters['rule']} ({wildcards})" if wildcards else parameters["rule"]


def _has(resolved: Mapping[str, Any], known: Set[tuple[str, Set]], record: Mapping[str, Any]) -> bool:
    """Whether the job of a record belongs to the study, whose jobs are ``known``."""
    parameters = record["predicate"]["buildDefinition"]["externalParameters"]
    try:
        rule, wildcards = parameters["rule"], parameters["wildcards"]
        settings(rule, wildcards, resolved)
        named = all(wildcards[key] in map(str, resolved[f"{key}s"]) for key in ("dataset", "seed") if key in wildcards)
        others = frozenset((name, value) for name, value in wildcards.items() if name not in ("dataset", "seed"))
        seeded = others | {("seed", wildcards.get("seed"))}
        return named and ((rule, others) in known or (rule, seeded) in known)
    except DAMAGE:
        return False


def _settings(study: Study, resolved: Mapping[str, Any] | None, digest: Digest) -> Iterator[Fault]:
    """Check that every record was made with the settings in study.json and with the current code."""
    if resolved is None:
        return
    for name, record in study.records.items():
        try:
            yield from (Fault(name, what, RUN) for what in _other_settings(record, resolved, digest))
        except DAMAGE:
            yield Fault(name, f"cannot be compared with {study.folder}/study.json: one of them is damaged")


def _other_settings(record: Mapping[str, Any], resolved: Mapping[str, Any], digest: Digest) -> Iterator[str]:
    """Yield the differences between a record and the study."""
    definition = record["predicate"]["buildDefinition"]
    outer, inner = definition["externalParameters"], definition["internalParameters"]
    wanted, used = settings(outer["rule"], outer["wildcards"], resolved), records.settings_of(record)
    if used.pop("code") != wanted.pop("code"):
        code = records.dependencies(record, "code").items()
        changed = [file for file, recorded in code if digest(str(records.REPOSITORY / file)) != recorded]
        yield f"was made with code other than the current code{': ' * bool(changed)}{', '.join(changed)}"
    yield from _unequal(used, wanted)
    if used == wanted and list(flat(used)) != list(flat(wanted)):
        yield "was made with its settings in another order than in the study"
    if inner["threads"] != wanted.get("threads", 1):
        yield f"says it ran with {inner['threads']} threads, but the study has {wanted.get('threads', 1)}"
    if inner["seeds"] != records.seeds_of(outer["wildcards"], wanted):
        yield f"says it ran with the seeds {inner['seeds']}, which are not those of its settings"


def _unequal(used: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*used, *wanted}):
        name = f"{prefix}{key}"
        if key not in wanted:
            yield f"was made with {name}, which is not in the study"
        elif key not in used:
            yield f"was made without {name}, which is in the study"
        elif isinstance(used[key], dict) and isinstance(wanted[key], dict):
            yield from _unequal(used[key], wanted[key], f"{name}.")
        elif used[key] != wanted[key]:
            yield f"was made with {name} {used[key]}, but the study has {wanted[key]}"


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their keys, joined with dots."""
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


def _manifest(study: Study, digest: Digest, left_over: set[str], named: set[str]) -> Iterator[Fault]:
    """Check that MANIFEST.sha256 lists exactly the outputs and records, except its own two files, with their current sha256.

    ``named`` are the files that already have a fault; they are skipped.
    """
    path = str(study.folder / "MANIFEST.sha256")
    own = {path, str(study.folder / f"MANIFEST{records.SUFFIX}")}
    try:
        lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in _text(path).splitlines()]
        listed = {line[2]: line[1] for line in lines}
    except OSError:
        yield Fault(path, "is missing: no run of the study has finished", "run the study")
        return
    except (ValueError, TypeError):
        yield Fault(path, 'contains a line that is not "sha256, two spaces, path"')
        return
    if missing := own - {path} - set(study.records) - named:
        yield Fault(*missing, f"is missing, so {path} has no record")
    outputs = {name for name, made_by in study.made_by.items() if made_by in study.records}
    there = (outputs | set(study.records)) - own
    for name in sorted(there - set(listed) - named):
        yield Fault(name, f"is not listed in {path}, which was written earlier or for other jobs", f"delete {path} and run the study again")
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
    """Check that every number of every table matches its source, and that none was typed by hand."""
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
                        yield Fault(str(listing), f"{cell['id']} is from {source['file']}, but that is no input of the table")
            for fault in cells.faults_of_latex(text, entries, names):
                yield Fault(str(path), fault)
            for fault in cells.faults_of_layout(content["table"], entries, names):
                yield Fault(str(listing), fault)
        except DAMAGE:
            yield Fault(str(listing), f"is missing or damaged, so no number of {path} can be traced")


def _remarks(study: Study, resolved: Mapping[str, Any] | None) -> list[str]:
    """Return remarks for the reader that are no faults."""
    states = [record["predicate"]["buildDefinition"]["internalParameters"]["git"] for record in study.records.values()]
    machines = {cpu for record in study.records.values() for cpu in records.processors(record)}
    remarks = []
    if overrides := (resolved or {}).get("overrides"):
        remarks.append(f"{overrides} was set with --config and differs from the config files")
    if dirty := sum(bool(git["dirty"]) for git in states):
        remarks.append(f"{dirty} of {len(states)} jobs ran with uncommitted changes; their records only have the sha256 of the changes")
    if any(git["commit"] is None for git in states):
        remarks.append("some jobs ran outside git, so their records have no commit; they have the sha256 of the code")
    if len(machines) > 1:
        remarks.append(f"the jobs ran on {len(machines)} kinds of processor: {', '.join(sorted(machines))}")
    return [printable(remark) for remark in remarks]
