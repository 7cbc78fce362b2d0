"""Functions by entry points and files of weights: found, hashed and run, and the sentence that a mistake gets."""

import hashlib
import re
import shutil
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


def test_entry_points_and_their_files():
    assert all(names.is_entry_point(name) for name in ("mine:run", "a.b_2.c:_Run", "A:b"))
    wrong = ["", "pgd", "mine:", ":run", "mine.py", "a/b:run", "../a:run", "a..b:run", ".a:run"]
    wrong += ["a:b:c", "a:run ", "a:b.c", "ä:run", "a:run\n"]
    assert [name for name in wrong if names.is_entry_point(name)] == []
    assert str(user_code.file_of("mine:run")) == "mine.py"
    assert str(user_code.file_of("a.b.mine:run")) == "a/b/mine.py"
    assert str(user_code.file_of("some/weights.pt")) == "some/weights.pt"


def test_digests_are_those_of_the_files_and_a_missing_file_is_reported_with_the_key(mine, tmp_path):
    digest = mine("raise SystemExit('it ran')", "folder/mine.py")
    (tmp_path / "weights.pt").write_bytes(b"abc")
    found = user_code.digests([("attacks.a.loss", "folder.mine:run"), ("models.b.weights", "weights.pt")])
    assert found == {"folder.mine:run": digest, "weights.pt": hashlib.sha256(b"abc").hexdigest()}
    (tmp_path / "weights.pt").unlink()
    for name in ("nowhere:run", "folder.nowhere:run", "weights.pt", "."):
        with pytest.raises(UserError) as error:
            user_code.digests([("attacks.strong.method", name)])
        words = str(error.value)
        assert words.startswith("attacks.strong.method: ") and str(user_code.file_of(name)) in words
        assert words.endswith(f"does not exist; it must be in {tmp_path}, where the workflow runs")


def test_weights_of_the_zoo_are_those_of_their_cards_and_others_are_refused(tmp_path, monkeypatch):
    [card] = [user_code.files.read_json(path) for path in user_code.ZOO.glob("fashion_resnet18/card.json")]
    sha256 = hashlib.sha256(user_code.file_of("zoo:fashion_resnet18").read_bytes()).hexdigest()
    assert user_code.digests([("models.a.weights", "zoo:fashion_resnet18")]) == {"zoo:fashion_resnet18": sha256}
    assert card["files"] == {"weights.safetensors": sha256} and not names.is_entry_point("zoo:fashion_resnet18")
    for name, words in (("fashion_resnet", "did you mean zoo:fashion_resnet18?"), ("x", "there are zoo:"), ("..", "there are zoo:")):
        with pytest.raises(UserError, match=f"models.a.weights: zoo:{name} is not in the zoo; {re.escape(words)}"):
            user_code.digests([("models.a.weights", f"zoo:{name}")])
    shutil.copytree(user_code.ZOO, tmp_path / "zoo")
    monkeypatch.setattr(user_code, "ZOO", tmp_path / "zoo")
    joint = tmp_path / "zoo/joint"
    joint.mkdir()
    (joint / "16bits.safetensors").write_bytes(b"16")
    user_code.files.write_json(joint / "card.json", {"files": {"16bits.safetensors": hashlib.sha256(b"16").hexdigest()}})
    [digest] = user_code.digests([("models.a.weights", "zoo:joint/16bits")]).values()
    assert digest == hashlib.sha256(b"16").hexdigest()
    for name, words in (
        ("zoo:joint", "for codes of these bits: 16; but the quantizer of the model is another"),
        ("zoo:joint/24bits", "for codes of these bits: 16; but 24 bits are wanted"),
        ("zoo:fashion_resnet18/16bits", "was trained without a codebook, so leave out what asks for one"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            user_code.digests([("models.a.weights", name)])
    user_code.file_of("zoo:fashion_resnet18").write_bytes(b"other")
    with pytest.raises(UserError, match="the weights of zoo:fashion_resnet18 are not those that its card describes: restore"):
        user_code.digests([("models.a.weights", "zoo:fashion_resnet18")])


def test_the_function_runs_and_its_folder_is_not_imported_from(mine):
    path, package = list(sys.path), sys.modules["pytest"]
    function = user_code.function("mine:run", mine())
    assert function(9).one == 3 and function(9) == function(9)
    assert user_code.function("pytest:run", mine(name="pytest.py"))(4).one == 2, "a file may have the name of a package"
    assert sys.path == path and "mine" not in sys.modules and sys.modules["pytest"] is package


#: Modules that are wrong, and the sentence that each gets.
WRONG = {
    "def other(): pass\nvalue = 1": r"mine.py has no function run, which mine:run names; it has other$",
    "import math\nrun = 5": r"mine.py has no function run, which mine:run names; it has none$",
    "def run(:": r"mine.py cannot be loaded for mine:run: SyntaxError: invalid syntax \(mine.py, line 1\)",
    "import beside": r"mine.py cannot be loaded for mine:run: ModuleNotFoundError: No module named 'beside'",
    "from . import beside": r"mine.py cannot be loaded for mine:run: ImportError: ",
    "1 / 0": r"mine.py cannot be loaded for mine:run: ZeroDivisionError: division by zero$",
    "raise ValueError": r"mine.py cannot be loaded for mine:run: ValueError: no message$",
}


@pytest.mark.parametrize("content", WRONG)
def test_a_module_that_is_wrong_is_reported_in_a_sentence(mine, content):
    mine("", "beside.py")
    with pytest.raises(UserError, match=WRONG[content]) as error:
        user_code.function("mine:run", mine(content))
    assert "\n" not in str(error.value)


def test_a_file_that_was_changed_since_does_not_run(mine):
    digest = mine()
    mine("raise SystemExit('it ran')")
    with pytest.raises(UserError, match="mine.py is missing or was changed after the run began: start again"):
        user_code.function("mine:run", digest)
    with pytest.raises(UserError, match="gone.py is missing"):
        user_code.function("gone:run", digest)
