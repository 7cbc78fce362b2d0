# What the other files of this folder share: the checked config, the settings of each rule, and the names of files.
import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import time
import uuid
from pathlib import Path

# For the imports below alone: what stays on the path is mounted in a container under another name, and the library would be loaded from there,
# where neither envs/requirements.txt nor the repository lies beside it.
sys.path.append(str(Path(workflow.basedir, "scripts")))

from pqag import files
from pqag.job import records
from pqag.user_code import digests
from pqag.study.model import parse_study, read_config
from pqag.datasets import DATASETS
from pqag.errors import UserError
from pqag.names import CLEAN, JOINT, PRETRAINED
from pqag.study.resources import mem_mb, runtime
from pqag.study.scores import (
    CONCLUSIONS,
    FIGURES,
    TABLES,
    figure_models,
    heat_maps,
    held_against,
    rows_of,
    scores,
    tables,
    training_of,
    transfers,
    victims,
    with_lender,
)
from pqag.study.settings import maker_of, settings
from pqag.job.shards import is_shard, number
from pqag.job.step import superseded
from snakemake.jobs import Job
from snakemake.persistence import PersistenceBase
from snakemake.spawn_jobs import SpawnedJobArgsFactory

sys.path.remove(str(Path(workflow.basedir, "scripts")))

try:
    # Snakemake has read them, in the environment of set-up by the same function; where it is another, at least what it overlooked is told.
    for path in workflow.configfiles:
        read_config(path)
    given = ["--config"] if workflow.config_settings.config else []
    STUDY = parse_study(config, ", ".join([*map(str, workflow.configfiles), *given]))
    BROUGHT = digests(STUDY.brings())
except UserError as error:
    logger.error(str(error))
    sys.exit(1)

# Snakemake puts this path into the command line of every script as it is, so a blank in the name of a folder above would break them all.
if os.path.exists(sys.executable):  # not quoted yet
    sys.executable = shlex.quote(sys.executable)

# What results depend on, the files that said so, and the keys given by --config: `audit verify` holds the records against it.
RESOLVED = STUDY.resolved() | {"configfiles": {os.path.relpath(path): files.sha256(path) for path in workflow.configfiles}}
if workflow.config_settings.config:
    RESOLVED["overrides"] = sorted(workflow.config_settings.config)

if BROUGHT:
    RESOLVED["brought"] = BROUGHT

# And what only the size of jobs depends on.
WORKLOAD = RESOLVED | {"shards": STUDY.shards.model_dump()}

START = time.time()
RESULTS = f"results/{STUDY.study}"
VICTIM = f"{RESULTS}/{{dataset}}/{{model}}-{{training}}/seed{{seed}}"

# A job that trains or runs a network asks for a GPU where there is one; profiles/default lets one such job run at a time. Where jobs run on
# other machines than this, a profile says by PQAG_GPUS (0 or 1) what these have.
GPUS = int(os.environ.get("PQAG_GPUS") or shutil.which("nvidia-smi") is not None) if STUDY.device == "auto" else int(STUDY.device == "cuda")


pathvars:
    results=RESULTS,
    victim=VICTIM,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


wildcard_constraints:
    dataset="|".join(STUDY.datasets),
    model="|".join(STUDY.models),
    source_model="|".join(STUDY.models),
    training=rf"{PRETRAINED}|{JOINT}\d+",
    source_training=rf"{PRETRAINED}|{JOINT}\d+",
    bits=r"\d+",
    source_bits=r"\d+",
    seed=r"\d+",
    attack="|".join(STUDY.attacks),
    shard=r"\d+",
    shards=r"\d+",
    table="|".join(TABLES),
    panel="|".join(panel for _, panel in heat_maps(RESOLVED)) or "none",


# Looked at by `--sdm apptainer` alone; docs/cluster.md says how it is made. Snakemake takes no path with a blank.
if len((image := str(Path(workflow.basedir, "envs/steps.sif"))).split()) == 1:

    container: image


