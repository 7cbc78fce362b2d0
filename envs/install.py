"""Install the locked packages into the environment of the Python that runs this: `make setup`.

Every version and its sha256 are those of lock.txt. Only what PyTorch needs for NVIDIA GPUs depends on the machine, of Linux alone:

- With a GPU (nvidia-smi is there), or by `make setup TORCH=cuda`: all of it.
- Without one, or by `make setup TORCH=cpu`: PyTorch's own build for CPUs, from its own index. Where this cannot be reached, the usual build
  with those CUDA libraries that it cannot be loaded without. Neither has the packages of ``UNUSED``.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("lock.txt")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
#: What the usual build of PyTorch needs only on a GPU, and loads only there.
UNUSED = re.compile(r"triton|cuda-|nvidia-(cusolver|nvtx)")
#: What the build for CPUs has in itself, or does not need.
CUDA = re.compile(rf"{UNUSED.pattern}|nvidia-")
TORCH = re.compile(r"torch(vision)?==")


def blocks(lock: str) -> list[str]:
    """Return the packages of a lock, each with its hashes."""
    return re.split(r"\n(?=[a-z])", lock, flags=re.IGNORECASE)[1:]


def pip(*arguments: str, packages: list[str] = (), **options) -> bool:
    """Run pip's install, without looking for dependencies, since the lock has them all; return whether it could."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(packages) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *arguments]
        given = ["--require-hashes", "--requirement", file.name] if packages else []
        return subprocess.run([*command, *given], **options).returncode == 0


def install(gpu: bool) -> bool:
    """Install everything; return whether it could."""
    packages = blocks(LOCK.read_text(encoding="utf-8"))
    if gpu or platform.system() != "Linux":
        return pip(packages=packages)
    pins = [re.sub(r" .*", "", block, flags=re.DOTALL) for block in packages if TORCH.match(block)]
    words = [f"{pin}+cpu" for pin in pins]
    if pip("--index-url", CPU_INDEX, "--retries", "0", "--timeout", "20", *words, capture_output=True):
        return pip(packages=[block for block in packages if not CUDA.match(block) and not TORCH.match(block)])
    print("PyTorch's build for CPUs could not be obtained from its index: taking the usual build (5 GB) in its place", flush=True)
    return pip(packages=[block for block in packages if not UNUSED.match(block)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install the locked packages into the environment of this Python.")
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto")
    wanted = parser.parse_args().torch
    sys.exit(not install(shutil.which("nvidia-smi") is not None if wanted == "auto" else wanted == "cuda"))
