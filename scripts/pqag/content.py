"""What the sources of images that a study names contain: looked at when a run is planned and when the study is verified.

The sha256 of a source covers the names and bytes of its lists and images. Files are only read again if their size or times differ from
those in ``data/.<name>.files.json``, so a second look only asks for these. Needs only the standard library.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pqag import files, image_files
from pqag.errors import UserError

#: Raw files of known data sets that are read from a folder, see ``pqag.datasets``.
_KNOWN = re.compile(r"((data_batch_[1-5]|test_batch)\.bin|.*-idx[13]-ubyte)(\.gz)?")
_LISTS = ("*.txt", "ImageList/*.txt", "ConceptsList/*.txt", "TrainTestLabels/*.txt", "Groundtruth/*.txt", "Groundtruth/*/*.txt")


#: So many files take long to read, which is said.
MANY = 10_000


class Content(NamedTuple):
    """What a source contains. sha256: of names and bytes; None if there is no source. unseen: a class of test images without training
    images, None if there is none. classes: their names in the order of the labels, none if they are not known."""

    sha256: str | None
    unseen: str | None = None
    classes: tuple[str, ...] = ()


def look(name: str, dataset: Mapping[str, Any]) -> Content:
    """Look at the source of the data set ``name`` of a resolved study, which has the key ``source``."""
    source = Path(os.path.expanduser(dataset["source"]))
    try:
        root, lists, images, unseen, classes = _files(dataset["kind"], source)
    except (OSError, ValueError):  # there is no such folder, no access to it, or no such name can be
        return Content(None)
    noted, start = Path(f"data/.{name}.files.json"), os.path.abspath(root)
    before = _noted(noted, start)
    names = list(dict.fromkeys((*lists, *images)))
    if (new := sum(file not in before for file in names)) >= MANY:
        print(f"Reading {new} files of {source}, to see later whether they change", file=sys.stderr)

    def identified(some: list[str]) -> dict[str, list | None]:
        return {file: _identity(f"{start}/{file}", before.get(file), file in lists) for file in some}

    now = {}
    with ThreadPoolExecutor(8) as pool:  # on a file system of the network most of the time is waiting
        for some in pool.map(identified, (names[first : first + 1000] for first in range(0, len(names), 1000))):
            now |= some
    if not any(now.values()):
        return Content(None)  # for example a folder where nothing is mounted
    if now != before:
        with contextlib.suppress(OSError):  # a folder that cannot be written only costs time
            files.write_text(noted, json.dumps({"folder": start, "files": now}))
    lines = [f"{one[-1] if one else 'absent'}  {file}\n" for file, one in sorted(now.items()) if one is None or one[-1]]
    return Content(hashlib.sha256(os.fsencode("".join(lines))).hexdigest(), unseen, classes)


def _files(kind: str, source: Path) -> tuple[Path, set[str], list[str], str | None, tuple[str, ...]]:
    """Return a folder, the names of lists and of images from there, the first class of test images without training images, and the
    classes.

    A list that cannot be read names no image; fetch says why.
    """
    if kind == "imagefolder":
        parts = [image_files.tree(source, part) if (source / part).is_dir() else image_files.Tree() for part in ("train", "test")]
        new = sorted(set(parts[1].classes) - set(parts[0].classes)) if parts[0].classes else []
        names, classes = [name for part in parts for name, _ in part.files], {*parts[0].classes, *parts[1].classes}
        return source, set(), names, next(iter(new), None), tuple(sorted(classes))
    if kind == "manifest":
        if not source.is_file():  # a pipe would never end
            raise FileNotFoundError(source)
        names, classes = [], {"train": set(), "test": set()}
        try:
            for _, name, part, labels in image_files.manifest_rows(source, image_files.content_of(source)):
                names.append(name)
                classes[part] |= labels
        except UserError:
            names = []
        new = sorted(classes["test"] - classes["train"])
        return source.parent, {source.name}, names, next(iter(new), None), tuple(sorted(classes["test"] | classes["train"]))
    if kind == "nuswide":
        lists = {path.relative_to(source).as_posix() for pattern in _LISTS for path in source.glob(pattern) if path.is_file()}
        try:
            names = [
                name
                for file in sorted(lists)
                if file.endswith("Imagelist.txt")
                for name in image_files.image_names(image_files.content_of(source / file))
            ]
            folder = os.path.relpath(image_files.image_folder(source, names), source.resolve())
        except (UserError, IndexError):
            names, folder = [], "."
        return source, lists, [os.path.join(folder, name) for name in names], None, ()
    if source.is_dir():
        found = [*source.iterdir(), *(path for folder in source.iterdir() if folder.is_dir() for path in folder.iterdir())]
        return source, {path.relative_to(source).as_posix() for path in found if _KNOWN.fullmatch(path.name)}, [], None, ()
    return source.parent, {source.name}, [], None, ()


def _identity(path: str, before: list | None, is_list: bool) -> list | None:
    """Return size, times and sha256 of a file, the sha256 empty if it is no image; None if it cannot be read.

    ``before`` is what was found last time. The time of a file's last change of any kind is among the times, since a copy that keeps times
    does not keep this one.
    """
    try:
        stat = os.stat(path)
        times = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if before and before[:-1] == times:
            return before
        if not is_list and not image_files.is_image(image_files.head_of(path), path):
            return [*times, ""]
        return [*times, files.sha256(path)] if os.path.isfile(path) else None
    except (OSError, ValueError):
        return None


def _noted(path: Path, folder: str) -> dict[str, list | None]:
    """Return what was found in ``folder`` last time; nothing if that was another folder, or the note is damaged."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return noted["files"] if noted["folder"] == folder else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