# On a cluster these run where Snakemake does: there are the internet and LaTeX, and its own notes, of which the report is made.
localrules:
    fetch,
    study,
    borrow,
    paper,
    report,
    manifest,
    all,


def decoders(wildcards):
    """Threads of fetch: image files are decoded side by side, which changes no bit of the result."""
    return 1 if STUDY.datasets[wildcards.dataset].kind in DATASETS else 8


def stop(words):
    """End with one sentence on the console."""
    logger.error(words)
    sys.exit(1)


def last_change():
    """When Snakemake last noted in this folder that a job began or ended: the time stamp of the folder in which it does so, None if none."""
    try:
        return os.stat(".snakemake/incomplete").st_mtime_ns
    except FileNotFoundError:
        return None


PLANNED = last_change()

# A job that waited on another machine while its run was killed and started again: the new run has a job for the same files.
if workflow.exec_mode != workflow.exec_mode.DEFAULT and superseded():
    stop("The run that this job belongs to is no more: another has begun in this folder.")


@contextlib.contextmanager
def only_run(persistence):
    """Hold this folder for one run of Snakemake that executes jobs, be it for whatever files; ends here if another holds it.

    Takes the place of Snakemake's own locks. Those are files: they outlive a kill and have to be taken away by `--unlock`, and a run that
    ends takes away those of another. This lock belongs to the process and goes with it, however it ends.
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


PersistenceBase.lock = only_run


def input_but_shards(persistence, job, every=PersistenceBase._input):
    """What Snakemake notes, and compares, as the input of a job: all but shards, for no result depends on how many there are."""
    return [path for path in every(persistence, job) if not is_shard(path)]


PersistenceBase._input = input_but_shards


def made_by_this_run(path):
    """Whether a file was written since this run took hold of the folder, by the clock of the file system."""
    try:
        return os.stat(path).st_mtime_ns >= os.stat(".snakemake/running").st_mtime_ns
    except FileNotFoundError:
        return False


async def clean_up_but_results(job, skip_outputs, every=Job.cleanup):
    """Delete what a job that failed has left. A group of steps fails as one job, but what its other steps have finished stays.

    Finished is a step that wrote its record, which it does last of all, in this run, if the record says that it had the settings and the input
    that it is to have now. A step that joins shards is made again all the same: if it stayed, nothing would delete its shards.
    """
    record, wanted = job.output.get("record"), job.params.get("settings")
    inputs = [path for path in job.input if not is_shard(path)]
    joins = len(inputs) < len(job.input)
    if joins or not (record and made_by_this_run(record) and records.is_of(record, wanted, inputs)):
        await every(job, skip_outputs)


Job.cleanup = clean_up_but_results


def arguments_and_keep_going(factory, executor_common_settings, every=SpawnedJobArgsFactory.general_args):
    """What Snakemake tells those that it starts for its jobs, and to keep going if it does: where a step of a group fails the others go on."""
    return every(factory, executor_common_settings) + " --keep-going" * factory.workflow.execution_settings.keep_going


SpawnedJobArgsFactory.general_args = arguments_and_keep_going

# A job ends when this process is gone, see `pqag.job.step`.
os.environ.update(PQAG_PARENT=str(os.getpid()))


def settings_of(rule):
    """The one ``params`` entry of a rule: exactly the config it depends on, and the digest of the code it runs, as ``pqag.study.settings`` says."""
    return lambda wildcards: settings(rule, wildcards, RESOLVED)


def shards_of(rule):
    """The files of all shards of a job of ``rule``, which it joins; none where the study splits none.

    Where it splits any it splits all, be it into one shard: a cluster's jobs of several steps are to have a network in all of them or in none.
    """
    wanted = getattr(STUDY.shards, rule)

    def shards(wildcards):
        dataset = STUDY.datasets[wildcards.dataset]
        count = number(rule, wanted, dataset.queries if rule == "attack" else dataset.database)
        names = dict(wildcards.items(), shard=range(1, count + 1), shards=count)
        return [str(path) for path in expand(getattr(rules, f"{rule}_shard").output, **names)] if wanted > 1 else []

    return shards


def gpus_of(rule):
    """GPUs of a job that may be split: none where all that it does is to join shards."""
    return lambda wildcards: 0 if shards_of(rule)(wildcards) else GPUS


def memory_of(rule):
    """What a job of a rule asks for as ``mem_mb``, see ``pqag.study.resources``; no change of it makes anything stale."""
    return lambda wildcards, attempt: mem_mb(rule, wildcards, WORKLOAD, attempt, bool(GPUS))


def minutes_of(rule):
    """What a job of a rule asks for as ``runtime``."""
    return lambda wildcards, attempt: runtime(rule, wildcards, WORKLOAD, attempt, bool(GPUS))


def models_made_by(rule):
    """The models whose weights ``rule`` makes, as a constraint of its wildcard."""
    return "|".join(name for name, model in RESOLVED["models"].items() if maker_of(model) == rule) or "none, since names have no blanks"


def like(name):
    """The file ``name`` of the model that another takes its weights from."""
    return lambda wildcards: f"{RESULTS}/{{dataset}}/{RESOLVED['models'][wildcards.model]['like']}-pretrained/seed{{seed}}/{name}"


def metrics(dataset, seed, score):
    """The metrics of one score, see ``pqag.study.scores``."""
    folder = VICTIM.format(dataset=dataset, model=score.model, training=score.training, seed=seed)
    queries = f"{score.attack}.{score.source_model}-{score.source_training}-{score.source_bits}bits"
    queries = score.attack if score.attack == CLEAN else queries
    return f"{folder}/{score.bits}bits/metrics/{queries}.json"


def transferred_queries(wildcards):
    """The adversarial queries that are scored on a network they were not made for, see ``pqag.study.scores.transfers``."""
    folder = f"{RESULTS}/{wildcards.dataset}/{{source_model}}-{{source_training}}/seed{wildcards.seed}/{{source_bits}}bits"
    return [f"{folder}/adversarial/{{attack}}.h5".format(**score._asdict()) for score in transfers(RESOLVED, wildcards)]


def features_of_queries(wildcards):
    """The features of adversarial queries on the victim that they are scored on: the attack's own, or those of all other networks."""
    own = (wildcards.source_model, wildcards.source_training) == (wildcards.model, wildcards.training)
    path = "{source_bits}bits/adversarial/{attack}.h5" if own else "features/{attack}.transfer-{source_bits}bits.h5"
    return f"{VICTIM}/{path}".format(**wildcards)


