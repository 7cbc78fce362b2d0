"""Write into docs/cluster.md how many jobs profiles/slurm submits: `make docs`. A test holds the two equal, another the count and SLURM."""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
import yte

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))

from planning import ROOT, planned  # noqa: E402

PAGE = ROOT / "docs/cluster.md"
BEGIN, END = "<!-- jobs -->\n", "<!-- /jobs -->\n"
TARGETS = ("table1", "table3", "table4", "figures", "all")


def submitted(study: dict[str, Any], target: str) -> list[list[Any]]:
    """What is submitted for ``target`` of ``study`` (the content of its file) where nothing is there yet: of each job Snakemake's steps."""
    from snakemake.settings import types

    with (
        patch.dict(os.environ),  # the profile sets a variable
        contextlib.redirect_stderr(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
    ):
        profile = yte.process_yaml((ROOT / "profiles/slurm/config.yaml").read_text(), require_use_yte=True)
        groups = types.GroupSettings(overwrite_groups=profile["groups"], group_components=profile["group-components"])
        file = Path(folder, "config.yaml")
        file.write_text(yaml.safe_dump(study, sort_keys=False))
        plan = planned(file, Path(folder), [target], groups)
        jobs = {}
        for step in plan.dag.jobs:
            if not (step.rule.name in plan._localrules or step.rule.norun):
                jobs.setdefault(id(plan.dag.get_job_group(step) or step), []).append(step)
        return list(jobs.values())


def table() -> str:
    """The table of the default study, in Markdown."""
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    counts = {target: submitted(study, target) for target in TARGETS}
    rows = [f"| `{target}` | {sum(map(len, jobs))} | {len(jobs)} |" for target, jobs in counts.items()]
    return "\n".join(["| target | steps | jobs |", "|---|---|---|", *rows, ""])


def with_table(text: str) -> str:
    """``text`` with what stands between the marks replaced by the table as it is now."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if sys.argv[1:]:  # another study
        for target in TARGETS:
            print(target, len(submitted(yaml.safe_load(Path(sys.argv[1]).read_text()), target)))
    else:
        PAGE.write_text(with_table(PAGE.read_text()))
