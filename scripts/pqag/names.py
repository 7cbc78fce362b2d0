"""Names and sizes that a study's configuration, the science and the tables share, each said once. Needs only the standard library.

A result depends on those of these that its script uses: a new display name makes no training stale.
"""

import re
from typing import NamedTuple

# ------------------------------------------------------------------------------------------------------------------------ registries

NETWORKS = ("alexnet", "vgg11", "vgg13", "vgg16", "resnet18", "resnet34", "resnet50")
#: Losses of an attack, its methods, and quantizers that are fitted to features.
LOSSES = ("basic", "apd", "aod", "margin", "clipped_margin", "hag", "centre", "p2p", "dhta")
#: Those that change from step to step, so that their values at two steps cannot be compared.
SCHEDULED = ("hag",)
#: Those that aim at a target of the study's, and all that aim at codes which are chosen from the database, see ``pqag.goals``.
TARGETED = ("p2p", "dhta")
AIMED = ("centre", *TARGETED)
METHODS = ("pgd", "fgsm", "momentum_pgd", "apgd", "cw_l2")
#: Those that keep no ball: they look for the smallest change instead.
UNBOUNDED = ("cw_l2",)
#: Losses of what a retrieval system answers, and the methods that do with these, see ``pqag.black_box``.
ANSWERS = ("ranks", "distances")
BLACK_BOX = ("nes", "random_groups", "square")
#: Methods that are trained on the training images, see ``pqag.trained``.
TRAINED = ("universal", "uaa_gan")
FITTED = ("pq", "opq")
#: Iterations that a method needs: APGD, so that its checkpoints are more than a step apart; C&W, so that most of its searches get there.
LEAST = {"apgd": 20, "cw_l2": 100}
#: Quantizers whose codewords have the full length of a feature and are added up, see ``pqag.additive``.
ADDITIVE = ("rq", "cq")
#: Quantizers that are trained with the network. PQN begins with a new network, all others with a trained one, see ``pqag.joint``.
PQN, HASHING, DEEP = "pqn", ("csq", "dpsh", "hashnet"), ("dqn", "dpq", "dtq")
FINE_TUNED = (*HASHING, *DEEP)
QUANTIZERS = (*FITTED, *ADDITIVE, PQN, *FINE_TUNED)
#: How codes are found, see ``pqag.encoders``; and with full-length codewords, which are added up.
ENCODERS = ("nearest", "argmax", "beam", "icm")
FULL_LENGTH = ("beam", "icm")
#: The code lengths that CSQ has a Hadamard matrix for, see ``pqag.joint.hadamard``; and the largest K of a hypercube.
HADAMARD = tuple(bits for bits in range(4, 65, 4) if bits != 52)
HYPERCUBE = 2**16
TRIPLET_LOSSES = ("sigmoid", "hinge", "softplus")


class Official(NamedTuple):
    """A known data set: images of its official splits, whether any content but the one known to be right is an error, and whether it is
    generated here instead of fetched."""

    train: int
    test: int
    strict: bool = False
    generated: bool = False


DATASETS = {
    "fashion_mnist": Official(60_000, 10_000, strict=True),
    "cifar10": Official(50_000, 10_000),
    "synthetic": Official(2000, 1000, generated=True),
}
#: Those of the paper.
PAPER_DATASETS = ("cifar10", "nuswide")
#: The classes of known data sets, in the order of the labels, as ``pqag.datasets`` has them: what a target may be is checked by these.
CLASS_NAMES = {
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "synthetic": tuple(f"pattern {i}" for i in range(10)),
}
#: What a data set may be: one of the above, the official release of NUS-WIDE, or images of the user (``pqag.images``).
KINDS = (*DATASETS, "nuswide", "imagefolder", "manifest")
#: Images of NUS-WIDE in its two lists.
RELEASED = {"Train": 161_789, "Test": 107_859}

#: Clean queries among attacks; how a network came by its weights, as folders are named: ``joint16`` was trained with a 16-bit codebook.
CLEAN = "clean"
#: The clean queries as their farthest codes, among attacks: no attack on the distance to its own code can do much more.
FARTHEST = "farthest"
PRETRAINED = "pretrained"
JOINT = "joint"


def kind_of(training: str) -> str:
    """The kind of a training that the name of a folder says: ``pretrained`` or ``joint``."""
    return training.rstrip("0123456789")


# ----------------------------------------------------------------------------------------------------------------------------- sizes

#: More bytes than any file or archive of a data set has. A longer stream is a decompression bomb, which would fill the disk.
LARGEST = 2**28
#: Images at once, of each rule that can be split into shards. Results depend on it in their last bits.
BATCH_SIZES = {"attack": 250, "extract": 500}


