"""The numbers of a table, each with the place it was read from: what lets ``audit`` trace and check every number in a .tex file.

A number is put into a text as a mark, which becomes ``\\cell{id}{number}`` in LaTeX and the bare number elsewhere. A cell is a mapping:
``id`` ("table1:…"), ``text`` as printed, ``value``, ``format``, ``statistic``, ``scale`` and ``sources``, so that ``value`` = ``scale`` x
the statistic ("mean" or "standard deviation") of the sources and ``text`` = ``value`` in that format. A source is a file and a pointer
into it: of JSON as in RFC 6901, of a CSV file ``row/column`` with rows from 0, or from -1 backwards.

The layout of a table is a mapping of plain values: ``caption``, a text; ``heads``, how many columns at the left name the row; ``header``,
rows of fields; ``groups``, the rows of the body in groups, with a rule between them. A field has a ``text`` and a ``span`` of columns. A
text is a list of pieces: a string, or ``{"cell": id}`` for the number of a cell. Needs only the standard library.
"""

import csv
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: What LaTeX does with a cell; a document of its own may define it otherwise, to link to the audit page for instance.
MACRO = r"\providecommand{\cell}[2]{#2}"
_MARK = re.compile("\x02(\\d+)\x03")
_IDENTITY = re.compile(r"[A-Za-z0-9_./:+-]+")


class Cells:
    """The cells of one table, filled while its text is built. ``contents`` are the files it is made of, by path, as ``read`` gives them."""

    def __init__(self, table: str, contents: Mapping[str, Any]):
        self.table = table
        self.contents = contents
        self.entries: list[dict[str, Any]] = []

    def put(self, name: str, sources: Iterable[tuple[str, str]], spec: str = "g", scale: float = 1, statistic: str = "mean") -> str:
        """Add a cell and return its mark. ``sources`` are (path, pointer).

        Raises ValueError for a name that LaTeX would not take as it is, and for one that the table has already; what ``look_up`` raises
        where there is no such number; and KeyError for a file that is not in ``contents``.
        """
        if not _IDENTITY.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a cell: allowed are letters, digits and _ . / : + -")
        if any(entry["id"] == f"{self.table}:{name}" for entry in self.entries):
            raise ValueError(f"{name!r} names a cell of {self.table} already")
        places = [{"file": path, "pointer": pointer} for path, pointer in sources]
        value = STATISTICS[statistic]([look_up(self.contents[place["file"]], place["pointer"]) for place in places], scale)
        entry = {"id": f"{self.table}:{name}", "text": format(value, spec), "value": value, "format": spec}
        self.entries.append(entry | {"statistic": statistic, "scale": scale, "sources": places})
        return f"\x02{len(self.entries) - 1}\x03"

    def plain(self, text: str) -> str:
        """``text`` with every mark as its number."""
        return _MARK.sub(lambda mark: self.entries[int(mark[1])]["text"], text)

    def latex(self, text: str) -> str:
        """``text`` with every mark as ``\\cell{id}{number}``."""
        return _MARK.sub(lambda mark: "\\cell{{{id}}}{{{text}}}".format(**self.entries[int(mark[1])]), text)

    def pieces(self, text: str) -> list[str | dict[str, str]]:
        """``text`` as in a layout: every mark as ``{"cell": id}``, what stands between as strings."""
        parts = _MARK.split(text)  # every second is the number of a cell
        return [{"cell": self.entries[int(part)]["id"]} if i % 2 else part for i, part in enumerate(parts) if part]


def mean(values: Sequence[float], scale: float = 1) -> float:
    """``scale`` x mean of ``values``; a single value keeps its type, so that whole numbers print as such."""
    return scale * (values[0] if len(values) == 1 else math.fsum(values) / len(values))


def standard_deviation(values: Sequence[float], scale: float = 1) -> float:
    """``scale`` x the sample standard deviation (divisor n - 1) of at least two ``values``."""
    return scale * statistics.stdev(values)


STATISTICS = {"mean": mean, "standard deviation": standard_deviation}


