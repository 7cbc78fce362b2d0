"""Print what the jobs of a finished study asked for and used: `.venv/bin/python scripts/tools/usage.py [CONFIG]`, in the folder it ran in.

For each rule: its jobs, the range of requested MiB over the peak that the benchmark files have, and of requested minutes over those taken.
A step's memory counts with that of the Snakemakes above it in a job of a cluster, though a run without one has a single one for all.
Exits with 1 where a job asked for less than 1.2 or more than 4 times what it used. More than 4 times is no fault where a job asks for the
least minutes that its kind asks for: 1, or 3 where it runs a network. Memory counts only where the job took a second: benchmarks look every
half second, and of a shorter job see the start.
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
    """What a job asked for and used: its rule and benchmark file, MiB and minutes. ``used_mb`` is that of its step and of ``SNAKEMAKE_MB``;
    of a job of less than a second it is not known. ``least_minutes`` is what it would have asked for however short it were."""

    rule: str
    benchmark: str
    mb: int
    minutes: int
    least_minutes: int
    used_mb: float | None
    used_minutes: float

    def faults(self) -> Iterator[str]:
        """What it asked too little or too much of, in words."""
        both = (("MiB", self.mb, self.used_mb, 0), ("minutes", self.minutes, self.used_minutes, self.least_minutes))
        for unit, asked, used, least in both:
            if used is not None and (asked < LOW * used or asked > max(HIGH * used, least)):
                yield f"{self.benchmark}: asked for {asked} {unit}, used {used:.3g}"


def requests(config: Path, folder: Path = Path()) -> Iterator[tuple[str, str, int, int, int]]:
    """Of every job of the study in ``config``: its rule, its benchmark file, the MiB and minutes that it asks for at first, and the minutes
    that it would ask for at least."""
    with silence():
        jobs = planned(config, folder, ["all"], forceall=True).dag.jobs
    study = parse_study(read_config(config), str(config))
    workload = study.resolved() | {"shards": study.shards.model_dump()}
    for job in jobs:
        if job.benchmark:
            least = work(job.rule.name, job.wildcards_dict, workload).least_minutes
            yield job.rule.name, str(job.benchmark), job.resources.mem_mb, job.resources.runtime, least


def measured(config: Path, folder: Path = Path()) -> list[Job]:
    """The jobs of the study that have a benchmark file in ``folder``, with what stands in the last line of it."""
    found = []
    for rule, benchmark, *asked in requests(config.absolute(), folder):
        if (folder / benchmark).exists():
            used = json.loads((folder / benchmark).read_text().splitlines()[-1])
            found.append(Job(rule, benchmark, *asked, used["max_rss"] + SNAKEMAKE_MB if used["s"] >= 1 else None, used["s"] / 60))
    return found


def table(jobs: list[Job]) -> Iterator[str]:
    """A line for each rule: of memory and of time the most that was used and asked for, and the least and largest ratio."""
    by_rule: Mapping[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_rule[job.rule].append(job)
    heads = "".join(f"{f'used {unit}':>10}{'asked':>7}{'asked/used':>20}" for unit in ("MiB", "min"))
    yield f"{'rule':24}{'jobs':>5}{heads}"
    for rule, of_rule in sorted(by_rule.items()):
        memory, time = [(job.mb, job.used_mb) for job in of_rule if job.used_mb is not None], [(j.minutes, j.used_minutes) for j in of_rule]
        yield f"{rule:24}{len(of_rule):5}{_columns(memory)}{_columns(time)}"


def _columns(pairs: list[tuple[int, float]]) -> str:
    """Of (asked, used): the most that was used and asked for, and the least and largest ratio."""
    if not pairs:
        return f"{'?':>10}{'?':>7}{'?':>20}"
    ratios = [asked / used for asked, used in pairs]
    return f"{max(used for _, used in pairs):10.4g}{max(asked for asked, _ in pairs):7}{f'{min(ratios):.3g} - {max(ratios):.3g}':>20}"


if __name__ == "__main__":
    jobs = measured(Path(sys.argv[1] if len(sys.argv) > 1 else "config.yaml"))
    faults = [fault for job in jobs for fault in job.faults()]
    print("\n".join([*table(jobs), *faults]))
    sys.exit(bool(faults))
