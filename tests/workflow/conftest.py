"""The workflow under test: run as a user would, and planned in process."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts/tools"))  # planning, staleness


def snakemake(folder, *arguments, **options):
    """Run the command in ``folder`` as a user would, with what it prints as text."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, *arguments]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, **options)


def mean_average_precision(queries, items, labels, gallery):
    """mAP in % of the ranking of ``items`` (N x D), of the classes ``gallery``, by distance to each query (Q x D), in a plain loop."""
    precisions = []
    for query, label in zip(queries, labels):
        relevant = gallery[np.argsort(((query - items) ** 2).sum(1), kind="stable")] == label
        ranks = np.flatnonzero(relevant) + 1
        precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return 100 * np.mean(precisions)


class Planned(logging.Handler):
    """Collects the jobs that a dry run would execute, as (rule, wildcards)."""

    def __init__(self):
        super().__init__()
        self.jobs = []

    def emit(self, record):
        if getattr(record, "event", None) == "job_info":
            self.jobs.append((record.rule_name, dict(record.wildcards)))


def write_config(file, config):
    """Write a configuration (a mapping) as YAML."""
    file.write_text(yaml.safe_dump(config, sort_keys=False))


def dry_run(folder, config, *targets):
    """What ``snakemake -n TARGETS`` in ``folder`` finds out with ``config`` (a mapping): jobs to run, and Snakemake's whole workflow."""
    from planning import planned
    from snakemake.settings import types

    from pqag.job import provenance

    provenance.digests.cache_clear()  # a process of Snakemake reads the code once, and here many are played in one
    file = folder / "config.yaml"
    before = file.read_bytes() if file.exists() else None
    write_config(file, config)
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    triggers = {types.RerunTrigger.parse_choice(name) for name in profile["rerun-triggers"]}
    seen = Planned()
    try:
        workflow = planned(file, folder, targets, handler=seen, rerun_triggers=triggers)
        return seen.jobs, workflow
    finally:
        file.unlink()
        if before is not None:
            file.write_bytes(before)


def plan(folder, config, *targets):
    """Jobs that ``snakemake -n TARGETS`` would run in ``folder`` with ``config``, as (rule, wildcards)."""
    return dry_run(folder, config, *targets)[0]
