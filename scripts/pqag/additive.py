"""Additive quantizers: a feature is replaced by a sum of full-length codewords, one of each of M tables, see ``pqag.encoders``.

Residual quantization is that of faiss, with codes by its beam search. Composite quantization (Zhang, Du & Wang 2014) asks that the inner
products of the codewords of different tables have one sum for all items; codes are those of ICM. Functions have the names and the
arguments that ``quantizer.METHODS`` have; the digest of a codebook covers the one that it chooses (``CHOSEN`` in job/provenance.py).
"""

import itertools
import logging

import numpy as np

from pqag import encoders, quantizer

log = logging.getLogger("pqag")

#: How much composite quantization weighs the square of what the inner products differ from their mean.
PENALTY = 10.0
#: Steps of L-BFGS in which it adapts the codewords to the codes, in each alternation.
STEPS = 3


def rq(features: np.ndarray, subspaces: int, codewords: int, seed: int, iterations: int = 25) -> quantizer.Fit:
    """Residual quantization by faiss on all ``features``, float32 (N, D): each table is fitted by k-means to what those before it leave.

    The result depends on faiss' thread count, which the caller sets. Raises ValueError if there are fewer features than codewords.
    """
    quantizer.check_count(features, codewords)
    import faiss

    found = faiss.ResidualQuantizer(features.shape[1], subspaces, codewords.bit_length() - 1)
    found.train_type = faiss.ResidualQuantizer.Train_default
    found.cp.seed, found.cp.niter, found.cp.min_points_per_centroid = seed, iterations, 1
    found.cp.max_points_per_centroid = len(features)
    found.train(np.ascontiguousarray(features, np.float32))
    tables = faiss.vector_to_array(found.codebooks).reshape(subspaces, codewords, features.shape[1])
    return encoders.fitted(features, tables, "beam")


def cq(features: np.ndarray, subspaces: int, codewords: int, seed: int, iterations: int = 25) -> quantizer.Fit:
    """Composite quantization of ``features``, float32 (N, D): alternate between codes by ICM and codewords by L-BFGS.

    It begins with product quantization, for which all inner products are 0, and minimises the sum over features of ||z - sum_m c_m||^2 and
    ``PENALTY`` times the squared difference of sum_{l != m} <c_l, c_m> from its mean. Raises ValueError as ``quantizer.fit`` does.
    """
    begun = quantizer.fit(features, subspaces, codewords, seed, iterations)
    tables = encoders.block_diagonal(begun.codewords)
    z, codes = features.astype(np.float64), begun.codes.astype(np.int64)
    for _ in range(iterations):
        tables = adapted(z, codes, tables)
        blocks = (slice(start, start + encoders.BLOCK) for start in range(0, len(z), encoders.BLOCK))
        products = encoders.inner_products(tables)
        found = (encoders.icm(z[some], tables, start=list(codes[some].T), products=products) for some in blocks)
        codes = np.concatenate([np.stack(one, 1) for one in found])
    fit = encoders.fitted(features, tables.astype(np.float32), "icm")
    products = encoders.offsets(fit.codes, fit.codewords)
    log.info("inner products of tables: mean %.4g, standard deviation %.4g", products.mean(), products.std())
    return fit


class Composite:
    """What composite quantization minimises over its tables, while the codes (N, M) of features z, float64 (N, D), stay.

    All that it needs of the features are their sums for each codeword, so a step takes time by the number of codewords, not of features.
    """

    def __init__(self, z: np.ndarray, codes: np.ndarray, codewords: int):
        self.codes, self.size = codes, codewords
        self.squares = float((z**2).sum())
        self.counts = np.stack([np.bincount(column, minlength=codewords) for column in codes.T]).astype(float)
        self.sums = np.zeros((codes.shape[1], codewords, z.shape[1]))
        for sums, counts, column in zip(self.sums, self.counts, codes.T):
            rows = np.split(np.argsort(column, kind="stable"), counts.cumsum()[:-1].astype(int))
            for number in np.flatnonzero(counts):
                sums[number] = z[rows[number]].sum(0)

    def products(self, tables: np.ndarray) -> np.ndarray:
        """sum_{l != m} <c_l, c_m> of each feature, (N,), for ``tables`` (M, K, D)."""
        pairs = list(itertools.combinations(range(len(tables)), 2))
        found = np.zeros((max(1, len(pairs)), len(self.codes)))
        for row, (m, other) in zip(found, pairs):
            row += (tables[m] @ tables[other].T)[self.codes[:, m], self.codes[:, other]]
        return 2 * found.sum(0)

    def __call__(self, tables: np.ndarray) -> tuple[float, np.ndarray]:
        """The value, and its gradient by ``tables``, float64 (M, K, D)."""
        products = self.products(tables)
        excess = products - products.mean()
        gradient = self.counts[:, :, None] * tables - self.sums
        value = self.squares + float(((gradient - self.sums) * tables).sum() + products.sum() + PENALTY * (excess**2).sum())
        for m, other in itertools.combinations(range(len(tables)), 2):
            pairs = self.codes[:, m] * self.size + self.codes[:, other]
            weights = np.bincount(pairs, 1 + 2 * PENALTY * excess, self.size**2).reshape(self.size, self.size)
            gradient[m] += weights @ tables[other]
            gradient[other] += weights.T @ tables[m]
        return value, 2 * gradient


def adapted(z: np.ndarray, codes: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """``tables``, float64 (M, K, D), after ``STEPS`` of L-BFGS on ``Composite``, which none of them raises."""
    import torch  # here, because most quantizers do without it

    objective, found = Composite(z, codes, tables.shape[1]), torch.from_numpy(tables.copy()).requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        value, gradient = objective(found.detach().numpy())
        found.grad = torch.from_numpy(gradient)
        return torch.tensor(value)

    optimizer.step(closure)
    return found.detach().numpy()
