"""When a source of images counts as changed: names, sizes and bytes do, times alone do not."""

import os
import shutil

import pytest

from pqag import content, files
from pqag.audit import verify


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """The working directory, with class folders of three images and a text, and what a look at them gives."""
    monkeypatch.chdir(tmp_path)
    for name in ("train/jay/1.jpg", "train/owl/2.jpg", "test/jay/3.jpg", "train/jay/notes.txt"):
        put(f"birds/{name}", name[-10:])
    return lambda: content.look("b", {"kind": "imagefolder", "source": "birds"})


def put(name, text):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    files.write_text(name, text)


def edit_and_keep_times():
    stat = os.stat("birds/train/jay/1.jpg")
    put("birds/train/jay/1.jpg", "x" * stat.st_size)
    os.utime("birds/train/jay/1.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES = {
    "times": (lambda: os.utime("birds/train/jay/1.jpg", (1, 1)), False),
    "a copy with other times": (lambda: (shutil.copytree("birds", "c"), shutil.rmtree("birds"), os.rename("c", "birds")), False),
    "a text": (lambda: put("birds/train/jay/notes.txt", "longer than before"), False),
    "a new text": (lambda: put("birds/train/jay/Thumbs.db", "text"), False),
    "a hidden image": (lambda: put("birds/train/jay/@eaDir/1.jpg", "image"), False),
    "bytes of the same size at the same time": (edit_and_keep_times, True),
    "a name": (lambda: os.rename("birds/train/jay/1.jpg", "birds/train/jay/9.jpg"), True),
    "a class": (lambda: os.rename("birds/train/jay", "birds/train/wren"), True),
    "a size": (lambda: put("birds/train/jay/1.jpg", "longer than before"), True),
    "a part": (lambda: os.rename("birds/test", "birds/val"), True),
    "a new image": (lambda: put("birds/test/owl/4.jpg", "image"), True),
    "a removed image": (lambda: os.remove("birds/train/jay/1.jpg"), True),
}


def test_classes_are_those_of_both_parts(birds):
    put("birds/test/wren/4.jpg", "image")
    put("c/list.csv", "path,split,labels\na.jpg,train,x|y\nb.jpg,test,y\n")
    assert birds()[1:] == ("wren", ("jay", "owl", "wren"))
    assert content.look("b", {"kind": "manifest", "source": "c/list.csv"})[1:] == (None, ("x", "y"))


@pytest.mark.parametrize("change", CHANGES)
def test_what_counts_as_a_change(birds, change):
    before = birds().sha256
    make, changed = CHANGES[change]
    make()
    assert (birds().sha256 != before) == changed
    os.remove("data/.b.files.json")
    assert (birds().sha256 != before) == changed, "without the note as well"


def test_files_are_only_read_again_if_their_times_changed(birds, monkeypatch, capsys):
    monkeypatch.setattr(content, "MANY", 3)
    birds()
    assert capsys.readouterr().err.startswith("Reading 4 files of birds, to see")
    os.utime("birds/train/owl/2.jpg", (1, 1))
    read, sha256 = [], files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: read.append(os.path.basename(path)) or sha256(path))
    birds()
    birds()
    assert read == ["2.jpg"] and not capsys.readouterr().err


def test_an_absent_source_has_no_content_and_a_class_without_training_images_is_named(birds):
    assert birds().unseen is None
    put("birds/test/wren/4.jpg", "image")
    assert birds().unseen == "wren"
    shutil.rmtree("birds/train")
    shutil.rmtree("birds/test")
    assert birds() == content.Content(None)
    os.makedirs("birds/train")
    os.makedirs("birds/test")
    assert birds() == content.Content(None), "an empty place to mount it"


LISTS = {
    "manifest": ("s/list.csv", {"s/list.csv": "path,split,labels\na.jpg,train,x\nb.jpg,test,y\n", "s/a.jpg": "a", "s/b.jpg": "b"}),
    "nuswide": (
        "s",
        {
            "s/ImageList/TrainImagelist.txt": "f\\a.jpg\n",
            "s/Groundtruth/TrainTestLabels/Labels_x_Train.txt": "1\n",
            "s/Flickr/f/a.jpg": "a",
        },
    ),
    "cifar10": ("s", {"s/cifar-10-batches-bin/data_batch_1.bin": "a", "s/cifar-10-batches-bin/test_batch.bin": "b"}),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_and_what_they_name_are_looked_at(tmp_path, monkeypatch, kind):
    """Every file of the source matters, other files beside them do not."""
    monkeypatch.chdir(tmp_path)
    source, contents = LISTS[kind]
    for name, text in contents.items():
        put(name, text)
    seen = [content.look("a", {"kind": kind, "source": source}).sha256]
    put("s/other.jpg", "not named")
    assert content.look("a", {"kind": kind, "source": source}).sha256 == seen[0]
    for name, text in contents.items():
        put(name, text + (text.splitlines(True)[-1].replace("b", "c") if text.endswith("\n") else "z"))
        seen.append(content.look("a", {"kind": kind, "source": source}).sha256)
    assert len(set(seen)) == len(contents) + 1
    shutil.rmtree("s")
    assert content.look("a", {"kind": kind, "source": source}).sha256 is None


def test_a_damaged_note_is_ignored(birds):
    before = birds()
    for text in ("{", "[]", '{"folder": 1}'):
        put("data/.b.files.json", text)
        assert birds() == before


def test_verify_finds_a_changed_source_and_says_that_an_absent_one_cannot_be_looked_at(birds):
    study = {"datasets": {"b": {"kind": "imagefolder", "source": "birds"}}, "contents": {"b": birds().sha256}}
    assert verify._sources(study) == ([], [])
    edit_and_keep_times()
    [fault], remarks = verify._sources(study)
    assert str(fault) == "birds: was changed after the images of b were fetched from it" and remarks == []
    shutil.rmtree("birds")
    assert verify._sources(study) == ([], ["birds, the source of b, is not there, so it could not be looked at for changes"])
