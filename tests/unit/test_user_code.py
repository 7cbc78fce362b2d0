"""Functions by entry points and files of weights: found, hashed and run, and the sentence that a mistake gets."""

import hashlib
import sys

import pytest

from pqag import names, user_code
from pqag.errors import UserError

SOURCE = """
import dataclasses
import math

@dataclasses.dataclass
class Pair:
    one: "float"

def run(x):
    return Pair(math.sqrt(x))

number = 5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module of the user's, and gives the sha256 of its file."""
    monkeypatch.chdir(tmp_path)

    def write(content=SOURCE, name="mine.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        return hashlib.sha256(content.encode()).hexdigest()

    return write


@pytest.mark.parametrize("name", ["mine:run", "a.b_2.c:_Run", "A:b"])
def test_entry_points(name):
    assert names.is_entry_point(name)


@pytest.mark.parametrize(
    "name",
    ["", "pgd", "mine:", ":run", "mine.py", "a/b:run", "../a:run", "a..b:run", ".a:run", "a:b:c", "a:run ", "a:b.c", "ä:run", "a:run\n"],
)
def test_what_is_no_entry_point(name):
    assert not names.is_entry_point(name)


def test_a_module_is_one_file_in_the_working_folder():
    assert str(user_code.file_of("mine:run")) == "mine.py"
    assert str(user_code.file_of("a.b.mine:run")) == "a/b/mine.py"
    assert str(user_code.file_of("some/weights.pt")) == "some/weights.pt"


def test_digests_are_those_of_the_files_and_nothing_runs(mine, tmp_path):
    digest = mine("raise SystemExit('it ran')", "folder/mine.py")
    (tmp_path / "weights.pt").write_bytes(b"abc")
    found = user_code.digests([("attacks.a.loss", "folder.mine:run"), ("models.b.weights", "weights.pt")])
    assert found == {"folder.mine:run": digest, "weights.pt": hashlib.sha256(b"abc").hexdigest()}


def test_the_function_runs_and_its_folder_is_not_imported_from(mine, tmp_path):
    path = list(sys.path)
    function = user_code.function("mine:run", mine())
    assert function(9).one == 3 and function(9) == function(9)
    assert sys.path == path and "mine" not in sys.modules


def test_a_file_may_bear_the_name_of_a_package(mine):
    import numpy

    assert user_code.function("numpy:run", mine(name="numpy.py"))(4).one == 2
    assert sys.modules["numpy"] is numpy


@pytest.mark.parametrize("name", ["nowhere:run", "folder.nowhere:run", "weights.pt", "."])
def test_a_file_that_is_missing_is_told_with_the_key(mine, tmp_path, name):
    mine()
    with pytest.raises(UserError) as error:
        user_code.digests([("attacks.strong.method", name)])
    words = str(error.value)
    assert words.startswith("attacks.strong.method: ") and str(user_code.file_of(name)) in words
    assert words.endswith(f"does not exist; it must be in {tmp_path}, where the workflow runs")


#: What may be wrong with a module, and the sentence that it gets.
WRONG = {
    "no such function": ("def other(): pass\nvalue = 1", r"mine.py has no function run, which mine:run names; it has other$"),
    "no function at all": ("import math", r"mine.py has no function run, which mine:run names; it has none$"),
    "a value instead": ("run = 5", r"mine.py has no function run, which mine:run names; it has none$"),
    "no Python": ("def run(:", r"mine.py cannot be loaded for mine:run: SyntaxError: invalid syntax \(mine.py, line 1\)"),
    "an import that fails": ("import nowhere_at_all", r"mine.py cannot be loaded for mine:run: ModuleNotFoundError: No module named"),
    "an import of a neighbour": ("import beside", r"mine.py cannot be loaded for mine:run: ModuleNotFoundError: No module named 'beside'"),
    "a relative import": ("from . import beside", r"mine.py cannot be loaded for mine:run: ImportError: "),
    "an error of its own": ("1 / 0", r"mine.py cannot be loaded for mine:run: ZeroDivisionError: division by zero$"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_module_that_is_wrong_is_told_in_a_sentence(mine, kind):
    content, words = WRONG[kind]
    mine("", "beside.py")
    with pytest.raises(UserError, match=words) as error:
        user_code.function("mine:run", mine(content))
    assert "\n" not in str(error.value)


def test_a_file_that_was_changed_since_does_not_run(mine):
    digest = mine()
    mine("raise SystemExit('it ran')")
    with pytest.raises(UserError, match="mine.py is missing or was changed after the run began: start again"):
        user_code.function("mine:run", digest)
    with pytest.raises(UserError, match="gone.py is missing"):
        user_code.function("gone:run", digest)
