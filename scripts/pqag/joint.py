"""Networks that are trained together with their codebook: what is minimised, with which codebook they begin, and what is kept.

PQN begins with a new network, see ``pqag.pqn``. Every other method begins with a trained one, whose features a linear layer shortens, and
minimises its own loss of that feature and, weighted, the loss of classification. Such a method is a function of ``METHODS``, or of the
user, that gets a ``Given`` and returns a ``Method``.

Binary hashing is product quantization with a fixed codebook, ``hypercube``: all sign patterns of a sub-vector. The nearest codeword is the
signs of the feature u, so SDC ranks by Hamming distance: SDC^2 = 4 g^2 d_H. The losses are those of CSQ (Yuan et al. 2020), DPSH (Li et al.
2016) and HashNet (Cao et al. 2017), over the pairs of a batch; tanh is part of the losses, not of the feature. DQN (Cao et al. 2016) draws
the cosines of pairs to 1 or -1, and features to codewords, which k-means on the features renews before each epoch. DPQ and DTQ find
codes in their own way, see ``pqag.learned``.

docs/protocol.md says where these depart from the publications.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag import checkpoints, names, pqn, quantizer, training, training_run, user_code
from pqag.errors import UserError
from pqag.learned import Dpq, Dtq
from pqag.networks import Bottleneck, normalise, pixels


@dataclass(frozen=True)
class Given:
    """What a method is told: ``bits`` of a code, M ``subspaces``, K ``codewords``, ``classes`` of the data set, training ``batches`` in an
    epoch, and of the study's section ``joint`` the weight of a ``quantization`` term, ``size`` and ``epochs``."""

    bits: int
    subspaces: int
    codewords: int
    classes: int
    batches: int
    quantization: float
    size: int
    epochs: int


@dataclass(frozen=True)
class Method:
    """A way to train a network with its codebook.

    size: D, the length of the feature. loss: a function of raw features, float32 (N, D), multi-hot labels, float32 (N, C), the codewords
    and the number of the epoch, that gives a number to minimise, (). codewords: the codebook (M, K, D/M), which stays; None for that of
    k-means on the normalised features of training images, made before each epoch and after the last. learned: a codebook that is trained
    with the network instead, as those of ``pqag.learned`` are; its parameters are trained, too.
    """

    size: int
    loss: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    codewords: np.ndarray | None = None
    learned: Dpq | Dtq | None = None


#: The size of a bit in ``hypercube``: that of 16 bits of norm 1 together. As a power of two it makes distances exact, and so ties.
G = 1 / 4


def hypercube(bits: int, subspaces: int) -> np.ndarray:
    """All sign patterns, times ``G``, in each sub-space: codewords, float32 (M, 2^(bits/M), bits/M)."""
    size = bits // subspaces
    signs = 2 * (np.arange(2**size)[:, None] >> np.arange(size) & 1) - 1
    return np.tile(G * signs, (subspaces, 1, 1)).astype(np.float32)


