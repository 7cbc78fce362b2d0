"""Cells: every number of a table with the place it was read from, and what is wrong with those that are not."""

import json
import math
import re

import pytest

from pqag import files
from pqag.show import cells
from pqag.show.cells import Cells, faults, faults_of_latex, look_up, mean

METRICS = {"SDC": {"map": 0.12345, "per_query": [0.25, 0.5]}, "queries": 60, "none": None, "yes": True, "word": "x", "text": "0.5"}
HISTORY = "epoch,test_accuracy,words\n0,0.5,a\n1,0.75,b\n2,0.9,c\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sources of cells, and the folder with them as the working directory: paths are relative to it."""
    monkeypatch.chdir(tmp_path)
    files.write_json("metrics.json", METRICS)
    files.write_text("training.csv", HISTORY)
    return tmp_path


def empty(name="t", *paths):
    """The cells of a table of these files, with none yet; without files, of one that holds 7 and 2.25."""
    return Cells(name, {path: cells.read(path) for path in paths} or {"x": {"a": 7, "b": 2.25}})


def test_a_cell_by_hand(folder):
    # 100 x 0.12345 = 12.345, which prints as 12.3.
    made = empty("table1", "metrics.json")
    assert made.put("a/b", [("metrics.json", "/SDC/map")], ".1f", 100) == "\x020\x03"
    [entry] = made.entries
    by_hand = {"id": "table1:a/b", "text": "12.3", "value": 100 * 0.12345, "format": ".1f", "statistic": "mean", "scale": 100}
    assert entry == by_hand | {"sources": [{"file": "metrics.json", "pointer": "/SDC/map"}]}
    assert json.loads(json.dumps(entry)) == entry


def test_a_cell_of_several_sources_is_their_mean_or_standard_deviation(folder):
    # (0.5 + 0.75 + 0.9 + 0.25) / 4 = 0.6
    made = empty("table1", "training.csv", "metrics.json")
    made.put("a", [*(("training.csv", f"{row}/test_accuracy") for row in (0, 1, -1)), ("metrics.json", "/SDC/per_query/0")], ".2f")
    assert made.entries[0]["text"] == "0.60"
    assert made.entries[0]["value"] == pytest.approx(0.6, rel=1e-15)
    pointers = ["0/test_accuracy", "1/test_accuracy", "-1/test_accuracy", "/SDC/per_query/0"]
    assert [source["pointer"] for source in made.entries[0]["sources"]] == pointers
    # Of 1, 2 and 4, with the mean 7/3, the squares of -4/3, -1/3 and 5/3 add up to 42/9, half of which is 7/3.
    files.write_json("x.json", [1, 2, 4])
    made = Cells("t", {"x.json": [1, 2, 4]})
    made.put("sd", [("x.json", f"/{i}") for i in range(3)], ".3f", statistic="standard deviation")
    assert made.entries[0]["value"] == pytest.approx((7 / 3) ** 0.5) and made.entries[0]["text"] == "1.528"
    assert faults(made.entries[0]) is None


def test_marks_become_numbers_commands_or_pieces():
    made = empty()
    first, second = made.put("a", [("x", "a")], "d"), made.put("b/c", [("x", "b")], ".1f")
    text = f"{second} of {first}, {first}"
    assert made.plain(text) == "2.2 of 7, 7"
    assert made.latex(text) == r"\cell{t:b/c}{2.2} of \cell{t:a}{7}, \cell{t:a}{7}"
    assert made.pieces(text) == [{"cell": "t:b/c"}, " of ", {"cell": "t:a"}, ", ", {"cell": "t:a"}]
    assert made.plain("no mark 0 1") == made.latex("no mark 0 1") == "no mark 0 1"
    assert made.pieces("no mark 0 1") == ["no mark 0 1"] and made.pieces("") == []
    made = Cells("t", {"x": [1000 + i for i in range(12)]})
    marks = [made.put(f"n{i}", [("x", f"/{i}")], "d") for i in range(12)]
    assert made.plain("".join(reversed(marks))) == "".join(str(1000 + i) for i in reversed(range(12)))
    assert made.pieces(f"{marks[11]}{marks[1]}") == [{"cell": "t:n11"}, {"cell": "t:n1"}]


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a}b", "a{b", r"\input{x}", "a%b", "a#b", "a$b", "a&b", "a~b", "a^b", "a\nb", "a\x02b", "ä", "<script>", 'a"b', "a'b"],
)
def test_a_name_that_latex_or_a_page_would_take_for_more_is_refused(name):
    made = empty()
    with pytest.raises(ValueError, match="cannot name a cell"):
        made.put(name, [("x", "a")])
    assert made.entries == []


