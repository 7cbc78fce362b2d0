"""What a person sees while the workflow runs: one line a job, in words; of a failed job its message and where its log lies.

A logger plugin of Snakemake (its official way to replace the console output), found because set-up puts the folder around it on the path
of the virtual environment. ``--logger`` of another name, or ``--workflow-profile none``, gives Snakemake's own output back.
"""

import logging
import sys
from pathlib import Path

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
    "Some jobs were triggered by provenance",
    "Using shell",
    "Using workflow specific profile",
    "WorkflowError:\nAt least one job did not complete successfully",
    "host:",
)


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
            case LogEvent.JOB_ERROR:
                return _failure(record.rule_name, [path.split(" (")[0] for path in record.log])
            case LogEvent.ERROR if getattr(record, "exception", "") == "LockException":
                return "Another run is going on in this folder; wait for it, or stop it, first."
            case LogEvent.ERROR if getattr(record, "exception", "") in ("CalledProcessError", "RuleException"):
                return None  # the JOB_ERROR that comes with it says more
            case None | LogEvent.ERROR:
                words = record.getMessage()
                return None if record.levelno < logging.INFO or words.startswith(NOISE) else words.strip()
        return None


def _failure(rule: str, logs: list[str]) -> str:
    """The last line of the failed job's log, which says what was wrong, and where to read the rest."""
    for path in map(Path, logs):
        if path.is_file() and (lines := path.read_text(errors="replace").strip().splitlines()) and "error: " in lines[-1]:
            return f"{rule} failed: {lines[-1].split('error: ', 1)[1]}\n  log: {path}"
    return f"{rule} failed without a word of why in its log ({', '.join(logs) or 'it has none'}): it was killed, or ran out of memory"
