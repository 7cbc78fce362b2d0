"""Data sets of image files: class folders, a manifest, or the official release of NUS-WIDE.

``LISTINGS`` has a function for each kind that lists the images and their labels. ``store`` decodes the images, a few at a time, into an
HDF5 file, so memory limits neither their number nor their size.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath

import h5py
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pqag import image_files, storage
from pqag.errors import UserError
from pqag.image_files import FORMATS, content_of
from pqag.names import RELEASED

#: More pixels than any photograph has: a small file can unpack to an image that fills the memory.
LARGEST_IMAGE = 10**8
#: Bytes of decoded images to collect before they are written.
BLOCK = 2**25


@dataclass(frozen=True)
class Listing:
    """The images of a data set, the training images first, with their labels.

    folder: resolved folder of all images. names: their paths from there. labels: uint8 multi-hot (N, C). train: number of training images.
    classes: names (C). files: sha256 of the lists and label files, by name. notes: sentences for the log. warnings: sentences for the
    console too. title: title of the data set, None for images of the user. complete: whether no image of the official release is missing.
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
    warnings: tuple[str, ...] = ()

    @property
    def unseen(self) -> list[str]:
        """The classes without training images."""
        return [name for name, trained in zip(self.classes, self.labels[: self.train].any(0)) if not trained]


# ------------------------------------------------------------------------------------------------------------------ class folders


