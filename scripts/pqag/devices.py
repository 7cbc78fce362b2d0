"""Chooses the device for torch, and sets threads and determinism so that results are the same bits each time."""

import fcntl
import logging
import os
import tempfile
from pathlib import Path

from pqag.errors import UserError

log = logging.getLogger("pqag")


def torch_device(settings: dict):
    """Return the torch device for ``settings["device"]`` ("auto": a GPU if there is one), after setting threads and determinism.

    With several GPUs it is one that no other job uses: with ``--resources gpu=2``, two jobs use two devices.

    Threads come from ``settings["threads"]``, never from the number of available cores: the last bits of a sum depend on the number of
    threads. Raises UserError if "cuda" is requested but there is no GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required for deterministic CUDA matrix products
    import torch

    torch.set_num_threads(settings["threads"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    wanted = settings["device"]
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError('device is "cuda" in the config, but torch finds no GPU; use "auto" to use a GPU only if there is one')
    device = torch.device("cpu")
    if wanted != "cpu" and torch.cuda.is_available():
        names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
        device = torch.device("cuda", _free_gpu(names))
        torch.cuda.set_device(device)
    elif wanted == "auto" and os.environ.get("PQAG_GPUS") == "1":
        log.warning(
            "a GPU was requested, but torch finds none that it can use; the job continues without it and may exceed its requested time"
        )
    log.info("torch %s on %s, %d threads", torch.__version__, device, torch.get_num_threads())
    return device


def _free_gpu(names: list[str]) -> int:
    """Return the index in ``names`` of the first GPU that no other job of this user uses, and reserve it until this process ends.

    The names are those of the hardware, because a scheduler may show each job its own GPU as number 0. If all are in use, they are shared.
    """
    for index, name in enumerate(names):
        try:
            file = os.open(Path(tempfile.gettempdir(), f"pqag-{os.getuid()}-{name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)  # never closed
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        return index
    return os.getpid() % len(names)
