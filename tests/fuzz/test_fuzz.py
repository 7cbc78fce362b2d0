"""Readers of files keep their promise for changed files: other content counts as other content, everything else is one sentence."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from .readers import READERS, ROOT

FULL = [name for name in READERS if name.startswith("full")]
SMALL = [name for name in READERS if name not in FULL]
#: Mutations of each reader of small files. ``FUZZ=50000 FUZZ_SEED=1 pytest -m slow tests/fuzz`` reads others.
SEED, MANY = os.environ.get("FUZZ_SEED", "0"), int(os.environ.get("FUZZ", 2000))


def faults(readers: list[str], first: int, last: int) -> list[list]:
    """The faults of the mutations ``first`` to ``last`` (excluded): reader, number, file and fault. A process that one ends is a fault."""
    if not readers or first == last:
        return []
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.readers", ",".join(readers), SEED, str(first), str(last)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/scripts", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [line for line in lines if len(line) == 4 and line[3]]
    if done.returncode == 0:
        assert len(lines) == 2 * (last - first) * len(readers)
        return found
    assert lines and len(lines[-1]) == 2, done.stderr
    reader, number = lines[-1]
    found.append([reader, number, "", f"the process ended ({done.returncode}): {done.stderr[-2000:]}"])
    return found + faults([reader], number + 1, last) + faults(readers[readers.index(reader) + 1 :], first, last)


def test_some_changed_files_of_every_reader():
    assert faults(SMALL, 0, 10) == []


@pytest.mark.slow
def test_many_changed_files():
    """In two processes, each of which loads PyTorch once."""
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(faults, (SMALL, SMALL), (0, MANY // 2), (MANY // 2, MANY))] == [[], []]


@pytest.mark.slow
def test_changed_archives_of_full_size():
    assert faults(FULL, 0, 20) == []
