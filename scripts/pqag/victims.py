"""Networks of the user: weights in a file, a network of torchvision, or a function that returns a network; checked before use."""

import difflib
import logging
import re
import urllib.error
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pqag import checkpoints, files, networks
from pqag.errors import UserError
from pqag.names import is_name_of_weights

log = logging.getLogger("pqag")

#: What wrappers put before every name of a tensor: DataParallel, torch.compile, and modules that hold the network.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")

#: Mean and deviation of networks that turn torchvision's ImageNet normalisation into these themselves, if torchvision gives them weights.
TRANSFORMED = {"googlenet": (0.5,) * 3, "inception_v3": (0.5,) * 3}


def read_weights(path: str | Path, network: str, width: float, image_size: int | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file of weights by name: a state dict as .pt or .safetensors, or a weights.pt of this workflow.

    Raises UserError if the file is damaged or contains code or something else, if it is for another network than ``network`` with
    ``width``, or if that network reduces images of ``image_size`` pixels differently. Nothing in the file runs.
    """
    content = _read_safetensors(path) if Path(path).suffix.lower() == ".safetensors" else checkpoints.load(path)
    if isinstance(content, dict) and content.keys() - {"enlarged", "bottleneck"} == {
        "model",
        "width",
        "classes",
        "image_size",
        "feature_groups",
        "weights",
    }:
        if (content["model"], content["width"]) != (network, width):
            theirs = f"{content['model']} of width {content['width']:g}"
            raise UserError(f"{path} contains the weights of {theirs}, but the study says {network} of width {width:g}")
        if image_size and networks.reduction(content["image_size"]) != networks.reduction(image_size):
            raise UserError(f"{path} is for images of {content['image_size']} pixels, but those of the study have {image_size}")
        if content["feature_groups"] > 1 or "bottleneck" in content:
            raise UserError(f"{path} contains a network trained with its codebook, which is useless without it: use other weights")
        content = content["weights"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        there = f"the keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UserError(f"{path} contains {there} instead of the tensors of a network: save only network.state_dict()")
    return dict(content)


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {' '.join(str(error).split())}") from None


def mended(weights: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Return ``weights`` under the names ``own`` that the tensors of the network have, where a known difference separates them.

    These are prefixes that every name has, DenseNet's names from before torchvision 0.3, auxiliary classifiers, and a count of batches that
    batch normalisation did not have before PyTorch 0.4.1 (and that evaluation does not use).
    """
    found = dict(weights)
    while found and not found.keys() & set(own):
        prefix = next((one for one in PREFIXES if all(key.startswith(one) for key in found)), None)
        if prefix is None:
            break
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    for key in found.keys() - set(own):
        modern = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)
        if modern in own:
            found[modern] = found.pop(key)
        elif key.startswith(("aux1.", "aux2.", "AuxLogits.")):
            del found[key]
    for key in own:
        if key.endswith("num_batches_tracked") and key.replace("num_batches_tracked", "running_mean") in found:
            found.setdefault(key, torch.tensor(0))
    return found


def _classes(weights: dict[str, Tensor], own: Mapping[str, Tensor], head: str, path: str) -> int:
    """Return the number of logits of ``weights``, whose last layer is ``head``. Without that layer it is 1, and zeros take its place."""
    keys = [key for key in own if key.startswith(f"{head}.")]
    there = [weights[key] for key in keys if key in weights]
    if not there:
        log.warning("%s lacks the last layer, %s: the features do not need it, and no accuracy is reported", path, head)
        weights |= {key: torch.zeros(1, *own[key].shape[1:]) for key in keys}
    return len(there[0]) if there and there[0].ndim else 1


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    """Load ``weights``, from ``path``, into ``network``, see ``mended``. Raises UserError with the reason if they do not fit ``name``."""
    own = network.state_dict()
    weights = mended(weights, own.keys())
    for key in filter(weights.__contains__, own):
        theirs, ours = tuple(weights[key].shape), tuple(own[key].shape)
        if theirs != ours:
            raise UserError(f"{path} does not fit {name}: {key} has the shape {theirs} in the file and {ours} in the network")
        if reason := _useless(weights[key], own[key]):
            raise UserError(f"{path} does not fit {name}: {key} {reason}, but must be floats of at least 16 bits")
    for what, keys in (("lacks", own.keys() - weights.keys()), ("has in addition", weights.keys() - own.keys())):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            words = f"{path} does not fit {name}: compared with the network's {len(own)} tensors it {what} {min(keys)}{more}"
            prefixed = {one: sum(key.startswith(one) for key in weights.keys() - own.keys()) for one in PREFIXES}
            hints = [f"; {count} of its {len(weights)} names begin with {one}" for one, count in prefixed.items() if count]
            raise UserError(words + "".join(hints))
    own.update(weights)  # keeps the version of every layer, which a state dict loses when it is copied into a dict
    network.load_state_dict(own)


