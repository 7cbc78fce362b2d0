# All that this workflow changes in Snakemake while the Snakefile is read, through one helper that checks that the name is there, replaces it
# once and names the wish behind it. It is included first. What acts earlier is in profiles/console.
import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path


def stop(words):
    """End with one sentence on the console."""
    logger.error(words)
    sys.exit(1)


if getattr(workflow.modifier, "parent_modifier", None):
    stop("This workflow cannot be a module of another: it reads its own study files and audits all that it makes. Run it by itself.")

# A library there would stand before this workflow's own in every job.
for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
    if os.path.isdir(os.path.join(folder, "pqag")):
        if os.path.realpath(folder) != os.path.realpath(Path(workflow.basedir, "scripts")):
            stop(f"PYTHONPATH has {folder}, whose library pqag would compute in place of this workflow's: unset PYTHONPATH.")

# So would a copy that `pip install .` put into this environment. A folder of this name without code, in the working directory, is none.
found = find_spec("pqag")
if found and found.origin and os.path.realpath(Path(found.origin).parent) != os.path.realpath(Path(workflow.basedir, "scripts/pqag")):
    stop(f"A copy of this workflow's library is installed, {found.origin}, and would compute in its place: use `pip install -e .`.")

# For the imports below only: what stays on the path is mounted in a container under another name, and the library would be loaded from there,
# where neither envs/requirements.txt nor the repository lies beside it.
OWN = [str(Path(workflow.basedir, folder)) for folder in ("scripts", "profiles/console")]
sys.path.extend(OWN)

from pqag.job import records
from pqag.job.shards import is_shard
from pqag.job.step import superseded
from pqag_snakemake import EXPECTED, replace, unsupported, within_the_memory, without_a_rate_limit

for folder in OWN:
    sys.path.remove(folder)


if unsupported():
    stop(unsupported())

# Not before: another version may lack one of them, and would end in a stack trace.
from snakemake.jobs import Job
from snakemake.persistence import PersistenceBase
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.spawn_jobs import SpawnedJobArgsFactory
from snakemake.workflow import Workflow

# Snakemake puts this path into the command line of every script as it is, so a blank in the name of a folder above would break them all.
if os.path.exists(sys.executable):  # not quoted yet
    sys.executable = shlex.quote(sys.executable)

# A job ends when this process is gone, see `pqag.job.step`.
os.environ.update(PQAG_PARENT=str(os.getpid()))

# A job that waited on another machine while its run was killed and started again: the new run has a job for the same files.
if workflow.exec_mode != workflow.exec_mode.DEFAULT and superseded():
    stop("The run that this job belongs to has ended: another has begun in this folder.")


def last_change():
    """When Snakemake last noted in this folder that a job began or ended: the time stamp of the folder in which it does so, None if none."""
    try:
        return os.stat(".snakemake/incomplete").st_mtime_ns
    except FileNotFoundError:
        return None


PLANNED = last_change()


@contextlib.contextmanager
def only_run(persistence):
    """Hold this folder for one run of Snakemake that executes jobs, whatever their files; ends here if another run holds it.

    Takes the place of Snakemake's own locks. Those are files: they outlive a kill and have to be removed by `--unlock`, and a run that ends
    removes those of another. This lock belongs to the process and goes with it, however it ends. `onstart` with the option `nolock` would
    not do: no Snakefile can set that option, and `--workflow-profile none` leaves out the profile that could.
    """
    with open(persistence.path / "running", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stop("Another run is going on in this folder; wait for it, or stop it, first.")
        except OSError as error:
            logger.warning(f"This file system has no locks ({error.strerror}): start no second run in this folder while this one goes on.")
        if PLANNED not in (None, last_change()):
            stop("Another run has just ended in this folder, after this one looked at its files: start again.")
        # Jobs of an earlier run that are still at work on other machines see from this that another has begun, and end.
        name = str(uuid.uuid4())
        os.environ.update(PQAG_RUN=name)
        file.truncate(0)
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
        try:
            yield
        finally:
            os.environ.pop("PQAG_RUN")  # the process may go on to another folder


def input_but_shards(every):
    """What Snakemake notes, and compares, as the input of a job: all but shards, since no result depends on how many there are."""
    return lambda persistence, job: [path for path in every(persistence, job) if not is_shard(path)]


def made_by_this_run(path):
    """Whether a file was written since this run took hold of the folder, by the clock of the file system."""
    try:
        return os.stat(path).st_mtime_ns >= os.stat(".snakemake/running").st_mtime_ns
    except FileNotFoundError:
        return False


def clean_up_but_results(every):
    """Delete what a job that failed has left. A group of steps fails as one job, but what its other steps have finished stays.

    A step has finished if it wrote its record, which it does last, in this run, with the settings and the input that it should have now. A
    step that joins shards is made again all the same: if it stayed, nothing would delete its shards.
    """

    async def clean_up(job, skip_outputs):
        record, wanted = job.output.get("record"), job.params.get("settings")
        inputs = [path for path in job.input if not is_shard(path)]
        joins = len(inputs) < len(job.input)
        if joins or not (record and made_by_this_run(record) and records.is_of(record, wanted, inputs)):
            await every(job, skip_outputs)

    return clean_up


def keep_going(every):
    """What Snakemake tells the Snakemakes that run its jobs, and to keep going if it does: where a step of a group fails the others go on."""

    def arguments(factory, executor_common_settings):
        return every(factory, executor_common_settings) + " --keep-going" * factory.workflow.execution_settings.keep_going

    return arguments


replace(Workflow, "execute", within_the_memory, "the memory of the machine as the limit of local runs")
replace(JobScheduler, "schedule", without_a_rate_limit, "a limit of jobs that does not look at the queue again and again")
replace(PersistenceBase, "lock", lambda every: only_run, "a lock that ends with the process that holds it")
replace(PersistenceBase, "_input", input_but_shards, "inputs that make nothing stale")
replace(Job, "cleanup", clean_up_but_results, "finished steps of a failed group that stay")
replace(SpawnedJobArgsFactory, "general_args", keep_going, "--keep-going within a group")
