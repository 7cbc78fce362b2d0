"""Readers of files keep their promise for changed files: other content counts as other content, everything else is one sentence."""

import json
import os
import subprocess
import sys

import pytest

from .readers import READERS, ROOT

#: Mutations of each reader; those of full-size archives are slow. ``FUZZ=50000 FUZZ_SEED=1 pytest -m slow tests/fuzz`` reads others.
FULL = [name for name in READERS if name.startswith("full")]
SEED, SOME, MANY = os.environ.get("FUZZ_SEED", "0"), 10, int(os.environ.get("FUZZ", 2000))


def faults(readers: list[str], last: int) -> list[list]:
    """The faults of the first mutations of each reader: number, file and fault. A process that a mutation ends is one."""
    first, found = 0, []
    while first < last:
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.readers", ",".join(readers), SEED, str(first), str(last)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}/scripts", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found += [line for line in lines if isinstance(line, list) and line[2]]
        if done.returncode == 0:
            assert len(lines) == 2 * (last - first) * len(readers)
            break
        assert lines and isinstance(lines[-1], int), done.stderr
        found.append([lines[-1], "", f"the process ended ({done.returncode}): {done.stderr[-2000:]}"])
        first = lines[-1] + 1
    return found


def test_some_changed_files_of_every_reader():
    assert faults([name for name in READERS if name not in FULL], SOME) == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_changed_files(reader):
    assert faults([reader], 20 if reader in FULL else MANY) == []
