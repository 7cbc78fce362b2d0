"""Codebooks that are trained with a network and find codes in their own way: DPQ and DTQ, see ``pqag.joint``.

DPQ (Klein & Wolf 2019; not Deep Progressive Quantization, which shares the letters) assigns codes by logits that it learns. A sub-vector
has two representations, the mean of the codewords under the softmax of its logits, and the codeword of the largest. DTQ (Liu et al. 2018)
learns from triplets, and its codewords, at first those of sub-spaces, become full-length ones with codes by ICM.

Both take raw features, float32 (N, D), and multi-hot labels, float32 (N, C); their ``codewords`` are float32, (M, K, D/M) or (M, K, D).
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag import encoders, quantizer
from pqag.networks import normalise

#: How hard the assignment of DPQ is at first, as ``pqn.alpha`` of PQN; and the weight of its two Gini terms.
ALPHA, GINI = 5.0, 0.001
#: By how much the squared distance to the negative is to exceed that to the positive in a triplet of DTQ, whose features have norm 1.
MARGIN = 0.125
#: How often DTQ renews codes and full-length codewords, one after the other, before an epoch.
ROUNDS = 3


def second_half(epochs: int) -> int:
    """The first epoch of the second half of ``epochs``, at least one unless it is the only one."""
    return epochs // 2


class Dpq(nn.Module):
    """The layer of DPQ: codewords, the logits of its assignment, a classifier and a centre for each class, all learned with the network.

    sizes: M, K and D. epochs: of the whole training; in the first half only the classifier and the centres are trained, on features.
    weight: of the joint central loss.
    """

    encoder = "argmax"

    def __init__(self, sizes: tuple[int, int, int], classes: int, epochs: int, weight: float):
        super().__init__()
        self.sizes, self.epochs, self.weight = sizes, epochs, weight
        subspaces, words, size = sizes
        self.codewords = nn.Parameter(torch.zeros(subspaces, words, size // subspaces))
        self.weights = nn.Parameter(torch.zeros(subspaces, words, size // subspaces))
        self.biases = nn.Parameter(torch.zeros(subspaces, words))
        self.classifier = nn.Linear(size, classes)
        self.centres = nn.Parameter(torch.zeros(classes, size))

    @property
    def logits(self) -> np.ndarray:
        """The weights and biases of the assignment, float32 (M, K, D/M + 1), as ``encoders.assignment_logits`` takes them."""
        return torch.cat([self.weights, self.biases[:, :, None]], 2).detach().cpu().numpy()

    def representations(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Assignments p, (N, M, K), soft and hard representations, (N, D) both; the gradient of a hard one by p is that of the soft one."""
        parts = normalise(u, self.sizes[0]).reshape(len(u), self.sizes[0], -1)
        p = (torch.einsum("nmd,mkd->nmk", parts, self.weights) + self.biases).softmax(2)
        one_hot = p + (F.one_hot(p.argmax(2), self.sizes[1]).to(p) - p).detach()
        soft, hard = (torch.einsum("nmk,mkd->nmd", one, self.codewords).flatten(1) for one in (p, one_hot))
        return p, soft, hard

    def loss(self, u: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """Cross-entropy of both representations by one classifier; the joint central loss, half the squared distances of both to the centre
        of the class; and the Gini terms, which make a batch use all codewords alike and every image one of them.

        Several labels share the target and the centre.
        """
        targets = labels / labels.sum(1, keepdim=True).clamp(min=1)
        centres = targets @ self.centres

        def entropy(z: Tensor) -> Tensor:
            return -(targets * F.log_softmax(self.classifier(z), 1)).sum(1).mean()

        def central(z: Tensor) -> Tensor:
            return ((z - centres) ** 2).sum(1).mean() / 2

        if epoch < second_half(self.epochs):
            z = normalise(u, self.sizes[0])
            return entropy(z) + central(z.detach())
        p, soft, hard = self.representations(u)
        gini = (p.mean(0) ** 2).sum(1).mean() - (p**2).sum(2).mean()
        return entropy(soft) + entropy(hard) + self.weight * (central(soft) + central(hard)) + GINI * gini

    @torch.no_grad()
    def begin(self, epoch: int, points: Callable[[], np.ndarray], seed: int, iterations: int) -> None:
        """In the epoch in which the codebook begins, let codewords be those of k-means on ``points``, features float32 (N, D) of training
        images, and the assignment that of PQN's soft layer, softmax(-alpha ||z_m - c_mk||^2)."""
        if epoch == second_half(self.epochs):
            z = normalise(torch.from_numpy(points()), self.sizes[0]).numpy()
            words = torch.from_numpy(quantizer.fit(z, *self.sizes[:2], seed, iterations).codewords)
            self.codewords.copy_(words)
            self.weights.copy_(2 * ALPHA * words)
            self.biases.copy_(-ALPHA * (words**2).sum(2))


def group_hard(z: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The mean hinge loss, (), of triplets of a batch: features z (N, D), multi-hot labels (N, C).

    Of each anchor and each positive it takes one negative, drawn at random among those nearer to the anchor than the positive is, or
    farther by less than ``margin``, in squared distances. Zero where no pair has one.
    """
    similar = (labels @ labels.T) > 0
    squared = ((z[:, None] - z[None]) ** 2).sum(2)
    positive = similar & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    costs = squared[:, :, None] - squared[:, None, :] + margin  # (anchor, positive, negative)
    hard = (costs > 0) & positive[:, :, None] & ~similar[:, None, :]
    drawn = (torch.rand(hard.shape, device=z.device) * hard).argmax(2, keepdim=True)
    found = hard.gather(2, drawn)
    return (costs.gather(2, drawn) * found).sum() / found.sum().clamp(min=1)


def ridge(z: np.ndarray, codes: np.ndarray, tables: np.ndarray, weight: float = 1e-3) -> np.ndarray:
    """The full-length codewords, float64 (M, K, D), that are nearest to features z (N, D) with ``codes`` (N, M): the least squares with
    ``weight`` on the squares of codewords. Those of no feature stay as in ``tables``."""
    count, words, size = tables.shape
    columns = codes + words * np.arange(count)  # of the one-hot matrix H
    used, columns = np.unique(columns, return_inverse=True)
    columns = columns.reshape(codes.shape)
    products = np.diag(np.full(len(used), weight))
    for one, other in itertools.product(columns.T, repeat=2):
        np.add.at(products, (one, other), 1)
    right = np.zeros((len(used), size))
    for column in columns.T:
        np.add.at(right, column, z)
    found = tables.reshape(-1, size).astype(np.float64)
    found[used] = np.linalg.solve(products, right)
    return found.reshape(tables.shape)


class Dtq(nn.Module):
    """The codebook of DTQ. In the first half of the epochs it is that of k-means in sub-spaces, made before each epoch; then codewords have
    their full length and are renewed from what they were. In the first epoch the loss is that of triplets alone.

    sizes: M, K and D. epochs: of the whole training. weight: of the quantization term.
    """

    encoder, logits = "icm", None

    def __init__(self, sizes: tuple[int, int, int], epochs: int, weight: float):
        super().__init__()
        self.sizes, self.epochs, self.weight = sizes, epochs, weight
        self.register_buffer("codewords", torch.zeros(sizes))

    def loss(self, u: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """The loss of triplets by ``group_hard`` and, weighted, the mean squared distance of features to the sum of their codewords."""
        z = normalise(u)
        triplets = group_hard(z, labels, MARGIN)
        if epoch == 0:
            return triplets
        with torch.no_grad():
            quantized = sum(words[codes] for words, codes in zip(self.codewords, encoders.icm(z, self.codewords)))
        return triplets + self.weight * ((z - quantized) ** 2).sum(1).mean()

    @torch.no_grad()
    def begin(self, epoch: int, points: Callable[[], np.ndarray], seed: int, iterations: int) -> None:
        """Renew the codewords on ``points``, features float32 (N, D) of training images. Called before each epoch, and after the last."""
        z, begins = points(), second_half(self.epochs)
        if epoch <= begins:
            short = quantizer.fit(z, *self.sizes[:2], seed, iterations).codewords
            words = encoders.block_diagonal(short)
        else:
            words = self.codewords.cpu().numpy().astype(np.float64)
        for _ in range(ROUNDS if epoch >= begins else 0):
            words = ridge(z, encoders.encode(z, words, "icm").astype(np.int64), words)
        self.codewords.copy_(torch.from_numpy(words))
