"""Cells: every number of a table with the place it was read from, and what is wrong with a number that has no such place."""

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqag import files
from pqag.show import cells, tables
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


# ------------------------------------------------------------------------------------------------------------------------- cells


def test_a_cell_by_hand(folder):
    # 100 x 0.12345 = 12.345, which prints as 12.3.
    made = Cells("table1")
    assert made.put("a/b", [("metrics.json", "/SDC/map")], ".1f", 100) == "\x020\x03"
    [entry] = made.entries
    assert entry == {
        "id": "table1:a/b",
        "text": "12.3",
        "value": 100 * 0.12345,
        "format": ".1f",
        "statistic": "mean",
        "scale": 100,
        "sources": [{"file": "metrics.json", "pointer": "/SDC/map"}],
    }
    assert json.loads(json.dumps(entry)) == entry


def test_a_cell_of_several_sources_is_their_mean(folder):
    # (0.5 + 0.75 + 0.9 + 0.25) / 4 = 0.6
    made = Cells("table1")
    pointers = ["0/test_accuracy", "1/test_accuracy", "-1/test_accuracy", "/SDC/per_query/0"]
    made.put("a", [("training.csv" if pointer[0] != "/" else "metrics.json", pointer) for pointer in pointers], ".2f")
    assert made.entries[0]["text"] == "0.60"
    assert made.entries[0]["value"] == pytest.approx(0.6, rel=1e-15)
    assert [source["pointer"] for source in made.entries[0]["sources"]] == pointers


def test_a_value_that_is_given_is_taken_and_its_source_not_read_and_a_whole_number_prints_as_such(folder):
    made = Cells("table1")
    made.put("seed", [("yet-to-be-written.json", "/seed")], "d", value=2**31 - 1)
    made.put("queries", [("metrics.json", "/queries")], "d")
    assert [(entry["text"], entry["value"]) for entry in made.entries] == [("2147483647", 2147483647), ("60", 60)]


def test_marks_become_numbers_or_commands():
    made = Cells("t")
    first, second = made.put("a", [("", "")], "d", value=7), made.put("b/c", [("", "")], ".1f", value=2.25)
    text = f"{second} of {first}, {first}"
    assert made.plain(text) == "2.2 of 7, 7"
    assert made.latex(text) == r"\cell{t:b/c}{2.2} of \cell{t:a}{7}, \cell{t:a}{7}"
    assert made.plain("no mark 0 1") == made.latex("no mark 0 1") == "no mark 0 1"
    # Captions and heads of columns are escaped with the marks in them.
    assert made.latex(tables.escape_latex(f"50 % of {first} & more")) == r"50 \% of \cell{t:a}{7} \& more"
    marks = [made.put(f"n{i}", [("", "")], "d", value=1000 + i) for i in range(12)]
    assert made.plain("".join(reversed(marks))) == "".join(str(1000 + i) for i in reversed(range(12)))


def test_a_name_that_latex_or_a_page_would_take_for_more_is_refused():
    made = Cells("t")
    for name in ["", "<script>", "ä", "a\nb", *(f"a{character}b" for character in "} {\\%#$&~^\x02\"'")]:
        with pytest.raises(ValueError, match="cannot name a cell"):
            made.put(name, [("", "")], value=1)
    assert made.entries == []


@given(st.from_regex(r"[A-Za-z0-9_./:+-]{1,20}", fullmatch=True), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=25)
def test_every_name_that_is_allowed_is_read_back_from_the_latex(name, value):
    made = Cells("t")
    latex = made.latex(made.put(name, [("", "")], ".1f", value=value))
    assert latex == f"\\cell{{t:{name}}}{{{value:.1f}}}"
    assert faults_of_latex(latex, made.entries, []) == []
    assert faults_of_latex(latex, [], []) == [f"the cell t:{name} is not listed"]


# ---------------------------------------------------------------------------------------------------------------- reading sources


