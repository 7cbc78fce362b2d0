"""Files are absent or complete, and say what was written."""

import hashlib
import json
import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqag import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------------------------------------------------- atomic


def test_atomic_puts_the_content_in_place_and_leaves_nothing_else(tmp_path):
    with files.atomic(tmp_path / "deep" / "er" / "file") as part:
        part.write_bytes(b"new")
        assert part.parent == tmp_path / "deep" / "er", "a rename is atomic only within one folder"
        assert not (tmp_path / "deep" / "er" / "file").exists()
    assert (tmp_path / "deep" / "er" / "file").read_bytes() == b"new"
    assert names(tmp_path / "deep" / "er") == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_keeps_the_old_content_when_the_body_raises(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error), files.atomic(tmp_path / "file") as part:
        part.write_bytes(b"half of the n")
        raise error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_atomic_makes_no_file_when_the_body_raises(tmp_path):
    with pytest.raises(RuntimeError), files.atomic(tmp_path / "file") as part:
        part.write_bytes(b"half")
        raise RuntimeError
    assert names(tmp_path) == []


def test_atomic_takes_a_path_as_text(tmp_path):
    files.write_bytes(str(tmp_path / "file"), b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_atomic_syncs_the_file_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    files.write_bytes(tmp_path / "file", b"x")
    assert events == [(tmp_path / "file").stat().st_ino, "rename", tmp_path.stat().st_ino]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_of_the_system_on_the_way_keeps_the_old_content(tmp_path, monkeypatch, call):
    (tmp_path / "file").write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, call, fail)
        files.write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


# ------------------------------------------------------------------------------------------------------------- killed writers


KILLED = """
import os, signal, sys
from pqag import files

def die():
    os.kill(os.getpid(), signal.SIGKILL)

how, path = sys.argv[1:]
if how == "plain":  # the control: what a writer leaves that is not atomic
    with open(path, "wb") as file:
        file.write(bytes(1000))
        file.flush()
        die()
elif how == "bytes":
    with files.atomic(path) as part:
        part.write_bytes(bytes(1000))
        die()
elif how == "rename":
    os.replace = lambda a, b: die()
    files.write_bytes(path, bytes(2000))
"""


@pytest.mark.parametrize("how", ["bytes", "rename"])
def test_a_writer_killed_on_the_way_leaves_the_final_path_absent(tmp_path, how, python):
    done = python(KILLED, how, tmp_path / "file")
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "file").exists()


def test_a_writer_that_is_not_atomic_would_leave_half_a_file(tmp_path, python):
    """The control of the test above: the kill does hit in the middle of writing."""
    python(KILLED, "plain", tmp_path / "file")
    assert (tmp_path / "file").stat().st_size == 1000


def test_what_a_killed_writer_left_is_taken_away_by_the_next_writer_of_the_same_path(tmp_path, python):
    python(KILLED, "bytes", tmp_path / "file")
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".file.") and left.name.endswith(".part") and left.stat().st_size == 1000
    files.write_bytes(tmp_path / "file", b"whole")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_the_temporary_file_is_named_after_path_and_process(tmp_path):
    with files.atomic(tmp_path / "file") as part:
        part.write_bytes(b"x")
        assert part.name == f".file.{os.getpid()}.part"


def test_what_writers_of_other_paths_left_stays(tmp_path):
    """They may be at work: their names begin or end alike, or match as a pattern."""
    others = [
        ".files.7.part",
        ".file.txt.7.part",
        ".a-file.7.part",
        ".file.7.parts",
        "file.7.part",
        ".file.part",
        ".file.x.part",
        ".fi*.7.part",
    ]
    for name in [*others, ".file.7.part", ".file.123456.part"]:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".file.7.part").write_bytes(b"half")
    files.write_bytes(tmp_path / "file", b"x")
    assert names(tmp_path) == sorted([*others, "file", "folder"])
    assert names(tmp_path / "folder") == [".file.7.part"]
    files.write_bytes(tmp_path / "fi*", b"x")
    assert names(tmp_path) == sorted([*others[:-1], "file", "fi*", "folder"])


# ---------------------------------------------------------------------------------------------------------------------- text, JSON


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    files.write_text(tmp_path / "a.txt", "Köln\nε = 8\n")
    assert (tmp_path / "a.txt").read_bytes() == b"K\xc3\xb6ln\n\xce\xb5 = 8\n"


def test_json_is_what_another_parser_reads(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"ü": "text"}}
    files.write_json(tmp_path / "a.json", value)
    raw = (tmp_path / "a.json").read_text()
    assert json.loads(raw) == value == files.read_json(tmp_path / "a.json")
    assert list(json.loads(raw)) == ["b", "a"], "keys stay in the order of the writer"
    assert raw.endswith("}\n") and raw.count("\n") > 5, "indented, and with a line end at the end of the file"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_json_and_keeps_the_old_file(tmp_path, value):
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"map": [0.5, value]})
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert names(tmp_path) == ["a.json"]


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    )
)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


def test_reading_json_does_not_depend_on_the_locale(tmp_path, python, monkeypatch):
    (tmp_path / "a.json").write_bytes('"ü"'.encode())
    code = "import sys; from pqag import files; print(ascii(files.read_json(sys.argv[1])))"
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
    done = python(code, tmp_path / "a.json", capture_output=True, text=True, check=True)
    assert done.stdout == "'\\xfc'\n"


# ---------------------------------------------------------------------------------------------------------------------- sha256


def test_sha256_of_known_content(tmp_path):
    """The digests of FIPS 180-4's example "abc", and of nothing."""
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(str(tmp_path / "empty")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_sha256_of_a_file_of_many_blocks_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000 + b"end"
    (tmp_path / "big").write_bytes(content)
    assert files.sha256(tmp_path / "big") == hashlib.sha256(content).hexdigest()
