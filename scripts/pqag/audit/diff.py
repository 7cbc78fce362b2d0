"""What differs between two studies: settings, code, versions, files, numbers."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pqag import files
from pqag.audit.verify import DAMAGE, UNRECORDED, flat, record_files, studies
from pqag.audit.why import all_cells
from pqag.errors import UserError
from pqag.job import records
from pqag.study.file import printable


def differences(one: Path, other: Path) -> Iterator[str]:
    """The differences, one line each, and notes ("note: …") of what is none; no difference where only names and times are others.

    A study may be a copy under another name, from another folder: files are compared by their bytes as they are now, at their places in the
    study. Raises UserError for a folder that is none, or whose study.json, records or cells are damaged.
    """
    for found in (_settings, _code_and_versions, _files, _numbers):
        yield from map(printable, found(one, other))


def _settings(one: Path, other: Path) -> Iterator[str]:
    yield from _unequal("setting", *(_resolved(folder) for folder in (one, other)))


def _resolved(folder: Path) -> dict[str, Any]:
    """The settings of a study but those that name it."""
    try:
        return flat({key: value for key, value in files.read_json(folder / "study.json").items() if key not in ("study", "configfiles")})
    except DAMAGE as error:
        raise UserError(f"{folder} is no study: its study.json is missing or damaged ({type(error).__name__}); {studies()}") from None


def _unequal(what: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*first, *second}):
        values = [one.get(key, "absent") for one in (first, second)]
        if values[0] != values[1]:
            yield f"{what} {key}: {values[0]} | {values[1]}"


def _code_and_versions(one: Path, other: Path) -> Iterator[str]:
    """The code of each rule, and the versions that the jobs ran with."""
    code: list[dict[str, set[str]]] = [{}, {}]
    versions: list[dict[str, set[str]]] = [{}, {}]
    processors: list[dict[str, set[str]]] = [{}, {}]
    for number, folder in enumerate((one, other)):
        for path in record_files(folder):
            record = records.read(path)
            definition, run = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
            code[number].setdefault(definition["externalParameters"]["rule"], set()).add(definition["internalParameters"]["code"][:12])
            for name, version in run["builder"]["version"].items():
                versions[number].setdefault(name, set()).add(str(version))
            processors[number].setdefault("processor", set()).update(records.processors(record))
    for what, found in (("code of", code), ("version of", versions), ("note:", processors)):
        yield from _unequal(what, *({name: " and ".join(sorted(several)) for name, several in values.items()} for values in found))


def _files(one: Path, other: Path) -> Iterator[str]:
    """All files but records and what is not recorded; the list of files has the times of the records in it."""
    first, second = (_digests(folder) for folder in (one, other))
    for name in sorted({*first, *second} - {"study.json", "MANIFEST.sha256"}):
        if name not in second:
            yield f"file {name}: only in {one}"
        elif name not in first:
            yield f"file {name}: only in {other}"
        elif first[name] != second[name]:
            yield f"file {name}: differs"


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of each file by its place in the study; of a list of cells without the name of the study, which its sources begin with."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.endswith(records.SUFFIX) or UNRECORDED.fullmatch(name):
            continue
        try:
            found[name] = _cells_digest(path) if name.endswith(".cells.json") else files.sha256(path)
        except DAMAGE as error:
            found[name] = f"unreadable: {error}"
    return found


def _cells_digest(path: Path) -> str:
    text = re.sub(r'^(\s*"file": ")results/[^/"]+/', r"\1", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return hashlib.sha256(text.encode()).hexdigest()


def _numbers(one: Path, other: Path) -> Iterator[str]:
    first, second = all_cells(one), all_cells(other)
    for identity in dict.fromkeys([*first, *second]):
        if identity not in second:
            yield f"number {identity}: only in {one}"
        elif identity not in first:
            yield f"number {identity}: only in {other}"
        elif any(first[identity][key] != second[identity][key] for key in ("value", "text")):
            difference = second[identity]["value"] - first[identity]["value"]
            yield f"number {identity}: {first[identity]['text']} | {second[identity]['text']} ({difference:+.3g})"
