"""Exact retrieval with product-quantized databases and its evaluation: SDC and ADC, average precision with ties, PR curves.

Within a tie every order is equally right. The result is the expectation over all orders (McSherry & Najork 2008), and the values for the
worst and the best order.

The counting rules are the same everywhere: average precision covers the whole ranking and divides by the number of relevant items in the
database; an item is relevant if it shares at least one label with the query; a query without a relevant item has no average precision and
is left out of the mean (``queries_without_relevant`` is the number of these queries).

How it is fast: distances are sums of whole numbers (``fixed_point``), so their order and their ties do not depend on the order of
summation. The low bits of each number say what lies at that distance, so one plain sort of numbers ranks the database. Items with the same
code have the same distance from any query: where many items share a code, the distinct codes are ranked instead of the items.
"""

from collections.abc import Callable, Iterator, Sequence
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


#: Bits of a distance in a ranking: 2^-48 of the range is above the noise of float64 sums and far below what separates two items.
DISTANCE_BITS = 48
#: More items than this, each ranked on its own, have distances of 31 bits instead: sorting takes half the time and memory.
MANY_ITEMS = 2**17
#: Queries whose distances to the codewords are computed together, and numbers that are sorted together: this bounds the memory.
BLOCK, SORTED_AT_ONCE = 32, 2**17


@dataclass(frozen=True)
class Precision:
    """Average precision of each query, float64 (Q,), and its precision-recall curve, float64 (Q, 100); NaN if nothing is relevant.

    within: expected average precision of only the first items.
    """

    expected: np.ndarray
    worst: np.ndarray
    best: np.ndarray
    within: np.ndarray
    curves: np.ndarray


@dataclass(frozen=True)
class Database:
    """A database of N items made ready for ranking, as U rows: one row for each distinct code, or for each item.

    columns: int64 (U,) for each group of neighbouring sub-spaces, the number of the row's codewords among all K^g of the group.
    group: g, the sub-spaces in a group (the last group may have fewer). codes: number of distinct codes. items: N.
    label_sets: distinct label sets, bool (L, C). sets: label set of each entry (E,); each row has one or more entries.
    starts: first entry of each row, int64 (U,), and entries: items of each entry, int64 (E,); both None if the rows are items.
    counts: items of each row, int64 (U,), or None if the rows are items.
    """

    columns: list[np.ndarray]
    group: int
    codes: int
    items: int
    label_sets: np.ndarray
    sets: np.ndarray
    starts: np.ndarray | None = None
    entries: np.ndarray | None = None
    counts: np.ndarray | None = None

    def relevant(self, labels: np.ndarray) -> np.ndarray:
        """Return the number of items of each row that share a label with ``labels`` (C,), int64 (U,), or bool if the rows are items."""
        shared = self.label_sets[:, labels.astype(bool)].any(1)[self.sets]
        if self.starts is None:
            return shared
        # The difference of cumulated sums at the starts takes a third of the time of np.add.reduceat.
        found = np.cumsum(shared * self.entries)
        return np.diff(found[np.append(self.starts[1:], len(found)) - 1], prepend=0)


def database(codes: np.ndarray, labels: np.ndarray, words: int, counts: np.ndarray | None = None) -> Database:
    """Prepare the database with ``codes`` (N, M) of ``words`` codewords in each sub-space, and ``labels``, multi-hot (N, C).

    ``counts``, positive integers (N,): how many items each of the N stands for; by default one. Items may be in any order.
    """
    label_sets, sets = _distinct(labels)
    # Sorted by code and, within a code, by label set.
    key = _packed([*codes.T, sets], [words] * codes.shape[1] + [len(label_sets)])
    order = np.argsort(key)
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    key = key[first] // len(label_sets)
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    items = len(codes) if counts is None else int(counts.sum())
    if counts is None and len(codes) < 2 * len(starts):  # most codes have one item
        group, columns = _columns(codes, words)
        return Database(columns, group, len(starts), items, label_sets, sets)
    entries = np.diff(first, append=len(codes)) if counts is None else np.add.reduceat(counts[order].astype(np.int64), first)
    examples = order[first]
    group, columns = _columns(codes[examples[starts]], words)
    return Database(columns, group, len(starts), items, label_sets, sets[examples], starts, entries, np.add.reduceat(entries, starts))


