"""Measure what docs/order.md says of the losses: `.venv/bin/python scripts/tools/order.py FOLDER`, the folder of a codebook in a study that
has made Basic, APD and AOD, such as results/ambiguity_default/cifar10/victim-pretrained/seed0/24bits.

The first table has the mean cosines of the losses' gradients on the unit sphere, over the queries, for each temperature and part of the way
from the clean feature to that of the AOD query, and how long the gradient of AOD is beside that of APD. The second says in how many
sub-spaces the codes of clean and of adversarial queries stand for another class than the query's.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pqag import codebooks, losses, names, storage  # noqa: E402
from pqag.show.ambiguity import items_of_codewords  # noqa: E402

ATTACKS, PAIRS = ("basic", "apd", "aod"), (("aod", "basic"), ("apd", "basic"), ("aod", "apd"))
TEMPERATURES, SHARES = (0.01, 0.1, 1.0, 10.0), (0.05, 0.2, 0.5, 1.0)


def gradient(loss, z: torch.Tensor, clean: torch.Tensor, head: losses.Head) -> torch.Tensor:
    """The gradient of a loss by the features z, float64 (N, D) of norm 1, without its part along z, which changes no direction."""
    z = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(z, clean, head).sum(), z)
    return found - (found * z.detach()).sum(1, keepdim=True) * z.detach()


def compared(z: torch.Tensor, clean: torch.Tensor, head: losses.Head) -> dict[str, float]:
    """The mean cosines of ``PAIRS``, and the length of AOD's gradient as a share of APD's, at the features z, float64 (N, D)."""
    of = {name: gradient(getattr(losses, name), z, clean, head) for name in ATTACKS}
    found = {f"{one}, {other}": F.cosine_similarity(of[one], of[other]).mean().item() for one, other in PAIRS}
    return found | {"length": (of["aod"].norm(dim=1) / of["apd"].norm(dim=1)).mean().item()}


def left(codes: np.ndarray, labels: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The share of queries whose ``codes``, (N, M), stand for another class than theirs in 0, 1, ... M sub-spaces, (M + 1,).

    A codeword stands for the class of most of its ``items``, (M, K, C); ``labels`` of the queries are one-hot (N, C).
    """
    classes = items.argmax(2)[np.arange(codes.shape[1]), codes]
    outside = (classes != labels.argmax(1)[:, None]).sum(1)
    return np.bincount(outside, minlength=codes.shape[1] + 1) / len(codes)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)) + "\n"


def main(folder: Path) -> None:
    """Print both tables of a codebook."""
    clean, labels = storage.read_hdf5(folder.parent / "features/query.h5", "features", "labels")
    [database_labels] = storage.read_hdf5(folder.parent / "features/database.h5", "labels")
    codebook = codebooks.read(folder / "codebook.h5")
    features = {"clean": clean} | {name: storage.read_hdf5(folder / f"adversarial/{name}.h5", "query/features")[0] for name in ATTACKS}
    start, end = (torch.from_numpy(codebook.rotated(features[name])).double() for name in ("clean", "aod"))
    rows = []
    for temperature, share in product(TEMPERATURES, SHARES):
        head = losses.Head(torch.from_numpy(codebook.codewords).double(), temperature=temperature)
        found = compared(F.normalize(torch.lerp(start, end, share), dim=1), start, head)
        rows.append([f"{temperature:g}", f"{share:g}", *(f"{number:.3f}" for number in found.values())])
    heads = [" and ".join(map(names.attack_name, pair)) for pair in PAIRS]
    print(table(["temperature", "part of the way", *heads, "length, AOD : APD"], rows))
    items = items_of_codewords(codebook, database_labels)
    shares = {name: 100 * left(codebooks.encode(codebook, found), labels, items) for name, found in features.items()}
    heads = [f"in {m} of {len(items)}, %" for m in range(len(items) + 1)]
    print(table(["queries", *heads], [[names.attack_name(name), *(f"{one:.1f}" for one in share)] for name, share in shares.items()]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
