"""How a feature gets its code where that is not the nearest codeword of each sub-space (``pqag.quantizer``).

``argmax``: of logits, an affine function of each sub-vector scaled to norm 1, as in DPQ (Klein & Wolf 2019). The other two are of additive
quantizers, whose codewords have the full length of a feature and are added up. ``icm``: iterated conditional modes, the best codeword of
one table after the other, those of the other tables held fixed (composite quantization, Zhang et al. 2014; DTQ, Liu et al. 2018).
``beam``: the beam search of faiss' residual quantizer.

An additive quantizer is a product quantizer of features that are repeated M times: with y' = (y, ..., y) and x = sum_m c_m,

    sum_m ||y - c_m||^2 = ||y - x||^2 + (M - 1) ||y||^2 - 2 sum_{l < m} <c_l, c_m>

so that retrieval and attacks treat it as one, and add ``offsets`` of the items, the last term with its sign turned.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pqag import quantizer
from pqag.errors import UserError
from pqag.names import ENCODERS, FULL_LENGTH

#: Passes of ICM over all tables, as in the code of DTQ.
SWEEPS = 3
#: Features that are encoded at once, which bounds the memory.
BLOCK = 1024


def block_diagonal(codewords: np.ndarray) -> np.ndarray:
    """Codewords (M, K, D/M) of sub-spaces as full-length ones, float64 (M, K, D), that are 0 in all other sub-spaces."""
    subspaces, count, size = codewords.shape
    tables = np.zeros((subspaces, count, subspaces * size))
    for m, words in enumerate(codewords):
        tables[m, :, m * size : (m + 1) * size] = words
    return tables


def inner_products(codewords: Any) -> list[list[Any]]:
    """The inner products, (K, K), of the codewords of each two tables of ``codewords``, (M, K, D)."""
    found = [[None] * len(codewords) for _ in codewords]
    for m, other in itertools.combinations(range(len(codewords)), 2):
        found[m][other] = codewords[m] @ codewords[other].T
        found[other][m] = found[m][other].T
    return found


def icm(x: Any, codewords: Any, sweeps: int = SWEEPS, start: Sequence[Any] | None = None, products: Any = None) -> list[Any]:
    """Codes of features x, (N, D), as M arrays (N,), by ``sweeps`` over the tables of full-length ``codewords``, (M, K, D).

    Arrays of numpy or tensors of torch, of one type. Each step takes the codeword with the smallest ||x - sum_m c_m||^2, the others held
    fixed, so no step raises it. The first sweep begins without any codeword, unless ``start`` has codes. ``products``: those of
    ``inner_products``, where several calls share them.
    """
    tables = range(len(codewords))
    alone = [x @ words.T - (words**2).sum(1) / 2 for words in codewords]  # less ||x||^2 / 2, which is the same for all
    products = products or inner_products(codewords)
    codes = list(start) if start is not None else [None] * len(codewords)
    for _ in range(sweeps):
        for m in tables:
            scores = alone[m]
            for other in tables:
                if other != m and codes[other] is not None:
                    scores = scores - products[other][m][codes[other]]
            codes[m] = scores.argmax(1)
    return codes


def residual_quantizer(codewords: np.ndarray) -> Any:
    """The residual quantizer of faiss with these ``codewords``, float32 (M, K, D)."""
    import faiss  # here, because most encoding does without it

    subspaces, count, size = codewords.shape
    found = faiss.ResidualQuantizer(size, subspaces, count.bit_length() - 1)
    faiss.copy_array_to_vector(np.ascontiguousarray(codewords, np.float32).ravel(), found.codebooks)
    found.is_trained = True
    return found


def beam(features: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Codes (N, M) of ``features`` (N, D) by faiss' beam search with full-length ``codewords`` (M, K, D), on one thread."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    try:
        packed = residual_quantizer(codewords).compute_codes(np.ascontiguousarray(features, np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return faiss.unpack_bitstrings(packed, len(codewords), codewords.shape[1].bit_length() - 1)


def assignment_logits(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The logits, float64 (N, M, K), of ``features`` (N, D): of each sub-vector, scaled to norm 1, weights ``logits[..., :-1]`` and biases
    ``logits[..., -1]``; (M, K, D/M + 1)."""
    parts = quantizer.split(features, len(logits)).astype(np.float64)
    parts = parts / np.maximum(np.linalg.norm(parts, axis=2, keepdims=True), 1e-12)
    return np.einsum("nmd,mkd->nmk", parts, logits[..., :-1].astype(np.float64)) + logits[..., -1]