def test_every_character_of_a_name_is_read_back_from_the_latex():
    made = Cells("t", {"x": [0.25]})
    latex = made.latex(made.put("Az09_./:+-", [("x", "/0")], ".1f"))
    assert latex == r"\cell{t:Az09_./:+-}{0.2}"
    assert faults_of_latex(latex, made.entries, []) == []
    assert faults_of_latex(latex, [], []) == ["the cell t:Az09_./:+- is not listed"]


def test_escaping_for_latex_by_hand():
    """Captions and heads of columns are escaped with the marks in them, which it leaves alone."""
    made = empty()
    text = f"50 % of {made.put('a_b', [('x', 'a')], 'd')} & more"
    assert made.latex(cells.escape_latex(text)) == r"50 \% of \cell{t:a_b}{7} \& more"
    assert cells.escape_latex("$x$ #1 ~ ^ {}") == r"\$x\$ \#1 \textasciitilde{} \textasciicircum{} \{\}"
    assert cells.escape_latex(r"\input{/etc/passwd}_") == r"\textbackslash{}input\{/etc/passwd\}\_"


def test_mean_by_hand():
    assert mean([3]) == 3 and isinstance(mean([3]), int)
    assert mean([1, 2]) == 1.5
    assert mean([0.25, 0.5], 100) == 37.5
    assert mean([0.1] * 10) == 0.1, "no rounding on the way"


#: The examples of RFC 6901, section 5, with numbers for texts; and ~01, which is ~1 and no slash (section 4).
RFC_6901 = {"foo": [5, 6], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, " ": 7, "m~n": 8, "g~1h": 9, "nested": {"": 4}}
POINTERS = [
    (RFC_6901, {"/foo/0": 5, "/": 0, "/a~1b": 1, "/c%d": 2, "/e^f": 3, "/ ": 7, "/m~0n": 8, "/g~01h": 9, "/nested/": 4}),
    ("metrics.json", {"/SDC/map": 0.12345, "/SDC/per_query/1": 0.5, "/queries": 60, "/text": 0.5}),
    ("training.csv", {"0/test_accuracy": 0.5, "2/test_accuracy": 0.9, "-1/test_accuracy": 0.9, "1/epoch": 1}),
]


@pytest.mark.parametrize(("content", "values"), POINTERS, ids=["RFC 6901", "JSON", "CSV"])
def test_pointers_by_hand(folder, content, values):
    content = cells.read(content) if isinstance(content, str) else content
    assert {pointer: look_up(content, pointer) for pointer in values} == values


@pytest.mark.parametrize(
    ("path", "pointer", "error"),
    [
        ("metrics.json", "/ADC/map", KeyError),
        ("metrics.json", "/SDC/per_query/2", IndexError),
        ("metrics.json", "/SDC/per_query/x", ValueError),
        ("metrics.json", "/SDC/map/deeper", TypeError),
        ("metrics.json", "/SDC", TypeError),
        ("metrics.json", "/SDC/per_query", TypeError),
        ("metrics.json", "/none", TypeError),
        ("metrics.json", "/yes", TypeError),
        ("metrics.json", "/word", ValueError),
        ("metrics.json", "", KeyError),
        ("training.csv", "3/test_accuracy", IndexError),
        ("training.csv", "0/nothing", KeyError),
        ("training.csv", "0/words", ValueError),
        ("training.csv", "0", TypeError),
    ],
)
def test_a_pointer_to_no_number_is_an_error(folder, path, pointer, error):
    with pytest.raises(error):
        look_up(cells.read(path), pointer)
    with pytest.raises(error):
        empty("t", path).put("a", [(path, pointer)])
    cell = {"sources": [{"file": path, "pointer": pointer}], "scale": 1, "format": "g", "value": 1, "text": "1"}
    assert faults(cell).startswith(f"its source cannot be read: {error.__name__}")


@pytest.fixture
def cell(folder):
    """The cell 12.3 of metrics.json."""
    made = empty("table1", "metrics.json")
    made.put("a", [("metrics.json", "/SDC/map")], ".1f", 100)
    return made.entries[0]


