# What the other files of this folder share: the checked config, the settings of each rule, and the names of files.
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "scripts")))

from pqag.config import NETWORKS, parse_study
from pqag.datasets import DATASETS
from pqag.errors import UserError
from pqag.provenance import code_digest

try:
    STUDY = parse_study(config, ", ".join(map(str, workflow.configfiles)))
except UserError as error:
    logger.error(str(error))
    sys.exit(1)

RESULTS = f"results/{STUDY.study}"
VICTIM = f"{RESULTS}/{{dataset}}/{{model}}-{{training}}/seed{{seed}}"

# A GPU job asks for one GPU where there is one; profiles/default lets as many run at once as there are.
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


def settings(script, **values):
    """The one ``params`` entry of a rule: exactly the config it depends on, and the digest of the code it runs."""
    return dict(sorted(values.items())) | {"code": code_digest(Path(workflow.basedir, "scripts", script))}


def fetch_settings(wildcards):
    dataset = STUDY.datasets[wildcards.dataset]
    return settings("fetch.py", source=dataset.source, sha256=dataset.sha256)


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
    """The tables made so far, and where they lie: printed when a run ends well."""
    for table in sorted(Path(RESULTS, "tables").glob("*.txt")):
        print(table.read_text())
    print(f"Files: {RESULTS}/tables/")