def test_mean_and_standard_deviation_by_hand():
    assert mean([3]) == 3 and isinstance(mean([3]), int)
    assert mean([1, 2]) == 1.5
    assert mean([0.25, 0.5], 100) == 37.5
    assert mean([0.1] * 10) == 0.1, "no rounding on the way"
    # The squared deviations from 7/3 are 16/9, 1/9 and 25/9: their sum over 2 is 7/3.
    assert cells.standard_deviation([1, 2, 4], 10) == pytest.approx(10 * math.sqrt(7 / 3))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0.1, 1000))
@settings(max_examples=25)
def test_a_mean_does_not_depend_on_the_order_and_lies_between(values, scale):
    found = mean(values, scale)
    assert found == mean(values[::-1], scale) == mean(sorted(values), scale)
    slack = 1e-12 * max(map(abs, values))
    assert scale * (min(values) - slack) <= found <= scale * (max(values) + slack)


def test_pointers_by_hand(folder):
    for pointer, value in (("/SDC/map", 0.12345), ("/SDC/per_query/1", 0.5), ("/queries", 60), ("/text", 0.5)):
        assert look_up(cells.read("metrics.json"), pointer) == value
    for pointer, value in (("0/test_accuracy", 0.5), ("2/test_accuracy", 0.9), ("-1/test_accuracy", 0.9), ("1/epoch", 1)):
        assert look_up(cells.read("training.csv"), pointer) == value


def test_pointers_are_those_of_rfc_6901():
    """Its section 5, with numbers for texts; and ~01, which is ~1 and no slash (section 4)."""
    content = {"foo": [5, 6], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, " ": 7, "m~n": 8, "g~1h": 9, "nested": {"": 4}}
    wanted = {"/foo/0": 5, "/": 0, "/a~1b": 1, "/c%d": 2, "/e^f": 3, "/ ": 7, "/m~0n": 8, "/g~01h": 9, "/nested/": 4}
    assert {pointer: look_up(content, pointer) for pointer in wanted} == wanted


@pytest.mark.parametrize(
    ("path", "error", "pointers"),
    [
        ("metrics.json", KeyError, ["/ADC/map", ""]),
        ("metrics.json", IndexError, ["/SDC/per_query/2"]),
        ("metrics.json", ValueError, ["/SDC/per_query/x", "/word"]),
        ("metrics.json", TypeError, ["/SDC/map/deeper", "/SDC", "/SDC/per_query", "/none", "/yes"]),
        ("training.csv", IndexError, ["3/test_accuracy"]),
        ("training.csv", KeyError, ["0/nothing"]),
        ("training.csv", ValueError, ["0/words"]),
        ("training.csv", TypeError, ["0"]),
    ],
)
def test_a_pointer_to_no_number_is_an_error(folder, path, error, pointers):
    for pointer in pointers:
        with pytest.raises(error):
            look_up(cells.read(path), pointer)
        with pytest.raises(error):
            Cells("t").put("a", [(path, pointer)])
        cell = {"sources": [{"file": path, "pointer": pointer}], "statistic": "mean", "scale": 1, "format": "g", "value": 1, "text": "1"}
        assert faults(cell).startswith(f"its source cannot be read: {error.__name__}")


# ------------------------------------------------------------------------------------------------------------------------ faults


@pytest.fixture
def cell(folder):
    """The cell 12.3 of metrics.json."""
    made = Cells("table1")
    made.put("a", [("metrics.json", "/SDC/map")], ".1f", 100)
    return made.entries[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"text": "12.4"}, "prints 12.4, but 12.345 rounds to 12.3"),
        ({"text": "12.35"}, "prints 12.35, but 12.345 rounds to 12.3"),
        ({"value": 12.345000001}, "says 12.345000001, but its source gives 12.345"),
        ({"value": 99.9, "text": "99.9"}, "says 99.9, but its source gives 12.345"),
        ({"scale": 1}, "says 12.345, but its source gives 0.12345"),
        ({"format": ".2f"}, "prints 12.3, but 12.345 rounds to 12.35"),
        ({"format": "9.1f"}, "prints 12.3, but 12.345 rounds to      12.3"),
        ({"format": "99.1f"}, "its source cannot be read: ValueError 99.1f is no format of ours"),
        ({"sources": [{"file": "metrics.json", "pointer": "/queries"}]}, "says 12.345, but its source gives 6000"),
        ({"value": math.nan}, "says nan, but its source gives 12.345"),
    ],
)
def test_a_cell_that_was_changed_has_a_fault(cell, changes, words):
    assert faults(json.loads(json.dumps(cell)) | changes) == words


