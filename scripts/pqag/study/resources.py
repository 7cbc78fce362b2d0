"""What each job asks for: memory and run time, by constants for each stage times the images and the size of the network.

They were fitted to the benchmark files of the default study and of config/cifar10.yaml, on two cores of a processor that multiplies
bfloat16 natively; `.venv/bin/python scripts/tools/usage.py` compares a finished study with them. A job asks for half as much memory again
and two and a half times the time, since other machines are slower, and for more with every attempt: so rough constants do. Steps of
seconds ask for a minute, or for three with a network, since a slow file system takes long to load PyTorch.

Needs only the standard library: it is read whenever Snakemake reads the workflow.
"""

import csv
import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pqag.names import (
    ADDITIVE,
    ANSWERS,
    BATCH_SIZES,
    DATASETS,
    FINE_TUNED,
    NETWORKS,
    PQN,
    RELEASED,
    codewords,
    feature_size,
    is_name_of_weights,
    is_torchvision,
)
from pqag.study.scores import is_fine_tuned, transfers
from pqag.study.settings import fitted_to

#: Minutes that every job asks for at least, and every one that runs a network.
LEAST_MINUTES, LEAST_NETWORK_MINUTES = 1, 3
#: MiB of the two Snakemakes above a step in a job of a cluster, and seconds until a step begins its work.
SNAKEMAKE_MB, START_SECONDS = 280, 6
#: MiB of a process that has loaded torch, or matplotlib; guesses: MiB that CUDA takes of the host, and how much faster a GPU is.
TORCH_MB, DRAWING_MB, CUDA_MB, GPU_FACTOR = 720, 150, 2000, 20
#: MiB of the training images in memory: at most two windows of 256 MiB, see ``pqag.training``.
WINDOWS_MB = 512
#: Images of a user's data set before data/<name>.h5 is there to count them.
UNKNOWN = 200_000
MIB = 2**20


class Size(NamedTuple):
    """A network for one image: millions of numbers that its layers put out, of multiply-adds, and of parameters (in all)."""

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
#: What stands for any network of the user: the largest of ours at full width, with as many features as VGG has at 224 pixels.
OTHER, OTHER_FEATURES = "resnet50", 4096
#: The share of the outputs that a pass without gradients holds at once, for an unknown network.
HELD = 0.42


class Work(NamedTuple):
    """What a job takes: MiB at its peak and seconds after its start, without any reserve; the part of the MiB that a GPU holds instead, and
    whether a network runs in it."""

    mb: float
    seconds: float = 0.0
    gpu_mb: float = 0.0
    network: bool = False

    def on_gpu(self) -> "Work":
        """The same where networks run on a GPU."""
        return Work(self.mb - self.gpu_mb + CUDA_MB, self.seconds / GPU_FACTOR, 0.0, True) if self.network else self

    @property
    def least_minutes(self) -> int:
        """Minutes that the job asks for however short it is."""
        return LEAST_NETWORK_MINUTES if self.network else LEAST_MINUTES

    def mem_mb(self, attempt: int = 1) -> int:
        """MiB that the job asks for."""
        return math.ceil(1.5 * (self.mb + SNAKEMAKE_MB) * 1.5 ** (attempt - 1))

    def runtime(self, attempt: int = 1) -> int:
        """Minutes that the job asks for."""
        return math.ceil(max(self.least_minutes, 2.5 * (START_SECONDS + self.seconds) / 60) * 2 ** (attempt - 1))


class Images(NamedTuple):
    """Numbers of images of a data set, and pixels on a side, of those that networks see and of those that are fetched."""

    every: int
    train: int
    database: int
    queries: int
    side: int
    fetched: int

    def mb(self, count: int) -> float:
        """MiB of ``count`` images of bytes."""
        return count * 3 * self.side**2 / MIB

    def fetched_mb(self, count: int) -> float:
        """MiB of ``count`` images of bytes, as they are fetched and trained on."""
        return count * 3 * self.fetched**2 / MIB