def _packed(columns: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Rows of whole numbers, each column below its size, as one number for each row, int64 (N,), in the same order.

    The last column stays the remainder of the division by its size.
    """
    packed, span = np.zeros(len(columns[0]), np.int64), 1
    for column, size in zip(columns, sizes):
        if span * size >= 2**63:
            distinct, packed = np.unique(packed, return_inverse=True)
            span = len(distinct)
        packed = packed * size + column
        span *= size
    return packed


def _distinct(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of multi-hot ``labels`` (N, C), bool (L, C), and the number of each row's, int64 (N,)."""
    labels = labels != 0
    octets = np.packbits(labels, axis=1)
    keys, numbers = np.unique(_packed(octets.T, [256] * octets.shape[1]), return_inverse=True)
    example = np.empty(len(keys), np.int64)
    example[numbers] = np.arange(len(labels))
    return labels[example], numbers


def _columns(codes: np.ndarray, words: int) -> tuple[int, list[np.ndarray]]:
    """Join neighbouring sub-spaces of ``codes`` (U, M) as long as a joint table has at most half as many numbers as there are rows.

    Returns the sub-spaces in a group and the joint codewords, int64 (U,) for each group. Fewer columns are fewer additions.
    """
    subspaces, group = codes.shape[1], 1
    while group < subspaces and words ** (group + 1) <= len(codes) / 2:
        group += 1
    group = -(-subspaces // -(-subspaces // group))  # as few groups, of equal size where possible
    parts = [codes[:, m : m + group] for m in range(0, subspaces, group)]
    return group, [_packed(part.T, [words] * part.shape[1]) for part in parts]


def _tables(queries: np.ndarray, codewords: np.ndarray, kind: str, quantized: np.ndarray | None = None) -> np.ndarray:
    """Squared distances, float64 (Q, M, K), of the sub-vectors of query features (Q, D) to the codewords, as for ``distances``."""
    if kind not in DISTANCES:
        raise ValueError(f"unknown distance {kind!r}: known are {', '.join(DISTANCES)}")
    if kind == "SDC":
        queries = decode(encode(queries, codewords), codewords) if quantized is None else quantized
    return squared_distances(split(queries, len(codewords)), codewords)


def distances(
    queries: np.ndarray,
    codes: np.ndarray,
    codewords: np.ndarray,
    kind: str,
    quantized: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
) -> np.ndarray:
    """Squared distances, float64 (Q, N), of query features (Q, D) to items with ``codes`` (N, M); squaring does not change the ranking.

    ``kind`` "ADC": ||y - q(x)||^2, "SDC": ||q(y) - q(x)||^2 (PQ-AG, Related Work). Equal codes get equal distances bit for bit.
    ``quantized`` (Q, D): the q(y), where they are not the nearest codewords. ``offsets`` (N,): what to add to the distances to each item,
    see ``pqag.encoders``.
    """
    tables = _tables(queries, codewords, kind, quantized)
    result = np.zeros((len(queries), len(codes)))
    for m in range(len(codewords)):
        result += tables[:, m][:, codes[:, m]]
    return result if offsets is None else result + offsets


def nearest(queries: np.ndarray, codewords: np.ndarray, codes: np.ndarray, count: int, kind: str, **hooks: np.ndarray) -> np.ndarray:
    """The ``count`` nearest items, int64 (Q, count), of the database with ``codes`` (N, M), nearest first, as for ``distances``, which
    gets ``hooks``.

    Tied items are in the order of the database, which is random because of the split. A smaller database gives fewer than ``count``.
    """
    return np.argsort(distances(queries, codes, codewords, kind, **hooks), axis=1, kind="stable")[:, :count]


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


def fixed_point(tables: np.ndarray, bits: int) -> np.ndarray:
    """``tables``, float64 (..., M, K), less the minimum of each sub-space, as whole multiples of a power of two, uint64 (..., M, K).

    The power of two is the smallest for which no sum of one number from each sub-space has more than ``bits`` bits; each query has its own.
    Raises ValueError if a distance is NaN or infinite.
    """
    tables = tables - tables.min(-1, keepdims=True)
    largest = tables.max(-1).sum(-1)
    if not np.isfinite(largest).all():
        raise ValueError("a feature or a codeword is not a finite number, so there are no distances to rank by")
    exponent = np.frexp(largest / (1 - tables.shape[-2] * 2.0**-bits))[1]  # room for what rounding adds
    tables *= np.ldexp(1.0, bits - exponent)[..., None, None]
    return np.rint(tables, out=tables).astype(np.uint64)


def _layout(data: Database) -> tuple[type, int, int]:
    """Return the type of a number in a ranking, the bits of it that are the distance, and the low bits that say what lies there.

    These are the number of the row, or one bit for whether an item is relevant.
    """
    if data.starts is None:
        return (np.uint32, 31, 1) if data.items > MANY_ITEMS else (np.uint64, DISTANCE_BITS, 1)
    low = len(data.counts).bit_length()
    return np.uint64, min(DISTANCE_BITS, 64 - low), low


def _score(tables: np.ndarray, data: Database, relevant: np.ndarray) -> Precision:
    """Score rankings by ``tables`` in fixed point, (Q, M, K), shifted as in ``_layout``, for queries that share ``relevant`` (U,)."""
    kind, _, low = _layout(data)
    ranking = (relevant if data.starts is None else np.arange(len(relevant))).astype(kind)
    ranking = np.repeat(ranking[None], len(tables), axis=0)
    for number, column in enumerate(data.columns):
        joint, *others = (tables[:, m] for m in range(number * data.group, min((number + 1) * data.group, tables.shape[1])))
        for other in others:
            joint = (joint[:, :, None] + other[:, None]).reshape(len(tables), -1)
        ranking += np.take(joint, column, axis=1, mode="clip")  # without a check of each number, which takes as long
    ranking.sort(axis=1)
    tied = np.zeros(ranking.shape, bool)
    np.less(ranking[:, 1:] ^ ranking[:, :-1], 2**low, out=tied[:, :-1])
    ranking &= kind(2**low - 1)
    if data.starts is None:
        return average_precision(None, ranking, tied)
    ranking = ranking.view(np.int64)  # as an index, faster than an unsigned number
    return average_precision(np.take(data.counts, ranking, mode="clip"), np.take(relevant, ranking, mode="clip"), tied)


def average_precision(counts: np.ndarray | None, relevant: np.ndarray, tied: np.ndarray, cut: int = CUT) -> Precision:
    """Average precision of rankings.

    counts: items at each place of each query's ranking, nearest first, int64 (Q, U); None for one each. relevant: how many of them are
    relevant, (Q, U). tied: whether a place and the next are at the same distance, bool (Q, U), False in the last column. A tie has n
    items, r of them relevant, after N0 items, R0 of them relevant; H are the harmonic numbers. The sum of the precision at each relevant
    item of the tie is, over its orders,

        expected  r/n [b n + (R0 + 1 - b (N0 + 1)) (H(N0 + n) - H(N0))],  b = (r - 1)/(n - 1)
        best      r + (R0 - N0) (H(N0 + r) - H(N0))
        worst     r + (R0 - N0 - n + r) (H(N0 + n) - H(N0 + n - r))

    (McSherry & Najork 2008, section 3.3; the closed forms follow by writing (R0 + ...)/(N0 + j) as a constant plus a multiple of
    1/(N0 + j)). Among the first ``cut`` items a tie has t = min(n, cut - N0) places. Their expected sum has t instead of n in the
    bracket, and the divisor is min(R, cut), so a perfect ranking has 1.
    """
    bounds, n, r, n0, r0 = _ties(counts, relevant, tied)
    positives = _sums(r, bounds)
    if counts is None:  # few items are tied
        first = r * (r0 + 1) / (n0 + 1)  # exact for an item that is not tied, and 0 for one that another stands for
        several, early = np.flatnonzero((n > 1) & (r > 0)), np.flatnonzero(n0 < cut)
        first[several] = 0
        single, within = _sums(first, bounds), _sums(first[early], np.searchsorted(early, bounds))
        of_several = np.searchsorted(several, bounds)
        values = _tie_sums(n[several], r[several], n0[several], r0[several], cut)
        sums = [one + _sums(more, of_several) for one, more in zip((single, single, single, within), values)]
    else:
        sums = [_sums(value, bounds) for value in _tie_sums(n, r, n0, r0, cut)]
    with np.errstate(invalid="ignore"):  # 0/0: nothing is relevant
        scores = [one / most for one, most in zip(sums, (positives, positives, positives, np.minimum(positives, cut)))]
    return Precision(*scores, _precision_at_recall(n, r, n0, r0, positives))


def _sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sums, (Q,), of the segments of ``values`` between ``bounds``, (Q + 1,). None depends on what the other segments hold."""
    sums, some = np.zeros(len(bounds) - 1, values.dtype), bounds[:-1] < bounds[1:]
    if some.any():
        sums[some] = np.add.reduceat(values, bounds[:-1][some])
    return sums


def _ties(counts: np.ndarray | None, relevant: np.ndarray, tied: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return n, r, N0 and R0, int64 (T,), of all ties that have relevant items, and where the ties of each query begin and end, (Q + 1,).

    Arguments and symbols as for ``average_precision``. An item that is not tied is a tie of one. A tie of several places counts at its
    first place that has relevant items; the others follow with r = 0.
    """
    queries, size = relevant.shape
    places = np.flatnonzero(relevant != 0)
    bounds = np.searchsorted(places, np.arange(queries + 1) * size)
    if counts is None:
        n, r, hits = np.ones(len(places), np.int64), np.ones(len(places), np.int64), np.arange(len(places) + 1)
        n0 = places - np.repeat(np.arange(queries) * size, np.diff(bounds))
    else:
        n, r = counts.ravel()[places], relevant.ravel()[places]
        items, hits = np.cumsum(counts, axis=1).ravel(), np.append(0, np.cumsum(r))
        n0 = items[places] - n
    r0 = hits[:-1] - np.repeat(hits[bounds[:-1]], np.diff(bounds))
    if len(linked := np.flatnonzero(tied)):
        breaks = np.flatnonzero(np.diff(linked) > 1)
        first, last = np.append(0, breaks + 1), np.append(breaks, len(linked) - 1)
        found = np.logical_or.reduceat((relevant.ravel()[linked] > 0) | (relevant.ravel()[linked + 1] > 0), first)
        begin, end = linked[first[found]], linked[last[found]] + 1
        low, high = np.searchsorted(places, begin), np.searchsorted(places, end, side="right")
        if counts is None:
            n0[low], n[low] = begin % size, end - begin + 1
        else:
            n0[low] = items[begin] - counts.ravel()[begin]
            n[low] = items[end] - n0[low]
        others = high - low - 1
        r[np.repeat(low + 1 - (np.cumsum(others) - others), others) + np.arange(others.sum())] = 0
        r[low] = hits[high] - hits[low]
    return bounds, n, r, n0, r0


def _tie_sums(n: np.ndarray, r: np.ndarray, n0: np.ndarray, r0: np.ndarray, cut: int) -> list[np.ndarray]:
    """Sums, (T,), of the precision at the relevant items of ties: expected, worst, best, and expected among the first ``cut`` items."""
    before, after, first, last = harmonic(n0), harmonic(n0 + n), harmonic(n0 + r), harmonic(n0 + n - r)
    early = np.flatnonzero(n0 < cut)
    places = np.minimum(n[early], cut - n0[early])
    until = harmonic(n0[early] + places)
    n, r, n0, r0 = (one.astype(float) for one in (n, r, n0, r0))
    b = (r - 1) / np.maximum(n - 1, 1)
    a = r0 + 1 - b * (n0 + 1)
    share, ahead = r / n, r0 - n0
    expected = share * (b * n + a * (after - before))
    best = r + ahead * (first - before)
    worst = r + (ahead - n + r) * (after - last)
    within = np.zeros(len(n))
    within[early] = share[early] * (b[early] * places + a[early] * (until - before[early]))
    return [expected, worst, best, within]


_harmonic = np.zeros(1)


def harmonic(n: np.ndarray) -> np.ndarray:
    """The harmonic numbers H(n), float64, of int64 ``n`` >= 0: from a table, above 2^20 by Euler and Maclaurin, exact to 1e-14."""
    global _harmonic
    largest = int(n.max(initial=0))
    if len(_harmonic) <= min(largest, 2**20):
        _harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, min(2 * largest, 2**20) + 1))])
    if largest < len(_harmonic):
        return _harmonic[n]
    x = np.maximum(n, 2**20).astype(float)
    return np.where(n < len(_harmonic), _harmonic[np.minimum(n, 2**20)], np.log(x) + np.euler_gamma + 1 / (2 * x) - 1 / (12 * x**2))


