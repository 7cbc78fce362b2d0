"""What each job asks for: memory and run time, by formulas fitted to measured jobs. The only place that says so.

Peaks of memory and times were measured on two cores of a processor that multiplies bfloat16 natively: the benchmark files of the default
study and of config/cifar10.yaml, and single steps of other networks, widths and sizes of images. ``mem_mb`` asks for half as much again as
a formula says and Snakemake itself takes in a job of a cluster, ``runtime`` for two and a half times as long, since other machines are
slower (without such multiplication two trainings of the default study took 1.9 and 2.1 times as long), and both for more with every
attempt. Between 1.2 and 4 times what a job used is what is aimed at; `python docs/resources.py` tells it for a finished study. Time has a
floor, so that steps of seconds ask for more: with less, a file system that is slow to load Python's packages would end them. It is higher
for PyTorch's; other steps, which share a job with many of their kind, ask for the minute that is a scheduler's unit.

Where the number of images is not known before they are read, the size of data/<name>.h5 tells it, or before that exists ``UNKNOWN`` does.
Needs no package that Snakemake has not loaded: it is read whenever Snakemake reads the workflow.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pqag.datasets import DATASETS, RELEASED
from pqag.names import BATCH_SIZES, NETWORKS, PQN, codewords, feature_size
from pqag.study.scores import TABLES, scores_of, transfers

#: Minutes that every job asks for at least, and every one that runs a network.
LEAST_MINUTES, LEAST_NETWORK_MINUTES = 1, 3
#: MiB of the two Snakemakes, of some 140 each, that stand above a step in a job of a cluster.
SNAKEMAKE_MB = 280
#: Seconds until a step begins its work.
START_SECONDS = 6
#: Images of a user's data set of which nothing is there yet to count.
UNKNOWN = 200_000
#: A GPU runs networks at least so many times as fast as the processors that a job would have, and takes so many MiB of the host's memory
#: for itself. Both are guesses. By the formulas two cores do 0.3e12 floating-point operations a second, a GeForce GTX 1080 Ti does 11e12 at
#: its best.
GPU_FACTOR, GPU_MB = 20, 2000

MIB = 2**20
#: MiB of a process that has loaded torch, or matplotlib, or what scoring takes.
_TORCH, _DRAWING, _SCORING = 720, 150, 80
#: Images at once when an accuracy is measured: the default of ``pqag.training.accuracy``, whose module needs torch.
_ACCURACY_BATCH = 1000


class Size(NamedTuple):
    """Of a network, for one image: millions of numbers that its layers put out, of multiply-adds, and of parameters (in all)."""

    outputs: float
    multiplications: float
    parameters: float


#: Networks of full width, for images of 32 pixels; a test holds them against the networks themselves.
SIZES = {
    "alexnet": Size(0.352, 250.8, 36.05),
    "vgg11": Size(0.303, 152.8, 9.23),
    "vgg13": Size(0.500, 228.3, 9.42),
    "vgg16": Size(0.553, 313.2, 14.73),
    "resnet18": Size(1.229, 555.4, 11.17),
    "resnet34": Size(2.048, 1159.4, 21.28),
    "resnet50": Size(6.865, 1297.8, 23.52),
}
#: Any network of the user's or torchvision's, taken for the ResNet-50 of torchvision at 224 pixels, to which it enlarges all images; with
#: as many features as the largest of torchvision's have.
OTHER, OTHER_FEATURES = Size(22.2, 4089.0, 25.6), 4096


def mem_mb(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any], attempt: int = 1, gpu: bool = False) -> int:
    """MiB that a job of ``rule`` asks for at its ``attempt``.

    ``study`` is as in ``pqag.study.settings``, and may have the section ``shards``; ``gpu`` says whether networks run on one.
    """
    return math.ceil(1.5 * (work(rule, wildcards, study, gpu).mb + SNAKEMAKE_MB) * 1.5 ** (attempt - 1))


def runtime(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any], attempt: int = 1, gpu: bool = False) -> int:
    """Minutes that a job of ``rule`` asks for, as ``mem_mb``."""
    it = work(rule, wildcards, study, gpu)
    return math.ceil(max(it.least_minutes, 2.5 * (START_SECONDS + it.seconds) / 60) * 2 ** (attempt - 1))


class Work(NamedTuple):
    """What a job is expected to take: MiB at its peak, and seconds after its start; how much of both a GPU relieves it of; and the minutes
    that it asks for at least.
    """

    mb: float
    seconds: float = 0.0
    gpu_mb: float = 0.0
    gpu_seconds: float = 0.0
    least_minutes: int = LEAST_MINUTES


def work(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any], gpu: bool = False) -> Work:
    """What a job of ``rule`` is expected to take, without any reserve; arguments as of ``mem_mb``."""
    it = _WORK[rule](wildcards, study)
    if not (gpu and it.gpu_mb):
        return it
    return it._replace(mb=it.mb - it.gpu_mb + GPU_MB, seconds=it.seconds - it.gpu_seconds * (1 - 1 / GPU_FACTOR))


# ---------------------------------------------------------------------------------------------------------- images, networks, codebooks


class Images(NamedTuple):
    """Numbers of images of a data set, and pixels on a side."""

    every: int
    train: int
    database: int
    queries: int
    side: int

    def mb(self, count: int) -> float:
        """MiB of ``count`` images of bytes."""
        return count * 3 * self.side**2 / MIB


def images(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> Images:
    """The images of the data set of a job; at most so many where they are not counted yet."""
    dataset, side = study["datasets"][wildcards["dataset"]], 32
    if (known := DATASETS.get(dataset["kind"])) is not None:
        every, train, searched = known.train + known.test, known.train, known.test
    else:
        side = dataset["image_size"]
        try:
            every = os.stat(f"data/{wildcards['dataset']}.h5").st_size // (3 * side**2)
        except FileNotFoundError:
            every = sum(RELEASED.values()) if dataset["kind"] == "nuswide" else UNKNOWN
        train, searched = (min(every, count) for count in RELEASED.values()) if dataset["kind"] == "nuswide" else (every, every)
    searched = every if dataset["database_from"] == "all" else searched
    return Images(every, min(dataset["train"] or train, train), min(dataset["database"] or searched, searched), dataset["queries"], side)


class Network(NamedTuple):
    """The network of a job: its ``Size`` at its width and for its images, D, and threads' worth of speed."""

    size: Size
    features: int
    side: int

    def mb(self, batch: int, share: float, copies: float) -> float:
        """MiB of the parameters, of a ``share`` of the layers' outputs for ``batch`` images, and of ``copies`` of the images."""
        outputs, pixels = self.size.outputs * 1e6, 3 * self.side**2
        return 4 * (self.size.parameters * 1e6 + batch * (share * outputs + copies * pixels)) / MIB

    def seconds(self, passes: float, threads: int) -> float:
        """Seconds for an image to go through so many times, there or back."""
        milliseconds = self.size.multiplications / 100 + self.size.outputs + 3 * self.side**2 * 2e-5
        return passes * milliseconds / 1000 / threads**0.6


