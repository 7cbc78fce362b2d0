"""Files are absent or complete, and say what was written."""

import hashlib
import json
import os
import signal

import pytest

from pqag import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_puts_the_content_in_place_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "deep" / "er"
    with files.atomic(folder / "file") as part:
        part.write_bytes(b"new")
        assert part == folder / f".file.{os.getpid()}.part", "a rename is atomic only within one folder"
        assert not (folder / "file").exists()
    assert (folder / "file").read_bytes() == b"new" and names(folder) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [[], ["file"]])
def test_atomic_leaves_everything_as_it_was_when_the_body_raises(tmp_path, error, old):
    for name in old:
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(error), files.atomic(tmp_path / "file") as part:
        part.write_bytes(b"half of the n")
        raise error
    assert names(tmp_path) == old and all((tmp_path / name).read_bytes() == b"old" for name in old)


def test_atomic_syncs_the_file_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    files.write_bytes(str(tmp_path / "file"), b"x")
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


KILLED = """
import os, signal, sys
from pqag import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

how, path = sys.argv[1:]
if how == "rename":
    os.replace = die
with files.atomic(path) as part:
    part.write_bytes(bytes(1000))
    if how == "write":
        die()
"""


@pytest.mark.parametrize("how", ["write", "rename"])
def test_what_a_killed_writer_left_is_removed_by_the_next_writer_of_the_same_path(tmp_path, how, python):
    assert python(KILLED, how, tmp_path / "file").returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".file.") and left.name.endswith(".part") and left.stat().st_size == 1000
    files.write_bytes(tmp_path / "file", b"whole")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"whole"


def test_what_writers_of_other_paths_left_stays(tmp_path):
    """They may be at work: their names begin or end alike, or match as a pattern."""
    others = [".files.7.part", ".file.txt.7.part", ".a-file.7.part", ".file.7.parts", "file.7.part", ".file.part", ".file.x.part"]
    others.append(".fi*.7.part")
    for name in [*others, ".file.7.part", ".file.123456.part"]:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".file.7.part").write_bytes(b"half")
    files.write_bytes(tmp_path / "file", b"x")
    assert names(tmp_path) == sorted([*others, "file", "folder"])
    assert names(tmp_path / "folder") == [".file.7.part"]
    files.write_bytes(tmp_path / "fi*", b"x")
    assert names(tmp_path) == sorted([*others[:-1], "file", "fi*", "folder"])


def test_json_is_what_another_parser_reads_and_text_is_utf8_with_unix_line_ends(tmp_path):
    value = {"b": [-1, 0.1, 5e-324, 2**70, None, True, ""], "a": {"ü": "\u2028\x00\n\U0001f600", "": {}}}
    files.write_json(tmp_path / "a.json", value)
    raw = (tmp_path / "a.json").read_text()
    assert json.loads(raw) == value == files.read_json(tmp_path / "a.json")
    assert list(json.loads(raw)) == ["b", "a"], "keys stay in the order of the writer"
    assert raw.endswith("}\n") and raw.count("\n") > 5, "indented, and with a line end at the end of the file"
    files.write_text(tmp_path / "a.txt", "Köln\nε = 8\n")
    assert (tmp_path / "a.txt").read_bytes() == b"K\xc3\xb6ln\n\xce\xb5 = 8\n"


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_json_refuses_what_is_no_json_and_keeps_the_old_file(tmp_path, value):
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"map": [0.5, value]})
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert names(tmp_path) == ["a.json"]


def test_reading_json_does_not_depend_on_the_locale(tmp_path, python, monkeypatch):
    (tmp_path / "a.json").write_bytes('"ü"'.encode())
    code = "import sys; from pqag import files; print(ascii(files.read_json(sys.argv[1])))"
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    done = python(code, tmp_path / "a.json", capture_output=True, text=True, check=True)
    assert done.stdout == "'\\xfc'\n"


def test_sha256(tmp_path):
    many = bytes(range(256)) * 5000 + b"end"
    for name, content in (("abc", b"abc"), ("empty", b""), ("big", many)):
        (tmp_path / name).write_bytes(content)
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(str(tmp_path / "empty")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files.sha256(tmp_path / "big") == hashlib.sha256(many).hexdigest()
