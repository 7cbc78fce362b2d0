"""Data sets of image files: class folders, a manifest, or the official release of NUS-WIDE.

``LISTINGS`` has a function for each kind that lists the images and their labels. ``store`` decodes the images, a few at a time, into an
HDF5 file, so memory limits neither their number nor their size.
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath

import h5py
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pqag import storage
from pqag.errors import UserError
from pqag.names import LARGEST, RELEASED

#: The accepted formats, by Pillow's names. Its other decoders are rarely used and little tested, and one of them starts a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
#: Suffixes of images in class folders; other files are left out and reported.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
#: More pixels than any photograph has: a small file can unpack to an image that fills the memory.
LARGEST_IMAGE = 10**8
#: Bytes of decoded images to collect before they are written.
BLOCK = 2**25


@dataclass(frozen=True)
class Listing:
    """The images of a data set, the training images first, with their labels.

    folder: resolved folder of all images. names: their paths from there. labels: uint8 multi-hot (N, C). train: number of training images.
    classes: names (C). files: sha256 of the lists and label files, by name. notes: sentences for the log. title: title of the data set,
    None for images of the user. complete: whether no image of the official release is missing.
    """

    folder: Path
    names: list[str]
    labels: np.ndarray
    train: int
    classes: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str | None = None
    complete: bool = True


# ------------------------------------------------------------------------------------------------------------------ class folders


def imagefolder(source: Path) -> Listing:
    """List the images in ``source``/train/<class>/ and ``source``/test/<class>/ and their subfolders, sorted by name.

    Raises UserError if a part or a class has no image, an image is in no class folder, or a class has only test images.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; use the folder that contains train/ and test/")
    found: list[tuple[str, str]] = []
    others = 0
    sizes = []
    for split in ("train", "test"):
        if not (source / split).is_dir():
            raise UserError(f"{source} contains no folder {split}; images must be in train/<class>/ and test/<class>/")
        images, left_out = _class_images(source, split)
        found += images
        others += left_out
        sizes.append(len(images))
    notes = (f"{others} files without the suffix of an image are left out",) if others else ()
    return _listing(source, [name for name, _ in found], [{label} for _, label in found], sizes[0], notes=notes)


def _class_images(source: Path, split: str) -> tuple[list[tuple[str, str]], int]:
    """Return (name, class) of every image of a part, and the number of other files."""
    images, others = [], 0
    for folder in sorted((source / split).iterdir()):
        if folder.name.startswith("."):
            continue
        if not folder.is_dir():
            if folder.suffix.lower() in SUFFIXES:
                raise UserError(f"{folder} is in no class folder; images must be in {split}/<class>/")
            others += 1
            continue
        files = sorted(path for path in folder.rglob("*") if not path.is_dir() and not path.name.startswith("."))
        inside = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not inside:
            raise UserError(f"the class folder {folder} contains no image; remove it, or add images ({', '.join(SUFFIXES)})")
        images += [(path.relative_to(source).as_posix(), folder.name) for path in inside]
        others += len(files) - len(inside)
    return images, others


# ----------------------------------------------------------------------------------------------------------------------- manifest

COLUMNS = ("path", "split", "labels")


def manifest(source: Path) -> Listing:
    """List the images of a CSV file with the columns path (from the folder of the file), split (train or test) and labels (``a|b``).

    Raises UserError, with the line, for an invalid row.
    """
    if not source.is_file():
        raise UserError(f"{source} is not a file; use a CSV file with the columns {', '.join(COLUMNS)}")
    content = _content(source)
    rows: dict[str, tuple[int, str, set[str]]] = {}
    for line, row in _csv_rows(source, content):
        path, split, labels = _checked_row(f"{source}, line {line}", row)
        if path in rows:
            raise UserError(f"{source}, line {line}: {path} is already in line {rows[path][0]}")
        rows[path] = line, split, labels
    names = [path for part in ("train", "test") for path, (_, split, _) in rows.items() if split == part]
    train = sum(split == "train" for _, split, _ in rows.values())
    files = {source.name: hashlib.sha256(content).hexdigest()}
    return _listing(source.parent, names, [rows[name][2] for name in names], train, files)


