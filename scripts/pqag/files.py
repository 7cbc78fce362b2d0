"""Files that are either absent or complete: every writer fills a temporary file next to the target, syncs it and renames it.

Needs only the standard library.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on a clean exit its content becomes ``path``, on an exception it is removed.

    The file is synced before and the folder after the rename, so neither a kill nor a power failure leaves half a file at ``path``.
    Temporary files of killed writers of the same path are removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if re.fullmatch(r"\.\d+\.part", left.name.removeprefix(f".{path.name}")):  # not those of "name.txt" if path is "name"
            left.unlink(missing_ok=True)
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


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write ``content`` atomically."""
    with atomic(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix line ends, atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value) -> None:
    """Write plain Python values as indented JSON, atomically; raises ValueError for NaN and infinity."""
    write_text(path, json_text(value))


def json_text(value) -> str:
    """Return the text that ``write_json`` writes."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: str | Path):
    """Read the value from a file of ``write_json``."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: str | Path) -> str:
    """Return the hexadecimal sha256 of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
