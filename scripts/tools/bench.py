"""Compare the speed of the evaluation, of the quantizer and of the attack with other libraries: `make bench`.

All run in turn on one thread. Before anything is timed, both sides must give the same results. A peer gets as many queries as take
``--seconds``, at least three; ratios are per query. Writes docs/bench/bench.csv and its plot, and prints the ratio of each line beside that
of the last committed figures. ``--only retrieval --items 9000`` measures a part, and leaves the other lines of the CSV as they are.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is loaded

import argparse  # noqa: E402
import csv  # noqa: E402
import importlib  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from pqag import quantizer, retrieval  # noqa: E402

FOLDER = ROOT / "docs/bench"
#: A line of the CSV is identified by the first five columns. Times are milliseconds on the processor, which other programs disturb less
#: than those on a clock: of one query by one distance, of a process, or of all features.
COLUMNS = ["what", "size", "setting", "labels", "peer", "n", "ms", "ms_low", "ms_high"]
COLUMNS += ["peer_n", "peer_ms", "peer_ms_low", "peer_ms_high", "ratio"]
QUERIES, SUBSPACES, NUMBERS, CLASSES = 1000, 4, 128, 10
SIZES, WORDS = (9000, 186_577, 10**6, 10**7), {16: 16, 24: 64, 36: 512}
FEATURES = ((9000, 512), (9000, 4096), (180_000, 512), (180_000, 4096))


# The evaluation, ours and those of others. Each takes queries of a case and gives average precision, that of the first items, and curves.


def made(items: int, words: int, several: bool, queries: int = QUERIES) -> dict:
    """The arguments of ``retrieval.evaluate`` for generated features and codes, with one label for each item or ``several``."""
    rng = np.random.default_rng(0)

    def labels(count: int) -> np.ndarray:
        classes = np.eye(CLASSES, dtype=bool)[rng.integers(0, CLASSES, count)]
        return classes | (rng.random((count, CLASSES)) < 0.15) if several else classes

    return {
        "query_features": rng.standard_normal((queries, NUMBERS), np.float32),
        "query_labels": labels(queries),
        "codewords": rng.standard_normal((SUBSPACES, words, NUMBERS // SUBSPACES), np.float32),
        "database_codes": rng.integers(0, words, (items, SUBSPACES), quantizer.code_dtype(words)),
        "database_labels": labels(items),
    }


def numpy_precision(order: np.ndarray, relevant: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Average precision of a ranking without ties, that of its first items, and the precision at each recall."""
    places = np.flatnonzero(relevant[order])
    precision = np.arange(1, len(places) + 1) / (places + 1)
    wanted = np.arange(1, 101) * len(places) / 100
    hit = np.ceil(wanted - 1e-9).astype(int) - 1
    curve = wanted / (places[hit] + wanted - hit)
    first = precision[: np.searchsorted(places, retrieval.CUT)].sum() / min(len(places), retrieval.CUT)
    return precision.mean(), first, np.minimum(curve, 1)


def relevance(case: dict) -> Callable[[int], np.ndarray]:
    """A function of a query that gives whether each item shares a label with it, bool (N,)."""
    labels, queries = case["database_labels"], case["query_labels"]
    if (labels.sum(1) == 1).all() and (queries.sum(1) == 1).all():
        classes = labels.argmax(1)
        return lambda q: classes == queries[q].argmax()
    of_class = np.ascontiguousarray(labels.T)
    return lambda q: of_class[queries[q]].any(0)


def faiss_peer(case: dict, features: np.ndarray) -> Callable[[int], tuple]:
    """A full ranking by ``faiss.IndexPQ``."""
    import faiss

    bits = int(np.log2(case["codewords"].shape[1]))
    index = faiss.IndexPQ(NUMBERS, SUBSPACES, bits)
    faiss.copy_array_to_vector(case["codewords"].ravel(), index.pq.centroids)
    faiss.copy_array_to_vector(faiss.pack_bitstrings(case["database_codes"].astype(np.int32), bits).ravel(), index.codes)
    index.is_trained, index.ntotal = True, len(case["database_codes"])
    relevant = relevance(case)
    return lambda q: numpy_precision(index.search(features[q : q + 1], index.ntotal)[1][0], relevant(q))


def nanopq_peer(case: dict, features: np.ndarray) -> Callable[[int], tuple]:
    """Distances by nanopq, ranked by numpy."""
    import nanopq

    words = case["codewords"].shape[1]
    pq = nanopq.PQ(SUBSPACES, words, verbose=False)
    pq.codewords, pq.Ds = case["codewords"], NUMBERS // SUBSPACES
    codes, relevant = case["database_codes"].astype(pq.code_dtype), relevance(case)
    return lambda q: numpy_precision(np.argsort(pq.dtable(features[q]).adist(codes)), relevant(q))


