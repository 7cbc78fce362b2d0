"""The codes that attacks aim at: against the search of all codes, and the formulas of hashing."""

import itertools
from dataclasses import replace

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
    of_items = (rng.random((items, 3)) < 0.4).astype(np.uint8)
    return goals.Known(codebook, of_items, np.arange(items), of_queries, np.arange(70, 70 + len(of_queries)), classes=["a", "b", "c"])


def of_bits():
    """The same with the codewords -1 and 1 in each sub-space."""
    it = known(words=2)
    bits = np.array([[[-1.0], [1.0]]] * 2, np.float32)
    return replace(it, codebook=Codebook(bits, it.codebook.codes, it.codebook.ids))


def squared_distance(codewords, one, other):
    return sum(((codewords[m, one[m]].astype(float) - codewords[m, other[m]]) ** 2).sum() for m in range(len(one)))


@pytest.mark.parametrize("seed", range(4))
def test_the_centre_is_the_best_of_all_codes(seed):
    """By the mean squared distance to the codes of relevant items less that to all others."""
    it = known(seed=seed, labels=np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1]], np.uint8))
    for labels, found in zip(it.labels, goals.centre(it).codes):
        relevant = (it.database_labels * labels).sum(1) > 0

        def cost(code, relevant=relevant):
            far = [squared_distance(it.codebook.codewords, code, other) for other in it.codebook.codes]
            return np.mean(np.array(far)[relevant]) - np.mean(np.array(far)[~relevant])

        assert tuple(found) == min(itertools.product(range(3), repeat=2), key=cost)


def test_the_centre_of_bits_is_the_sign_formula():
    """sign(mean of the relevant codes - mean of the others), for sub-spaces with the codewords -1 and 1."""
    it = of_bits()
    signs = 2.0 * it.codebook.codes - 1
    for labels, found in zip(it.labels, goals.centre(it).codes):
        relevant = it.database_labels[:, labels > 0].any(1)
        assert (2 * found - 1).tolist() == np.sign(signs[relevant].mean(0) - signs[~relevant].mean(0)).tolist()


def test_a_class_without_items_or_with_all_of_them_has_a_centre():
    it = known()
    for labels in (np.zeros((40, 3), np.uint8), np.ones((40, 3), np.uint8)):
        assert goals.centre(replace(it, database_labels=labels)).codes.shape == (5, 2)


def test_codes_of_another_database_are_refused():
    it = known()
    with pytest.raises(UserError, match="encodes other images"):
        replace(it, database_ids=it.database_ids + 1)


@pytest.mark.parametrize("target", [{"class": "b"}, {"class": 1}, {"items": [3, 14, 15, 9, 26]}])
def test_the_anchor_of_dhta_is_the_best_of_all_codes_and_p2p_draws_an_item(target):
    it = replace(known(), target=target)
    items = target.get("items") or np.flatnonzero(it.database_labels[:, 1]).tolist()
    best = min(
        itertools.product(range(3), repeat=2),
        key=lambda code: sum(squared_distance(it.codebook.codewords, code, it.codebook.codes[item]) for item in items),
    )
    anchor, points = goals.dhta(it), goals.p2p(it)
    assert anchor.codes.tolist() == [list(best)] * 5
    assert {tuple(code) for code in points.codes} <= {tuple(code) for code in it.codebook.codes[items]} and points.codes.dtype == np.int64
    some = replace(it, labels=it.labels[2:4], ids=it.ids[2:4])
    assert np.array_equal(goals.p2p(some).codes, points.codes[2:4]), "by the id of the query alone"
    many = replace(it, labels=np.zeros((60, 3), np.uint8), ids=np.arange(60))
    assert len(np.unique(goals.p2p(many).codes, axis=0)) == len(np.unique(it.codebook.codes[items], axis=0))
    assert not np.array_equal(goals.p2p(replace(many, seed=1)).codes, goals.p2p(many).codes)


def test_the_anchor_of_bits_is_the_vote():
    it = replace(of_bits(), target={"items": [1, 2, 3, 4, 5]})
    assert (2 * goals.dhta(it).codes[0] - 1).tolist() == np.sign((2.0 * it.codebook.codes[1:6] - 1).sum(0)).tolist()


def test_relevant_is_what_has_a_label_of_the_target_and_queries_that_have_one_are_left_out():
    it = replace(known(), target={"class": "b"})
    for of in (goals.dhta, goals.p2p):
        assert of(it).labels.tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
    labels = it.database_labels.copy()
    labels[[7, 8]] = [[1, 0, 0], [0, 1, 0]]
    it = replace(it, database_labels=labels, target={"items": [7, 8]})
    assert goals.dhta(it).labels.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert all(row in ([1, 0, 0], [0, 1, 0], [0, 0, 0]) for row in goals.p2p(it).labels.tolist())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"class": "d"}, "the target is the class 'd', but the data set has 3 classes: a, b, c"),
        ({"class": 3}, "the target is the class 3, but the data set has 3 classes"),
        ({"class": "c"}, "the target is the class 'c', but no database image is of it"),
        ({"items": [0, 40]}, "the target has the item 40, which is not the id of a database image"),
    ],
)
def test_a_target_that_does_not_exist_is_told_in_a_sentence(target, words):
    it = known(labels=np.array([[1, 0, 0], [1, 1, 0]], np.uint8))
    labels = it.database_labels.copy()
    labels[:, 2] = 0
    for of in (goals.dhta, goals.p2p):
        with pytest.raises(UserError, match=words):
            of(replace(it, database_labels=labels, target=target))
