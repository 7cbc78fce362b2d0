"""Gets the raw files of a data set into a folder: from a folder, an archive, the Debian package, a download.

This module only moves bytes and decides none of them: ``pqag.datasets`` says which sources there are and checks what they decode to, and
the record of the job has the sha256 of every raw file. So the digest of the code leaves this module out, see ``pqag.job.provenance``, and a
change makes no result stale. A ``dataset`` is a ``pqag.datasets.Dataset``.
"""

import contextlib
import gzip
import hashlib
import os
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pqag.errors import UserError
from pqag.names import LARGEST


@contextlib.contextmanager
def folder(dataset, path: Path) -> Iterator[Path]:
    """Yield the folder itself, or its subfolder with the files (users often name the parent of an unpacked archive)."""
    if not path.is_dir():
        raise UserError("there is no such file or folder")
    for candidate in (path, *sorted(p for p in path.iterdir() if p.is_dir())):
        if any((candidate / (dataset.files[0] + suffix)).is_file() for suffix in ("", ".gz")):
            yield candidate
            return
    raise UserError(f"it does not contain {dataset.files[0]}")


@contextlib.contextmanager
def unpacked(dataset, archive: Path, scratch: Path) -> Iterator[Path]:
    """Unpack only the required members of a tar archive, only regular files, from any folder in it; write nothing else."""
    if dataset.archive is None:
        raise UserError("it is a file, but this data set needs a folder")
    if dataset.archive_sha256:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != dataset.archive_sha256:
            raise UserError(f"its sha256 is {digest}, but that of the official {dataset.archive} is {dataset.archive_sha256}")
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isreg() and name in dataset.files:
                with tar.extractfile(member) as content:
                    _write(content, scratch / name)
    yield scratch


@contextlib.contextmanager
def debian(package: str, scratch: Path) -> Iterator[Path]:
    """Download the package and unpack it in ``scratch``, with separate package lists: those of a fresh machine are empty, and only root
    may fill them."""

    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True, timeout=600)

    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    own = ["-qq", "-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
    if os.geteuid() == 0:
        own += ["-o", "APT::Sandbox::User=root"]  # the user that apt would switch to may not write here
    run("apt-get", *own, "update")
    run("apt-get", *own, "download", package)
    debs = list(scratch.glob("*.deb"))
    if not debs:
        raise UserError("apt-get downloaded nothing")
    run("dpkg-deb", "--extract", debs[0].name, "unpacked")
    folders = list((scratch / "unpacked/usr/share/datasets").glob("*/"))
    if len(folders) != 1:
        raise UserError(f"the package {package} contains {len(folders)} folders of data, but one was expected")
    yield folders[0]


@contextlib.contextmanager
def downloaded(dataset, url: str, scratch: Path) -> Iterator[Path]:
    for file in (dataset.archive,) if dataset.archive else [f"{name}.gz" for name in dataset.files]:
        with urllib.request.urlopen(f"{url}/{file}", timeout=60) as response:
            _write(response, scratch / file)
    if dataset.archive:
        with unpacked(dataset, scratch / dataset.archive, scratch) as folder:
            yield folder
    else:
        yield scratch


def copy(folder: Path, name: str, target: Path) -> None:
    if (folder / name).is_file():
        with (folder / name).open("rb") as content:
            _write(content, target)
    elif (folder / f"{name}.gz").is_file():
        with gzip.open(folder / f"{name}.gz") as content:
            _write(content, target)
    else:
        raise UserError(f"{name} is missing")


def _write(content: BinaryIO, target: Path) -> None:
    """Write a stream to a file; raises UserError if it is longer than ``LARGEST``."""
    with target.open("wb") as out:
        while block := content.read(2**20):
            if out.tell() + len(block) > LARGEST:
                raise UserError(f"{target.name} is larger than {LARGEST:,} bytes, the limit for files of a data set")
            out.write(block)


def reason(error: Exception) -> str:
    """Why a source failed, in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"{error.cmd[0]} failed"
    return " ".join(str(error).split()) or type(error).__name__
