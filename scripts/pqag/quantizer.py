"""Product quantization (Jegou, Douze & Schmid 2011): codebooks by k-means in each sub-space, encoding and decoding.

A codebook may be fitted to rotated features, as in OPQ (Ge et al. 2013). ``opq`` rotates features itself; all other functions take
rotated features.

Symbols as in PQ-AG: a feature of D numbers is cut into M sub-vectors of D/M; each is replaced by the nearest of the K codewords of its
sub-space (Eq. 1), so a code takes M log2 K bits.
"""

from dataclasses import dataclass, replace

import numpy as np

from pqag import names
from pqag.errors import UserError


@dataclass(frozen=True)
class Fit:
    """A fitted codebook and the quality of its fit.

    codewords: float32 (M, K, D/M). codes: (N, M), smallest unsigned integer that holds K - 1.
    objective: mean squared distance of a feature to its reconstruction. empty: number of codewords without a feature, per sub-space.
    rotation: orthogonal, float32 (D, D), to be applied to features before they are cut into sub-vectors; None for none.
    encoder: one of ``names.ENCODERS``; with one of ``names.FULL_LENGTH`` codewords are (M, K, D). logits: of "argmax", float32
    (M, K, D/M + 1), see ``pqag.encoders``.
    """

    codewords: np.ndarray
    codes: np.ndarray
    objective: float
    empty: list[int]
    rotation: np.ndarray | None = None
    encoder: str = "nearest"
    logits: np.ndarray | None = None