def images(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> Images:
    """The images of the data set of a job; at most so many where they are not counted yet."""
    dataset, fetched = study["datasets"][wildcards["dataset"]], 32
    if (known := DATASETS.get(dataset["kind"])) is not None:
        every, train, searched = known.train + known.test, known.train, known.test
    else:
        fetched, released = dataset["image_size"], RELEASED.values() if dataset["kind"] == "nuswide" else ()
        try:
            every = os.stat(f"data/{wildcards['dataset']}.h5").st_size // (3 * fetched**2)
        except FileNotFoundError:
            every = sum(released) or UNKNOWN
        train, searched = [min(every, count) for count in released] or (every, every)
    searched = every if dataset["database_from"] == "all" else searched
    trained, database = min(dataset["train"] or train, train), min(dataset["database"] or searched, searched)
    return Images(every, trained, database, dataset["queries"], dataset["image_size"] or fetched, fetched)


class Network(NamedTuple):
    """The network of a job, at its width and for its images: its ``Size``, D, seconds for one pass of an image, and the share of its
    outputs that a pass without gradients holds at once."""

    size: Size
    features: int
    seconds: float
    held: float = HELD


@functools.cache
def of_torchvision() -> dict[str, list[dict[str, float]]]:
    """What torchvision.csv says of each network, for each size of images that its weights want: ``pixels`` on a side, ``features`` (D), and
    millions for one image: of ``outputs`` of all layers, of inputs and outputs of the ``widest`` one, of multiplications and parameters."""
    found: dict[str, list[dict[str, float]]] = {}
    with Path(__file__).with_name("torchvision.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row.pop("network"), []).append({key: float(value) for key, value in row.items()})
    return found


def _torchvision_row(model: Mapping[str, Any]) -> dict[str, float] | None:
    """The row of a model of torchvision; of those for several sizes the largest that its weights may want."""
    rows = sorted(of_torchvision().get(model["network"].removeprefix("torchvision:"), ()), key=lambda row: row["pixels"])
    small = is_name_of_weights(model["weights"]) and "SWAG_E2E" not in model["weights"]  # a file may be of any
    return rows[0 if small else -1] if rows else None


def network(wildcards: Mapping[str, str], study: Mapping[str, Any], threads: int) -> Network:
    """The network of a job. The first convolution of larger images takes every second, fourth … pixel, see ``pqag.networks``."""
    model, side = study["models"][wildcards["model"]], images(wildcards, study).side
    name, width, held = model["network"], model["width"], HELD
    if is_torchvision(name) and (row := _torchvision_row(model)):
        size, features = Size(row["outputs"], row["multiplications"], row["parameters"]), int(row["features"])
        held = min(HELD, 4 * row["widest"] / row["outputs"])  # of few layers of many
    else:
        known = name in NETWORKS
        full, width, features = (SIZES[name], width, feature_size(name, width)) if known else (SIZES[OTHER], 1, OTHER_FEATURES)
        seen = (side / 2 ** ((side // 32).bit_length() - 1) / 32) ** 2
        size = Size(full.outputs * width * seen, full.multiplications * width**2 * seen, full.parameters * width**2)
    return Network(size, features, (size.multiplications / 100 + size.outputs + side**2 * 6e-5) / 1000 / threads**0.6, held)


# --------------------------------------------------------------------------------------------------------------------------- stages


def light(wildcards, study):
    """Jobs that read or copy files as they are, and tables."""
    return Work(100)


def fetch(wildcards, study):
    """Known data are decoded in memory, synthetic ones drawn in float64, images of the user's read a few at a time, a hundred a second."""
    there = images(wildcards, study)
    known = study["datasets"][wildcards["dataset"]]["kind"] in DATASETS
    return Work(200 + 2 * there.fetched_mb(there.every), 15) if known else Work(200, there.every / 100)


def prepare(wildcards, study):
    there = images(wildcards, study)
    return Work(300, there.fetched_mb(there.train) / 20 + there.mb(there.database + there.queries) / 20)


def _networking(it: Network, at_once: float, passes: float, held: float, copies: int = 1) -> Work:
    """``passes`` of single images through a network, which holds its layers' outputs for ``at_once`` images; ``held`` MiB beside."""
    mb = 4e6 * (copies * it.size.parameters + at_once * it.size.outputs) / MIB
    return Work(TORCH_MB + held + mb, passes * it.seconds, mb, True)


def pretrain(wildcards, study):
    """A step there and back, and an accuracy after the last epoch; parameters have gradients, momenta and checkpoints."""
    there, recipe = images(wildcards, study), study["models"][wildcards["model"]]["training"]
    it, tested = network(wildcards, study, study["threads"]["pretrain"]), there.database + there.queries
    at_once = max(1.6 * recipe["batch_size"], it.held * min(250, tested))
    held = min(2 * there.fetched_mb(there.train), WINDOWS_MB)
    return _networking(it, at_once, recipe["epochs"] * 3 * there.train + tested, held, copies=6)


#: What a triplet of a batch takes in a step, by the methods that look at all; DTQ draws a random number for each.
SECONDS_OF_TRIPLET = {PQN: 1e-8, "dtq": 2e-7}


def train_joint(wildcards, study):
    """Besides, every triplet of a batch, and the k-means that the codebook begins with, see ``pqag.pqn``; other methods make it after
    every epoch at the most, and their feature is shorter."""
    model, there, plain = study["models"][wildcards["model"]], images(wildcards, study), pretrain(wildcards, study)
    start, rounds, seconds = _fitting(wildcards, study, min(10_000, there.train)), model["training"]["epochs"], plain.seconds
    if is_fine_tuned(model):
        rounds, trained = model["joint"]["epochs"], rounds
        seconds = seconds * max(1, rounds / trained) + rounds * start.seconds
    seconds += start.seconds
    batch, a_triplet = model["training"]["batch_size"], SECONDS_OF_TRIPLET.get(model["quantizer"]["method"], 0)
    seconds += a_triplet * batch**2 * rounds * there.train
    return plain._replace(mb=plain.mb + start.mb + bool(a_triplet) * 20 * batch**3 / MIB, seconds=seconds)


def adopt(wildcards, study):
    """A minute to read the weights, and an accuracy."""
    there, it = images(wildcards, study), network(wildcards, study, study["threads"]["attack"])
    tested = there.database + there.queries
    measured = _networking(it, it.held * min(250, tested), tested, 0, copies=2)
    return measured._replace(seconds=60 + measured.seconds)


def _share(rule: str, wildcards: Mapping[str, str], study: Mapping[str, Any], count: int) -> int:
    """How many of ``count`` images a job looks at: a shard the most of any, a job that joins shards none."""
    if shards := wildcards.get("shards"):
        return min(count, math.ceil(count / BATCH_SIZES[rule] / int(shards)) * BATCH_SIZES[rule])
    return count if study.get("shards", {}).get(rule, 1) == 1 else 0


def extract(wildcards, study):
    """Features of the database and of the queries; a job that joins shards only holds them."""
    there, it = images(wildcards, study), network(wildcards, study, study["threads"]["attack"])
    count = sum(_share("extract", wildcards, study, number) for number in (there.database, there.queries))
    held = 12 * (count if wildcards.get("shards") else there.database) * it.features / MIB
    return _networking(it, it.held * min(count, BATCH_SIZES["extract"]), count, held) if count else Work(TORCH_MB + held)


def extract_train(wildcards, study):
    """Features of the training images, which are all held."""
    there, it = images(wildcards, study), network(wildcards, study, study["threads"]["attack"])
    held = 12 * there.train * it.features / MIB
    return _networking(it, it.held * min(there.train, BATCH_SIZES["extract"]), there.train, held)


def extract_transfer(wildcards, study):
    """Features of the queries that were made for every other network; those of all are held together."""
    there, it = images(wildcards, study), network(wildcards, study, study["threads"]["attack"])
    count = len(transfers(study, wildcards)) * there.queries
    return _networking(it, it.held * BATCH_SIZES["extract"], count, 12 * count * it.features / MIB + there.mb(2 * there.queries))


def _codebook(wildcards: Mapping[str, str], study: Mapping[str, Any]) -> tuple[int, int]:
    """M and K of a job's victim."""
    subspaces = study["models"][wildcards["model"]]["quantizer"]["subspaces"]
    return subspaces, codewords(int(wildcards["bits"]), subspaces)


def _fitting(wildcards, study, count: int) -> Work:
    """k-means on ``count`` features; a method other than PQ holds them several times, and turns them."""
    quantizer, size = study["models"][wildcards["model"]]["quantizer"], network(wildcards, study, 1).features
    subspaces, words = _codebook(wildcards, study)
    turned = quantizer["method"] not in ("pq", PQN, *FINE_TUNED, *ADDITIVE)
    if quantizer["method"] in ADDITIVE:  # RQ holds the residuals of a beam of five, CQ each table and what L-BFGS remembers
        seconds = quantizer["iterations"] * 1.5e-10 * words * size * (count + 22 * words) * subspaces
        own = 650 if quantizer["method"] == "cq" else 300  # the L-BFGS of torch loads its compiler
        return Work(own + 8 * size * (15 * count + 40 * subspaces * words) / MIB, seconds)
    mb = ((28 if turned else 16) * count * size + 24 * min(count, 4096) * subspaces * words + turned * 80 * size**2) / MIB
    seconds = quantizer["iterations"] * ((1 + 4 * turned) * count * size * words / 2e10 + turned * 7 * (size / 1024) ** 3)
    return Work(80 + mb, seconds)


def quantize(wildcards, study):
    """Features that are only encoded, since the codebook is fitted to others, are held too, by the beam of RQ many times."""
    there = images(wildcards, study)
    if fitted_to(study, wildcards["model"]) == "database":
        return _fitting(wildcards, study, there.database)
    fitted, size = _fitting(wildcards, study, there.train), network(wildcards, study, 1).features
    of_number = 64 if study["models"][wildcards["model"]]["quantizer"]["method"] == "rq" else 20
    return fitted._replace(mb=fitted.mb + of_number * there.database * size / MIB)


def attack(wildcards, study):
    """A step goes through the network and back; the features are taken before and after. A job that joins shards runs no network."""
    there = images(wildcards, study)
    own = study["attacks"][wildcards["attack"]]
    queries = _share("attack", wildcards, study, min(there.queries, own.get("queries", there.queries)))
    if not queries:
        return Work(TORCH_MB + 6 * there.mb(there.queries))
    return _attacking(wildcards, study, queries, _passes(own, own["iterations"], 1))


def train_attack(wildcards, study):
    """A step goes through the network and back, after the features of the clean images; training images are held once."""
    there, own = images(wildcards, study), study["attacks"][wildcards["attack"]]
    count = min(there.train, 10_000)
    found = _attacking(wildcards, study, count, 4 * own["iterations"])
    return found._replace(mb=found.mb + there.fetched_mb(count))


def _passes(own: Mapping[str, Any], steps: int, runs: int) -> float:
    """Passes of a query through the network in so many steps of so many ``runs`` of an attack."""
    if own["loss"] in ANSWERS:
        return runs * (own["budget"] + 3)
    times = own.get("searches", own.get("restarts", 1))
    return times * (3 * steps + 2 * runs) + 2 * runs


def _attacking(wildcards, study, queries: int, passes: float) -> Work:
    """So many ``passes`` of each of the ``queries``; the head works in float64 on all codewords."""
    there, it = images(wildcards, study), network(wildcards, study, study["threads"]["attack"])
    subspaces, words = _codebook(wildcards, study)
    at_once = 1.7 * min(queries, BATCH_SIZES["attack"])
    found = _networking(it, at_once, queries * passes, 6 * there.mb(queries) + 30 * at_once * subspaces * words / MIB)
    own, heads = study["attacks"][wildcards["attack"]], 1.6e-10 * words * it.features
    if own["loss"] in ANSWERS:  # the database is ranked for every request
        heads += 3e-8 * there.database
        # For each item a byte a query of the batch, and ten numbers for 32 queries at a time; and gaps that requests leave in the heap.
        found = found._replace(mb=found.mb + 300 + (min(queries, BATCH_SIZES["attack"]) + 32 * 80) * there.database / MIB)
    return found._replace(seconds=found.seconds + queries * passes * heads)


def sweep(wildcards, study):
    """An attack at every strength, each with its scores."""
    strengths, own = study["figures"]["sweep"], study["attacks"][wildcards["attack"]]
    points, there = len(strengths["epsilon"]) + len(strengths["iterations"]), images(wildcards, study)
    queries, scored = min(strengths["queries"], there.queries), evaluate(wildcards, study)
    steps = len(strengths["epsilon"]) * own["iterations"] + sum(strengths["iterations"])
    it = _attacking(wildcards, study, queries, _passes(own, steps, points))
    return it._replace(mb=it.mb + scored.mb, seconds=it.seconds + points * scored.seconds * queries / there.queries)


def evaluate(wildcards, study):
    """The database is sorted, and then the distances of one query after the other to its items, or to its distinct codes."""
    there, (subspaces, words) = images(wildcards, study), _codebook(wildcards, study)
    features = 8 * there.queries * network(wildcards, study, 1).features
    mb = 100 + (80 * there.database + 2000 * subspaces * words + features) / MIB
    if study["models"][wildcards["model"]]["quantizer"]["method"] in (
        *ADDITIVE,
        "dtq",
    ):  # a table of the offsets for each query
        mb += 1500 * (subspaces + 1) * there.database / MIB
    return Work(mb, there.queries * (4e-4 + 2e-8 * there.database))


def drawing(wildcards, study):
    """Figures of numbers."""
    return Work(DRAWING_MB)


def figure(wildcards, study):
    """Figures of a victim: the images, and what its queries are after each attack."""
    there = images(wildcards, study)
    return Work(DRAWING_MB + there.mb(1.5 * there.database + 3 * (1 + len(study["attacks"])) * there.queries))


def distortion(wildcards, study):
    """The queries, and those of an attack."""
    there = images(wildcards, study)
    return Work(DRAWING_MB + there.mb(3 * there.queries))


def gallery(wildcards, study):
    """The images that the page shows, and a block of queries beside every database image, see ``pqag.show.gallery``; a victim at a time."""
    figures, kinds = study["figures"], 1 + len(study["attacks"])
    each = [images({"dataset": name}, study) for name in study["datasets"]]
    queries = [min(figures["gallery"]["queries"], there.queries) for there in each]
    held = sum(there.mb(count * (1 + kinds * len(figures["models"]))) for there, count in zip(each, queries))
    ranked = max(24 * min(count, 100) * there.database for there, count in zip(each, queries)) / MIB
    seconds = 2e-6 * len(figures["models"]) * kinds * sum(there.database * count for there, count in zip(each, queries))
    return Work(DRAWING_MB + 2 * held + ranked, 10 + seconds)


def report(wildcards, study):
    return Work(300)
