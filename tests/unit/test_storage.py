"""HDF5 files are absent or complete, hold what was written, and notice damage."""

import signal
import time

import h5py
import numpy as np
import pytest

from pqag import storage
from pqag.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failing_writer_of_hdf5_keeps_the_old_file(tmp_path):
    storage.write_hdf5(tmp_path / "a.h5", {"x": np.arange(3)})
    with pytest.raises(RuntimeError), storage.writing_hdf5(tmp_path / "a.h5") as file:
        storage.write_dataset(file, "x", np.arange(4))
        raise RuntimeError
    assert storage.read_hdf5(tmp_path / "a.h5", "x")[0].tolist() == [0, 1, 2]
    assert names(tmp_path) == ["a.h5"]


KILLED = """
import os, signal, sys
import numpy as np
from pqag import storage

class Dying:  # dies while HDF5 asks for its content, the first array being written
    def __array__(self, dtype=None, copy=None):
        os.kill(os.getpid(), signal.SIGKILL)

storage.write_hdf5(sys.argv[1], {"first": np.zeros(10**6), "second": Dying()})
"""


def test_a_writer_killed_on_the_way_leaves_the_final_path_absent(tmp_path, python):
    done = python(KILLED, tmp_path / "file.h5")
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "file.h5").exists()
    storage.write_hdf5(tmp_path / "file.h5", {"x": np.arange(3)})
    assert names(tmp_path) == ["file.h5"], "the next writer takes away what was left"


ARRAYS = {
    "query/images": np.arange(2 * 3 * 32 * 32, dtype=np.uint8).reshape(2, 3, 32, 32),
    "query/ids": np.array([7, 2**40], np.int64),
    "features": np.array([[0.1, -0.0], [np.inf, 1e-45]], np.float32),
    "double": np.array([1 / 3]),
    "flags": np.array([True, False, True]),
    "nothing": np.zeros((0, 3)),
    "single": np.array(5),
}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "example.h5"
    storage.write_hdf5(
        path, ARRAYS, {"title": "Fashion-MNIST ü", "train": 60_000, "objective": 0.1, "multilabel": False, "classes": ["a", "b"]}
    )
    return path


def test_arrays_come_back_as_they_were_and_attributes_as_plain_python(example):
    for (name, wanted), got in zip(ARRAYS.items(), storage.read_hdf5(example, *ARRAYS), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape, name
        np.testing.assert_array_equal(got, wanted)
    attributes = storage.read_attributes(example)
    assert attributes == {"title": "Fashion-MNIST ü", "train": 60_000, "objective": 0.1, "multilabel": False, "classes": ["a", "b"]}
    assert [type(attributes[key]) for key in ("title", "train", "objective", "multilabel", "classes")] == [str, int, float, bool, list]


@pytest.mark.parametrize(
    ("shape", "dtype", "chunks"),
    [
        ((3000, 1024), np.uint8, (1024, 1024)),  # 1 KiB a row: 1024 rows are 1 MiB
        ((3000, 1024), np.float32, (256, 1024)),  # 4 KiB a row
        ((10, 3, 32, 32), np.uint8, (10, 3, 32, 32)),  # less than 1 MiB in all
        ((2, 2**20 + 1), np.uint8, (1, 2**20 + 1)),  # a row of more than 1 MiB
    ],
)
def test_chunks_hold_whole_rows_of_about_a_mebibyte(tmp_path, shape, dtype, chunks):
    storage.write_hdf5(tmp_path / "a.h5", {"x": np.zeros(shape, dtype)})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].chunks == chunks


def test_files_are_of_the_newest_version_and_every_dataset_has_checksums(example):
    content = example.read_bytes()
    assert content[:8] == b"\x89HDF\r\n\x1a\n"
    assert content[8] == 3  # HDF5 file format specification 3.0, II.A: version 3 came with HDF5 1.10; h5py's default is 0
    with h5py.File(example) as file:
        assert all(file[name].chunks is not None and file[name].fletcher32 for name in ARRAYS if file[name].size > 1)


