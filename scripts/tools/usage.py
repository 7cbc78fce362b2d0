"""Print the requested and used resources of a finished study: `.venv/bin/python scripts/tools/usage.py [CONFIG]`, in its folder.

For each rule it prints the number of jobs, the range of requested MiB divided by the peak in the benchmark files, and the range of
requested minutes divided by the minutes taken. The memory of a step includes the Snakemake processes above it in a cluster job, although a
run without a cluster has one process for all steps. Exits with 1 if a job requested less than 1.2 times or more than 4 times its use. More
than 4 times is no fault if a job requests the minimum for its kind: 1 minute, or 3 if it runs a network. Memory only counts if the job took
at least a second: benchmarks measure every half second, and in a shorter job they only measure the start.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from planning import planned, silence  # noqa: E402

from pqag.study.model import parse_study, read_config  # noqa: E402
from pqag.study.resources import SNAKEMAKE_MB  # noqa: E402
from pqag.study.rules import work  # noqa: E402

LOW, HIGH = 1.2, 4


class Job(NamedTuple):
    """The requested and used MiB and minutes of a job, with its rule and benchmark file. ``used_mb`` is the memory of its step plus
    ``SNAKEMAKE_MB``, or None for a job of less than a second. ``least_minutes`` is the smallest request of a job of its kind."""

    rule: str
    benchmark: str
    mb: int
    minutes: int
    least_minutes: int
    used_mb: float | None
    used_minutes: float

    def faults(self) -> Iterator[str]:
        """Yield a message for each request that was too low or too high."""
        both = (("MiB", self.mb, self.used_mb, 0), ("minutes", self.minutes, self.used_minutes, self.least_minutes))
        for unit, asked, used, least in both:
            if used is not None and (asked < LOW * used or asked > max(HIGH * used, least)):
                yield f"{self.benchmark}: asked for {asked} {unit}, used {used:.3g}"


def requests(config: Path, folder: Path = Path()) -> Iterator[tuple[str, str, int, int, int]]:
    """Yield for every job of the study in ``config`` its rule, its benchmark file, the MiB and minutes of its first request, and the
    smallest request of minutes of its kind."""
    with silence():
        jobs = planned(config, folder, ["all"], forceall=True).dag.jobs
    study = parse_study(read_config(config), str(config))
    workload = study.resolved() | {"shards": study.shards.model_dump()}
    for job in jobs:
        if job.benchmark:
            least = work(job.rule.name, job.wildcards_dict, workload).least_minutes
            yield job.rule.name, str(job.benchmark), job.resources.mem_mb, job.resources.runtime, least


def measured(config: Path, folder: Path = Path()) -> list[Job]:
    """Return the jobs of the study with a benchmark file in ``folder``, with the values in its last line."""
    found = []
    for rule, benchmark, *asked in requests(config.absolute(), folder):
        if (folder / benchmark).exists():
            used = json.loads((folder / benchmark).read_text().splitlines()[-1])
            found.append(Job(rule, benchmark, *asked, used["max_rss"] + SNAKEMAKE_MB if used["s"] >= 1 else None, used["s"] / 60))
    return found


def table(jobs: list[Job]) -> Iterator[str]:
    """Yield a line for each rule: the largest use and request, and the smallest and largest ratio, for memory and for time."""
    by_rule: Mapping[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_rule[job.rule].append(job)
    heads = "".join(f"{f'used {unit}':>10}{'asked':>7}{'asked/used':>20}" for unit in ("MiB", "min"))
    yield f"{'rule':24}{'jobs':>5}{heads}"
    for rule, of_rule in sorted(by_rule.items()):
        memory, time = [(job.mb, job.used_mb) for job in of_rule if job.used_mb is not None], [(j.minutes, j.used_minutes) for j in of_rule]
        yield f"{rule:24}{len(of_rule):5}{_columns(memory)}{_columns(time)}"


def _columns(pairs: list[tuple[int, float]]) -> str:
    """Return the columns for pairs (asked, used): the largest use and request, and the smallest and largest ratio."""
    if not pairs:
        return f"{'?':>10}{'?':>7}{'?':>20}"
    ratios = [asked / used for asked, used in pairs]
    return f"{max(used for _, used in pairs):10.4g}{max(asked for asked, _ in pairs):7}{f'{min(ratios):.3g} - {max(ratios):.3g}':>20}"


if __name__ == "__main__":
    jobs = measured(Path(sys.argv[1] if len(sys.argv) > 1 else "config.yaml"))
    faults = [fault for job in jobs for fault in job.faults()]
    print("\n".join([*table(jobs), *faults]))
    sys.exit(bool(faults))
