"""The differences between two studies: settings, code, versions, files, numbers."""

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
    """Yield the differences, one line each, and notes ("note: …"), which do not count. Other names and times are no difference.

    A study may be a copy with another name, from another folder: files are compared by their current bytes, at their paths within the
    study. Raises UserError if a folder is no study, or has a damaged study.json, record or list of cells.
    """
    for found in (_settings, _code_and_versions, _files, _numbers):
        yield from map(printable, found(one, other))


def _settings(one: Path, other: Path) -> Iterator[str]:
    yield from _unequal("setting", *(_resolved(folder) for folder in (one, other)))


def _resolved(folder: Path) -> dict[str, Any]:
    """Return the settings of a study without its names."""
    try:
        return flat({key: value for key, value in files.read_json(folder / "study.json").items() if key not in ("study", "configfiles")})
    except DAMAGE as error:
        raise UserError(f"{folder} is not a study: its study.json is missing or damaged ({type(error).__name__}); {studies()}") from None


def _unequal(what: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*first, *second}):
        values = [one.get(key, "absent") for one in (first, second)]
        if values[0] != values[1]:
            yield f"{what} {key}: {values[0]} | {values[1]}"


def _code_and_versions(one: Path, other: Path) -> Iterator[str]:
    """Yield differences in the code of each rule, in versions and in processors."""
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
    """Yield differences in files, except records, unrecorded files and the list of files, which depends on the times in the records."""
    first, second = (_digests(folder) for folder in (one, other))
    for name in sorted({*first, *second} - {"study.json", "MANIFEST.sha256"}):
        if name not in second:
            yield f"file {name}: only in {one}"
        elif name not in first:
            yield f"file {name}: only in {other}"
        elif first[name] != second[name]:
            yield f"file {name}: differs"


def _digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file by its path in the study. A list of cells counts without the name of the study in its paths."""
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
