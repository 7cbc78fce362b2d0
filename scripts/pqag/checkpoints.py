"""Trained networks as files: the weights with what is needed to build the network around them, and nothing that can run."""

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
    """Write plain values and tensors; the bytes depend on the content alone (torch.save to a path would put the file's name inside)."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    files.write_bytes(path, buffer.getvalue())


def load(path: str | Path) -> dict:
    """Read what ``save`` wrote; refuses anything but plain values and tensors (pickle's code is never run). Raises UserError if damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
            program = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if program:
            reason = "it holds a TorchScript program instead of plain weights"
        elif damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
        else:
            reason = "it is damaged"
    except pickle.UnpicklingError:
        reason = "it holds more than tensors and plain values"
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(f"{path} is no checkpoint that can be read safely: {reason}")


def save_network(path: str | Path, network: nn.Module, model: str, width: float, classes: int | None) -> None:
    """Write the weights of ``network`` and how it was built: its name or entry point, its width, its numbers of logits and of pixels, and
    the parts in which its features are normalised."""
    built = {"model": model, "width": width, "classes": classes, "image_size": getattr(network, "image_size", None)}
    save(path, built | {"feature_groups": networks.groups_of(network), "weights": network.state_dict()})


def load_network(path: str | Path, digests: Mapping[str, str] | None = None) -> nn.Module:
    """Build the network anew and give it its weights; in evaluation mode, on the CPU. Raises UserError if the file holds no such thing.

    A network of the user's is built by their function, whose file is run if ``digests``, from the settings of the job, has its sha256 by
    the name of the entry point: what a file of weights names by itself never runs.
    """
    saved = load(path)
    try:
        if names.is_entry_point(saved["model"]):
            if saved["model"] not in (digests or {}):
                raise UserError(f"{path} is of a network by {saved['model']}, which the study does not name")
            network = user_code.function(saved["model"], digests[saved["model"]])()
        else:
            network = networks.build(saved["model"], saved["classes"], saved["width"], image_size=saved["image_size"])
            network.feature_groups = saved["feature_groups"]
        network.load_state_dict(saved["weights"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not hold the weights of a network of ours: {str(error).splitlines()[0]}") from error
    return network.eval()
