"""Decoders, sources, hashes and splits of the data sets."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import socketserver
import stat
import struct
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from pqag import datasets, sources
from pqag.datasets import DATASETS, Dataset, Raw, content_sha256, fetch
from pqag.errors import UserError
from pqag.split import copies, split

from .conftest import Evil


def fails(*fragments, name="toy", **arguments):
    """``fetch`` fails with a UserError that is one line and holds every fragment; its message."""
    with pytest.raises(UserError) as error:
        fetch(name, **arguments)
    words = str(error.value)
    for fragment in fragments:
        assert fragment in words, words
    assert "\n" not in words and "Traceback" not in words
    return words


# ---------------------------------------------------------------------------------------------------------------- a toy data set
#
# Ten images, so that sources can be tried quickly: "toy-images" are their bytes, "toy-labels" a byte each.

TOY_IMAGES = np.random.default_rng(1).integers(0, 256, (10, 3, 32, 32), np.uint8)
TOY_LABELS = bytes([0, 1, 1, 0, 1, 0, 0, 1, 0, 1])
TOY_FILES = {"toy-images": TOY_IMAGES.tobytes(), "toy-labels": TOY_LABELS}


def decode_toy(folder: Path) -> Raw:
    images, labels = (folder / "toy-images").read_bytes(), (folder / "toy-labels").read_bytes()
    if (len(images), len(labels)) != (10 * 3072, 10):
        raise UserError("the toy is broken")
    return Raw(np.frombuffer(images, np.uint8).reshape(10, 3, 32, 32), np.array([[1 - x, x] for x in labels], np.uint8), 6)


TOY = Dataset(tuple(TOY_FILES), decode_toy, 6, 4, ("a", "b"), "Toy", {}, strict=False, archive="toy.tar.gz")
TOY_SHA256 = content_sha256(Raw(TOY_IMAGES, np.array([[1 - x, x] for x in TOY_LABELS], np.uint8), 6))
RAW = {name: hashlib.sha256(content).hexdigest() for name, content in TOY_FILES.items()}


@pytest.fixture
def toy(monkeypatch):
    """Registers the toy; called with fields, changes them."""

    def change(**fields):
        monkeypatch.setitem(DATASETS, "toy", dataclasses.replace(DATASETS.get("toy", TOY), **fields))

    change()
    return change


@pytest.fixture
def folder(tmp_path):
    """A folder with the toy's files."""
    path = tmp_path / "toy-folder"
    path.mkdir()
    for name, content in TOY_FILES.items():
        (path / name).write_bytes(content)
    return path


