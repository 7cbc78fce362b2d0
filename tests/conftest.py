"""What several test files share."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from .workflow.conftest import ROOT, snakemake, write_config

settings.register_profile("pqag", deadline=None)  # a busy machine is no failure
settings.load_profile("pqag")

#: The folder with the steps and the library, found without importing the library.
SCRIPTS = Path(importlib.util.find_spec("pqag").origin).parents[1]


@pytest.fixture(scope="session")
def scripts() -> Path:
    """The folder ``scripts/``."""
    return SCRIPTS


@pytest.fixture(scope="session")
def python():
    """Runs Python code with arguments in a process of its own, which imports the library that is tested here and no other."""

    def run(code, *arguments, start=subprocess.run, **options):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(SCRIPTS), os.environ.get("PYTHONPATH"))))}
        return start([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], env=environment, **options)

    return run


@pytest.fixture
def tiny():
    """The configuration of the tiny study, free to change."""
    return yaml.safe_load((ROOT / "config/tiny.yaml").read_text())


@pytest.fixture
def data():
    """96 images whose class is the brightest channel."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)
    images = rng.integers(0, 100, (96, 3, 32, 32), dtype=np.uint8)
    images[np.arange(96), labels] += 100
    return torch.from_numpy(images), torch.from_numpy(np.eye(3, dtype=np.uint8)[labels])


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A folder in which the tiny study was run, and what the run printed. Tests may plan there, but must change nothing."""
    return run_study(tmp_path_factory.mktemp("study"), yaml.safe_load((ROOT / "config/tiny.yaml").read_text()))


def run_study(folder, config):
    """Run the study ``config`` in ``folder``; gives ``folder`` and what the run printed."""
    write_config(folder / "config.yaml", config)
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done