def imagefolder(source: Path) -> Listing:
    """List the images in ``source``/train/<class>/ and ``source``/test/<class>/ and their subfolders, sorted by name.

    Raises UserError if a part or a class folder has no image, or an image is in no class folder.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; use the folder that contains train/ and test/")
    found: list[tuple[str, str]] = []
    trees, sizes, others = [], [], 0
    for split in ("train", "test"):
        if not (source / split).is_dir():
            raise UserError(f"{source} contains no folder {split}; images must be in train/<class>/ and test/<class>/")
        trees.append(tree := image_files.tree(source, split))
        if loose := next((name for name in tree.loose if _is_image(source, name)), None):
            raise UserError(f"{source / loose} is in no class folder; images must be in {split}/<class>/")
        images = [(name, label) for name, label in tree.files if _is_image(source, name)]
        if empty := sorted(set(tree.classes) - {label for _, label in images}):
            raise UserError(f"the class folder {source / split / empty[0]} contains no image; remove it, or add images")
        found += images
        sizes.append(len(images))
        others += len(tree.loose) + len(tree.files) - len(images)
    warnings = (
        _counted(others * [""], "file that is no image is ignored", "files that are no images are ignored"),
        *(
            _counted([name for tree in trees for name in getattr(tree, kind)], one, many)
            for kind, one, many in (
                (
                    "skipped",
                    "hidden folder or folder of another program is skipped",
                    "hidden folders and folders of other programs are skipped",
                ),
                (
                    "outside",
                    "linked folder leads out of the source; its images count as missing",
                    "linked folders lead out of the source; their images count as missing",
                ),
                (
                    "repeated",
                    "linked folder is not read, because it contains itself or was read already",
                    "linked folders are not read, because they contain themselves or were read already",
                ),
            )
        ),
    )
    return _listing(source, [name for name, _ in found], [{label} for _, label in found], sizes[0], warnings=warnings)


def _counted(names: Sequence[str], one: str, many: str) -> str:
    """Return a sentence with the number of ``names`` and the first of them; nothing if there are none."""
    shown = ", ".join(filter(None, names[:3])) + ", …" * (len(names) > 3 and bool(names[0]))
    return names and f"{len(names)} {one if len(names) == 1 else many}{f': {shown}' * bool(names[0])}"


def _is_image(source: Path, name: str) -> bool:
    """Whether a file is an image by its content or its name; a link to nowhere may have been one."""
    path = source / name
    return (path.is_symlink() and not path.exists()) or image_files.is_image(image_files.head_of(path), name)


# ----------------------------------------------------------------------------------------------------------------------- manifest


def manifest(source: Path) -> Listing:
    """List the images of a CSV file with the columns path (from the folder of the file), split (train or test) and labels (``a|b``).

    Raises UserError, with the line, for an invalid row.
    """
    if not source.is_file():
        raise UserError(f"{source} is not a file; use a CSV file with the columns {', '.join(image_files.COLUMNS)}")
    content = content_of(source)
    rows: dict[str, tuple[int, str, set[str]]] = {}
    for line, path, split, labels in image_files.manifest_rows(source, content):
        if path in rows:
            raise UserError(f"{source}, line {line}: {image_files.short(path)} is already in line {rows[path][0]}")
        rows[path] = line, split, labels
    names = [path for part in ("train", "test") for path, (_, split, _) in rows.items() if split == part]
    train = sum(split == "train" for _, split, _ in rows.values())
    files = {source.name: hashlib.sha256(content).hexdigest()}
    labels = [rows[name][2] for name in names]
    return _listing(source.parent, names, labels, train, files, (_hint(set().union(*labels)) if b"|" not in content else "",))


def _hint(classes: set[str]) -> str:
    """Return what to say of classes that look like several labels: some have a separator, and their parts are fewer than the classes."""
    for separator, name in ((";", "a semicolon"), (",", "a comma"), (None, "a blank")):
        parts = [label.split(separator) for label in classes]
        if max(map(len, parts), default=1) > 1 and len({part.strip() for split in parts for part in split} - {""}) < len(classes):
            example = min(label for label, split in zip(classes, parts) if len(split) > 1)
            return f"no label contains | but some contain {name}, such as {example!r}, which is one class; separate several labels by |"
    return ""


def _listing(
    folder: Path, names: list[str], labels: list[set[str]], train: int, files: dict[str, str] | None = None, warnings: Iterable[str] = ()
) -> Listing:
    """Return the listing of images of the user; raises UserError if retrieval cannot be studied with them."""
    for part, size in (("training", train), ("test", len(names) - train)):
        if not size:
            raise UserError(f"{folder}: there are no {part} images; both training and test images are needed")
    classes = sorted(set().union(*labels))
    if len(classes) < 2:
        raise UserError(f"{folder}: all images have the same class, {image_files.short(classes[0])!r}; at least two classes are needed")
    column = {name: number for number, name in enumerate(classes)}
    hot = np.zeros((len(names), len(classes)), np.uint8)
    for row, shown in enumerate(labels):
        hot[row, [column[name] for name in shown]] = 1
    notes = tuple(
        f"{number} of {len(classes)} classes have no {part} images"
        for part, number in (("training", int((~hot[:train].any(0)).sum())), ("test", int((~hot[train:].any(0)).sum())))
        if number
    )
    return Listing(folder.resolve(), names, hot, train, tuple(classes), files or {}, notes, warnings=tuple(filter(None, warnings)))


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
                content = content_of(self.folder / place)
                self.files[place] = hashlib.sha256(content).hexdigest()
                return image_files.lines_of(content)
        raise UserError(f"{self.folder} does not contain {image_files.short(places[0])}, which is in the official release")


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
    folder = image_files.image_folder(source, every)
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
        name = image_files.short(unknown)
        raise UserError(f"{texts.folder}: {name} is in the lists of training and test images, but not in Imagelist.txt")
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


#: The function of each kind that lists its images, from the source and the settings of fetch.
LISTINGS: dict[str, Callable[..., Listing]] = {"imagefolder": imagefolder, "manifest": manifest, "nuswide": nuswide}


# ----------------------------------------------------------------------------------------------------------------------- decoding


def decode(content: bytes, size: int) -> np.ndarray:
    """Decode the image in ``content`` as uint8 (3, size, size): upright, on white if transparent, in RGB, resized without cropping.

    Takes the first frame of an animation. Raises UserError for an image that is too large or has pixels of 32 bits, and any exception of
    Pillow for an image that it cannot read.
    """
    return _decoded(content, size)[0]


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Return ``images``, uint8 (N, 3, H, W), resized bilinearly to ``size`` pixels on a side, as ``pqag.networks.pixels``."""
    whole = (Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR) for image in images)
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in whole])


