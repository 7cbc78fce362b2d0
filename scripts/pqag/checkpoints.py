"""Reads and writes trained networks: the weights and the values needed to build the network, and nothing that can run."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from pqag import files, names, networks, user_code
from pqag.errors import UserError


def save(path: str | Path, value: dict) -> None:
    """Write plain values and tensors; the bytes depend only on the content (torch.save to a path would include the name of the file)."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    files.write_bytes(path, buffer.getvalue())


def load(path: str | Path) -> dict:
    """Read what ``save`` or torch.save wrote, before PyTorch 1.6 too, whose files are no zip archives and have no checksums.

    Accepts only plain values and tensors (and never runs code of a pickle). Raises UserError otherwise.
    """
    try:
        with open(path, "rb") as file:
            legacy = file.read(2) == b"\x80\x02"
        damaged = program = None
        if not legacy:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch does not check the checksums
                program = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if program:
            reason = "it contains a TorchScript program instead of plain weights"
        elif damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
        else:
            reason = "it is damaged"
    except pickle.UnpicklingError:
        reason = "it contains more than tensors and plain values"
    except zipfile.BadZipFile:
        reason = "it is no file of torch.save, or it is cut"
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(f"{path} cannot be read safely as a checkpoint: {reason}")


def save_network(path: str | Path, network: nn.Module, model: str, width: float, classes: int | None) -> None:
    """Write the weights of ``network`` and how to build it: its name or entry point, its width, its numbers of logits and of pixels, the
    number of parts in which its features are normalised, how it enlarges images where that is not ``networks.ENLARGED``, and the sizes of a
    bottleneck around it. ``classes`` is the number of logits of the network within the bottleneck."""
    trunk = network.trunk if isinstance(network, networks.Bottleneck) else network
    built = {"model": model, "width": width, "classes": classes, "image_size": getattr(trunk, "image_size", None)}
    if getattr(trunk, "enlarged", None) not in (None, networks.ENLARGED):
        built["enlarged"] = trunk.enlarged
    if trunk is not network:
        built["bottleneck"] = [network.layer.in_features, network.layer.out_features, network.head.out_features]
    save(path, built | {"feature_groups": networks.groups_of(network), "weights": network.state_dict()})


def load_network(path: str | Path, digests: Mapping[str, str] | None = None) -> nn.Module:
    """Build the network again and load its weights; in evaluation mode, on the CPU. Raises UserError if the file contains no network.

    A function of the user builds a network of the user. Its file runs only if ``digests``, from the settings of the job, has its sha256
    under the name of the entry point. A function that only the file of weights names never runs.
    """
    saved = load(path)
    try:
        if names.is_entry_point(saved["model"]):
            if saved["model"] not in (digests or {}):
                raise UserError(f"{path} is for a network built by {saved['model']}, which the study does not name")
            network = user_code.function(saved["model"], digests[saved["model"]])()
        else:
            enlarged = saved.get("enlarged", networks.ENLARGED)
            network = networks.build(saved["model"], saved["classes"], saved["width"], image_size=saved["image_size"], enlarged=enlarged)
            network.feature_groups = saved["feature_groups"]
        if "bottleneck" in saved:
            network = networks.Bottleneck(network, *saved["bottleneck"])
        network.load_state_dict(saved["weights"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not contain the weights of a network of this workflow: {str(error).splitlines()[0]}") from error
    return network.eval()
