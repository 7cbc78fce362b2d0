"""Plan a study with Snakemake in this process; used by the generated pages and by tests."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hide the output of a plan, except the reason why planning failed."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            yield
        except SystemExit:
            sys.exit(said.getvalue().strip())


def planned(config: Path, folder: Path, targets: Iterable[str], groups: Any = None, handler: logging.Handler | None = None, **dag: Any):
    """Return Snakemake's workflow after a dry run for ``targets`` of the study in ``config`` in ``folder``. Its ``dag`` has the jobs.

    ``groups`` are ``GroupSettings`` and ``dag`` further ``DAGSettings`` of Snakemake; ``handler`` receives its messages.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.logging import logger
    from snakemake.settings import types

    silence = {types.Quietness.ALL} if handler else set()
    with SnakemakeApi(types.OutputSettings(quiet=silence, dryrun=True)) as api, contextlib.ExitStack() as stack:
        if handler:  # not earlier: Snakemake removes existing handlers when it starts
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        workflow = api.workflow(
            resource_settings=types.ResourceSettings(cores=64),
            config_settings=types.ConfigSettings(configfiles=[config]),
            storage_settings=types.StorageSettings(),
            workflow_settings=types.WorkflowSettings(),
            snakefile=ROOT / "Snakefile",
            workdir=folder,
        )
        plan = workflow.dag(types.DAGSettings(targets=set(targets), **dag))
        plan.execute_workflow(executor="dryrun", group_settings=groups or types.GroupSettings())
        return workflow._workflow_store
