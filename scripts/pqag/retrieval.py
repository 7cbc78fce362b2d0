"""Exact retrieval with product-quantized databases and its evaluation: SDC and ADC, average precision with ties, PR curves.

Items with the same code have the same distance from any query, so the *distinct* codes are ranked instead of the items: a 16-bit database
of 9,000 images has a few hundred of them. Within a tie every order is equally right. The result is the expectation over all orders
(McSherry & Najork 2008), and the values for the worst and the best order.

The counting rules are the same everywhere: average precision covers the whole ranking and divides by the number of relevant items in the
database; an item is relevant if it shares at least one label with the query; a query without a relevant item has no average precision and
is left out of the mean (``queries_without_relevant`` is the number of these queries).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pqag.quantizer import decode, encode, split, squared_distances

DISTANCES = ("SDC", "ADC")
#: Average precision is also computed for this many first items, as is usual for NUS-WIDE.
CUT = 5000
DEFINITIONS = {
    "map": "mean over queries of the average precision over the whole ranking, in expectation over the orders of tied items",
    "map_worst": "the same with the irrelevant items of every tie first",
    "map_best": "the same with the relevant items of every tie first",
    f"map_{CUT}": f"as map, but of the first {CUT} items only, divided by the number of relevant items or, if that is less, by {CUT}",
    "ci_low, ci_high": "95 % percentile bootstrap interval of map over queries",
    "map_floor": "mean average precision of the worst possible ranking, every relevant item last",
    "map_chance": "expected mean average precision of a random ranking",
    "average_precision": "of each query, in the order of the query images; null where no database item is relevant (left out of the means)",
    "precision": "mean over queries of the precision at each recall, relevant items of a tie spread evenly over it",
    "SDC": "Euclidean distance of the quantized query to the quantized item",
    "ADC": "Euclidean distance of the query's feature to the quantized item",
    "relevant": "sharing at least one label",
}
RECALL_LEVELS = np.arange(1, 101) / 100


@dataclass(frozen=True)
class Index:
    """A database, grouped by its distinct codes.

    codes: distinct codes (U, M). order: item numbers (N,) sorted by code. starts: position (U,) in ``order`` at which each code begins.
    counts: items per code (U,).
    """

    codes: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Precision:
    """Average precision of each query, float64 (Q,), NaN if nothing is relevant, and the mean precision-recall curve (100,).

    within: expected average precision of only the first items.
    """

    expected: np.ndarray
    worst: np.ndarray
    best: np.ndarray
    within: np.ndarray
    curve: np.ndarray


def index(codes: np.ndarray) -> Index:
    """Group the database ``codes`` (N, M) by value."""
    distinct, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    return Index(distinct, order, np.cumsum(counts) - counts, counts)


def distances(queries: np.ndarray, codes: np.ndarray, codewords: np.ndarray, kind: str) -> np.ndarray:
    """Squared distances, float64 (Q, U), of query features (Q, D) to items with ``codes`` (U, M); squaring does not change the ranking.

    ``kind`` "ADC": ||y - q(x)||^2, "SDC": ||q(y) - q(x)||^2 (PQ-AG, Related Work). Equal codes get equal distances bit for bit.
    """
    if kind not in DISTANCES:
        raise ValueError(f"unknown distance {kind!r}: known are {', '.join(DISTANCES)}")
    if kind == "SDC":
        queries = decode(encode(queries, codewords), codewords)
    tables = squared_distances(split(queries, len(codewords)), codewords)
    result = np.zeros((len(queries), len(codes)))
    for m in range(len(codewords)):
        result += tables[:, m][:, codes[:, m]]
    return result


def nearest(queries: np.ndarray, codewords: np.ndarray, codes: np.ndarray, count: int, kind: str) -> np.ndarray:
    """The ``count`` nearest items, int64 (Q, count), of the database with ``codes`` (N, M), nearest first, as for ``distances``.

    Tied items are in the order of the database, which is random because of the split. A smaller database gives fewer than ``count``.
    """
    database = index(codes)
    of_code = np.empty(len(codes), dtype=np.int64)
    of_code[database.order] = np.repeat(np.arange(len(database.counts)), database.counts)
    ranking = distances(queries, database.codes, codewords, kind)[:, of_code]
    return np.argsort(ranking, axis=1, kind="stable")[:, :count]


#: Quantiles, of the loss of average precision under an attack, at which figures show queries.
QUANTILES = (0.25, 0.5, 0.75)


def at_quantiles_of_loss(
    clean: Sequence[float | None], attacked: Sequence[float | None], quantiles: Sequence[float] = QUANTILES
) -> list[int]:
    """The queries at ``quantiles`` (of 0 ... 1) of their loss of average precision, from the smallest to the largest loss.

    ``clean`` and ``attacked``: average precision of the same queries, None if nothing is relevant. Equal losses are in
    the order of the queries.
    """
    losses = {q: before - after for q, (before, after) in enumerate(zip(clean, attacked)) if before is not None and after is not None}
    order = sorted(losses, key=losses.__getitem__)
    return [order[round(quantile * (len(order) - 1))] for quantile in quantiles]


def relevant_counts(database: Index, database_labels: np.ndarray, query_labels: np.ndarray) -> np.ndarray:
    """Return the number of items of each distinct code relevant to each query, int64 (Q, U); labels are multi-hot, (N, C) and (Q, C)."""
    relevant = query_labels.astype(np.float32) @ database_labels[database.order].astype(np.float32).T > 0
    return np.add.reduceat(relevant, database.starts, axis=1, dtype=np.int64)


def average_precision(ranking: np.ndarray, counts: np.ndarray, relevant: np.ndarray, cut: int = CUT) -> Precision:
    """Average precision of queries from the distances to distinct codes.

    ranking: float64 (Q, U), smaller is nearer; equal numbers are a tie. counts: items per code, int (U,). relevant: relevant items per
    code, int (Q, U). A tie has n items, r of them relevant, after N0 items, R0 of them relevant; H are the harmonic numbers. The sum of the
    precision at each relevant item of the tie is, over its orders,

        expected  r/n [b n + (R0 + 1 - b (N0 + 1)) (H(N0 + n) - H(N0))],  b = (r - 1)/(n - 1)
        best      r + (R0 - N0) (H(N0 + r) - H(N0))
        worst     r + (R0 - N0 - n + r) (H(N0 + n) - H(N0 + n - r))

    (McSherry & Najork 2008, section 3.3; the closed forms follow by writing (R0 + ...)/(N0 + j) as a constant plus a multiple of
    1/(N0 + j)). Among the first ``cut`` items a tie has t = min(n, cut - N0) places. Their expected sum has t instead of n in the
    bracket, and the divisor is min(R, cut), so a perfect ranking has 1.
    """
    total = int(counts.sum())
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total + 1))])
    results = np.full((4, len(ranking)), np.nan)
    curves = []
    for q, row in enumerate(ranking):
        order = np.argsort(row, kind="stable")
        first = np.flatnonzero(np.concatenate([[True], np.diff(row[order]) > 0]))
        n = np.add.reduceat(counts[order], first)
        r = np.add.reduceat(relevant[q][order], first)
        positives = int(r.sum())
        if positives == 0:
            continue
        items, hits = np.cumsum(n), np.cumsum(r)
        n0, r0 = items - n, hits - r
        b = np.where(n > 1, (r - 1) / np.maximum(n - 1, 1), 0.0)
        t = np.clip(cut - n0, 0, n)
        expected, within = (r / n * (b * j + (r0 + 1 - b * (n0 + 1)) * (harmonic[n0 + j] - harmonic[n0])) for j in (n, t))
        best = r + (r0 - n0) * (harmonic[n0 + r] - harmonic[n0])
        worst = r + (r0 - n0 - n + r) * (harmonic[n0 + n] - harmonic[n0 + n - r])
        results[:3, q] = [expected.sum() / positives, worst.sum() / positives, best.sum() / positives]
        results[3, q] = within.sum() / min(positives, cut)
        curves.append(_precision_at_recall(items, hits))
    curve = np.mean(curves, axis=0) if curves else np.full(len(RECALL_LEVELS), np.nan)
    return Precision(*results, curve)


def _precision_at_recall(items: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Precision at ``RECALL_LEVELS`` of one query from the cumulated items and relevant items at the end of each tie.

    Within a tie the relevant items are spread evenly, their average positions; there is no interpolation by a maximum.
    """
    wanted = np.arange(1, 101) * hits[-1] / 100  # not 0.07 * 100, which is more than 7
    position = np.interp(wanted, *_increasing(np.concatenate([[0], hits]), np.concatenate([[0], items])))
    return np.minimum(wanted / position, 1)  # if all found items are relevant, rounding may put the position below `wanted`


