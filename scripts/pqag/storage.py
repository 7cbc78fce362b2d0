"""Reads and writes arrays as HDF5 files, atomically, in a format that lets a reader detect every flipped byte."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from pqag.errors import UserError
from pqag.files import atomic


class _Disk(io.FileIO):
    """A new file that stores the first write error and then ignores all further writes.

    h5py must not see such an error, for example on a full disk: it loses an error while it closes an object, and it crashes when it
    closes the file after one.
    """

    def __init__(self, path: str | Path):
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, content) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size


@contextlib.contextmanager
def writing_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file in the newest format, which becomes ``path`` on a clean exit. Raises OSError if a write failed.

    The format "latest" with chunks and checksums (``write_dataset``) lets a reader detect every flipped byte. Data go to the disk at once,
    so a file may be larger than the memory.
    """
    with atomic(path) as part, _Disk(part) as disk:
        try:
            with h5py.File(disk, "w", libver="latest") as file:
                yield file
        finally:
            if disk.error is not None:
                raise disk.error


def write_dataset(file: h5py.File, name: str, array: np.ndarray) -> None:
    """Add ``array`` under ``name`` in chunks of about 1 MiB with a Fletcher-32 checksum each; scalars and empty arrays have no chunks."""
    array = np.asarray(array)
    if array.size == 0 or array.ndim == 0:
        file.create_dataset(name, data=array)
        return
    rows = min(len(array), chunk_rows(array[0].nbytes))
    file.create_dataset(name, data=array, chunks=(rows, *array.shape[1:]), fletcher32=True)


def chunk_rows(row: int) -> int:
    """Return the number of rows of ``row`` bytes in a chunk of about 1 MiB; at least one."""
    return max(1, 2**20 // max(1, row))


def growing_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype=np.uint8) -> h5py.Dataset:
    """Add an empty array of rows of ``shape`` under ``name``, chunked as in ``write_dataset``; ``append`` fills it."""
    rows = chunk_rows(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape), fletcher32=True)


def append(dataset: h5py.Dataset, rows: np.ndarray) -> None:
    """Add ``rows`` at the end of a growing dataset."""
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[len(dataset) - len(rows) :] = rows


def copy_rows(
    file: h5py.File, name: str, source: h5py.Dataset, rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> None:
    """Add the ``rows`` (sorted numbers) of ``source``, a dataset of another file, as in ``write_dataset``, about 64 MiB at a time.

    ``change`` turns rows into as many of another shape.
    """
    shape = source.shape[1:] if change is None else change(source[:1]).shape[1:]
    size = chunk_rows(int(np.prod(shape)) * source.dtype.itemsize)
    target = file.create_dataset(name, (len(rows), *shape), source.dtype, chunks=(min(size, len(rows)), *shape), fletcher32=True)
    for start in range(0, len(source), 64 * size):
        first, last = np.searchsorted(rows, [start, start + 64 * size])
        if first < last:
            some = source[start : start + 64 * size][rows[first:last] - start]
            target[first:last] = some if change is None else change(some)


def write_hdf5(path: str | Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, object] | None = None) -> None:
    """Write named arrays (a slash in a name makes a group) and attributes as one HDF5 file, atomically."""
    with writing_hdf5(path) as file:
        for name, array in arrays.items():
            write_dataset(file, name, array)
        for name, value in (attributes or {}).items():
            file.attrs[name] = value


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file. Whatever h5py raises for a damaged one becomes a UserError."""
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a result in HDF5: {' '.join(str(error).split())[:200]}") from None


def read_hdf5(path: str | Path, *names: str) -> list[np.ndarray]:
    """Read the arrays with the given ``names``, in that order; raises UserError if the file is damaged or lacks one."""
    with _reading(path) as file:
        return [file[name][()] for name in names]


def dataset_names(path: str | Path) -> list[str]:
    """Return the sorted names of all arrays in the HDF5 file, with slashes for groups."""
    names: list[str] = []
    with _reading(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sorted(names)


def titles(paths: Iterable[str | Path]) -> dict[str, str]:
    """Return the title of each data set (the title of a copy says that it is one) by its name, from the images.h5 files in ``paths``."""
    return {one["dataset"]: one["title"] for one in map(read_attributes, paths)}


def read_attributes(path: str | Path) -> dict[str, object]:
    """Return the attributes of the HDF5 file as plain Python values; raises UserError if the file is damaged."""
    with _reading(path) as file:
        return {name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value for name, value in file.attrs.items()}
