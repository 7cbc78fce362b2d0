"""The codes that attacks aim at: against the search of all codes, and the formulas of hashing."""

import itertools

import numpy as np
import pytest

from pqag import goals
from pqag.codebooks import Codebook
from pqag.errors import UserError


def known(words=3, seed=0, items=40, labels=None):
    """A database of 40 items with two sub-spaces and three classes, some with several, and five queries."""
    rng = np.random.default_rng(seed)
    codebook = Codebook(
        rng.normal(size=(2, words, 2)).astype(np.float32), rng.integers(0, words, (items, 2)).astype(np.uint8), np.arange(items)
    )
    of_queries = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1]] if labels is None else labels
    return goals.Known(codebook, (rng.random((items, 3)) < 0.4).astype(np.uint8), np.arange(items), of_queries)


def squared_distance(codewords, one, other):
    return sum(((codewords[m, one[m]].astype(float) - codewords[m, other[m]]) ** 2).sum() for m in range(len(one)))


@pytest.mark.parametrize("seed", range(4))
def test_the_centre_is_the_best_of_all_codes(seed):
    """By the mean squared distance to the codes of relevant items less that to all others."""
    it = known(seed=seed, labels=np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1]], np.uint8))
    for labels, found in zip(it.labels, goals.centre(it)):
        relevant = (it.database_labels * labels).sum(1) > 0

        def cost(code, relevant=relevant):
            far = [squared_distance(it.codebook.codewords, code, other) for other in it.codebook.codes]
            return np.mean(np.array(far)[relevant]) - np.mean(np.array(far)[~relevant])

        assert tuple(found) == min(itertools.product(range(3), repeat=2), key=cost)


def test_the_centre_of_bits_is_the_sign_formula():
    """sign(mean of the relevant codes - mean of the others), for sub-spaces with the codewords -1 and 1."""
    it = known(words=2)
    bits = np.array([[[-1.0], [1.0]]] * 2, np.float32)
    it = goals.Known(Codebook(bits, it.codebook.codes, it.codebook.ids), it.database_labels, it.database_ids, it.labels)
    signs = 2.0 * it.codebook.codes - 1
    for labels, found in zip(it.labels, goals.centre(it)):
        relevant = it.database_labels[:, labels > 0].any(1)
        assert (2 * found - 1).tolist() == np.sign(signs[relevant].mean(0) - signs[~relevant].mean(0)).tolist()


def test_a_class_without_items_or_with_all_of_them_has_a_centre():
    it = known()
    for labels in (np.zeros((40, 3), np.uint8), np.ones((40, 3), np.uint8)):
        assert goals.centre(goals.Known(it.codebook, labels, it.database_ids, it.labels)).shape == (5, 2)


def test_codes_of_another_database_are_refused():
    it = known()
    with pytest.raises(UserError, match="encodes other images"):
        goals.Known(it.codebook, it.database_labels, it.database_ids + 1, it.labels)
