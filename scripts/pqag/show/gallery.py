"""The gallery: one page that shows, query by query, what each attack does to a victim.

The page has no other file. Its images are sheets of tiles: the queries and the perturbations exactly, so that the page can add them up, the
retrieved images compressed. ``gallery.html`` is its markup and script; names and numbers reach it as data, and are only ever shown as text.
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pqag import codebooks, retrieval
from pqag.codebooks import Codebook
from pqag.names import METHOD_NAMES, PRETRAINED, attack_name, model_name
from pqag.show.pages import embedded, filled

TEMPLATE = Path(__file__).with_name("gallery.html")
#: Retrieved images of a query; pixels on a side of an image on the page, at most; bytes of the page, at most.
COUNT, SIDE, LIMIT = 10, 64, 10_000_000
#: Queries that are ranked at once, or images that are made smaller, which bounds the memory.
BLOCK = 100


class Images(NamedTuple):
    """The images of a data set: its title, the names of its C classes, the first Q queries, uint8 (Q, 3, H, H), multi-hot labels of these
    (Q, C) and of the database (N, C), and the images of the database (N, 3, H, H), an array or an HDF5 dataset: only some rows are read."""

    title: str
    classes: Sequence[str]
    queries: np.ndarray
    labels: np.ndarray
    database_labels: np.ndarray
    database: Any


class Victim(NamedTuple):
    """A victim and what its queries are: clean, then after each of A attacks, in the order of the study.

    codebook: its codebook. features: A + 1 arrays (Q, D), not rotated. attacked: A arrays of images, uint8 (Q, 3, H, H). scores: the
    contents of A + 1 files of metrics, of all queries.
    """

    dataset: str
    model: str
    codebook: Codebook
    features: Sequence[np.ndarray]
    attacked: Sequence[np.ndarray]
    scores: Sequence[Mapping[str, Any]]


def page(settings: Mapping[str, Any], datasets: Mapping[str, Images], victims: Sequence[Victim], limit: int = LIMIT) -> str:
    """Return the page. ``settings`` are those of the rule, see ``pqag.study.settings.gallery``.

    It shows the first ``queries`` queries of each data set, or as many as fit into ``limit`` bytes (but at least one), and says so.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    found = [_found(victim, datasets[victim.dataset]) for victim in victims]
    count = wanted = min(settings["queries"], max(len(images.queries) for images in datasets.values()))
    while True:
        data = _data(settings, datasets, victims, found, count) | {"fit": count if count < wanted else None}
        text = filled(template, {"study": escape(settings["study"]), "data": embedded(data)}, "img-src data:")
        if (size := len(text.encode())) <= limit or count == 1:
            return text
        count = max(1, min(count - 1, int(0.95 * count * limit / size)))


class _Found(NamedTuple):
    """What the queries of a victim find: their codes (A + 1, Q, M); by distance, the numbers of the database images that they retrieve
    first, int (A + 1, Q, n), and which of these are relevant, bool (A + 1, Q, n)."""

    codes: np.ndarray
    first: dict[str, np.ndarray]
    relevant: dict[str, np.ndarray]


def _found(victim: Victim, images: Images) -> _Found:
    codebook = victim.codebook
    features = victim.features

    def nearest(queries: np.ndarray, kind: str) -> np.ndarray:
        return np.concatenate([codebooks.nearest(codebook, block, COUNT, kind) for block in _blocks(queries)])

    first = {kind: np.stack([nearest(one, kind) for one in features]) for kind in retrieval.DISTANCES}
    relevant = {kind: (images.database_labels[items] & images.labels[:, None]).any(-1) for kind, items in first.items()}
    return _Found(np.stack([codebooks.encode(codebook, one) for one in features]), first, relevant)


def _data(settings: Mapping[str, Any], datasets: Mapping[str, Images], victims: Sequence[Victim], found: Sequence[_Found], count: int):
    """What the page shows of the first ``count`` queries, as plain values, except whether more would fit."""
    items = {
        name: np.unique([one.first[kind][:, :count] for one, victim in zip(found, victims) if victim.dataset == name for kind in one.first])
        for name in datasets
    }
    return {
        **{key: settings[key] for key in ("study", "bits", "seed", "attack")},
        "asked": settings["queries"],
        "attacks": [{"name": name, "title": attack_name(name), **_strength(one)} for name, one in settings["attacks"].items()],
        "series": series(settings["attacks"]),
        "datasets": {name: _of_dataset(images, items[name], count) for name, images in datasets.items()},
        "victims": [
            _of_victim(victim, one, datasets[victim.dataset].queries[:count], items[victim.dataset]) | {"cells": _cells(victim, settings)}
            for victim, one in zip(victims, found)
        ],
    }