def hadamard(order: int) -> np.ndarray:
    """A matrix of signs, int64 (order, order), with orthogonal rows: by Sylvester for powers of two, otherwise by Paley's constructions.

    Raises ValueError for an order that these do not give.
    """
    if order == 1:
        return np.ones((1, 1), int)
    if order & (order - 1) == 0:
        return np.kron([[1, 1], [1, -1]], hadamard(order // 2))
    for prime, kind in ((order - 1, 3), (order // 2 - 1, 1)):
        if order % 4 == 0 and prime % 4 == kind and all(prime % divisor for divisor in range(2, prime)):
            squares = {i * i % prime for i in range(1, prime)}
            differences = (np.arange(prime)[:, None] - np.arange(prime)) % prime
            residues = np.where(differences == 0, 0, np.where(np.isin(differences, list(squares)), 1, -1))
            bordered = np.pad(residues, ((1, 0), (1, 0)), constant_values=1)
            bordered[0, 0] = 0
            if kind == 3:
                bordered[1:, 0] = -1
                return bordered + np.eye(order, dtype=int)
            return np.kron(bordered, [[1, 1], [1, -1]]) + np.kron(np.eye(order // 2, dtype=int), [[1, -1], [-1, -1]])
    if order % 8 == 0:
        return np.kron([[1, 1], [1, -1]], hadamard(order // 2))
    raise ValueError(f"there is no construction here of a Hadamard matrix of order {order}")


def centres(classes: int, bits: int) -> np.ndarray:
    """The hash centres of CSQ, int64 (classes, bits): rows of a Hadamard matrix, then their opposites.

    The rows have signs, of 100 draws those whose most constant bit is the least constant: in a Sylvester matrix one bit is the same in all
    rows. Raises ValueError for more classes than 2 ``bits``.
    """
    if classes > 2 * bits:
        raise ValueError(f"{classes} classes need as many centres, but {bits} bits have {2 * bits}")
    rows = hadamard(bits)
    draws = [rows * np.random.default_rng(draw).choice([-1, 1], (bits, 1)) for draw in range(100)]
    signed = min(draws, key=lambda draw: np.abs(draw[:classes].sum(0)).max())
    return np.concatenate([signed, -signed])[:classes]


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of multi-hot labels (N, C): whether two images share a label, bool (N, N), and whether they are two, bool (N, N)."""
    similar = (labels @ labels.T) > 0
    return similar, ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def csq_loss(u: Tensor, targets: Tensor, weight: float) -> Tensor:
    """Binary cross-entropy of the bits tanh(u), (N, b), to ``targets`` of signs, and ``weight`` times the mean of (|tanh(u)| - 1)^2."""
    entropy = F.binary_cross_entropy_with_logits(2 * u, (targets + 1) / 2)  # (tanh(u) + 1) / 2 is the sigmoid of 2 u
    return entropy + weight * ((u.tanh().abs() - 1) ** 2).mean()


def dpsh_loss(u: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Mean of log(1 + e^t) - S t over pairs, t = <u_i, u_j> / 2, and ``weight`` times the mean of (u - sign u)^2; u is (N, b)."""
    similar, two = _pairs(labels)
    t = u @ u.T / 2
    return ((F.softplus(t) - similar * t) * two).sum() / two.sum().clamp(min=1) + weight * ((u - u.sign()) ** 2).mean()


def hashnet_loss(u: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Mean of log(1 + e^t) - S t over similar pairs plus that over others, t = 10 <h_i, h_j> / b, h = tanh(beta u); u is (N, b)."""
    similar, two = _pairs(labels)
    h = (beta * u).tanh()
    t = 10 / u.shape[1] * (h @ h.T)
    costs, kinds = F.softplus(t) - similar * t, (similar & two, ~similar)
    return sum((costs * kind).sum() / kind.sum().clamp(min=1) for kind in kinds)


def dqn_loss(u: Tensor, labels: Tensor, codewords: Tensor, weight: float) -> Tensor:
    """Mean of (s - <z_i, z_j>)^2 over pairs, s = 1 for a shared label and -1 otherwise, and ``weight`` times the mean of ||z - c||^2.

    z is u, (N, D), scaled to norm 1, and c its nearest codewords (M, K, D/M), which have no gradient.
    """
    similar, two = _pairs(labels)
    z = normalise(u)
    cosine = (((2.0 * similar - 1 - z @ z.T) ** 2) * two).sum() / two.sum().clamp(min=1)
    parts = z.reshape(len(z), len(codewords), -1).transpose(0, 1)  # (M, N, D/M)
    with torch.no_grad():
        nearest = torch.cdist(parts, codewords).argmin(2)
    reconstructed = torch.stack([words[codes] for words, codes in zip(codewords, nearest)])
    return cosine + weight * ((parts - reconstructed) ** 2).sum((0, 2)).mean()


def csq(given: Given) -> Method:
    """Several labels: the signs of the sum of their centres; a bit without a majority is that of one random code."""
    of_classes = torch.from_numpy(centres(given.classes, given.bits)).float()
    tie = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], given.bits)).float()

    def loss(u: Tensor, labels: Tensor, codewords: Tensor, epoch: int) -> Tensor:
        votes = (labels @ of_classes.to(u)).sign()
        return csq_loss(u, torch.where(votes == 0, tie.to(u), votes), given.quantization)

    return Method(given.bits, loss, hypercube(given.bits, given.subspaces))


def dpsh(given: Given) -> Method:
    """The pairs of a batch, not of a memory of all training images."""
    return Method(
        given.bits,
        lambda u, labels, codewords, epoch: dpsh_loss(u, labels, given.quantization),
        hypercube(given.bits, given.subspaces),
    )


def hashnet(given: Given) -> Method:
    """beta = sqrt(1 + 0.005 t) after t batches, renewed before each epoch."""
    return Method(
        given.bits,
        lambda u, labels, codewords, epoch: hashnet_loss(u, labels, math.sqrt(1 + 0.005 * epoch * given.batches)),
        hypercube(given.bits, given.subspaces),
    )


def dqn(given: Given) -> Method:
    """In the first epoch the cosines alone."""
    return Method(given.size, lambda u, labels, codewords, epoch: dqn_loss(u, labels, codewords, given.quantization if epoch else 0.0))


def dpq(given: Given) -> Method:
    """In the first half of the epochs classification alone."""
    learned = Dpq((given.subspaces, given.codewords, given.size), given.classes, given.epochs, given.quantization)
    return Method(given.size, lambda u, labels, codewords, epoch: learned.loss(u, labels, epoch), learned=learned)


def dtq(given: Given) -> Method:
    """The groups of group-hard mining are batches."""
    learned = Dtq((given.subspaces, given.codewords, given.size), given.epochs, given.quantization)
    return Method(given.size, lambda u, labels, codewords, epoch: learned.loss(u, labels, epoch), learned=learned)


METHODS: dict[str, Callable[[Given], Method]] = dict(zip(names.FINE_TUNED, (csq, dpsh, hashnet, dqn, dpq, dtq), strict=True))


class FineTuned(nn.Module):
    """A network with a bottleneck that is trained by a ``Method``; called like a network, it gives logits.

    ``iterations``: of k-means. ``weight``: of the classification loss. ``name``: of a method of the user, whose loss is then checked.
    """

    def __init__(self, backbone: Bottleneck, method: Method, given: Given, iterations: int, weight: float, name: str = ""):
        super().__init__()
        self.backbone, self.method, self.given, self.iterations, self.weight, self.name = backbone, method, given, iterations, weight, name
        self.learned = method.learned
        words = np.zeros((given.subspaces, given.codewords, method.size // given.subspaces), np.float32)
        self.register_buffer("kept", torch.from_numpy(words if method.codewords is None else method.codewords.astype(np.float32)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (N, C), of images, float32 (N, 3, H, W) in [0, 1]."""
        return self.backbone(images)

    def codewords(self) -> Tensor:
        """The codewords, float32 (M, K, D/M), or (M, K, D)."""
        return self.kept if self.learned is None else self.learned.codewords

    @property
    def encoder(self) -> str:
        """How codes are found, see ``pqag.encoders``."""
        return "nearest" if self.learned is None else self.learned.encoder

    @property
    def logits(self) -> np.ndarray | None:
        """The logits of the encoder "argmax", float32 (M, K, D/M + 1)."""
        return None if self.learned is None else self.learned.logits

    def begin(
        self, epoch: int, recipe: training.Recipe, images: np.ndarray | h5py.Dataset, seed: int, image_size: int | None = None
    ) -> None:
        """Renew a codebook that is not fixed, on ``images``. Called before each epoch, and after the last."""
        if self.learned is not None:

            def points() -> np.ndarray:
                return pqn.points_of_start(self.eval().backbone, images, self.given.codewords, seed, 1, image_size)

            self.learned.begin(epoch, points, seed, self.iterations)
        elif self.method.codewords is None:
            sizes = self.given.subspaces, self.given.codewords
            self.kept.copy_(pqn.start_of_codebook(self.eval().backbone, images, sizes, seed, self.iterations, 1, image_size))

    def objective(self, recipe: training.Recipe, multilabel: bool) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
        """The loss of a batch, for ``training.train``. Raises UserError if that of a method of the user's is no finite number."""

        def objective(images: Tensor, labels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
            with training.mixed(recipe, images.device):
                features = self.backbone.features(images)
                logits = self.backbone.head(features)
            loss = self.method.loss(features.float(), labels, self.codewords(), epoch)
            if self.name and not (isinstance(loss, Tensor) and loss.shape == () and loss.requires_grad and loss.isfinite()):
                raise UserError(f"the loss of {self.name} must return one finite number, a tensor () with a gradient by the features")
            classified = training.classification_loss(logits.float(), labels, multilabel, recipe.label_smoothing)
            return loss + self.weight * classified, logits

        return objective


def by_user(function: Callable[[Given], Any], name: str, given: Given) -> Method:
    """Return the checked method of a function of the user. It returns an object with the attributes of ``Method``, of which ``codewords``
    may be None or missing. Codes are those of the nearest codewords. Raises UserError, with its ``name``, if it returns anything else."""
    found = function(given)
    if isinstance(encoder := getattr(found, "encoder", None), str) and encoder != "nearest":
        raise UserError(f"the quantizer {name} returned the encoder {encoder!r}, but a joint method of yours may only return nearest")
    size, loss, words = (getattr(found, key, None) for key in ("size", "loss", "codewords"))
    if not callable(loss):
        raise UserError(f"the quantizer {name} must return an object with a function loss, but returned a {type(found).__name__}")
    if not isinstance(size, int) or size < 1 or size % given.subspaces:
        raise UserError(f"the quantizer {name} returned the size {size!r}, but must return a multiple of {given.subspaces}, the sub-spaces")
    if words is not None:
        words = quantizer.checked(name, "codewords", words, (given.subspaces, given.codewords, size // given.subspaces))
    return Method(size, loss, words)


def network(settings: Mapping[str, Any], data: training.Data, bits: int, seed: int, start: str | None) -> nn.Module:
    """The network that the settings of a job describe, before its joint training, on the device of ``data``.

    ``start``: a file of weights; None for PQN. Raises UserError if the images are too few, or the classes too many, for the method.
    """
    words, subspaces, name = settings["codewords"], settings["subspaces"], settings["method"]
    classes, recipe = data.labels.shape[1], training_run.recipe_of(settings)
    if name == names.PQN:
        _check_count(data, bits, subspaces, words)
        sizes = {key: settings[key] for key in pqn.Joint.__dataclass_fields__}
        return pqn.ProductQuantizationNetwork(training_run.new_network(settings, data, seed), pqn.Joint(**sizes)).to(data.labels.device)
    batches = -(-len(data.images) // recipe.batch_size)
    given = Given(bits, subspaces, words, classes, batches, settings.get("quantization", 0.0), settings.get("size", 0), recipe.epochs)
    own = names.is_entry_point(name)
    if own:
        method = by_user(user_code.function(name, settings["brought"][name]), name, given)
    else:
        try:
            method = METHODS[name](given)
        except ValueError as error:
            raise UserError(f"bits: {name} cannot be trained: {error}") from None
    if method.codewords is None:
        _check_count(data, bits, subspaces, words)
    trunk = checkpoints.load_network(start, settings.get("brought"))
    with torch.no_grad():
        inputs = trunk.features(pixels(torch.from_numpy(data.images[:2]), data.image_size)).shape[1]
    torch.manual_seed(seed)
    backbone = Bottleneck(trunk, inputs, method.size, classes)
    return FineTuned(backbone, method, given, settings["iterations"], settings["classification"], own * name).to(data.labels.device)


def _check_count(data: training.Data, bits: int, subspaces: int, words: int) -> None:
    if len(data.images) < words:
        need = f"{bits} bits in {subspaces} sub-spaces need {words} codewords"
        raise UserError(f"bits: {need}, more than the {len(data.images)} training images that they are learned from")