def _increasing(hits: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of the curve items(hits) without vertical segments: a tie without hits only shifts the points after it.

    np.interp needs increasing abscissae; between a point and the next with more hits the segment starts where the hitless ties end.
    """
    rising = np.flatnonzero(np.diff(hits) > 0)
    x = np.repeat(hits[rising].astype(float), 2)
    x[1::2] = hits[rising + 1]
    y = np.stack([items[rising], items[rising + 1]], axis=1).ravel().astype(float)
    x[2::2] = np.nextafter(x[2::2], np.inf)
    return x, y


def constant_average_precision(total: int, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (Q,) of the worst possible ranking and of a random one, for ``positives`` (Q,) relevant items among ``total``.

    For ten balanced classes these are 5.18 % and about 10 %: the reference for any measured mAP. NaN if nothing is relevant.
    """
    precision = average_precision(np.zeros((len(positives), 1)), np.array([total]), np.asarray(positives)[:, None])
    return precision.worst, precision.expected


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of the mean of ``values`` (Q,) without NaN, by resampling queries."""
    values = values[~np.isnan(values)]
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def evaluate(
    query_features: np.ndarray,
    query_labels: np.ndarray,
    codewords: np.ndarray,
    database_codes: np.ndarray,
    database_labels: np.ndarray,
    block: int = 128,
) -> dict:
    """Score query features (Q, D) on a quantized database, by SDC and by ADC.

    ``codewords`` (M, K, D/M), ``database_codes`` (N, M), labels multi-hot (Q, C) and (N, C). Processes ``block`` queries at a time, which
    bounds the memory (and may change the last bits of a number). Returns plain numbers, shares in [0, 1], ready for JSON.
    """
    database = index(database_codes)
    positives, scored = [], {kind: [] for kind in DISTANCES}
    for start in range(0, len(query_features), block):
        features, labels = query_features[start : start + block], query_labels[start : start + block]
        relevant = relevant_counts(database, database_labels, labels)
        positives.append(relevant.sum(1))
        for kind in DISTANCES:
            ranking = distances(features, database.codes, codewords, kind)
            scored[kind].append(average_precision(ranking, database.counts, relevant))
    weights = [int((found > 0).sum()) for found in positives]
    if not any(weights):
        raise ValueError("no query shares a label with any database image, so there is no mAP to compute")
    floor, chance = constant_average_precision(len(database_codes), np.concatenate(positives))
    return {
        "queries": len(query_features),
        "queries_without_relevant": len(query_features) - sum(weights),
        "database": len(database_codes),
        "distinct_database_codes": len(database.codes),
        "map_floor": float(np.nanmean(floor)),
        "map_chance": float(np.nanmean(chance)),
        **{kind: _summary(blocks, weights) for kind, blocks in scored.items()},
        "recall": RECALL_LEVELS.tolist(),
    }


def _summary(blocks: Sequence[Precision], weights: Sequence[int]) -> dict:
    """Return the scores of one kind of distance, from blocks of queries; ``weights`` are their numbers of queries with a relevant item."""
    expected, worst, best, within = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("expected", "worst", "best", "within")
    )
    low, high = bootstrap_interval(expected)
    used = [(block.curve, weight) for block, weight in zip(blocks, weights) if weight]
    return {
        "map": float(np.nanmean(expected)),
        "map_worst": float(np.nanmean(worst)),
        "map_best": float(np.nanmean(best)),
        f"map_{CUT}": float(np.nanmean(within)),
        "ci_low": low,
        "ci_high": high,
        "precision": np.average([curve for curve, _ in used], axis=0, weights=[weight for _, weight in used]).tolist(),
        "average_precision": [None if np.isnan(a) else float(a) for a in expected],
    }
