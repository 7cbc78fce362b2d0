"""The losses of attacks, each to be *maximised*: Basic (Eq. 3), APD (Type I, Eq. 8) and AOD (Type II, Eq. 9) of PQ-AG, and others.

A loss is a function ``loss(z, clean, head)`` of the adversarial features z and the clean ones, float64 (N, D), and of the
product-quantization head. It returns one number per query, (N,), and has the name that a study calls it by: the digest of an attack covers
its own loss and what that uses, not the others (``CHOSEN`` in job/provenance.py).
"""

from dataclasses import dataclass, replace

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
    goals: the codes that the loss aims at or away from, int64 (N, M), see ``pqag.goals``; None for most losses. progress: the share of its
    looks at the loss that an attack has behind it; 1 for the stored images.
    """

    codewords: Tensor
    assignment: str = "inner_product"
    temperature: float = 1.0
    rotation: Tensor | None = None
    encoder: str = "nearest"
    logits: Tensor | None = None
    distribution: str = "codewords"
    goals: Tensor | None = None
    progress: float = 1.0

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
        tables before leave of z (beam search, with a beam of one, so not always the code of retrieval), or of what all other tables leave
        of it (ICM). What is left has the gradient of z, since codes have none."""
        if self.logits is not None:
            return self._logits(self._turned(z))
        if self.encoder not in FULL_LENGTH:
            return self._nearness(z)
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

    def scores(self, z: Tensor) -> Tensor:
        """What hard assignment is the largest of, (N, M, K): inner products, or of the Euclidean distance what differs by codeword."""
        if self.distribution == "own":
            return self.own_scores(z)
        return self._nearness(z) if self.assignment == "euclidean" else self.similarities(z)

    def _nearness(self, z: Tensor) -> Tensor:
        return self.similarities(z) - (self.codewords**2).sum(2) / 2  # argmin ||z - c||^2 = argmax <z, c> - ||c||^2 / 2

    def codes(self, z: Tensor) -> Tensor:
        """Hard assignment b, int64 (N, M): Eq. 6 by inner product, Eq. 1 by Euclidean distance, or the victim's by its own scores."""
        return self.scores(z).argmax(2)


def basic(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Squared distance of the features, Eq. 3."""
    return ((z - clean) ** 2).sum(1)


def apd(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the peak of the centroid distribution: cross-entropy to the clean query's code, Eq. 8."""
    return -head.log_distribution(z).gather(2, head.codes(clean)[:, :, None]).sum((1, 2))


def aod(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the overall centroid distribution: cross-entropy to the clean query's soft assignment, Eq. 9."""
    return -(head.log_distribution(clean).exp() * head.log_distribution(z)).sum((1, 2))


def margin(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """By how much the best other codeword beats that of the clean query, summed over the sub-spaces: the objective of Carlini and Wagner
    (2017, f6) on codewords, which does not saturate. It is above 0 in a sub-space if the code changed there."""
    return _margins(z, clean, head).sum(1)


def clipped_margin(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """The same, but no sub-space counts above 0, so it is 0 once the codes of all have changed: what ``methods.cw_l2`` wants.
    Equal codewords count as different ones."""
    return _margins(z, clean, head).clamp(max=0).sum(1)


def _margins(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    scores, codes = head.scores(z), head.codes(clean)[:, :, None]
    return _others(scores, codes).amax(2) - scores.gather(2, codes)[:, :, 0]


def _others(values: Tensor, codes: Tensor) -> Tensor:
    """``values``, (N, M, K), with minus infinity at the ``codes``, (N, M, 1)."""
    return values.scatter(2, codes, -torch.inf)


def centre(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Attack on the centre code of the query's class (CgAT, Wang et al. 2023; SAAT's mainstay code): cross-entropy to the goals."""
    return -_log_probability_of_goals(z, head)


def p2p(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Point-to-point targeted attack: towards the code of one database item, by the cross-entropy of Eq. 8 with the sign turned."""
    return _log_probability_of_goals(z, head)


def dhta(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Deep Hashing Targeted Attack (Bai et al. 2020): the same towards the anchor code of the target, see ``pqag.goals``."""
    return _log_probability_of_goals(z, head)


def _log_probability_of_goals(z: Tensor, head: Head) -> Tensor:
    return head.log_distribution(z).gather(2, head.goals[:, :, None]).sum((1, 2))


def hag(z: Tensor, clean: Tensor, head: Head) -> Tensor:
    """Hash Adversary Generation (Yang et al. 2018): soft codes are driven to the opposite of the clean code, with a mask and a schedule.

    The soft code is the soft reconstruction at a temperature that falls as the attack goes on (``hag_alpha``); the loss is that of its
    cosine with the clean code, (cos + 1)^2, with the sign turned. The mask leaves out what has changed by a margin already. Where all sign
    patterns are codewords, as of hashing networks, cosine and mask go over single bits, as published; otherwise over sub-spaces, where the
    mask looks at how much more probable the clean codeword is than any other, which is the same for K = 2.
    """
    head = replace(head, temperature=head.temperature / hag_alpha(head.progress))
    p, codes = head.log_distribution(z).exp(), head.codes(clean)
    soft = torch.einsum("nmk,mkd->nmd", p, head.codewords)
    hard = head.codewords[torch.arange(len(head.codewords), device=codes.device), codes]
    if _is_hypercube(head.codewords):
        soft, hard = soft.flatten(1)[:, :, None], hard.flatten(1)[:, :, None]
    cosines = (soft * hard).sum(2) / (hard**2).sum(2).clamp(min=torch.finfo(hard.dtype).tiny)
    kept = cosines
    if not _is_hypercube(head.codewords):
        kept = p.gather(2, codes[:, :, None])[:, :, 0] - _others(p, codes[:, :, None]).amax(2)
    mask = kept > -0.5
    mask = (mask | ~mask.any(1, keepdim=True)).to(cosines.dtype)  # once all have changed, all count again
    above = (cosines * mask).sum(1) / mask.sum(1) + 1
    return -above * above.abs()  # below -1, which codewords of unequal length allow, it goes on to rise


def hag_alpha(progress: float) -> float:
    """What HAG multiplies features by before tanh: 0.1 for the first half of an attack, then more in each tenth, to 1 in the last."""
    return (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)[min(int(10 * progress + 1e-9), 9)]


def _is_hypercube(codewords: Tensor) -> bool:
    """Whether all sign patterns of one length are codewords, see ``pqag.joint``."""
    _, count, size = codewords.shape
    return count == 2**size and bool((codewords.abs() == codewords.abs().max()).all())