def _decoded(content: bytes, size: int) -> tuple[np.ndarray, bool]:
    """As ``decode``, and whether the image is nearly black: no value reaches a sixteenth of the range."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.width * image.height > LARGEST_IMAGE:
            raise UserError(f"it has {image.width} x {image.height} pixels, more than {LARGEST_IMAGE:,}")
        if image.format == "PNG" and image.mode in ("1", "L") and "transparency" in image.info:
            image.info["transparency"] *= 255 // (2 ** content[24] - 1)  # Pillow spreads 1, 2 and 4 bits over 8, but not this one
        image.draft(None, (2 * size, 2 * size))  # a JPEG is reduced while it is decoded, which is much faster
        upright = _rgb(ImageOps.exif_transpose(image), image)
        dark = image.format != "JPEG" and max(high for _, high in upright.getextrema()) < 16
        return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1), dark


def _rgb(image: Image.Image, file: Image.Image) -> Image.Image:
    """Return an image in RGB, on white if transparent. ``file`` is the image as opened, which knows its format."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format == "PPM"):  # Pillow would clip values above 255
        values = np.asarray(image).astype(np.int64)
        tags = getattr(file, "tag_v2", {})
        most = 4095 if tags.get(258) == (12,) else 65535
        grey = (values if tags.get(262) != 0 else most - values) * 255 // most  # 0: min is white
        if isinstance(clear, int):
            grey[values == clear] = 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UserError("its pixels have 32 bits or a sign, but only 8 or 16 bits without a sign are allowed")
    if isinstance(clear, tuple) and max(clear) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in clear)  # Pillow reduces colours of 16 bits, but not this one
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _read(folder: Path, size: int, name: str) -> tuple[str, np.ndarray, bool] | str:
    """Return the sha256 of an image file, the image and whether it is nearly black, or the reason why it cannot be used."""
    try:
        if not os.path.isfile(folder / name):
            return "there is no such file"
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            return "it is outside the folder"
        content = content_of(path)
        form = image_files.format_of(content, name)
        if form and form not in FORMATS:
            return f"it is {form}, which is not read; convert it to {' or '.join(FORMATS[:2])}"
        return hashlib.sha256(content).hexdigest(), *_decoded(content, size)
    except UnidentifiedImageError:
        return f"it is not a readable image ({', '.join(FORMATS)})"
    except Exception as error:  # Pillow's decoders may raise anything for a broken file
        return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class Stored:
    """The result of ``store``. rows: row numbers (N,) of the stored images. hashes: sha256 of their files. skipped: for every other image
    the reason, by name. dark: names of images that are nearly black."""

    rows: np.ndarray
    hashes: list[str]
    skipped: dict[str, str]
    dark: list[str]


def store(
    listing: Listing,
    file: h5py.File,
    size: int,
    missing: float = 0.05,
    workers: int = 1,
    on_images: Callable[[int], object] = lambda _: None,
) -> Stored:
    """Decode the images of ``listing`` with ``workers`` threads and write them to ``file``: images uint8 (N, 3, size, size), labels uint8
    (N, C), names and the sha256 of the files, hashes, as bytes (N,). It uses a few times ``BLOCK`` bytes of memory. ``on_images`` gets the
    number of images of each block.

    Raises UserError if more than a share ``missing`` of the files is absent or unreadable, or if too few images are left.
    """
    images = storage.growing_dataset(file, "images", (3, size, size))
    rows, hashes, dark = [], [], []
    absent = [name for name in listing.names if not os.path.isfile(listing.folder / name)]  # reported before an hour of decoding
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
                    dark += [name] if found[2] else []
            decoded = [found[1] for found in read if not isinstance(found, str)]
            if decoded:
                storage.append(images, np.stack(decoded))
            on_images(len(block))
    _check_share(listing, skipped, missing)
    stored = Stored(np.array(rows, dtype=np.int64), hashes, skipped, dark)
    _check_what_is_left(listing, stored)
    storage.write_dataset(file, "labels", listing.labels[stored.rows])
    storage.write_dataset(file, "hashes", np.array(hashes, dtype="S64"))
    storage.write_dataset(file, "names", np.array([os.fsencode(listing.names[row]) for row in rows]))
    return stored


def _check_share(listing: Listing, skipped: dict[str, str], missing: float) -> None:
    if len(skipped) > missing * len(listing.names):
        name, reason = next(iter(skipped.items()))
        raise UserError(
            f"{listing.folder}: {len(skipped):,} of {len(listing.names):,} images are missing or unreadable, more than the share "
            f"`missing` = {missing:g} allows; the first is {image_files.short(name)}: {reason}"
        )


def _check_what_is_left(listing: Listing, stored: Stored) -> None:
    parts = [stored.rows[stored.rows < listing.train], stored.rows[stored.rows >= listing.train]]
    for part, rows in zip(("training", "test"), parts):
        if not len(rows):
            raise UserError(f"{listing.folder}: no {part} image can be read; both training and test images are needed")
    without = np.flatnonzero(listing.labels[: listing.train].any(0) & ~listing.labels[parts[0]].any(0))
    if len(without):
        raise UserError(
            f"{listing.folder}: no training image of the class {listing.classes[without[0]]!r} can be read; every class needs some"
        )


def digest_of_all(listing: Listing, stored: Stored) -> str:
    """Return one sha256 for all image files: that of the lines ``<sha256>  <name>``, sorted by name, as sha256sum prints them."""
    named = sorted((os.fsencode(listing.names[row]), digest) for row, digest in zip(stored.rows.tolist(), stored.hashes))
    return hashlib.sha256(b"".join(digest.encode() + b"  " + name + b"\n" for name, digest in named)).hexdigest()