def test_the_same_content_gives_the_same_bytes_under_any_name_at_any_time(tmp_path):
    attributes = {"title": "x", "classes": ["a", "b"]}
    storage.write_hdf5(tmp_path / "one.h5", ARRAYS, attributes)
    time.sleep(1.1)  # HDF5 counts its time stamps in seconds
    (tmp_path / "elsewhere").mkdir()
    storage.write_hdf5(tmp_path / "elsewhere" / "another-name.h5", ARRAYS, attributes)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "elsewhere" / "another-name.h5").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("damage") / "small.h5"
    storage.write_hdf5(path, {"x": np.random.default_rng(0).integers(0, 256, 3000, np.uint8), "g/y": np.arange(200)}, {"title": "a title"})
    return path


def test_a_flipped_bit_of_an_array_is_an_error(small, tmp_path):
    content = bytearray(small.read_bytes())
    start = content.find(np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes())
    assert start > 0, "the array stands in the file as it is"
    content[start + 1234] ^= 1
    (tmp_path / "damaged.h5").write_bytes(content)
    with pytest.raises(UserError, match=r"(?i)damaged.h5 cannot be read .*(checksum|filter)"):
        storage.read_hdf5(tmp_path / "damaged.h5", "x")


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_file_is_an_error(small, tmp_path, share):
    content = small.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError):
        storage.read_hdf5(tmp_path / "cut.h5", "x", "g/y")


FULL = """
import resource, signal, sys
import numpy as np
from pqag import storage

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write over the limit fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
try:
    storage.write_hdf5(sys.argv[1], {name: np.random.default_rng(0).random(10**4) for name in "abcdef"})
except OSError as error:
    print(type(error).__name__)
"""


def test_a_disk_that_is_full_is_an_error_and_keeps_the_old_file(tmp_path, python):
    """h5py, writing to the disk itself, goes on without a word when a write fails while an object is closed."""
    storage.write_hdf5(tmp_path / "a.h5", {"x": np.arange(3)})
    done = python(FULL, tmp_path / "a.h5", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "OSError\n"), done.stderr
    assert names(tmp_path) == ["a.h5"]
    assert storage.read_hdf5(tmp_path / "a.h5", "x")[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("rows", "chunk"), [([499], 1), ([0, 3, 4, 64, 498], 9), (range(0, 500, 3), 2), (range(500), 5)])
def test_copied_rows_are_those_of_the_array_and_stored_as_if_written_at_once(tmp_path, monkeypatch, rows, chunk):
    folder, rows = tmp_path, np.array(rows)
    array = np.random.default_rng(0).integers(0, 256, (500, 3, 4), np.uint8)
    storage.write_hdf5(folder / "source.h5", {"x": array})
    monkeypatch.setattr(storage, "chunk_rows", lambda row: chunk)
    with storage.writing_hdf5(folder / "copied.h5") as file, h5py.File(folder / "source.h5") as source:
        storage.copy_rows(file, "part/x", source["x"], rows)
    storage.write_hdf5(folder / "whole.h5", {"part/x": array[rows]})
    with storage.writing_hdf5(folder / "doubled.h5") as file, h5py.File(folder / "source.h5") as source:
        storage.copy_rows(file, "x", source["x"], rows, lambda some: some.repeat(2, axis=2))
    np.testing.assert_array_equal(storage.read_hdf5(folder / "doubled.h5", "x")[0], array[rows].repeat(2, axis=2))
    np.testing.assert_array_equal(storage.read_hdf5(folder / "copied.h5", "part/x")[0], array[rows])
    assert (folder / "copied.h5").read_bytes() == (folder / "whole.h5").read_bytes()


def test_a_growing_dataset_holds_what_was_added_with_checksums(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (700, 3, 32, 32), np.uint8)
    with storage.writing_hdf5(tmp_path / "a.h5") as file:
        grown = storage.growing_dataset(file, "x", array.shape[1:])
        for start in (0, 1, 3, 400):
            storage.append(grown, array[start : {0: 1, 1: 3, 3: 400}.get(start)])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].chunks == (341, 3, 32, 32) and file["x"].fletcher32
        np.testing.assert_array_equal(file["x"][()], array)


def test_titles_by_the_names_of_the_data_sets(tmp_path):
    for name in ("cifar10", "b"):
        storage.write_hdf5(tmp_path / f"{name}.h5", {"x": np.arange(2)}, {"dataset": name, "title": f"{name} (copy)"})
    assert storage.titles([tmp_path / "cifar10.h5", tmp_path / "b.h5"]) == {"cifar10": "cifar10 (copy)", "b": "b (copy)"}
