"""The one way in which this workflow changes Snakemake, and what it changes before the Snakefile is read.

Set-up puts the folder of this file on the path of the virtual environment; ``rules/patches.smk``, which makes all later changes, adds it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import snakemake

#: The versions of Snakemake that this workflow runs with: from the first on, below the second.
SUPPORTED = ("9.27", "10")

#: Seconds that each job of this run is expected to take of the whole run, by its number in Snakemake; for the console.
EXPECTED: dict[int, float] = {}


def memory_mb(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """MiB of memory that this process may use: those of the machine, or the lowest limit of its control groups, as containers have."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            root, file = (groups, "memory.max") if not kinds else (groups / "memory", "memory.limit_in_bytes")
            own = root / name.lstrip("/")
            for folder in (own, *own.parents) if kinds in ("", "memory") else ():
                with contextlib.suppress(OSError, ValueError):  # there is none, or it says "max"
                    limits.append(int((folder / file).read_text()))
    return min(limits) // 2**20


def within_the_memory(every: Callable) -> Callable:
    """Run jobs of this machine side by side only if they ask for no more memory than it has, or than `--resources mem_mb=` says.

    Here and not in ``rules/patches.smk``: Snakemake would name that file as the place of whatever ends a run.
    """

    def execute(workflow, **options):
        local = options["executor_plugin"].common_settings.local_exec and workflow.is_main_process
        if local and workflow.global_resources.get("mem_mb").value is None:
            workflow.register_resource("mem_mb", memory_mb())
        return every(workflow, **options)

    return execute


def without_a_rate_limit(every: Callable) -> Callable:
    """Drop Snakemake's default limit of 100 jobs a second from local runs; keep any other limit, and that of runs on a cluster.

    No local run reaches the limit, but it takes time: while jobs wait for a core, each look at the queue orders the next one a second
    later, and each job that ends adds a look. After N jobs Snakemake looks at all waiting jobs N times a second. Here for the same reason
    as ``within_the_memory``.
    """

    def schedule(scheduler):
        limit = scheduler.workflow.scheduling_settings.max_jobs_per_timespan
        if scheduler.workflow.local_exec and limit and (limit.max_jobs, limit.timespan) == (100, 1):
            scheduler.job_rate_limiter = None
        return every(scheduler)

    return schedule


def unsupported(version: str = snakemake.__version__) -> str | None:
    """Why this version of Snakemake is not supported, in one sentence; None if it is."""
    first, end = ([int(part) for part in text.split(".")] for text in SUPPORTED)
    if first <= [int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit()] < end:
        return None
    return f"Snakemake {version} is installed, but this workflow needs {SUPPORTED[0]} or later, below {SUPPORTED[1]}: run `make setup`."


def replace(owner: Any, name: str, make: Callable[[Callable], Callable], wish: str) -> None:
    """Replace the function ``name`` of a class or module of Snakemake by what ``make`` returns for the original.

    A second call in the same process, which may read the Snakefile several times, replaces the first replacement and not the original in
    it. ``wish`` is what Snakemake would have to offer to make this unnecessary. Exits with one sentence if Snakemake has no such function:
    no run is better than one without what it needs.
    """
    original = getattr(owner, name, None)
    if original is None:
        sys.exit(f"Snakemake {snakemake.__version__} has no {owner.__name__}.{name}, which this workflow replaces ({wish}).")
    original = getattr(original, "replaced_by_pqag", original)
    changed = make(original)
    changed.replaced_by_pqag = original
    setattr(owner, name, changed)


def _accounting_works() -> bool:
    """Whether `sacct` can be asked about jobs; where there is no accounting, the command is often there and fails."""
    return bool(shutil.which("sacct")) and subprocess.run(["sacct", "--starttime=now"], capture_output=True).returncode == 0


def slurm_status_command() -> str:
    """The command that the SLURM plugin is to ask for the status of jobs. Where accounting does not work, the plugin must not turn to it by
    itself, as it would for good when the controller does not say how long it remembers jobs."""
    import snakemake_executor_plugin_slurm as plugin

    replace(plugin, "get_min_job_age", _unless_without_accounting, "an option that forbids the SLURM plugin to use sacct")
    return "sacct" if _accounting_works() else "squeue"


def _unless_without_accounting(original: Callable) -> Callable:
    return lambda *arguments, **options: original(*arguments, **options) if _accounting_works() else float("inf")


def checked_gpu_type(gpu_type: str) -> str:
    """``gpu_type`` of profiles/slurm; exits with one sentence where the SLURM plugin would not take it."""
    if "-" in gpu_type:
        sys.exit(f"gpu_type of profiles/slurm is {gpu_type!r}, but the plugin accepts no hyphens: set gpu_partition instead")
    return gpu_type
