"""Retrieval against hand-worked numbers, every order of tied items, scikit-learn, faiss and SciPy."""

import json
from itertools import pairwise, permutations
from statistics import NormalDist

import faiss
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pqag import retrieval
from pqag.quantizer import decode, encode

SUMMARY = ("map", "map_worst", "map_best", "ci_low", "ci_high")

#: Items as (distance, relevant) with a relevant one; few distances, of any scale, make many ties.
one_item = st.tuples(st.sampled_from((-7, 0, 1e-9, 3)), st.booleans())
items = st.lists(one_item, min_size=1, max_size=6).filter(lambda items: any(relevant for _, relevant in items))
long_items = st.lists(one_item, min_size=1, max_size=40).filter(lambda items: any(relevant for _, relevant in items))


def precision_of(*items: tuple[float, bool], cut: int = retrieval.CUT) -> retrieval.Precision:
    """The average precision of one query, every item with a code of its own."""
    distances, relevant = np.array(items, dtype=float).T
    return retrieval.average_precision(distances[None], np.ones(len(items), int), relevant[None].astype(int), cut)


def numbers(precision: retrieval.Precision) -> list[float]:
    """Expected, worst and best of one query."""
    return [float(values[0]) for values in (precision.expected, precision.worst, precision.best)]


def in_order(relevant, cut: int | None = None) -> float:
    """Average precision of (the first ``cut`` items of) a strict ranking, by its definition."""
    relevant, total, hits = list(relevant), 0, 0
    for rank, hit in enumerate(relevant[:cut], 1):
        hits += hit
        total += hit * hits / rank
    return total / min(sum(relevant), cut or len(relevant))


def in_every_order(items, cut: int | None = None) -> list[float]:
    """Mean, minimum and maximum of the average precision over all orders of the items in which no distance falls."""
    orders = [order for order in permutations(items) if all(a[0] <= b[0] for a, b in pairwise(order))]
    values = [in_order((relevant for _, relevant in order), cut) for order in orders]
    return [sum(values) / len(values), min(values), max(values)]


def random_database(seed: int = 0, queries: int = 20, items: int = 60, words: int = 4) -> dict:
    """The arguments of ``evaluate``: three sub-spaces of two numbers, multi-hot labels of four classes."""
    rng = np.random.default_rng(seed)
    return {
        "query_features": rng.standard_normal((queries, 6)).astype(np.float32),
        "query_labels": rng.random((queries, 4)) < 0.3,
        "codewords": rng.standard_normal((3, words, 2)).astype(np.float32),
        "database_codes": rng.integers(0, words, (items, 3), np.uint8),
        "database_labels": rng.random((items, 4)) < 0.2,
    }


def assert_same(scores: dict, others: dict) -> None:
    """Two results of ``evaluate`` hold the same numbers, but for the rounding of sums."""
    assert scores.keys() == others.keys()
    for name, value in scores.items():
        if isinstance(value, dict):
            assert_same(value, others[name])
        else:
            np.testing.assert_allclose(np.array(value, float), np.array(others[name], float), rtol=1e-12, err_msg=name)


# Average precision


def test_average_precision_by_hand():
    # relevant, irrelevant, relevant: (1/1 + 2/3) / 2 = 5/6, in the only order there is.
    assert numbers(precision_of((1, True), (2, False), (3, True))) == pytest.approx([5 / 6] * 3)
    # One irrelevant item, then a tie R R N in three equally likely patterns:
    # RRN (1/2 + 2/3)/2 = 7/12, RNR (1/2 + 2/4)/2 = 1/2, NRR (1/3 + 2/4)/2 = 5/12, on average 1/2.
    tie = precision_of((1, False), (2, True), (2, False), (2, True))
    assert numbers(tie) == pytest.approx([1 / 2, 5 / 12, 7 / 12])


@settings(max_examples=60)
@given(items, st.integers(1, 7))
def test_average_precision_is_the_mean_over_all_orders_of_ties(items, cut):
    precision = precision_of(*items, cut=cut)
    assert numbers(precision) == pytest.approx(in_every_order(items))
    assert precision.within[0] == pytest.approx(in_every_order(items, cut)[0])


@settings(max_examples=20)
@given(long_items)
def test_items_grouped_by_code_score_as_items_one_by_one(items):
    """A code's items count as that many tied items, and codes at the same distance make one tie."""
    groups = [[i for i in items if i == key] for key in sorted(set(items))]
    ranking = np.array([[group[0][0] for group in groups]], float)
    relevant = np.array([[sum(hit for _, hit in group) for group in groups]])
    grouped = retrieval.average_precision(ranking, np.array([len(group) for group in groups]), relevant)
    single = precision_of(*items)
    assert numbers(grouped) == pytest.approx(numbers(single))
    np.testing.assert_allclose(grouped.curve, single.curve)


