"""What a person sees while the workflow runs: one line a job, in words; of a failed job its message and where its log lies.

A logger plugin of Snakemake (its official way to replace the console output), found because set-up puts the folder around it on the path
of the virtual environment. ``--logger`` of another name, or ``--workflow-profile none``, gives Snakemake's own output back.

Snakemake imports every plugin before it reads a config, whichever logger is chosen; so this is also the place where its reader of study
files is replaced by ours, see ``read_studies_safely``.
"""

import functools
import importlib.util
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import snakemake.common.configfile
import snakemake.settings.types
from pqag_snakemake import replace
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

#: Snakemake's remarks on its own working, which tell a person nothing about the study.
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

#: What a cluster's SLURM writes into the log of a job that it ends, and into that of one that failed.
ENDED = re.compile(
    r"^slurmstepd\S*: error: \W*(.*(?:TIME LIMIT|exceeded .*memory limit|oom.kill|CANCELLED|PREEMPTION).*?)[\W]*$",
    re.MULTILINE | re.IGNORECASE,
)
SLURM = ("srun: ", "slurmstepd")

#: What Snakemake adds to the words of a cluster.
REFERRAL = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."


class LogHandler(LogHandlerBase):
    """Prints to stderr; all of Snakemake's own words still go to the file under .snakemake/log."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.started = 0
        self.total = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Print what the record means to a person, if anything."""
        words = self._words(record)
        if words:
            # Erase what is left of a progress bar on this line.
            print(("\r\033[K" if sys.stderr.isatty() else "") + words, file=sys.stderr, flush=True)

    def _words(self, record: logging.LogRecord) -> str | None:
        match getattr(record, "event", None):
            case LogEvent.RUN_INFO:
                self.total = record.stats["total"] if "total" in record.stats else sum(record.stats.values())
                return f"{self.total} job{'s' if self.total != 1 else ''} to do" if not self.started else None
            case LogEvent.JOB_INFO:
                self.started += 1
                return f"[{self.started}/{self.total}] {record.rule_msg or record.rule_name}"
            case LogEvent.JOB_ERROR if getattr(record, "indent", False):
                return None  # one of a group, of which GROUP_ERROR told
            case LogEvent.JOB_ERROR:
                return _failure(record.rule_name, record.log, record.rule_msg)
            case LogEvent.GROUP_ERROR:
                return _group_failure(record.job_error_info, record.aux_logs)
            case LogEvent.ERROR if getattr(record, "exception", "") == StudyRefused.__name__:
                return record.getMessage().splitlines()[1]  # below the name of the exception and the place in the Snakefile
            case LogEvent.ERROR if getattr(record, "exception", "") in ("CalledProcessError", "RuleException"):
                return None  # the JOB_ERROR that comes with it says more
            case None | LogEvent.ERROR:
                words = record.getMessage()
                return None if record.levelno < logging.INFO or words.startswith(NOISE) else words.strip()
        return None


def _failure(rule: str, logs: list[str], told: str | None = None) -> str:
    """The last line of the failed job's log, which says what was wrong, and where to read the rest; else why the cluster ended the job, or
    what it ``told``.
    """
    logs = [path.split(" (")[0] for path in logs]
    for path, text in _texts(logs):
        if (lines := text.strip().splitlines()) and "error: " in lines[-1] and not lines[-1].startswith(SLURM):
            return f"{rule} failed: {lines[-1].split('error: ', 1)[1]}\n  log: {path}"
    if ended := _ended(logs):
        return f"{rule} failed: {ended}"
    named = ", ".join(logs) or "it has none"
    why = "it was killed, or ran out of memory or disk"
    if told:
        why = " ".join(told.removesuffix(REFERRAL).split())
    return f"{rule} failed without a word of why in its log ({named}): {why}"


def _texts(logs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The logs that are there, and what stands in them."""
    for path in logs:
        if Path(path).is_file():
            yield path, Path(path).read_text(errors="replace")


def _ended(logs: Iterable[str]) -> str | None:
    """Why the cluster ended a job, by its own words in one of the logs: the last, but rather what it ran out of; None where it did not."""
    for path, text in _texts(logs):
        if found := ENDED.findall(text):
            short_of = [words for words in found if not re.search("CANCELLED(?!.*TIME LIMIT)|PREEMPTION", words)]
            return f"the cluster ended it, {(short_of or found)[-1]}\n  log: {path}"
    return None


def _group_failure(jobs: list[dict], logs: list[str]) -> str:
    """What those jobs of a group say that failed by themselves, and why the cluster ended the group; where none says anything, one sentence
    for all.
    """
    told = [words for job in jobs if " without a word of why " not in (words := _failure(job["rule_name"], job["log"]))]
    logs = [str(log) for log in logs if log]
    rules = ", ".join(sorted({job["rule_name"] for job in jobs}))
    failed = f"a job of {len(jobs)} step{'s' if len(jobs) != 1 else ''} ({rules}) failed"
    if ended := _ended(logs):
        told.append(f"{failed}: {ended}")
    why = "it was refused or killed, or ran out of memory, time or disk"
    return "\n".join(told) or "\n  log: ".join([f"{failed} without a word of why in any log of its steps: {why}", *logs])


# ------------------------------------------------------------------------------------------------------------------------ study files


class StudyRefused(WorkflowError):
    """A study file that is none, told in one sentence."""


def read_studies_safely() -> None:
    """Put ``read_study`` in place of Snakemake's ``load_configfile``, for ``--configfile`` and for the workflow's own ``configfile:``.

    Exits where Snakemake has no such function there any more: better no start than one that runs what a study says.
    """
    for module in (snakemake.settings.types, snakemake.common.configfile):
        replace(module, "load_configfile", lambda every: read_study, "a reader of config files that runs no code")


def read_study(path: str | Path) -> dict:
    """What ``pqag.study.file`` reads; raises StudyRefused.

    The module is loaded from the repository that this file lies in, under a name of its own: the workflow that will run may be that of
    another copy, whose ``pqag`` must not be shadowed.
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