def split(features: np.ndarray, subspaces: int) -> np.ndarray:
    """Features (N, D) as sub-vectors (N, M, D/M), a view; raises ValueError unless M divides D."""
    count, size = features.shape
    if size % subspaces:
        raise ValueError(f"a feature of {size} numbers cannot be cut into {subspaces} sub-vectors of equal length")
    return features.reshape(count, subspaces, size // subspaces)


def code_dtype(codewords: int) -> np.dtype:
    """The smallest unsigned integer type that holds the codes 0 ... K - 1."""
    return np.min_scalar_type(codewords - 1)


def check_count(features: np.ndarray, codewords: int) -> None:
    """Raise ValueError for fewer ``features`` (N, D) than ``codewords``, K."""
    if len(features) < codewords:
        raise ValueError(f"k-means needs at least {codewords} features for {codewords} codewords, got {len(features)}")


def fit(features: np.ndarray, subspaces: int, codewords: int, seed: int, iterations: int = 25) -> Fit:
    """Lloyd's k-means in each sub-space on all ``features``, float32 (N, D), by faiss.

    Every point is used (faiss would draw 256 a centroid). The result depends on ``seed`` and on faiss' thread count, which the caller sets.
    Raises ValueError if M does not divide D or there are fewer features than codewords.
    """
    check_count(features, codewords)
    import faiss  # here, because encoding and evaluation do without it

    parts = split(features, subspaces)
    centroids = np.empty((subspaces, codewords, parts.shape[2]), np.float32)
    for m in range(subspaces):
        kmeans = faiss.Kmeans(
            parts.shape[2],
            codewords,
            niter=iterations,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=len(features),
        )
        kmeans.train(np.ascontiguousarray(parts[:, m], np.float32))
        centroids[m] = kmeans.centroids
    return fitted(features, centroids)


def fitted(features: np.ndarray, codewords: np.ndarray) -> Fit:
    """Encode ``features`` (N, D) with ``codewords`` (M, K, D/M) and return the fit."""
    codes = encode(features, codewords)
    empty = [codewords.shape[1] - len(np.unique(codes[:, m])) for m in range(len(codewords))]
    error = 0.0
    for start in range(0, len(features), 1024):  # arrays as large as all features take longer to get from the system than to fill
        block = slice(start, start + 1024)
        error += float(((features[block] - decode(codes[block], codewords)).astype(np.float64) ** 2).sum())
    return Fit(codewords, codes, error / len(features), empty)


def opq(features: np.ndarray, subspaces: int, codewords: int, seed: int, iterations: int = 25) -> Fit:
    """Optimized product quantization (Ge et al. 2013, non-parametric) by faiss: alternate between rotation and codebooks, then ``fit``.

    ``iterations`` is the number of alternations, with 4 k-means steps each, and of the k-means iterations afterwards. Each alternation
    decomposes a D x D matrix, in about 7 seconds for D = 1,024. Raises ValueError as ``fit`` does, and UserError if there are fewer than D
    features, because faiss would then end the process.
    """
    size = split(features, subspaces).shape[2] * subspaces
    check_count(features, codewords)
    if len(features) < size:
        raise UserError(f"opq needs at least as many images as a feature has numbers, {size}, but is fitted to {len(features)}")
    import faiss

    quantizer = faiss.ProductQuantizer(size, subspaces, int(np.log2(codewords)))
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid, quantizer.cp.max_points_per_centroid = seed, 1, len(features)
    transform = faiss.OPQMatrix(size, subspaces)
    transform.pq, transform.niter, transform.max_train_points = quantizer, iterations, len(features)
    transform.train(np.ascontiguousarray(features, np.float32))
    rotation = faiss.vector_to_array(transform.A).reshape(size, size)
    return replace(fit(features @ rotation.T, subspaces, codewords, seed, iterations), rotation=rotation)


#: Product quantizers by name: functions of features (N, D), M, K, seed and iterations. The result also depends on faiss' thread count.
METHODS = dict(zip(names.FITTED, (fit, opq), strict=True))


def checked(name: str, what: str, array: object, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of the user as float32; raises UserError unless it has this shape and finite numbers."""
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "f":
        got = f"an array {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        got = "none" if array is None else got
        raise UserError(f"the quantizer {name} must return {what} as a numpy array {shape} of floats, but returned {got}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"the quantizer {name} returned {what} with numbers that are NaN or infinite as float32: return finite ones")
    return array


def squared_distances(parts: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (N, M, K), float64, of sub-vectors (N, M, D/M) to the codewords (M, K, D/M) of their sub-space."""
    x = parts.astype(np.float64)
    c = codewords.astype(np.float64)
    result = np.matmul(x.transpose(1, 0, 2), c.transpose(0, 2, 1))  # (M, N, K)
    result *= 2
    np.subtract((x**2).sum(2).T[:, :, None] + (c**2).sum(2)[:, None], result, out=result)
    return np.maximum(result, 0, out=result).transpose(1, 0, 2)


def encode(features: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Codes (N, M) of ``features`` (N, D): in each sub-space the index of the nearest codeword, Eq. 1; the lower index wins a tie.

    Distances are compared in float32, and again in float64 where the rounding of float32 could decide.
    """
    subspaces, count, size = codewords.shape
    parts = split(features, subspaces)
    codes = np.empty((len(parts), subspaces), code_dtype(count))
    for m in range(subspaces):
        norms = (codewords[m].astype(np.float64) ** 2).sum(1)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is compared again
            words, halves = codewords[m].astype(np.float32), (norms / 2).astype(np.float32)
            for start in range(0, len(parts), 1024):
                exact = parts[start : start + 1024, m]
                x = exact.astype(np.float32)
                scores = x @ words.T  # <x, c> - ||c||^2 / 2, which is the larger, the nearer c is
                scores -= halves
                best = scores.argmax(1)
                largest = scores[np.arange(len(x)), best]
                # Twice the largest error of a score (Higham 2002, section 3.1), with some space; the small numbers are for underflow.
                length = np.sqrt(np.einsum("nd,nd->n", x, x), dtype=np.float64) + 1e-17
                slack = (size + 8) * 2.0**-23 * 1.01 * (length * np.sqrt(norms.max()) + norms.max() / 2) + 1e-37
                rivals = np.count_nonzero(scores >= (largest - slack).astype(np.float32)[:, None], axis=1)
                unsure = np.flatnonzero((rivals > 1) | ~np.isfinite(largest))
                if len(unsure):
                    best[unsure] = squared_distances(exact[unsure, None], codewords[m : m + 1]).argmin(2)[:, 0]
                codes[start : start + 1024, m] = best
    return codes


def farthest(codes: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """The codes (N, M) of the codewords that are farthest from those of ``codes`` (N, M) in each sub-space; of a hypercube the opposite."""
    far = squared_distances(codewords.transpose(1, 0, 2), codewords).argmax(2)  # (K, M)
    return np.take_along_axis(far, codes.astype(np.int64), 0).astype(codes.dtype)


def decode(codes: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Reconstructions, float32 (N, D), of ``codes`` (N, M): the concatenation of their codewords."""
    return np.concatenate([codewords[m][codes[:, m]] for m in range(len(codewords))], axis=1)


def soft_assignment(features: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """The centroid distribution p, float64 (N, M, K), of ``features`` (N, D): softmax of the inner products with the codewords, Eq. 7."""
    parts = split(features, len(codewords)).astype(np.float64)
    similarities = np.einsum("nmd,mkd->nmk", parts, codewords.astype(np.float64))
    weights = np.exp(similarities - similarities.max(2, keepdims=True))
    return weights / weights.sum(2, keepdims=True)


def mean_by_rank(distribution: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Mean, float64 (K,), of distributions (N, K) over queries, at each rank of a codeword in the query's ``clean`` distribution (N, K).

    Every query has its peak at another codeword, so a mean for each codeword would be flat. Figure 3 shows this mean over queries.
    """
    order = np.argsort(-clean, axis=1, kind="stable")
    return np.take_along_axis(distribution, order, 1).mean(0)