# Only the first items


def within(cut, *items):
    """Average precision of the first ``cut`` items of one query."""
    return float(precision_of(*items, cut=cut).within[0])


def test_average_precision_of_the_first_items_by_hand():
    # R N R R, the first three: (1/1 + 2/3)/3, since three of the three relevant could be among them. The first two: (1/1)/2; one: 1.
    ranked = [(1, True), (2, False), (3, True), (4, True)]
    assert [within(cut, *ranked) for cut in (1, 2, 3)] == pytest.approx([1, 1 / 2, 5 / 9])
    # N, then a tie R R N of which one place is among the first two: R with 2/3, at precision 1/2, of min(2, 2) that there could be.
    assert within(2, (1, False), (2, True), (2, True), (2, False)) == pytest.approx(2 / 3 * 1 / 2 / 2)
    # The tie alone, two places: RR (1 + 1)/2, RN 1/2, NR (1/2)/2, equally likely.
    assert within(2, (2, True), (2, True), (2, False)) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)


def test_a_query_without_relevant_items_has_no_average_precision():
    ranking, counts = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([1, 1])
    precision = retrieval.average_precision(ranking, counts, np.array([[0, 0], [0, 1]]))
    assert np.isnan([precision.expected[0], precision.worst[0], precision.best[0]]).all()
    assert [precision.expected[1], precision.curve[-1]] == pytest.approx([1 / 2, 1 / 2])
    alone = precision_of((1, False), (2, False))
    assert np.isnan(alone.expected).all() and np.isnan(alone.curve).all()


@pytest.mark.parametrize("ties", [[25, 25, 20, 10, 5, 4, 1], [7, 3], [29], [11, 13, 17]])
def test_a_perfect_ranking_has_precision_one_and_no_more(ties):
    counts = np.array([*ties, 100])
    relevant = np.array([[*ties, 0]])
    curve = retrieval.average_precision(np.arange(len(counts), dtype=float)[None], counts, relevant).curve
    assert curve.max() <= 1 and curve.min() == pytest.approx(1)


# Precision-recall curve


def test_curve_by_hand():
    # N R: recall w is reached at position 1 + w. A tie R R N N: recall w is 2 w items, at position 4 w. R N R: the first half at
    # precision 1, the rest after the irrelevant item, 2 w items at position 2 w + 1. N, then a tie R R N: 2 w items at position 1 + 3 w.
    recall = retrieval.RECALL_LEVELS
    assert recall.tolist() == [float(f"{i / 100:.2f}") for i in range(1, 101)]
    np.testing.assert_allclose(precision_of((1, False), (2, True)).curve, recall / (1 + recall))
    np.testing.assert_allclose(precision_of((1, True), (1, True), (1, False), (1, False)).curve, 1 / 2)
    tie = precision_of((1, False), (2, True), (2, False), (2, True))
    np.testing.assert_allclose(tie.curve, 2 * recall / (1 + 3 * recall))
    three = np.where(recall <= 1 / 2, 1, 2 * recall / (2 * recall + 1))
    np.testing.assert_allclose(precision_of((1, True), (2, False), (3, True)).curve, three)


def test_a_recall_reached_by_a_whole_item_does_not_wait_for_the_next():
    """Seven of a hundred relevant items lead a thousand irrelevant ones, so recall 7 % comes at precision 1 and recall 8 % at 8/1008."""
    ranked = [True] * 7 + [False] * 1000 + [True] * 93
    curve = precision_of(*enumerate(ranked)).curve
    np.testing.assert_allclose(curve[:8], [1] * 7 + [8 / 1008])


# Floor and chance


def test_floor_and_chance_by_hand():
    # Two relevant of four: worst N N R R (1/3 + 2/4)/2 = 5/12. Random, the mean of R R N N 1, R N R N 5/6, R N N R 3/4, N R R N 7/12,
    # N R N R 1/2 and N N R R 5/12: (12 + 10 + 9 + 7 + 6 + 5)/12/6 = 49/72. All relevant: 1. None relevant: no average precision.
    floor, chance = retrieval.constant_average_precision(4, np.array([2, 4, 0]))
    assert floor.tolist() == pytest.approx([5 / 12, 1, np.nan], nan_ok=True)
    assert chance.tolist() == pytest.approx([49 / 72, 1, np.nan], nan_ok=True)


# Distances


