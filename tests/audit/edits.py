"""What someone can do to a finished study: every kind of edit to every kind of file, and the one-off ones.

All paths are relative to the folder that the tiny study was run in, which is the working directory. ``copied`` links files, so an edit puts
a new file in the place of the old one and never writes into it, nor touches it.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

from pqag import files
from pqag.audit.verify import verify
from pqag.job import records

STUDY = Path("results/tiny")
VICTIM = "results/tiny/synthetic/vgg16-pretrained/seed0"
MANIFEST, MANIFEST_RECORD = "results/tiny/MANIFEST.sha256", "results/tiny/MANIFEST.prov.json"
TEX, CELLS = "results/tiny/tables/table1.tex", "results/tiny/tables/table1.cells.json"

#: One file of each kind.
FILES = {
    "data": "data/synthetic.h5",
    "images": "results/tiny/synthetic/images.h5",
    "weights": f"{VICTIM}/weights.pt",
    "history": f"{VICTIM}/training.csv",
    "clean features": f"{VICTIM}/features/query.h5",
    "codebook": f"{VICTIM}/16bits/codebook.h5",
    "queries": f"{VICTIM}/16bits/adversarial/apd.h5",
    "health": f"{VICTIM}/16bits/adversarial/apd.health.json",
    "metrics": f"{VICTIM}/16bits/metrics/apd.vgg16-pretrained-16bits.json",
    "table csv": "results/tiny/tables/table1.csv",
    "table tex": TEX,
    "table text": "results/tiny/tables/table1.txt",
    "cells": CELLS,
    "comparison": "results/tiny/tables/table1_vs_paper.csv",
    "study": "results/tiny/study.json",
    "manifest": MANIFEST,
    "record of data": "data/synthetic.prov.json",
    "record of weights": f"{VICTIM}/weights.prov.json",
    "record of queries": f"{VICTIM}/16bits/adversarial/apd.prov.json",
    "record of metrics": f"{VICTIM}/16bits/metrics/apd.vgg16-pretrained-16bits.prov.json",
    "record of table": "results/tiny/tables/table1.prov.json",
    "record of manifest": MANIFEST_RECORD,
}
RECORDS = {kind for kind, path in FILES.items() if path.endswith(records.SUFFIX)}
#: What nothing but the list was made from.
LAST = {"health", "table csv", "table tex", "table text", "cells", "comparison", "study"}


def copied(study, folder, snakemake=False, copy=os.link):
    """The study in a folder of its own, with links to the same files, or copies; Snakemake's own memory only if it is wanted."""
    for name in ("results", "data"):
        shutil.copytree(study / name, folder / name, copy_function=copy)
    shutil.copyfile(study / "config.yaml", folder / "config.yaml")
    if snakemake:
        shutil.copytree(study / ".snakemake/metadata", folder / ".snakemake/metadata")
    return folder


def write(path, content, keep_time=True):
    """Replace a file by a new one with the same times, as somebody does who wants to stay undetected."""
    path = Path(path)
    new = path.with_name("new")
    new.write_bytes(content)
    if keep_time:
        os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(new, path)