def packed(path, *members, mode="w:gz"):
    """A tar archive of (name, bytes) pairs and ready-made TarInfo objects, written member by member."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def compress(folder):
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def test_a_folder_is_a_source_and_left_as_it_was(toy, folder, monkeypatch):
    """Its files are listed with their sha256."""
    (folder / "README").write_text("not read")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    fetched = fetch("toy", str(folder))
    np.testing.assert_array_equal(fetched.raw.images, TOY_IMAGES)
    assert fetched.raw.labels[:3].tolist() == [[1, 0], [0, 1], [0, 1]] and fetched.raw.train == 6
    assert (fetched.source, fetched.title, fetched.sha256, fetched.files) == (str(folder), "Toy", TOY_SHA256, RAW)
    assert RAW["toy-labels"] == "597501617db55d0f8a5bd33d760875ce2bb861a757bbf07e9ad52dbd7a94ae71"  # sha256sum of its ten bytes
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    monkeypatch.setenv("HOME", str(folder.parent))
    assert fetch("toy", "~/toy-folder").sha256 == TOY_SHA256


def test_some_files_may_be_compressed_and_the_folder_above_may_be_named(toy, folder, tmp_path):
    """A compressed file counts as what it holds: how and when it was compressed does not matter."""
    (tmp_path / "another-folder").mkdir()
    assert fetch("toy", str(tmp_path)).files == RAW
    compress(folder)
    fetched = fetch("toy", str(tmp_path))
    assert (fetched.sha256, fetched.files, fetch("toy", str(folder)).files) == (TOY_SHA256, RAW, RAW)
    (folder / "toy-labels.gz").unlink()
    (folder / "toy-labels").write_bytes(TOY_LABELS)
    assert fetch("toy", str(folder)).sha256 == TOY_SHA256


def test_an_archive_must_be_expected_and_have_the_known_hash(toy, folder, tmp_path, monkeypatch):
    archive = packed(tmp_path / "a.tar.gz", *TOY_FILES.items())
    actual, wrong = hashlib.sha256(archive.read_bytes()).hexdigest(), "0123456789abcdef" * 4
    toy(archive_sha256=actual)
    fetched = fetch("toy", str(archive))
    assert (fetched.sha256, fetched.title) == (TOY_SHA256, "Toy")
    assert fetch("toy", str(folder)).title == "Toy (unverified copy)", "nobody checked the hash of an archive"
    toy(archive_sha256=wrong)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("an archive with another hash was opened"))
    fails(f"{archive}: its sha256 is {actual}", wrong, "toy.tar.gz", "datasets.toy.source", source=str(archive))
    toy(archive=None)
    assert "or to the archive" not in fails("it is a file, but this data set needs a folder", source=str(archive))


def test_an_archive_is_a_source_whatever_folder_its_members_name_and_can_be_downloaded(toy, tmp_path):
    """It is listed with the files taken from it."""
    members = [("README", b"not read"), *((f"a/folder/{name}", content) for name, content in TOY_FILES.items())]
    for mode in ("w", "w:bz2", "w:gz"):
        archive = packed(tmp_path / "toy.tar.gz", *members, mode=mode)
        fetched, digest = fetch("toy", str(archive)), hashlib.sha256(archive.read_bytes()).hexdigest()
        assert (fetched.sha256, fetched.files) == (TOY_SHA256, RAW | {"toy.tar.gz": digest})
    with served(tmp_path) as address:
        toy(downloads=(address,), archive_sha256=digest)
        fetched = fetch("toy")
        assert (fetched.sha256, fetched.files) == (TOY_SHA256, RAW | {"toy.tar.gz": digest})
        toy(archive_sha256="0" * 64)
        fails(f"{address}: its sha256 is", "0" * 64)


# ------------------------------------------------------------------------------------------------------------- hostile archives


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Temporary folders are made here, so that what leaves them can be seen."""
    path = tmp_path / "a" / "b" / "scratch"
    path.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_members_of_an_archive_write_nothing_outside(toy, tmp_path, scratch):
    """../evil, an absolute path, names of wanted files behind "..", links and devices, before and after the true files."""
    (tmp_path / "victim").write_bytes(b"precious")
    evil = [
        ("../evil", b"evil"),
        ("../../../../evil", b"evil"),
        (str(tmp_path / "evil-absolute"), b"evil"),
        ("/../../evil", b"evil"),
        special("toy-images", tarfile.SYMTYPE, str(tmp_path / "victim")),
        special("toy-labels", tarfile.LNKTYPE, str(tmp_path / "victim")),
        special("evil-link", tarfile.SYMTYPE, str(tmp_path)),
        ("evil-link/evil-through-link", b"evil"),
        special("evil-device", tarfile.CHRTYPE),
        special("evil-pipe", tarfile.FIFOTYPE),
        special("toy-labels", tarfile.DIRTYPE),
    ]
    true = [("../../../../toy-images", TOY_FILES["toy-images"]), (str(tmp_path / "toy-labels"), TOY_LABELS)]
    archive = packed(tmp_path / "a.tar.gz", *evil, *true, *evil)
    before = everything(tmp_path)
    assert fetch("toy", str(archive)).sha256 == TOY_SHA256
    assert everything(tmp_path) == before


def test_a_member_that_is_no_regular_file_is_not_followed(toy, tmp_path, scratch):
    """The link leads to a file with the right content, which would be used if the link were followed."""
    (tmp_path / "labels").write_bytes(TOY_LABELS)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        link = special("toy-labels", kind, "real" if kind == tarfile.LNKTYPE else str(tmp_path / "labels"))
        archive = packed(tmp_path / "a.tar.gz", ("toy-images", TOY_FILES["toy-images"]), ("real", TOY_LABELS), link)
        before = everything(tmp_path)
        fails("toy-labels is missing", source=str(archive))
        assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["a file", "a packed file", "an archive", "a download"])