def series(attacks: Mapping[str, Mapping[str, Any]]) -> list[list[int]]:
    """Return the attacks that differ in epsilon alone: the numbers of the attacks of each such group, by rising epsilon."""
    groups: dict[str, list[int]] = {}
    for number, attack in enumerate(attacks.values()):
        chosen = {"step": None} if attack["method"] in ("fgsm", "apgd") else {}  # it follows from epsilon
        same = {**attack, "epsilon": None, **chosen}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(number)
    epsilons = [attack["epsilon"] for attack in attacks.values()]
    return [sorted(group, key=epsilons.__getitem__) for group in groups.values() if len(group) > 1]


def _strength(attack: Mapping[str, Any]) -> dict[str, Any]:
    method, count = attack["method"], attack["iterations"]
    words = [] if method == "pgd" else [METHOD_NAMES.get(method, method)]
    words += [f"pixels within {attack['epsilon']:g} grey levels", f"{count} step{'s' * (count > 1)} of {attack['step']:g}"]
    words += [f"the best of {attack['restarts']} starts"] if "restarts" in attack else []
    return {"epsilon": attack["epsilon"], "about": ", ".join(words)}


def _of_dataset(images: Images, items: np.ndarray, count: int) -> dict[str, Any]:
    queries = thinned(images.queries[:count])
    return {
        "title": images.title,
        "classes": list(images.classes),
        "pixels": images.queries.shape[3],
        "side": queries.shape[3],
        "labels": _numbers(images.labels[:count]),
        "queries": sheet(queries, lossless=True),
        "items": {
            "numbers": items.tolist(),
            "labels": _numbers(images.database_labels[items]),
            "sheet": sheet(np.concatenate([averaged(images.database[block]) for block in _blocks(items)]), quality=90),
        },
    }


def _of_victim(victim: Victim, found: _Found, queries: np.ndarray, items: np.ndarray) -> dict[str, Any]:
    """``items`` are the database images on the page, int (n), sorted; retrieved images are given by their places among these."""
    count = len(queries)
    return {
        "dataset": victim.dataset,
        "model": victim.model,
        "title": model_name(victim.model),
        "wordBits": (victim.codebook.codewords.shape[1] - 1).bit_length(),
        "queries": len(victim.scores[0][retrieval.DISTANCES[0]]["average_precision"]),
        "codes": found.codes[:, :count].tolist(),
        "changes": [sheet(thinned(images[:count] - queries), lossless=True) for images in victim.attacked],  # modulo 256
        "distances": {
            kind: {
                "map": [score[kind]["map"] for score in victim.scores],
                "precision": [score[kind]["average_precision"][:count] for score in victim.scores],
                "first": np.searchsorted(items, found.first[kind][:, :count]).tolist(),
                "relevant": found.relevant[kind][:, :count].astype(int).tolist(),
            }
            for kind in retrieval.DISTANCES
        },
    }


def _cells(victim: Victim, settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The cells that hold the mAP of a victim, clean and after each attack, by distance; none if no table shows it."""
    if (table := settings["tables"].get(victim.model)) is None:
        return {}

    def name(score: Mapping[str, Any], kind: str) -> str:
        trained = "" if score["training"] == PRETRAINED else f"{score['training']}/"
        return f"{table}:{victim.dataset}/{trained}{score['attack']}/{victim.model}/{settings['bits']}/{kind}"

    return {kind: [name(score, kind) for score in victim.scores] for kind in retrieval.DISTANCES}


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]


def _numbers(labels: np.ndarray) -> list[list[int]]:
    """The numbers of the classes of each image, from multi-hot labels (n, C)."""
    return [np.flatnonzero(row).tolist() for row in labels]


def _factor(images: np.ndarray) -> int:
    return math.ceil(images.shape[3] / SIDE)


def thinned(images: np.ndarray) -> np.ndarray:
    """Images (n, 3, H, H) of at most ``SIDE`` pixels: every second, third … pixel, so that a perturbation looks as strong as it is."""
    factor = _factor(images)
    size = images.shape[3] // factor * factor
    return images[:, :, factor // 2 : size : factor, factor // 2 : size : factor]


def averaged(images: np.ndarray) -> np.ndarray:
    """Images uint8 (n, 3, H, H) of the same size as ``thinned`` ones: the means of as many pixels."""
    factor = _factor(images)
    side = images.shape[3] // factor
    blocks = images[:, :, : side * factor, : side * factor].reshape(len(images), 3, side, factor, side, factor)
    return blocks.mean((3, 5)).round().astype(np.uint8)


def sheet(images: np.ndarray, **options: Any) -> str:
    """Images uint8 (n, 3, H, H) as one WebP picture of about as many columns as rows, filled row by row, as a data URI.

    ``options`` are those of Pillow: ``lossless`` or ``quality``.
    """
    count, _, side, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = np.zeros((rows * columns, 3, side, side), np.uint8)
    tiles[:count] = images
    pixels = tiles.reshape(rows, columns, 3, side, side).transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
