"""Traces a number from the cell of a table back to the raw files."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pqag import files
from pqag.audit.verify import DAMAGE, Fault, Study, job, load
from pqag.errors import UserError
from pqag.job import records
from pqag.show import cells
from pqag.study.file import printable


def all_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every cell of every table of the study, by its id; raises UserError if a listing is damaged."""
    return {identity: cell for path in sorted(folder.glob("tables/*.cells.json")) for identity, cell in listed(path).items()}


def listed(path: Path) -> dict[str, dict[str, Any]]:
    """Return the cells of one listing, by their ids; raises UserError if it is damaged."""
    found = {}
    try:
        if not path.is_file():  # reading a pipe would never end
            raise FileNotFoundError("no such file")
        for cell in files.read_json(path)["cells"]:
            numbers, texts = [cell["value"], cell["scale"]], [source[key] for source in cell["sources"] for key in ("file", "pointer")]
            well_formed = all(isinstance(one, int | float) for one in numbers) and all(
                isinstance(one, str) for one in [*texts, cell["text"]]
            )
            if not re.fullmatch(r"[^:]+:.+", cell["id"]) or not texts or not well_formed:
                raise ValueError(cell["id"])
            found[cell["id"]] = {key: cell[key] for key in ("id", "text", "value", "format", "statistic", "scale", "sources")}
    except DAMAGE as error:
        raise UserError(f"{path} is not a list of cells: {type(error).__name__} {error}") from None
    return found


def find(folder: Path, query: str) -> dict[str, Any]:
    """Return the cell that ``query`` names, for example "table1:aod/vgg16/24/ADC": any words that identify the cell, in any order.

    If no cell or several cells match, raises UserError with the candidates, the nearest first.
    """
    known = all_cells(folder)
    if not known:
        raise UserError(f"{folder} has no tables yet: run the study first")
    if query in known:
        return known[query]
    table, colon, rest = query.partition(":")
    words = _words(rest if colon else query)

    def matches(identity: str) -> int:
        """Return how many of the words the cell has, or -1 if it is in another table."""
        own, parts = identity.split(":", 1)[0], _words(identity.split(":", 1)[1])
        return sum(min(words.count(word), parts.count(word)) for word in set(words)) if not colon or own == table else -1

    found = [identity for identity in known if matches(identity) == len(words)]
    if len(found) == 1:
        return known[found[0]]
    candidates = found or sorted(known, key=matches, reverse=True)
    more = f" and {len(candidates) - 8} more" if len(candidates) > 8 else ""
    means = f"{len(found)} cells:" if found else f"no cell of {folder}; the nearest are"
    raise UserError(f"{query} matches {means} {', '.join(candidates[:8])}{more}")


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[/\s]+", text.lower()) if word]


def chain(study: Study, path: str) -> list[tuple[int, str, dict[str, Any] | None]]:
    """Return the files from which ``path`` was made, each once, as (depth, path, record of its job), in depth-first order down to the raw
    data."""
    return [(depth, name, study.record(name)) for depth, name, again in _walk(study, path, set()) if not again]


def _walk(study: Study, path: str, seen: set[str]) -> Iterator[tuple[int, str, bool]]:
    """Yield every file on the way from ``path`` to the raw data: its depth, its name, and whether it was ``seen`` before.

    Inputs of a file that was seen before are not repeated. ``seen`` is updated.
    """
    pending = [(0, path)]
    while pending:
        depth, name = pending.pop()
        yield depth, name, name in seen
        if name not in seen and (record := study.record(name)):
            pending.extend((depth + 1, needed) for needed in sorted(records.dependencies(record, "input"), reverse=True))
        seen.add(name)


def explain(folder: Path, query: str) -> Iterator[str | Fault]:
    """Yield the lines of the answer to ``why`` for a cell or a file of the study, and a fault if a file no longer matches its record."""
    study = load(folder)
    names = [os.path.normpath(query), str(folder / query)]
    starts = [name for name in names if name in study.made_by or name in study.records][:1]
    if not starts and Path(names[0]).is_file():
        raise UserError(f"{names[0]} was made by no recorded job of {folder}")
    if not starts:
        cell = find(folder, query)
        starts = list(dict.fromkeys(source["file"] for source in cell["sources"]))
        yield from _cell(cell)
    seen: set[str] = set()
    for start in starts:
        target = next(iter(records.outputs(study.records[start])), start) if start in study.records else start
        for depth, name, again in _walk(study, target, seen):
            if again:
                yield printable(f"{'  ' * depth}{name}, as above")
            else:
                yield from _file(depth, name, study.record(name))


def _cell(cell: Mapping[str, Any]) -> Iterator[str | Fault]:
    scale = f"{cell['scale']:g} x " if cell["scale"] != 1 else ""
    mean = f"the {cell['statistic']}" if len(cell["sources"]) > 1 else "the value"
    yield printable(f"{cell['id']} prints {cell['text']} for {cell['value']!r}, which is {scale}{mean} of")
    for source in cell["sources"]:
        yield printable(f"  {source['file']} at {source['pointer']}")
    if fault := cells.faults(dict(cell)):
        yield Fault(cell["id"], fault)
    yield ""


def _file(depth: int, name: str, record: Mapping[str, Any] | None) -> Iterator[str | Fault]:
    lines = [name, "  has no record"] if record is None else [name, *_described(name, record)]
    yield from (printable("  " * depth + line) for line in lines)
    if record is not None:
        try:
            same = files.sha256(name) == records.outputs(record)[name]
        except (OSError, ValueError):
            same = False
        if not same:
            yield Fault(name, "is missing, or is no longer what its job made; `audit verify` reports more")


def _described(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines that describe how a file was made, from its record."""
    definition = record["predicate"]["buildDefinition"]
    inner = definition["internalParameters"]
    settings = ", ".join(f"{key}={_short(value)}" for key, value in definition["externalParameters"]["settings"].items())
    yield f"  sha256 {records.outputs(record)[name]}"
    yield f"  made by {job(record)}{f' with {settings}' if settings else ''}"
    dirty = " and uncommitted changes" if inner["git"]["dirty"] else ""
    seeds = "".join(f", {key} {value}" for key, value in inner["seeds"].items())
    started = record["predicate"]["runDetails"]["metadata"]["startedOn"]
    yield f"  commit {inner['git']['commit'] or 'unknown'}{dirty}, code {inner['code'][:12]}, threads {inner['threads']}{seeds}, {started}"
    for role in ("shard", "raw"):
        for used, digest in records.dependencies(record, role).items():
            yield f"  {role} {used} sha256 {digest}"


def _short(value: Any) -> str:
    return "…" if isinstance(value, dict | list) and len(str(value)) > 60 else str(value)