def torch_peer(case: dict, features: np.ndarray) -> Callable[[int], tuple]:
    """Distances, ranking and average precision by PyTorch."""
    import torch

    codes = [torch.from_numpy(column.astype(np.int64)) for column in case["database_codes"].T]
    words, relevant = torch.from_numpy(case["codewords"]), relevance(case)

    def score(q: int) -> tuple:
        parts = torch.from_numpy(features[q]).reshape(SUBSPACES, 1, -1)
        tables = ((parts - words) ** 2).sum(2)
        order = torch.argsort(sum(table[column] for table, column in zip(tables, codes)))
        return numpy_precision(order.numpy(), relevant(q))

    return score


PEERS = {"faiss + numpy": faiss_peer, "nanopq + numpy": nanopq_peer, "torch": torch_peer}


def searches(name: str, case: dict) -> list[Callable[[int], tuple]]:
    """What a peer computes of a query, by SDC, which is ADC of the quantized query, and by ADC."""
    quantized = quantizer.decode(quantizer.encode(case["query_features"], case["codewords"]), case["codewords"])
    return [PEERS[name](case, features) for features in (quantized, case["query_features"])]


def bootstrap(values: np.ndarray) -> np.ndarray:
    """The interval of the mean as it is usually written."""
    rng = np.random.default_rng(0)
    return np.quantile([values[rng.integers(0, len(values), len(values))].mean() for _ in range(10_000)], [0.025, 0.975])


def assert_equal(case: dict, name: str, results: list[list[tuple]]) -> None:
    """Fail unless the results of a peer, by SDC and ADC, are those of ours, up to ties and the rounding of float32 distances."""
    count = len(results[0])
    ours = retrieval.evaluate(**case | {key: case[key][:count] for key in ("query_features", "query_labels")})
    for kind, found in zip(retrieval.DISTANCES, results):
        own, (average, first, curve) = ours[kind], (np.mean(one, axis=0) for one in zip(*found))
        slack = 1e-5
        assert own["map_worst"] - slack <= average <= own["map_best"] + slack, (name, kind, average, own["map"])
        # The peers put tied items in some order, which matters more for a few items than for all: by some percent.
        slack = 1e-3 if ours["distinct_database_codes"] > 0.9 * ours["database"] else 0.05
        assert abs(first / own[f"map_{retrieval.CUT}"] - 1) <= slack, (name, kind, first, own[f"map_{retrieval.CUT}"])
        assert np.abs(curve / own["precision"] - 1)[10:].max() <= slack, (name, kind)


def summary(times: list[float]) -> list[float]:
    """Number, median, and the quartiles of times in seconds, as milliseconds."""
    return [len(times), *(1000 * float(value) for value in np.quantile(times, [0.5, 0.25, 0.75]))]


def measure_retrieval(options: argparse.Namespace) -> Iterator[dict]:
    """Time of one query by one distance: ours with the preparation of the database and the intervals, the peers without either."""
    for items in options.items:
        for bits in options.bits:
            for labels in ("single", "several"):
                words = WORDS[bits]
                case, own, peers = made(items, words, labels == "several", options.queries), [], {}
                for name in PEERS:
                    both, times, results = searches(name, case), [], [[], []]
                    both[0](0), both[1](0)
                    begin = time.perf_counter()
                    while len(times) < 3 or time.perf_counter() - begin < options.seconds and len(times) < options.queries:
                        start = time.process_time()
                        for found, search in zip(results, both):
                            found.append(search(len(times)))
                        times.append((time.process_time() - start) / 2)
                    assert_equal(case, name, results)
                    peers[name] = times
                    if len(own) < (3 if items < 10**6 else 1):
                        start = time.process_time()
                        retrieval.evaluate(**case)
                        own.append((time.process_time() - start) / options.queries / 2)
                for name, times in peers.items():
                    yield line("retrieval", items, f"{bits} bits", labels, name, own, times)


def line(what: str, size: object, setting: str, labels: str, peer: str, own: list[float], times: list[float]) -> dict:
    """A line of the CSV from times in seconds."""
    ours, others = summary(own), summary(times or [np.nan])
    return dict(zip(COLUMNS, [what, size, setting, labels, peer, *ours, *others, others[1] / ours[1]]))


