"""Files that are either absent or complete: every writer fills a temporary file beside the target, syncs it and renames it."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on a clean exit its content becomes ``path``, on an exception it is removed.

    File and folder are synced before and after the rename, so that neither a kill nor a power cut leaves half a file under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix line ends, atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value) -> None:
    """Write plain Python values as indented JSON, atomically; NaN and infinity are refused (ValueError), being no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path):
    """The value that ``write_json`` wrote."""
    return json.loads(Path(path).read_text())


@contextlib.contextmanager
def writing_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file in the newest format, which becomes ``path`` on a clean exit.

    Format "latest" with chunks and checksums (``write_dataset``) is what lets a reader notice every flipped byte.
    """
    with atomic(path) as part, h5py.File(part, "w", libver="latest") as file:
        yield file
        file.flush()


def write_dataset(file: h5py.File, name: str, array: np.ndarray) -> None:
    """Add ``array`` under ``name`` in chunks of about 1 MiB with a Fletcher-32 checksum each; one value, or none, is stored whole."""
    array = np.asarray(array)
    if array.size == 0 or array.ndim == 0:
        file.create_dataset(name, data=array)
        return
    rows = max(1, min(len(array), 2**20 // max(1, array[0].nbytes)))
    file.create_dataset(name, data=array, chunks=(rows, *array.shape[1:]), fletcher32=True)


def write_hdf5(path: str | Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, object] | None = None) -> None:
    """Write named arrays (a slash in a name makes a group) and attributes as one HDF5 file, atomically."""
    with writing_hdf5(path) as file:
        for name, array in arrays.items():
            write_dataset(file, name, array)
        for name, value in (attributes or {}).items():
            file.attrs[name] = value


def read_hdf5(path: str | Path, *names: str) -> list[np.ndarray]:
    """The arrays stored under ``names``, in that order."""
    with h5py.File(path) as file:
        return [file[name][()] for name in names]


def read_attributes(path: str | Path) -> dict[str, object]:
    """The attributes of the HDF5 file, numpy scalars and arrays turned into plain Python values."""
    with h5py.File(path) as file:
        return {name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value for name, value in file.attrs.items()}