def read(path: str | Path) -> Any:
    """The content of a JSON file, or of a CSV file as a list of mappings."""
    if str(path).endswith(".csv"):
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return json.loads(Path(path).read_text(encoding="utf-8"))


def look_up(content: Any, pointer: str) -> float:
    """The number at ``pointer``; raises KeyError, IndexError, ValueError or TypeError where there is none."""
    for part in pointer.removeprefix("/").split("/"):
        content = content[int(part)] if isinstance(content, list) else content[part.replace("~1", "/").replace("~0", "~")]
    if isinstance(content, str):
        return float(content)
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise TypeError(f"{pointer} is no number")
    return content


def faults(cell: dict[str, Any], read: Callable[[str], Any] = read) -> str | None:
    """What is wrong with a cell beside its sources as they are now, which ``read`` reads; None where all is well."""
    try:
        values = [look_up(read(source["file"]), source["pointer"]) for source in cell["sources"]]
        value = STATISTICS[cell["statistic"]](values, cell["scale"])
        if len(cell["format"]) > 4:  # a width or precision in it may ask for gigabytes
            raise ValueError(f"{cell['format'][:20]} is no format of ours")
        text, same = format(value, cell["format"]), math.isclose(value, cell["value"], rel_tol=1e-12)
    except (OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, csv.Error) as error:
        return f"its source cannot be read: {type(error).__name__} {error}"
    if not same:
        return f"says {cell['value']!r}, but its source gives {value!r}"
    if text != cell["text"]:
        return f"prints {cell['text']}, but {value!r} rounds to {text}"
    return None


#: A cell in LaTeX: its id and its number.
CELL = re.compile(r"\\cell\{([^{}]*)\}\{([^{}]*)\}")
_STRUCTURE = re.compile(
    r"(?<!\\)%.*|\\(?:label|ref|begin|end|usepackage)\{[^{}]*\}|\\multi(?:column|row)\{\d+\}|"
    r"\\c(?:mid)?rule(?:\([lr]*\))?\{[^{}]*\}|\\cline\{[^{}]*\}|\\providecommand\{\\cell\}\[2\]\{#2\}"
)


def faults_of_latex(text: str, cells: Iterable[dict[str, Any]], names: Iterable[str]) -> list[str]:
    """What is wrong with the numbers of a .tex file: a cell that is not listed or prints otherwise, a number that is no cell.

    ``names`` are words that hold digits without being numbers of ours (VGG16), as LaTeX prints them.
    """
    known = {cell["id"]: cell["text"] for cell in cells}
    found = []
    for identity, printed in CELL.findall(text):
        if identity not in known:
            found.append(f"the cell {identity} is not listed")
        elif known[identity] != printed:
            found.append(f"the cell {identity} prints {printed}, but is listed as {known[identity]}")
    return found + _typed(CELL.sub(" ", _STRUCTURE.sub(" ", text)), names)


def faults_of_layout(layout: Mapping[str, Any], cells: Iterable[dict[str, Any]], names: Iterable[str]) -> list[str]:
    """The same of the layout of a table."""
    known = {cell["id"] for cell in cells}
    rows = [*layout["header"], *(row for group in layout["groups"] for row in group)]
    pieces = [*layout["caption"], *(piece for row in rows for field in row for piece in field["text"])]
    used = [piece["cell"] for piece in pieces if not isinstance(piece, str)]
    typed = " ".join(escape_latex(piece) for piece in pieces if isinstance(piece, str))
    return [f"the cell {identity} is not listed" for identity in used if identity not in known] + _typed(typed, names)


def _typed(text: str, names: Iterable[str]) -> list[str]:
    """What is wrong with ``text``, LaTeX without cells: every number in it that is not part of a name."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, " ")
    return [f"the number {number} was typed by hand" for number in re.findall(r"\d+(?:[.,]\d+)*", text)]


def escape_latex(text: str) -> str:
    """``text`` with LaTeX's special characters made printable, so that no name can be a command."""
    return text.translate(_LATEX)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
