"""What several test files share."""

import fcntl
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from .audit.browser import Browser
from .workflow.conftest import ROOT, snakemake, write_config

# Tests share the cores with the studies that they run: threads wait as in rules/common.smk, and a test has one, as the attacks have with
# which it is compared bit for bit.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ.setdefault("OMP_NUM_THREADS", "1")

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A running Chromium; where none is installed, the test is skipped."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        assert "REQUIRE_CHROMIUM" not in os.environ, "Chromium is wanted here, but not installed"
        pytest.skip("Chromium is not installed")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def tiny():
    """The configuration of the tiny study, free to change."""
    return tiny_study()


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


def tiny_study(**changes):
    """The configuration of the tiny study with other values for some keys."""
    return yaml.safe_load((ROOT / "config/tiny.yaml").read_text()) | changes


def once(tmp_path_factory, name, make):
    """A copy of the folder that ``make(folder)`` fills once for all processes of the session, and what ``make`` returned."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (returned := shared.with_suffix(".pickle")).exists():
            shutil.rmtree(shared, ignore_errors=True)  # of a process that failed
            shared.mkdir()
            returned.write_bytes(pickle.dumps(make(shared)))
    return shutil.copytree(shared, tmp_path_factory.mktemp(name) / "copy", symlinks=True), pickle.loads(returned.read_bytes())


@pytest.fixture(scope="session")
def table1(tmp_path_factory):
    """A folder in which the tiny study was run with Table 1 alone, and what the run printed. Tests may plan there but change nothing."""
    only = {"tables": {"table3": {"models": []}, "table4": {"models": []}}, "figures": {"models": []}}
    return once(tmp_path_factory, "table1", lambda folder: run_study(folder, tiny_study(**only))[1])


@pytest.fixture(scope="session")
def study(tmp_path_factory, table1):
    """A folder in which that run went on to the whole tiny study, and what it printed. Tests may plan there but change nothing."""

    def run(folder):
        shutil.copytree(table1[0], folder, dirs_exist_ok=True, symlinks=True)
        return run_study(folder, tiny_study())[1]

    return once(tmp_path_factory, "study", run)


def run_study(folder, config):
    """Run the study ``config`` in ``folder``; gives ``folder`` and what the run printed."""
    write_config(folder / "config.yaml", config)
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done