def histories(wildcards):
    """How the networks of a table were trained, for every data set, victim and seed."""
    networks = [f"{model}-{training}" for model, training in victims(RESOLVED, wildcards.table)]
    names = dict(dataset=STUDY.datasets, network=networks, seed=STUDY.seeds)
    return expand(f"{RESULTS}/{{dataset}}/{{network}}/seed{{seed}}/training.csv", **names)


def metrics_of(scored):
    """The metrics of scores, in their order for every data set; the seeds of a score side by side."""
    return [metrics(dataset, seed, score) for dataset in STUDY.datasets for score in scored for seed in STUDY.seeds]


def conclusion(rule):
    """What ``rule`` concludes from the scores of a table; nothing for a table that it is not for, or that the study does not have."""
    path = f"{RESULTS}/tables/{{table}}_{rule}.csv"
    concluded = [table for table in tables(RESOLVED) if CONCLUSIONS.get(table) == rule]
    return lambda wildcards: [path.format(table=wildcards.table)] if wildcards.table in concluded else []


def table_outputs(table):
    """Every file of a table, and of what is concluded from it, with the records."""
    makers = [rules.table, *([getattr(rules, CONCLUSIONS[table])] if table in CONCLUSIONS else [])]
    return [path for maker in makers for path in expand(maker.output, table=table)]


