"""Put a trained network into the zoo: `make zoo` after the default study, or by hand from any finished study.

    python scripts/tools/zoo.py results/default/fashion_mnist/resnet18-pretrained/seed0 fashion_resnet18

Writes the weights, and a card that says what they are: the record of the training, the accuracy, and the mAP of clean and of attacked
queries in that study. Weights in half precision changed the mAP of 64 attacked queries by up to 0.5 points, so they are not rounded.
"""

import csv
import hashlib
import re
import sys
from pathlib import Path

from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pqag import checkpoints, files, user_code  # noqa: E402
from pqag.job import records  # noqa: E402
from pqag.retrieval import DISTANCES  # noqa: E402


def scores(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mAP (%) of the queries that were made for the victim, and of the clean ones, by code length, attack and distance."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    own = folder.parent.name
    for path in sorted(folder.glob("*bits/metrics/*.json")):
        bits = path.parents[1].name
        if not path.name.endswith(records.SUFFIX) and (path.stem == "clean" or path.stem.endswith(f".{own}-{bits}")):
            values = files.read_json(path)
            found.setdefault(bits, {})[values["attack"]] = {kind: round(100 * values[kind]["map"], 1) for kind in DISTANCES}
    return found


def add(folder: Path, name: str) -> None:
    """Write zoo/``name`` from the ``folder`` of a victim of a finished study."""
    if not re.fullmatch(r"[a-z0-9_]+", name):
        sys.exit(f"{name} is no name for a victim of the zoo: allowed are a-z, 0-9 and _")
    saved = checkpoints.load(folder / "weights.pt")
    with (folder / "training.csv").open(encoding="utf-8") as file:
        accuracy = float(list(csv.DictReader(file))[-1]["test_accuracy"])
    content = save({key: one.contiguous() for key, one in saved["weights"].items()})
    target = user_code.ZOO / name
    target.mkdir(parents=True, exist_ok=True)
    files.write_bytes(target / "weights.safetensors", content)
    card = {
        "network": saved["model"],
        "width": saved["width"],
        "classes": saved["classes"],
        "image_size": saved["image_size"],
        "accuracy": round(100 * accuracy, 1),
        "map": scores(folder),
        "files": {"weights.safetensors": hashlib.sha256(content).hexdigest()},
        "record": files.read_json(folder / f"weights{records.SUFFIX}"),
    }
    files.write_json(target / "card.json", card)
    print(f"{target}: {len(content)} bytes")


if __name__ == "__main__":
    add(Path(sys.argv[1]), sys.argv[2])