def _precision_at_recall(n: np.ndarray, r: np.ndarray, n0: np.ndarray, r0: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Precision of each query at ``RECALL_LEVELS``, (Q, 100), from its ties that have relevant items, as for ``_ties``.

    Within a tie the relevant items are spread evenly, their average positions; there is no interpolation by a maximum.
    """
    wanted = np.arange(1, 101) * positives[:, None] / 100  # not 0.07 * 100, which is more than 7
    curves = np.full(wanted.shape, np.nan)
    if len(n):
        # The first tie that ends with so many hits; the hits of all queries are counted on, so that one search finds all, in whole numbers.
        before = (np.cumsum(positives) - positives)[:, None]
        some = positives > 0
        tie = np.searchsorted(100 * np.cumsum(r), (100 * before + np.arange(1, 101) * positives[:, None])[some])
        position = n0[tie] + n[tie] * (wanted[some] - r0[tie]) / r[tie]
        curves[some] = np.minimum(wanted[some] / position, 1)  # if all found items are relevant, rounding may make it more
    return curves


def constant_average_precision(total: int, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (Q,) of the worst possible ranking and of a random one, for ``positives`` (Q,) relevant items among ``total``.

    For ten balanced classes these are 5.18 % and about 10 %: the reference for any measured mAP. NaN if nothing is relevant.
    """
    precision = average_precision(np.full((len(positives), 1), total), positives[:, None], np.zeros((len(positives), 1), bool))
    return precision.worst, precision.expected


def bootstrap_intervals(values: np.ndarray, seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> list[tuple[float, float]]:
    """Percentile bootstrap intervals (Efron 1979) of the mean of each row of ``values`` (R, Q), by resampling queries.

    All rows get the same draws. A query that is NaN in one row must be in all, and is left out.
    """
    values = values[:, ~np.isnan(values[0])]
    count = values.shape[1]
    rng = np.random.default_rng(seed)
    means = np.empty((len(values), resamples))
    step = max(1, 2**19 // count)
    for start in range(0, resamples, step):
        # uint32 gives the same draws as int64, in less time.
        draws = rng.integers(0, count, (min(step, resamples - start), count), dtype=np.uint32)
        for row, own in zip(means, values):
            row[start : start + step] = own[draws].mean(1)
    return [tuple(map(float, np.quantile(row, [(1 - level) / 2, (1 + level) / 2]))) for row in means]


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> tuple[float, float]:
    """The same for one row, ``values`` (Q,)."""
    return bootstrap_intervals(values[None], seed, resamples, level)[0]


def evaluate(
    query_features: np.ndarray,
    query_labels: np.ndarray,
    codewords: np.ndarray,
    database_codes: np.ndarray,
    database_labels: np.ndarray,
    database_counts: np.ndarray | None = None,
    quantized: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
) -> dict:
    """Score query features (Q, D) on a quantized database, by SDC and by ADC.

    ``codewords`` (M, K, D/M), ``database_codes`` (N, M), labels multi-hot (Q, C) and (N, C). ``database_counts``, integers (N,): how many
    items each of the N stands for, by default one. ``quantized`` and ``offsets``: see ``distances``; equal codes have equal offsets.
    Returns plain numbers, shares in [0, 1], ready for JSON.
    """
    levels = None  # a further column of codes and of tables, the same for all queries
    words = codewords.shape[1]
    if offsets is not None:
        levels, numbers = np.unique(offsets, return_inverse=True)
        database_codes = np.column_stack([database_codes.astype(np.int64), numbers])
        words = max(words, len(levels))

    def tables_of(some: np.ndarray, kind: str) -> np.ndarray:
        return _with_levels(_tables(query_features[some], codewords, kind, None if quantized is None else quantized[some]), levels)

    # So glibc keeps up to 60 MB that arrays give back; to get the pages from the system again for each array takes a quarter of the time.
    np.empty(30 * 2**20, np.uint8)
    data = database(database_codes, database_labels, words, database_counts)
    queries = len(query_features)
    label_sets, set_of = _distinct(query_labels)
    # One row for each query by SDC, then one for each by ADC.
    scores, curves = np.empty((4, len(DISTANCES) * queries)), np.empty((len(DISTANCES) * queries, len(RECALL_LEVELS)))
    positives = np.empty(queries, np.int64)
    for rows, tables in _blocks(tables_of, set_of, data):
        for number in np.unique(set_of[rows % queries]):
            relevant = data.relevant(label_sets[number])
            positives[set_of == number] = relevant.sum()
            [same] = np.nonzero(set_of[rows % queries] == number)
            step = max(1, SORTED_AT_ONCE // len(relevant))
            for some in (same[start : start + step] for start in range(0, len(same), step)):
                found = _score(tables[some], data, relevant)
                scores[:, rows[some]] = found.expected, found.worst, found.best, found.within
                curves[rows[some]] = found.curves
    if not positives.any():
        raise ValueError("no query shares a label with any database image, so there is no mAP to compute")
    floor, chance = constant_average_precision(data.items, positives)
    scores, curves = scores.reshape(4, len(DISTANCES), queries), curves.reshape(len(DISTANCES), queries, len(RECALL_LEVELS))
    intervals = bootstrap_intervals(scores[0])
    return {
        "queries": queries,
        "queries_without_relevant": int((positives == 0).sum()),
        "database": data.items,
        "distinct_database_codes": data.codes,
        "map_floor": float(np.nanmean(floor)),
        "map_chance": float(np.nanmean(chance)),
        **{kind: _summary(*scored) for kind, *scored in zip(DISTANCES, scores.swapaxes(0, 1), curves, intervals)},
        "recall": RECALL_LEVELS.tolist(),
    }


def _with_levels(tables: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
    """``tables``, float64 (Q, M, K), with ``levels`` (L,), sorted, as one more sub-space of every query; the shorter of the two is filled
    up with its last number, which no code names."""
    if levels is None:
        return tables
    more = np.tile(levels, (len(tables), 1, 1))
    size = max(tables.shape[2], len(levels))
    return np.concatenate([np.pad(one, ((0, 0), (0, 0), (0, size - one.shape[2])), "edge") for one in (tables, more)], axis=1)


def _blocks(
    tables_of: Callable[[np.ndarray, str], np.ndarray], set_of: np.ndarray, data: Database
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of ``evaluate``, (R,), and their distances to the codewords in fixed point, (R, M, K), shifted as in ``_layout``.

    ``tables_of`` gives the distances of some queries of one kind. Queries with the same labels follow each other.
    """
    kind, bits, low = _layout(data)
    order = np.argsort(set_of, kind="stable")
    for start in range(0, len(order), BLOCK):
        queries = order[start : start + BLOCK]
        tables = np.concatenate([fixed_point(tables_of(queries, name), bits) for name in DISTANCES])
        rows = np.concatenate([queries + number * len(order) for number in range(len(DISTANCES))])
        yield rows, (tables << np.uint64(low)).astype(kind, copy=False)


def _summary(scores: np.ndarray, curves: np.ndarray, interval: tuple[float, float]) -> dict:
    """Return the scores of one kind of distance from those of each query: expected, worst, best, within (4, Q), and curves (Q, 100)."""
    expected, worst, best, within = (float(mean) for mean in np.nanmean(scores, axis=1))
    return {
        "map": expected,
        "map_worst": worst,
        "map_best": best,
        f"map_{CUT}": within,
        "ci_low": interval[0],
        "ci_high": interval[1],
        "precision": np.nanmean(curves, axis=0).tolist(),
        "average_precision": [None if np.isnan(a) else float(a) for a in scores[0]],
    }