#: Runs one evaluation in a process of its own: what is loaded, the case and all queries by SDC and by ADC, with the interval.
PROCESS = """
import sys
import numpy as np
case = dict(np.load(sys.argv[2]))
if sys.argv[1] == "pqag":
    sys.path.insert(0, sys.argv[3] + "/scripts")
    from pqag import retrieval
    retrieval.evaluate(**case)
else:
    sys.path.insert(0, sys.argv[3] + "/scripts/tools")
    import bench
    for search in bench.searches(sys.argv[1], case):
        bench.bootstrap(np.array([search(q)[0] for q in range(len(case["query_features"]))]))
"""


def measure_process(options: argparse.Namespace) -> Iterator[dict]:
    """Time of a whole process that evaluates 1,000 queries on 9,000 items."""
    with tempfile.TemporaryDirectory() as folder:
        for bits, words in WORDS.items():
            for labels in ("single", "several"):
                np.savez(f"{folder}/case.npz", **made(SIZES[0], words, labels == "several"))
                times: dict[str, list[float]] = {name: [] for name in ("pqag", *PEERS)}
                for _ in range(3):
                    for name, own in times.items():
                        start = os.times()
                        subprocess.run([sys.executable, "-c", PROCESS, name, f"{folder}/case.npz", str(ROOT)], check=True)
                        own.append(sum(os.times()[2:4]) - sum(start[2:4]))
                for name in PEERS:
                    yield line("process", SIZES[0], f"{bits} bits", labels, name, times["pqag"], times[name])


def measure_counts(options: argparse.Namespace) -> Iterator[dict]:
    """Time of 1,000 queries on 10^9 items of 16 bits that are given as counts by code and label; there is no peer."""
    codes, classes = np.array(list(np.ndindex(*[16] * SUBSPACES)), np.uint8), np.eye(CLASSES, dtype=bool)
    case = made(1, 16, False) | {
        "database_codes": np.repeat(codes, CLASSES, axis=0),
        "database_labels": np.tile(classes, (len(codes), 1)),
        "database_counts": np.random.default_rng(1).multinomial(10**9, np.full(len(codes) * CLASSES, 1 / len(codes) / CLASSES)),
    }
    start = time.process_time()
    assert retrieval.evaluate(**case)["database"] == 10**9
    own = [(time.process_time() - start) / QUERIES / 2]
    yield line("counts", 10**9, "16 bits", "single", "none", own, [])


# k-means and encoding


def fits(features: np.ndarray, words: int) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that give codewords by 25 iterations of k-means on all features: ours, and those of others."""
    import faiss
    import nanopq
    from sklearn.cluster import KMeans

    def by_faiss() -> np.ndarray:
        pq = faiss.ProductQuantizer(features.shape[1], SUBSPACES, int(np.log2(words)))
        pq.cp.niter, pq.cp.min_points_per_centroid, pq.cp.max_points_per_centroid = 25, 1, len(features)
        pq.train(features)
        return faiss.vector_to_array(pq.centroids).reshape(SUBSPACES, words, -1)

    def scikit_learn() -> np.ndarray:
        means = KMeans(words, init="random", n_init=1, max_iter=25, tol=0, random_state=0)
        return np.stack([means.fit(features.reshape(len(features), SUBSPACES, -1)[:, m]).cluster_centers_ for m in range(SUBSPACES)])

    return {
        "pqag": lambda: quantizer.fit(features, SUBSPACES, words, 0).codewords,
        "faiss": by_faiss,
        "nanopq": lambda: nanopq.PQ(SUBSPACES, words, verbose=False).fit(features, iter=25, seed=0).codewords,
        "scikit-learn": scikit_learn,
    }


def encoders(features: np.ndarray, codewords: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that give the codes of features: ours, and those of others."""
    import faiss
    import nanopq

    words = codewords.shape[1]
    index = faiss.ProductQuantizer(features.shape[1], SUBSPACES, int(np.log2(words)))
    faiss.copy_array_to_vector(codewords.ravel(), index.centroids)
    pq = nanopq.PQ(SUBSPACES, words, verbose=False)
    pq.codewords, pq.Ds = codewords, features.shape[1] // SUBSPACES
    return {
        "pqag": lambda: quantizer.encode(features, codewords),
        "faiss": lambda: faiss.unpack_bitstrings(index.compute_codes(features), SUBSPACES, int(np.log2(words))),
        "nanopq": lambda: pq.encode(features),
    }


