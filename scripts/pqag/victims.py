"""Networks of the user: weights in a file, a network of torchvision, or a function that returns a network; checked before use."""

import difflib
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pqag import checkpoints, networks
from pqag.errors import UserError
from pqag.names import is_name_of_weights


def read_weights(path: str | Path, network: str, width: float, image_size: int | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file of weights by name: a state dict as .pt or .safetensors, or a weights.pt of this workflow.

    Raises UserError if the file is damaged or contains code or something else, if it is for another network than ``network`` with
    ``width``, or if that network reduces images of ``image_size`` pixels differently. Nothing in the file runs.
    """
    content = _read_safetensors(path) if Path(path).suffix == ".safetensors" else checkpoints.load(path)
    if isinstance(content, dict) and content.keys() == {"model", "width", "classes", "image_size", "feature_groups", "weights"}:
        if (content["model"], content["width"]) != (network, width):
            theirs = f"{content['model']} of width {content['width']:g}"
            raise UserError(f"{path} contains the weights of {theirs}, but the study says {network} of width {width:g}")
        if image_size and networks.reduction(content["image_size"]) != networks.reduction(image_size):
            raise UserError(f"{path} is for images of {content['image_size']} pixels, but those of the study have {image_size}")
        if content["feature_groups"] > 1:
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


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    """Load ``weights``, from ``path``, into ``network``. Raises UserError with the reason if they do not fit the network ``name``."""
    own = network.state_dict()
    for key in filter(weights.__contains__, own):
        theirs, ours = tuple(weights[key].shape), tuple(own[key].shape)
        if theirs != ours:
            raise UserError(f"{path} does not fit {name}: {key} has the shape {theirs} in the file and {ours} in the network")
    for what, keys in (("lacks", own.keys() - weights.keys()), ("has in addition", weights.keys() - own.keys())):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"{path} does not fit {name}: compared with the network's {len(own)} tensors it {what} {min(keys)}{more}")
    network.load_state_dict(weights)


def ours(name: str, width: float, path: str, image_size: int = 32) -> networks.Backbone:
    """Return a built-in network for images of ``image_size`` pixels with weights from a file; raises UserError if they do not fit."""
    weights = read_weights(path, name, width, image_size)
    classes = len(weights["head.weight"]) if "head.weight" in weights else 1
    network = networks.build(name, classes, width, image_size=image_size)
    put_weights(network, weights, path, f"{name} of width {width:g}")
    return network


def of_torchvision(name: str, weights: str) -> tuple[networks.Backbone, str | None]:
    """Return a network of torchvision (``torchvision:resnet18``) with weights by torchvision's name, or from a file of its state dict.

    The second value is the path of the downloaded file, or None. Raises UserError for unknown names, for weights that do not fit, and if
    the download fails.
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
    else:
        state = read_weights(weights, name, 1.0)  # our files store torchvision networks with this width
    plain = models.get_model(short, weights=None)
    try:
        last, layer = networks.last_linear(plain)
    except ValueError as error:
        raise UserError(f"{name} {error}") from None
    if f"{last}.bias" in state and len(state[f"{last}.bias"]) != layer.out_features:
        plain = models.get_model(short, weights=None, num_classes=len(state[f"{last}.bias"]))
    put_weights(plain, state, weights, name)
    return networks.of_torchvision(plain), downloaded


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
