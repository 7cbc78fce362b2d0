"""What every script in ``scripts/`` shares: its log, its errors, its device, its progress bar."""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator

from tqdm import tqdm

from pqag.errors import UserError

#: The terminal, kept from before the log takes over.
_terminal = sys.stderr

log = logging.getLogger("pqag")


@contextlib.contextmanager
def step(snakemake) -> Iterator[dict]:
    """Run a script's body with everything it prints in its log file; yields the settings it was given (``params.settings``).

    A UserError ends the script with its one sentence as the last line of the log, any other exception with its traceback there; either way
    the exit status is 1 and the terminal is left to the workflow, which shows that last line.
    """
    with open(snakemake.log[0], "w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        logging.basicConfig(stream=file, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        logging.captureWarnings(True)
        try:
            yield snakemake.params.settings
        except UserError as error:
            log.error("error: %s", _one_line(error))
        except Exception as error:
            traceback.print_exc()
            log.error("error: %s: %s", type(error).__name__, _one_line(error) or "no further words")
        else:
            return
    sys.exit(1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def torch_device(settings: dict):
    """The torch device that ``settings["device"]`` asks for ("auto": a GPU where there is one), with threads and determinism set.

    Threads come from ``settings["threads"]`` and never from the number of cores at hand: sums over another number of threads differ in
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
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    log.info("torch %s on %s, %d threads", torch.__version__, device, torch.get_num_threads())
    return device


def progress(total: int, words: str, done: int = 0) -> tqdm:
    """A bar with an estimate on the terminal, and nothing where the terminal is none."""
    quiet = not _terminal.isatty()
    return tqdm(total=total, initial=done, desc=words, unit="batch", file=_terminal, disable=quiet, leave=False, dynamic_ncols=True)
