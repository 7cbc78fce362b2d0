"""Data sets: from a raw source to train | database | query.

A data set is an entry of ``DATASETS``. It defines its raw files, where to find them, and how to decode them; all further steps are the
same for all data sets. The hash of a data set is that of the decoded images and labels, so every source gives the same hash.
"""

import contextlib
import hashlib
import http.client
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pqag import sources
from pqag.errors import UserError
from pqag.files import sha256
from pqag.names import DATASETS as OFFICIAL


@dataclass(frozen=True)
class Raw:
    """Decoded images and labels of both official splits, in the official order, in memory or as HDF5 datasets.

    images: uint8 (N, 3, H, W). labels: uint8 multi-hot (N, C). The training images come first; ``train`` is their number.
    """

    images: np.ndarray
    labels: np.ndarray
    train: int


@dataclass(frozen=True)
class Dataset:
    """How to get and to read one data set.

    files: names of the raw files in a source folder, each optionally with ".gz"; none for a generated data set. decode: turns a folder with
    them into ``Raw``. train, test: images in the official splits. classes: names in the order of the labels. title: for captions.
    contents: sha256 of known decoded contents and the title of each. strict: whether any other content is an error (true if the
    official content is known). debian, archive, archive_sha256, downloads: further sources, see ``fetch``.
    """

    files: tuple[str, ...]
    decode: Callable[[Path], Raw]
    train: int
    test: int
    classes: tuple[str, ...]
    title: str
    contents: dict[str, str]
    strict: bool
    debian: str | None = None
    archive: str | None = None
    archive_sha256: str | None = None
    downloads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """A data set as fetched: its content, the content's sha256, the title for captions, its source, and the sha256
    of the raw files by name (decompressed) and of their archive or package."""

    raw: Raw
    sha256: str
    title: str
    source: str
    files: dict[str, str]


# ---------------------------------------------------------------------------------------------------------------------- decoding