def _useless(theirs: Tensor, ours: Tensor) -> str | None:
    """Why values of a file cannot be the weights of a layer, or None: quantized ones need their scale, which the layer has not."""
    if theirs.layout != torch.strided:
        return "is a sparse tensor in the file"
    if theirs.is_meta:
        return "has no values in the file"
    if ours.is_floating_point() and not (theirs.is_floating_point() and theirs.itemsize > 1):
        return f"has the type {str(theirs.dtype).removeprefix('torch.')} in the file"
    return None


def ours(name: str, width: float, path: str, image_size: int = 32) -> networks.Backbone:
    """Return a built-in network for images of ``image_size`` pixels with weights from a file; raises UserError if they do not fit."""
    return _built(read_weights(path, name, width, image_size), name, width, path, image_size)


def joint(name: str, width: float, path: str, image_size: int = 32) -> tuple[networks.Backbone, np.ndarray]:
    """Return the same for a network of the zoo that was trained with its codebook, and its codewords, float32 (M, K, D/M)."""
    from safetensors import safe_open

    weights = _read_safetensors(path)
    codewords = weights.pop("codewords").float().numpy()
    network = _built(weights, name, width, path, image_size)
    with safe_open(path, "pt") as file:
        network.feature_groups = int(file.metadata()["feature_groups"])
    if codewords.shape[0] * codewords.shape[2] != network.feature_size:
        words = f"the {network.feature_size} numbers of a feature of {name} of width {width:g}"
        raise UserError(f"{path} has codewords {codewords.shape}, which do not fit {words}")
    return network, codewords


def _built(weights: Mapping[str, Tensor], name: str, width: float, path: str, image_size: int) -> networks.Backbone:
    with torch.device("meta"):
        own = networks.build(name, 1, width, image_size=image_size).state_dict()
    weights = mended(weights, own.keys())
    network = networks.build(name, _classes(weights, own, "head", path), width, image_size=image_size)
    put_weights(network, weights, path, f"{name} of width {width:g}")
    return network


def of_torchvision(name: str, weights: str) -> tuple[networks.Backbone, str | None]:
    """Return a network of torchvision (``torchvision:resnet18``) with weights by torchvision's name, or from a file of its state dict.

    It enlarges and normalises images as the weights want it, see ``preprocessing``. The second value is the path of the downloaded file, or
    None. Raises UserError for unknown names, for weights that do not fit, and if the download fails.
    """
    from torchvision import models

    known = models.list_models(module=models)
    short = name.removeprefix("torchvision:")
    if short not in known:
        near = difflib.get_close_matches(short, known, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"torchvision has no network {short}: {hint}it has {len(known)} image classifiers; its documentation lists their names"
        )
    downloaded = None
    if is_name_of_weights(weights):
        state, downloaded = _downloaded(short, weights)
        enlarged, mean, std = preprocessing(short, models.get_model_weights(short)[weights])
    else:
        state = read_weights(weights, name, 1.0)  # our files store torchvision networks with this width
        if all(key in ("mean", "std") or key.startswith(("body.1.", "head.")) for key in state):  # a weights.pt of this workflow
            return checkpoints.load_network(weights), None
        enlarged, mean, std = _preprocessing_of_file(short, weights, state)
    plain = networks.torchvision_classifier(name, 1000, enlarged)
    try:
        last, layer = networks.last_linear(plain)
    except ValueError as error:
        raise UserError(f"{name} {error}") from None
    own = plain.state_dict()
    state = mended(state, own.keys())
    if (classes := _classes(state, own, last, weights)) != layer.out_features:
        plain = networks.torchvision_classifier(name, classes, enlarged)
    put_weights(plain, state, weights, name)
    return networks.of_torchvision(plain, enlarged, mean, std), downloaded


#: To which size and by which interpolation images are enlarged, and the mean and deviation by which they are normalised.
Preprocessing = tuple[tuple[int, str], tuple[float, ...], tuple[float, ...]]


def preprocessing(short: str, weights) -> Preprocessing:
    """Return how images of a network of torchvision are made ready for ``weights``, one of torchvision's, from its own transforms.

    The whole image takes the place of torchvision's centre crop. Raises UserError for transforms that cannot be done inside the network.
    """
    transforms = weights.transforms()
    size, interpolation = getattr(transforms, "crop_size", None), getattr(transforms, "interpolation", None)
    if size is None or len(set(size)) != 1 or getattr(interpolation, "value", None) not in ("bilinear", "bicubic"):
        raise UserError(f"torchvision's {weights} prepares images in a way that this workflow cannot repeat: use other weights")
    mean, std = (TRANSFORMED.get(short, tuple(values)) for values in (transforms.mean, transforms.std))
    return (size[0], interpolation.value), mean, std