def measure_quantizer(options: argparse.Namespace) -> Iterator[dict]:
    """Time of k-means in four sub-spaces, and of encoding. Ours must reach the objective of a peer, to 1 %, and give the same codes."""
    for count, size in options.features:
        rng = np.random.default_rng(0)
        features = rng.standard_normal((count, size), np.float32) / np.sqrt(1 + np.arange(size, dtype=np.float32) % (size // SUBSPACES))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        for words in WORDS.values():
            setting = f"{count} x {size}", f"K = {words}", ""
            own, *peers = ((name, *timed(fit, options.seconds)) for name, fit in fits(features, words).items())
            for name, codewords, times in peers:
                objectives = [quantizer.fitted(features, one).objective for one in (own[1], codewords)]
                assert objectives[0] < 1.01 * objectives[1], (name, objectives)
                yield line("k-means", *setting, name, own[2], times)
            own, *peers = ((name, *timed(encode, options.seconds)) for name, encode in encoders(features, own[1]).items())
            for name, codes, times in peers:
                assert (codes == own[1]).mean() > 0.9999, name
                yield line("encoding", *setting, name, own[2], times)


def measure_attack(options: argparse.Namespace) -> Iterator[dict]:
    """Time of an image, by five steps of PGD with the loss AOD; "limit" is what the network alone takes for it."""
    import bench_attack

    for victim, peer, own, times in bench_attack.measure(options.seconds):
        yield line("attack", 250, victim, "", peer, own, times)


def timed(function: Callable[[], np.ndarray], seconds: float) -> tuple[np.ndarray, list[float]]:
    """What a function returns, and its times of at least one call, and of up to five within ``seconds``."""
    times: list[float] = []
    while not times or sum(times) < seconds and len(times) < 5:
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return result, times


# Reports


MEASURES = {
    "retrieval": measure_retrieval,
    "process": measure_process,
    "counts": measure_counts,
    "quantizer": measure_quantizer,
    "attack": measure_attack,
}


def key(row: dict) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in COLUMNS[:5])


def plot(rows: list[dict], path: Path) -> None:
    """Time of a query by one distance against the number of items, a panel for each code length."""
    plt = importlib.import_module("matplotlib.pyplot")
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    for panel, bits in zip(panels, WORDS):
        own = [row for row in rows if row["what"] == "retrieval" and row["setting"] == f"{bits} bits" and row["labels"] == "single"]
        own += [row for row in rows if row["what"] == "counts" and bits == 16]
        lines: dict[str, dict[int, float]] = {}
        for row in own:
            lines.setdefault("pqag", {})[int(row["size"])] = float(row["ms"])
            if row["peer"] != "none":
                lines.setdefault(row["peer"], {})[int(row["size"])] = float(row["peer_ms"])
        for (name, points), marker in zip(lines.items(), "os^D"):
            panel.loglog(*zip(*sorted(points.items())), marker=marker, label=name, linewidth=2.5 if name == "pqag" else 1.2, markersize=5)
        panel.set(title=f"{bits} bits", xlabel="items in the database")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms for a query and distance")
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--items", nargs="+", type=int, default=SIZES, help="sizes of the database for `retrieval`")
    parser.add_argument(
        "--features", nargs="+", type=lambda text: tuple(map(int, text.split("x"))), default=FEATURES, help="for `quantizer`"
    )
    parser.add_argument("--bits", nargs="+", type=int, choices=WORDS, default=list(WORDS), help="code lengths for `retrieval`")
    parser.add_argument("--queries", type=int, default=QUERIES, help="queries for `retrieval`")
    parser.add_argument("--seconds", type=float, default=60, help="time that each peer gets for each line")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "bench.csv"
    committed = subprocess.run(["git", "show", "HEAD:docs/bench/bench.csv"], cwd=ROOT, capture_output=True, text=True).stdout
    before = {key(row): float(row["ratio"]) for row in csv.DictReader(committed.splitlines())}
    rows = {key(row): row for row in csv.DictReader(path.open(newline=""))} if path.exists() else {}
    for name in options.only:
        for row in MEASURES[name](options):
            old = f"(committed: {before[key(row)]:.2f})" if key(row) in before else ""
            low, high = (row[f"peer_ms_{a}"] / row[f"ms_{b}"] for a, b in (("low", "high"), ("high", "low")))
            what = " ".join(str(row[column]) for column in COLUMNS[:5])
            print(f"{what:55} {row['ms']:10.3f} ms {row['peer_ms']:10.3f} ms {row['ratio']:6.2f} x", end=" ")
            print(f"[{low:.2f}, {high:.2f}] n = {row['n']}, {row['peer_n']} {old}", flush=True)
            rows[key(row)] = {column: f"{value:.4g}" if isinstance(value, float) else value for column, value in row.items()}
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows.values())
    plot(list(rows.values()), FOLDER / "bench.png")


if __name__ == "__main__":
    main()