def requests(method: str, steps: int, directions: int) -> int:
    """How many requests one of ``BLACK_BOX`` makes for an image in so many steps, the one of the clean image included."""
    return 2 + steps if method == "square" else 1 + 2 * directions * steps


def steps_within(method: str, budget: int, directions: int) -> int:
    """How many steps it can take with a budget of requests; 0 if not even one."""
    one = requests(method, 1, directions)
    return max(0, 1 + (budget - one) // (requests(method, 2, directions) - one))


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded to a multiple of 8 (so that M = 4 sub-vectors always divide a feature), at least 8."""
    return max(8, 8 * round(channels * width / 8))


def feature_size(network: str, width: float) -> int:
    """D, the length of a feature of one of ``NETWORKS``, without building it."""
    return scaled(4096 if network == "alexnet" else 512, width) * (4 if network == "resnet50" else 1)


def codewords(bits: int, subspaces: int) -> int:
    """K, such that M log2 K = ``bits`` for M = ``subspaces`` (the paper gives M log2 K as the length of a code).

    Raises ValueError if K is more than 2^64: a damaged file may ask for a number that no memory holds.
    """
    if bits // subspaces > 64:
        raise ValueError(f"more bits in {subspaces} sub-spaces than a codebook can have")
    return 2 ** (bits // subspaces)


# --------------------------------------------------------------------------------------------------------------------- what users name

_ENTRY_POINT = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)*:[a-z_]\w*", re.ASCII | re.IGNORECASE)


def is_entry_point(name: str) -> bool:
    """Whether ``name`` has the form of an entry point, module:function, and is no network of torchvision; see ``pqag.user_code``."""
    return _ENTRY_POINT.fullmatch(name) is not None and not is_torchvision(name) and not is_of_zoo(name)


def is_torchvision(network: str) -> bool:
    """Whether a network is one of torchvision: torchvision:resnet18."""
    return network.startswith("torchvision:")


def is_of_zoo(weights: str) -> bool:
    """Whether weights are those of a victim that ships with the project: zoo:NAME."""
    return weights.startswith("zoo:")


def is_name_of_weights(weights: str) -> bool:
    """Whether weights are named as torchvision names them, IMAGENET1K_V1, and no path."""
    return re.fullmatch(r"[A-Z][A-Z0-9_]*", weights) is not None


# --------------------------------------------------------------------------------------------------------------------- display names

MODEL_NAMES = {
    "alexnet": "AlexNet",
    "vgg11": "VGG11",
    "vgg13": "VGG13",
    "vgg16": "VGG16",
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
}
FAMILY_NAMES = {"alexnet": "AlexNet", "vgg": "VGG", "resnet": "ResNet"}
QUANTIZER_NAMES = {
    "pq": "PQ",
    "opq": "OPQ",
    "rq": "RQ",
    "cq": "CQ",
    "pqn": "PQN",
    "csq": "CSQ",
    "dpsh": "DPSH",
    "hashnet": "HashNet",
    "dqn": "DQN",
    "dpq": "DPQ",
    "dtq": "DTQ",
}
METHOD_NAMES = {"fgsm": "FGSM", "momentum_pgd": "momentum PGD", "apgd": "APGD", "cw_l2": "C&W"}
METHOD_NAMES |= {"nes": "NES", "random_groups": "random groups", "square": "Square", "universal": "a universal perturbation"}
METHOD_NAMES |= {"uaa_gan": "UAA-GAN"}
ATTACK_NAMES = {"clean": "Clean", "basic": "Basic", "apd": "APD", "aod": "AOD", "farthest": "Farthest codes"}
ATTACK_NAMES |= {"nes": "NES", "random_groups": "Random groups", "square": "Square", "universal": "Universal"}
ATTACK_NAMES |= {"uaa_gan": "UAA-GAN"}
ATTACK_NAMES |= {"margin": "Margin", "cw_l2": "C&W", "hag": "HAG", "centre": "Centre code", "p2p": "P2P", "dhta": "DHTA"}


def model_name(name: str) -> str:
    """What a reader is to call a model: a network of ours as the paper does, a victim of the user's by its own name."""
    return MODEL_NAMES.get(name, name)


def family(model: str) -> str:
    """The family of a model, as the paper's text groups them: alexnet, vgg, resnet. ``alexnet_pqn`` is of alexnet."""
    ours = re.fullmatch(rf"({'|'.join(NETWORKS)})_\w+", model)
    return (ours[1] if ours else model).rstrip("0123456789")


def family_name(name: str) -> str:
    """What a reader is to call a family of models."""
    return FAMILY_NAMES.get(name, name)


def attack_name(name: str) -> str:
    """What a reader is to call an attack, or the clean queries."""
    return ATTACK_NAMES.get(name, name)
