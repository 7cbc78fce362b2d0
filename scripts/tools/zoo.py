"""Put the trained networks of a study into the zoo: `make zoo STUDY=config/cifar10.yaml`, or by hand, with names of models or without:

    python scripts/tools/zoo.py config/cifar10.yaml vgg16

Each becomes zoo/DATASET_MODEL: its weights, for a network that was trained with its codebook one file a code length with the codewords,
and a card: the records of the training, the accuracy, and the mAP of clean and of attacked queries. What is not trained yet is left out,
and so the command can be given again whenever something is. It needs no scores of the study: it measures with the files that it
writes, on the database and the queries of the study, first seed. Weights are rounded to half precision where no mAP changes by more than
0.5 points, of any attack or distance; the card says by how much they change.
"""

import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pqag import api, checkpoints, files, names, quantizer, storage, user_code  # noqa: E402
from pqag.errors import UserError  # noqa: E402
from pqag.job import records  # noqa: E402
from pqag.retrieval import DISTANCES  # noqa: E402
from pqag.study.model import parse_study, read_config  # noqa: E402
from pqag.study.scores import is_fine_tuned  # noqa: E402
from pqag.study.settings import attack as settings_of_attack  # noqa: E402
from pqag.study.settings import maker_of  # noqa: E402

#: The largest change of any mAP, in points, with which weights are stored in half precision.
ALLOWED = 0.5

#: Tensors by name, and for a network that was trained with its codebook the codewords, float (M, K, D/M).
Weights = dict[str, torch.Tensor]


def rounded(weights: Weights) -> Weights:
    """``weights`` with all floats in half precision."""
    return {key: one.half() if one.is_floating_point() else one for key, one in weights.items()}