def _idx(path: Path, expected: tuple[int, ...]) -> np.ndarray:
    """An array of unsigned bytes in IDX format: two zero bytes, type 8, number of dimensions, the dimensions as big-endian int32, data."""
    content = path.read_bytes()
    header = 4 + 4 * len(expected)
    if content[:header] != struct.pack(f">4B{len(expected)}i", 0, 0, 8, len(expected), *expected):
        raise UserError(f"{path.name} is not the expected IDX file: its header must say unsigned bytes of shape {expected}")
    if len(content) != header + int(np.prod(expected)):
        raise UserError(f"{path.name} is too short or too long: {len(content)} bytes, expected {header + int(np.prod(expected))}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(expected)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers (N,) as multi-hot rows, uint8 (N, classes)."""
    return np.eye(classes, dtype=np.uint8)[labels]


def _decode_fashion_mnist(folder: Path, train: int = 60_000, test: int = 10_000) -> Raw:
    """28 x 28 grey images with a black border of 2 pixels, the grey value in all three channels (without resampling, so without blur)."""
    images, labels = [], []
    for split, count in (("train", train), ("t10k", test)):
        grey = _idx(folder / f"{split}-images-idx3-ubyte", (count, 28, 28))
        images.append(np.pad(grey, ((0, 0), (2, 2), (2, 2)))[:, None].repeat(3, axis=1))
        labels.append(_idx(folder / f"{split}-labels-idx1-ubyte", (count,)))
    return Raw(np.concatenate(images), _checked_labels(np.concatenate(labels), 10), train)


def _decode_cifar10(folder: Path, size: int = 10_000) -> Raw:
    """The binary version: records of a label byte and the 1,024 bytes of each of the R, G and B planes, ``size`` per file."""
    records = []
    for name in DATASETS["cifar10"].files:
        content = np.fromfile(folder / name, np.uint8)
        if content.size != size * 3073:
            raise UserError(f"{name} is too short or too long: {content.size} bytes, expected {size * 3073}")
        records.append(content.reshape(size, 3073))
    rows = np.concatenate(records)
    return Raw(rows[:, 1:].reshape(-1, 3, 32, 32).copy(), _checked_labels(rows[:, 0], 10), 5 * size)


def _generate_synthetic(_: Path) -> Raw:
    """Ten classes of colour patterns, each image shows one at random strength with noise: for trying the workflow out, not for results."""
    size = DATASETS["synthetic"].train + DATASETS["synthetic"].test
    rng = np.random.default_rng(2020)
    patterns = rng.normal(size=(10, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)
    labels = rng.permutation(size) % 10
    strength = rng.uniform(10, 60, (size, 1, 1, 1))
    images = 128 + strength * patterns[labels] + rng.normal(0, 40, (size, 3, 32, 32))
    return Raw(images.clip(0, 255).astype(np.uint8), one_hot(labels, 10), DATASETS["synthetic"].train)


def _checked_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    if labels.max() >= classes:
        raise UserError(f"it contains label {labels.max()}, but the classes are 0 to {classes - 1}: the files are damaged")
    missing = sorted(set(range(classes)) - set(np.unique(labels).tolist()))
    if missing:
        raise UserError(f"it contains no image of class {missing[0]}: the files are incomplete")
    return one_hot(labels, classes)


DATASETS: dict[str, Dataset] = {
    "fashion_mnist": Dataset(
        files=tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")),
        decode=_decode_fashion_mnist,
        train=OFFICIAL["fashion_mnist"].train,
        test=OFFICIAL["fashion_mnist"].test,
        classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        title="Fashion-MNIST",
        contents={"07e69e12eb5775b99c4c88a1518b31c8b69efb49e40e0ba3a106b8f5672f6f19": "Fashion-MNIST"},
        strict=OFFICIAL["fashion_mnist"].strict,
        debian="dataset-fashion-mnist",
        downloads=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
    ),
    "cifar10": Dataset(
        files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        decode=_decode_cifar10,
        train=OFFICIAL["cifar10"].train,
        test=OFFICIAL["cifar10"].test,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        title="CIFAR-10",
        # Not the official content, which was not available for hashing, but a common copy with all images re-encoded as JPEG.
        contents={"1c18e135bbb1716e6e153bc76657819dd35deb3f5c9018cdf9dad511f2fb6b88": "CIFAR-10 (JPEG copy)"},
        strict=OFFICIAL["cifar10"].strict,
        archive="cifar-10-binary.tar.gz",
        archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        downloads=("https://www.cs.toronto.edu/~kriz",),
    ),
    "synthetic": Dataset(
        files=(),
        decode=_generate_synthetic,
        train=OFFICIAL["synthetic"].train,
        test=OFFICIAL["synthetic"].test,
        classes=tuple(f"pattern {i}" for i in range(10)),
        title="Synthetic patterns",
        contents={},
        strict=False,
    ),
}


# ---------------------------------------------------------------------------------------------------------------------- fetching

#: What reading a damaged file or archive raises. A damaged xz archive may ask for more memory than there is.
_UNREADABLE = (OSError, EOFError, MemoryError, zlib.error, lzma.LZMAError, tarfile.TarError)


def fetch(name: str, source: str | None = None, expected_sha256: str | None = None) -> Fetched:
    """Get data set ``name`` from the first source with the right content.

    If ``source`` is given, only this folder or archive is tried. Otherwise the sources are, in this order: the Debian package, installed,
    or downloaded and unpacked without root if apt-get and dpkg-deb exist; the official download. The right content has
    ``expected_sha256`` or, if that is None, the known hash of the data set, if there is one. Raises UserError with every source and why it
    failed.
    """
    dataset = DATASETS[name]
    failures = []
    for label, attempt, official in _sources(dataset, source):
        try:
            with tempfile.TemporaryDirectory() as scratch, attempt(Path(scratch)) as found:
                complete = Path(scratch, "complete")
                complete.mkdir()
                for file in dataset.files:
                    sources.copy(found, file, complete / file)
                raw = dataset.decode(complete)
                packed = [path for path in (*Path(scratch).iterdir(), Path(os.path.expanduser(source or ""))) if path.is_file()]
                files = {path.name: sha256(path) for path in (*packed, *sorted(complete.iterdir()))}
            digest = content_sha256(raw)
            _check_content(dataset, digest, expected_sha256)
            return Fetched(raw, digest, _title(dataset, digest, official), label, files)
        except (*_UNREADABLE, http.client.HTTPException, subprocess.SubprocessError, UserError) as error:
            failures.append(f"{label}: {sources.reason(error)}")
    advice = f"set datasets.{name}.source in the config to a folder with {dataset.files[0]} and the other files"
    if dataset.archive:
        advice += f", or to the archive {dataset.archive}"
    raise UserError(f"the data set {name} could not be obtained ({'; '.join(failures)}); {advice}")


def _sources(dataset: Dataset, source: str | None) -> Iterator[tuple[str, Callable, bool]]:
    """Yield for each source a label, a context manager that takes a scratch folder and yields a folder with the raw files, and whether
    it checks the hash of the official archive (then the content is official even if its own hash is unknown)."""
    hashed = dataset.archive_sha256 is not None
    if not dataset.files:
        yield "generated", contextlib.nullcontext, True
        return
    if source is not None:
        path = Path(os.path.expanduser(source))  # Path.expanduser raises for a user that does not exist
        if path.is_file():
            yield str(source), lambda scratch: sources.unpacked(dataset, path, scratch), hashed
        else:
            yield str(source), lambda scratch: sources.folder(dataset, path), False
        return
    if dataset.debian:
        installed = Path("/usr/share/datasets", dataset.debian.removeprefix("dataset-"))
        if installed.is_dir():
            yield f"installed Debian package {dataset.debian}", lambda scratch: sources.folder(dataset, installed), False
        if shutil.which("apt-get") and shutil.which("dpkg-deb"):
            yield f"Debian package {dataset.debian}", lambda scratch: sources.debian(dataset.debian, scratch), False
    for url in dataset.downloads:
        yield url, lambda scratch, url=url: sources.downloaded(dataset, url, scratch), hashed


def _title(dataset: Dataset, digest: str, official: bool) -> str:
    """Return the title of the content: from its hash, or from whether the hash of the official archive was checked."""
    unverified = dataset.archive_sha256 is not None and not official
    return dataset.contents.get(digest, f"{dataset.title} (unverified copy)" if unverified else dataset.title)


def _check_content(dataset: Dataset, digest: str, expected_sha256: str | None) -> None:
    if expected_sha256 is not None and digest != expected_sha256:
        raise UserError(f"its content has sha256 {digest}, but the config says {expected_sha256}")
    if expected_sha256 is None and dataset.strict and digest not in dataset.contents:
        raise UserError(f"its content has sha256 {digest}, which is not {dataset.title} (to use it anyway, set sha256 to this value)")


def content_sha256(raw: Raw) -> str:
    """Return the sha256 of shapes, decoded images and labels; it does not depend on the source, the compression or the split."""
    digest = hashlib.sha256(f"{raw.images.shape} {raw.labels.shape} {raw.train}".encode())
    for array in (raw.images, raw.labels):
        for start in range(0, len(array), 4096):  # the arrays may be larger than memory
            digest.update(np.ascontiguousarray(array[start : start + 4096]))
    return digest.hexdigest()
