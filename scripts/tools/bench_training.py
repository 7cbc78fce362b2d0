"""Compare training with the usual recipe of torchvision, side by side: `make bench-training`. It prints what it measures, without judging.

Both recipes train the same networks on the same images, in turn, on the same threads. Ours is that of the default study. The other one is
what a user of torchvision writes: a DataLoader with torchvision's transforms, channels first, float32, SGD with a step schedule, and
torchvision's initialisation. It gets ``--longer`` times as many epochs: where it is still less accurate, training is faster here by more
than the ratio of the two times. Writes docs/bench/training.csv.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from pqag import networks, training, training_run  # noqa: E402
from pqag.study.model import parse_study, read_config  # noqa: E402

PAGE = ROOT / "docs/bench/training.csv"


class Row(NamedTuple):
    """One training: who trains, the seconds it took without the accuracy, milliseconds for an image, and the share of correct images."""

    network: str
    recipe: str
    seed: int
    epochs: int
    seconds: float
    ms_per_image: float
    accuracy: float


class Pictures(Dataset):
    """Pairs of a picture, transformed when it is asked for, and its class."""

    def __init__(self, data: training.Data, transform: transforms.Compose):
        self.pictures = [transforms.functional.to_pil_image(torch.from_numpy(image)) for image in data.images]
        self.labels, self.transform = data.labels.argmax(1).tolist(), transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[index]), self.labels[index]


def ours(settings: dict, data: training.Data, seed: int) -> torch.nn.Module:
    """Return a network trained as the workflow trains it."""
    recipe = training_run.recipe_of(settings)
    network = training_run.new_network(settings, data, seed)
    for _ in training.train(network, training.classification(network, recipe, False), data, recipe, seed):
        pass
    return network


def torchvisions(settings: dict, data: training.Data, seed: int) -> torch.nn.Module:
    """Return a network trained with the usual recipe."""
    torch.manual_seed(seed)
    mean, std = training.channel_statistics(data.images)
    network = networks.build(settings["network"], data.labels.shape[1], settings["width"], mean, std)
    if settings["network"] != "alexnet":  # torchvision has its own initialisation for VGG and ResNet
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    steps = [transforms.RandomCrop(32, padding=settings["crop"]), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    loader = DataLoader(Pictures(data, transforms.Compose(steps)), batch_size=128, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=settings["weight_decay"])
    epochs = settings["epochs"]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
        schedule.step()
    return network


def trainings(arguments: argparse.Namespace) -> Iterator[Row]:
    """Train every network with every seed by both recipes, in turn."""
    models = parse_study(read_config(ROOT / "config.yaml")).resolved()["models"]
    with h5py.File(arguments.images_file) as file:
        images, labels = (file[f"train/{part}"][: arguments.images] for part in ("images", "labels"))
    few = [(torch.from_numpy(images[:1]), torch.from_numpy(labels[:1]))]  # `train` measures an accuracy too, which is not to be timed
    data = training.Data(images, torch.from_numpy(labels), lambda: few, False, "", images.shape[-1])
    held_out = partial(training_run.held_out, arguments.images_file, torch.device("cpu"))
    for seed in range(arguments.seeds):
        for name in arguments.networks:
            settings = {key: models[name][key] for key in ("network", "width")} | models[name]["training"]
            settings["precision"] = arguments.precision
            for recipe, train, longer in (("pqag", ours, 1), ("torchvision", torchvisions, arguments.longer)):
                epochs = settings["epochs"] * longer
                begin = time.perf_counter()
                network = train(settings | {"epochs": epochs}, data, seed)
                seconds = time.perf_counter() - begin
                accuracy = training.accuracy(network.eval(), held_out())
                yield Row(name, recipe, seed, epochs, seconds, 1000 * seconds / epochs / len(images), accuracy)


def spread(values: list[float], form: str) -> str:
    """Return median, least and largest value in words."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    rows = []
    for row in trainings(arguments):
        rows.append(row)
        print(f"{row.network:10} {row.recipe:12} seed {row.seed}: {row.epochs} epochs, {row.seconds:.1f} s, {row.accuracy:.2%}", flush=True)
        with PAGE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Row._fields, *rows])
    for name in arguments.networks:
        mine, theirs = ([row for row in rows if (row.network, row.recipe) == (name, recipe)] for recipe in ("pqag", "torchvision"))
        ratios = [their.seconds / my.seconds for my, their in zip(mine, theirs)]
        gains = [100 * (my.accuracy - their.accuracy) for my, their in zip(mine, theirs)]
        costs = [their.ms_per_image / my.ms_per_image for my, their in zip(mine, theirs)]
        print(
            f"{name}, n = {len(mine)}, median and range: torchvision's recipe took {spread(ratios, '.1f')} times as long "
            f"({spread(costs, '.2f')} times for an image) and was less accurate by {spread(gains, '.1f')} points"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["alexnet", "vgg16", "resnet18"])
    parser.add_argument("--images-file", type=Path, default=ROOT / "results/default/fashion_mnist/images.h5")
    parser.add_argument("--images", type=int, help="only the first training images")
    parser.add_argument("--longer", type=int, default=3, help="epochs of the usual recipe for one of ours (3)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="float32")
    main(parser.parse_args())