def _csv_rows(source: Path, content: bytes) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield the line number and the values by column of every row."""
    try:
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = table.fieldnames or []
        if missing := [column for column in COLUMNS if column not in header]:
            raise UserError(
                f"{source}: the first line must name the columns {', '.join(COLUMNS)}, separated by commas, "
                f"but {' and '.join(missing)} are not in {','.join(header)[:80]!r}"
            )
        for row in table:
            yield table.line_num, row
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{source}, line {line}: byte {content[error.start]:#x} is not valid UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{source}: it is not a CSV file ({error})") from None


def _checked_row(where: str, row: dict[str, str | None]) -> tuple[str, str, set[str]]:
    """Return path, split and labels of a row; raises UserError if it is invalid."""
    if None in row or None in row.values():
        raise UserError(f"{where}: it has {'more' if None in row else 'fewer'} values than the first line has columns")
    path, split = row["path"].strip(), row["split"].strip()
    labels = {label.strip() for label in row["labels"].split("|")} - {""}
    if not path or "\0" in path:
        raise UserError(f"{where}: the path is {'empty' if not path else 'invalid'}")
    if os.path.isabs(path) or ".." in PurePath(path).parts:
        raise UserError(f"{where}: {path} is outside the folder of the manifest; paths must be relative to that folder")
    if split not in ("train", "test"):
        raise UserError(f"{where}: the split is {split!r}, but must be train or test")
    if not labels:
        raise UserError(f"{where}: {path} has no label; remove images without labels")
    return PurePath(path).as_posix(), split, labels


def _listing(
    folder: Path, names: list[str], labels: list[set[str]], train: int, files: dict[str, str] | None = None, notes: Sequence[str] = ()
) -> Listing:
    """Return the listing of images of the user; raises UserError if retrieval cannot be studied with them."""
    for part, size in (("training", train), ("test", len(names) - train)):
        if not size:
            raise UserError(f"{folder}: there are no {part} images; both training and test images are needed")
    classes = sorted(set().union(*labels[:train]))
    if new := sorted(set().union(*labels[train:]) - set(classes)):
        raise UserError(f"{folder}: the class {new[0]!r} has test images, but no training images; every class needs some")
    if len(classes) < 2:
        raise UserError(f"{folder}: all images have the same class, {classes[0]!r}; at least two classes are needed")
    column = {name: number for number, name in enumerate(classes)}
    hot = np.zeros((len(names), len(classes)), np.uint8)
    for row, shown in enumerate(labels):
        hot[row, [column[name] for name in shown]] = 1
    untested = len(classes) - int(hot[train:].any(0).sum())
    notes = (*notes, f"{untested} of {len(classes)} classes have no test images") if untested else tuple(notes)
    return Listing(folder.resolve(), names, hot, train, tuple(classes), files or {}, notes)


# ----------------------------------------------------------------------------------------------------------------------- NUS-WIDE

#: Published numbers of released images with one of the 10 or 21 most frequent concepts.
SELECTED = {10: 186_577, 21: 195_834}


class _Texts:
    """Reads text files in ``folder`` and records their sha256."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, str] = {}

    def lines(self, *places: str) -> list[str]:
        """Return the non-empty lines of the first existing file of ``places``; raises UserError if none exists."""
        for place in places:
            if os.path.isfile(self.folder / place):  # is_file raises for a name that is too long
                content = _content(self.folder / place)
                self.files[place] = hashlib.sha256(content).hexdigest()
                return [line.strip() for line in content.decode("utf-8", "surrogateescape").splitlines() if line.strip()]
        raise UserError(f"{self.folder} does not contain {places[0]}, which is in the official release")


