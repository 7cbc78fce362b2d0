# What the other files of this folder share: the checked config, the settings of each rule, and the names of files.
import fcntl
import shutil
import sys
import time
from pathlib import Path

sys.path.append(str(Path(workflow.basedir, "scripts")))

from pqag.config import NETWORKS, parse_study
from pqag.datasets import DATASETS
from pqag.errors import UserError
from pqag.provenance import code_digest

try:
    STUDY = parse_study(config, ", ".join(map(str, workflow.configfiles)))
except UserError as error:
    logger.error(str(error))
    sys.exit(1)

START = time.time()
RESULTS = f"results/{STUDY.study}"
VICTIM = f"{RESULTS}/{{dataset}}/{{model}}-{{training}}/seed{{seed}}"

# A job that trains or runs a network asks for a GPU where there is one; profiles/default lets one such job run at a time.
GPUS = int(STUDY.device == "cuda" or (STUDY.device == "auto" and shutil.which("nvidia-smi") is not None))


pathvars:
    results=RESULTS,
    victim=VICTIM,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


wildcard_constraints:
    dataset="|".join(DATASETS),
    model="|".join(NETWORKS),
    source_model="|".join(NETWORKS),
    training="pretrained",
    source_training="pretrained",
    bits=r"\d+",
    source_bits=r"\d+",
    seed=r"\d+",
    attack="|".join(STUDY.attacks),
    part="database|query",


def remove_stale_locks():
    """Take away the locks of a run that was killed; those of a run that lives stay.

    Every Snakemake started here keeps a shared lock on one file until it ends, however it ends. Who gets that lock for itself alone knows
    that no other lives, so that Snakemake's own locks, which outlive a kill, are stale. Returns the open file: closing it gives the lock up.
    """
    Path(".snakemake").mkdir(exist_ok=True)
    alive = open(".snakemake/alive", "w")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(".snakemake/locks", ignore_errors=True)
    except BlockingIOError:
        pass
    fcntl.flock(alive, fcntl.LOCK_SH)
    return alive


ALIVE = remove_stale_locks()


def settings(script, **values):
    """The one ``params`` entry of a rule: exactly the config it depends on, and the digest of the code it runs."""
    return dict(sorted(values.items())) | {"code": code_digest(Path(workflow.basedir, "scripts", script))}


def fetch_settings(wildcards):
    """Where content is pinned by its hash, it does not matter where it comes from: a moved archive makes nothing stale."""
    dataset = STUDY.datasets[wildcards.dataset]
    pinned = dataset.sha256 or DATASETS[wildcards.dataset].strict
    return settings("fetch.py", sha256=dataset.sha256, **({} if pinned else {"source": dataset.source}))


def prepare_settings(wildcards):
    keys = ("train", "database", "queries", "split_seed")
    return settings("prepare.py", **STUDY.datasets[wildcards.dataset].model_dump(include=set(keys)))


def pretrain_settings(wildcards):
    return settings(
        "pretrain.py",
        device=STUDY.device,
        threads=STUDY.threads.pretrain,
        width=STUDY.models[wildcards.model].width,
        **STUDY.recipe(wildcards.model),
    )


def extract_settings(wildcards):
    return settings("extract.py", device=STUDY.device, threads=STUDY.threads.attack)


def quantize_settings(wildcards):
    return settings(
        "quantize.py",
        subspaces=STUDY.quantizer.subspaces,
        codewords=STUDY.codewords(int(wildcards.bits)),
        iterations=STUDY.quantizer.iterations,
    )


def attack_settings(wildcards):
    return settings("attack.py", device=STUDY.device, threads=STUDY.threads.attack, **STUDY.attacks[wildcards.attack].model_dump())


def table_settings():
    """What a table shows and in which order; Snakemake itself does not notice when the order of input files changes."""
    return settings(
        "table1.py",
        datasets=list(STUDY.datasets),
        widths={name: model.width for name, model in STUDY.models.items()},
        attacks={name: attack.model_dump() for name, attack in STUDY.attacks.items()},
        bits=STUDY.bits,
        seeds=STUDY.seeds,
    )


def white_box(dataset):
    """The metrics of Table 1 for one data set: every attack on the victim it was made for, and the clean queries."""
    for model in STUDY.models:
        for bits in STUDY.bits:
            source = f"{model}-pretrained-{bits}bits"
            for queries in ("clean", *(f"{attack}.{source}" for attack in STUDY.attacks)):
                for seed in STUDY.seeds:
                    folder = VICTIM.format(dataset=dataset, model=model, training="pretrained", seed=seed)
                    yield f"{folder}/{bits}bits/metrics/{queries}.json"


def show_results():
    """The tables that this run made, and where they lie: printed when it ends well."""
    tables = [table for table in sorted(Path(RESULTS, "tables").glob("*.txt")) if table.stat().st_mtime >= START]
    for table in tables:
        print(table.read_text())
    if tables:
        print(f"Files: {RESULTS}/tables/")