def test_the_source_as_it_is_now_decides_or_what_the_reader_reads(cell):
    files.write_json("metrics.json", METRICS | {"SDC": {"map": 0.12346}})
    assert faults(cell).startswith("says 12.345, but its source gives 12.346"), "though it prints the same"
    read = []
    assert faults(cell, lambda path: read.append(path) or {"SDC": {"map": 0.12345}}) is None
    assert read == ["metrics.json"]


DAMAGED = [None, b"", b"{", b"[1, 2]", b"null", b"7", b'"text"', b'{"SDC": 1}', b"\xff\xfe", b"\0", b"[" * 100_000]
DAMAGED += [b'{"SDC": {"map": 1%s}}' % (b"0" * 400), f"{HISTORY}3,0.9,{'x' * 200_000}\n".encode()]  # a field beyond all measure


@pytest.mark.parametrize(("name", "pointer"), [("metrics.json", "/SDC/map"), ("training.csv", "-1/test_accuracy")])
def test_a_source_that_is_missing_or_damaged_is_a_fault_and_no_crash(folder, name, pointer):
    made = Cells("t")
    made.put("a", [(name, pointer)])
    for content in DAMAGED:
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        assert faults(made.entries[0]).startswith("its source cannot be read: "), content


@pytest.mark.parametrize("key", ["text", "value", "format", "statistic", "scale", "sources"])
def test_a_cell_with_a_part_of_another_kind_is_a_fault_and_no_crash(cell, key):
    for value in (None, [], {}, "x", 7, [None], ["x"], [{}]):
        assert faults(cell | {key: value}) is not None


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.sampled_from([".1f", ".3f", "g", ".2e"]), st.sampled_from([1, 100, 0.5]))
def test_what_was_put_has_no_fault(tmp_path_factory, values, spec, scale):
    path = str(tmp_path_factory.getbasetemp() / "put.json")
    files.write_json(path, values)
    made = Cells("t")
    made.put("a", [(path, f"/{i}") for i in range(len(values))], spec, scale)
    assert faults(json.loads(json.dumps(made.entries[0]))) is None
    assert faults(made.entries[0] | {"value": made.entries[0]["value"] + 1e-3}).startswith("says ")


# ------------------------------------------------------------------------------------------------------------------------- LaTeX

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


TYPED = {
    "99.9": "99.9", "7": "7", "-5": "5", ".5": "5", "1,000": "1,000", "1{,}000": "1 000", r"12\,345": "12 345", "99,9": "99,9",
    "12.3": "12.3",  # the right number, but not as a cell
    "1e-3": "1 3", r"$10^{-3}$": "10 3", r"$x_2$": "2", r"\textbf{99.9}": "99.9", r"99.9\%": "99.9", r"\% 99.9": "99.9",
    "99.9bits": "99.9", "~99.9~": "99.9", r"\multicolumn{2}{c}{99.9}": "99.9", r"\multirow{2}{*}{99.9}": "99.9",
    r"\begin{center}99.9\end{center}": "99.9", r"\label{a}{99.9}": "99.9", r"\ref{a}{99.9}": "99.9",
    r"\newcommand{\x}{99.9}": "99.9", r"\renewcommand{\cell}[2]{99.9}": "2 99.9", r"\providecommand{\cell}[2]{99.9}": "2 99.9",
    r"\char57": "57", "^^39": "39", "٣": "٣", "VGG17": "17", "VGG161": "1", "CIFAR-10.5": "5", "CIFAR-100": "0", "1 2": "1 2",
}  # fmt: skip


