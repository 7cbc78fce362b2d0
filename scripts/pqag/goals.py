"""The codes that some losses aim at, or away from, chosen from the codes and labels of the victim's database.

A function of the name of a loss gives the goals of its queries. The digest of an attack covers that of its own loss (``CHOSEN`` in
job/provenance.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pqag.codebooks import Codebook
from pqag.errors import UserError


@dataclass(frozen=True)
class Known:
    """What a white-box attacker knows: the victim's codebook with the codes of its database, the labels of the database, multi-hot (N, C),
    and its ids (N,), the labels of the queries, (Q, C), which a real attacker may lack, and their ids (Q,).

    target: what a targeted loss aims at: ``class``, a number or one of ``classes``, or ``items``, ids of database images. seed: for draws.
    Raises UserError if the codebook is of another database.
    """

    codebook: Codebook
    database_labels: np.ndarray
    database_ids: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    seed: int = 0
    target: Mapping[str, Any] | None = None
    classes: Sequence[str] = ()

    def __post_init__(self):
        if not np.array_equal(self.database_ids, self.codebook.ids):
            raise UserError("the codebook of the victim encodes other images than those whose labels the attack was given")


@dataclass(frozen=True)
class Goals:
    """For each query the code that a loss aims at or away from, int64 (Q, M), and, for a targeted loss, the labels of its target, uint8
    (Q, C): none for a query that shares one of them, which a target cannot lead away from."""

    codes: np.ndarray
    labels: np.ndarray | None = None


def centre(known: Known) -> Goals:
    """The centre code of the class of each query: near the codes of what shares a label with it, far from all others.

    In each sub-space it is the codeword whose mean squared distance to those of relevant items, less that to those of other items, is the
    smallest. For K = 2 this is the sign formula of CgAT with plain means: its weights by label overlap are 0 or 1. Full-length codewords
    are taken table by table too, as if the tables were independent.
    """
    codes, distances = known.codebook.codes, _distances(known.codebook)
    found = np.empty((len(known.labels), codes.shape[1]), np.int64)
    for rows, relevant in _label_sets(known):
        shares = _shares(codes[relevant], distances) - _shares(codes[~relevant], distances)
        found[rows] = _nearest(distances, shares)
    return Goals(found)


def p2p(known: Known) -> Goals:
    """The code of one item of the target for each query, drawn from (seed, id of the query)."""
    rows = _rows_of_target(known)
    # The random start of an attack is drawn from (seed, id) and (seed, id, restart).
    draws = [np.random.default_rng([known.seed, int(i), 0, 1]).integers(len(rows)) for i in known.ids]
    chosen = rows[np.array(draws, dtype=np.int64)]
    return Goals(known.codebook.codes[chosen].astype(np.int64), _labels_of_target(known, known.database_labels[chosen]))


def dhta(known: Known) -> Goals:
    """The anchor code of the target, the same for all queries: of all codes the one with the smallest mean distance to those of its items.

    For K = 2 this is the vote over bits of DHTA; it goes over all items of a class instead of nine that are drawn. As for ``centre``,
    full-length codewords are taken table by table.
    """
    rows, distances = _rows_of_target(known), _distances(known.codebook)
    anchor = _nearest(distances, _shares(known.codebook.codes[rows], distances))
    labels = np.broadcast_to(known.database_labels[rows].any(0), known.labels.shape)
    return Goals(np.tile(anchor, (len(known.labels), 1)), _labels_of_target(known, labels))


def _rows_of_target(known: Known) -> np.ndarray:
    """The places of the target's items in the database, int64; raises UserError if there are none, or no such class or item."""
    if (items := known.target.get("items")) is not None:
        place = {int(number): row for row, number in enumerate(known.database_ids)}
        if unknown := [item for item in items if item not in place]:
            raise UserError(f"the target has the item {unknown[0]}, which is not the id of a database image")
        return np.array([place[item] for item in items])
    rows = np.flatnonzero(known.database_labels[:, _number_of_class(known)])
    if not len(rows):
        raise UserError(f"the target is the class {known.target['class']!r}, but no database image is of it")
    return rows


def _number_of_class(known: Known) -> int:
    wanted, count = known.target["class"], known.database_labels.shape[1]
    number = list(known.classes).index(wanted) if wanted in known.classes else wanted
    if isinstance(number, str) or number >= count:
        raise UserError(f"the target is the class {wanted!r}, but the data set has {count} classes: {', '.join(known.classes)}")
    return number


def _labels_of_target(known: Known, of_items: np.ndarray) -> np.ndarray:
    """What counts as relevant for a targeted query, uint8 (Q, C): the class of the target, or the labels of its items, (Q, C)."""
    labels = np.array(of_items, dtype=np.uint8)
    if known.target.get("items") is None:
        labels = np.zeros_like(labels)
        labels[:, _number_of_class(known)] = 1
    labels[(labels * known.labels).any(1)] = 0
    return labels


def _nearest(distances: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """In each sub-space the codeword with the smallest mean distance, weighted by ``shares`` (M, K), int64 (M,)."""
    return np.einsum("mkl,ml->mk", distances, shares).argmin(1)


def _label_sets(known: Known) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each set of labels the queries that have it, and which items are relevant to these, bool (N,)."""
    sets, set_of = np.unique(known.labels, axis=0, return_inverse=True)
    for number, labels in enumerate(sets):
        yield np.flatnonzero(set_of.ravel() == number), known.database_labels[:, labels > 0].any(1)


def _distances(codebook: Codebook) -> np.ndarray:
    """Squared distances between the codewords of each sub-space, float64 (M, K, K)."""
    codewords = codebook.codewords.astype(np.float64)
    return ((codewords[:, :, None] - codewords[:, None]) ** 2).sum(3)


def _shares(codes: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The share of each codeword among ``codes`` (n, M), float64 (M, K); zeros if there are none."""
    counts = [np.bincount(codes[:, m], minlength=distances.shape[1]) for m in range(codes.shape[1])]
    return np.array(counts) / max(1, len(codes))
