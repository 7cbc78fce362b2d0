"""What every script in ``scripts/`` shares: its log, its errors, its record, its progress bar."""

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tqdm import tqdm

from pqag import files
from pqag.errors import UserError
from pqag.job import records
from pqag.job.provenance import LIBRARY

#: The terminal, kept from before the log takes over.
_terminal = sys.stderr
_bar = None

log = logging.getLogger("pqag")


@contextlib.contextmanager
def step(snakemake) -> Iterator[dict]:
    """Run a script's body between two checks of its files, with all that it prints in its log; yields its settings (``params.settings``).

    Before the body every input must be what its own record says; after it the record of this job is written, last of all. ``came_from``
    reports what came from outside the workflow. A UserError ends the script with its one sentence as the last line of the log, any other
    exception with its traceback there; either way the exit status is 1 and the terminal is left to the workflow, which shows that last
    line, unless the log cannot be written. A job whose Snakemake was killed ends too, so that it does not write beside the next run; on
    another machine, where it cannot see that, it ends when the next run begins.
    """
    _end_with_parent()
    started, settings, done = records.now(), snakemake.params.settings, False
    try:
        with _log_to(snakemake.log[0]):
            try:
                _raw.clear()
                with records.unchanged(snakemake.input) as inputs:
                    yield settings
                outputs = {path: files.sha256(path) for path in snakemake.output if path != snakemake.output.record}
                job = records.Job(snakemake.rule, _script(), dict(snakemake.wildcards.items()), settings)
                anonymous = snakemake.config.get("anonymous", False)
                record = records.statement(job, outputs, inputs, _raw, started, anonymous, records.gpu())
                files.write_json(snakemake.output.record, record)
                done = True
            except UserError as error:
                log.error("error: %s", _one_line(error))
            except Exception as error:
                traceback.print_exc()
                log.error("error: %s", _sentence(error, snakemake.output[0]))
    except OSError as error:  # the log cannot be written: what there is to say goes to the terminal
        if not done:
            print(f"error: {_sentence(error, snakemake.log[0])}", file=_terminal)
    if not done:
        sys.exit(1)


def _script() -> Path:
    """The script that is running: Snakemake runs a copy whose ``__file__`` is the original, under its path outside a container."""
    return LIBRARY.parent / Path(sys.modules["__main__"].__file__).name


@contextlib.contextmanager
def _log_to(path: str) -> Iterator[None]:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as file, redirect_stdout(file), redirect_stderr(file):
        logging.basicConfig(stream=file, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        logging.captureWarnings(True)
        yield


def warn(words: str) -> None:
    """Put a sentence that the user should read in the log of the running job; profiles/console shows it on the console when it ends."""
    log.warning("warning: %s", words)


def came_from(name: str, sha256: str) -> None:
    """Say in the record of the running job that it used something from outside the workflow: its name and the sha256 of its bytes."""
    _raw.append({"name": name, "digest": {"sha256": sha256}})


_raw: list[dict] = []


def _end_with_parent() -> None:
    """End this process when the Snakemake that started it is gone: its job would go on and write beside the next run's.

    ``rules/patches.smk`` leaves the process's number in the environment: Snakemake may be gone before this is called, since a script loads
    its libraries first.
    """
    parent = int(os.environ.get("PQAG_PARENT", os.getppid()))
    direct = os.getppid() == parent  # else a shell stands between, which outlives Snakemake

    def gone() -> bool:
        if direct:
            return os.getppid() != parent
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it is there, and another user's
            pass
        return False

    def watch() -> None:
        for look in itertools.count():
            # Less often: it reads a file, which on a cluster lies where all jobs read it.
            if gone() or look % 10 == 0 and superseded():
                os._exit(1)
            time.sleep(0.2)

    if gone() or superseded():
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def superseded() -> bool:
    """Whether another run has begun in this folder since the one that this process belongs to.

    A run leaves a name of its own in the environment of its jobs and in the file that it holds for its time, see ``rules/patches.smk``.
    """
    name = os.environ.get("PQAG_RUN")
    try:
        return name is not None and Path(".snakemake/running").read_text() not in ("", name)
    except OSError:  # a file system that is late or busy says nothing about runs
        return False


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _sentence(error: Exception, path: str) -> str:
    """What went wrong, in one line, for a job that was writing ``path``."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk of {Path(path).parent}: free some and run again"
    return f"{type(error).__name__}: {_one_line(error) or 'no further words'}"


def _has_the_bar() -> bool:
    """Whether the terminal is free for this process's bar: one job at a time shows one, since bars would overwrite each other."""
    global _bar
    if not _terminal.isatty():
        return False
    with contextlib.suppress(OSError):  # a terminal without a file, or one that may not be opened
        _bar = _bar or open(os.ttyname(_terminal.fileno()), "wb", buffering=0)  # noqa: SIM115 (its lock is held until the process ends)
        try:
            fcntl.flock(_bar, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def progress(total: int, words: str, done: int = 0, unit: str = "batch") -> tqdm:
    """A bar with an estimate on the terminal, and nothing where there is no terminal or another job shows its bar."""
    quiet = not _has_the_bar()
    return tqdm(total=total, initial=done, desc=words, unit=unit, file=_terminal, disable=quiet, leave=False, dynamic_ncols=True)
