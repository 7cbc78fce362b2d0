"""The console output of the workflow: one line per job, and for a failed job its message and the path of its log.

This is a logger plugin of Snakemake, the official way to replace the console output. Snakemake finds it because set-up puts its parent
folder on the path of the virtual environment. ``--logger`` with another name, or ``--workflow-profile none``, restores Snakemake's output.

Snakemake imports every plugin before it reads a config, whichever logger is chosen. So this module also replaces Snakemake's reader of
study files, see ``read_studies_safely``.
"""

import functools
import importlib.util
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import snakemake.common.configfile
import snakemake.settings.types
from pqag_snakemake import EXPECTED, replace
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

#: Starts of Snakemake's messages about its own work, which are not printed.
NOISE = (
    "Assuming unrestricted",
    "Building DAG",
    "Complete log",
    "Config file ",
    "Conda environments: ignored",
    "Elapsed time",
    "Execute ",
    "Exiting because a job execution failed",
    "Finished jobid",
    "Provided ",
    "Removing output files of failed job",
    "Rules claiming",
    "Rules with provenance",
    "Select jobs",
    "Shell command",
    "Singularity containers: ignored",
    "Some jobs were triggered by provenance",
    "Using shell",
    "Using workflow specific profile",
    "WorkflowError:\nAt least one job did not complete successfully",
    "host:",
)

#: Messages of SLURM in the log of a job that it ended, and line starts in the log of a job that failed.
ENDED = re.compile(
    r"^slurmstepd\S*: error: \W*(.*(?:TIME LIMIT|exceeded .*memory limit|oom.kill|CANCELLED|PREEMPTION).*?)[\W]*$",
    re.MULTILINE | re.IGNORECASE,
)
SLURM = ("srun: ", "slurmstepd")

#: A sentence that Snakemake appends to the message of a cluster.
REFERRAL = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."


class LogHandler(LogHandlerBase):
    """Prints to stderr. Snakemake still writes all of its own output to the file in .snakemake/log."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.started = self.done = 0
        self.expected_done = 0.0
        self.began = time.monotonic()
        self.total = 0
        self.logs: dict[int, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message for the record, if there is one."""
        words = self._words(record)
        if words:
            # Erase the rest of a progress bar on this line.
            print(("\r\033[K" if sys.stderr.isatty() else "") + words, file=sys.stderr, flush=True)

    def _elapsed(self) -> str:
        """The time since the start, as h:mm:ss."""
        return str(timedelta(seconds=int(time.monotonic() - self.began)))

    def _left(self) -> str:
        """An estimate of the time that is left, in words: what is expected of the other jobs, corrected by how long those took that are
        done. They count the more, the more of the run they are; nothing before the first or where nothing is expected."""
        total = sum(EXPECTED.values())
        if not self.expected_done:
            return ""
        usual = 30 + 0.1 * total
        pace = (time.monotonic() - self.began + usual) / (self.expected_done + usual)
        minutes = round((total - self.expected_done) * pace / 60)
        if minutes < 1:
            return ", nearly done"
        return f", about {minutes} min left" if minutes < 120 else f", about {round(minutes / 60)} h left"

    def _words(self, record: logging.LogRecord) -> str | None:
        match getattr(record, "event", None):
            case LogEvent.RUN_INFO:
                self.total = record.stats["total"] if "total" in record.stats else sum(record.stats.values())
                return f"{self.total} job{'s' if self.total != 1 else ''} to do" if not self.started else None
            case LogEvent.JOB_INFO:
                self.started += 1
                self.logs[record.jobid] = record.log
                return f"[{self.done}/{self.total} done, {self._elapsed()}{self._left()}] {record.rule_msg or record.rule_name}"
            case LogEvent.JOB_FINISHED:
                self.done += 1
                self.expected_done += EXPECTED.get(record.job_id, 0)
                return _warnings(self.logs.pop(record.job_id, []))
            case LogEvent.JOB_ERROR if getattr(record, "indent", False):
                return None  # part of a group; GROUP_ERROR has reported it
            case LogEvent.JOB_ERROR:
                return _failure(record.rule_name, record.log, record.rule_msg)
            case LogEvent.GROUP_ERROR:
                return _group_failure(record.job_error_info, record.aux_logs)
            case LogEvent.ERROR if getattr(record, "exception", "") == StudyRefused.__name__:
                return record.getMessage().splitlines()[1]  # the first line is the exception and the place in the Snakefile
            case LogEvent.ERROR if getattr(record, "exception", "") in ("CalledProcessError", "RuleException"):
                return None  # the JOB_ERROR that comes with it says more
            case None | LogEvent.ERROR:
                words = record.getMessage()
                return None if record.levelno < logging.INFO or words.startswith(NOISE) else words.strip()
        return None


