"""The jointly trained victim: a product quantization network (PQN, Yu et al. 2018), whose codebook is learned with it.

A soft product-quantization layer replaces each sub-vector of a feature by a mean of the codewords of its sub-space, the nearer the heavier,
which tends to the nearest codeword (Eq. 1) as alpha grows. The asymmetric triplet loss compares the anchor as it is with the soft-quantized
positive and negative, as retrieval compares a query with a quantized database (ADC).

What the paper of PQN leaves open, or is read in several ways, is a key of ``pqn`` in config.yaml (docs/protocol.md). After training the
database is encoded by the nearest codeword, like that of any victim.
"""

from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag import quantizer
from pqag.names import TRIPLET_LOSSES
from pqag.networks import Backbone, normalise, pixels
from pqag.training import Recipe, classification_loss, mixed, read_rows

#: What a triplet costs, by the similarity of the anchor to the negative less that to the positive, and the margin: readings of PQN's loss.
_COSTS = (
    lambda difference, margin: difference.sigmoid(),
    lambda difference, margin: (difference + margin).clamp(min=0),
    lambda difference, margin: F.softplus(difference),
)
LOSSES: dict[str, Callable[[Tensor, float], Tensor]] = dict(zip(TRIPLET_LOSSES, _COSTS, strict=True))

#: The codebook begins as k-means on the features of so many training images at least, and of so many for each codeword.
IMAGES_OF_START, FOR_EACH_CODEWORD = 10_000, 20


@dataclass(frozen=True)
class Joint:
    """How a codebook is trained with its network: M = ``subspaces``, K = ``codewords``, ``iterations`` of the k-means that it begins with,
    and the keys of ``pqn`` in config.yaml, where each is explained."""

    subspaces: int
    codewords: int
    iterations: int
    alpha: float
    loss: str
    margin: float
    intra_normalisation: bool
    classification: float
    warm_up: float

    @property
    def groups(self) -> int:
        """In how many parts a feature is normalised."""
        return self.subspaces if self.intra_normalisation else 1


def soft_quantize(z: Tensor, codewords: Tensor, alpha: float) -> Tensor:
    """Features (N, D) with each sub-vector z_m replaced by the mean of the codewords (M, K, D/M) under softmax(-alpha ||z_m - c_mk||^2).

    Of vectors of norm 1 that is softmax(2 alpha <z_m, c_mk>), as PQN has it.
    """
    subspaces, _, size = codewords.shape
    parts = z.reshape(len(z), subspaces, size)
    nearness = 2 * torch.einsum("nmd,mkd->nmk", parts, codewords) - (codewords**2).sum(2)  # less ||z_m||^2, the same for every codeword
    return torch.einsum("nmk,mkd->nmd", (alpha * nearness).softmax(2), codewords).flatten(1)


def triplet_loss(z: Tensor, quantized: Tensor, labels: Tensor, loss: str, margin: float) -> Tensor:
    """Mean cost, (), of all triplets of a batch: anchors z (N, D), positives and negatives ``quantized`` (N, D), multi-hot labels (N, C).

    A positive is another image that shares a label with the anchor, a negative one that shares none. Time and memory grow with N^3. Zero
    for a batch without a triplet.
    """
    similar = (labels @ labels.T) > 0
    positive = similar.clone().fill_diagonal_(False)
    triplets = positive[:, :, None] & ~similar[:, None, :]  # (anchor, positive, negative)
    similarities = z @ quantized.T
    costs = LOSSES[loss](similarities[:, None, :] - similarities[:, :, None], margin)
    return (costs * triplets).sum() / triplets.sum().clamp(min=1)


@torch.no_grad()
def start_of_codebook(
    network: nn.Module,
    images: np.ndarray | h5py.Dataset,
    sizes: tuple[int, int],
    seed: int,
    iterations: int,
    groups: int = 1,
    image_size: int | None = None,
) -> Tensor:
    """The centroids, float32 (M, K, D/M), of k-means on the features of ``points_of_start``. ``sizes``: M and K.

    Raises ValueError for fewer images than codewords.
    """
    points = points_of_start(network, images, sizes[1], seed, groups, image_size)
    return torch.from_numpy(np.ascontiguousarray(quantizer.fit(points, *sizes, seed, iterations).codewords))