def test_only_a_cell_that_is_what_its_source_says_has_no_fault(cell):
    assert faults(cell) is None
    assert faults(json.loads(json.dumps(cell))) is None
    files.write_json("metrics.json", METRICS | {"SDC": {"map": 0.5}})
    assert faults(cell) == "says 12.345, but its source gives 50.0"
    files.write_json("metrics.json", METRICS | {"SDC": {"map": 0.12346}})  # which prints the same
    assert faults(cell).startswith("says 12.345, but its source gives 12.346")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": "12.4"}, "prints 12.4, but 12.345 rounds to 12.3"),
        ({"text": "12.35"}, "prints 12.35, but 12.345 rounds to 12.3"),
        ({"value": 12.3}, "says 12.3, but its source gives 12.345"),
        ({"value": 12.345000001}, "says 12.345000001, but its source gives 12.345"),
        ({"value": 99.9, "text": "99.9"}, "says 99.9, but its source gives 12.345"),
        ({"scale": 1}, "says 12.345, but its source gives 0.12345"),
        ({"format": ".2f"}, "prints 12.3, but 12.345 rounds to 12.35"),
        ({"sources": [{"file": "metrics.json", "pointer": "/queries"}]}, "says 12.345, but its source gives 6000"),
        ({"value": math.nan}, "says nan, but its source gives 12.345"),
    ],
)
def test_a_cell_that_was_changed_has_a_fault(cell, changes, words):
    assert faults(cell | changes) == words


DAMAGED = {"missing": None, "empty": b"", "cut": b"{", "list": b"[1, 2]", "null": b"null", "number": b"7", "text": b'"text"'}
DAMAGED |= {"number for a mapping": b'{"SDC": 1}', "no UTF-8": b"\xff\xfe", "zero": b"\0", "nested": b"[" * 100_000}
DAMAGED |= {"huge": b'{"SDC": {"map": 1%s}}' % (b"0" * 400)}


@pytest.mark.parametrize("name", ["metrics.json", "training.csv"])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_source_that_is_missing_or_damaged_is_a_fault_and_no_crash(folder, name, content):
    made = empty("t", name)
    made.put("a", [("metrics.json", "/SDC/map")] if name == "metrics.json" else [(name, "-1/test_accuracy")])
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert faults(made.entries[0]).startswith("its source cannot be read: ")


def test_a_csv_file_with_a_field_beyond_all_measure_is_a_fault(folder):
    made = empty("t", "training.csv")
    made.put("a", [("training.csv", "-1/test_accuracy")])
    (folder / "training.csv").write_text(HISTORY + "3,0.9," + "x" * 200_000 + "\n")
    assert faults(made.entries[0]).startswith("its source cannot be read: Error field larger than")


@pytest.mark.parametrize("key", ["text", "value", "format", "scale", "sources"])
@pytest.mark.parametrize("value", [None, [], {}, "x", 7, [None], ["x"], [{}]])
def test_a_cell_with_a_part_of_another_kind_is_a_fault_and_no_crash(cell, key, value):
    assert faults(cell | {key: value}) is not None


#: As ``tables.as_latex`` and pandas write it, with every kind of structure that holds digits without printing them.
LATEX = r"""% needs \usepackage{booktabs}, version 1.2
\providecommand{\cell}[2]{#2}
\begin{table}
\centering
\caption{mAP (\%) of VGG16 on CIFAR-10, \cell{t:queries}{60} queries, see \ref{tab:2}.}
\label{tab:table-1}
\begin{tabular}{llrr}
\toprule
 &  & \multicolumn{2}{c}{CIFAR-10} \\
 &  & \cell{t:bits/16}{16} bits & VGG16 \\
\cmidrule(lr){3-4}\cline{1-2}\cmidrule{3-4}
\multirow{4}{*}{SDC} & a\_1 & \cell{t:a}{12.3} & -- \\ % 17
\bottomrule
\end{tabular}
\end{table}
"""
LISTED = [{"id": "t:queries", "text": "60"}, {"id": "t:bits/16", "text": "16"}, {"id": "t:a", "text": "12.3"}]
NAMES = ["CIFAR-10", "VGG16", r"a\_1"]


def test_numbers_in_cells_comments_and_names_are_no_fault():
    assert faults_of_latex(LATEX, LISTED, NAMES) == []
    assert faults_of_latex("% 99.9\ntext % 7\n", [], []) == []
    assert faults_of_latex("50\\% 99.9\n", [], []) == ["the number 50 was typed by hand", "the number 99.9 was typed by hand"]
    assert faults_of_latex(LATEX, LISTED, ["CIFAR-10", r"a\_1"]) == ["the number 16 was typed by hand"] * 2
    assert faults_of_latex("A1 B2 and A1", [], ["A1", "A1 B2"]) == []
    assert faults_of_latex("A1 B2 and A1", [], ["A1"]) == ["the number 2 was typed by hand"]