def test_distances_by_hand():
    # Codewords 0 and 4 in the first sub-space, 0 and 3 in the second. Query (1, 3), quantized (0, 3). To (0, 0): ADC 1 + 9, SDC 0 + 9;
    # to (4, 3): ADC 9 + 0, SDC 16 + 0. So the two kinds rank the two items differently.
    codewords = np.array([[[0], [4]], [[0], [3]]], np.float32)
    query, codes = np.array([[1, 3]], np.float32), np.array([[0, 0], [1, 1]])
    assert retrieval.distances(query, codes, codewords, "ADC").tolist() == [[10, 9]]
    assert retrieval.distances(query, codes, codewords, "SDC").tolist() == [[9, 16]]


def test_equal_codes_are_at_equal_distances_bit_for_bit():
    case = random_database(items=500)
    distinct, inverse = np.unique(case["database_codes"], axis=0, return_inverse=True)
    for kind in retrieval.DISTANCES:
        both = [retrieval.distances(case["query_features"], codes, case["codewords"], kind) for codes in (case["database_codes"], distinct)]
        assert (both[0] == both[1][:, inverse.ravel()]).all()


@pytest.mark.parametrize(("kind", "search"), [("ADC", faiss.IndexPQ.ST_PQ), ("SDC", faiss.IndexPQ.ST_SDC)])
def test_distances_are_those_of_faiss(kind, search):
    rng = np.random.default_rng(0)
    codewords = rng.standard_normal((4, 256, 2)).astype(np.float32)
    items, queries = (rng.standard_normal((count, 8)).astype(np.float32) for count in (300, 10))
    index = faiss.IndexPQ(8, 4, 8)
    faiss.copy_array_to_vector(codewords.ravel(), index.pq.centroids)
    index.pq.compute_sdc_table()
    index.is_trained, index.search_type = True, search
    index.add(items)
    codes = faiss.vector_to_array(index.codes).reshape(300, 4)
    assert (codes == encode(items, codewords)).all()
    nearest, order = index.search(queries, 300)
    own = retrieval.distances(queries, codes, codewords, kind)
    np.testing.assert_allclose(np.take_along_axis(own, order, axis=1), nearest, rtol=1e-4, atol=1e-5)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="unknown distance 'adc': known are SDC, ADC"):
        retrieval.distances(np.zeros((1, 2)), np.zeros((1, 2), int), np.zeros((2, 1, 1)), "adc")


# Index and relevance


def test_index_by_hand():
    # Items 1 and 3 share code (0, 1), items 0 and 4 share (1, 0), item 2 has (1, 1) alone.
    index = retrieval.index(np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]]))
    assert index.codes.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert index.order.tolist() == [1, 3, 0, 4, 2]
    assert index.starts.tolist() == [0, 2, 4]
    assert index.counts.tolist() == [2, 2, 1]


def test_items_that_share_a_label_are_relevant_by_hand():
    # Codes: items 0 and 2 have 0, item 1 has 1, item 3 has 2. Labels: {a, b}, {c}, {b}, {}.
    index = retrieval.index(np.array([[0], [1], [0], [2]]))
    database = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])
    queries = np.array([[0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]])
    # {b} meets items 0 and 2; {a, c} meets 0 and 1; {a, b, c} meets 0, 1 and 2, item 0 once only; {} meets none.
    for dtype in (bool, np.uint8):
        counts = retrieval.relevant_counts(index, database.astype(dtype), queries.astype(dtype))
        assert counts.tolist() == [[2, 0, 0], [1, 1, 0], [2, 1, 0], [0, 0, 0]]


# Bootstrap


def test_bootstrap_interval_by_hand():
    # The mean of two draws from {0, 1} is 0 with probability 1/4 and 1 with probability 1/4, both far above 2.5 %.
    assert retrieval.bootstrap_interval(np.array([0.0, 1.0])) == (0, 1)
    assert retrieval.bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_bootstrap_interval_is_scipys_and_the_normal_one(level):
    """Up to the noise of 10,000 resamples: 0.15 standard errors are more than four of its standard deviations at either end."""
    values = np.random.default_rng(1).beta(2, 3, 400)
    error = values.std() / 20
    interval = retrieval.bootstrap_interval(values, level=level)
    other = scipy.stats.bootstrap((values,), np.mean, confidence_level=level, n_resamples=10_000, method="percentile", rng=2, batch=500)
    assert interval == pytest.approx(tuple(other.confidence_interval), abs=0.15 * error)
    normal = [NormalDist(values.mean(), error).inv_cdf((1 + sign * level) / 2) for sign in (-1, 1)]
    assert interval == pytest.approx(normal, abs=0.15 * error)


