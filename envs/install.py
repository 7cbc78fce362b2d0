"""Install the locked packages into the environment of the Python that runs this: `make setup`.

Every version and its sha256 are those of lock.txt. Only what PyTorch needs for NVIDIA GPUs depends on the machine, of Linux alone:

- With a GPU (nvidia-smi is there), or by `make setup TORCH=cuda`: all of it.
- Without one, or by `make setup TORCH=cpu`: PyTorch's own build for CPUs, if uv is there, which knows PyTorch's own index. Without uv, or
  where it cannot reach that index, the usual build with those CUDA libraries that it cannot be loaded without. Neither has the packages of
  ``UNUSED``.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("lock.txt")
#: What the usual build of PyTorch needs only on a GPU, and loads only there.
UNUSED = re.compile(r"triton|cuda-|nvidia-(cusolver|nvtx)")
#: What the build for CPUs has in itself, or does not need.
CUDA = re.compile(rf"{UNUSED.pattern}|nvidia-")
TORCH = re.compile(r"torch(vision)?==")


def blocks(lock: str) -> list[str]:
    """Return the packages of a lock, each with its hashes."""
    return re.split(r"\n(?=[a-z])", lock, flags=re.IGNORECASE)[1:]


def pip(packages: list[str]) -> bool:
    """Install the packages of a lock, which has what they need in turn, by pip; return whether it could."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(packages) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        return subprocess.run([*command, "--requirement", file.name]).returncode == 0


def uv(pins: list[str]) -> bool:
    """Install PyTorch's build for CPUs by uv, which checks no hash of it; return whether uv is there and could."""
    if shutil.which("uv") is None:
        return False
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--torch-backend", "cpu", *pins]
    return subprocess.run(command, env=os.environ | {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "0"}, capture_output=True).returncode == 0


def install(gpu: bool) -> bool:
    """Install everything; return whether it could."""
    packages = blocks(LOCK.read_text(encoding="utf-8"))
    if gpu or platform.system() != "Linux":
        return pip(packages)
    pins = [re.sub(r" .*", "", block, flags=re.DOTALL) for block in packages if TORCH.match(block)]
    if uv(pins):
        return pip([block for block in packages if not CUDA.match(block) and not TORCH.match(block)])
    print("PyTorch's build for CPUs needs uv and PyTorch's own index: taking the usual build (5 GB) in its place", flush=True)
    return pip([block for block in packages if not UNUSED.match(block)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install the locked packages into the environment of this Python.")
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto")
    wanted = parser.parse_args().torch
    sys.exit(not install(shutil.which("nvidia-smi") is not None if wanted == "auto" else wanted == "cuda"))