@pytest.mark.parametrize(
    ("typed", "numbers"),
    [
        ("99.9", ["99.9"]),
        ("12.3", ["12.3"]),  # the right number, but not as a cell
        (".5", ["5"]),
        ("1,000", ["1,000"]),
        (r"12\,345", ["12", "345"]),
        ("99,9", ["99,9"]),
        ("1e-3", ["1", "3"]),
        (r"$10^{-3}$", ["10", "3"]),
        (r"\textbf{99.9}", ["99.9"]),
        (r"\% 99.9", ["99.9"]),
        ("99.9bits", ["99.9"]),
        (r"\multicolumn{2}{c}{99.9}", ["99.9"]),
        (r"\multirow{2}{*}{99.9}", ["99.9"]),
        (r"\begin{center}{99.9}\end{center}", ["99.9"]),
        (r"\begin{center}99.9\end{center}", ["99.9"]),
        (r"\label{a}{99.9}", ["99.9"]),
        (r"\renewcommand{\cell}[2]{99.9}", ["2", "99.9"]),
        (r"\providecommand{\cell}[2]{99.9}", ["2", "99.9"]),
        (r"\char57", ["57"]),
        ("^^39", ["39"]),
        ("٣", ["٣"]),
        ("VGG17", ["17"]),
        ("VGG161", ["1"]),
        ("CIFAR-10.5", ["5"]),
        ("CIFAR-100", ["0"]),
    ],
)
def test_every_kind_of_number_that_was_typed_by_hand_is_found(typed, numbers):
    wanted = [f"the number {number} was typed by hand" for number in numbers]
    for place in ("queries, see", r"\\ % 17", "\\bottomrule\n"):  # in the caption, in a row, below the table
        assert LATEX.count(place) == 1
        assert faults_of_latex(LATEX.replace(place, f" {typed} {place}"), LISTED, NAMES) == wanted


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"\cell{t:a}{12.3}", r"\cell{t:a}{12.4}", "the cell t:a prints 12.4, but is listed as 12.3"),
        (r"\cell{t:a}{12.3}", r"\cell{t:a}{}", "the cell t:a prints , but is listed as 12.3"),
        (r"\cell{t:a}{12.3}", r"\cell{t:b}{12.3}", "the cell t:b is not listed"),
        (r"\cell{t:a}{12.3}", r"\cell{t:bits/16}{12.3}", "the cell t:bits/16 prints 12.3, but is listed as 16"),
        (r"\cell{t:a}{12.3}", r"\cell{}{12.3}", "the cell  is not listed"),
        (r"\cell{t:a}{12.3}", r"\cell{t:a}{12.3}1", "the number 1 was typed by hand"),
        (r"\cell{t:a}{12.3}", "12.3", "the number 12.3 was typed by hand"),
        (r"\cell{t:a}{12.3}", r"\cell{t:a}{\textbf{12.3}}", "the number 12.3 was typed by hand"),
    ],
)
def test_a_cell_that_was_changed_is_found(old, new, words):
    assert faults_of_latex(LATEX.replace(old, new), LISTED, NAMES) == [words]


def test_a_digit_anywhere_is_found_unless_it_is_not_printed():
    """Whatever is left out of a table's text is a comment, or the argument of a command that prints nothing of it."""
    unprinted = r"(?<!\\)%.*|\\(?:label|ref|begin|end|multicolumn|multirow|cline|cmidrule(?:\(lr\))?)\{[^{}]*"
    passed = set()
    for position in range(len(LATEX) + 1):
        if not faults_of_latex(f"{LATEX[:position]}8{LATEX[position:]}", LISTED, NAMES):
            passed.add(position)
            line = LATEX[LATEX.rfind("\n", 0, position) + 1 : position]
            assert re.search(rf"(?:{unprinted})\Z", line), line
    assert LATEX.index("table-1") in passed and LATEX.index("17\n") in passed


def test_a_name_can_be_put_once_and_from_no_file_that_was_not_given(tmp_path, folder):
    """An id that stood for two numbers would trace one of them to the wrong place."""
    table = empty("table1")
    table.put("a/b", [("x", "a")])
    with pytest.raises(ValueError, match="'a/b' names a cell of table1 already"):
        table.put("a/b", [("x", "b")])
    assert [cell["value"] for cell in table.entries] == [7]
    with pytest.raises(KeyError, match="metrics.json"):
        empty("table1", "training.csv").put("queries", [("metrics.json", "/queries")], "d")


def test_faults_of_a_layout():
    def field(*text):
        return {"text": list(text), "span": 1}

    number, listed = {"cell": "t:a"}, [{"id": "t:a", "text": "7"}]
    layout = {"caption": ["50 % of ", number], "heads": 1, "header": [[field("VGG16 a_1")]], "groups": [[[field(number, " ± 3.5")]]]}
    typed = {number: f"the number {number} was typed by hand" for number in ("50", "1", "3.5")}
    assert cells.faults_of_layout(layout, listed, ["VGG16", r"a\_1"]) == [typed["50"], typed["3.5"]]
    found = cells.faults_of_layout(layout | {"caption": []}, [], ["VGG16"])
    assert found == ["the cell t:a is not listed", typed["1"], typed["3.5"]]