def test_a_decompression_bomb_is_not_unpacked_to_its_end(toy, folder, tmp_path, scratch, monkeypatch, kind):
    """10 MB, which pack to 10 kB, as the labels; the limit is lowered to 3 MB, and more is never written."""
    monkeypatch.setattr(sources, "LARGEST", 3 * 10**6)
    bomb, written = bytes(10**7), []
    (folder / "toy-labels").write_bytes(bomb)
    if kind == "a packed file":
        compress(folder)
    archive = packed(tmp_path / "toy.tar.gz", ("toy-images", TOY_FILES["toy-images"]), ("toy-labels", bomb))
    source = str(archive if kind == "an archive" else folder)
    if kind == "a download":
        toy(downloads=("http://example.org",), archive="toy-labels")
        monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(bomb))
        source = None
    cleanup = tempfile.TemporaryDirectory.cleanup

    def weigh(self):
        written.append(sum(path.stat().st_size for path in Path(self.name).rglob("*") if path.is_file()))
        cleanup(self)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", weigh)
    fails("toy-labels is larger than 3,000,000 bytes, the limit for files of a data set", source=source)
    assert 0 < sum(written) <= 3 * 10**6 + len(TOY_FILES["toy-images"])


def test_the_official_files_are_smaller_than_the_limit():
    """Images of Fashion-MNIST's training split, a file of CIFAR-10, and its archive, which its page gives as 162 MB."""
    assert max(16 + 60_000 * 28 * 28, 10_000 * 3073, 162 * 2**20) < sources.LARGEST


def test_the_python_version_of_cifar10_is_refused_and_its_pickles_are_not_loaded(tmp_path):
    content = pickle.dumps({"data": Evil(tmp_path / "evil"), "labels": []})
    for suffix in ("", ".bin"):
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
            (tmp_path / (name + suffix)).write_bytes(content)
        expected = "data_batch_1.bin is too short or too long" if suffix else "does not contain data_batch_1.bin"
        fails(expected, "cifar-10-binary.tar.gz", name="cifar10", source=str(tmp_path))
    archive = packed(tmp_path / "cifar-10-python.tar.gz", ("cifar-10-batches-py/data_batch_1", content))
    fails(hashlib.sha256(archive.read_bytes()).hexdigest(), "c4a38c50a1bc5f3a1c5537f2155ab9d68f", name="cifar10", source=str(archive))
    assert not (tmp_path / "evil").exists()
    pickle.loads(content)
    assert (tmp_path / "evil").is_dir(), "the control: the pickle is armed"


# --------------------------------------------------------------------------------------------------------------- damaged sources


def test_a_source_that_lacks_something_says_so_and_what_to_set(toy, folder, tmp_path):
    (folder / "toy-labels").write_bytes(TOY_LABELS[:-1])
    fails(f"{folder}: the toy is broken", source=str(folder))  # says the decoder
    (folder / "toy-labels").unlink()
    fails(f"{folder}: toy-labels is missing", source=str(folder))
    (folder / "toy-images").unlink()
    fails(f"{folder}: it does not contain toy-images", "datasets.toy.source", "or to the archive toy.tar.gz", source=str(folder))
    fails(f"{tmp_path}/nowhere: there is no such file or folder", "the data set toy", source=f"{tmp_path}/nowhere")
    fails("~no-such-user-here", source="~no-such-user-here/data")