def flipped(content, position=None):
    """``content`` with one bit flipped, in the middle unless ``position`` says where."""
    changed = bytearray(content)
    changed[len(changed) // 2 if position is None else position] ^= 1
    return bytes(changed)


def substitute(path, old, new):
    """Put ``new`` for the one ``old`` in a text."""
    text = Path(path).read_text()
    assert text.count(old) == 1, (path, old)
    write(path, text.replace(old, new).encode())


def change_record(path, change):
    """Let ``change`` work on a record, and seal what comes out."""
    record = json.loads(Path(path).read_text())
    change(record)
    write(path, files.json_text(records.sealed(record)).encode())


def change_study(change):
    """Let ``change`` work on study.json; gives what it holds then."""
    study = json.loads(Path("results/tiny/study.json").read_text())
    change(study)
    write("results/tiny/study.json", files.json_text(study).encode())
    return study


def record_of(path):
    return str(records.record_of(path))


def make_record_fit(*paths):
    """Make the records fit the files as they are now."""
    for path in paths:

        def change(record, path=path):
            for one in record["subject"]:
                if one["name"] == path:
                    one["digest"]["sha256"] = files.sha256(path)

        change_record(record_of(path), change)


def make_list_fit():
    """Rewrite the list of all files and its record to fit the files as they are now."""
    names = [line.split("  ", 1)[1] for line in Path(MANIFEST).read_text().splitlines()]
    names = sorted(name for name in names if Path(name).exists())
    write(MANIFEST, "".join(f"{files.sha256(name)}  {name}\n" for name in names).encode())

    def change(record):
        definition = record["predicate"]["buildDefinition"]
        code = [one for one in definition["resolvedDependencies"] if one["annotations"]["role"] == "code"]
        inputs = [{"name": n, "digest": {"sha256": files.sha256(n)}, "annotations": {"role": "input"}} for n in names]
        definition["resolvedDependencies"] = inputs + code
        record["subject"][0]["digest"]["sha256"] = files.sha256(MANIFEST)

    change_record(MANIFEST_RECORD, change)


def make_all_fit(*paths):
    """Make the records and the list fit the files; returns the first path."""
    make_record_fit(*paths)
    make_list_fit()
    return paths[0]


def twin(path):
    """The file that the other network has in this one's place."""
    other = path.replace("vgg16", "alexnet")
    return other if other != path else None


def flip(path):
    write(path, flipped(Path(path).read_bytes()))


def edit(path):
    """As by hand: another digit, or letter where there is none, and a new time."""
    content = Path(path).read_bytes()
    digit = re.search(rb"[0-8]", content) or re.search(rb"[a-y]", content)
    write(path, content[: digit.start()] + bytes([content[digit.start()] + 1]) + content[digit.end() :], keep_time=False)


def delete(path):
    Path(path).unlink()


def swap_with_twin(path):
    """The file and its record change places with those of the other network."""
    pairs = {path: twin(path)} if path.endswith(records.SUFFIX) else {path: twin(path), record_of(path): record_of(twin(path))}
    for one, other in pairs.items():
        content = Path(one).read_bytes()
        write(one, Path(other).read_bytes())
        write(other, content)


def link(path):
    os.replace(path, "elsewhere")
    os.symlink(Path("elsewhere").absolute(), path)


def folder(path):
    Path(path).unlink()
    Path(path).mkdir()


def flip_and_fit_record(path):
    flip(path)
    make_record_fit(path)


def flip_and_fit_all(path):
    flip(path)
    make_all_fit(path)


TWINS = {kind for kind, path in FILES.items() if twin(path)}
#: By its name: the edit, and the kinds of files that it can be done to.
EDITS = {
    "one bit flipped": (flip, set(FILES)),
    "edited by hand, with a new time": (edit, set(FILES)),
    "cut in half": (lambda path: write(path, Path(path).read_bytes()[: Path(path).stat().st_size // 2]), set(FILES)),
    "emptied": (lambda path: write(path, b""), set(FILES)),
    "deleted": (delete, set(FILES)),
    "its record deleted": (lambda path: delete(record_of(path)), set(FILES) - RECORDS),
    "another network's in its place": (lambda path: write(path, Path(twin(path)).read_bytes()), TWINS),
    "swapped with another network's, and the records": (swap_with_twin, TWINS),
    "a link to the same bytes": (link, set(FILES)),
    "a folder in its place": (folder, set(FILES)),
    "one bit flipped, and its record made to fit": (flip_and_fit_record, set(FILES) - RECORDS - {"manifest"}),
    "one bit flipped, and its record and the list made to fit": (flip_and_fit_all, set(FILES) - RECORDS - LAST - {"manifest"}),
}
MATRIX = [(name, kind) for name, (_, kinds) in EDITS.items() for kind in FILES if kind in kinds]


ONCE = {}


def once(name):
    """A one-off edit: a function that does it and returns the path that verify has to name."""

    def register(function):
        ONCE[name] = function
        return function

    return register


CELL = re.compile(r"\\cell\{table1:synthetic/apd/vgg16/16/ADC\}\{([\d.]+)\}")
FIRST_LINE = re.compile(r".*\n")


@once("a number typed by hand into the .tex")
def _type_a_number():
    write(TEX, CELL.sub("64.3", Path(TEX).read_text()).encode())
    return TEX


@once("a number typed by hand into the .tex, and record and list made to fit")
def _type_a_number_and_fit():
    _type_a_number()
    return make_all_fit(TEX)


@once("another number in the .tex and in the cells")
def _another_number(**changes):
    text = Path(TEX).read_text()
    old = CELL.search(text)[1]
    write(TEX, CELL.sub(lambda found: found[0].replace(old, "64.3"), text).encode())
    cells = json.loads(Path(CELLS).read_text())
    for cell in cells["cells"]:
        if cell["id"] == "table1:synthetic/apd/vgg16/16/ADC":
            cell |= {"text": "64.3", "value": 64.3} | changes
    write(CELLS, files.json_text(cells).encode())
    return CELLS


@once("another number in the .tex and in the cells, and record and list made to fit")
def _another_number_and_fit():
    _another_number()
    return make_all_fit(CELLS, TEX)


@once("a number from a file of one's own, and record and list made to fit")
def _another_source():
    Path("mine.json").write_text('{"ADC": {"map": 0.643}}')
    _another_number(sources=[{"file": "mine.json", "pointer": "/ADC/map"}])
    return make_all_fit(CELLS, TEX)


@once("a setting changed in study.json, and record and list made to fit")
def _edit_study():
    change_study(lambda study: study["attacks"]["apd"].update(iterations=7))
    make_all_fit("results/tiny/study.json")
    return record_of(FILES["queries"])


def _in_record(kind, change):
    path = FILES[kind]
    change_record(path, change)
    make_list_fit()
    return path


def _register_field(what, section, key, value):
    @once(f"{what} changed in a record, and the list made to fit")
    def _edit():
        def change(record):
            parameters = record["predicate"]["buildDefinition"]
            for name in section:
                parameters = parameters[name]
            parameters[key] = value

        return _in_record("record of weights", change)


_register_field("threads", ["internalParameters"], "threads", 2)
_register_field("a seed", ["internalParameters", "seeds"], "seed", 1)
_register_field("a setting", ["externalParameters", "settings"], "epochs", 200)
_register_field("the digest of the code", ["internalParameters"], "code", "0" * 64)


@once("a record that claims another job's file, and the list made to fit")
def _claim_twice():
    other = {"name": f"{VICTIM}/16bits/adversarial/aod.h5", "digest": {"sha256": "0" * 64}}
    return _in_record("record of queries", lambda record: record["subject"].append(other))


@once("the table of another study in its place, with its record")
def _another_study():
    for name in ("csv", "tex", "txt", "cells.json", "prov.json"):
        path = f"results/tiny/tables/table1.{name}"
        write(path, Path(path).read_bytes().replace(b"results/tiny/", b"results/other/"))
    change_record(FILES["record of table"], lambda record: None)
    return FILES["record of table"]


@once("a file that no job made")
def _extra_file():
    Path(VICTIM, "features/extra.h5").write_bytes(b"extra")
    return f"{VICTIM}/features/extra.h5"


@once("a record that no job wrote")
def _extra_record():
    shutil.copyfile(FILES["record of weights"], f"{VICTIM}/extra.prov.json")
    return f"{VICTIM}/extra.prov.json"


@once("what a killed writer left")
def _part():
    Path(VICTIM, ".weights.pt.123.part").write_bytes(b"half")
    return f"{VICTIM}/.weights.pt.123.part"


@once("a link in the place of a folder")
def _linked_folder():
    os.replace(f"{VICTIM}/features", "elsewhere")
    os.symlink(Path("elsewhere").absolute(), f"{VICTIM}/features")
    return f"{VICTIM}/features"


@once("a pipe in the place of a file")
def _pipe():
    Path(FILES["history"]).unlink()
    os.mkfifo(FILES["history"])
    return FILES["history"]


@once("a line taken out of the list")
def _remove_line():
    text = Path(MANIFEST).read_text()
    write(MANIFEST, FIRST_LINE.sub("", text, count=1).encode())
    return MANIFEST


@once("a line taken out of the list, and its record made to fit")
def _remove_line_and_fit():
    _remove_line()
    make_record_fit(MANIFEST)
    return "data/synthetic.h5"


@once("a line put into the list, and its record made to fit")
def _add_line():
    Path("mine.json").write_text("{}")
    write(MANIFEST, Path(MANIFEST).read_bytes() + f"{files.sha256('mine.json')}  mine.json\n".encode())
    make_record_fit(MANIFEST)
    return "mine.json"


@once("the config edited")
def _edit_config():
    substitute("config.yaml", "epochs: 2", "epochs: 3")
    return "config.yaml"


@once("the config deleted")
def _delete_config():
    Path("config.yaml").unlink()
    return "config.yaml"


def named():
    """The files that verify names: that have a fault, or that something was made from when they were others."""
    faults = verify(STUDY)[0]
    others = (re.search(r"made from another (\S+): ", fault.what) for fault in faults)
    return {fault.file for fault in faults} | {other[1] for other in others if other}


def apply(name, kind=None):
    """Do an edit of the matrix, or with no kind of file a one-off one; returns the path that verify has to name."""
    if kind is None:
        return ONCE[name]()
    EDITS[name][0](FILES[kind])
    return FILES[kind]


def job_of(path):
    """The job that made a file, as (rule, wildcards)."""
    with contextlib.suppress(Exception):
        record = records.read(path if path.endswith(records.SUFFIX) else record_of(path))
        parameters = record["predicate"]["buildDefinition"]["externalParameters"]
        return parameters["rule"], parameters["wildcards"]
    return None
