"""Which files the images of the user are, without decoding any: what fetch reads, and what a plan looks at for changes.

Needs only the standard library, since plans and ``audit verify`` use it too.
"""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath

from pqag.errors import UserError
from pqag.names import LARGEST

#: The formats that are decoded, by Pillow's names. Its other decoders are rarely used and little tested, and one of them starts a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
#: What the first bytes of a file say about its format. A format that is not in ``FORMATS`` is an image that counts as missing.
_MAGIC = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"GIF8[79]a", "GIF"),
        (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
        (rb"II\*\0.{4}CR", "camera raw"),
        (rb"II[*+]\0|MM\0[*+]", "TIFF"),
        (rb"RIFF.{4}WEBP", "WEBP"),
        (rb"P[1-6]\s+[\d#]", "PPM"),
        (rb".{4}ftyp(avif|avis|.{4,24}avif)", "AVIF"),
        (rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "HEIC"),
        (rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0", "camera raw"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
        (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
        (rb"II\xbc\x01", "JPEG XR"),
        (rb"8BPS\0", "PSD"),
        (rb"gimp xcf", "XCF"),
        (rb"\0\0\x01\0[\x01-\xff]\0", "ICO"),
        (rb"icns", "ICNS"),
        (rb"P[Ff]\s+\d", "PFM"),
        (rb"\x76\x2f\x31\x01", "OpenEXR"),
        (rb"#\?RADIANCE", "Radiance HDR"),
        (rb"DDS \x7c", "DDS"),
        (rb"qoif", "QOI"),
        (rb"SIMPLE  =", "FITS"),
        (rb".{128}DICM", "DICOM"),
        (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "SVG"),
    )
)
#: Bytes that are enough for all of them.
_HEAD = 512
#: Endings of raw photographs, whose first bytes are often those of a TIFF file.
_RAW = re.compile(r"\.(cr[23]|nef|nrw|arw|sr[f2w]|dng|orf|rw2|raf|pef|3fr|iiq|erf)", re.IGNORECASE)
#: Endings of all images: a file of such a name is an image even where its bytes are damaged.
_SUFFIXES = re.compile(
    rf"{_RAW.pattern}|\.(jpe?g|jpe|jfif|a?png|gif|bmp|dib|tiff?|webp|p[pgbn]m|hei[cf]|avif|jp2|j2k|jpx|jxl|jxr|psd|exr|hdr|tga)",
    re.IGNORECASE,
)
#: Folders that other programs make, at any depth; besides all that are hidden.
_TOOLS = frozenset(("@eaDir", "__MACOSX", "lost+found", "#recycle", "#snapshot", "@Recycle", "$RECYCLE.BIN", "System Volume Information"))
#: A linked folder outside the source may lead to a whole disk.
_MOST_OUTSIDE = 10_000


def format_of(head: bytes, name: str) -> str | None:
    """Return the format of an image file by its first bytes: one of ``FORMATS``, or the name of another; None if it is no image.

    ``name`` only tells the raw files of cameras from TIFF.
    """
    found = next((form for pattern, form in _MAGIC if pattern.match(head)), None)
    return "camera raw" if found == "TIFF" and _RAW.fullmatch(_suffix(name)) else found


def is_image(head: bytes, name: str) -> bool:
    """Whether a file is an image by its first bytes, or at least by its name."""
    return format_of(head, name) is not None or _SUFFIXES.fullmatch(_suffix(name)) is not None


def head_of(path: str | Path) -> bytes:
    """Return the first bytes of a regular file; none of another or an unreadable one."""
    try:
        if not os.path.isfile(path):  # a pipe would never end
            return b""
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def short(name: str) -> str:
    """Return a name from a list or a manifest as an error may show it: a damaged one may have thousands of characters."""
    return name if len(name) <= 300 else f"{name[:300]}…"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1]


# ------------------------------------------------------------------------------------------------------------------ class folders


