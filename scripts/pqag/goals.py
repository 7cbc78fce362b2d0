"""The codes that some losses aim at, or away from, chosen from the codes and labels of the victim's database.

A function of the name of a loss gives the goals of its queries. The digest of an attack covers that of its own loss (``CHOSEN`` in
job/provenance.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pqag.codebooks import Codebook
from pqag.errors import UserError


@dataclass(frozen=True)
class Known:
    """What a white-box attacker knows: the victim's codebook with the codes of its database, the labels of the database, multi-hot (N, C),
    and its ids (N,), and the labels of the queries, (Q, C), which a real attacker may lack.

    Raises UserError if the codebook is of another database.
    """

    codebook: Codebook
    database_labels: np.ndarray
    database_ids: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if not np.array_equal(self.database_ids, self.codebook.ids):
            raise UserError("the codebook of the victim encodes other images than those whose labels the attack was given")


def centre(known: Known) -> np.ndarray:
    """The centre code of the class of each query, int64 (Q, M): near the codes of what shares a label with it, far from all others.

    In each sub-space it is the codeword whose mean squared distance to those of relevant items, less that to those of other items, is the
    smallest. For K = 2 this is the sign formula of CgAT with plain means: its weights by label overlap are 0 or 1.
    """
    codes, distances = known.codebook.codes, _distances(known.codebook)
    found = np.empty((len(known.labels), codes.shape[1]), np.int64)
    for rows, relevant in _label_sets(known):
        shares = _shares(codes[relevant], distances) - _shares(codes[~relevant], distances)
        found[rows] = np.einsum("mkl,ml->mk", distances, shares).argmin(1)
    return found


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
