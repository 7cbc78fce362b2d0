"""Write into docs/cluster.md how many jobs profiles/slurm submits, and what they need: `make docs`. One test checks that the page is up to
date, another compares the count with SLURM. For another study: `.venv/bin/python scripts/tools/jobs.py STUDY.yaml [TARGET ...]`.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import yte

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from planning import ROOT, planned, silence  # noqa: E402

from pqag.errors import UserError  # noqa: E402
from pqag.study.model import parse_study, read_config  # noqa: E402
from pqag.study.resources import START_SECONDS  # noqa: E402
from pqag.study.rules import work  # noqa: E402

PAGE = ROOT / "docs/cluster.md"
BEGIN, END = "<!-- jobs -->\n", "<!-- /jobs -->\n"
TARGETS = ("table1", "table3", "table4", "figures", "all")


def submitted(config: Path, folder: Path, target: str) -> list[list[Any]]:
    """Return the jobs submitted for ``target`` of the study in ``config`` if everything is made, each as a list of Snakemake's steps.

    ``folder`` is the folder where the study would run. It has the images, which are counted, and the files of the user.
    """
    from snakemake.settings import types

    with patch.dict(os.environ), silence():  # the profile sets a variable
        profile = yte.process_yaml((ROOT / "profiles/slurm/config.yaml").read_text(), require_use_yte=True)
        groups = types.GroupSettings(overwrite_groups=profile["groups"], group_components=profile["group-components"])
        plan = planned(config.absolute(), folder, [target], groups, forceall=True)
        jobs = {}
        for step in plan.dag.jobs:
            if not (step.rule.name in plan._localrules or step.rule.norun):
                jobs.setdefault(id(plan.dag.get_job_group(step) or step), []).append(step)
        return list(jobs.values())


class Needs(NamedTuple):
    """The needs of a target: its steps, its jobs, its jobs with a GPU, the hours of GPUs and (for the other steps) of processors
    expected by ``pqag.study.resources``, and the largest first requests of its jobs.
    """

    steps: int
    jobs: int
    gpu_jobs: int
    gpu_hours: float
    core_hours: float
    longest_minutes: int
    most_mb: int


def needs(config: Path, folder: Path, target: str) -> Needs:
    """Return the needs of the whole ``target``, see ``submitted``."""
    study = parse_study(read_config(config), str(config))
    workload = study.resolved() | {"shards": study.shards.model_dump()}
    jobs = submitted(config, folder, target)
    hours = {True: 0.0, False: 0.0}
    with contextlib.chdir(folder):
        for step in (step for job in jobs for step in job):
            gpu = bool(step.resources.get("gpu"))
            seconds = START_SECONDS + work(step.rule.name, step.wildcards_dict, workload, gpu).seconds
            hours[gpu] += seconds * (1 if gpu else step.threads) / 3600
    return Needs(
        sum(map(len, jobs)),
        len(jobs),
        sum(any(step.resources.get("gpu") for step in job) for job in jobs),
        hours[True],
        hours[False],
        max(sum(step.resources.runtime for step in job) for job in jobs),
        max(step.resources.mem_mb for job in jobs for step in job),
    )


HEAD = ["steps", "jobs", "with a GPU", "GPU hours", "core hours", "longest job asks for", "most memory asked for"]


def table(named: dict[str, tuple[Path, str]], folder: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table of needs. ``named`` maps the name of a row to the file of a study and a target."""
    yield " | ".join(["| ", *HEAD]) + " |"
    yield "|---" * (1 + len(HEAD)) + "|"
    for name, (config, target) in named.items():
        it = needs(config, folder, target)
        cells = [it.steps, it.jobs, it.gpu_jobs, f"{it.gpu_hours:.2g}", f"{it.core_hours:.2g}"]
        cells += [f"{it.longest_minutes / 60:.1f} h", f"{it.most_mb / 1024:.1f} GiB"]
        yield f"| {name} | " + " | ".join(map(str, cells)) + " |"


def with_table(text: str) -> str:
    """Return ``text`` with the current table between the marks: the default study, Table 2, and the study of the paper's size."""
    shown = {f"`{target}`": (ROOT / "config.yaml", target) for target in TARGETS}
    shown["`table2` of `config/joint.yaml`"] = (ROOT / "config/joint.yaml", "table2")
    shown["`all` of `config/paper.yaml`"] = (ROOT / "config/paper.yaml", "all")
    before, rest = text.split(BEGIN)
    with tempfile.TemporaryDirectory() as folder:  # an empty folder
        return before + BEGIN + "\n".join([*table(shown, Path(folder)), END]) + rest.split(END)[1]


if __name__ == "__main__":
    if sys.argv[1:]:  # another study
        from snakemake.exceptions import RuleException, WorkflowError

        config, targets = Path(sys.argv[1]), sys.argv[2:] or ["all"]
        try:
            print("\n".join(table({target: (config, target) for target in targets}, Path())))
        except (UserError, RuleException, WorkflowError) as error:
            sys.exit(str(error))
    else:
        PAGE.write_text(with_table(PAGE.read_text()))
