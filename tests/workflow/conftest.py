"""The workflow under test: run as a user would, and planned in process."""

import logging
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def snakemake(folder, *arguments, **options):
    """Run the command in ``folder`` as a user would, with what it prints as text."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, *arguments]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, **options)


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
    from snakemake.api import SnakemakeApi
    from snakemake.logging import logger
    from snakemake.settings import types

    from pqag.provenance import code_digest

    code_digest.cache_clear()  # a process of Snakemake reads the code once, and here many are played in one
    file = folder / "config.yaml"
    before = file.read_bytes() if file.exists() else None
    write_config(file, config)
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    planned = Planned()
    with SnakemakeApi(types.OutputSettings(quiet={types.Quietness.ALL}, dryrun=True)) as api:
        logger.addHandler(planned)
        try:
            workflow = api.workflow(
                resource_settings=types.ResourceSettings(cores=2),
                config_settings=types.ConfigSettings(configfiles=[file]),
                storage_settings=types.StorageSettings(),
                workflow_settings=types.WorkflowSettings(),
                snakefile=ROOT / "Snakefile",
                workdir=folder,
            )
            triggers = {types.RerunTrigger.parse_choice(name) for name in profile["rerun-triggers"]}
            dag = workflow.dag(types.DAGSettings(targets=set(targets), rerun_triggers=triggers))
            dag.execute_workflow(executor="dryrun")
            return planned.jobs, workflow._workflow_store
        finally:
            logger.removeHandler(planned)
            file.unlink()
            if before is not None:
                file.write_bytes(before)


def plan(folder, config, *targets):
    """Jobs that ``snakemake -n TARGETS`` would run in ``folder`` with ``config``, as (rule, wildcards)."""
    return dry_run(folder, config, *targets)[0]