def network(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> Network:
    """The network of a job. The first convolution of larger images takes every second, fourth ... pixel, see ``pqag.networks``."""
    model, side = study["models"][wildcards["model"]], images(wildcards, study).side
    if (name := model["network"]) not in NETWORKS:
        return Network(OTHER, OTHER_FEATURES, max(side, 224))
    width, full = model["width"], SIZES[name]
    seen = (side / 2 ** ((side // 32).bit_length() - 1) / 32) ** 2
    size = Size(full.outputs * width * seen, full.multiplications * width**2 * seen, full.parameters * width**2)
    return Network(size, feature_size(name, width), side)


def _codebook(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> tuple[int, int]:
    """M and K of a job's victim."""
    subspaces = study["models"][wildcards["model"]]["quantizer"]["subspaces"]
    return subspaces, codewords(int(wildcards["bits"]), subspaces)


# ---------------------------------------------------------------------------------------------------------------------------- rules


def _networking(mb: float, seconds: float, held: float) -> Work:
    """Work that a GPU takes over, but for what is ``held`` in the host's memory beside it."""
    return Work(_TORCH + held + mb, seconds, mb, seconds, LEAST_NETWORK_MINUTES)


def _fetch(wildcards, study):
    """Known data are decoded in memory, images of the user's a few at a time, some hundred files a second."""
    there = images(wildcards, study)
    if study["datasets"][wildcards["dataset"]]["kind"] in DATASETS:
        return Work(80 + 2 * there.mb(there.every), 15)
    return Work(200, there.every / 100)


def _prepare(wildcards, study):
    there = images(wildcards, study)
    return Work(160, there.mb(there.every) / 20)


def _held_for_accuracy(there: Images) -> float:
    """MiB of the images that an accuracy is of, which are held twice."""
    return 2 * there.mb(there.database + there.queries)


def _pretrain(wildcards, study):
    """Memory is largest in a training step, or when the accuracy is measured; parameters have gradients, momenta and checkpoints."""
    there, model, recipe = images(wildcards, study), network(wildcards, study), study["models"][wildcards["model"]]["training"]
    at_once = min(_ACCURACY_BATCH, there.database + there.queries)
    peak = max(model.mb(recipe["batch_size"], 1.5, 10), model.mb(at_once, 0.4, 3)) + 5 * 4 * model.size.parameters
    looks = recipe["epochs"] * (3 * there.train + there.database + there.queries)
    held = there.mb(there.train) + _held_for_accuracy(there)
    return _networking(peak, model.seconds(looks, study["threads"]["pretrain"]), held)


def _train_pqn(wildcards, study):
    """Besides, every triplet of a batch, k-means on the features of 10,000 images, see ``pqag.pqn``, and codewords as ``_pretrain`` has
    parameters."""
    it, size = _pretrain(wildcards, study), network(wildcards, study).features
    subspaces, count = _codebook(wildcards, study)
    there, model = images(wildcards, study), study["models"][wildcards["model"]]
    triplets = model["training"]["batch_size"] ** 3
    start = min(max(10_000, 20 * count), there.train)
    most = max(20 * triplets, _clustering(start, size, subspaces, count)) / MIB + 5 * 4 * count * size / MIB
    steps = (1 - model["pqn"]["warm_up"]) * model["training"]["epochs"] * there.train / model["training"]["batch_size"]
    seconds = 1e-8 * steps * triplets + model["quantizer"]["iterations"] * start * size * count / 2e10
    return it._replace(mb=it.mb + most, seconds=it.seconds + seconds)


def _adopt(wildcards, study):
    there, model = images(wildcards, study), network(wildcards, study)
    seconds = model.seconds(there.database + there.queries, study["threads"]["attack"])
    it = _networking(model.mb(_ACCURACY_BATCH, 0.4, 3) + 4 * model.size.parameters, seconds, _held_for_accuracy(there))
    return it._replace(seconds=60 + seconds)


def _share(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any], count: int) -> int:
    """How many of ``count`` images a job looks at: a shard the most of any, a job that joins shards none."""
    if shards := wildcards.get("shards"):
        return min(count, math.ceil(count / BATCH_SIZES[rule] / int(shards)) * BATCH_SIZES[rule])
    return count if study.get("shards", {}).get(rule, 1) == 1 else 0


def _extracting(model: Network, threads: int, count: int, stored: int) -> Work:
    """Features of ``count`` images, of which none are left to a job that joins shards; ``stored`` are held at a time."""
    held = 3 * 4 * stored * model.features / MIB
    if not count:
        return Work(_TORCH + held)
    return _networking(model.mb(min(count, BATCH_SIZES["extract"]), 0.4, 3), model.seconds(count, threads), held)


def _extract(wildcards, study):
    """What is stored is the features of all images, but by a shard, which has those of its own."""
    there, model = images(wildcards, study), network(wildcards, study)
    database, queries = (_share("extract", wildcards, study, count) for count in (there.database, there.queries))
    stored = database if wildcards.get("shards") else there.database
    return _extracting(model, study["threads"]["attack"], database + queries, stored)


def _extract_transfer(wildcards, study):
    """The queries of every source, one after another; the features of all are stored together."""
    there, model = images(wildcards, study), network(wildcards, study)
    count = len(transfers(study, wildcards)) * there.queries
    it = _extracting(model, study["threads"]["attack"], count, count)
    return it._replace(mb=it.mb + 2 * there.mb(there.queries))


def _clustering(number: int, size: int, subspaces: int, count: int) -> float:
    """Bytes for so many features and k-means in each sub-space, and for the distances of 4,096 of them to all codewords."""
    return 4 * 4 * number * size + 3 * 8 * min(number, 4096) * subspaces * count


def _quantize(wildcards, study):
    """OPQ holds rotated features besides, and decomposes matrices."""
    there, size = images(wildcards, study), network(wildcards, study).features
    subspaces, count = _codebook(wildcards, study)
    quantizer = study["models"][wildcards["model"]]["quantizer"]
    other = quantizer["method"] not in ("pq", PQN)
    mb = 80 + (_clustering(there.database, size, subspaces, count) + other * (3 * 4 * there.database * size + 10 * 8 * size**2)) / MIB
    pass_over = there.database * size * count / 2e10
    turns = quantizer["iterations"] * (7 * (size / 1024) ** 3 + 4 * pass_over)
    return Work(mb, (quantizer["iterations"] + 2) * pass_over + other * turns)


def _attacking(wildcards, study, queries: int, passes: float) -> Work:
    """So many ``passes`` of each of the ``queries``; the head works in float64 on all codewords. A batch may not be full."""
    there, model = images(wildcards, study), network(wildcards, study)
    subspaces, count = _codebook(wildcards, study)
    batch = min(queries, BATCH_SIZES["attack"])
    head = 6 * 8 * batch * subspaces * count / MIB
    held = 6 * there.mb(queries) + 3 * 4 * queries * model.features / MIB
    peak = model.mb(batch, 1.6, 10) + head
    seconds = queries * passes * (model.seconds(1, study["threads"]["attack"]) + 1.6e-10 * count * model.features)
    return _networking(peak, seconds, held)


def _attack(wildcards, study):
    """A step goes through the network and back; besides, the features are looked at before and after."""
    there, attack = images(wildcards, study), study["attacks"][wildcards["attack"]]
    queries = _share("attack", wildcards, study, there.queries)
    if not queries:
        return Work(_TORCH + 6 * there.mb(there.queries) + 3 * 4 * there.queries * network(wildcards, study).features / MIB)
    return _attacking(wildcards, study, queries, 3 * attack["iterations"] + 4)


def _sweep(wildcards, study):
    sweep, own = study["figures"]["sweep"], study["attacks"][wildcards["attack"]]["iterations"]
    points = len(sweep["epsilon"]) + len(sweep["iterations"])
    there = images(wildcards, study)
    queries = min(sweep["queries"], there.queries)
    it = _attacking(wildcards, study, queries, 3 * (len(sweep["epsilon"]) * own + sum(sweep["iterations"])) + 4 * points)
    scoring = points * _scoring(queries, there.database)
    return it._replace(mb=it.mb + _evaluate(wildcards, study).mb, seconds=it.seconds + scoring)


def _scoring(queries: int, items: int) -> float:
    """Seconds for so many queries to be ranked against so many items, by both distances."""
    return 6e-7 * queries * items


def _evaluate(wildcards, study):
    """128 queries at a time are compared with every distinct code; the features of all are held, and again where they are rotated."""
    there = images(wildcards, study)
    subspaces, count = _codebook(wildcards, study)
    codes = min(there.database, count**subspaces)
    mb = _SCORING + (128 * (24 * codes + 8 * there.database) + 8 * there.queries * network(wildcards, study).features) / MIB
    return Work(mb, _scoring(there.queries, there.database))


def _table(wildcards, study):
    """A table reads all its metrics, which have the average precision of every query; all are taken for as large as the largest."""
    queries = sum(dataset["queries"] for dataset in study["datasets"].values())
    numbers = max(len(scores_of(study, table)) for table in TABLES) * len(study["seeds"]) * queries * 2
    return Work(100 + numbers * 100 / MIB, numbers / 1e5)


def _figure(wildcards, study):
    """Figures hold the images, and the features and centroid distributions of the queries of every attack."""
    there = images(wildcards, study)
    subspaces, count = _codebook({"bits": study["figures"]["bits"], **wildcards}, study)
    of_queries = there.queries * (3 * there.side**2 + 8 * network(wildcards, study).features + 2 * 8 * subspaces * count)
    return Work(_DRAWING + 1.5 * there.mb(there.database) + (1 + len(study["attacks"])) * of_queries / MIB)


def _drawing(wildcards, study):
    return Work(_DRAWING)


def _least(wildcards, study):
    """Jobs that read or copy files as they are."""
    return Work(100)


_WORK: dict[str, Callable[[Mapping[str, str], Mapping[str, Any]], Work]] = {
    "fetch": _fetch,
    "prepare": _prepare,
    "pretrain": _pretrain,
    "train_pqn": _train_pqn,
    "adopt": _adopt,
    "borrow": _least,
    "extract": _extract,
    "extract_shard": _extract,
    "quantize": _quantize,
    "encode": _quantize,
    "attack": _attack,
    "attack_shard": _attack,
    "extract_transfer": _extract_transfer,
    "evaluate": _evaluate,
    "evaluate_clean": _evaluate,
    "robustness": _table,
    "drops": _table,
    "table": _table,
    "heat_map": _drawing,
    "perturbation": _figure,
    "centroid_distributions": _figure,
    "retrieval_sheet": _figure,
    "precision_recall": _drawing,
    "sweep": _sweep,
    "figure_sweep": _drawing,
    "paper": _least,
    "study": _least,
    "manifest": _least,
    "report": lambda wildcards, study: Work(300),
    "all": _least,
}