@pytest.mark.parametrize("place", ["queries, see", r"\\ % 17", "\\bottomrule\n"], ids=["caption", "row", "below the table"])
def test_every_kind_of_number_that_was_typed_by_hand_is_found(place):
    assert LATEX.count(place) == 1
    for typed, numbers in TYPED.items():
        found = faults_of_latex(LATEX.replace(place, f" {typed} {place}"), LISTED, NAMES)
        assert found == [f"the number {number} was typed by hand" for number in numbers.split()]


def test_a_number_in_a_comment_is_not_printed_and_no_fault():
    assert faults_of_latex("% 99.9\ntext % 7\n", [], []) == []
    assert faults_of_latex("50\\% 99.9\n", [], []) == ["the number 50 was typed by hand", "the number 99.9 was typed by hand"]


@pytest.mark.parametrize(
    ("new", "faults"),
    [
        (r"\cell{t:a}{12.3}", []),
        (r"\cell{t:a}{12.4}", ["the cell t:a prints 12.4, but is listed as 12.3"]),
        (r"\cell{t:a}{}", ["the cell t:a prints , but is listed as 12.3"]),
        (r"\cell{t:b}{12.3}", ["the cell t:b is not listed"]),
        (r"\cell{t:bits/16}{12.3}", ["the cell t:bits/16 prints 12.3, but is listed as 16"]),
        (r"\cell{}{12.3}", ["the cell  is not listed"]),
        (r"\cell{t:a}{12.3}1", ["the number 1 was typed by hand"]),
        ("12.3", ["the number 12.3 was typed by hand"]),
        (r"\cell{t:a}{\textbf{12.3}}", ["the number 12.3 was typed by hand"]),
    ],
)
def test_a_cell_that_was_changed_is_found(new, faults):
    assert faults_of_latex(LATEX.replace(r"\cell{t:a}{12.3}", new), LISTED, NAMES) == faults


def test_only_names_of_ours_are_struck_out_the_longest_first():
    assert faults_of_latex("A1 B2 and A1", [], ["A1", "A1 B2"]) == []
    assert faults_of_latex("A1 B2 and A1", [], ["A1"]) == ["the number 2 was typed by hand"]
    assert faults_of_latex(LATEX, LISTED, ["CIFAR-10", r"a\_1"]) == ["the number 16 was typed by hand"] * 2


@given(st.text(alphabet="ab{}%\\$ 0123.,\n"))
@settings(max_examples=30)
def test_any_text_can_be_checked_and_a_number_on_its_own_line_is_always_found(text):
    typed = f"{text}\n987654321\n"
    if not re.search(r"\{[^{}]*\Z", text):  # an open brace may make what follows a part of the structure
        assert "the number 987654321 was typed by hand" in faults_of_latex(typed, [], [])
    assert isinstance(faults_of_latex(text, [], []), list)


def test_a_digit_anywhere_is_found_unless_it_is_not_printed():
    """Only comments and the arguments of commands that do not print them are left out."""
    unprinted = r"(?<!\\)%.*|\\(?:label|ref|begin|end|multicolumn|multirow|cline|cmidrule(?:\(lr\))?)\{[^{}]*"
    passed = set()
    for position in range(len(LATEX) + 1):
        if not faults_of_latex(f"{LATEX[:position]}8{LATEX[position:]}", LISTED, NAMES):
            passed.add(position)
            line = LATEX[LATEX.rfind("\n", 0, position) + 1 : position]
            assert re.search(rf"(?:{unprinted})\Z", line), line
    assert LATEX.index("table-1") in passed and LATEX.index("17\n") in passed


def test_a_name_can_be_put_once():
    """An id that stood for two numbers would trace one of them to the wrong place."""
    table = Cells("table1")
    table.put("a/b", [("x.json", "/y")], value=1)
    with pytest.raises(ValueError, match="'a/b' names a cell of table1 already"):
        table.put("a/b", [("x.json", "/z")], value=2)
    assert [cell["value"] for cell in table.entries] == [1]
