"""Reads back the LaTeX tables of ``pqag.show.tables``, so that the audit page can show them as printed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pqag.show.cells import CELL

#: A cell of a row: its content, as LaTeX, and the number of columns that it spans.
Field = tuple[str, int]

_RULE = re.compile(r"\s*(\\(?:top|mid|bottom)rule\b|\\c(?:mid)?(?:line|rule)(?:\([lr]*\))?\{[^{}]*\})")
_SPAN = re.compile(r"\\multi(column|row)\{(\d+)\}\{[^{}]*\}\{(.*)\}", re.DOTALL)
_SIGNS = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", "--": "–"}
_SIGN = re.compile("|".join([*map(re.escape, _SIGNS), r"\\([&%$#_{}])"]))


@dataclass(frozen=True)
class Table:
    """A table as printed, all as LaTeX: its caption, the number of columns on the left that name the row, the lines of its head, and the
    groups of lines of its body, with a rule between groups."""

    caption: str
    heads: int
    header: list[list[Field]]
    groups: list[list[list[Field]]]


def read(text: str) -> Table:
    """Return the one table of a .tex file; raises ValueError if there is none."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    columns, start = _group(text, _after(text, "\\begin{tabular}"))
    groups: list[list[list[Field]]] = [[]]
    for line in re.split(r"\\\\\s*\n", text[start : text.index("\\end{tabular}", start)]):
        while rule := _RULE.match(line):
            line = line[rule.end() :]
            if rule[1] == "\\midrule":
                groups.append([])
        if line.strip():
            groups[-1].append([_field(one.strip()) for one in re.split(r"(?<!\\)&", line)])
    caption = " ".join(_group(text, _after(text, "\\caption"))[0].split())
    return Table(caption, columns.count("l"), groups[0], groups[1:])


def pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the characters that LaTeX prints for ``text``, in pieces, each with the id of its cell or None."""
    end = 0
    for cell in CELL.finditer(text):
        yield _printed(text[end : cell.start()]), None
        yield _printed(cell[2]), cell[1]
        end = cell.end()
    yield _printed(text[end:]), None


def _printed(text: str) -> str:
    return _SIGN.sub(lambda sign: sign[1] or _SIGNS[sign[0]], text)


def _after(text: str, command: str) -> int:
    return text.index(command) + len(command)


def _group(text: str, start: int) -> tuple[str, int]:
    """Return the text between the brace at ``start`` and its closing brace, and the position after it."""
    depth = 0
    for sign in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if depth == 0 and sign[0] == "}":
            return text[text.index("{", start) + 1 : sign.start()], sign.end()
    raise ValueError("a brace is not closed")


def _field(text: str) -> Field:
    span = _SPAN.fullmatch(text)
    if span is None:
        return text, 1
    return span[3], int(span[2]) if span[1] == "column" else 1