@dataclass
class Tree:
    """The class folders of a part, train or test.

    files: (name from the source, class) of every file that is not hidden, sorted. loose: names of files in no class folder. classes: names
    of the class folders. skipped: folders of other programs. outside: linked folders that lead out of the source, or nowhere known.
    repeated: linked folders that were read already, or lie inside themselves.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def tree(source: str | Path, part: str) -> Tree:
    """Return all files in ``source``/``part``/<class>/ and its subfolders. Linked folders inside the source are followed, once a class."""
    found, root = Tree(), os.path.realpath(source)
    for entry in sorted(os.scandir(os.path.join(root, part)), key=lambda entry: entry.name):
        name = f"{part}/{entry.name}"
        if not entry.is_dir():
            found.loose += [] if entry.name.startswith(".") else [name]
        elif _of_a_tool(entry.name):
            found.skipped.append(name)
        else:
            found.classes.append(entry.name)
            names = _files_below(root, name, found)
            found.files += [(file, entry.name) for file in sorted(names, key=lambda file: file.split("/"))]
    return found


def _of_a_tool(name: str) -> bool:
    return name.startswith(".") or name in _TOOLS


def _files_below(root: str, top: str, found: Tree) -> list[str]:
    """Return the names of the files below the class folder ``top``; real folders are read before linked ones, so links repeat nothing."""
    names, seen, pending, links = [], set(), [top], []
    while pending or links:
        linked = not pending
        folder = links.pop(0) if linked else pending.pop()
        real = os.path.realpath(os.path.join(root, folder))
        if linked and not _is_inside(real, root):
            found.outside.append(folder)
            names += _images_outside(os.path.join(root, folder), folder)
        elif real in seen or (linked and _is_inside(os.path.realpath(os.path.join(root, top)), real)):
            found.repeated.append(folder)
        else:
            seen.add(real)
            for entry in sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name):
                name = f"{folder}/{entry.name}"
                if not entry.is_dir():
                    names += [] if entry.name.startswith(".") else [name]
                elif _of_a_tool(entry.name):
                    found.skipped.append(name)
                else:
                    (links if entry.is_symlink() else pending).append(name)
    return names


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _images_outside(path: str, name: str) -> list[str]:
    """Return names for the images in a linked folder outside the source; none of them will be read, but all count as missing."""
    files = (os.path.join(folder, file) for folder, _, files in os.walk(path) for file in files)
    images = (file for file in islice(files, _MOST_OUTSIDE) if is_image(head_of(file), file))
    return [f"{name}/{os.path.relpath(file, path)}" for file in images]


# ----------------------------------------------------------------------------------------------------------------------- manifest

COLUMNS = ("path", "split", "labels")


def manifest_rows(source: Path, content: bytes) -> Iterator[tuple[int, str, str, set[str]]]:
    """Yield line number, path, split and labels of every row of a manifest; raises UserError, with the line, for an invalid one."""
    try:
        table = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = [column.strip() for column in next(table, [])]
        if missing := [column for column in COLUMNS if column not in header]:
            raise UserError(
                f"{source}: the first line must name the columns {', '.join(COLUMNS)}, separated by commas, "
                f"but {' and '.join(missing)} are not in {','.join(header)[:80]!r}"
            )
        if twice := next((column for column in COLUMNS if header.count(column) > 1), None):
            raise UserError(f"{source}: the first line names the column {twice} twice")
        places = [header.index(column) for column in COLUMNS]
        for row in table:
            if row:
                yield table.line_num, *_checked_row(f"{source}, line {table.line_num}", row, len(header), places)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{source}, line {line}: byte {content[error.start]:#x} is not valid UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{source}: it is not a CSV file ({error})") from None


def _checked_row(where: str, row: Sequence[str], columns: int, places: Sequence[int]) -> tuple[str, str, set[str]]:
    """Return path, split and labels of a row; raises UserError if it is invalid."""
    if len(row) != columns:
        raise UserError(f"{where}: it has {'more' if len(row) > columns else 'fewer'} values than the first line has columns")
    path, split, labelled = (row[place].strip() for place in places)
    path = path.replace("\\", "/")
    labels = {label.strip() for label in labelled.split("|")} - {""}
    if not path or "\0" in path:
        raise UserError(f"{where}: the path is {'empty' if not path else 'invalid'}")
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts:
        raise UserError(f"{where}: {short(path)} is outside the folder of the manifest; paths must be relative to that folder")
    if split not in ("train", "test"):
        raise UserError(f"{where}: the split is {short(split)!r}, but must be train or test")
    if not labels:
        raise UserError(f"{where}: {short(path)} has no label; remove images without labels")
    return PurePath(path).as_posix(), split, labels


# ----------------------------------------------------------------------------------------------------------------------- NUS-WIDE


def content_of(path: Path) -> bytes:
    """Return the bytes of a file; raises UserError if there are more than ``LARGEST``."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path.name} is larger than {LARGEST:,} bytes, the limit for files of a data set")
    return content


def lines_of(content: bytes) -> list[str]:
    """Return the lines of a list of NUS-WIDE that are not empty."""
    return [line.strip() for line in content.decode("utf-8", "surrogateescape").splitlines() if line.strip()]


def image_names(content: bytes) -> list[str]:
    """Return the names in an image list of NUS-WIDE, with forward slashes."""
    return [line.replace("\\", "/") for line in lines_of(content)]


def image_folder(source: Path, names: Sequence[str]) -> Path:
    """Return the folder that contains the folders of the images; raises UserError if there is none."""
    tops = {PurePath(name).parts[0] for name in names}
    for candidate in ("Flickr", "images", "Images", "."):
        if any(os.path.exists(source / candidate / top) for top in tops):
            return (source / candidate).resolve()
    raise UserError(
        f"{source} contains none of the images; they must be in Flickr/<folder>/, images/<folder>/ or <folder>/, as named in the lists"
    )
