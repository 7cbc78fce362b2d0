"""Writes a page that shows the tables of a study and, for every number, how it was made from the raw files.

The page is one file that needs no other file and no network. Everything from the study is text: the markup escapes it, and the script sets
it with ``textContent``. The policy in the head lets only the page's own script run. Needs only the standard library.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pqag import files
from pqag.audit.verify import DAMAGE, Fault, Study, verify
from pqag.audit.why import listed
from pqag.errors import UserError
from pqag.job import records
from pqag.show import cells
from pqag.show.pages import embedded, filled
from pqag.study.file import printable

TEMPLATE = Path(__file__).with_name("page.html")


def page(folder: Path) -> tuple[str, int]:
    """Return the page of the study in ``folder`` and its number of faults. The page contains no current time: same study, same bytes."""
    faults, remarks, study = verify(folder)
    listings = _listings(folder)
    template = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "study": _text(folder.name),
        "verdict": _verdict(study, faults, remarks),
        "tables": "".join(_table(path, listing) for path, listing in listings.items()) or "<p>The study has no tables yet.</p>",
        "data": embedded(_data(study, listings, faults)),
    }
    return filled(template, parts), len(faults)


def _text(text: str) -> str:
    """Return ``text`` as markup without invisible characters."""
    return escape(printable(text))


# ------------------------------------------------------------------------------------------------------------------------- static parts


def _verdict(study: Study, faults: list[Fault], remarks: list[str]) -> str:
    checked = f"{len(study.made_by)} files of {len(study.records)} jobs"
    manifest = study.folder / "MANIFEST.sha256"
    root = files.sha256(manifest) if manifest.is_file() else "missing"
    if faults:
        remedies = "".join(f"<p>Remedy: {_text(remedy)}.</p>\n" for remedy in dict.fromkeys(fault.remedy for fault in faults))
        summary = f"<summary>{len(faults)} fault{'s' * (len(faults) > 1)} in {checked}</summary>"
        items = (f"<code>{_text(fault.file)}</code> {_text(fault.what)}" for fault in faults)
        verdict = f'<details class="bad"{" open" * (len(faults) <= 8)}>{summary}{_list(items)}{remedies}</details>'
    else:
        verdict = f'<p class="good">No fault in {checked}</p>'
    return (
        f'{verdict}\n<p class="root">sha256 of <code>{_text(str(manifest))}</code>, which lists the sha256 of every file:<br>'
        f"<code>{root}</code></p>\n{_list(map(_text, remarks))}"
    )


def _list(items: Iterable[str]) -> str:
    lines = "".join(f"<li>{item}</li>\n" for item in items)
    return f"<ul>\n{lines}</ul>" if lines else ""


def _listings(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the cells of each table by its .tex file, without unreadable listings, which are reported as faults."""
    found = {}
    for path in sorted(folder.glob("tables/*.cells.json")):
        with contextlib.suppress(UserError):
            found[path.with_name(path.name.removesuffix(".cells.json") + ".tex")] = listed(path)
    return found


#: A field as a column of a row holds it: its pieces (see ``pqag.show.cells``), its span, and the column that it begins in.
Field = tuple[list[Any], int, int]


def _table(path: Path, listing: Mapping[str, Any]) -> str:
    """A table as it is printed, with a link for every number; where its layout is damaged, its cells in a list."""
    name = re.sub(r"^table(?=\d)", "Table ", path.stem)
    try:
        table = json.loads(_content(path.with_suffix(".cells.json")))["table"]
        caption, rows = _html(table["caption"], listing), _rows(table, listing)
    except DAMAGE:
        rows = "".join(f'<tr><th scope="row">{_text(one)}</th><td>{_link(one, cell["text"])}</td></tr>' for one, cell in listing.items())
        caption, rows = "The layout of this table is damaged; these are its cells.", f"<tbody>{rows}</tbody>"
    return (
        f'<section class="table"><h2>{_text(name)}</h2><p>{caption}</p>\n'
        f'<div class="scroll" tabindex="-1"><table aria-label="{_text(name)}">{rows}</table></div></section>\n'
    )


def _html(pieces: Iterable[Any], listing: Mapping[str, Any]) -> str:
    """A text of a layout as HTML, with a link for every cell."""
    return "".join(_text(one) if isinstance(one, str) else _link(one["cell"], listing[one["cell"]]["text"]) for one in pieces)


