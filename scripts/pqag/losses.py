"""The losses of attacks, each to be *maximised*: the Basic attack (Eq. 3), APD (Type I, Eq. 8) and AOD (Type II, Eq. 9) of PQ-AG.

A loss is a function ``loss(z, clean, head)`` of the adversarial features z and the clean ones, float64 (N, D), and of the
product-quantization head. It returns one number per query, (N,), and has the name that a study calls it by: the digest of an attack covers
its own loss and what that uses, not the others (``CHOSEN`` in job/provenance.py).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """The product-quantization head that an attack looks at: codewords, float64 (M, K, D/M), how codes are assigned, and the rotation of
    features that comes first, float64 (D, D), None for none."""

    codewords: Tensor
    assignment: str = "inner_product"
    temperature: float = 1.0
    rotation: Tensor | None = None

    def similarities(self, z: Tensor) -> Tensor:
        """Inner products, (N, M, K), of the sub-vectors of z, (N, D), with the codewords of their sub-space."""
        z = z if self.rotation is None else z @ self.rotation.T
        subspaces, _, size = self.codewords.shape
        return torch.einsum("nmd,mkd->nmk", z.reshape(len(z), subspaces, size), self.codewords)

    def log_distribution(self, z: Tensor) -> Tensor:
        """log p of the soft assignment, (N, M, K): Eq. 7, with the inner products divided by the temperature."""
        return F.log_softmax(self.similarities(z) / self.temperature, dim=2)

    def codes(self, z: Tensor) -> Tensor:
        """Hard assignment b, int64 (N, M): Eq. 6 by inner product, or Eq. 1 by Euclidean distance."""
        scores = self.similarities(z)
        if self.assignment == "euclidean":
            scores = scores - (self.codewords**2).sum(2) / 2  # argmin ||z - c||^2 = argmax <z, c> - ||c||^2 / 2
        return scores.argmax(2)


def basic(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Squared distance of the features, Eq. 3."""
    return ((z - clean) ** 2).sum(1)


def apd(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the peak of the centroid distribution: cross-entropy to the clean query's code, Eq. 8."""
    return -head.log_distribution(z).gather(2, head.codes(clean)[:, :, None]).sum((1, 2))


def aod(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the overall centroid distribution: cross-entropy to the clean query's soft assignment, Eq. 9."""
    return -(head.log_distribution(clean).exp() * head.log_distribution(z)).sum((1, 2))