def figure_files(patterns):
    """The file, or the files, named by one or several patterns for the victim of a figure; ``{own}`` is its model and training."""

    def paths(wildcards):
        own = f"{wildcards.model}-{training_of(RESOLVED, wildcards.model, RESOLVED['figures']['bits'])}"
        folder = f"{RESULTS}/{wildcards.dataset}/{own}/seed{STUDY.seeds[0]}"
        found = [f"{folder}/{pattern.format(own=own)}" for pattern in ([patterns] if isinstance(patterns, str) else patterns)]
        return found[0] if isinstance(patterns, str) else found

    return paths


def figure_metrics(attacks):
    """The metrics of the clean queries and of ``attacks`` on the victim of a figure."""
    bits = RESOLVED["figures"]["bits"]
    names = ["clean", *(f"{attack}.{{own}}-{bits}bits" for attack in attacks)]
    return figure_files([f"{bits}bits/metrics/{name}.json" for name in names])


def figure_queries(attacks):
    """The adversarial queries of ``attacks``, images and features, on the victim of a figure."""
    return figure_files([f"{RESOLVED['figures']['bits']}bits/adversarial/{attack}.h5" for attack in attacks])


def pictures(suffix):
    """Every picture, as files with this suffix."""
    return lambda wildcards: [path for path in figure_outputs(wildcards) if path.endswith(suffix)]


def figure_outputs_of(figure):
    """Every file that a rule of figures makes, with the records."""
    bits = RESOLVED["figures"]["bits"]
    names = dict(dataset=STUDY.datasets, seed=STUDY.seeds[0], bits=bits, attack=STUDY.attacks)
    victims = [dict(model=model, training=training_of(RESOLVED, model, bits)) for model in figure_models(RESOLVED, figure)]
    return lambda wildcards: [path for victim in victims for path in expand(getattr(rules, figure).output, **names, **victim)]


def figure_outputs(wildcards):
    """Every file of the figures, with the records."""
    for figure in FIGURES:
        yield from figure_outputs_of(figure)(wildcards)
    for table, panel in heat_maps(RESOLVED):
        yield from expand(rules.heat_map.output, table=table, panel=panel)


def everything(wildcards):
    """Every file of the study, with the records: each is asked for by name, so that one which was deleted is made again."""
    names = dict(dataset=STUDY.datasets, seed=STUDY.seeds)
    for one in (rules.study, rules.fetch, rules.prepare):
        yield from expand(one.output, **names)
    for table in tables(RESOLVED):
        yield from table_outputs(table)
    yield from figure_outputs(wildcards)
    if RESOLVED["figures"]["models"] and shutil.which("pdflatex"):
        yield from rules.paper.output
    paths = {}
    for score in scores(RESOLVED):
        victim = names | score._asdict()
        source = victim | dict(model=score.source_model, training=score.source_training, bits=score.source_bits)
        jobs = [(rules.extract, victim), (rules.quantize if score.training == PRETRAINED else rules.encode, victim)]
        for name in with_lender(RESOLVED, score.model):
            jobs.append((getattr(rules, maker_of(RESOLVED["models"][name])), victim | dict(model=name)))
        if score.attack == CLEAN:
            jobs.append((rules.evaluate_clean, victim))
        else:
            jobs += [(rules.attack, source), (rules.evaluate, victim)]
            jobs += [(rules.extract_transfer, victim)] if score.transferred else []
        for one, wildcards_of in jobs:
            paths.update(dict.fromkeys(expand(one.output, **wildcards_of)))
    yield from paths


def show_results():
    """The tables that this run made, and where they lie: printed when it ends well."""
    tables = [table for table in sorted(Path(RESULTS, "tables").glob("*.txt")) if table.stat().st_mtime >= START]
    for table in tables:
        print(table.read_text())
    if tables:
        print(f"Files: {RESULTS}/tables/")
