"""The losses of attacks, each to be *maximised*: the Basic attack (Eq. 3), APD (Type I, Eq. 8) and AOD (Type II, Eq. 9) of PQ-AG.

A loss is a function ``loss(z, clean, head)`` of the adversarial features z and the clean ones, float64 (N, D), and of the
product-quantization head. It returns one number per query, (N,), and has the name that a study calls it by: the digest of an attack covers
its own loss and what that uses, not the others (``CHOSEN`` in job/provenance.py).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pqag import encoders
from pqag.names import FULL_LENGTH


@dataclass(frozen=True)
class Head:
    """The product-quantization head that an attack looks at: codewords, float64 (M, K, D/M), how codes are assigned, and the rotation of
    features that comes first, float64 (D, D), None for none.

    encoder, logits: how the victim finds codes, see ``pqag.encoders``. distribution: what APD and AOD take the softmax of: "codewords", the
    inner products of Eq. 7, or "own", the scores by which the victim itself chooses codes.
    """

    codewords: Tensor
    assignment: str = "inner_product"
    temperature: float = 1.0
    rotation: Tensor | None = None
    encoder: str = "nearest"
    logits: Tensor | None = None
    distribution: str = "codewords"

    def similarities(self, z: Tensor) -> Tensor:
        """Inner products, (N, M, K), of the sub-vectors of z, (N, D), with the codewords of their sub-space; of z itself with full-length
        codewords, and of soft representations where logits assign codes."""
        z = self._turned(z)
        subspaces, _, size = self.codewords.shape
        if self.encoder in FULL_LENGTH:
            z = z.repeat(1, subspaces)
        parts = z.reshape(len(z), subspaces, size)
        if self.logits is not None:
            parts = torch.einsum("nmk,mkd->nmd", self._logits(z).softmax(2), self.codewords)
        return torch.einsum("nmd,mkd->nmk", parts, self.codewords)

    def _turned(self, z: Tensor) -> Tensor:
        return z if self.rotation is None else z @ self.rotation.T

    def _logits(self, z: Tensor) -> Tensor:
        """As ``encoders.assignment_logits``, of rotated features."""
        parts = F.normalize(z.reshape(len(z), len(self.logits), -1), dim=2)
        return torch.einsum("nmd,mkd->nmk", parts, self.logits[..., :-1]) + self.logits[..., -1]

    def own_scores(self, z: Tensor) -> Tensor:
        """The scores, (N, M, K), whose largest is the code: the logits; otherwise <r, c> - ||c||^2 / 2 of the sub-vector r, of what the
        tables before leave of z (beam search, with a beam of one), or of what all other tables leave of it (ICM). What is left has the
        gradient of z, since codes have none."""
        if self.logits is not None:
            return self._logits(self._turned(z))
        if self.encoder not in FULL_LENGTH:
            return self.similarities(z) - (self.codewords**2).sum(2) / 2
        z = self._turned(z)
        found, chosen = [], []
        if self.encoder == "icm":
            chosen = [words[code] for words, code in zip(self.codewords, encoders.icm(z.detach(), self.codewords))]
        for m, words in enumerate(self.codewords):
            left = z - sum(one for other, one in enumerate(chosen) if other != m)
            found.append(left @ words.T - (words**2).sum(1) / 2)
            if self.encoder == "beam":
                chosen.append(words[found[m].argmax(1)])
        return torch.stack(found, 1)

    def log_distribution(self, z: Tensor) -> Tensor:
        """log p of the soft assignment, (N, M, K): Eq. 7, with the inner products, or the own scores, divided by the temperature."""
        scores = self.own_scores(z) if self.distribution == "own" else self.similarities(z)
        return F.log_softmax(scores / self.temperature, dim=2)

    def codes(self, z: Tensor) -> Tensor:
        """Hard assignment b, int64 (N, M): Eq. 6 by inner product, or Eq. 1 by Euclidean distance; by own scores if p is of these."""
        if self.distribution == "own":
            return self.own_scores(z).argmax(2)
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