def _link(identity: str, text: str) -> str:
    return f'<a href="#{escape(quote(identity, safe="/:", errors="replace"))}">{_text(text)}</a>'


def _rows(table: Mapping[str, Any], listing: Mapping[str, Any]) -> str:
    """The lines of a table. A column that begins a span of the header is marked, to stand a little apart."""
    header = [list(_columns(line)) for line in table["header"]]
    starts = {column for line in header for _, span, column in line if span > 1}

    def line(fields: Iterable[tuple[str, list[Any], int]]) -> str:
        marked = ((f'{tag} class="start"' if column in starts else tag, tag.split()[0], text) for tag, text, column in fields)
        return f"<tr>{''.join(f'<{opened}>{_html(text, listing)}</{closed}>' for opened, closed, text in marked)}</tr>\n"

    head = "".join(line((_tag_of_head(text, span), text, column) for text, span, column in one) for one in header)
    bodies = ("".join(map(line, _body(group, table["heads"]))) for group in table["groups"])
    return f"<thead>\n{head}</thead>\n" + "".join(f"<tbody>\n{body}</tbody>\n" for body in bodies)


def _columns(line: Iterable[Mapping[str, Any]]) -> Iterator[Field]:
    column = 0
    for field in line:
        yield field["text"], field["span"], column
        column += field["span"]


def _tag_of_head(text: list[Any], span: int) -> str:
    if not text:
        return "td"
    return f'th scope="colgroup" colspan="{span}"' if span > 1 else 'th scope="col"'


def _body(group: list[list[Mapping[str, Any]]], heads: int) -> Iterator[list[tuple[str, list[Any], int]]]:
    """Tag, text and column of every field, by lines. If the first column names the first line alone, that name is one for the group."""
    named = len(group) > 1 and not any(line[0]["text"] for line in group[1:])
    for number, line in enumerate(group):
        fields = [('th scope="row"' if column < heads else "td", text, column) for text, _, column in _columns(line)]
        if named:
            fields[:1] = [] if number else [(f'th scope="rowgroup" rowspan="{len(group)}"', *fields[0][1:])]
        yield fields


# ------------------------------------------------------------------------------------------------------------------ data for the script


class _Shared(list):
    """Values that many jobs share, each stored once; a job stores the index."""

    def place(self, value: Any) -> int:
        if value not in self:
            self.append(value)
        return self.index(value)


def _data(study: Study, listings: Mapping[Path, Mapping[str, Any]], faults: Iterable[Fault]) -> dict[str, Any]:
    """Return the data for the script: cells, jobs with their inputs and outputs, faults, and the config files."""
    shared = _Shared()
    try:
        config = dict(json.loads(_content(study.folder / "study.json"))["configfiles"])
    except DAMAGE:  # verify reports it
        config = {}
    return {
        "study": str(study.folder),
        "cells": [_cell(cell, str(path)) for path, listing in listings.items() for cell in listing.values()],
        "jobs": [_job(path, record, shared) for path, record in sorted(study.records.items())],
        "shared": shared,
        "config": config,
        "faults": [[fault.file, fault.what] for fault in faults],
    }


def _content(path: Path) -> str:
    if not path.is_file():  # reading a pipe would never end
        raise FileNotFoundError(path)
    return path.read_text(encoding="utf-8")


def _cell(cell: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {**cell, "table": path, "sources": [{**source, "value": _value(source)} for source in cell["sources"]]}


def _value(source: Mapping[str, str]) -> float | None:
    try:
        return cells.look_up(cells.read(source["file"]), source["pointer"]) if Path(source["file"]).is_file() else None
    except DAMAGE:  # verify reports it
        return None


def _job(path: str, record: Mapping[str, Any], shared: _Shared) -> dict[str, Any]:
    definition, details = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
    outer, inner, times = definition["externalParameters"], definition["internalParameters"], details["metadata"]
    return {
        "record": path,
        "recordDigest": files.sha256(path),
        **{key: outer[key] for key in ("rule", "wildcards", "settings")},
        **{key: inner[key] for key in ("code", "seeds", "threads", "git")},
        **{key: times[key] for key in ("startedOn", "finishedOn")},
        "outputs": records.outputs(record),
        "inputs": records.dependencies(record, "input"),
        "raw": records.dependencies(record, "raw"),
        "modules": shared.place(records.dependencies(record, "code")),
        "versions": shared.place(details["builder"]["version"]),
        "machine": shared.place(details["byproducts"][0]["annotations"]),
    }