def test_bootstrap_leaves_missing_values_out():
    values = np.random.default_rng(0).random(50)
    with_missing = np.insert(values, [0, 10, 50], np.nan)
    assert retrieval.bootstrap_interval(with_missing, resamples=500) == retrieval.bootstrap_interval(values, resamples=500)


def test_bootstrap_depends_on_the_seed_alone():
    values = np.random.default_rng(0).random(50)
    first, again, other = (retrieval.bootstrap_interval(values, seed=seed, resamples=500) for seed in (0, 0, 1))
    assert first == again != other
    assert all(type(end) is float for end in first)


# The whole evaluation


@pytest.fixture(scope="module")
def worked():
    """Four items, three queries, codewords 0 and 4 in the first sub-space, 0 and 3 in the second; labels a, b and c.

    Items: 0 is (0, 0) and a, 1 is (4, 3) and b, 2 is (0, 0) and b, 3 is (4, 0) and a.

    Query (1, 3), a: items 0 and 3 are relevant.
      SDC, from (0, 3): 9, 16, 9, 25. Ranking {0 2} 1 3; best R N N R (1/1 + 2/4)/2 = 3/4, worst N R N R (1/2 + 2/4)/2 = 1/2, mean 5/8.
      ADC: 10, 9, 10, 18. Ranking 1 {0 2} 3; best N R N R 1/2, worst N N R R (1/3 + 2/4)/2 = 5/12, mean 11/24.
    Query (4, 0), b: items 1 and 2 are relevant.
      SDC and ADC: 16, 9, 16, 0. Ranking 3 1 {0 2}; best N R R N (1/2 + 2/3)/2 = 7/12, worst N R N R 1/2, mean 13/24.
    Query (0, 0), c: nothing is relevant.
    """
    return retrieval.evaluate(
        query_features=np.array([[1, 3], [4, 0], [0, 0]], np.float32),
        query_labels=np.eye(3, dtype=np.uint8),
        codewords=np.array([[[0], [4]], [[0], [3]]], np.float32),
        database_codes=np.array([[0, 0], [1, 1], [0, 0], [1, 0]], np.uint8),
        database_labels=np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], np.uint8),
    )


def test_evaluate_counts_floor_and_chance_by_hand(worked):
    names = ("queries", "queries_without_relevant", "database", "distinct_database_codes")
    assert [worked[name] for name in names] == [3, 1, 4, 3]
    # Both queries have two relevant of four, see test_floor_and_chance_by_hand.
    assert [worked["map_floor"], worked["map_chance"]] == pytest.approx([5 / 12, 49 / 72])


def test_evaluate_sdc_by_hand(worked):
    # map (5/8 + 13/24)/2 = 7/12, worst (1/2 + 1/2)/2, best (3/4 + 7/12)/2 = 2/3. Of two queries the interval is from the one to the other.
    own = worked["SDC"]
    assert own["average_precision"] == pytest.approx([5 / 8, 13 / 24, None])
    assert own["map_5000"] == own["map"], "of four items all are among the first 5,000"
    assert [own[name] for name in SUMMARY] == pytest.approx([7 / 12, 1 / 2, 2 / 3, 13 / 24, 5 / 8])
    # Recall 1/2 is one hit: for the first query at the end of the tie, rank 2; for the second at rank 2. Recall 1: both at rank 4.
    assert [own["precision"][49], own["precision"][99]] == pytest.approx([1 / 2, 1 / 2])


def test_evaluate_adc_by_hand(worked):
    # map (11/24 + 13/24)/2 = 1/2, worst (5/12 + 1/2)/2 = 11/24, best (1/2 + 7/12)/2 = 13/24.
    own = worked["ADC"]
    assert own["average_precision"] == pytest.approx([11 / 24, 13 / 24, None])
    assert [own[name] for name in SUMMARY] == pytest.approx([1 / 2, 11 / 24, 13 / 24, 11 / 24, 13 / 24])
    # Recall 1/2: at rank 3 for the first query, at rank 2 for the second, (1/3 + 1/2)/2 = 5/12. Recall 1: both at rank 4.
    assert [own["precision"][49], own["precision"][99]] == pytest.approx([5 / 12, 1 / 2])


def test_evaluate_gives_plain_json(worked):
    assert json.loads(json.dumps(worked, allow_nan=False)) == worked
    assert worked["recall"] == retrieval.RECALL_LEVELS.tolist()


def test_evaluate_explains_its_numbers(worked):
    explained = {name.strip() for names in retrieval.DEFINITIONS for name in names.split(",")}
    assert {"SDC", "ADC", "map_floor", "map_chance", *worked["SDC"]} <= explained