def _preprocessing_of_file(short: str, path: str, state: Mapping[str, Tensor]) -> Preprocessing:
    """Return the same for a file: as torchvision's weights with its content want it, else as all want it that have its shapes.

    Raises UserError where these differ.
    """
    from torchvision import models

    digest = files.sha256(path)[:8]  # as in the names of torchvision's files
    members = list(models.get_model_weights(short))
    same = [one for one in members if f"-{digest}." in one.url]
    # Without categories the last layers are missing: no classifier has such weights.
    wanted = {preprocessing(short, one): one.name for one in reversed(same or [one for one in members if one.meta["categories"]])}
    if len(wanted) > 1 and short.startswith("vit_"):
        wanted = {one: member for one, member in wanted.items() if _has_size(short, one[0], state)} or wanted
    if len(wanted) > 1:
        raise UserError(
            f"{path} may belong to {' or '.join(sorted(wanted.values()))} of torchvision's {short}, which prepare images differently,"
            " and is none of torchvision's own files: name the weights, take torchvision's file, or write a function (docs/checkpoint.md)"
        )
    return next(iter(wanted))


def _has_size(short: str, enlarged: tuple[int, str], state: Mapping[str, Tensor]) -> bool:
    """Whether the position embeddings of a vision transformer are for images of the size ``enlarged``."""
    with torch.device("meta"):
        own = networks.torchvision_classifier(short, 1, enlarged).state_dict()
    theirs = mended(state, own.keys())
    return all(theirs[key].shape == own[key].shape for key in own if key.endswith("pos_embedding") and key in theirs)


def _downloaded(short: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """Return weights by torchvision's name, from its cache or its site, and the path of their file."""
    from torchvision import models

    choices = models.get_model_weights(short)
    if weights not in choices.__members__:
        raise UserError(
            f"torchvision has no weights {weights} for {short}: allowed are {', '.join(choices.__members__)}, or the path of a file"
        )
    chosen = choices[weights]
    path = Path(torch.hub.get_dir(), "checkpoints", Path(chosen.url).name)
    try:
        state = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{chosen.url} could not be downloaded ({reason}): get the file elsewhere, and set weights to its path") from None
    return state, str(path)


def by_user(function: Callable[[], nn.Module], name: str) -> nn.Module:
    """Return the network that a function of the user returns; raises UserError if it returns anything else."""
    network = function()
    if not isinstance(network, nn.Module) or not callable(getattr(network, "features", None)):
        what = "without a method features" if isinstance(network, nn.Module) else "instead of a torch.nn.Module with a method features"
        raise UserError(f"{name} returned {'nothing' if network is None else f'a {type(network).__name__}'} {what}")
    return network


def to_train(function: Callable[[], nn.Module], name: str, images: Tensor, classes: int) -> nn.Module:
    """Return the network of ``by_user`` before its training; raises UserError unless it passes ``check`` on ``images`` and has ``classes``
    logits."""
    network = by_user(function, name)
    check(network, images, name)
    if (found := classes_of(network, images)) != classes:
        got = "no logits" if found is None else f"{found} logits"
        raise UserError(f"{name} returns a network with {got}, but to be trained here it must return one for each of the {classes} classes")
    return network.requires_grad_(True)


def check(network: nn.Module, images: Tensor, name: str) -> int:
    """Test ``network`` on ``images``, float32 (N, 3, H, W) in [0, 1], and return D, the length of a feature.

    Raises UserError unless its features are float (N, D), finite, the same each time, and have a gradient by the images.
    """
    network.eval().requires_grad_(False)
    x = images.clone().requires_grad_()
    shape = tuple(images.shape)
    try:
        z = network.features(x)
    except Exception as error:
        words = " ".join(str(error).split()) or "no message"
        raise UserError(f"features of {name} fails for images {shape}: {type(error).__name__}: {words}") from error
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(x) or not z.is_floating_point():
        got = f"a tensor {tuple(z.shape)} of {str(z.dtype).removeprefix('torch.')}" if isinstance(z, Tensor) else f"a {type(z).__name__}"
        raise UserError(f"features of {name} returned {got} for images {shape}, but must return floats ({len(x)}, D)")
    if not z.isfinite().all():
        raise UserError(f"features of {name} returned NaN or infinite numbers, but must return finite ones")
    if not z.requires_grad:
        raise UserError(f"features of {name} has no gradient by the images: it must not detach them or leave torch")
    [gradient] = torch.autograd.grad((z.double() ** 2).sum(), x, allow_unused=True)
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise UserError(
            f"features of {name} has a gradient by the images that is zero everywhere, NaN or infinite, so no attack could use it"
        )
    if not torch.allclose(z.detach(), network.features(images).detach(), rtol=1e-3, atol=1e-4):
        raise UserError(f"features of {name} differ between two calls: something in it is random in evaluation mode")
    return z.shape[1]


def classes_of(network: nn.Module, images: Tensor) -> int | None:
    """Return the number of logits of ``network`` for ``images``, or None if it is no classifier."""
    try:
        with torch.no_grad():
            logits = network(images)
    except Exception:  # a network without its own forward may raise anything
        return None
    return logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else None