def _failure(rule: str, logs: list[str], reported: str | None = None) -> str:
    """Return the message for a failed job: the last line of its log and the path of the log, else why the cluster ended the job, else what
    the cluster ``reported``.
    """
    logs = [path.split(" (")[0] for path in logs]
    for path, text in _texts(logs):
        if (lines := text.strip().splitlines()) and "error: " in lines[-1] and not lines[-1].startswith(SLURM):
            return f"{rule} failed: {lines[-1].split('error: ', 1)[1]}\n  log: {path}"
    if ended := _ended(logs):
        return f"{rule} failed: {ended}"
    named = ", ".join(logs) or "no log"
    why = "it was killed, or ran out of memory or disk"
    if reported:
        why = " ".join(reported.removesuffix(REFERRAL).split())
    return f"{rule} failed and left no message in its log ({named}): {why}"


def _warnings(logs: Iterable[str]) -> str:
    """Return the warnings of a finished job, see ``warn`` in ``pqag.job.step``, one a line, and the path of its log; nothing if none."""
    found = [(path, words) for path, text in _texts(logs) for words in re.findall(r"^\S+ \S+ (warning: .+)$", text, re.MULTILINE)]
    return "\n".join(f"  {words}" for _, words in found) + (f"\n  log: {found[-1][0]}" if found else "")


def _texts(logs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the path and content of every existing log."""
    for path in logs:
        if Path(path).is_file():
            yield path, Path(path).read_text(errors="replace")


def _ended(logs: Iterable[str]) -> str | None:
    """Return why the cluster ended a job, from its last message in a log, or rather the last about a resource; None if it did not."""
    for path, text in _texts(logs):
        if found := ENDED.findall(text):
            short_of = [words for words in found if not re.search("CANCELLED(?!.*TIME LIMIT)|PREEMPTION", words)]
            return f"the cluster ended it, {(short_of or found)[-1]}\n  log: {path}"
    return None


def _group_failure(jobs: list[dict], logs: list[str]) -> str:
    """Return the messages of the failed jobs of a group, and why the cluster ended the group; without any message, one sentence for the
    group.
    """
    messages = [words for job in jobs if " left no message in " not in (words := _failure(job["rule_name"], job["log"]))]
    logs = [str(log) for log in logs if log]
    rules = ", ".join(sorted({job["rule_name"] for job in jobs}))
    failed = f"a job of {len(jobs)} step{'s' if len(jobs) != 1 else ''} ({rules}) failed"
    if ended := _ended(logs):
        messages.append(f"{failed}: {ended}")
    why = "it was refused or killed, or ran out of memory, time or disk"
    return "\n".join(messages) or "\n  log: ".join([f"{failed} and left no message in any log of its steps: {why}", *logs])


# ------------------------------------------------------------------------------------------------------------------------ study files


class StudyRefused(WorkflowError):
    """An invalid study file, with a message of one sentence."""


def read_studies_safely() -> None:
    """Put ``read_study`` in place of Snakemake's ``load_configfile``, for ``--configfile`` and for the workflow's own ``configfile:``.

    Exits if Snakemake no longer has this function: not starting is better than running code in a study.
    """
    for module in (snakemake.settings.types, snakemake.common.configfile):
        replace(module, "load_configfile", lambda every: read_study, "a reader of config files that runs no code")


def read_study(path: str | Path) -> dict:
    """Read a study with ``pqag.study.file``; raises StudyRefused.

    The module is loaded from the repository of this file, under a separate name: the workflow may belong to another copy of the
    repository, and its ``pqag`` must not be shadowed.
    """
    studyfile = _studyfile()
    try:
        return studyfile.read(path)
    except studyfile.Refused as error:
        raise StudyRefused(str(error)) from None


@functools.cache
def _studyfile():
    path = Path(__file__).resolve().parents[3] / "scripts/pqag/study/file.py"
    spec = importlib.util.spec_from_file_location(f"{__name__}.studyfile", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


read_studies_safely()