def test_evaluate_is_scikit_learns_on_decoded_items_where_nothing_ties():
    """Every item has a code of its own, so that ADC makes no ties and the mean of scikit-learn's average precision is the map."""
    case = random_database() | {"database_codes": np.array(list(np.ndindex(4, 4, 4)))[:60]}
    relevant = (case["query_labels"][:, None] & case["database_labels"][None]).any(2)
    decoded = decode(case["database_codes"], case["codewords"]).astype(float)
    nearness = -np.linalg.norm(case["query_features"][:, None] - decoded, axis=2)
    reference = [average_precision_score(r, n) if r.any() else None for r, n in zip(relevant, nearness)]
    scores = retrieval.evaluate(**case)
    assert scores["ADC"]["average_precision"] == pytest.approx(reference)
    mean = np.mean([value for value in reference if value is not None])
    assert [scores["ADC"][name] for name in ("map", "map_worst", "map_best")] == pytest.approx([mean] * 3)
    assert scores["queries_without_relevant"] == reference.count(None) > 0


def test_block_size_and_order_of_items_change_no_number():
    case = random_database()
    whole = retrieval.evaluate(**case)
    assert 0 < whole["queries_without_relevant"] < whole["queries"]
    order = np.random.default_rng(1).permutation(60)
    assert_same(retrieval.evaluate(**case | {name: case[name][order] for name in ("database_codes", "database_labels")}, block=13), whole)
    assert_same(retrieval.evaluate(**case, block=1), whole)


def test_nothing_to_score_is_refused():
    case = random_database() | {"query_labels": np.zeros((20, 4), bool)}
    with pytest.raises(ValueError, match="no query shares a label"):
        retrieval.evaluate(**case)


SCALE = """
import json, resource, time
import numpy as np
from pqag import retrieval

rng = np.random.default_rng(0)
queries, items = 1000, 186_577 - 1000
case = {
    "query_features": rng.standard_normal((queries, 128)).astype(np.float32),
    "query_labels": (rng.random((queries, 10)) < 0.25).astype(np.uint8),
    "codewords": rng.standard_normal((4, 64, 32)).astype(np.float32),
    "database_codes": rng.integers(0, 64, (items, 4), np.uint8),
    "database_labels": (rng.random((items, 10)) < 0.25).astype(np.uint8),
}
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
scores = retrieval.evaluate(**case)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.monotonic() - start, "MiB": (after - before) / 1024, "map": scores["ADC"]["map"],
                  "map_5000": scores["ADC"]["map_5000"], "chance": scores["map_chance"], "codes": scores["distinct_database_codes"]}))
"""


@pytest.mark.slow
def test_nus_wide_is_scored_in_bounded_memory(python, record_property):
    """1,000 queries on 185,577 items with 24 random bits, nearly every code another; labels are random, so that mAP is that of chance."""
    done = python(SCALE, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    record_property("measured", measured)
    assert measured["MiB"] < 1500, measured
    assert measured["codes"] > 180_000
    assert measured["map"] == pytest.approx(measured["chance"], rel=0.02)


# What is retrieved first


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from(retrieval.DISTANCES))
def test_nearest_is_a_plain_sort_of_the_items(seed, kind):
    """Ties in the order of the database: a stable sort of the distances to every single item."""
    rng = np.random.default_rng(seed)
    codewords, codes = rng.normal(size=(2, 3, 2)).astype(np.float32), rng.integers(0, 3, (30, 2)).astype(np.uint8)
    queries = rng.normal(size=(4, 4)).astype(np.float32)
    ranking = retrieval.distances(queries, codes, codewords, kind)
    got = retrieval.nearest(queries, codewords, codes, 7, kind)
    for row, found in zip(ranking, got):
        assert found.tolist() == sorted(range(30), key=lambda item: (row[item], item))[:7]


def test_queries_are_chosen_by_what_they_lose():
    # Losses: 0.5, 0.1, 0.9, 0.5, and none for queries 2 and 5, without a relevant item. In order: query 1, 0, 4, 3.
    clean, attacked = [0.6, 0.6, None, 1.0, 0.9, 0.5], [0.1, 0.5, 0.3, 0.1, 0.4, None]
    assert retrieval.at_quantiles_of_loss(clean, attacked, [0, 1 / 3, 2 / 3, 1]) == [1, 0, 4, 3]
    assert retrieval.at_quantiles_of_loss(clean, attacked, [0.1, 0.2]) == [1, 0], "the nearest: place 0.3 and 0.6"
