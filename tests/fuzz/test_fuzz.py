"""Readers of files keep their promise for changed files: other content counts as other content, everything else is one sentence."""

import json
import os
import subprocess
import sys

import pytest

from .readers import READERS, ROOT

#: Mutations of each reader: those of full-size archives are slow. FUZZ=50000 reads so many of every other.
FULL = [name for name in READERS if name.startswith("full")]
SEED, SOME, MANY = os.environ.get("FUZZ_SEED", "0"), 40, int(os.environ.get("FUZZ", 2000))


def faults(reader: str, first: int, last: int) -> list[tuple[str | None, str]]:
    """The faults of these mutations, each with its number and file."""
    found = []
    while first < last:
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.readers", reader, SEED, str(first), str(last)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}/scripts", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, done.stderr
        found += [line for line in lines if isinstance(line, list) and line[2]]
        if isinstance(lines[-1], int):
            found.append([lines[-1], "", f"the process ended ({done.returncode}): {done.stderr[-2000:]}"])
            first = lines[-1] + 1
        else:
            assert done.returncode == 0, done.stderr
            first = last
    return found


@pytest.mark.parametrize("reader", sorted(READERS.keys() - set(FULL)))
def test_some_changed_files(reader):
    assert faults(reader, 0, SOME) == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_changed_files(reader):
    assert faults(reader, SOME, 60 if reader in FULL else MANY) == []
