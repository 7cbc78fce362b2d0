"""The tests of the audit look at a study of Table 1 alone, in which they know every file by hand."""

import importlib.util

import pytest
import yaml

from ..workflow.conftest import ROOT
from .edits import copied

SPECIFICATION = importlib.util.spec_from_file_location("audit_command", ROOT / "scripts/audit.py")
#: The command as a module: ``command.main(["verify", "tiny"])`` is its exit status.
command = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(command)


@pytest.fixture(scope="session")
def study(table1):
    """A folder in which that study was run, and what the run printed. Tests may plan there but change nothing."""
    return table1


@pytest.fixture
def tiny(study):
    """The configuration of that study, free to change."""
    return yaml.safe_load((study[0] / "config.yaml").read_text())


@pytest.fixture
def folder(study, tmp_path, monkeypatch):
    """That study in a folder of its own, which is the working directory."""
    monkeypatch.chdir(copied(study[0], tmp_path))
    return tmp_path