def nuswide(source: Path, concepts: int = 10) -> Listing:
    """List the images of NUS-WIDE (Chua et al. 2009) with at least one of the ``concepts`` most frequent concepts, split as released.

    Frequencies are counted over all released images, so they do not depend on which images the user has. Of several images with the same
    Flickr id only the first is kept, training before test, so no query is in the database. Raises UserError if a file of the release is
    missing or does not match its list.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; use the folder that contains ImageList/ and Groundtruth/")
    texts = _Texts(source)
    known = texts.lines("ConceptsList/Concepts81.txt", "Concepts81.txt", "Groundtruth/Concepts81.txt")
    if concepts > len(known):
        raise UserError(f"{source}: concepts is {concepts}, but Concepts81.txt names {len(known)}")
    names, labels = _released(texts, known)
    every = [name for part in names.values() for name in part]
    counts = labels.sum(0, dtype=np.int64)
    chosen = sorted(sorted(range(len(known)), key=lambda c: (-counts[c], c))[:concepts])
    labelled = np.flatnonzero(labels[:, chosen].any(1))
    kept, repeated = _first_of_each_id(every, labelled)
    if not len(kept):
        raise UserError(f"{source}: no image has one of the {concepts} most frequent concepts")
    train = int((kept < len(names["Train"])).sum())
    notes = [f"{len(part):,} {split.lower()} images were released here, officially {RELEASED[split]:,}" for split, part in names.items()]
    notes.append(
        f"{len(labelled):,} have one of the {concepts} most frequent concepts, officially "
        f"{f'{SELECTED[concepts]:,}' if concepts in SELECTED else 'unknown'}: {', '.join(f'{known[c]} {counts[c]:,}' for c in chosen)}"
    )
    notes += [f"left out, because {first} has the same id: {name}" for name, first in repeated]
    complete = all(len(names[split]) == RELEASED[split] for split in RELEASED)
    folder = _image_folder(source, every)
    shown = tuple(known[c] for c in chosen)
    kept_names = [every[row] for row in kept]
    return Listing(folder, kept_names, labels[kept][:, chosen], train, shown, texts.files, tuple(notes), f"NUS-WIDE-{concepts}", complete)


def _released(texts: _Texts, concepts: Sequence[str]) -> tuple[dict[str, list[str]], np.ndarray]:
    """Return the names of the images by split, with forward slashes, and the labels of all of them in that order, uint8 (N, concepts)."""
    names = {split: _image_list(texts, f"{split}Imagelist.txt") for split in RELEASED}
    folders = [folder for folder in ("Groundtruth/TrainTestLabels", "TrainTestLabels") if (texts.folder / folder).is_dir()]
    if folders:
        blocks = [
            [_ground_truth(texts, f"{folders[0]}/Labels_{concept}_{split}.txt", len(part)) for concept in concepts]
            for split, part in names.items()
        ]
        return names, np.concatenate([np.stack(block, axis=1) for block in blocks])
    every = _image_list(texts, "Imagelist.txt")
    rows = {name: row for row, name in reversed(list(enumerate(every)))}
    wanted = [name for part in names.values() for name in part]
    if unknown := next((name for name in wanted if name not in rows), None):
        raise UserError(f"{texts.folder}: {unknown} is in the lists of training and test images, but not in Imagelist.txt")
    labels = [_ground_truth(texts, f"Groundtruth/AllLabels/Labels_{concept}.txt", len(every)) for concept in concepts]
    return names, np.stack(labels, axis=1)[[rows[name] for name in wanted]]


def _image_list(texts: _Texts, name: str) -> list[str]:
    return [line.replace("\\", "/") for line in texts.lines(f"ImageList/{name}", name)]


def _ground_truth(texts: _Texts, place: str, images: int) -> np.ndarray:
    """Return the zeros and ones of a label file, uint8 (images,)."""
    values = texts.lines(place)
    if len(values) != images:
        raise UserError(f"{texts.folder / place} has {len(values):,} lines, but the list of its images has {images:,}")
    if wrong := sorted(set(values) - {"0", "1"}):
        raise UserError(f"{texts.folder / place} contains {wrong[0][:20]!r}, but only 0 and 1 are allowed")
    return (np.array(values) == "1").astype(np.uint8)


def _first_of_each_id(names: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return the first of ``rows`` with each Flickr id (``…/0001_2124494179.jpg``), and the name of every other with that of the first."""
    first: dict[str, str] = {}
    kept, repeated = [], []
    for row in rows.tolist():
        number = PurePath(names[row]).stem.rsplit("_", 1)[-1]
        if number in first:
            repeated.append((names[row], first[number]))
        else:
            first[number] = names[row]
            kept.append(row)
    return np.array(kept, dtype=np.int64), repeated


def _image_folder(source: Path, names: Sequence[str]) -> Path:
    """Return the folder that contains the folders of the images."""
    tops = {PurePath(name).parts[0] for name in names}
    for candidate in ("Flickr", "images", "Images", "."):
        if any(os.path.exists(source / candidate / top) for top in tops):  # as above
            return (source / candidate).resolve()
    raise UserError(
        f"{source} contains none of the images; they must be in Flickr/<folder>/, images/<folder>/ or <folder>/, as named in the lists"
    )


#: The function of each kind that lists its images, from the source and the settings of fetch.
LISTINGS: dict[str, Callable[..., Listing]] = {"imagefolder": imagefolder, "manifest": manifest, "nuswide": nuswide}


# ----------------------------------------------------------------------------------------------------------------------- decoding


def decode(content: bytes, size: int) -> np.ndarray:
    """Decode the image in ``content`` as uint8 (3, size, size): upright, on white if transparent, in RGB, resized without cropping.

    Takes the first frame of an animation. Raises UserError for an image that is too large or has pixels of 32 bits, and any exception of
    Pillow for an image that it cannot read.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.width * image.height > LARGEST_IMAGE:
            raise UserError(f"it has {image.width} x {image.height} pixels, more than {LARGEST_IMAGE:,}")
        image.draft(None, (2 * size, 2 * size))  # a JPEG is reduced while it is decoded, which is much faster
        upright = _rgb(ImageOps.exif_transpose(image))
        return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))  # Pillow would clip values above 255
    if image.mode in ("I", "F"):
        raise UserError("its pixels have 32 bits, but only 8 or 16 are allowed")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _read(folder: Path, size: int, name: str) -> tuple[str, np.ndarray] | str:
    """Return the sha256 of an image file and the image, or the reason why it cannot be used."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            return "it is outside the folder"
        if not path.is_file():
            return "there is no such file"
        content = _content(path)
        return hashlib.sha256(content).hexdigest(), decode(content, size)
    except UnidentifiedImageError:
        return f"it is not a readable image ({', '.join(FORMATS)})"
    except Exception as error:  # Pillow's decoders may raise anything for a broken file
        return " ".join(str(error).split()) or type(error).__name__