def damaged(content):
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    return {
        "cut": content[: len(content) // 2],
        "a byte flipped": bytes(flipped),
        "not deflated behind its header": content[:10] + b"\xff" * 20 + content[30:],
        "its checksum wrong": content[:-8] + bytes(4) + content[-4:],
        "empty": b"",
        "not compressed at all": TOY_FILES["toy-images"],
        "a web page": b"<!DOCTYPE html><html>404</html>",
    }


@pytest.mark.parametrize("how", damaged(bytes(100)))
def test_a_damaged_gz_file_or_archive_is_an_error(toy, folder, tmp_path, how):
    compress(folder)
    (folder / "toy-images.gz").write_bytes(damaged((folder / "toy-images.gz").read_bytes())[how])
    fails(str(folder), "datasets.toy.source", source=str(folder))
    if how in ("cut", "empty", "not compressed at all", "a web page"):
        archive = packed(tmp_path / "a.tar.gz", *TOY_FILES.items())
        archive.write_bytes(damaged(archive.read_bytes())[how])
        fails(str(archive), "datasets.toy.source", source=str(archive))


# ----------------------------------------------------------------------------------------------------------------- expected hashes


def test_a_strict_data_set_takes_only_known_content_or_what_the_config_names(toy, folder):
    toy(contents={"e" * 64: "another"})
    assert fetch("toy", str(folder)).title == "Toy", "not strict"
    toy(strict=True)
    fails(TOY_SHA256, "is not Toy", source=str(folder))
    assert fetch("toy", str(folder), TOY_SHA256).title == "Toy"
    fails(TOY_SHA256, "f" * 64, "the config says", source=str(folder), expected_sha256="f" * 64)
    toy(contents={TOY_SHA256: "Toy (a copy)"})
    assert fetch("toy", str(folder)).title == "Toy (a copy)"


def test_the_content_hash_is_the_documented_one():
    """Recorded hashes stay comparable: shapes and number of training images as text, then the bytes of images and of labels."""
    images, labels = np.arange(6144, dtype=np.uint8).reshape(2, 3, 32, 32), np.array([[0, 1], [1, 0]], np.uint8)
    documented = hashlib.sha256(b"(2, 3, 32, 32) (2, 2) 1" + bytes(i % 256 for i in range(6144)) + b"\0\1\1\0").hexdigest()
    assert content_sha256(Raw(images, labels, 1)) == documented
    assert content_sha256(Raw(np.asfortranarray(images), labels, 1)) == documented, "the order in memory is no content"


# ------------------------------------------------------------------------------------------------------------------ several sources


def attempts(monkeypatch, *given):
    """Let ``fetch`` try these: (label, folder or exception)."""

    def attempt(result):
        @contextlib.contextmanager
        def enter(scratch):
            if isinstance(result, Exception):
                raise result
            yield result

        return enter

    monkeypatch.setattr(datasets, "_sources", lambda dataset, source: [(label, attempt(result), False) for label, result in given])


def test_a_source_that_fails_gives_way_to_the_next(toy, folder, tmp_path, monkeypatch):
    """One cannot be read, one is incomplete, one holds something else: the fourth is right, the fifth is not asked."""
    (tmp_path / "incomplete").mkdir()
    shutil.copytree(folder, tmp_path / "else")
    (tmp_path / "else" / "toy-labels").write_bytes(TOY_LABELS[::-1])
    toy(strict=True, contents={TOY_SHA256: "Toy"})
    sources = [("one", OSError("no")), ("two", tmp_path / "incomplete"), ("three", tmp_path / "else"), ("four", folder)]
    attempts(monkeypatch, *sources, ("five", AssertionError("the fifth was asked")))
    fetched = fetch("toy")
    assert (fetched.source, fetched.files) == ("four", RAW)
    attempts(monkeypatch, ("one", AssertionError("a defect of ours is no bad source")), ("two", folder))
    with pytest.raises(AssertionError, match="a defect"):
        fetch("toy")


def test_when_all_sources_fail_each_is_named_with_its_reason_in_order(toy, tmp_path, monkeypatch):
    attempts(
        monkeypatch,
        ("the disk", OSError("disk on fire")),
        ("the package", subprocess.CalledProcessError(100, ["apt-get"], stderr="W: old list\nE: Unable to locate package\n")),
        ("the quiet package", subprocess.CalledProcessError(1, ["dpkg-deb"], stderr="")),
        ("the slow one", TimeoutError()),
        ("the folder", tmp_path),
    )
    words = fails(
        "the disk: disk on fire; the package: E: Unable to locate package; the quiet package: dpkg-deb failed; "
        "the slow one: TimeoutError; the folder: toy-images is missing"
    )
    assert "old list" not in words


def test_a_source_in_the_config_is_the_only_one_tried(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: pytest.fail("a download was tried"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the package was tried"))
    toy(debian="dataset-toy", downloads=("http://localhost:9",))
    fails("there is no such file or folder", source=str(tmp_path / "nowhere"))


@contextlib.contextmanager
def serving(handler):
    """The address of a server on this machine, which is closed at the end."""
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def served(folder):
    """``serving`` the files in ``folder``."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    return serving(Handler)


def test_compressed_files_are_downloaded_from_the_first_address_that_has_them(toy, folder, tmp_path):
    """They are listed as downloaded and decompressed."""
    compress(folder)
    downloaded = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert set(downloaded) == {"toy-images.gz", "toy-labels.gz"}
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty") as empty, served(folder) as full:
        toy(archive=None, downloads=(empty, full))
        fetched = fetch("toy")
        assert (fetched.source, fetched.sha256, fetched.files) == (full, TOY_SHA256, RAW | downloaded)
        toy(downloads=(empty,))
        fails(f"{empty}: HTTP Error 404")


def test_a_server_that_is_not_there_or_speaks_no_http_is_an_error(toy):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(4096)
            self.request.sendall(b"this is no HTTP\r\n\r\n")

    with serving(Handler) as address:
        toy(archive=None, downloads=(address,))
        fails(f"{address}: ")
    fails(f"{address}: ", "refused")


def programs(folder, monkeypatch, **scripts):
    """Put shell scripts before all other programs."""
    folder.mkdir()
    for name, text in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_debian_package_is_downloaded_and_unpacked(toy, folder, tmp_path, monkeypatch):
    """Stand-ins for apt-get and dpkg-deb that insist on how they are called."""
    compress(folder)
    programs(
        tmp_path / "bin",
        monkeypatch,
        apt_get='case "$*" in *update) ;; *"download dataset-toy") echo package > dataset-toy_1_all.deb ;; *) exit 100 ;; esac\n',
        dpkg_deb=f'[ "$1" = --extract ] && grep -q package "$2" && mkdir -p "$3/usr/share/datasets" "$3/usr/share/doc" '
        f'&& cp -r {folder} "$3/usr/share/datasets/toy"\n',
    )
    toy(debian="dataset-toy")
    fetched = fetch("toy")
    assert (fetched.source, fetched.sha256) == ("Debian package dataset-toy", TOY_SHA256)
    assert fetched.files == RAW | {"dataset-toy_1_all.deb": hashlib.sha256(b"package\n").hexdigest()}


def test_a_package_that_cannot_be_obtained_gives_way_to_the_download(toy, folder, tmp_path, monkeypatch):
    compress(folder)
    programs(tmp_path / "bin", monkeypatch, apt_get="exit 0\n", dpkg_deb="exit 0\n")
    toy(debian="dataset-toy", archive=None)
    fails("Debian package dataset-toy: apt-get downloaded nothing")
    programs(tmp_path / "bin2", monkeypatch, apt_get="echo 'E: Unable to locate package' >&2; exit 100\n", dpkg_deb="exit 1\n")
    fails("Debian package dataset-toy: E: Unable to locate package")
    with served(folder) as address:
        toy(downloads=(address,))
        assert fetch("toy").source == address


# ------------------------------------------------------------------------------------------------------------------- Fashion-MNIST


def idx(path, array):
    """An IDX file as its specification says: two zero bytes, 8 for unsigned bytes, the number of dimensions, their big-endian sizes."""
    path.write_bytes(struct.pack(f">2x2B{array.ndim}i", 8, array.ndim, *array.shape) + array.tobytes())


def grey(numbers):
    """The test pattern: pixel (row, column) of image i is 7 i + 3 row + 11 column, modulo 256."""
    numbers = np.asarray(numbers, np.uint8)
    row, column = np.arange(28, dtype=np.uint8)[:, None], np.arange(28, dtype=np.uint8)
    return 7 * numbers[:, None, None] + 3 * row + 11 * column


@pytest.fixture(scope="module")
def fashion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fashion-mnist")
    for name, count, factor in (("train", 60_000, 1), ("t10k", 10_000, 3)):
        idx(folder / f"{name}-images-idx3-ubyte", grey(np.arange(count) * factor % 251))
        idx(folder / f"{name}-labels-idx1-ubyte", (np.arange(count) * factor % 10).astype(np.uint8))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def fashion(fashion_folder):
    return DATASETS["fashion_mnist"].decode(fashion_folder)


def changed(folder, target):
    """A folder of links to the files of ``folder``, any of which can be replaced."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).symlink_to(path)
    return target


def test_images_of_fashion_mnist_are_padded_to_32_pixels_in_three_channels(fashion):
    """The values of the pattern by hand: 59,999 = 239 x 251 + 10; 3 x 7 = 21; 3 x 9,999 = 119 x 251 + 128."""
    for number, value, label in ((0, 0, 0), (123, 123, 3), (59_999, 10, 9), (60_000, 0, 0), (60_007, 21, 1), (69_999, 128, 7)):
        for channel in fashion.images[number]:
            assert channel[2, 2] == 7 * value % 256 and channel[29, 29] == (7 * value + 3 * 27 + 11 * 27) % 256
            assert channel[2, 29] == (7 * value + 11 * 27) % 256 and channel[12, 7] == (7 * value + 3 * 10 + 11 * 5) % 256
            assert not channel[:2].any() and not channel[30:].any() and not channel[:, :2].any() and not channel[:, 30:].any()
        assert fashion.labels[number].tolist() == [int(i == label) for i in range(10)]


def test_content_that_is_not_fashion_mnist_is_an_error(toy, folder, monkeypatch):
    monkeypatch.setitem(DATASETS, "fashion_mnist", dataclasses.replace(DATASETS["fashion_mnist"], files=TOY.files, decode=decode_toy))
    fails(TOY_SHA256, "is not Fashion-MNIST", name="fashion_mnist", source=str(folder))


HEADER = b"\0\0\x08\3" + struct.pack(">3i", 60_000, 28, 28)


WRONG_HEADERS = [HEADER[:8], HEADER[:6], b"", b"\0\0\x0d\3" + HEADER[4:], b"\0\1\x08\3" + HEADER[4:], b"\0\0\x08\2" + HEADER[4:]]
WRONG_HEADERS += [HEADER[:4] + struct.pack(form, 60_000, side, side) for form, side in ((">3i", 32), ("<3i", 28))]


@pytest.mark.parametrize(
    ("header", "zeros", "fragment"),
    [
        (HEADER, 0, "is too short or too long: 16 bytes, expected 47040016"),
        (HEADER, 47_040_001, "is too short or too long: 47040017 bytes, expected 47040016"),
        *((header, 0, "is not the expected IDX file") for header in WRONG_HEADERS),
    ],
)
def test_an_idx_file_that_is_not_as_expected_is_an_error(tmp_path, header, zeros, fragment):
    """The first file is read before the others, which are empty."""
    for name in DATASETS["fashion_mnist"].files:
        (tmp_path / name).touch()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    os.truncate(tmp_path / "train-images-idx3-ubyte", len(header) + zeros)
    fails(f"{tmp_path}: train-images-idx3-ubyte {fragment}", name="fashion_mnist", source=str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "sentence"), [(9, 10, "contains label 10, but the classes are 0 to 9"), (4, 5, "contains no image of class 4")]
)
def test_a_label_beyond_the_classes_or_a_class_without_images_is_an_error(fashion_folder, tmp_path, old, new, sentence):
    source = changed(fashion_folder, tmp_path / "changed")
    for path in source.glob("*labels*"):
        labels = np.fromfile(path, np.uint8, offset=8)
        labels[labels == old] = new
        path.unlink()
        idx(path, labels)
    with pytest.raises(UserError, match=sentence):
        DATASETS["fashion_mnist"].decode(source)


@pytest.mark.network
def test_fashion_mnist_from_the_debian_package_is_the_known_one(monkeypatch, tmp_path):
    """Another source than a folder, for real: apt-get, dpkg-deb, decoding, and the recorded hash."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no apt-get and dpkg-deb here")
    monkeypatch.setitem(DATASETS, "fashion_mnist", dataclasses.replace(DATASETS["fashion_mnist"], downloads=()))
    try:
        fetched = fetch("fashion_mnist")
    except UserError as error:
        if "sha256" in str(error):
            raise
        pytest.skip(f"no package archive can be reached: {error}")
    assert fetched.sha256 == "07e69e12eb5775b99c4c88a1518b31c8b69efb49e40e0ba3a106b8f5672f6f19"
    assert fetched.title == "Fashion-MNIST" and "Debian package" in fetched.source
    assert fetched.raw.labels[:60_000].sum(0).tolist() == [6000] * 10 and fetched.raw.labels[60_000:].sum(0).tolist() == [1000] * 10
    # The first four training images are an ankle boot, two T-shirts and a dress, as every tutorial shows.
    assert fetched.raw.labels[:4].argmax(1).tolist() == [9, 0, 0, 3]


# ------------------------------------------------------------------------------------------------------------------------ CIFAR-10

CIFAR_FILES = ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"]


@pytest.fixture(scope="module")
def cifar_folder(tmp_path_factory):
    """Byte p of image i (R plane, G plane, B plane, row by row) is 13 i + 7 p + 50 plane modulo 256, its label 3 i modulo 10."""
    folder = tmp_path_factory.mktemp("cifar-10") / "cifar-10-batches-bin"
    folder.mkdir()
    pattern = (7 * np.arange(3072) + np.repeat([0, 50, 100], 1024)).astype(np.uint8)
    for position, name in enumerate(CIFAR_FILES):
        numbers = 10_000 * position + np.arange(10_000)
        record = np.empty((10_000, 3073), np.uint8)
        record[:, 0] = numbers * 3 % 10
        record[:, 1:] = (13 * numbers).astype(np.uint8)[:, None] + pattern
        record.tofile(folder / name)
    (folder / "batches.meta.txt").write_text("airplane\n")
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="module")
def cifar(cifar_folder):
    return fetch("cifar10", str(cifar_folder.parent))


def test_images_of_cifar10_stand_in_the_order_of_files_and_planes(cifar):
    for number in (0, 1, 9_999, 10_000, 29_999, 49_999, 50_000, 59_999):
        for channel, row, column in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2, 31, 31), (1, 17, 5)):
            assert cifar.raw.images[number, channel, row, column] == (13 * number + 7 * (32 * row + column) + 50 * channel) % 256
        assert cifar.raw.labels[number].tolist() == [int(i == number * 3 % 10) for i in range(10)]
    assert cifar.title == "CIFAR-10 (unverified copy)", "a folder whose content is not known"


@pytest.mark.parametrize("last", [-3073, None])
def test_a_cut_file_or_a_label_of_cifar10_beyond_the_classes_is_an_error(cifar_folder, tmp_path, last):
    source = changed(cifar_folder, tmp_path / "changed")
    content = bytearray((source / "data_batch_3.bin").read_bytes())[:last]
    content[3073 * 4321] = 10
    (source / "data_batch_3.bin").unlink()
    (source / "data_batch_3.bin").write_bytes(content)
    cut, label = "data_batch_3.bin is too short or too long: 30726927 bytes, expected 30730000", "contains label 10, but"
    with pytest.raises(UserError, match=cut if last else label):
        DATASETS["cifar10"].decode(source)


# ----------------------------------------------------------------------------------------------------------------------- synthetic


@pytest.fixture(scope="module")
def synthetic():
    return fetch("synthetic")


def test_the_synthetic_data_set_is_generated_and_always_the_same(synthetic):
    assert (synthetic.source, synthetic.title, synthetic.files) == ("generated", "Synthetic patterns", {})
    assert fetch("synthetic").sha256 == synthetic.sha256


def test_the_synthetic_classes_are_of_one_size_and_can_be_told_apart(synthetic):
    """Correlation with the class means of the training images finds the class of held-out images."""
    raw = synthetic.raw
    assert raw.labels.sum(0).tolist() == [300] * 10 and set(raw.labels.sum(1)) == {1}
    x = raw.images.reshape(3000, -1) - 128.0
    means = raw.labels[:2000].T.astype(float) @ x[:2000]
    found = (x[2000:] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    assert (found == raw.labels[2000:].argmax(1)).mean() > 0.9


@pytest.mark.parametrize(("name", "train"), [("fashion_mnist", 60_000), ("cifar10", 50_000), ("synthetic", 2000)])
def test_the_numbers_of_a_data_set_fit_together(name, train, request):
    raw = request.getfixturevalue({"fashion_mnist": "fashion"}.get(name, name.removesuffix("10")))
    raw, dataset = raw if isinstance(raw, Raw) else raw.raw, DATASETS[name]
    count = dataset.train + dataset.test
    assert raw.images.shape == (count, 3, 32, 32) and raw.labels.shape == (count, 10) and len(set(dataset.classes)) == 10
    assert raw.images.dtype == raw.labels.dtype == np.uint8 and raw.train == dataset.train == train


# ----------------------------------------------------------------------------------------------------------------------- splitting


def test_copies_are_other_rows_with_the_same_hash():
    """Rows 0, 3 and 4 are one file, 1 and 5 another; a row that is in both parts is no copy of itself."""
    hashes = np.array([b"a", b"b", b"c", b"a", b"a", b"b"])
    assert copies(np.array([3, 4]), np.array([0, 1, 2]), hashes) == [(3, 0), (4, 0)]
    assert copies(np.array([0, 1, 2]), np.array([0, 1, 2]), hashes) == []
    assert copies(np.array([0, 5]), np.array([0, 4, 5]), hashes) == [(0, 4)]


def test_the_split_of_earlier_versions_is_drawn():
    """Recorded ids stay those of the same images: the first of a permutation are queries, the next the database."""
    order = 60_000 + np.random.default_rng(3).permutation(10_000)
    parts = split(60_000, 70_000, 100, 8000, 1000, 3)
    train = sorted(np.random.default_rng([3, 1]).permutation(60_000)[:100])
    assert ids_of(parts) == [train, sorted(order[1000:9000]), sorted(order[:1000])] and parts.query.dtype == np.int64
    assert ids_of(split(60_000, 70_000, None, None, 1000, 3)) == [list(range(60_000)), sorted(order[1000:]), sorted(order[:1000])]


def test_training_images_join_the_database():
    """All of them and the rest of the test images, or as many of both as requested."""
    (*_, queries), joined, some = (ids_of(split(40, 80, 9, *wanted)) for wanted in ((None, 5, 1), (None, 5, 1, "all"), (50, 5, 1, "all")))
    assert joined[1] == sorted(set(range(80)) - set(queries)) and joined[2] == some[2] == queries
    order = np.random.default_rng([1, 2]).permutation(np.concatenate([40 + np.random.default_rng(1).permutation(40)[5:], np.arange(40)]))
    assert some[1] == sorted(order[:50])


def ids_of(parts):
    return [part.tolist() for part in (parts.train, parts.database, parts.query)]


def test_what_is_drawn_depends_on_the_seed_and_the_part_but_not_on_the_size_of_another_part():
    one, other = (ids_of(split(100, 200, 50, 50, 50, seed)) for seed in (0, 1))
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert one[0] != [number - 100 for number in one[2]], "training images and queries are not drawn alike"
    assert ids_of(split(50, 100, 10, 30, 20, 4))[1:] == ids_of(split(50, 100, None, 30, 20, 4))[1:]


def test_all_images_can_be_used_but_no_more():
    assert sorted(sum(ids_of(split(20, 30, 20, 7, 3, 0)), [])) == list(range(30))
    for train, database, queries, wanted in (
        (None, 8, 3, "3 queries and 8 database images were requested, but there are 10 test images"),
        (21, 5, 5, "21 training images were requested, but there are 20"),
        (None, None, 10, "10 queries and some database images were requested, but there are 10 test images"),
    ):
        with pytest.raises(UserError, match=wanted):
            split(20, 30, train, database, queries, 0)


def test_an_archive_that_asks_for_more_memory_than_there_is_is_refused(tmp_path, monkeypatch):
    def greedy(*arguments):
        raise MemoryError

    (tmp_path / "a.tar.xz").write_bytes(b"x")
    monkeypatch.setattr(datasets.sources.tarfile, "open", greedy)
    monkeypatch.setitem(datasets.DATASETS, "cifar10", dataclasses.replace(datasets.DATASETS["cifar10"], archive_sha256=None))
    with pytest.raises(UserError, match="could not be obtained .*MemoryError"):
        datasets.fetch("cifar10", str(tmp_path / "a.tar.xz"))
