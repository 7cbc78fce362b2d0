# What the other files of this folder share: the checked study, names of files, and what each rule depends on and asks for.
import hashlib
import json
import os
import platform
import sys
from pathlib import Path

sys.path.append(str(Path(workflow.basedir, "scripts")))  # for the imports below only, see rules/patches.smk

from pqag import content, files
from pqag.errors import UserError
from pqag.job.shards import number
from pqag.names import AIMED, DATASETS, JOINT, PRETRAINED, TRAINED
from pqag.study import paths
from pqag.study.model import parse_study, read_config
from pqag.study.resources import START_SECONDS
from pqag.study.rules import FIGURES, READERS, RULES, jobs, settings, work
from pqag.study.scores import CONCLUSIONS, TABLES, heat_maps, held_against, is_fine_tuned, rows_of, tables
from pqag.study.settings import fitted_to, lent, maker_of
from pqag.user_code import digests

sys.path.remove(str(Path(workflow.basedir, "scripts")))


def texts_of(value):
    """Every text in a value, nested or not."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in texts_of(one)]


try:
    # Snakemake has read them, in the environment of set-up by the same function; in another, at least what it overlooked is reported.
    for path in workflow.configfiles:
        read_config(path)
    given = ["--config"] if workflow.config_settings.config else []
    STUDY = parse_study(config, ", ".join([*map(str, workflow.configfiles), *given]))
    BROUGHT = digests(STUDY.brings())
except UserError as error:
    # Snakemake reads numbers at the top, but neither within a mapping or list nor `true`.
    text = given and any(f" is '{value}', but must be " in str(error) for value in texts_of(workflow.config_settings.config))
    stop(f"{error}{'; --config gives it as text: write it into a second study file, `--configfile FIRST SECOND`' * bool(text)}")

# What results depend on, the files that said so, and the keys given by --config: `audit verify` holds the records against it.
RESOLVED = STUDY.resolved() | {"configfiles": {os.path.relpath(path): files.sha256(path) for path in workflow.configfiles}}
if workflow.config_settings.config:
    RESOLVED["overrides"] = sorted(workflow.config_settings.config)

if BROUGHT:
    RESOLVED["brought"] = BROUGHT


def sha256_of_study():
    """The sha256 that study.json has if its job ran with these settings, and --touch did not only note them."""
    held = {key: value for key, value in settings("study", {}, RESOLVED).items() if key != "code"}
    return hashlib.sha256(files.json_text(held).encode()).hexdigest()


def fetched_from(name):
    """What the source of a data set contained when its images were fetched, by their record."""
    try:
        return records.settings_of(records.read(f"data/{name}{records.SUFFIX}")).get("content")
    except UserError:
        return None


# What the sources of images contain. The jobs of a run are told, so that they do not all look. A source that is not there makes nothing
# stale: its images are those that were fetched.
if workflow.exec_mode == workflow.exec_mode.DEFAULT:
    found = {name: content.look(name, dataset) for name, dataset in RESOLVED["datasets"].items() if dataset["source"]}
    trained = next(
        (
            name
            for name, model in RESOLVED["models"].items()
            if maker_of(model) in ("pretrain", "pretrain_own", "train_joint") or is_fine_tuned(model)
        ),
        None,
    )
    for name, (_, unseen, classes) in found.items():
        try:
            STUDY.check_classes(name, len(classes))
            if classes:
                STUDY.check_targets(name, classes)
        except ValueError as error:
            stop(str(error))
        if unseen and trained:
            stop(
                f"datasets.{name}: the class {unseen!r} has test images, but no training images, so nothing can be trained on this data "
                f"set, but models.{trained} would be: add training images, or only use models with weights of their own."
            )
    found = {name: sha256 or fetched_from(name) for name, (sha256, _, _) in found.items()}
    os.environ.update(PQAG_CONTENTS=json.dumps({name: sha256 for name, sha256 in found.items() if sha256}))
if CONTENTS := json.loads(os.environ.get("PQAG_CONTENTS", "{}")):
    RESOLVED["contents"] = CONTENTS

# And what only the size of jobs depends on.
WORKLOAD = RESOLVED | {"shards": STUDY.shards.model_dump()}

# A job that trains or runs a network asks for a GPU where there is one; profiles/default lets one such job run at a time. Where jobs run on
# other machines than this, a profile says by PQAG_GPUS (0 or 1) what these have.
GPUS = int(os.environ.get("PQAG_GPUS") or shutil.which("nvidia-smi") is not None) if STUDY.device == "auto" else int(STUDY.device == "cuda")


# Two settings of the C library for the processes of steps, which change no result; both can be set outside as well.
# How long threads of torch that wait for each other keep a core busy before they sleep, in rounds; the usual 300,000 take milliseconds, in
# which the thread that they wait for cannot run if other programs have its core.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
# Memory that a network frees is kept for its next batch, up to 512 MiB: glibc usually gives arrays of more than 32 MiB back to the kernel,
# which then fills every new one with zeros. Old versions of glibc cannot be told otherwise.
if platform.libc_ver() >= ("glibc", "2.36"):
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(256 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(512 * 2**20))


pathvars:
    results=paths.results(RESOLVED),
    victim=paths.victim(RESOLVED),
    of_victim=paths.VICTIM,
    logs=f"{paths.results(RESOLVED)}/logs",
    benchmarks=f"{paths.results(RESOLVED)}/benchmarks",


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
    reading="|".join(STUDY.readings) or "none",
    panel="|".join(panel for _, panel in heat_maps(RESOLVED)) or "none",


# Only used with `--sdm apptainer`; docs/cluster.md explains how to make it. Snakemake takes no path with a blank.
if len((image := str(Path(workflow.basedir, "envs/steps.sif"))).split()) == 1:

    container: image


# On a cluster these run where Snakemake does: they need the internet, LaTeX, or Snakemake's own notes, of which the report is made.
localrules:
    fetch,
    study,
    borrow,
    paper,
    report,
    manifest,
    publish,
    all,


#: Rules of which a job asks for more memory than there is, which is said once.
LARGE = set()


def settings_of(rule):
    """The one ``params`` entry of a rule: exactly the config it depends on, and the digest of the code it runs."""
    return lambda wildcards: settings(rule, wildcards, RESOLVED)


def needs(rule):
    """The resources of a rule, see ``pqag.study.resources``; no change of them makes anything stale."""

    def asked(what):
        return lambda wildcards, attempt: getattr(work(rule, wildcards, WORKLOAD, bool(GPUS)), what)(attempt)

    def memory(wildcards, attempt):
        """Snakemake lowers it to the limit of the run, so that the job is started all the same, alone."""
        needed, limit = asked("mem_mb")(wildcards, attempt), workflow.global_resources.get("mem_mb").value
        if limit and needed > limit and LARGE.isdisjoint([rule]):
            LARGE.add(rule)
            logger.warning(f"{rule} asks for {needed:,} MiB of memory, but only {limit:,} MiB are there: it runs alone, and may be killed.")
        return needed

    found = {"mem_mb": memory, "runtime": asked("runtime")}
    if getattr(RULES.get(rule), "network", False):  # a job that only joins shards runs none
        found["gpu"] = lambda wildcards: GPUS * work(rule, wildcards, WORKLOAD).network
    return found


def decoders(wildcards):
    """Threads of fetch: image files are decoded side by side, which changes no bit of the result."""
    return 1 if STUDY.datasets[wildcards.dataset].kind in DATASETS else 8


def shards_of(rule):
    """The files of all shards of a job of ``rule``, which it joins; none where the study splits none.

    A study that splits any job splits all, even into one shard: on a cluster, either all jobs of several steps have a network or none has.
    """
    wanted = getattr(STUDY.shards, rule)

    def shards(wildcards):
        dataset = STUDY.datasets[wildcards.dataset]
        attacked = (
            min(dataset.queries, STUDY.attacks[wildcards.attack].queries or dataset.queries) if rule == "attack" else dataset.database
        )
        count = number(rule, wanted, attacked)
        names = dict(wildcards.items(), shard=range(1, count + 1), shards=count)
        return [str(path) for path in expand(getattr(rules, f"{rule}_shard").output, **names)] if wanted > 1 else []

    return shards


def models_made_by(rule):
    """The models whose weights ``rule`` makes, as a constraint of its wildcard."""
    made = {name: [maker_of(model), *["train_joint"] * is_fine_tuned(model)] for name, model in RESOLVED["models"].items()}
    return "|".join(name for name, makers in made.items() if rule in makers) or "none, since names have no blanks"


def start_of_joint(wildcards):
    """The weights that a joint training begins with; none for PQN."""
    path = f"{paths.results(RESOLVED)}/{{dataset}}/{{model}}-{PRETRAINED}/seed{{seed}}/weights.pt"
    return path if is_fine_tuned(RESOLVED["models"][wildcards.model]) else []


def training_features(wildcards):
    """The features of the training images, for a codebook that is fitted to them; nothing for another."""
    return f"{paths.victim(RESOLVED)}/features/train.h5" if fitted_to(RESOLVED, wildcards.model) == "train" else []


def known_to_attack(wildcards):
    """The labels of the database, for an attack that aims at codes in it; nothing for another."""
    return f"{paths.victim(RESOLVED)}/features/database.h5" if STUDY.attacks[wildcards.attack].loss in AIMED else []


def trained_for_attack(wildcards):
    """What was trained for a method that is trained; nothing for another."""
    own = STUDY.attacks[wildcards.attack].method in TRAINED
    return f"{paths.victim(RESOLVED)}/{{bits}}bits/adversarial/{{attack}}.trained.h5" if own else []


def like(name):
    """The file ``name`` of the model that another takes its weights from."""
    return (
        lambda wildcards: f"{paths.results(RESOLVED)}/{{dataset}}/{RESOLVED['models'][wildcards.model]['like']}-pretrained/seed{{seed}}/{name}"
    )


def metrics_of(scored):
    """The metrics of the scores that ``scored`` (``rows_of``, ``held_against``) gives for a table, in their order."""
    return lambda wildcards: paths.metrics(RESOLVED, scored(RESOLVED, wildcards.table))


def conclusion(rule):
    """What ``rule`` concludes from the scores of a table; nothing for a table without that rule, or that the study does not have."""
    path = f"{paths.results(RESOLVED)}/tables/{{table}}_{rule}.csv"
    concluded = [table for table in tables(RESOLVED) if CONCLUSIONS.get(table) == rule]
    return lambda wildcards: [path.format(table=wildcards.table)] if wildcards.table in concluded else []


def lent_weights(wildcards):
    """The weights of the study that a reading takes."""
    lenders = {"dataset": STUDY.datasets, "model": lent(RESOLVED, wildcards.reading), "seed": STUDY.seeds}
    return expand(f"{paths.victim(RESOLVED)}/weights.pt", training=PRETRAINED, **lenders)


def figure_file(pattern):
    """A file of the victim of a figure, see ``pqag.study.paths``."""
    return lambda wildcards: paths.of_figure(RESOLVED, wildcards, pattern)[0]


def figure_files(patterns):
    """Files of the victim of a figure."""
    return lambda wildcards: paths.of_figure(RESOLVED, wildcards, *patterns)


def metrics_files(attacks):
    """The metrics of the clean queries and of ``attacks`` on the victim that these were made for, as patterns."""
    names = ["clean", *(f"{attack}.{{own}}-{{bits}}bits" for attack in attacks)]
    return [f"{{bits}}bits/metrics/{name}.json" for name in names]


def query_files(attacks):
    """The adversarial queries of ``attacks``, images and features, as patterns."""
    return [f"{{bits}}bits/adversarial/{attack}.h5" for attack in attacks]


def figure_metrics(attacks):
    """The metrics of the clean queries and of ``attacks`` on the victim of a figure."""
    return figure_files(metrics_files(attacks))


def figure_queries(attacks):
    """The adversarial queries of ``attacks``, images and features, on the victim of a figure."""
    return figure_files(query_files(attacks))


def of_victims(patterns):
    """Files of every victim of the figures: data set by data set, model by model."""
    each = [{"dataset": dataset, "model": model} for dataset in STUDY.datasets for model in RESOLVED["figures"]["models"]]
    return [path for victim in each for path in paths.of_figure(RESOLVED, victim, *patterns)]
