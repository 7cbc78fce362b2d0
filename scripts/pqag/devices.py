"""The device that torch computes on, and what makes its results the same bits each time: threads and determinism."""

import fcntl
import logging
import os
import tempfile
from pathlib import Path

from pqag.errors import UserError

log = logging.getLogger("pqag")


def torch_device(settings: dict):
    """The torch device that ``settings["device"]`` asks for ("auto": a GPU where there is one), with threads and determinism set.

    Where there are several GPUs it is one that no other job has: started with ``--resources gpu=2``, two jobs are on two devices.

    Threads come from ``settings["threads"]`` and never from the machine's number of cores: sums over another number of threads differ in
    their last bits. Raises UserError where "cuda" is asked for and none is there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic CUDA matrix products
    import torch

    torch.set_num_threads(settings["threads"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    wanted = settings["device"]
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError('device is "cuda" in the config, but torch finds no GPU here; "auto" takes one where there is one')
    device = torch.device("cpu")
    if wanted != "cpu" and torch.cuda.is_available():
        names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
        device = torch.device("cuda", _free_gpu(names))
        torch.cuda.set_device(device)
    elif wanted == "auto" and os.environ.get("PQAG_GPUS") == "1":
        log.warning(
            "a GPU was asked for, but torch finds none that it can use; this goes on without, and may take longer than was asked for"
        )
    log.info("torch %s on %s, %d threads", torch.__version__, device, torch.get_num_threads())
    return device


def _free_gpu(names: list[str]) -> int:
    """The place in ``names`` of the first GPU that no other job of this user has; from now until its end this process has it.

    The names are those of the hardware, since a scheduler may show each job its own GPU as number 0. Where all are taken they are shared.
    """
    for index, name in enumerate(names):
        try:
            file = os.open(Path(tempfile.gettempdir(), f"pqag-{os.getuid()}-{name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)  # never closed
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        return index
    return os.getpid() % len(names)