def _content(path: Path) -> bytes:
    """Return the bytes of a file; raises UserError if there are more than ``LARGEST``."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path.name} is larger than {LARGEST:,} bytes, the limit for files of a data set")
    return content


@dataclass(frozen=True)
class Stored:
    """The result of ``store``. rows: row numbers (N,) of the stored images. hashes: sha256 of their files. skipped: for every other image
    the reason, by name."""

    rows: np.ndarray
    hashes: list[str]
    skipped: dict[str, str]


def store(
    listing: Listing,
    file: h5py.File,
    size: int,
    missing: float = 0.05,
    workers: int = 1,
    on_images: Callable[[int], object] = lambda _: None,
) -> Stored:
    """Decode the images of ``listing`` with ``workers`` threads and write them to ``file``: images uint8 (N, 3, size, size), labels uint8
    (N, C), names as bytes (N,). It uses a few times ``BLOCK`` bytes of memory. ``on_images`` gets the number of images of each block.

    Raises UserError if more than a share ``missing`` of the files is absent or unreadable, or if too few images are left.
    """
    images = storage.growing_dataset(file, "images", (3, size, size))
    rows, hashes = [], []
    absent = [name for name in listing.names if not (listing.folder / name).is_file()]  # reported before an hour of decoding
    skipped = dict.fromkeys(absent, "there is no such file")
    _check_share(listing, skipped, missing)
    with ThreadPoolExecutor(workers) as pool:  # Pillow releases the interpreter's lock while it decodes
        for start in range(0, len(listing.names), count := max(1, BLOCK // (3 * size**2))):
            block = listing.names[start : start + count]
            read = list(pool.map(partial(_read, listing.folder, size), block))
            for row, (name, found) in enumerate(zip(block, read), start):
                if isinstance(found, str):
                    skipped[name] = found
                else:
                    rows.append(row)
                    hashes.append(found[0])
            decoded = [found[1] for found in read if not isinstance(found, str)]
            if decoded:
                storage.append(images, np.stack(decoded))
            on_images(len(block))
    _check_share(listing, skipped, missing)
    stored = Stored(np.array(rows, dtype=np.int64), hashes, skipped)
    _check_what_is_left(listing, stored)
    storage.write_dataset(file, "labels", listing.labels[stored.rows])
    storage.write_dataset(file, "names", np.array([os.fsencode(listing.names[row]) for row in rows]))
    return stored


def _check_share(listing: Listing, skipped: dict[str, str], missing: float) -> None:
    if len(skipped) > missing * len(listing.names):
        name, reason = next(iter(skipped.items()))
        raise UserError(
            f"{listing.folder}: {len(skipped):,} of {len(listing.names):,} images are missing or unreadable, more than the share "
            f"`missing` = {missing:g} allows; the first is {name}: {reason}"
        )


def _check_what_is_left(listing: Listing, stored: Stored) -> None:
    parts = [stored.rows[stored.rows < listing.train], stored.rows[stored.rows >= listing.train]]
    for part, rows in zip(("training", "test"), parts):
        if not len(rows):
            raise UserError(f"{listing.folder}: no {part} image can be read; both training and test images are needed")
    without = np.flatnonzero(~listing.labels[parts[0]].any(0))
    if len(without):
        raise UserError(
            f"{listing.folder}: no training image of the class {listing.classes[without[0]]!r} can be read; every class needs some"
        )


def digest_of_all(listing: Listing, stored: Stored) -> str:
    """Return one sha256 for all image files: that of the lines ``<sha256>  <name>``, sorted by name, as sha256sum prints them."""
    named = sorted((os.fsencode(listing.names[row]), digest) for row, digest in zip(stored.rows.tolist(), stored.hashes))
    return hashlib.sha256(b"".join(digest.encode() + b"  " + name + b"\n" for name, digest in named)).hexdigest()


def copies(listing: Listing, stored: Stored) -> int:
    """Return the number of test images with the same bytes as another image, which make retrieval easier."""
    counts = Counter(stored.hashes)
    return sum(counts[digest] > 1 for row, digest in zip(stored.rows.tolist(), stored.hashes) if row >= listing.train)