@torch.no_grad()
def points_of_start(
    network: nn.Module,
    images: np.ndarray | h5py.Dataset,
    codewords: int,
    seed: int,
    groups: int = 1,
    image_size: int | None = None,
) -> np.ndarray:
    """Features, float32 (N, D), of ``network``, which is in evaluation mode, normalised in ``groups``.

    ``images``, uint8 (N, 3, H, W): the first 10,000, or 20 for each of K ``codewords``, in an order drawn by ``seed``, enlarged to
    ``image_size`` pixels on a side.
    """
    device = next(network.parameters()).device
    count = max(IMAGES_OF_START, FOR_EACH_CODEWORD * codewords)
    rows, places = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count].sort()
    batches = (read_rows(images, batch).to(device) for batch in rows.split(500))
    features = [normalise(network.features(pixels(batch, image_size)), groups) for batch in batches]
    return torch.cat(features).float().cpu()[places.argsort()].numpy()


class ProductQuantizationNetwork(nn.Module):
    """A backbone with a codebook that is learned with it; called like the backbone, it gives logits."""

    encoder, logits = "nearest", None  # how codes are found, as of ``pqag.joint.FineTuned``

    def __init__(self, backbone: Backbone, joint: Joint):
        super().__init__()
        if backbone.feature_size % joint.subspaces:
            raise ValueError(f"a feature of {backbone.feature_size} numbers cannot be cut into {joint.subspaces} sub-vectors")
        backbone.feature_groups = joint.groups
        self.backbone, self.joint = backbone, joint
        self.free_codewords = nn.Parameter(torch.zeros(joint.subspaces, joint.codewords, backbone.feature_size // joint.subspaces))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (N, C), of images, float32 (N, 3, H, W) in [0, 1]."""
        return self.backbone(images)

    def codewords(self) -> Tensor:
        """The codewords, float32 (M, K, D/M), of norm 1 under intra-normalisation."""
        return F.normalize(self.free_codewords, dim=2) if self.joint.intra_normalisation else self.free_codewords

    def start_codebook(self, images: np.ndarray | h5py.Dataset, seed: int, image_size: int | None = None) -> None:
        """Let the codewords be those of ``start_of_codebook``."""
        self.eval()
        kept = self.joint
        with torch.no_grad():
            sizes = kept.subspaces, kept.codewords
            self.free_codewords.copy_(start_of_codebook(self.backbone, images, sizes, seed, kept.iterations, kept.groups, image_size))

    def begin(self, epoch: int, recipe: Recipe, images: np.ndarray | h5py.Dataset, seed: int, image_size: int | None = None) -> None:
        """Start the codebook on ``images``, see ``start_of_codebook``, if this is the epoch in which it begins. Called before each epoch,
        and after the last."""
        if epoch == self.begins_at(recipe):
            self.start_codebook(images, seed, image_size)

    def begins_at(self, recipe: Recipe) -> int:
        """The first epoch in which the codebook is trained; those before, at least one if it warms up, only classify."""
        epochs = int(self.joint.warm_up * recipe.epochs + 1e-9)  # 0.58 x 50 is 28.999... in floating point
        return max(1, epochs) if self.joint.warm_up else 0

    def objective(self, recipe: Recipe, multilabel: bool) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
        """The loss of a batch, for ``training.train``: that of classification; from the epoch ``begins_at`` on the asymmetric triplet loss
        and, weighted, that of classification."""

        def objective(images: Tensor, labels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
            with mixed(recipe, images.device):
                features = self.backbone.features(images)
                logits = self.backbone.head(features)
            classified = classification_loss(logits.float(), labels, multilabel, recipe.label_smoothing)
            if epoch < self.begins_at(recipe):
                return classified, logits
            z = normalise(features.float(), self.joint.groups)
            quantized = soft_quantize(z, self.codewords(), self.joint.alpha)
            triplets = triplet_loss(z, quantized, labels, self.joint.loss, self.joint.margin)
            return triplets + self.joint.classification * classified, logits

        return objective