class Trained:
    """A network of a study, for all code lengths or, trained with its codebook, for one: its folder, and what its files say."""

    def __init__(self, study: dict[str, Any], dataset: str, model: str, bits: int | None):
        self.study, self.model, self.bits, self.seed = study, model, bits, study["seeds"][0]
        training = names.PRETRAINED if bits is None else f"{names.JOINT}{bits}"
        self.folder = Path("results", study["study"], dataset, f"{model}-{training}", f"seed{self.seed}")
        self.images = self.folder.parents[1] / "images.h5"
        self.record = self.folder / f"weights{records.SUFFIX}"

    @property
    def name(self) -> str:
        """The name of its file in the zoo."""
        return "weights.safetensors" if self.bits is None else f"{self.bits}bits.safetensors"

    def is_finished(self) -> bool:
        """Whether the training has ended: the record, written last, names the weights as they are."""
        weights = self.folder / "weights.pt"
        if not weights.is_file() or not self.record.is_file():
            return False
        return files.sha256(weights) in records.outputs(files.read_json(self.record)).values()

    def weights(self) -> Weights:
        """Its tensors, and its codewords."""
        found = {key: one.contiguous() for key, one in checkpoints.load(self.folder / "weights.pt")["weights"].items()}
        if self.bits is not None:
            [codewords] = storage.read_hdf5(self.folder / "codewords.h5", "codewords")
            found["codewords"] = torch.from_numpy(codewords)
        return found

    def accuracy(self) -> float:
        """Of the last epoch, in percent."""
        with (self.folder / "training.csv").open(encoding="utf-8") as file:
            return round(100 * float(list(csv.DictReader(file))[-1]["test_accuracy"]), 1)

    def measured(self, weights: Weights) -> dict[str, dict[str, dict[str, float]]]:
        """The mAP (%) with these weights of the clean queries and of those of every attack, by code length, attack and distance."""
        network = checkpoints.load_network(self.folder / "weights.pt")
        network.load_state_dict({key: one for key, one in weights.items() if key != "codewords"})
        database, of_database = storage.read_hdf5(self.images, "database/images", "database/labels")
        queries, labels, ids = storage.read_hdf5(self.images, "query/images", "query/labels", "query/ids")
        z = api.features(api.Victim(network), database)
        how, found = self.study["models"][self.model]["quantizer"], {}
        for bits in self.study["bits"] if self.bits is None else [self.bits]:
            if self.bits is None:
                codebook = api.fit_codebook(z, bits, how["subspaces"], how["method"], self.seed, how["iterations"])
            else:
                fit = quantizer.fitted(z, weights["codewords"].float().numpy())
                codebook = api.Codebook(fit.codewords, fit.codes, np.arange(len(z)))
            victim, scores = api.Victim(network, codebook, of_database), {}
            for attack, attacked in {names.CLEAN: queries, **dict(self._attacked(victim, queries, ids))}.items():
                score = api.evaluate(victim, attacked, labels)
                scores[attack] = {kind: 100 * score[kind]["map"] for kind in DISTANCES}
            found[f"{bits}bits"] = scores
        return found

    def _attacked(self, victim: api.Victim, queries: np.ndarray, ids: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The queries after every attack of ours in the study that needs nothing but its victim, and keeps a ball."""
        for attack in self.study["attacks"]:
            settings = settings_of_attack({"attack": attack, "model": self.model}, self.study)
            loss, method = settings["loss"], settings["method"]
            if loss not in api.LOSSES or method not in api.METHODS or method in names.UNBOUNDED:
                continue
            options = {key: settings[key] for key in ("loss", "epsilon", *api.OPTIONS) if key in settings}
            yield attack, api.attack(victim, queries, seed=self.seed, ids=ids, **options)


def largest_change(one: dict, other: dict) -> float:
    """The largest difference between two nested mappings with the same keys and numbers in them."""
    if isinstance(one, dict):
        return max(largest_change(one[key], other[key]) for key in one)
    return abs(one - other)


def to_one_place(value: Any) -> Any:
    """Nested mappings with the numbers in them rounded to one decimal place, as tables show them."""
    return {key: to_one_place(one) for key, one in value.items()} if isinstance(value, dict) else round(value, 1)


def add(part: Trained, name: str) -> None:
    """Write ``part`` to zoo/``name``; what is there of the same network for other code lengths stays."""
    whole = part.weights()
    half = rounded(whole)
    exact, coarse = part.measured(whole), part.measured(half)
    change = round(largest_change(exact, coarse), 2)
    precision = "float16" if change <= ALLOWED else "float32"
    target, saved = user_code.ZOO / name, checkpoints.load(part.folder / "weights.pt")
    groups = None if part.bits is None else {"feature_groups": str(saved["feature_groups"])}
    content = save(half if precision == "float16" else whole, groups)
    network = {"network": saved["model"]} | {key: saved[key] for key in ("width", "classes", "image_size")}
    found = {
        "accuracy": part.accuracy(),
        "precision": precision,
        "half_precision_changes_map_by": change,
        "record": files.read_json(part.record),
    }
    if part.bits is not None:
        found = {key: {f"{part.bits}bits": value} for key, value in found.items()}
    found |= {
        "map": to_one_place(coarse if precision == "float16" else exact),
        "files": {part.name: hashlib.sha256(content).hexdigest()},
        "record": found.pop("record"),
    }
    if part.bits is not None and (target / "card.json").is_file():
        before = files.read_json(target / "card.json")
        if {key: before[key] for key in network} == network and isinstance(before["accuracy"], dict):
            found = {key: dict(sorted((before[key] | value).items())) for key, value in found.items()}
    files.write_bytes(target / part.name, content)
    files.write_json(target / "card.json", network | found)
    for old in target.glob("*.safetensors"):
        if old.name not in found["files"]:
            old.unlink()
    print(f"zoo/{name}/{part.name}: {len(content):,} bytes as {precision}; half precision changes the mAP by up to {change} points")


def main(path: str, *models: str) -> None:
    """Add the trained models of the study at ``path``, all or those named; raises UserError for a name that it does not have."""
    study = parse_study(read_config(path), path).resolved()
    for model in models:
        if model not in study["models"]:
            raise UserError(f"{model} is no model of {path}, which has {', '.join(study['models'])}")
    for dataset in study["datasets"]:
        for model in models or study["models"]:
            maker, lengths = maker_of(study["models"][model]), study["bits"]
            if maker not in ("pretrain", "train_joint") or is_fine_tuned(study["models"][model]):
                print(f"{model}: not trained by this study from new weights, left out")
                continue
            for bits in lengths if maker == "train_joint" else [None]:
                part = Trained(study, dataset, model, bits)
                if part.is_finished():
                    add(part, f"{dataset.removesuffix('_mnist')}_{model}")
                else:
                    train = f"snakemake --configfile {path} --cores 2 {part.folder}/weights.pt"
                    print(f"{model} on {dataset}{f' at {bits} bits' * (bits is not None)}: not trained yet, left out; `{train}` trains it")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