def soft(features: np.ndarray, codewords: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The soft representations, float32 (N, D), of ``features`` (N, D): in each sub-space the mean of the ``codewords`` (M, K, D/M) under
    the softmax of the logits."""
    found = []
    for start in range(0, len(features), BLOCK):
        scores = assignment_logits(features[start : start + BLOCK], logits)
        weights = np.exp(scores - scores.max(2, keepdims=True))
        weights /= weights.sum(2, keepdims=True)
        found.append(np.einsum("nmk,mkd->nmd", weights, codewords).reshape(len(scores), -1).astype(np.float32))
    return np.concatenate(found)


def encode(features: np.ndarray, codewords: np.ndarray, encoder: str, logits: np.ndarray | None = None) -> np.ndarray:
    """Codes (N, M) of ``features`` (N, D) by one of ``names.ENCODERS``; ``logits`` for "argmax"."""
    if encoder == "nearest":
        return quantizer.encode(features, codewords)
    kind = quantizer.code_dtype(codewords.shape[1])
    if encoder == "beam":
        return beam(features, codewords).astype(kind)
    blocks = (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))
    if encoder == "argmax":
        return np.concatenate([assignment_logits(block, logits).argmax(2) for block in blocks]).astype(kind)
    words = codewords.astype(np.float64)
    products = inner_products(words)
    found = (icm(block.astype(np.float64), words, products=products) for block in blocks)
    return np.concatenate([np.stack(codes, 1) for codes in found]).astype(kind)


def decode(codes: np.ndarray, codewords: np.ndarray, encoder: str) -> np.ndarray:
    """Reconstructions, float32 (N, D), of ``codes`` (N, M): codewords one after the other, or the sum of full-length ones."""
    if encoder not in FULL_LENGTH:
        return quantizer.decode(codes, codewords)
    return sum(words[codes[:, m]] for m, words in enumerate(codewords))


def fitted(
    features: np.ndarray, codewords: np.ndarray, encoder: str, logits: np.ndarray | None = None, rotation: np.ndarray | None = None
) -> quantizer.Fit:
    """Encode ``features`` (N, D), after a ``rotation`` (D, D), and return the fit; what has ``logits`` is held against soft
    representations."""
    if rotation is not None:
        return replace(fitted(features @ rotation.T, codewords, encoder, logits), rotation=rotation)
    if encoder == "nearest":
        return quantizer.fitted(features, codewords)
    codes = encode(features, codewords, encoder, logits)
    compared = features if logits is None else soft(features, codewords, logits)
    error = compared - decode(codes, codewords, encoder)
    empty = [codewords.shape[1] - len(np.unique(codes[:, m])) for m in range(len(codewords))]
    return quantizer.Fit(codewords, codes, float((error.astype(np.float64) ** 2).sum(1).mean()), empty, None, encoder, logits)


def by_user(
    function: Callable, name: str, features: np.ndarray, subspaces: int, codewords: int, seed: int, iterations: int
) -> quantizer.Fit:
    """Return the checked fit by a function of the user. It gets the same arguments as ``quantizer.METHODS`` and returns an object with the
    attributes of ``quantizer.Fit`` that say what a codebook is: ``codewords`` and, if it likes, ``rotation``, ``encoder`` and ``logits``.
    Raises UserError, with its ``name``, if it returns anything else."""
    size = features.shape[1]
    result = function(features.copy(), subspaces, codewords, seed, iterations)
    encoder = getattr(result, "encoder", "nearest")
    if not isinstance(encoder, str) or encoder not in ENCODERS:
        shown = repr(encoder) if isinstance(encoder, str) else f"of type {type(encoder).__name__}"
        raise UserError(f"the quantizer {name} returned the encoder {shown}, but must return one of {', '.join(ENCODERS)}")
    part = size if encoder in FULL_LENGTH else size // subspaces
    words = quantizer.checked(name, "codewords", getattr(result, "codewords", None), (subspaces, codewords, part))
    logits, rotation = getattr(result, "logits", None), getattr(result, "rotation", None)
    if encoder == "argmax":
        logits = quantizer.checked(name, "logits", logits, (subspaces, codewords, part + 1))
    elif logits is not None:
        raise UserError(f"the quantizer {name} returned logits, which only the encoder argmax uses, with the encoder {encoder}")
    if rotation is None:
        return fitted(features, words, encoder, logits)
    rotation = quantizer.checked(name, "rotation", rotation, (size, size))
    if (off := float(np.abs(rotation.astype(np.float64) @ rotation.T - np.eye(size)).max())) > 1e-3:
        raise UserError(f"the quantizer {name} returned a rotation that is not orthogonal: R R^T differs from 1 by {off:.2g}")
    return fitted(features, words, encoder, logits, rotation)


def offsets(codes: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """2 sum_{l < m} <c_l, c_m>, float64 (N,), of the full-length codewords of items with ``codes`` (N, M); equal codes, equal numbers."""
    distinct, numbers = np.unique(codes, axis=0, return_inverse=True)
    words = codewords.astype(np.float64)
    total = sum(words[m][distinct[:, m]] for m in range(len(words)))
    squares = sum((words[m] ** 2).sum(1)[distinct[:, m]] for m in range(len(words)))
    return ((total**2).sum(1) - squares)[numbers.ravel()]


def farthest(codes: np.ndarray, codewords: np.ndarray, encoder: str) -> np.ndarray:
    """Codes (N, M) of reconstructions that are as far as possible from those of ``codes`` (N, M).

    In sub-spaces that is ``quantizer.farthest``, of full-length codewords the best that ICM finds: the largest ||q - x||^2 is the smallest
    -||q - x||^2, one table after the other, beginning with the codewords that are farthest alone.
    """
    far = quantizer.farthest(codes, codewords)
    if encoder not in FULL_LENGTH:
        return far
    words, found = codewords.astype(np.float64), far.astype(np.int64).T
    total = sum(table[code] for table, code in zip(words, found)) - decode(codes, words, encoder)
    for m in list(range(len(words))) * SWEEPS:
        rest = total - words[m][found[m]]
        found[m] = (rest @ words[m].T + (words[m] ** 2).sum(1) / 2).argmax(1)
        total = rest + words[m][found[m]]
    return found.T.astype(codes.dtype)
